"""What the catalog holds, as the rest of the code sees it: frozen values, no rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from headwater.schema import Schema

Kind = Literal["table", "multiset", "insert_only", "changelog", "event", "transactions", "system"]
ViewState = Literal["creating", "live", "paused", "failed"]

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
class Topic:
    """A named log as of a commit. ``schema`` is the version in force there."""

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


@dataclass(frozen=True, kw_only=True)
class Step:
    """One advance of the pipeline: its views are their queries over the tables at ``input_commit``.

    ``publish_commit`` is 0 in a step that is being published; the transaction fills it in.
    """

    number: int
    input_commit: int
    instant: datetime
    views: frozenset[int]
    publish_commit: int = 0


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
