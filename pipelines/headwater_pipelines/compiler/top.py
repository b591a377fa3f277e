"""The first rows of all, kept with others behind them: ORDER BY ... LIMIT, and min and max without GROUP BY.

    stored = the input's rows up to a bound, the key of one of them; without a bound, all of the input
    shown  = those of them from ``low`` to ``high``, a row as often as its weight says

A row's key is what DuckDB sorts it by (``create_sort_key``). A change behind the bound is not looked at.
Rows that come push the last ones out, and the bound moves with them; where rows that go leave fewer than ``high``, the
first ones are taken from the whole input anew. What is shown is the same whenever that happens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headwater.types import quote
from headwater_pipelines.compiler import render
from headwater_pipelines.compiler.plan import WEIGHT, Item, Leaf, Select, Top, Union
from headwater_pipelines.compiler.remembered import remembered
from headwater_pipelines.compiler.syntax import Tree as Syntax

if TYPE_CHECKING:
    from headwater_pipelines.compiler.lower import Lowering

SPARE_ROWS = 1_000
"""At least so many rows are kept behind those that are shown: as many have to go before all are read again."""
SHOWN_MAX = 100_000
"""To sort what is kept of more rows takes as long as to begin anew."""
KEY, SHOWN = "hw_key", "hw_shown"
"""Columns of what is stored. ``SHOWN`` is NULL in the one row that is none of the input's: its key is the bound."""
_BEHIND_ALL = {"BLOB": r"'\xFF'::BLOB", "BIGINT": "9223372036854775807"}
"""Keys behind those of all rows."""
_SORTED_OTHERWISE = re.compile(r"\b(INTERVAL|TIME WITH TIME ZONE|BIT)\b")
"""Types of which different values are the same in an order, and have different keys. So have those of a collation."""

Orders = Sequence[tuple[str, str]]
"""Columns, each with ASC or DESC, NULLS FIRST or NULLS LAST."""


# ---- the plan


def first(
    lowering: Lowering,
    rows: Select | Union,
    shown: Sequence[str],
    orders: Orders,
    span: tuple[int, int],
    label: tuple[str, str],
    *,
    or_nothing: bool = False,
) -> Select | None:
    """The columns ``shown`` of the rows that come from the first to the second of ``span``; None where keys do not do.

    Without orders, rows are ordered by what is shown.
    """
    by = orders or [(name, "ASC NULLS LAST") for name in shown]
    types = dict(lowering.describe(rows))
    if span[1] > SHOWN_MAX or any(_SORTED_OTHERWISE.search(types[name]) for name, _ in by):
        return None
    if "COLLATE" in render.state(rows).upper():
        return None
    arguments = ", ".join(f"i.{quote(name)}, '{words}'" for name, words in by)
    key = f"create_sort_key({arguments})"
    columns = (*((name, f"i.{quote(name)}") for name in shown), (KEY, key))
    below = Select((Item("i", rows),), (), columns, label)
    *outputs, (_, key_type), _ = lowering.describe(below)
    source = Top(below, tuple(outputs), key_type, *span, or_nothing)
    lowering.declare(source)
    listed = tuple((name, f"t.{quote(name)}") for name in shown)
    return Select((Item("t", Leaf(source)),), (f"t.{SHOWN}",), listed)


def words(order: Syntax) -> str:
    """The words of an order, the defaults written out."""
    way = "DESC" if order["type"] == "DESCENDING" else "ASC"
    return f"{way} {'NULLS FIRST' if order['null_order'] == 'NULLS FIRST' else 'NULLS LAST'}"


# ---- the statements


def most(node: Top) -> int:
    """How many rows are kept."""
    return node.high + max(node.high, SPARE_ROWS)


def touched_table(node: Top) -> str:
    """The changes of a step that are not behind the bound."""
    return f"k_{node.table}"


@remembered
def touched_sql(node: Top, delta: str) -> str:
    """A SELECT of the changes of rows that are not behind the bound."""
    return (
        f"SELECT {_names(node)}, {KEY}, sum({WEIGHT}) AS {WEIGHT} FROM ({delta})"
        f" WHERE coalesce({KEY} <= ({_bound(node)}), true) GROUP BY ALL HAVING sum({WEIGHT}) <> 0"
    )


@remembered
def has_enough_sql(node: Top, touched: str) -> str:
    """A SELECT of whether what is stored, with these changes, is all of the input or holds all that is shown."""
    return (
        f"SELECT coalesce(sum({WEIGHT}) FILTER ({SHOWN} IS NULL), 0) = 0 OR coalesce(sum({WEIGHT}) FILTER"
        f" ({SHOWN} IS NOT NULL), 0) + coalesce((SELECT sum({WEIGHT}) FROM {quote(touched)}), 0) >= {node.high}"
        f" FROM {quote(node.table)}"
    )


@remembered
def delta_sql(node: Top, touched: str) -> str:
    """The change of what is stored, columns and weight, out of what is stored and these changes."""
    rows = f"SELECT {_names(node)}, {KEY}, {WEIGHT} FROM"
    merged = (
        f"SELECT {_names(node)}, {KEY}, sum({WEIGHT}) AS {WEIGHT}"
        f" FROM ({rows} old WHERE {SHOWN} IS NOT NULL UNION ALL {rows} {quote(touched)}) GROUP BY ALL"
        f" HAVING sum({WEIGHT}) > 0"
    )
    return _difference(node, f"bound AS ({_bound(node)}), merged AS ({merged})")


def refilled_sql(node: Top, reads: render.Reads) -> str:
    """The change of what is stored, out of all rows of the input."""
    return _difference(node, _taken(node, reads))


def fill_sql(node: Top, reads: render.Reads) -> str:
    """A SELECT of what is to be stored."""
    return f"WITH {_taken(node, reads)}, {_new(node)} SELECT * FROM new"


def _taken(node: Top, reads: render.Reads) -> str:
    """The first rows of the input, and their bound. ``reads``: leaves of it, brought to positive weights."""
    names = _names(node)
    rows = f"SELECT {names}, {KEY}, {WEIGHT} FROM ({render.state(node.input, reads)})"
    if node.or_nothing:
        rows += f" UNION ALL SELECT {_nulls(node)}, {_BEHIND_ALL[node.key_type]}, 1"
    return (
        # The keys alone first: to sort them takes little memory, and of equal rows there may be any number.
        f"below AS NOT MATERIALIZED ({rows}), firsts AS (SELECT {KEY} FROM below ORDER BY {KEY} LIMIT {most(node)}),"
        f" bound AS MATERIALIZED (SELECT max({KEY}) AS {KEY} FROM firsts HAVING count(*) = {most(node)}),"
        f" merged AS (SELECT {names}, {KEY}, sum({WEIGHT}) AS {WEIGHT} FROM below"
        f" WHERE coalesce({KEY} <= (SELECT {KEY} FROM bound), true) GROUP BY ALL)"
    )


def _difference(node: Top, rows: str) -> str:
    columns = ", ".join(quote(name) for name, _ in node.columns())
    old = f"SELECT {columns}, sum({WEIGHT}) AS {WEIGHT} FROM {quote(node.table)} GROUP BY ALL HAVING sum({WEIGHT}) <> 0"
    return (
        f"WITH old AS MATERIALIZED ({old}), {rows}, {_new(node)}"
        f" SELECT {columns}, CAST(sum({WEIGHT}) AS BIGINT) AS {WEIGHT}"
        f" FROM (SELECT * FROM new UNION ALL SELECT {columns}, -{WEIGHT} FROM old)"
        f" GROUP BY ALL HAVING sum({WEIGHT}) <> 0"
    )


def _new(node: Top) -> str:
    """What is stored of the rows ``merged``: those that fill it up, each shown as often as it is within the span."""
    names = _names(node)
    upto = f"sum({WEIGHT}) OVER (ORDER BY {KEY}, {names} ROWS UNBOUNDED PRECEDING)"
    shown = f"greatest(0, least(upto, {node.high}) - greatest(upto - {WEIGHT}, {node.low}))"
    return (
        f"ranked AS MATERIALIZED (SELECT *, {upto} AS upto FROM merged),"
        f" last AS MATERIALIZED (SELECT min({KEY}) AS {KEY} FROM ranked WHERE upto >= {most(node)}),"
        f" kept AS MATERIALIZED (SELECT *, {shown} AS shown FROM ranked"
        f" WHERE coalesce({KEY} <= (SELECT {KEY} FROM last), true)),"
        f" new AS (SELECT {names}, {KEY}, true AS {SHOWN}, CAST(shown AS BIGINT) AS {WEIGHT} FROM kept WHERE shown > 0"
        f" UNION ALL SELECT {names}, {KEY}, false, CAST({WEIGHT} - shown AS BIGINT) FROM kept WHERE {WEIGHT} > shown"
        f" UNION ALL SELECT {_nulls(node)}, {KEY}, NULL, 1 FROM (SELECT CASE WHEN (SELECT max({KEY}) FROM ranked)"
        f" > (SELECT {KEY} FROM last) THEN (SELECT {KEY} FROM last) ELSE (SELECT {KEY} FROM bound) END AS {KEY})"
        f" WHERE {KEY} IS NOT NULL)"
    )


def _bound(node: Top) -> str:
    return f"SELECT {KEY} FROM {quote(node.table)} WHERE {SHOWN} IS NULL GROUP BY {KEY} HAVING sum({WEIGHT}) > 0"


def _names(node: Top) -> str:
    return ", ".join(quote(name) for name, _ in node.outputs)


def _nulls(node: Top) -> str:
    return ", ".join(f"CAST(NULL AS {text})" for _, text in node.outputs)
