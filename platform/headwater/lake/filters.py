"""Conditions on columns as plain values, as panels share them: ``{"column": "id", "op": ">=", "value": "10"}``.

Values are bound and columns must exist, so nothing that comes from a page becomes SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from headwater.errors import NameNotFound, UsageError
from headwater.log.names import near
from headwater.types import quote

COMPARISONS: Final = {"=": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


def where(filters: Sequence[Mapping[str, Any]], types: Mapping[str, str], bind: Callable[[str], str]) -> str:
    """A WHERE clause, or nothing. ``types``: DuckDB type of each column; ``bind`` takes a value, gives its parameter.

    NameNotFound, UsageError.
    """
    conditions = [condition(each, types, bind) for each in filters]
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def contains(column: str, kind: str, text: str, bound: str) -> str:
    """Whether a column's text has ``text`` in it, in whatever case; ``bound`` stands for it in the SQL."""
    own = quote(column) if kind == "VARCHAR" else f"CAST({quote(column)} AS VARCHAR)"
    if text.isascii() and text.lower() == text.upper():  # digits and signs: putting every row in lower case costs most
        return f"contains({own}, {bound})"
    return f"contains(lower({own}), lower({bound}))"


def condition(spec: Mapping[str, Any], types: Mapping[str, str], bind: Callable[[str], str]) -> str:
    """One of them, without the WHERE."""
    column, op = str(spec.get("column")), spec.get("op")
    if column not in types:
        raise NameNotFound(f"the answer has no column {column!r}", suggestions=near(column, list(types)))
    name = quote(column)
    if op in ("null", "not null"):
        return f"{name} IS {str(op).upper()}"
    value = str(spec.get("value", ""))
    if op == "contains":
        return contains(column, types[column], value, bind(value))
    if op in COMPARISONS:
        return f"{name} {COMPARISONS[op]} CAST({bind(value)} AS {types[column]})"
    raise UsageError(f"no filter is called {op!r}", todo=f"Use contains, null, not null, {', '.join(COMPARISONS)}.")
