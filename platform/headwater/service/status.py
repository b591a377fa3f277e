"""The one document about a project: what the lake tells (``lake.status``), and what runs.

``headwater status``, /healthz, /metrics and the live display read it. Positions and counts come from the
catalog; rates and lag come from heartbeats and are None where no living process tells them: an old figure is
never shown as a present one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import psutil
from sqlalchemy import func, select

from headwater.catalog import tables
from headwater.catalog.live import LiveRow
from headwater.config import Project, mask
from headwater.lake.status import status as lake_status
from headwater.log import Log

UP = "up"
PIPELINE = "pipeline:main"
SOURCE_PREFIX = "source:"
BEAT_AGE_MAX_S = 15.0
"""A process that has not beaten for so long hangs; what it last said is no longer shown as present."""
_TOLD_BY_BEAT = ("received_lsn", "server_lsn", "lag_bytes", "lag_ms", "rows_per_s")


def collect(log: Log, project: Project) -> dict[str, Any]:
    """The state of a project now. Reads the catalog briefly, never waits for a writer.

    ``position`` (newest commit), ``position_time``, ``input_position`` (newest commit the views hold),
    ``sources``, ``views``, ``jobs``, ``stored``, ``topics``, ``partitions``, ``groups``, ``components``, ``http`` (of
    /healthz and /metrics while ``up`` runs), ``project``, ``lake``. Times are UTC ISO texts; durations, sizes and ages
    say their unit.
    """
    live = log.live.read()
    document = lake_status(log)
    step = log.last_step()
    position = document["position"]
    return {
        "project": project.name,
        "lake": str(log.folder),
        "position": position,
        "position_time": log.commit_info(position).time.isoformat() if position else None,
        "input_position": step.input_commit if step else None,
        "sources": _sources(document["sources"], project, live),
        "views": _views(log, document["views"], live),
        "jobs": document["jobs"],
        "stored": document["stored"],
        "topics": _topics(log, document["topics"]),
        "quarantine": document["quarantine"],
        "incidents": document["incidents"],
        "partitions": document["partitions"],
        "groups": document["groups"],
        "chain": document["chain"],
        "held": document["held"],
        "components": components(live),
        "http": _address(live.get(UP)),
    }


def fresh(row: LiveRow) -> bool:
    """Whether the process that beat is alive and beat lately."""
    return time.time() - row.beat_at <= BEAT_AGE_MAX_S and running(row)


def running(row: LiveRow) -> bool:
    """Whether the process that beat still exists: its pid, and not a younger process that got the same one."""
    try:
        return psutil.Process(row.pid).create_time() <= row.beat_at
    except psutil.NoSuchProcess:
        return False


def components(live: Mapping[str, LiveRow]) -> list[dict[str, Any]]:
    """Every process that ever beat: its state, its pid while it lives, the age of its last beat."""
    return [
        {
            "name": name,
            "state": state_of(row),
            "pid": row.pid if running(row) else None,
            "age_s": age_of(row),
            "error": error_of(row),
        }
        for name, row in sorted(live.items())
    ]


def state_of(row: LiveRow | None) -> str:
    """What the component says of itself while it lives; 'stopped', 'error' or 'stale' when it does not."""
    if row is None:
        return "stopped"
    said = str(row.stats.get("state", "running"))
    if not running(row):
        return "error" if said == "error" else "stopped"
    return said if fresh(row) else "stale"


def error_of(row: LiveRow | None) -> str | None:
    """What the component last said went wrong, without secrets."""
    error = row.stats.get("error") if row is not None else None
    return mask(str(error)) if error else None


def age_of(row: LiveRow | None) -> float | None:
    """Seconds since the component's last beat."""
    return None if row is None else round(time.time() - row.beat_at, 3)


def _sources(found: list[dict[str, Any]], project: Project, live: Mapping[str, LiveRow]) -> list[dict[str, Any]]:
    """Those the log knows and those that are only declared yet."""
    known = {each["name"]: each for each in found}
    sources = []
    for name in sorted({*known, *project.sources}):
        row = live.get(SOURCE_PREFIX + name)
        declared = project.sources.get(name)
        document = {"name": name, "confirmed_lsn": None, "rows": None, "commits": None, **known.get(name, {})}
        document |= {"kind": declared.kind if declared else None, "state": state_of(row), "error": error_of(row)}
        silent = row is None or not fresh(row)
        document |= {key: None if silent else document.get(key) for key in _TOLD_BY_BEAT}
        sources.append({**document, "age_s": age_of(row)})
    return sources


def _views(log: Log, found: list[dict[str, Any]], live: Mapping[str, LiveRow]) -> list[dict[str, Any]]:
    """Lag is the age of the oldest input the views do not hold, read off the log: true without a worker too."""
    row = live.get(PIPELINE)
    silent = row is None or not fresh(row)
    lags = {commit: _lag_ms(log, commit) for commit in {each["input_commit"] for each in found} if commit is not None}
    return [
        {
            **each,
            "lag_ms": lags.get(each["input_commit"]),
            "rows_per_s": None if silent else each["rows_per_s"],
            "reason": each["reason"] or error_of(row),
            "age_s": age_of(row),
        }
        for each in found
    ]


def _lag_ms(log: Log, consumed: int) -> float:
    oldest = _oldest_unseen(log, consumed)
    return 0.0 if oldest is None else round((datetime.now(UTC) - oldest).total_seconds() * 1000, 1)


def _oldest_unseen(log: Log, consumed: int) -> datetime | None:
    """The time of the first commit after ``consumed`` that is not the pipeline's own."""
    commit = tables.commit
    query = select(func.min(commit.c.number)).where(commit.c.number > consumed, commit.c.producer != PIPELINE)
    with log.catalog.read() as connection:
        number = connection.execute(query).scalar_one_or_none()
    return None if number is None else log.commit_info(number).time


def _topics(log: Log, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With what of each is sealed."""
    sealed = _sealed(log)
    return [each | sealed.get(each["name"], {"sealed": 0, "sealed_bytes": 0, "segments": 0}) for each in found]


def _sealed(log: Log) -> dict[str, dict[str, int]]:
    segment, file = tables.segment, tables.file
    query = (
        select(segment.c.topic, func.sum(segment.c.rows), func.sum(file.c.bytes), func.count())
        .join(file, file.c.id == segment.c.file)
        .where(file.c.removed.is_(None))
        .group_by(segment.c.topic)
    )
    names = {each.id: each.name for each in log.topics()}
    with log.catalog.read() as connection:
        return {
            names[topic]: {"sealed": int(rows), "sealed_bytes": int(size), "segments": int(files)}
            for topic, rows, size, files in connection.execute(query)
            if topic in names
        }


def _address(up: LiveRow | None) -> str | None:
    port = up.stats.get("http_port") if up is not None and fresh(up) else None
    return f"http://127.0.0.1:{port}" if port else None
