"""The statements that keep an aggregate's state and produce a view's output delta.

An aggregate's delta holds the whole old row (weight -1) and the whole new row (+1) of every group that
changes, so that whatever reads it is a plain tree again, and the state grows by that delta: its rows are never
updated, they are taken back.
"""

from __future__ import annotations

from collections.abc import Sequence

from headwater.record import WEIGHT as LOG_WEIGHT
from headwater.types import lower_leaf, over_leaves, quote
from headwater_pipelines.compiler import render
from headwater_pipelines.compiler.plan import COUNT, WEIGHT, Aggregate, Measure
from headwater_pipelines.compiler.remembered import remembered


def fill_sql(aggregate: Aggregate) -> str:
    """A SELECT of the groups as of what is stored now."""
    return f"SELECT *, 1::BIGINT AS {WEIGHT} FROM ({_recompute(aggregate, '', render.NOTHING)})"


@remembered
def touched_sql(aggregate: Aggregate, input_delta: str) -> str:
    """A SELECT of the touched groups: with what is added to them, or of their keys alone if they are recomputed."""
    keys = _keys(aggregate)
    if aggregate.touched:
        return f"SELECT DISTINCT {', '.join(keys) or 'true AS one'} FROM ({input_delta})"
    moved = " OR ".join(f"{quote(name)} <> 0" for name, _ in aggregate.columns()[len(keys) :])
    grouped = f"SELECT {_measured(aggregate)} FROM ({input_delta}){_group_by(keys)}"
    return f"SELECT * FROM ({grouped}) WHERE {moved}"


@remembered
def delta_sql(aggregate: Aggregate, touched: str, stored: str, reads: render.Reads) -> str:
    """The aggregate's delta, state columns and weight, out of its touched groups (a FROM item).

    ``stored`` (a FROM item, in parentheses where it was looked up) and ``reads``: what stands for the groups as stored,
    and for leaves of the input when they were looked up.
    """
    if aggregate.touched:
        return _recomputed(aggregate, touched, stored, reads)
    return _added(aggregate, touched, stored)


@remembered
def output_sql(columns: Sequence[tuple[str, str]], delta: str, *, distinct: bool = True) -> str:
    """A view's change in file types with the log's weight column: each row once, and none that cancels out.

    Without ``distinct`` equal rows may come several times; for a delta in which nothing cancels that says the same.
    """
    names = ", ".join(quote(name) for name, _ in columns)
    lowered = ", ".join(f"{file_sql(name, text)} AS {quote(name)}" for name, text in columns)
    if not distinct:
        return f"SELECT {lowered}, CAST({WEIGHT} AS BIGINT) AS {LOG_WEIGHT} FROM ({delta})"
    weight = f"sum({WEIGHT})"
    return (
        f"SELECT {lowered}, {LOG_WEIGHT} FROM (SELECT {names}, CAST({weight} AS BIGINT) AS {LOG_WEIGHT}"
        f" FROM ({delta}) GROUP BY ALL HAVING {weight} <> 0)"
    )


def file_sql(name: str, text: str) -> str:
    """A column as files hold it. A uuid goes as its 16 bytes: DuckDB would hand Arrow its text."""
    return over_leaves(quote(name), text, lambda value, kind: _uuid_bytes(lower_leaf(value, kind), kind))


def stored_sql(name: str, text: str) -> str:
    """A column read back from files as files hold it: only a uuid was made one again, and goes as its bytes."""
    return over_leaves(quote(name), text, _uuid_bytes)


def _uuid_bytes(value: str, text: str) -> str:
    return f"unhex(replace(CAST({value} AS VARCHAR), '-', ''))" if text == "UUID" else value


def _added(aggregate: Aggregate, touched: str, stored: str) -> str:
    """Each touched group twice, as it was and as it becomes, out of one join: no second grouping, no copy."""
    keys = _keys(aggregate)
    values = [f"raw.{key} AS {key}" for key in keys]
    for name, text in aggregate.columns()[len(keys) :]:
        n = quote(name)
        values.append(f"CAST(CASE WHEN side.w < 0 THEN s.{n} ELSE coalesce(s.{n}, 0) + raw.{n} END AS {text}) AS {n}")
    if stored.startswith("("):  # what was looked up: it is few, and what else is among it joins nothing
        raw, parts = f"{touched} AS raw", f"s AS ({_standing(aggregate, stored)})"
    else:
        raw = "raw"
        parts = f"raw AS MATERIALIZED (SELECT * FROM {touched}), s AS ({_current(aggregate, raw, stored)})"
    rows = quote(COUNT)
    # An ungrouped aggregate has its one row even over nothing; a group lives while it has rows.
    alive = f" AND (side.w < 0 OR coalesce(s.{rows}, 0) + raw.{rows} <> 0)" if keys else ""
    return (
        f"WITH {parts} SELECT {', '.join(values)}, side.w AS {WEIGHT}"
        f" FROM {raw} LEFT JOIN s ON {_same(aggregate, 's', 'raw')}"
        f" CROSS JOIN (VALUES (-1::BIGINT), (1::BIGINT)) AS side(w)"
        f" WHERE (side.w > 0 OR s.{rows} IS NOT NULL){alive}"
    )


def _recomputed(aggregate: Aggregate, touched: str, stored: str, reads: render.Reads) -> str:
    names = _names(aggregate)
    return (
        f"WITH touched AS MATERIALIZED (SELECT * FROM {touched}),"
        f" old AS ({_current(aggregate, 'touched', stored)}),"
        f" new AS ({_recompute(aggregate, 'touched', reads)})"
        f" SELECT {names}, -1::BIGINT AS {WEIGHT} FROM old UNION ALL SELECT {names}, 1::BIGINT AS {WEIGHT} FROM new"
    )


def _current(aggregate: Aggregate, touched: str, stored: str) -> str:
    """The touched groups as stored: of their rows, taken back or not, the one that stands."""
    rows = f"SELECT s.* FROM {stored} AS s SEMI JOIN {touched} ON {_same(aggregate, 's', touched)}"
    return _standing(aggregate, f"({rows})")


def _standing(aggregate: Aggregate, rows: str) -> str:
    """Of the rows of groups (a FROM item), taken back or not, those that stand."""
    return f"SELECT {_names(aggregate)} FROM {rows} GROUP BY ALL HAVING sum({WEIGHT}) > 0"


def _recompute(aggregate: Aggregate, touched: str, reads: render.Reads) -> str:
    """The groups out of the stored input; with ``touched``, only those."""
    rows = render.state(aggregate.input, reads)
    if touched:
        rows = f"SELECT i.* FROM ({rows}) AS i SEMI JOIN {touched} ON {_same(aggregate, 'i', touched)}"
    if aggregate.touched:  # what was taken back must not be added up: an infinity would never cancel
        inner = ", ".join([*_keys(aggregate), *(quote(measure.column) for measure in aggregate.measures)])
        inner = f"{inner}, " if inner else ""
        rows = f"SELECT {inner}sum({WEIGHT}) AS {WEIGHT} FROM ({rows}) GROUP BY ALL HAVING sum({WEIGHT}) <> 0"
    # The one group without keys is there over nothing, too; where nothing is touched it must not come again.
    alive = f"sum({WEIGHT}) <> 0" if aggregate.keys else (f"EXISTS (FROM {touched})" if touched else "true")
    return f"SELECT {_measured(aggregate)} FROM ({rows}){_group_by(_keys(aggregate))} HAVING {alive}"


def _measured(aggregate: Aggregate) -> str:
    """Keys, row count and measures of rows that are grouped by the keys."""
    found = [*_keys(aggregate), f"CAST(coalesce(sum({WEIGHT}), 0) AS BIGINT) AS {quote(COUNT)}"]
    for measure in aggregate.measures:
        value = quote(measure.column)
        count = f"coalesce(sum({WEIGHT}) FILTER ({value} IS NOT NULL), 0)"
        found.append(f"CAST({count} AS BIGINT) AS {quote(measure.count)}")
        if measure.sum_type:
            summed = f"sum({_exact(measure)} * {WEIGHT})"
            found.append(f"CAST(coalesce({summed}, 0) AS {measure.sum_type}) AS {quote(measure.sum)}")
    return ", ".join(found)


def _exact(measure: Measure) -> str:
    """An argument in a type whose product with a weight, and whose sum, lose nothing."""
    if measure.sum_type == "HUGEINT" and measure.type not in ("BIGINT", "UBIGINT", "HUGEINT"):
        return f"CAST({quote(measure.column)} AS BIGINT)"
    return f"CAST({quote(measure.column)} AS {measure.sum_type})"


def _names(aggregate: Aggregate) -> str:
    return ", ".join(quote(name) for name, _ in aggregate.columns())


def _keys(aggregate: Aggregate) -> list[str]:
    return [quote(name) for name, _ in aggregate.keys]


def _group_by(keys: Sequence[str]) -> str:
    return f" GROUP BY {', '.join(keys)}" if keys else ""


def _same(aggregate: Aggregate, left: str, right: str) -> str:
    """Key equality in which NULL is a key like any other; without keys there is one group."""
    keys = _keys(aggregate)
    return " AND ".join(f"{left}.{key} IS NOT DISTINCT FROM {right}.{key}" for key in keys) or "true"
