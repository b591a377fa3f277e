"""What the catalog holds, as the rest of the code sees it: frozen values, no rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal

from headwater.registry.compatibility import Mode
from headwater.schema import Schema

Kind = Literal["table", "multiset", "insert_only", "changelog", "event", "transactions", "system"]
Cleanup = Literal["delete", "compact", "both"]
Compatibility = Mode
ViewState = Literal["creating", "live", "waiting", "paused", "failed"]
"""``waiting``: a table it reads is being copied again; it goes on by itself."""

MAX_COMMIT = 2**63 - 1
"""No commit has this number; as a bound it means: whatever there is."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_datetime(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def to_micros(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True)
class CommitInfo:
    """A published commit: its number, its time (strictly growing), who wrote it and up to which position."""

    number: int
    time: datetime
    producer: str
    position: str | None
    rows: int = 0


@dataclass(frozen=True, kw_only=True)
class ProducerState:
    """Where a writer stands. ``position`` was stored by ``commit``, in the same transaction as its rows."""

    name: str
    epoch: int
    position: str | None
    commit: int | None
    confirmed: str | None


@dataclass(frozen=True, kw_only=True)
class TopicSettings:
    """What a topic is told about its own keeping. None: the lake's default, or no limit where there is none."""

    cleanup: Cleanup = "delete"
    """delete: whole segments go by age or size; compact: only the newest record of each key stays; both."""
    retention_s: float | None = None
    """Records older than this by their commit's time may go; event times are never trusted for it."""
    retention_bytes: int | None = None
    """The oldest segments go while the topic's sealed bytes exceed this."""
    delete_retention_s: float = 86_400.0
    """A compacted topic's tombstone stays this long, so that a reader less far behind sees it."""
    compaction_lag_s: float = 0.0
    """Records younger than this are left alone by compaction."""
    seal_bytes: int | None = None
    seal_age_s: float | None = None
    compatibility: Compatibility = "BACKWARD_TRANSITIVE"
    """What a new schema version must keep; transitive, because a log is replayed from its beginning."""
    dedupe_s: float | None = None
    """A record whose ``_event_id`` came within this time before is dropped and counted."""
    record_bytes_max: int = 1_048_576
    """A produced record of more bytes is refused: one row must not fill a batch."""

    @classmethod
    @lru_cache
    def from_json(cls, text: str) -> TopicSettings:
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """Only what differs from the defaults, so that a default may change for topics that never chose."""
        chosen = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return json.dumps(chosen, sort_keys=True)


@dataclass(frozen=True, kw_only=True)
class Topic:
    """A named log as of a commit. ``schema`` is the version in force there.

    New records go to the partitions ``first_partition`` to ``first_partition + partitions - 1``; lower ones
    belong to earlier generations (see ``log.repartition``).
    """

    id: int
    name: str
    kind: Kind
    source: str | None
    schema: Schema
    schema_version: int
    partitions: int
    state: str
    reason: str
    created: int
    dropped: int | None
    description: str
    hidden: bool
    settings: TopicSettings = TopicSettings()
    first_partition: int = 0
    owner: str | None = None
    criticality: str | None = None
    classification: str | None = None

    @property
    def open_partitions(self) -> range:
        """The partitions that take new records."""
        return range(self.first_partition, self.first_partition + self.partitions)


_UNIT_S = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}


@dataclass(frozen=True, kw_only=True)
class View:
    """A maintained query. ``topic`` is its changelog's name once its first step is published."""

    id: int
    name: str
    sql: str
    options: Mapping[str, Any]
    state: ViewState
    reason: str
    topic: str | None
    created: int
    dropped: int | None
    replaces: int | None = None
    """Of a replacement that is being built: the id of the view whose place it will take."""

    @property
    def refresh(self) -> str:
        """``continuous``: with every step; ``manual``; or ``every 5 minutes``."""
        return str(self.options.get("refresh", "continuous"))

    @property
    def refresh_s(self) -> int | None:
        """Seconds from one refresh to the next; None for a view that is refreshed all the time, or by hand."""
        _, *every = self.refresh.split()
        return int(every[0]) * _UNIT_S[every[1].removesuffix("s")] if every else None


@dataclass(frozen=True, kw_only=True)
class Step:
    """One advance of the pipeline: its views are their queries over the tables at ``input_commit``.

    ``publish_commit`` is 0 in a step that is being published; the transaction fills it in. ``watermarks``: of views
    with an event time, by id, in microseconds since 1970; a view is not among them before its first row.
    """

    number: int
    input_commit: int
    instant: datetime
    views: frozenset[int]
    publish_commit: int = 0
    watermarks: Mapping[int, int] = field(default_factory=dict, hash=False)

    @staticmethod
    def watermarks_of(text: str | None) -> dict[int, int]:
        """Watermarks as the catalog holds them."""
        return {int(view): int(micros) for view, micros in json.loads(text or "{}").items()}


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A hot batch: a byte range of a hot file."""

    topic: int
    partition: int
    first_offset: int
    commit: int
    rows: int
    path: str
    file: int
    byte_offset: int
    byte_length: int
    digest: str
    schema_version: int
    time: int


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A sealed Parquet file of one partition, in offset order."""

    file: int
    path: str
    topic: int
    partition: int
    schema_version: int
    rows: int
    bytes: int
    digest: str
    first_offset: int
    last_offset: int
    first_commit: int
    last_commit: int
    last_time: int | None = None
    compacted: int | None = None


@dataclass(frozen=True, kw_only=True)
class Base:
    """The compacted rows of a topic at a commit."""

    file: int
    path: str
    topic: int
    commit: int
    schema_version: int
    rows: int
    bytes: int
    digest: str
