"""Values of the log as PostgreSQL writes them: texts that its input functions read back as the same value."""

from __future__ import annotations

from headwater.types import canonical


def text_sql(value: str, duckdb_type: str) -> str:
    """DuckDB SQL of the text of ``value`` (a DuckDB value of this type, not what files hold); NULL stays NULL."""
    kind = canonical(duckdb_type)
    if kind.endswith("[]"):
        element = text_sql("e", kind[:-2])
        nested = kind[:-2].endswith("[]")
        shown = element if nested else _double_quoted(element)
        items = f"list_transform({value}, lambda e: CASE WHEN e IS NULL THEN 'NULL' ELSE {shown} END)"
        return f"CASE WHEN {value} IS NOT NULL THEN '{{' || array_to_string({items}, ',') || '}}' END"
    if kind == "BLOB":
        return f"'\\x' || hex({value})"
    if kind in ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"):
        return f"replace(CAST({value} AS VARCHAR), '(BC)', 'BC')"
    if kind == "INTERVAL":
        parts = f"headwater_interval_parts({value})"
        return f"{parts}.months || ' months ' || {parts}.days || ' days ' || {parts}.micros || ' microseconds'"
    return f"CAST({value} AS VARCHAR)"


def quoted_sql(text: str) -> str:
    """DuckDB SQL of the SQL literal of a text."""
    return f"'''' || replace({text}, '''', '''''') || ''''"


def _double_quoted(text: str) -> str:
    return f"'\"' || replace(replace({text}, '\\', '\\\\'), '\"', '\\\"') || '\"'"
