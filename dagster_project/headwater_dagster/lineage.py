"""What a view's SQL reads, and a hash of what it says.

Two texts that differ in layout, comments or letter case of keywords have the same code version: Dagster then
calls a view changed when it is.
"""

from __future__ import annotations

import hashlib

import sqlglot
from sqlglot import exp


def inputs(sql: str) -> tuple[str, ...]:
    """Names of the tables and views that ``sql`` reads, as written without quotes, in order; CTEs left out."""
    tree = sqlglot.parse_one(sql, dialect="duckdb")
    local = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
    target = tree.this.find(exp.Table) if isinstance(tree, exp.Create) else None
    found: dict[str, None] = {}
    for table in tree.find_all(exp.Table):
        parts = [part.name for part in table.parts if part.name]
        if table is target or not parts or (len(parts) == 1 and parts[0].lower() in local):
            continue
        found[".".join(parts)] = None
    return tuple(found)


def code_version(sql: str) -> str:
    """The first 16 hex digits of the SHA-256 of the normalised SQL."""
    normal = sqlglot.parse_one(sql, dialect="duckdb").sql(dialect="duckdb", comments=False)
    return hashlib.sha256(normal.encode()).hexdigest()[:16]
