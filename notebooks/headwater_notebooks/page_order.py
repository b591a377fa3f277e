"""The order of an answer's rows: its query's own where that can be said in its columns, or what is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import sqlglot
from sqlglot import exp
from sqlglot.tokenizer_core import TokenType

from headwater.types import quote
from headwater_notebooks.question import Question

HASH, NUMBER = "hw_hash", "hw_number"
"""Columns beside the answer's: of the whole row, and its number where the query's own order cannot be said."""
_DEFAULT_SORT_COLUMNS: Final = 3
_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT",
          "UHUGEINT", "DECIMAL")  # fmt: skip
_FLOATING = ("FLOAT", "DOUBLE")
_MOMENTS = ("DATE", "TIME", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE")


@dataclass(frozen=True)
class Column:
    """A column of the answer; ``type`` as DuckDB writes it."""

    name: str
    type: str

    @property
    def kind(self) -> str:
        return self.type if self.type.endswith("]") else self.type.split("(")[0]

    @property
    def numeric(self) -> bool:
        return self.kind in _WHOLE or self.kind in _FLOATING

    def may_hold(self, text: str) -> bool:
        """Whether a value's text may have ``text`` (lower case) in it: no letter is in a whole number."""
        alphabet = "0123456789.-"
        if self.kind in _FLOATING:
            alphabet += "+einfaty"
        elif self.kind in _MOMENTS:
            alphabet += "+: infty(bc)"
        elif self.kind not in _WHOLE:
            return self.kind != "BOOLEAN" or text in "true" or text in "false"
        return set(text) <= set(alphabet)


@dataclass(frozen=True)
class Sort:
    """One sort column. NULLs come last either way, and first when the order is turned around."""

    column: str
    descending: bool = False
    turned: bool = False

    @property
    def sql(self) -> str:
        down = self.descending != self.turned
        return f"{quote(self.column)} {'DESC' if down else 'ASC'} NULLS {'FIRST' if self.turned else 'LAST'}"

    def behind(self, value: str | None, bound: str) -> str:
        """The condition that a row comes later than one with ``value`` here; empty when none does."""
        name = quote(self.column)
        if value is None:
            return f"{name} IS NOT NULL" if self.turned else ""
        beyond = f"{name} {'<' if self.descending != self.turned else '>'} {bound}"
        return beyond if self.turned else f"({beyond} OR {name} IS NULL)"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A question's SQL to be put in ``order``; ``cheap``: running it twice costs less than keeping its rows."""

    sql: str
    order: list[Sort]
    cheap: bool

    @classmethod
    def of(cls, question: Question, columns: Sequence[Column], *, numbered: bool = False) -> Source:
        """Without its own ORDER BY where that can be said in its columns and cuts nothing.

        ``numbered``: where it cannot be said, rows get a number.
        """
        query, parsed = question.sql, sqlglot.parse_one(question.sql, read="duckdb")
        own = own_order(parsed, columns)
        if own is None and numbered:
            query = f"SELECT *, row_number() OVER () AS {NUMBER} FROM (\n{query}\n)"
            return cls(sql=query, order=[Sort(NUMBER)], cheap=False)
        if own and isinstance(parsed, exp.Select) and not parsed.args.get("limit") and not parsed.args.get("offset"):
            parsed.set("order", None)
            query = _before_order(query)
        first = question.unique or tuple(c.name for c in columns[:_DEFAULT_SORT_COLUMNS])
        order = own if own is None or own else [Sort(name) for name in first]
        return cls(sql=query, order=order or [], cheap=_cheap(parsed))


def own_order(query: exp.Expr, columns: Sequence[Column]) -> list[Sort] | None:
    """The query's own ORDER BY said in its output columns; empty without one, None when it cannot be said."""
    order = query.args.get("order")
    if not isinstance(order, exp.Order):
        return []
    names = {c.name.lower(): c.name for c in columns}
    outputs = {each.unalias(): each.alias_or_name for each in query.selects} if isinstance(query, exp.Select) else {}
    found = []
    for each in order.expressions:
        term = each.this if isinstance(each, exp.Ordered) else each
        nulls_first = isinstance(each, exp.Ordered) and bool(each.args.get("nulls_first"))
        name = _output_name(term, outputs, columns)
        if nulls_first or name.lower() not in names:
            return None
        found.append(Sort(names[name.lower()], isinstance(each, exp.Ordered) and bool(each.args.get("desc"))))
    return found


def _output_name(term: exp.Expr, outputs: Mapping[exp.Expr, str], columns: Sequence[Column]) -> str:
    if isinstance(term, exp.Literal) and not term.is_string and 1 <= int(term.this) <= len(columns):
        return columns[int(term.this) - 1].name
    if isinstance(term, exp.Column) and not term.table:
        return term.name
    return outputs.get(term, "")


def _before_order(query: str) -> str:
    """The text of a SELECT up to its own ORDER BY."""
    depth = place = 0
    for token in sqlglot.tokenize(query, read="duckdb"):
        depth += (token.token_type == TokenType.L_PAREN) - (token.token_type == TokenType.R_PAREN)
        if token.token_type == TokenType.ORDER_BY and depth == 0:
            place = token.start
    return query[:place]


def _cheap(query: exp.Expr) -> bool:
    """Whether running the query twice (rows, and their count) costs less than keeping all its rows."""
    costly = (exp.Group, exp.Join, exp.Distinct, exp.AggFunc, exp.Window, exp.SetOperation, exp.Limit, exp.Order)
    return query.find(*costly) is None
