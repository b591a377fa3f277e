"""The statements that keep a Recompute: rows of touched keys as they were and as they are, and the difference.

    touched = the keys in the inputs' deltas        old = stored rows of these        new = the query over their inputs

Stored rows are weighted and only ever appended to: what is taken back stands there a second time, with a negative
weight, until parts are consolidated. Every input has been brought up to date before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from headwater.types import quote
from headwater_pipelines.compiler import render
from headwater_pipelines.compiler.lookup import chooses, is_filtered, stored_columns
from headwater_pipelines.compiler.plan import (
    WEIGHT,
    Extreme,
    Input,
    Recompute,
    column_names,
    leaves,
)
from headwater_pipelines.compiler.remembered import remembered


def fill_sql(node: Recompute, whole: Mapping[Input, render.Reads]) -> str:
    """A SELECT of the rows as of what is stored of the inputs now, equal ones apart: of any number, in little memory.

    ``whole``: what stands for the leaves of the inputs, brought to positive weights.
    """
    names = _names(node)
    return f"{_with(node, '', whole)}SELECT {names}, 1::BIGINT AS {WEIGHT} FROM ({node.query})"


@remembered
def touched_sql(node: Recompute, deltas: Mapping[Input, str]) -> str:
    """A SELECT of the keys in the inputs' deltas."""
    return " UNION ".join(_keys_sql(node, each, delta) for each, delta in deltas.items())


@remembered
def wider_sql(node: Recompute, changed: Iterable[Input]) -> str:
    """A SELECT of the keys of all changed rows that some inputs are chosen from; empty where there is no such.

    Nodes that choose differently among the rows of a table have this in common.
    """
    found = [_stored_keys(node, each) for each in changed]
    return " UNION ".join(found) if all(found) else ""


@remembered
def moved_sql(node: Recompute, extremes: tuple[Extreme, ...], delta: str) -> str:
    """A SELECT of those keys in the one input's delta whose extremes may become others.

    The least value stays where a row with a greater one goes, and where one comes that is not smaller. A key that is
    new, or has no value but NULL, is always among them.
    """
    (each,), names = node.inputs, _names(node)
    listed = ", ".join(f"i.{quote(own)} AS {quote(key)}" for own, key in zip(each.keys, node.keys, strict=True))
    moved = []
    for extreme in extremes:
        old, new = f"s.{quote(extreme.column)}", f"({extreme.value})"
        sign = "<" if extreme.is_least else ">"
        moved.append(f"{old} IS NULL OR {new} {sign} {old} OR (i.{WEIGHT} < 0 AND {new} = {old})")
    standing = f"SELECT {names} FROM {quote(node.table)} GROUP BY ALL HAVING sum({WEIGHT}) > 0"
    same = " AND ".join(
        f"s.{quote(key)} IS NOT DISTINCT FROM i.{quote(own)}" for own, key in zip(each.keys, node.keys, strict=True)
    )
    return (
        f"SELECT DISTINCT {listed} FROM ({delta}) AS i LEFT JOIN ({standing}) AS s ON {same} WHERE {' OR '.join(moved)}"
    )


def _keys_sql(node: Recompute, each: Input, delta: str) -> str:
    """The keys in one delta; nodes over the same table and key get the same text, whatever else they read of it."""
    if (stored := _stored_keys(node, each)) and not chooses(each.node):
        return stored
    listed = (f"{quote(own)} AS {quote(key)}" for own, key in zip(each.keys, node.keys, strict=True))
    return f"SELECT {', '.join(listed)} FROM ({delta})"


def _stored_keys(node: Recompute, each: Input) -> str:
    """A SELECT of the keys of all changed rows of the one relation that an input reads; empty where it is not one."""
    found = stored_columns(each.node, each.keys)
    if found is None:
        return ""
    source, columns = found
    listed = (f"{quote(own)} AS {quote(key)}" for own, key in zip(columns, node.keys, strict=True))
    return f"SELECT {', '.join(listed)} FROM {quote(render.delta_table(source))}"


def selective(node: Recompute) -> Input | None:
    """Of the inputs that every result needs, the one to read first: of keys that it lacks nothing else is looked up.

    It has to filter its rows; of several it is the one that joins least. None where there is none.
    """
    found = [each for each in node.inputs if each.is_needed and is_filtered(each.node)]
    return (
        min(found, key=lambda each: sum(1 for _ in leaves(each.node)), default=None) if len(node.inputs) > 1 else None
    )


def first_table(node: Recompute) -> str:
    """The rows of the input that is read first, and (``found_table``) the touched keys that these have."""
    return f"i_{node.table}"


def found_table(node: Recompute) -> str:
    return f"j_{node.table}"


@remembered
def first_sql(node: Recompute, first: Input, touched: str, reads: render.Reads) -> str:
    """A SELECT of the touched keys' rows of an input."""
    return _rows(node, first, quote(touched), reads)


@remembered
def found_sql(node: Recompute, first: Input) -> str:
    """A SELECT of the keys in ``first_table``."""
    listed = (f"{quote(own)} AS {quote(key)}" for own, key in zip(first.keys, node.keys, strict=True))
    return f"SELECT DISTINCT {', '.join(listed)} FROM {quote(first_table(node))}"


@remembered
def delta_sql(
    node: Recompute,
    stored: str,
    touched: str,
    reads: Mapping[Input, render.Reads],
    first: Input | None = None,
) -> str:
    """The change of the stored rows, columns and weight; of the keys in the table ``touched``, or (empty) of all.

    ``stored`` (a FROM item), ``reads``: what stands for the stored rows, and for leaves of the inputs when they were
    looked up, or (without keys) brought to positive weights. ``first``: the input whose rows are in ``first_table``;
    of the others those of ``found_table`` are read.
    """
    touched = quote(touched) if touched else ""
    names = _names(node)
    old = f"SELECT {names}, -{WEIGHT} AS {WEIGHT} FROM {stored} AS s"
    if touched:
        old += f" SEMI JOIN {touched} AS k ON {_same(node.keys, 's', node.keys)}"
    new = f"SELECT {names}, 1::BIGINT AS {WEIGHT} FROM ({node.query})"
    return (
        f"{_with(node, quote(found_table(node)) if first else touched, reads, first)}"
        f"SELECT {names}, CAST(sum({WEIGHT}) AS BIGINT) AS {WEIGHT}"
        f" FROM ({new} UNION ALL {old}) GROUP BY ALL HAVING sum({WEIGHT}) <> 0"
    )


def _with(node: Recompute, touched: str, reads: Mapping[Input, render.Reads], first: Input | None = None) -> str:
    """The inputs' rows under their names; with ``touched``, only those of its keys."""
    parts = (
        f"{quote(each.name)} AS (FROM {quote(first_table(node))})"
        if each is first
        else f"{quote(each.name)} AS ({_rows(node, each, touched, reads.get(each, render.NOTHING))})"
        for each in node.inputs
    )
    return f"WITH {', '.join(parts)} " if node.inputs else ""


def _rows(node: Recompute, each: Input, touched: str, reads: render.Reads) -> str:
    names = ", ".join(quote(name) for name in column_names(each.node))
    rows = render.state(each.node, reads)
    if touched:
        rows = f"SELECT i.* FROM ({rows}) AS i SEMI JOIN {touched} AS k ON {_same(each.keys, 'i', node.keys)}"
    if touched or not reads:
        rows = f"SELECT {names}, sum({WEIGHT}) AS {WEIGHT} FROM ({rows}) GROUP BY ALL HAVING sum({WEIGHT}) > 0"
    return f"SELECT {names} FROM (SELECT {names}, unnest(range(CAST({WEIGHT} AS BIGINT))) FROM ({rows}))"


def _same(own: tuple[str, ...], alias: str, keys: tuple[str, ...]) -> str:
    pairs = zip(own, keys, strict=True)
    return " AND ".join(f"{alias}.{quote(one)} IS NOT DISTINCT FROM k.{quote(other)}" for one, other in pairs)


def _names(node: Recompute) -> str:
    return ", ".join(quote(name) for name, _ in node.outputs)
