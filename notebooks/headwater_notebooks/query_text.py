"""The SQL of what a table shows, as a cell that a person can run: parameters, filters and order written out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from headwater import Lake
from headwater_notebooks.page_order import Column, Sort, Source
from headwater_notebooks.page_plan import Plan, Wish
from headwater_notebooks.question import Question

_PIECE: Final = re.compile(
    r"""(?P<skip>'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)"""
    r"""|\$(?P<parameter>[^\W\d]\w*)""",
    re.DOTALL,
)


def cell(lake: Lake, question: Question, columns: tuple[Column, ...], wish: Wish, at: str) -> str:
    """The whole filtered answer in its order as a ``%%sql`` cell, every value a literal; ``at`` may be empty."""
    plan = Plan(question=question, columns=columns, wish=wish)
    conditions = plan.conditions(lambda value: literal(lake, value))
    head = f'%%sql --at "{at}"\n' if at else "%%sql\n"
    if not conditions and not plan.wanted:
        return head + written(lake, question.sql, question.params)
    source = Source.of(question, columns)
    named = {sort.column for sort in plan.wanted}
    ties = [Sort(name) for name in question.unique if name not in named]
    order = [*plan.wanted, *ties] if plan.wanted else source.order
    text = f"SELECT * FROM (\n{written(lake, source.sql, question.params).strip()}\n) AS answer"
    if conditions:
        text += "\nWHERE " + "\n  AND ".join(conditions)
    if order:
        text += "\nORDER BY " + ", ".join(sort.sql for sort in order)
    return head + text


def written(lake: Lake, query: str, params: Mapping[str, Any]) -> str:
    """A query with its ``$name`` parameters written out."""

    def replace(found: re.Match[str]) -> str:
        name = found["parameter"]
        return found[0] if name is None or name not in params else literal(lake, params[name])

    return _PIECE.sub(replace, query)


def literal(lake: Lake, value: Any) -> str:
    """A value as DuckDB reads it back: the same type, the same value."""
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return _quoted(value)
    row = lake.sql("SELECT typeof($v), CAST($v AS VARCHAR)", params={"v": value}).fetchall()[0]
    kind, text = str(row[0]), str(row[1])
    if kind in ("INTEGER", "BIGINT") and not text.startswith("-"):  # a minus might follow another one
        return text
    return text.upper() if kind == "BOOLEAN" else f"CAST({_quoted(text)} AS {kind})"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
