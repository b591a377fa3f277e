"""A row as one text on both sides, so that checksums of many rows can be compared without sending them.

For each type of the log an expression for PostgreSQL and one for DuckDB that print the same value alike. Where they
do not (a float in another notation), the checksums differ and the rows are compared themselves: a wrong text here
costs time, never an answer. A type without expressions is not summed at all: ``None``.
"""

from __future__ import annotations

from psycopg import sql

from headwater.types import canonical, quote
from headwater_connectors.postgres.literal import extension_type

SEPARATOR = "\x1f"


_SERVER = {
    "BOOLEAN": "{}::int::text",
    **dict.fromkeys(("SMALLINT", "INTEGER", "BIGINT", "UBIGINT", "UUID", "FLOAT", "DOUBLE"), "{}::text"),
    **dict.fromkeys(("VARCHAR", "JSON"), "CASE num_nonnulls({0}) WHEN 1 THEN format('%s', {0}) END"),
    "DECIMAL": "CASE WHEN {0} NOT IN ('NaN', 'Infinity', '-Infinity') THEN {0}::text END",
    "BLOB": "encode({}, 'hex')",
    "DATE": "CASE WHEN isfinite({0}) THEN ({0} - date '1970-01-01')::text ELSE {0}::text END",
    **dict.fromkeys(
        ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE"),
        "CASE WHEN NOT isfinite({0}) THEN {0}::text"
        " WHEN {0} < '294247-01-01' THEN ((extract(epoch FROM {0}) * 1000000)::int8)::text END",
    ),
}


def server_sql(name: str, duckdb_type: str, source_type: str = "", odd: bool = False) -> sql.Composable | None:
    """PostgreSQL's expression for a column: a text, NULL for NULL and for what the log's type cannot hold.

    ``odd``: a text for that, too, which no value of the lake has.
    """
    kind, column = canonical(duckdb_type), sql.Identifier(name)
    if extension_type(source_type, kind):
        return None
    text = _SERVER.get("DECIMAL" if kind.startswith("DECIMAL") and not kind.endswith("[]") else kind)
    found = None if text is None else sql.SQL(text).format(column)
    return found if found is None or not odd else sql.SQL("coalesce({}, {}::text)").format(found, column)


def lake_sql(name: str, duckdb_type: str) -> str:
    """DuckDB's expression for the same column, as a DuckDB value."""
    kind, column = canonical(duckdb_type), quote(name)
    if kind == "BOOLEAN":
        return f"CAST(CAST({column} AS INTEGER) AS VARCHAR)"
    if kind == "BLOB":
        return f"lower(hex({column}))"
    if kind == "DATE":
        days = f"date_diff('day', DATE '1970-01-01', {column})"
        return f"CASE WHEN isfinite({column}) THEN CAST({days} AS VARCHAR) ELSE CAST({column} AS VARCHAR) END"
    if kind in ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE"):
        micros = f"CAST(epoch_us({column}) AS VARCHAR)"
        return f"CASE WHEN isfinite({column}) THEN {micros} ELSE CAST({column} AS VARCHAR) END"
    if kind in ("FLOAT", "DOUBLE"):
        return f"regexp_replace(CAST({column} AS VARCHAR), '\\.0$', '')"  # whole numbers are the server's without it
    return f"CAST({column} AS VARCHAR)"
