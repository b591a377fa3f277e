"""The record layout: names of the metadata columns that accompany a topic's own columns.

An appended table may leave out any metadata column it has no value for; it reads back as NULL. The four
implicit columns are never appended: they follow from where a row was committed and are always readable.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from headwater.errors import SchemaError

OP: Final = "_op"
"""``c`` create, ``u`` update, ``d`` delete, ``r`` initial copy, ``t`` truncate (in every partition)."""
WEIGHT: Final = "_weight"
"""Changelogs and multisets: how many copies of the row this change adds (+) or removes (-)."""
COMMITTED_AT: Final = "_committed_at"
EVENT_AT: Final = "_event_at"
EVENT_ID: Final = "_event_id"
LSN: Final = "_lsn"
XID: Final = "_xid"
SEQ: Final = "_seq"
"""Order of the change inside its source transaction."""
BEFORE: Final = "_before"
"""Struct of the old values that the source sent; NULL where it sent none."""
UNCHANGED: Final = "_unchanged"
"""Columns whose value the source did not send because it did not change (TOAST): never a made-up NULL."""
RAW: Final = "_raw"
"""Column name to exact text, for values that the column's type cannot hold."""
HEADERS: Final = "_headers"

OFFSET: Final = "_offset"
PARTITION: Final = "_partition"
COMMIT: Final = "_commit"
INGESTED_AT: Final = "_ingested_at"

_UTC_US = pa.timestamp("us", tz="UTC")

EXPLICIT: Final[dict[str, pa.DataType]] = {
    OP: pa.string(),
    WEIGHT: pa.int64(),
    COMMITTED_AT: _UTC_US,
    EVENT_AT: _UTC_US,
    EVENT_ID: pa.string(),
    LSN: pa.int64(),
    XID: pa.int64(),
    SEQ: pa.int64(),
    UNCHANGED: pa.list_(pa.string()),
    RAW: pa.map_(pa.string(), pa.string()),
    HEADERS: pa.map_(pa.string(), pa.string()),
}
"""Metadata columns that a producer appends, with their type; ``_before`` is a struct of the topic's columns."""

IMPLICIT: Final[dict[str, pa.DataType]] = {
    OFFSET: pa.int64(),
    PARTITION: pa.int32(),
    COMMIT: pa.int64(),
    INGESTED_AT: _UTC_US,
}

_NUMBERED: Final = (OP, WEIGHT, COMMITTED_AT, EVENT_AT, EVENT_ID, LSN, XID, SEQ, BEFORE, UNCHANGED, RAW, HEADERS)
FIELD_IDS: Final[dict[str, int]] = {
    name: 1_000_001 + place for place, name in enumerate((*_NUMBERED, OFFSET, PARTITION, COMMIT, INGESTED_AT, "_n"))
}
"""Ids of metadata columns in files, above those of any topic's own columns; new ones are added at the end."""

METADATA: Final = frozenset(EXPLICIT) | frozenset(IMPLICIT) | {BEFORE}

_CAPTURED: Final = (COMMITTED_AT, LSN, XID, SEQ, RAW)
_BY_KIND: Final[dict[str, tuple[str, ...]]] = {
    "table": (OP, *_CAPTURED, UNCHANGED, BEFORE),
    "multiset": (OP, WEIGHT, *_CAPTURED),
    "insert_only": (OP, *_CAPTURED),
    "changelog": (WEIGHT,),
    "event": (EVENT_AT, EVENT_ID, HEADERS, COMMITTED_AT, LSN, XID, SEQ),
    "transactions": (),
    "system": (),
}


def metadata_schema(kind: str, data: pa.Schema) -> pa.Schema:
    """The explicit metadata columns of a topic of this kind, in order; ``data`` are its own columns."""
    return pa.schema([(name, pa.struct(list(data)) if name == BEFORE else EXPLICIT[name]) for name in _BY_KIND[kind]])


def conform(table: pa.Table, data: pa.Schema, kind: str, topic: str) -> pa.Table:
    """``table`` with exactly the topic's columns in order, and those metadata columns that it brings.

    SchemaError names the first column that is missing, unknown, or does not cast without loss.
    """
    if table.schema.equals(data, check_metadata=True):
        return table
    given = set(table.column_names)
    expected = [*data, *(field for field in metadata_schema(kind, data) if field.name in given)]
    unknown = given - {field.name for field in expected}
    if unknown:
        raise SchemaError(f"column {sorted(unknown)[0]!r} is not in the topic's schema", where=topic)
    schema = pa.schema(expected)
    if table.schema.equals(schema, check_metadata=True):
        return table
    return pa.table([_conform_column(table, field, topic) for field in expected], schema=schema)


def _conform_column(table: pa.Table, field: pa.Field, topic: str) -> pa.ChunkedArray:
    place = table.schema.get_field_index(field.name)
    if place < 0:
        raise SchemaError(f"column {field.name!r} is missing from the appended rows", where=topic)
    column = table.column(place)
    if column.type == field.type:
        return column
    try:
        return _widen(column, field.type) if field.name == BEFORE else column.cast(field.type)
    except pa.ArrowException as error:
        raise SchemaError(
            f"column {field.name!r} holds {column.type}, the topic needs {field.type}: {error}", where=topic
        ) from error


def _widen(column: pa.ChunkedArray, target: pa.StructType) -> pa.ChunkedArray:
    """A struct of some of the columns as the struct of all of them."""
    source = column.combine_chunks()
    if isinstance(source, pa.ChunkedArray):
        source = source.chunk(0) if source.num_chunks else pa.nulls(0, column.type)
    names = {source.type.field(i).name: i for i in range(source.type.num_fields)}
    children = [
        source.field(names[field.name]).cast(field.type) if field.name in names else pa.nulls(len(source), field.type)
        for field in target
    ]
    mask = source.is_null() if source.null_count else None
    return pa.chunked_array([pa.StructArray.from_arrays(children, fields=list(target), mask=mask)])


def fill(table: pa.Table, target: pa.Schema) -> pa.Table:
    """``table`` with the columns of ``target`` in its order; columns it lacks are NULL."""
    have = set(table.column_names)
    columns = [
        table.column(field.name) if field.name in have else pa.nulls(table.num_rows, field.type) for field in target
    ]
    return pa.table(columns, schema=target)


def empty(schema: pa.Schema) -> pa.Table:
    """No rows of these columns (``Schema.empty_table`` cannot build nested extension types)."""
    return pa.table([pa.nulls(0, field.type) for field in schema], schema=schema)
