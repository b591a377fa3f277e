"""Maintenance as assets: each does what is due once, bounded, and says in figures what it did.

They share the log with the maintenance process of ``headwater up``. What rewrites files is done by whoever owns
``maintenance``: while another process is at it, nothing is done and ``busy`` is 1. The rest only reads, or is
Dagster's own. Each can be repeated, and killed at any moment: what is half done is done again, and never seen.

Dagster reads the annotations of what it decorates: no ``from __future__ import annotations`` here. The log's
machinery is imported when something runs: definitions are to load quickly.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, TypeVar

import dagster as dg

from headwater.config import Settings
from headwater.errors import HeadwaterError, OwnedElsewhere
from headwater.log import Log
from headwater_dagster import integrity, old_runs, run_process
from headwater_dagster.figures import table
from headwater_dagster.inventory import lake_exists
from headwater_dagster.resource import HeadwaterResource

GROUP = "maintenance"
T = TypeVar("T")
Figures = Iterator[dg.MaterializeResult[None]]


class ForceConfig(dg.Config):
    """``force``: not only what is due, but everything that can be done now."""

    force: bool = False


def key(name: str) -> dg.AssetKey:
    return dg.AssetKey([GROUP, name])


# What rewrites files, by whoever owns ``maintenance``.


@dg.asset(
    key=key("seal"),
    group_name=GROUP,
    output_required=False,
    description="Writes hot records into Parquet segments, merges small segments, writes the bases that are due.",
)
def seal(context: dg.AssetExecutionContext, config: ForceConfig, headwater: HeadwaterResource) -> Figures:
    """Bounded by what is hot, and by ``merge_passes_max``."""

    def work(log: Log, settings: Settings) -> dict[str, int]:
        from headwater import maintenance

        done = maintenance.seal_due(log, settings, force=config.force)
        if done["sealed"]:  # readers that may not write the folder see no commit that is not published
            maintenance.Publisher(log).publish(now=True)
        return done

    yield from _owned(context, headwater, work)


@dg.asset(
    key=key("compact"),
    group_name=GROUP,
    output_required=False,
    description="Of each key in topics with cleanup = compact, keeps only the newest record.",
)
def compact(context: dg.AssetExecutionContext, config: ForceConfig, headwater: HeadwaterResource) -> Figures:
    """Bounded by ``compact_rows_max`` records of each partition; partitions with few new records are left alone."""

    def work(log: Log, settings: Settings) -> dict[str, int]:
        from headwater import maintenance

        return {"compacted": maintenance.compact(log, settings, force=config.force)}

    yield from _owned(context, headwater, work)


@dg.asset(
    key=key("retain"),
    group_name=GROUP,
    output_required=False,
    description="Removes history beyond its time and files of writers that died, archives commits, reads some files "
    "again. Current rows, tags and what is being read stay.",
)
def retain(context: dg.AssetExecutionContext, headwater: HeadwaterResource) -> Figures:
    """Bounded by what is beyond its time; a base may have to be written for each topic, and 256 MB are read again."""

    def work(log: Log, settings: Settings) -> dict[str, int]:
        from headwater import maintenance

        return {**maintenance.retain(log, settings), **maintenance.start(log)}

    yield from _owned(context, headwater, work)


# What looks.


@dg.asset(
    key=key("compare"),
    group_name=GROUP,
    output_required=False,
    description="Compares rows of views with their queries, a part of each in turn: what `equals_query` judges.",
)
def compare(context: dg.AssetExecutionContext, headwater: HeadwaterResource) -> Figures:
    """Bounded by a few seconds, to the end of a part; what is not due yet is left alone."""

    def look(log: Log) -> Figures:
        from headwater_pipelines.replay import audit

        began = time.monotonic()
        done = audit.housekeep(headwater.project, log)
        yield dg.MaterializeResult(metadata={**done, "seconds": round(time.monotonic() - began, 3)})

    yield from _looked(context, headwater, look)


@dg.multi_asset(
    name="maintenance__verify",
    specs=[
        dg.AssetSpec(
            key("verify"),
            group_name=GROUP,
            description="Checks that commits and offsets have no gap, that every file is there with its size, and "
            "reads what is in quarantine again.",
        )
    ],
    check_specs=[integrity.spec(key("verify"))],
    can_subset=True,  # the check can be executed alone
)
def verify(context: dg.AssetExecutionContext, headwater: HeadwaterResource) -> integrity.Checked:
    """Bounded by the catalog's rows: no file is opened but those in quarantine."""
    found = _looked(context, headwater, lambda log: integrity.verify(log, key("verify"), deep=False))
    yield from integrity.chosen(context, found)


@dg.multi_asset(
    name="maintenance__verify_deep",
    specs=[
        dg.AssetSpec(
            key("verify_deep"),
            group_name=GROUP,
            description="As verify, and reads every byte of every live file, compares files with the catalog, and "
            "folds bases again.",
        )
    ],
    check_specs=[integrity.spec(key("verify_deep"))],
    can_subset=True,
)
def verify_deep(
    context: dg.AssetExecutionContext, config: integrity.DeepConfig, headwater: HeadwaterResource
) -> integrity.Checked:
    """Bounded by ``max_seconds``; a row group and DuckDB's limit in memory."""

    def look(log: Log) -> integrity.Checked:
        return integrity.verify(log, key("verify_deep"), deep=True, seconds=config.max_seconds)

    yield from integrity.chosen(context, _looked(context, headwater, look))


@dg.asset(
    key=key("dead_letters"),
    group_name=GROUP,
    output_required=False,
    description="Dead letters by topic and cause, and what has become of them.",
)
def dead_letters(context: dg.AssetExecutionContext, headwater: HeadwaterResource) -> Figures:
    """Bounded: one query over the catalog's index; no letter is read."""

    def look(log: Log) -> Figures:
        from headwater.client.letters import DeadLetters

        causes = DeadLetters(log).causes()
        counts = {state: sum(getattr(each, state) for each in causes) for state in ("open", "redriven", "discarded")}
        topics = len({each.topic for each in causes if each.open})
        rows = table("by_cause", [asdict(each) for each in causes])
        yield dg.MaterializeResult(metadata={**counts, "topics_with_open": topics, "causes": len(causes), **rows})

    yield from _looked(context, headwater, look)


@dg.asset(
    key=key("runs"),
    group_name=GROUP,
    description="Removes Dagster's own runs that ended longer ago than `run_history_s` in headwater.toml says.",
)
def runs(context: dg.AssetExecutionContext, headwater: HeadwaterResource) -> Figures:
    """Bounded by 2,000 runs and two minutes; the next day goes on."""
    began = time.monotonic()
    done = old_runs.remove(context.instance, headwater.project.settings.run_history_s)
    seconds = round(time.monotonic() - began, 3)
    yield dg.MaterializeResult(metadata={**asdict(done), "seconds": seconds})


ASSETS = (seal, compact, retain, compare, verify, verify_deep, dead_letters, runs)


def _owned(
    context: dg.AssetExecutionContext, headwater: HeadwaterResource, work: Callable[[Log, Settings], dict[str, int]]
) -> Figures:
    """Do ``work`` as the owner of ``maintenance``; its counts are the metadata, with ``busy`` and ``seconds``."""

    def look(log: Log) -> Figures:
        from headwater.maintenance import OWNER
        from headwater.ownership import own

        began = time.monotonic()
        try:
            with own(log, OWNER):
                done: dict[str, Any] = {**work(log, headwater.project.settings), "busy": 0}
        except OwnedElsewhere as error:
            done = {"busy": 1, "busy_with": str(error)}
        yield dg.MaterializeResult(metadata={**done, "seconds": round(time.monotonic() - began, 3)})

    return _looked(context, headwater, look)


def _looked(
    context: dg.AssetExecutionContext, headwater: HeadwaterResource, look: Callable[[Log], Iterator[T]]
) -> Iterator[T]:
    """What ``look`` has to say of the lake; nothing while there is none. Failure with headwater's own paragraph."""
    if not lake_exists(headwater.project.lake_dir):
        context.log.info("the project has no lake yet: nothing to do")
        return
    run_process.give_way()
    try:
        with headwater.log() as log:
            yield from look(log)
    except HeadwaterError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error
