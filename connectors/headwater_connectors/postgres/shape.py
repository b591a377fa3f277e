"""What changed between a table as the log knows it and as the server has it now, and what that does to its rows.

Relation messages say that a shape changed, never what became of the rows that were there: ADD COLUMN with a default,
ALTER TYPE USING, and RENAME against DROP and ADD look alike in the stream. The server's catalog tells them apart:
column numbers (a renamed column keeps its own), the value that older rows read, and whether the table's file is
another one. VACUUM FULL and TRUNCATE make a new file too, but leave the columns' catalog rows alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from headwater import default
from headwater.catalog.records import Topic
from headwater.config import OutboxConfig
from headwater.errors import HeadwaterError
from headwater.registry import promotion
from headwater.schema import Field, Schema
from headwater_connectors.postgres import catalog, composite_types
from headwater_connectors.postgres.catalog import ColumnInfo, TableInfo, log_names
from headwater_connectors.postgres.cells import PAD, Cells
from headwater_connectors.postgres.columns import ColumnType, column_type
from headwater_connectors.postgres.known import Known, is_still, key_names, of_table
from headwater_connectors.postgres.outbox import Outbox
from headwater_connectors.postgres.printing import Types
from headwater_connectors.postgres.relation import Relation, Target


@dataclass(frozen=True)
class Quiet:
    """No row changed: the next schema version, or the same one with other words about the table."""

    schema: Schema
    known: Known
    description: str = ""


@dataclass(frozen=True)
class Rewritten:
    """Rows may have changed that the stream does not tell of: the table has to be copied again.

    With ``known.replaces`` the topic itself must be another one: its rows are identified in another way.
    """

    reason: str
    schema: Schema
    known: Known


def target_of(relation: Relation, known: Known, types: Types, topic: str) -> Target:
    """Where the relation's changes go; the relation has the shape that ``known`` says."""
    names = log_names([column.name for column in relation.columns])
    kinds = tuple(
        column_type(column.type_oid, column.modifier, composite_types.shaped(types, ours.composites))
        for column, ours in zip(relation.columns, known.columns, strict=True)
    )
    key = tuple(map(names.index, key_names(known)))
    return Target(topic, known.kind, relation, tuple(names), kinds, key, fluid=bool(known.composites))


def outbox_target(relation: Relation, known: Known, config: OutboxConfig, types: Types) -> Target:
    """Where rows of an outbox table go, whatever shape it has; ``home`` is where its dead letters are."""
    names = log_names([column.name for column in relation.columns])
    kinds = tuple(column_type(column.type_oid, column.modifier, types) for column in relation.columns)
    outbox = Outbox(config, known.source, known.topic)
    return Target(known.topic, "insert_only", relation, tuple(names), kinds, outbox=outbox)


def compare(known: Known, table: TableInfo, topic: Topic, types: Types) -> Quiet | Rewritten | None:
    """What turns the table as known into the table as it is; None when nothing did. ``topic`` holds its rows."""
    kinds = dict(zip((column.number for column in table.columns), catalog.column_types(table, types), strict=True))
    retyped, first = _retyped(known, table, topic.schema, kinds)
    now = of_table(table, known.topic, known, retyped)
    schema = catalog.schema_of(table, types, now.ids)
    if table.full_name != known.full_name:
        renamed = replace(now, topic=catalog.topic_name(known.source, table.namespace, table.name), replaces=True)
        return Rewritten(f"it was called {known.full_name}", schema, renamed)
    if (now.kind, now.key) != (known.kind, known.key):
        what = f"its rows were identified by {_identity(known)}, and are by {_identity(now)}"
        return Rewritten(what, schema, replace(now, replaces=True))
    reason = _chosen_anew(known, table) or _composed_anew(known, table)
    reason = reason or _rewritten(known, table) or _odd_default(known, table, kinds)
    if retyped or reason:
        what = reason or f"the type of {first} changed"
        return Rewritten(what, schema, replace(now, replaces=_other_hash(known, topic.schema, schema)))
    schema = _with_defaults(schema, topic.schema, table, kinds)
    if is_still(known, table) and (schema, table.description) == (topic.schema, topic.description):
        return None
    return Quiet(schema, now, table.description)


def _other_hash(known: Known, before: Schema, after: Schema) -> bool:
    """Whether rows of one key would stand in different partitions, or read as different keys, before and after."""
    fields = [(before.by_id(known.ids[number]), after) for number in known.key]
    return any(
        old is None
        or (new := schema.by_id(old.id)) is None
        or (new.type != old.type and not promotion.keeps_hash(old.type, new.type))
        for old, schema in fields
    )


def _retyped(
    known: Known, table: TableInfo, schema: Schema, kinds: Mapping[int, ColumnType]
) -> tuple[frozenset[int], str]:
    """Columns whose type in the log is another now, and not a wider one; and the name of the first."""
    found = {}
    for column in table.columns:
        field = schema.by_id(known.ids.get(column.number, 0))
        kind = kinds[column.number].duckdb
        if field is not None and field.type != kind and not promotion.promotes(field.type, kind):
            found[column.number] = column.name
    return frozenset(found), next(iter(found.values()), "")


def _chosen_anew(known: Known, table: TableInfo) -> str:
    """Why rows or values that were there are captured now and were not before."""
    if table.where != known.chosen:
        return "which rows of it are captured was changed"
    ever = known.columns_ever or max((column.number for column in known.columns), default=0)
    for column in table.columns:
        if column.number not in known.ids and (column.number <= ever or column.generated):
            return f"column {column.name} was not captured before"
    return ""


def _composed_anew(known: Known, table: TableInfo) -> str:
    """Which column has a composite type that was altered: its rows read otherwise, and the stream says nothing."""
    before = {column.number: column.composites for column in known.columns}
    altered = (c.name for c in table.columns if before.get(c.number, c.composites) != c.composites)
    return "".join(f"the composite type of {name} changed" for name in list(altered)[:1])


def _rewritten(known: Known, table: TableInfo) -> str:
    """Why rows may hold other values than the stream has told: empty when they do not."""
    now = {part.oid: part.filenode for part in table.parts}
    attached = [part.name for part in table.parts if part.oid not in known.parts and not part.born]
    if attached:
        return f"partition {attached[0]} was attached"
    gone = [oid for oid in known.parts if oid not in now]
    if gone:
        return "a partition was dropped or detached"
    # What empties a partition is not sent, and looks as what writes it anew.
    other = [
        part.name
        for part in table.parts
        if part.oid != table.oid and known.parts.get(part.oid, part.filenode) != part.filenode
    ]
    if other:
        return f"partition {other[0]} was emptied or written anew"
    before = {column.number: column.changed for column in known.columns}
    altered = [c.name for c in table.columns if before.get(c.number, c.changed) != c.changed or c.number not in before]
    other_file = any(now[oid] != filenode for oid, filenode in known.parts.items())
    return f"the server wrote the table anew when {altered[0]} was altered" if altered and other_file else ""


def _odd_default(known: Known, table: TableInfo, kinds: Mapping[int, ColumnType]) -> str:
    for column in table.columns:
        if column.number not in known.ids and column.missing is not None and _default(column, kinds) is None:
            return f"column {column.name} was added with a default that no default of the log can be"
    return ""


def _with_defaults(schema: Schema, before: Schema, table: TableInfo, kinds: Mapping[int, ColumnType]) -> Schema:
    """The schema with what rows older than an added column read in it; of older columns that never changes."""
    fields = []
    for field, column in zip(schema.fields, table.columns, strict=True):
        old = before.by_id(field.id)
        initial = old.initial_default if old else _default(column, kinds) if column.missing is not None else None
        fields.append(replace(field, initial_default=_promoted(initial, old, field)))
    return replace(schema, fields=tuple(fields))


def _promoted(initial: str | None, old: Field | None, field: Field) -> str | None:
    return initial if initial is None or old is None else default.promoted(initial, old.type, field.type)


def _default(column: ColumnInfo, kinds: Mapping[int, ColumnType]) -> str | None:
    """The value that older rows read, as the log writes defaults; None when the column's type cannot hold it."""
    assert column.missing is not None
    if column.composites:
        return None
    data = column.missing.encode()
    buffer = np.frombuffer(data + PAD, np.uint8)
    kind = kinds[column.number]
    found = kind.text(Cells(buffer, np.zeros(1, np.int64), np.array([len(data)])))
    if len(found.odd):
        return None
    text = default.spelled(found.values[0], kind.duckdb)
    if kind.duckdb.startswith("BLOB"):
        text = found.values[0].as_py().hex() if kind.duckdb == "BLOB" else ""
    try:
        return text if default.value(text, kind.duckdb) == found.values[0] else None
    except HeadwaterError:
        return None


def _identity(known: Known) -> str:
    words = {"insert_only": "nothing", "multiset": "all their columns"}
    return words.get(known.kind, f"({', '.join(key_names(known))})")
