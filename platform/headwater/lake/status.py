"""What runs and how far it is: the object of ``headwater status --json``, and of the Dagster lag check."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select

from headwater.catalog import tables
from headwater.catalog.live import LiveRow
from headwater.catalog.prepared import Prepared
from headwater.catalog.records import Step, Topic, to_datetime
from headwater.client import report
from headwater.log import (
    Log,
    chain,
    dead_letters,
    generations,
    incidents,
    jobs,
    leases,
    offsets,
    quarantine,
    tags,
    topic_settings,
)

_partition = tables.partition
_PARTITIONS = Prepared(select(_partition.c.topic, _partition.c.partition, _partition.c.next_offset))

AUDIT = "audit:"
"""Catalog setting, with a view's id: what ``replay.audit`` of the pipelines knows of its rows against its query."""
COMPARED = "compared:"
"""Catalog setting, with a source's name: what the last comparison of each of its tables found."""
FRESH_S = 5.0
"""A component that has not beaten for so long counts as stopped."""


def status(log: Log) -> dict[str, Any]:
    """Position, sources, views, what is stored for them, topics, partitions, groups, chain and what is held, as JSON.

    Figures come from the components' last heartbeats (``age_s`` says how old) and from the catalog; a source
    or view without a running component keeps its last known position and is ``stopped``.
    """
    live, counts = log.live.read(), _rows_by_topic(log)
    return {
        "position": log.newest_commit(),
        "time": time.time(),
        "sources": _sources(log, live),
        "views": _views(log, live, counts),
        "jobs": _jobs(log, live, counts),
        "stored": log.live.stored("pipeline:main"),
        "topics": _topics(log, counts),
        "quarantine": _quarantine(log),
        "incidents": [
            {"time": each.time.isoformat(), "kind": each.kind, "subject": each.subject, "what": each.what}
            for each in incidents.newest(log)
        ],
        "partitions": _partitions(log),
        "groups": [group_document(each) for each in report.groups(log)],
        "chain": _chain(log),
        "held": {"tags": [each.name for each in tags.listed(log)], "readers": leases.describe(log)},
    }


def _chain(log: Log) -> dict[str, Any]:
    """The newest link of the hash chain: what to keep elsewhere."""
    with log.catalog.read() as connection:
        entries, root = chain.head(connection)
    return {"entries": entries, "root": root.hex()}


def group_document(found: report.GroupReport) -> dict[str, Any]:
    """A consumer group as plain JSON values; also what `headwater group show --json` prints."""
    return {
        "name": found.name,
        "state": found.state,
        "status": found.status.name,
        "generation": found.generation,
        "members": list(found.members),
        "lag_rows": found.lag_rows,
        "lag_s": found.lag_s,
        "partitions": [{**vars(each), "status": each.status.name} for each in found.partitions],
    }


def _partitions(log: Log) -> list[dict[str, Any]]:
    """Where the open partitions of every topic begin and end: the first offset kept, the next one to come."""
    names = {topic.id: topic.name for topic in log.topics()}
    with log.catalog.read() as connection:
        states = offsets.states(connection, names)
    return [
        {
            "topic": names[state.topic],
            "partition": state.partition,
            "oldest_offset": state.start_offset,
            "current_offset": state.next_offset,
        }
        for state in states
        if state.closed is None
    ]


def _sources(log: Log, live: Mapping[str, LiveRow]) -> list[dict[str, Any]]:
    names = {topic.source for topic in log.topics(hidden=True) if topic.source}
    names |= {component.removeprefix("source:") for component in live if component.startswith("source:")}
    return [_source(log, name, live.get(f"source:{name}"), live.get(f"guard:{name}")) for name in sorted(names)]


def _source(log: Log, name: str, row: LiveRow | None, guard: LiveRow | None) -> dict[str, Any]:
    producer = log.producer(f"source:{name}")
    stats = dict(row.stats) if row else {}
    age = time.time() - row.beat_at if row else None
    if guard is not None and (row is None or guard.beat_at > row.beat_at):
        stats |= guard.stats  # of the slot, of which a capture that stands still says nothing new
    fresh = age is not None and age <= FRESH_S
    state = str(stats.get("state", "stopped")) if fresh or stats.get("state") == "error" else "stopped"
    return {
        "name": name,
        "state": state,
        "error": stats.get("error"),
        "mended_by": stats.get("mended_by") or None,
        "copying": stats.get("copying"),
        "copy": stats.get("copy"),
        "position": producer.position,
        "confirmed_lsn": stats.get("confirmed_lsn") or producer.confirmed or producer.position,
        "received_lsn": stats.get("received_lsn"),
        "server_lsn": stats.get("server_lsn"),
        "wal_status": stats.get("wal_status"),
        "safe_wal_bytes": stats.get("safe_wal_bytes"),
        "retained_wal_bytes": stats.get("retained_wal_bytes"),
        "invalidation_reason": stats.get("invalidation_reason"),
        "slot_warning": stats.get("slot_warning") or None,
        "inactive_since": stats.get("inactive_since"),
        "gap": _gap(log, name),
        "compared": json.loads(log.setting(f"{COMPARED}{name}") or "{}"),
        "spill_bytes": stats.get("spill_bytes"),
        "stream_bytes": stats.get("stream_bytes"),
        "lag_bytes": stats.get("lag_bytes"),
        "lag_ms": stats.get("lag_ms"),
        "rows": stats.get("rows"),
        "left_out": stats.get("left_out"),
        "events": stats.get("events"),
        "refused_events": stats.get("refused_events"),
        "ignored_messages": stats.get("ignored_messages"),
        "rows_per_s": stats.get("rows_per_s") if fresh else 0,
        "commits": stats.get("commits"),
        "age_s": None if age is None else round(age, 3),
    }


def _gap(log: Log, name: str) -> dict[str, str] | None:
    """The last range of a source's changes that was not seen, where there is one: at, from_lsn, to_lsn, reason."""
    said = log.setting(f"source:{name}:gap")
    return None if said is None else dict(json.loads(said))


def _views(log: Log, live: Mapping[str, LiveRow], counts: Mapping[int, int]) -> list[dict[str, Any]]:
    row = live.get("pipeline:main")
    stats = dict(row.stats) if row else {}
    fresh = row is not None and time.time() - row.beat_at <= FRESH_S
    step = log.last_step()
    newest_input = _newest_input(log)
    topics = {topic.name: topic for topic in log.topics()}
    ids = {name: topic.id for name, topic in topics.items()}
    new = {v.replaces: {"name": v.name, "state": v.state, "reason": v.reason} for v in log.replacements()}
    filling = json.loads(str(stats.get("filling") or "{}"))
    stored = log.live.stored("pipeline:main").values()
    found = []
    for view in log.views():
        mine = (
            step if view.refresh == "continuous" else log.newest_common_step(frozenset({view.id}), log.newest_commit())
        )
        behind = mine is None or view.id not in mine.views
        found.append(
            {
                "name": view.name,
                "state": view.state if fresh or view.state != "live" else "stopped",
                "reason": view.reason or None,
                "replacement": new.get(view.id),
                "fill": filling.get(view.name) if fresh else None,
                "refresh": view.refresh,
                "refresh_s": view.refresh_s,
                "input_commit": None if behind or mine is None else mine.input_commit,
                "lag_commits": None if behind or mine is None else max(0, newest_input - mine.input_commit),
                "lag_ms": stats.get("lag_ms"),
                "state_bytes": sum(each["bytes"] for each in stored if view.name in each["views"]),
                "rows": counts.get(ids.get(view.topic or "", -1), 0),
                **_event_time(view.id, topics.get(f"views.{view.name}.late"), mine, counts),
                "rows_per_s": stats.get("rows_per_s") if fresh else 0,
                "step_ms_last": stats.get("step_ms_last"),
                "step_ms_p95": stats.get("step_ms_p95"),
                "compared": json.loads(log.setting(f"{AUDIT}{view.id}") or "null"),
            }
        )
    return found


def _event_time(view: int, late: Topic | None, step: Step | None, counts: Mapping[int, int]) -> dict[str, Any]:
    """A view's watermark, as a time without a zone where its column has none, and how many rows came behind it."""
    if late is None:
        return {"watermark": None, "late_rows": None}
    micros = step.watermarks.get(view) if step else None
    shown = None if micros is None else to_datetime(micros)
    if shown and all(field.type == "TIMESTAMP" for field in late.schema.fields if field.name == "watermark"):
        shown = shown.replace(tzinfo=None)
    return {"watermark": shown.isoformat() if shown else None, "late_rows": counts.get(late.id, 0)}


def jobs_of(log: Log) -> list[dict[str, Any]]:
    """Every job: what it reads and writes, where it stands, and what its worker said last."""
    return _jobs(log, log.live.read(), _rows_by_topic(log))


def _jobs(log: Log, live: Mapping[str, LiveRow], counts: Mapping[int, int]) -> list[dict[str, Any]]:
    newest, ids = log.newest_commit(), {topic.name: topic.id for topic in log.topics()}
    with log.catalog.read() as connection:
        letters = dead_letters.counts(connection)
    found = []
    for record in jobs.read(log):
        output = ids.get(record.output, -1)
        written = {"rows_out": counts.get(output, 0), "dead_letters": letters.get(output, {"open": 0, "total": 0})}
        found.append(_job(log, record, live.get(record.producer), newest, written))
    return found


def _job(
    log: Log, record: jobs.JobRecord, row: LiveRow | None, newest: int, written: Mapping[str, Any]
) -> dict[str, Any]:
    stats = dict(row.stats) if row else {}
    fresh = row is not None and time.time() - row.beat_at <= FRESH_S and stats.get("state") != "stopped"
    place = jobs.position(log, record.name)
    rest = jobs.unseen(log, record, newest)
    lag_rows = None if rest is None else rest.total
    oldest = log.commit_info(rest.begins).time.timestamp() if rest is not None and lag_rows else time.time()
    return {
        "name": record.name,
        "state": "stopped" if record.state == "live" and not fresh else record.state,
        "reason": record.reason or None,
        "inputs": list(record.inputs),
        "output": record.output,
        "description": record.description,
        "file": record.file,
        "input_commit": place,
        "lag_rows": lag_rows,
        "lag_ms": round(max(0.0, time.time() - oldest) * 1e3, 1),
        "rows": stats.get("rows") if fresh else None,
        **written,
        "rows_per_s": stats.get("rows_per_s") if fresh else None,
        "step_ms_last": stats.get("step_ms_last"),
        "step_ms_p95": stats.get("step_ms_p95"),
        "state_rows": stats.get("state_rows"),
        "age_s": None if row is None else round(time.time() - row.beat_at, 3),
    }


def _topics(log: Log, counts: Mapping[int, int]) -> list[dict[str, Any]]:
    with log.catalog.read() as connection:
        letters = dead_letters.counts(connection)
    return [
        {
            "name": topic.name,
            "kind": topic.kind,
            "state": topic.state,
            "reason": topic.reason or None,
            "partitions": topic.partitions,
            "records": counts.get(topic.id, 0),
            "schema_version": topic.schema_version,
            "owner": topic.owner,
            "settings": topic_settings.shown(topic.settings),
            "dead_letters": letters.get(topic.id, {"open": 0, "total": 0}),
        }
        for topic in log.topics()
    ]


def _quarantine(log: Log) -> list[dict[str, Any]]:
    """The damaged parts that reads are refused by, by topic and partition."""
    names = {topic.id: topic.name for topic in log.topics(hidden=True)}
    with log.catalog.read() as connection:
        damaged = quarantine.everything(connection)
    return [{**vars(each), "topic": names.get(each.topic, str(each.topic))} for each in damaged]


def _rows_by_topic(log: Log) -> dict[int, int]:
    """Records ever written to each topic: how far the offsets of its partitions have come."""
    counts: dict[int, int] = defaultdict(int)
    with log.catalog.read() as connection:
        begins = generations.first_offsets(connection)
        for row in _PARTITIONS.all(connection):
            counts[row.topic] += row.next_offset - begins[row.topic, row.partition]
    return counts


def _newest_input(log: Log) -> int:
    """The newest commit that the pipeline has to take in."""
    commit = tables.commit
    query = select(func.max(commit.c.number)).where(commit.c.producer != "pipeline:main")
    with log.catalog.read() as connection:
        return connection.execute(query).scalar_one_or_none() or 0
