"""How each asset is, read off ``headwater status --json`` at one moment: where it stands, its figures, its verdicts.

One reading serves the sensor, the checks that somebody executes by hand, and what is said after a materialization.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import dagster as dg

from headwater.config import Project
from headwater.lake import health as judged
from headwater.lake.rules import Row, Verdict
from headwater.log import Log, backlog
from headwater.service.status import collect
from headwater_dagster.inventory import JOBS_NAMESPACE, VIEWS_NAMESPACE, Inventory, TopicData, lake_exists
from headwater_dagster.kept import log_of
from headwater_dagster.resource import HeadwaterResource
from headwater_dagster.translator import input_keys, job_key, source_key, topic_key, view_key

LAG, SLOT, SCHEMA, WHOLE, LETTERS = "lag", "slot", "schema", "whole", "dead_letters"
FRESH, WATERMARK, EQUAL = "fresh", "watermark", "equals_query"
SOURCED = "equals_source"
WHAT = {
    LAG: "It runs, and is not too far behind what it reads.",
    SLOT: "The replication slot keeps what the lake has not got yet, and not too much.",
    SCHEMA: "It is written by a schema that its records and readers can live with.",
    WHOLE: "None of its records is known to be damaged.",
    SOURCED: "Its rows are those of its source. By hand, all of them are compared now.",
    LETTERS: "Not too many rows are set aside and wait for somebody to look.",
    FRESH: "What a reader sees is not too old: its sources are heard, and taken in.",
    WATERMARK: "Event time does not run ahead of the clock, and few rows come behind it.",
    EQUAL: "Its rows are those of its query. Compared by parts all the time; by hand, all of them now.",
}


@dataclass(frozen=True, kw_only=True)
class Health:
    """One asset. ``position``: where it stands; ``state``: a word; ``figures``: what is plotted."""

    key: dg.AssetKey
    kind: Literal["source", "topic", "view", "job"]
    name: str
    state: str
    position: int
    figures: Mapping[str, Any]
    verdicts: tuple[Verdict, ...]
    trouble: str | None = None
    """What it said last that went wrong."""

    @property
    def mark(self) -> list[Any]:
        """What is reported at once when it changes; figures alone are not."""
        return [self.state, *(list(each.mark) for each in self.verdicts)]


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is to be reported on: the assets that Dagster has loaded; of topics and views, the checks they can have."""

    sources: frozenset[str]
    topics: Mapping[str, tuple[str, ...]]
    views: Mapping[str, tuple[str, ...]]
    jobs: frozenset[str]
    reads: Mapping[str, frozenset[str]]
    """Of each view, the full names of the topics that it reads, through other views as well; a job's by its key."""


def known(inventory: Inventory) -> Known:
    views = {each.view.name: each for each in inventory.views}
    return Known(
        sources=frozenset(each.source.name for each in inventory.sources),
        topics={each.topic.name: _topic_checks(each) for each in inventory.topics},
        views={name: _checks(each.view.options) for name, each in views.items()},
        jobs=frozenset(each.job.name for each in inventory.jobs),
        reads={name: _topics(name, set(), inventory) for name in views},
    )


def _topic_checks(data: TopicData) -> tuple[str, ...]:
    is_table = data.source is not None and data.topic.kind in ("table", "multiset")
    return (SCHEMA, WHOLE, LETTERS, *((SOURCED,) if is_table else ()))


def _checks(options: Mapping[str, Any]) -> tuple[str, ...]:
    fresh = (FRESH,) if options.get("refresh", "continuous") == "continuous" else ()
    marked = (WATERMARK,) if "watermark" in options else ()
    letters = (LETTERS,) if "on_error" in options else ()
    return (LAG, *fresh, *marked, *letters, EQUAL)


def _topics(name: str, seen: set[str], inventory: Inventory) -> frozenset[str]:
    """Full names of the topics that a view reads; through other views as well."""
    seen.add(name)
    data = next(each for each in inventory.views if each.view.name == name)
    found: set[str] = set()
    for path in (key.path for key in input_keys(data)):
        if path[0] != VIEWS_NAMESPACE:
            found.add(".".join(path))
        elif path[1] not in seen:
            found |= _topics(path[1], seen, inventory)
    return frozenset(found)


def check_specs(found: Known) -> list[dg.AssetCheckSpec]:
    """Every check that ``take`` can give a verdict on."""
    names: list[tuple[dg.AssetKey, tuple[str, ...]]] = [
        *((source_key(each), (LAG, SLOT)) for each in sorted(found.sources)),
        *((topic_key(each), checks) for each, checks in sorted(found.topics.items())),
        *((view_key(each), checks) for each, checks in sorted(found.views.items())),
        *((job_key(each), (LAG, LETTERS)) for each in sorted(found.jobs)),
    ]
    return [dg.AssetCheckSpec(name, asset=key, description=WHAT[name]) for key, checks in names for name in checks]


def take(project: Project, found: Known) -> list[Health]:
    """How everything is now. Reads the catalog and the heartbeats for some milliseconds; opens no data file."""
    if not lake_exists(project.lake_dir):
        return [_source(judged.unseen(name), 0, project) for name in sorted(found.sources)]
    log = log_of(project.lake_dir)
    now = collect(log, project)
    waiting = _waiting(log, now, found)
    now["views"] = [row | {"lag_rows": waiting.get(row["name"])} for row in now["views"]]
    return [
        *_sources(now, found, project),
        *_topic_rows(now, found, project),
        *_views(now, found, project),
        *_jobs(now, found, project),
    ]


def _waiting(log: Log, now: Row, found: Known) -> dict[str, int]:
    """Records that each view has not taken in, about; without those that have taken in none, or are not asked for."""
    ids = {topic.name: topic.id for topic in log.topics()}
    readers: dict[int, dict[str, set[int]]] = {}
    for row in now["views"]:
        if (reads := found.reads.get(row["name"])) is not None and row["input_commit"] is not None:
            readers.setdefault(row["input_commit"], {})[row["name"]] = {ids[name] for name in reads & ids.keys()}
    return {
        name: each.total
        for commit, views in readers.items()
        for name, each in backlog.of_each(log, views, commit, now["position"]).items()
    }


def _sources(now: Row, found: Known, project: Project) -> Iterator[Health]:
    rows = {row["name"]: row for row in now["sources"]}
    for name in sorted(found.sources):
        yield _source(rows.get(name) or judged.unseen(name), now["position"], project)


def _source(row: Row, position: int, project: Project) -> Health:
    names = (
        "lag_ms",
        "lag_bytes",
        "rows_per_s",
        "rows",
        "commits",
        "spill_bytes",
        "retained_wal_bytes",
        "confirmed_lsn",
    )
    return Health(
        key=source_key(row["name"]),
        kind="source",
        name=row["name"],
        state=row["state"],
        position=row["rows"] or 0,
        figures={"position": position} | {name: row[name] for name in names if row.get(name) is not None},
        verdicts=judged.of_source(row, project.slo(row["name"])),
        trouble=row["error"],
    )


def _topic_rows(now: Row, found: Known, project: Project) -> Iterator[Health]:
    at = time.time()
    for row in now["topics"]:
        if row["name"] not in found.topics:
            continue
        yield Health(
            key=topic_key(row["name"]),
            kind="topic",
            name=row["name"],
            state=row["state"],
            position=row["records"],
            figures={
                "records": row["records"],
                "sealed_records": row["sealed"],
                "sealed_bytes": row["sealed_bytes"],
                "files": row["segments"],
                "dead_letters_open": row["dead_letters"]["open"],
            },
            verdicts=judged.of_topic(now, row, project.slo(row["name"]), at),
        )


def _views(now: Row, found: Known, project: Project) -> Iterator[Health]:
    at = time.time()
    for row in now["views"]:
        if (name := row["name"]) not in found.views:
            continue
        slo, zone = project.slo(f"{VIEWS_NAMESPACE}.{name}"), project.settings.timezone
        given = judged.of_view(now, row, found.reads[name], slo, at, zone)
        names = ("lag_ms", "lag_rows", "rows_per_s", "step_ms_p95", "state_bytes", "late_rows")
        yield Health(
            key=view_key(name),
            kind="view",
            name=name,
            state=row["state"],
            position=row["input_commit"] or 0,
            figures={"rows_total": row["rows"]} | {each: row[each] for each in names if row[each] is not None},
            verdicts=tuple(each for each in given if each.check in found.views[name]),
            trouble=row["reason"],
        )


def _jobs(now: Row, found: Known, project: Project) -> Iterator[Health]:
    for row in now["jobs"]:
        if (name := row["name"]) not in found.jobs:
            continue
        names = ("lag_ms", "lag_rows", "rows_per_s", "step_ms_p95", "state_rows")
        yield Health(
            key=job_key(name),
            kind="job",
            name=name,
            state=row["state"],
            position=row["input_commit"] or 0,
            figures={"rows_total": row["rows_out"]} | {each: row[each] for each in names if row[each] is not None},
            verdicts=judged.of_job(row, project.slo(f"{JOBS_NAMESPACE}.{name}")),
            trouble=row["reason"],
        )


def due(resource: HeadwaterResource, topics: Sequence[str]) -> set[str]:
    """Of these tables, those that were not compared with their source within half of what is promised."""
    project, now = resource.project, time.time()
    if not lake_exists(project.lake_dir):
        return set()
    with resource.log() as log:
        compared = {row["name"]: row["compared"] for row in collect(log, project)["sources"]}
    found = set()
    for topic in topics:
        source, table = topic.split(".", 1)
        promised, last = project.slo(topic).source_compared_within_s, compared.get(source, {}).get(table)
        at = last["at"] if last else 0.0
        if promised and now - at > promised / 2:
            found.add(topic)
    return found
