"""What the log knows of each captured table: its shape in force, and where its changes go. Kept in the catalog.

A record changes with the commit in which the change takes effect, so after any crash it says what the log holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from sqlalchemy import select

from headwater.catalog import tables
from headwater.catalog.records import Kind
from headwater.log import Log
from headwater_connectors.postgres.catalog import TableInfo, log_names
from headwater_connectors.postgres.composite_types import Composites
from headwater_connectors.postgres.printing import Attribute
from headwater_connectors.postgres.relation import Relation

Route = Literal["topic", "pending", "nowhere", "outbox"]
"""topic: live. pending: a copy runs, and takes them up when it appears. nowhere: in quarantine or left. outbox: its
inserted rows are events of other topics."""

RETYPED = 10_000
"""A column whose type changed is another field of the log: its id is this much higher each time."""


@dataclass(frozen=True, kw_only=True)
class KnownColumn:
    """A column as the stream announces it (name, type, modifier), and what tells alterations of it apart."""

    number: int
    name: str
    type_oid: int
    modifier: int
    not_null: bool
    changed: int
    field: int
    composites: Composites = ()
    """Composite types in its type, as the column's topic has them."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """``parts``: filenode of each part by its oid. ``copy``: the running copy's id, whose changes go to ``pending``.

    ``shown``: the topic that readers see now, empty before the first copy appears. With ``replaces`` the copy's rows
    become a new topic; else they are compared with those of ``shown`` and the differences appended.
    """

    oid: int
    topic: str
    namespace: str
    name: str
    kind: Kind
    identity: str
    key: tuple[int, ...]
    columns: tuple[KnownColumn, ...]
    parts: Mapping[int, int]
    route: Route = "topic"
    copy: str = ""
    shown: str = ""
    replaces: bool = False
    reason: str = ""
    columns_ever: int = 0
    """The highest number of a column that the table had: a new one is higher. 0 in records of earlier releases."""
    chosen: str = ""
    """The project's condition on rows that are captured."""
    published: str = ""
    """... as the server spells it, once it is published so."""
    counted: int = -1
    """How many updates and deletes the server had counted when a table without identity was copied; -1: not asked."""
    where: str = ""
    """The copy compares only the rows that this condition selects."""
    lacking: str = ""
    """Why the table was, and after such a copy will be, incomplete."""

    @property
    def pending(self) -> str:
        """The hidden topic that takes the table's changes while it is copied."""
        return f"{self.topic}.pending"

    @property
    def source(self) -> str:
        return self.topic.partition(".")[0]

    @property
    def full_name(self) -> str:
        return f"{self.namespace}.{self.name}"

    @property
    def composites(self) -> dict[int, Composites]:
        """Of each column's type that is a composite, or has one in it."""
        return {column.type_oid: column.composites for column in self.columns if column.composites}

    @property
    def ids(self) -> dict[int, int]:
        """Field ids by column number."""
        return {column.number: column.field for column in self.columns}

    def announced_as(self, relation: Relation) -> bool:
        """Whether the stream announces the table in just this shape, and with the identity its kind needs."""
        ours = [(column.name, column.type_oid, column.modifier) for column in self.columns]
        theirs = [(column.name, column.type_oid, column.modifier) for column in relation.columns]
        return ours == theirs and self._identified_as(relation)

    def _identified_as(self, relation: Relation) -> bool:
        if relation.identity == "f" or self.kind == "multiset":  # of a table without identity, one that cannot be used
            return relation.identity == "f" and (self.kind != "insert_only" or self.identity == "f")
        marked = {column.name for column in relation.columns if column.identity}
        return marked == {column.name for column in self.columns if column.number in self.key}

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Known:
        body = json.loads(text)
        body["key"] = tuple(body["key"])
        body["columns"] = tuple(_column(**column) for column in body["columns"])
        body["parts"] = {int(oid): filenode for oid, filenode in body["parts"].items()}
        return cls(**body)


def _column(composites: Sequence[tuple[int, list[dict[str, Any]]]] = (), **facts: Any) -> KnownColumn:
    made = tuple((oid, tuple(Attribute(**each) for each in attributes)) for oid, attributes in composites)
    return KnownColumn(**facts, composites=made)


def of_table(table: TableInfo, topic: str, before: Known | None = None, retyped: frozenset[int] = frozenset()) -> Known:
    """The record of a table as the server's catalog has it now; field ids go on from ``before``."""
    numbers = {column.name: column.number for column in table.columns}
    ids = before.ids if before else {}
    columns = tuple(
        KnownColumn(
            number=column.number, name=column.name, type_oid=column.type_oid, modifier=column.modifier,
            not_null=column.not_null, changed=column.changed,
            field=ids.get(column.number, column.number) + (RETYPED if column.number in retyped else 0),
            composites=column.composites,
        )
        for column in table.columns
    )  # fmt: skip
    return Known(
        oid=table.oid,
        topic=topic,
        namespace=table.namespace,
        name=table.name,
        kind=table.kind,
        identity=table.identity,
        key=tuple(numbers[name] for name in table.key) if table.kind == "table" else (),
        columns=columns,
        parts={part.oid: part.filenode for part in table.parts},
        shown=before.shown if before else "",
        columns_ever=table.columns_ever,
        chosen=table.where,
        published=before.published if before and before.chosen == table.where else "",
        counted=before.counted if before else -1,
    )


def of_other(known: Known, table: TableInfo) -> Known:
    """The record of ``known`` as if it were that of another table with the same columns, whose numbers are others.

    Of one with other columns: what it takes for the topic to be made anew.
    """
    numbers = {column.name: column.number for column in table.columns}
    if set(numbers) != {column.name for column in known.columns}:
        return replace(known, oid=table.oid, kind="insert_only", key=())
    new = {column.number: numbers[column.name] for column in known.columns}
    columns = tuple(replace(column, number=new[column.number]) for column in known.columns)
    key, parts = tuple(new[number] for number in known.key), {part.oid: part.filenode for part in table.parts}
    return replace(
        known, oid=table.oid, columns=columns, key=key, parts=parts, columns_ever=table.columns_ever, published=""
    )


def unshaped(known: Known) -> Known:
    """The record as earlier releases wrote it, whose topics have composites as texts: they are copied again."""
    return replace(known, columns=tuple(replace(column, composites=()) for column in known.columns))


def is_still(known: Known, table: TableInfo) -> bool:
    """Whether the table is what the record says, whatever becomes of its changes meanwhile."""
    now = of_table(table, known.topic, known)
    return now == replace(known, route=now.route, copy="", replaces=False, reason="", where="", lacking="")


def key_names(known: Known) -> tuple[str, ...]:
    """The key's columns by their names in the log."""
    names = log_names([column.name for column in known.columns])
    by_number = dict(zip((column.number for column in known.columns), names, strict=True))
    return tuple(by_number[number] for number in known.key)


def setting(source: str, oid: int) -> str:
    return f"source:{source}:table:{oid}"


def load(log: Log, source: str) -> dict[int, Known]:
    """Every captured table of a source by its oid."""
    prefix = f"source:{source}:table:"
    query = select(tables.setting.c.value).where(tables.setting.c.name.startswith(prefix, autoescape=True))
    with log.catalog.read() as connection:
        found = [Known.from_json(row.value) for row in connection.execute(query)]
    return {known.oid: known for known in found}
