"""Relation messages and where a relation's changes go: its topic and the type of each column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater.catalog.records import Kind
from headwater_connectors.postgres.columns import ColumnType

if TYPE_CHECKING:
    from headwater_connectors.postgres.outbox import Outbox


@dataclass(frozen=True)
class RelationColumn:
    """A column as pgoutput announces it; ``type_oid`` and ``modifier`` are pg_attribute's, ``identity`` says
    whether it is part of the replica identity."""

    name: str
    type_oid: int
    modifier: int
    identity: bool


@dataclass(frozen=True)
class Relation:
    """A table's shape as pgoutput announces it before its first change and after each change of shape."""

    oid: int
    namespace: str
    name: str
    identity: str
    columns: tuple[RelationColumn, ...]

    @property
    def full_name(self) -> str:
        return f"{self.namespace}.{self.name}"

    @classmethod
    def parse(cls, message: bytes) -> Relation:
        """From an 'R' message, type byte included."""
        oid = int.from_bytes(message[1:5])
        namespace, name, rest = message[5:].split(b"\0", 2)
        identity, count, rest = chr(rest[0]), int.from_bytes(rest[1:3]), rest[3:]
        columns = []
        for _ in range(count):
            flags = rest[0]
            column, rest = rest[1:].split(b"\0", 1)
            modifier = int.from_bytes(rest[4:8], signed=True)
            columns.append(RelationColumn(column.decode(), int.from_bytes(rest[:4]), modifier, bool(flags & 1)))
            rest = rest[8:]
        # An empty namespace stands for pg_catalog.
        return cls(oid, namespace.decode() or "pg_catalog", name.decode(), identity, tuple(columns))


@dataclass(frozen=True)
class Target:
    """Where a relation's changes go. ``names`` and ``types`` are in the relation's column order; ``key`` are
    places in it."""

    topic: str
    kind: Kind
    relation: Relation
    names: tuple[str, ...]
    types: tuple[ColumnType, ...]
    key: tuple[int, ...] = ()
    outbox: Outbox | None = None
    """Of an outbox table: its rows are no rows of ``topic`` but events."""
    fluid: bool = False
    """A column's type may become another without an announcement: it has to be looked at before each batch of rows."""
