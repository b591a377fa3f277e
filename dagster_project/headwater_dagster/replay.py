"""Backfills: a view made anew from the log over hours, or between two positions, compared with the live one, promoted.

Two faces of one call, ``headwater_pipelines.api.replay_view``: an asset per view whose hourly partitions are chosen in
the UI and replayed in one run, and a job with exact positions. Cancelling either leaves the live view as it is.

Dagster reads the annotations of ops when it decorates them: no ``from __future__ import annotations`` here.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from headwater.errors import HeadwaterError
from headwater_dagster import run_process
from headwater_dagster.health import EQUAL
from headwater_dagster.inventory import ViewData
from headwater_dagster.resource import HeadwaterResource
from headwater_dagster.translator import replay_key, view_key
from headwater_pipelines import api

if TYPE_CHECKING:  # the compiler comes with it, and definitions are to load quickly
    from headwater_pipelines.replay.replay import Replayed

JOB = "replay"
OP = "replay_view"
POOL = "replay"
KEPT = "replays"
"""The project's folder for rows that are kept: one file per view, the newest."""


class PartitionConfig(dg.Config):
    """What becomes of it. Without either, the rows that were made are compared and go.

    ``promote``: put what was replayed in the live view's place, in one commit that holds the difference.
    ``keep``: write its rows to ``replays/VIEW.parquet`` in the project, for somebody to look at.
    """

    promote: bool = False
    keep: bool = False


class ReplayConfig(PartitionConfig):
    """Positions as ``headwater sql --at`` takes them: ``commit:42``, a time, ``tag:NAME``, ``latest``.

    Without ``start``: from the rows that the tables have at ``stop``.
    """

    view: str
    start: str = ""
    stop: str = "latest"


@dg.op(name=OP, pool=POOL, description="Makes a view anew beside the live one, compares both, and promotes on request.")
def replay_view(context: dg.OpExecutionContext, config: ReplayConfig, headwater: HeadwaterResource) -> None:
    done = _replayed(context, headwater, config.view, config.start or None, config.stop, config)
    context.log_event(dg.AssetMaterialization(asset_key=replay_key(config.view), metadata=metadata(done)))
    _report(context, config.view, done)


def build_replay_job() -> dg.JobDefinition:
    """The job with exact positions; in the launchpad, by GraphQL, or from a notebook."""

    @dg.job(
        name=JOB,
        executor_def=dg.in_process_executor,
        description="Replays a view between two positions of the log. The live view stays until it is promoted.",
    )
    def replay() -> None:
        replay_view()

    return replay


def build_replay_assets(views: Sequence[ViewData], since: datetime | None) -> list[dg.AssetsDefinition]:
    """Beside each view an asset with the hours since the lake began; none while there is no commit."""
    if since is None:
        return []
    begins = since.replace(minute=0, second=0, microsecond=0)
    hours = dg.HourlyPartitionsDefinition(start_date=begins, end_offset=1)  # the one that has not ended, too
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # backfill_policy is one, and the only way to a single run
        return [_asset(data.view.name, hours) for data in views]


def _asset(name: str, hours: dg.HourlyPartitionsDefinition) -> dg.AssetsDefinition:
    key = replay_key(name)

    @dg.asset(
        key=key,
        deps=[view_key(name)],
        group_name="replay",
        kinds={"duckdb"},
        partitions_def=hours,
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=POOL,
        description=f"View {name}, made anew from the changes of the chosen hours on top of the rows before them.",
    )
    def replayed(
        context: dg.AssetExecutionContext, config: PartitionConfig, headwater: HeadwaterResource
    ) -> Iterator[dg.MaterializeResult[None]]:
        window = context.partition_time_window
        with headwater.log() as log:
            start, stop = log.commit_at_time(window.start), log.commit_at_time(window.end)
        done = _replayed(context, headwater, name, f"commit:{start}", f"commit:{stop}", config)
        _report(context, name, done)
        yield dg.MaterializeResult(metadata=metadata(done))

    return replayed


def _replayed(
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
    headwater: HeadwaterResource,
    name: str,
    start: str | None,
    stop: str,
    config: PartitionConfig,
) -> "Replayed":
    """Replay for this run. Raises Failure with headwater's own paragraph."""
    project = headwater.project
    keep = project.root / KEPT / f"{name}.parquet" if config.keep else None
    say: Callable[[str], None] = context.log.info
    run_process.give_way()
    try:
        with headwater.log() as log:
            return api.replay_view(log, project, name, start, stop, promote=config.promote, keep=keep, say=say)
    except HeadwaterError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error


def metadata(done: "Replayed") -> dict[str, Any]:
    """Numbers become time series in the UI."""
    found = done.comparison
    return {
        "from_commit": done.start,
        "to_commit": done.stop,
        "records": done.rows,
        "seconds": round(done.seconds, 3),
        "records_per_s": round(done.rows / done.seconds) if done.seconds else 0,
        "dagster/row_count": found.replayed.rows,
        "live_rows": found.live.rows,
        "missing": found.missing,
        "extra": found.extra,
        "checksum": found.replayed.checksum,
        "live_checksum": found.live.checksum,
        "promoted_commit": done.commit,
    }


def _report(context: dg.OpExecutionContext | dg.AssetExecutionContext, name: str, done: "Replayed") -> None:
    """Say on the view's own page what came of it."""
    found = dg.AssetCheckEvaluation(asset_key=view_key(name), check_name=EQUAL, **verdict(done))
    context.log_event(found)  # type: ignore[arg-type]  # it takes them, its annotation does not say so


def verdict(done: "Replayed") -> dict[str, Any]:
    """What the check makes of it: a difference is an error until it is mended."""
    sample = [{name: str(value) for name, value in row.items()} for row in done.comparison.sample]
    return {
        "passed": done.comparison.is_same or done.commit > 0,
        "severity": dg.AssetCheckSeverity.ERROR,
        "description": str(done.comparison) + (f"; promoted at commit {done.commit}" if done.commit else ""),
        "metadata": {**metadata(done), "sample": dg.MetadataValue.json(sample)},
    }
