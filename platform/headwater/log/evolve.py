"""Records of an older schema version in the shape of a newer one, the same in both tiers.

Columns are found by field id. A changed type is converted and a column the records lack is filled by the same SQL,
over a segment's file or, for the columns that need it, over a hot batch. What metadata says by column name
(``_unchanged``, ``_raw``, ``_before``) follows the field too: its new name, or nothing once it is gone.
"""

from __future__ import annotations

import pyarrow as pa

from headwater import default, record, types
from headwater.schema import Schema
from headwater.types import quote


def column_sql(name: str, old: Schema, new: Schema) -> str:
    """SQL of the column ``name`` of the newer shape, data or metadata, over a file of the older one."""
    if name not in new.names:
        return _metadata_sql(name, old, new)
    field = new.field(name)
    source = old.by_id(field.id)
    if source is not None:
        return types.convert_sql(quote(source.name), source.type, field.type)
    if field.initial_default is not None:
        return f"CAST({types.constant_sql(field.initial_default, field.type)} AS {types.file_sql(field.type)})"
    return f"CAST(NULL AS {types.file_sql(field.type)})"


def to_schema(table: pa.Table, old: Schema, new: Schema, kind: str) -> pa.Table:
    """A hot batch of the older shape with the newer one's columns, and the metadata columns that it has."""
    metadata = record.metadata_schema(kind, new.arrow())
    target = [*new.arrow(), *(field for field in metadata if field.name in table.column_names)]
    columns: dict[str, pa.ChunkedArray | pa.Array] = {}
    converted: dict[str, str] = {}
    for field in target:
        sql = column_sql(field.name, old, new)
        same = next((name for name in table.column_names if sql == quote(name)), None)
        if same is None:
            converted[field.name] = sql
        else:
            columns[field.name] = table.column(same)
    found = _converted(table, converted)
    return pa.table(
        [columns[f.name] if f.name in columns else found[f.name].cast(f.type) for f in target],
        names=[f.name for f in target],
    )


def incoming(table: pa.Table, schema: Schema, kind: str, topic: str) -> pa.Table:
    """Appended rows as files hold them: what was left out has its default, types are those the schema needs.

    SchemaError names the first column that does not fit.
    """
    table = default.fill(table, schema)
    narrow = [field for field in schema.fields if field.write_type]
    if narrow:
        declared = pa.schema([(field.name, types.arrow_type(field.declared_type)) for field in schema.fields])
        table = record.conform(table, declared, kind, topic)
        sql = {f.name: types.convert_sql(quote(f.name), f.write_type, f.type) for f in narrow}
        for name, column in _converted(table, sql).items():
            table = table.set_column(table.schema.get_field_index(name), name, column)
    return record.conform(table, schema.arrow(), kind, topic)


def _metadata_sql(name: str, old: Schema, new: Schema) -> str:
    if name == record.BEFORE:
        return _before_sql(old, new)
    names = {field.name: after.name if (after := new.by_id(field.id)) else None for field in old.fields}
    if name not in (record.UNCHANGED, record.RAW) or all(was == now for was, now in names.items()):
        return quote(name)
    cases = "".join(f" WHEN {_text(was)} THEN {_text(now)}" for was, now in names.items() if now is not None)
    renamed = f"CASE {{}}{cases} END" if cases else "NULL::VARCHAR"
    if name == record.UNCHANGED:
        return f"list_filter(list_transform({quote(name)}, lambda n: {renamed.format('n')}), lambda n: n IS NOT NULL)"
    entries = f"list_filter(map_entries({quote(name)}), lambda e: ({renamed.format('e.key')}) IS NOT NULL)"
    pairs = f"list_transform({entries}, lambda e: struct_pack(k := {renamed.format('e.key')}, v := e.value))"
    return f"CASE WHEN {quote(name)} IS NOT NULL THEN map_from_entries({pairs}) END"


def _before_sql(old: Schema, new: Schema) -> str:
    """The struct of old values field by field; one that nobody sent stays NULL, whatever the default is."""
    if old.arrow().equals(new.arrow()) and [f.id for f in old.fields] == [f.id for f in new.fields]:
        return quote(record.BEFORE)
    parts = []
    for field in new.fields:
        source = old.by_id(field.id)
        sent = f"{quote(record.BEFORE)}.{quote(source.name)}" if source else ""
        value = types.convert_sql(sent, source.type, field.type) if source else f"NULL::{types.file_sql(field.type)}"
        parts.append(f"{quote(field.name)} := {value}")
    return f"CASE WHEN {quote(record.BEFORE)} IS NOT NULL THEN struct_pack({', '.join(parts)}) END"


def _converted(table: pa.Table, columns: dict[str, str]) -> dict[str, pa.ChunkedArray]:
    """Columns computed by SQL from those of ``table``, row for row."""
    if not columns:
        return {}
    connection = default.connection()
    connection.register("converted", table.append_column("_row", pa.nulls(table.num_rows, pa.int8())))
    try:
        selected = ", ".join(f"{sql} AS {quote(name)}" for name, sql in columns.items())
        found = connection.sql(f"SELECT {selected} FROM converted").to_arrow_table()
    finally:
        connection.unregister("converted")
    return {name: found.column(name) for name in columns}


def _text(name: str | None) -> str:
    assert name is not None
    return "'" + name.replace("'", "''") + "'"
