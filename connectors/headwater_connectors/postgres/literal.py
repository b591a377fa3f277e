"""Values of the log as PostgreSQL writes them: texts that its input functions read back as the same value."""

from __future__ import annotations

import re

from headwater.types import canonical, field_sql, fields_of, is_struct

_BARE_NAME = re.compile(r'^(?:.*\.)?"?(\w+)"?(?:\(.*\))?$')
_VECTORS, _GEOMETRIES = ("vector", "halfvec"), ("geometry", "geography")
_WRITTEN = {"hstore": "JSON", **dict.fromkeys(_VECTORS, "FLOAT[]"), **dict.fromkeys(_GEOMETRIES, "BLOB")}


def extension_type(source_type: str, kind: str) -> str:
    """The bare name of an extension's type that is written in a way of its own; ``kind`` is its type in the log."""
    found = _BARE_NAME.match(source_type)
    return found[1] if found and _WRITTEN.get(found[1]) == kind else ""


def text_sql(value: str, duckdb_type: str, source_type: str = "") -> str:
    """DuckDB SQL of the text of ``value`` (a DuckDB value of this type, not what files hold); NULL stays NULL.

    ``source_type``: what the source calls its type.
    """
    kind = canonical(duckdb_type)
    if name := extension_type(source_type, kind):
        return _extension_sql(value, name)
    if kind.endswith("[]"):
        return _list_sql(value, kind, source_type)
    return _row_sql(value, kind) if is_struct(kind) else _scalar_sql(value, kind)


def _scalar_sql(value: str, kind: str) -> str:
    if kind == "BLOB":
        return f"'\\x' || hex({value})"
    if kind in ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"):
        return f"replace(CAST({value} AS VARCHAR), '(BC)', 'BC')"
    if kind == "INTERVAL":
        parts = f"headwater_interval_parts({value})"
        return f"{parts}.months || ' months ' || {parts}.days || ' days ' || {parts}.micros || ' microseconds'"
    return f"CAST({value} AS VARCHAR)"


def _list_sql(value: str, kind: str, source_type: str) -> str:
    """Lists in lists are arrays of a type that is itself written with braces: its texts are quoted as any others."""
    element = _double_quoted(text_sql("e", kind[:-2], source_type.removesuffix("[]")))
    items = f"list_transform({value}, lambda e: CASE WHEN e IS NULL THEN 'NULL' ELSE {element} END)"
    mark = ";" if source_type == "box[]" else ","
    return f"CASE WHEN {value} IS NOT NULL THEN '{{' || array_to_string({items}, '{mark}') || '}}' END"


def _row_sql(value: str, kind: str) -> str:
    """Row literals: fields in quotes, NULL as nothing at all."""
    parts = []
    for name, inner in fields_of(kind):
        text = text_sql(field_sql(value, name), inner)
        parts.append(f"coalesce('\"' || replace(replace({text}, '\\', '\\\\'), '\"', '\"\"') || '\"', '')")
    row = " || ',' || ".join(parts)
    return f"CASE WHEN {value} IS NOT NULL THEN '(' || {row} || ')' END"


def _extension_sql(value: str, name: str) -> str:
    if name in _VECTORS:
        return f"'[' || array_to_string({value}, ',') || ']'"
    if name in _GEOMETRIES:
        return f"hex({value})"
    pair = f"{_double_quoted('p.key')} || '=>' || coalesce({_double_quoted('p.value')}, 'NULL')"
    pairs = f"map_entries(CAST({value} AS MAP(VARCHAR, VARCHAR)))"
    return f"array_to_string(list_transform({pairs}, lambda p: {pair}), ', ')"


def quoted_sql(text: str) -> str:
    """DuckDB SQL of the SQL literal of a text."""
    return f"'''' || replace({text}, '''', '''''') || ''''"


def _double_quoted(text: str) -> str:
    return f"'\"' || replace(replace({text}, '\\', '\\\\'), '\"', '\\\"') || '\"'"
