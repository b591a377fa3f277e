"""Between the log's records and a job's frames: what it gets as Polars, and what it returns as the topic's columns.

Values are converted as a producer's are: never rounded, cut or guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from headwater import duck, record, types
from headwater.catalog.records import Topic
from headwater.client.convert import convert
from headwater.client.frames import polars_table
from headwater.errors import SchemaError
from headwater.schema import Schema

OPS = ("c", "u", "d", "r", "t")
_LEFT_OUT = (record.LSN, record.XID, record.SEQ)
"""The source's own counting: commits, partitions and offsets say the same in the log's words."""
_EVENT_METADATA = (record.EVENT_AT, record.EVENT_ID, record.HEADERS)


def columns_of(topic: Topic) -> list[str]:
    """The columns of an input's frames: the topic's own, what is told of each change, where it stands in the log."""
    explicit = record.metadata_schema(topic.kind, topic.schema.arrow()).names
    told = [name for name in explicit if name not in _LEFT_OUT]
    return [*topic.schema.names, *told, record.COMMIT, record.PARTITION, record.OFFSET, record.INGESTED_AT]


def frame_schema(topic: Topic) -> pa.Schema:
    """Those columns with the types that files hold."""
    data = topic.schema.arrow()
    known = pa.schema([*data, *record.metadata_schema(topic.kind, data), *record.IMPLICIT.items()])
    return pa.schema([known.field(name) for name in columns_of(topic)])


def as_frame(table: pa.Table) -> pl.DataFrame:
    """Arrow as Polars; a UUID is its 16 bytes."""
    plain = [column.cast(pa.binary(16)) if isinstance(column.type, pa.UuidType) else column for column in table.columns]
    found = pl.from_arrow(pa.table(plain, names=table.column_names))
    assert isinstance(found, pl.DataFrame)
    return found


def infer(frame: pl.DataFrame, key: Sequence[str]) -> Schema:
    """The schema of an output that declares no columns: its first rows' own, metadata left out."""
    rows = frame.select(name for name in frame.columns if name not in record.METADATA).head(0)
    with duck.connect(for_files=True) as own:
        own.register("rows", polars_table(rows))
        found = own.execute("DESCRIBE FROM rows").fetchall()
    try:
        return Schema.of({name: types.canonical(kind) for name, kind, *_ in found}, key=key)
    except ValueError as error:
        todo = "Cast such columns, or declare the output's columns."
        raise SchemaError(f"the returned rows make no topic: {error}", todo=todo) from error


def to_output(frame: pl.DataFrame, topic: Topic, zone: str) -> pa.Table:
    """Returned rows as records of the output's topic, in their order.

    SchemaError names the column and the first row that does not fit. A keyed output takes ``_op``, or ``_weight`` as
    views give it: what is removed is removed before anything is put.
    """
    if topic.kind != "table":
        kept = [name for name in _EVENT_METADATA if name in frame.columns]
        return _converted(frame, topic.schema, zone, topic.name, kept)
    if record.OP not in frame.columns and record.WEIGHT in frame.columns:
        gone = pl.col(record.WEIGHT) < 0
        ops = pl.when(gone).then(pl.lit("d")).otherwise(pl.lit("u"))
        frame = frame.with_columns(ops.alias(record.OP)).sort(record.OP, maintain_order=True)
    if record.OP not in frame.columns:
        frame = frame.with_columns(pl.lit("u").alias(record.OP))
    table = _converted(frame, topic.schema, zone, topic.name, [record.OP])
    ops = table.column(record.OP)
    strange = pc.invert(pc.is_in(ops, value_set=pa.array(OPS)))
    if pc.any(strange).as_py():
        raise SchemaError(f"_op is {ops.filter(strange)[0].as_py()!r}", where=topic.name, todo="Use 'u' or 'd'.")
    _require_keys(table.filter(pc.not_equal(ops, "t")), topic.schema.key, topic.name)
    return table


def to_rows(frame: pl.DataFrame, schema: Schema, zone: str, where: str) -> pa.Table:
    """Rows of a job's state, with all of its columns and a whole key."""
    table = _converted(frame, schema, zone, where, [])
    _require_keys(table, schema.key, where)
    return table


def to_keys(keys: pl.DataFrame | pl.Series, schema: Schema, zone: str, where: str) -> pa.Table:
    """The distinct keys in a frame that has the key's columns, or in a series of a key of one column."""
    if isinstance(keys, pl.Series):
        if len(schema.key) > 1:
            raise SchemaError(f"a key has the columns {', '.join(schema.key)}", where=where, todo="Give a frame.")
        keys = keys.alias(schema.key[0]).to_frame()
    lacking = [name for name in schema.key if name not in keys.columns]
    if lacking:
        raise SchemaError(f"key column {lacking[0]} is missing", where=where)
    fields = tuple(schema.field(name) for name in schema.key)
    distinct = keys.select(schema.key).unique(maintain_order=True).drop_nulls()
    return _converted(distinct, Schema(fields=fields, key=schema.key), zone, where, [])


def _require_keys(table: pa.Table, key: Sequence[str], where: str) -> None:
    empty = [name for name in key if table.column(name).null_count]
    if empty:
        raise SchemaError(f"key column {empty[0]} is NULL in a row", where=where, todo="Leave such rows out.")


def _converted(frame: pl.DataFrame, schema: Schema, zone: str, where: str, metadata: Sequence[str]) -> pa.Table:
    if not isinstance(frame, pl.DataFrame):
        raise SchemaError(f"a {type(frame).__name__} is no Polars frame", where=where, todo="Give a pl.DataFrame.")
    known = {*schema.names, *record.METADATA}
    unknown = [name for name in frame.columns if name not in known]
    lacking = [name for name in schema.names if name not in frame.columns]
    if unknown or lacking:
        what = f"column {unknown[0]} is not declared" if unknown else f"column {lacking[0]} is missing"
        raise SchemaError(what, where=where, todo=f"Its columns are {', '.join(schema.names)}.")
    given = polars_table(frame.select(*schema.names, *metadata))
    kinds: Mapping[str, str] = {field.name: field.type for field in schema.fields}
    made = [_column(given, name, kinds[name], zone, where) for name in schema.names]
    made += [given.column(name).cast(record.EXPLICIT[name]) for name in metadata]
    return pa.table(made, names=[*schema.names, *metadata])


def _column(given: pa.Table, name: str, kind: str, zone: str, where: str) -> Any:
    column = given.column(name)
    if types.is_struct(kind) or types.is_struct(kind.removesuffix("[]")):
        try:
            return column.cast(types.arrow_type(kind))
        except pa.ArrowException as error:
            raise SchemaError(f"column {name} does not fit {kind}: {error}", where=where) from error
    array, bad = convert(column, kind, zone)
    if len(bad):
        value = column[int(np.min(bad))].as_py()
        raise SchemaError(
            f"column {name} holds {value!r}, which does not fit {kind}", where=where, todo=f"Cast it to {kind}."
        )
    return array
