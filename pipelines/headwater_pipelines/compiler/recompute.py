"""The statements that keep a Recompute: rows of touched keys as they were and as they are, and the difference.

    touched = the keys in the inputs' deltas        old = stored rows of these        new = the query over their inputs

Stored rows are weighted and only ever appended to: what is taken back stands there a second time, with a negative
weight, until an idle worker consolidates. Every input has been brought up to date before.
"""

from __future__ import annotations

from collections.abc import Mapping

from headwater.types import quote
from headwater_pipelines.compiler import render
from headwater_pipelines.compiler.plan import WEIGHT, Input, Recompute, column_names
from headwater_pipelines.compiler.render import delta_table


def create_sql(node: Recompute) -> str:
    """Creates the stored rows as of what is stored of the inputs now."""
    rows = f"{_with(node, '')}SELECT {_names(node)} FROM ({node.query})"
    return (
        f"CREATE TABLE {quote(node.table)} AS"
        f" SELECT {_names(node)}, CAST(count(*) AS BIGINT) AS {WEIGHT} FROM ({rows}) GROUP BY ALL"
    )


def touched_sql(node: Recompute, deltas: Mapping[Input, str]) -> str:
    """A SELECT of the keys in the inputs' deltas."""
    return " UNION ".join(
        f"SELECT {', '.join(f'{quote(own)} AS {quote(key)}' for own, key in zip(each.keys, node.keys, strict=True))}"
        f" FROM ({delta})"
        for each, delta in deltas.items()
    )


def touched_table(node: Recompute) -> str:
    return f"k_{node.table}"


def delta_sql(node: Recompute, *, whole: bool) -> str:
    """The change of the stored rows, columns and weight; of the keys in ``touched_table``, or of all."""
    touched = "" if whole else quote(touched_table(node))
    names = _names(node)
    old = f"SELECT {names}, -{WEIGHT} AS {WEIGHT} FROM {quote(node.table)} AS s"
    if touched:
        old += f" SEMI JOIN {touched} AS k ON {_same(node.keys, 's', node.keys)}"
    new = f"SELECT {names}, 1::BIGINT AS {WEIGHT} FROM ({node.query})"
    return (
        f"{_with(node, touched)}SELECT {names}, CAST(sum({WEIGHT}) AS BIGINT) AS {WEIGHT}"
        f" FROM ({new} UNION ALL {old}) GROUP BY ALL HAVING sum({WEIGHT}) <> 0"
    )


def apply_sql(node: Recompute) -> str:
    return f"INSERT INTO {quote(node.table)} SELECT * FROM {quote(delta_table(node))}"


def _with(node: Recompute, touched: str) -> str:
    """The inputs' rows under their names; with ``touched``, only those of its keys."""
    parts = (f"{quote(each.name)} AS ({_rows(node, each, touched)})" for each in node.inputs)
    return f"WITH {', '.join(parts)} " if node.inputs else ""


def _rows(node: Recompute, each: Input, touched: str) -> str:
    names = ", ".join(quote(name) for name in column_names(each.node))
    rows = render.state(each.node)
    if touched:
        rows = f"SELECT i.* FROM ({rows}) AS i SEMI JOIN {touched} AS k ON {_same(each.keys, 'i', node.keys)}"
    if not render.is_weighted(each.node):
        return rows
    distinct = f"SELECT {names}, sum({WEIGHT}) AS {WEIGHT} FROM ({rows}) GROUP BY ALL HAVING sum({WEIGHT}) > 0"
    return f"SELECT {names} FROM (SELECT {names}, unnest(range(CAST({WEIGHT} AS BIGINT))) FROM ({distinct}))"


def _same(own: tuple[str, ...], alias: str, keys: tuple[str, ...]) -> str:
    pairs = zip(own, keys, strict=True)
    return " AND ".join(f"{alias}.{quote(one)} IS NOT DISTINCT FROM k.{quote(other)}" for one, other in pairs)


def _names(node: Recompute) -> str:
    return ", ".join(quote(name) for name, _ in node.outputs)
