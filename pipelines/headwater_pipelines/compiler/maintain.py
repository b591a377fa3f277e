"""The statements that keep an aggregate's state and produce a view's output delta.

An aggregate's delta holds the whole old row (weight -1) and the whole new row (+1) of every group that
changes, so that whatever reads it is a plain tree again. State is changed by DELETE and INSERT, never by
UPDATE or MERGE, which cost 10 to 40 times as much in DuckDB on large tables.
"""

from __future__ import annotations

from collections.abc import Sequence

from headwater.record import WEIGHT as LOG_WEIGHT
from headwater.types import lower_leaf, over_leaves, quote
from headwater_pipelines.compiler import render
from headwater_pipelines.compiler.plan import COUNT, WEIGHT, Aggregate, Measure
from headwater_pipelines.compiler.render import delta_table


def create_sql(aggregate: Aggregate) -> str:
    """Creates the state with its groups as of what is stored now."""
    return f"CREATE TABLE {quote(aggregate.table)} AS {_recompute(aggregate, '')}"


def delta_sql(aggregate: Aggregate, input_delta: str) -> str:
    """The aggregate's delta, state columns and weight, out of its input's delta."""
    return _recomputed(aggregate, input_delta) if aggregate.touched else _added(aggregate, input_delta)


def apply_sql(aggregate: Aggregate) -> tuple[str, str]:
    """Two statements that bring the state up to date with its delta."""
    table, delta = quote(aggregate.table), quote(delta_table(aggregate))
    same = _same(aggregate, table, "d")
    delete = f"DELETE FROM {table} USING {delta} AS d WHERE d.{WEIGHT} < 0 AND {same}"
    insert = f"INSERT INTO {table} SELECT {_names(aggregate)} FROM {delta} WHERE {WEIGHT} > 0"
    return delete, insert


def output_sql(columns: Sequence[tuple[str, str]], delta: str, *, weighted: bool = True, distinct: bool = True) -> str:
    """A view's change in file types with the log's weight column: each row once, and none that cancels out.

    Without ``distinct`` equal rows may come several times; for a delta in which nothing cancels that says the same.
    """
    names = ", ".join(quote(name) for name, _ in columns)
    lowered = ", ".join(f"{file_sql(name, text)} AS {quote(name)}" for name, text in columns)
    if not distinct:
        return f"SELECT {lowered}, CAST({WEIGHT} AS BIGINT) AS {LOG_WEIGHT} FROM ({delta})"
    weight = f"sum({WEIGHT})" if weighted else "count(*)"
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


def _added(aggregate: Aggregate, input_delta: str) -> str:
    """Each touched group twice, as it was and as it becomes, out of one join: no second grouping, no copy."""
    keys = _keys(aggregate)
    sums = [(quote(name), text) for name, text in aggregate.columns() if (name, text) not in aggregate.keys]
    moved = " OR ".join(f"{name} <> 0" for name, _ in sums)
    grouped = f"SELECT {_measured(aggregate, weighted=True)} FROM ({input_delta}){_group_by(keys)}"
    raw = f"SELECT * FROM ({grouped}) WHERE {moved}"
    values = [f"raw.{key} AS {key}" for key in keys]
    for name, text in sums:
        values.append(
            f"CAST(CASE WHEN side.w < 0 THEN s.{name} ELSE coalesce(s.{name}, 0) + raw.{name} END AS {text}) AS {name}"
        )
    rows = quote(COUNT)
    # An ungrouped aggregate has its one row even over nothing; a group lives while it has rows.
    alive = f" AND (side.w < 0 OR coalesce(s.{rows}, 0) + raw.{rows} <> 0)" if keys else ""
    return (
        f"SELECT {', '.join(values)}, side.w AS {WEIGHT} FROM ({raw}) AS raw"
        f" LEFT JOIN {quote(aggregate.table)} AS s ON {_same(aggregate, 's', 'raw')}"
        f" CROSS JOIN (VALUES (-1::BIGINT), (1::BIGINT)) AS side(w)"
        f" WHERE (side.w > 0 OR s.{rows} IS NOT NULL){alive}"
    )


def _recomputed(aggregate: Aggregate, input_delta: str) -> str:
    names = _names(aggregate)
    keys = ", ".join(_keys(aggregate))
    touched = (
        f"SELECT DISTINCT {keys} FROM ({input_delta})" if keys else f"SELECT 1 AS one FROM ({input_delta}) LIMIT 1"
    )
    return (
        f"WITH touched AS MATERIALIZED ({touched}),"
        f" old AS (SELECT s.* FROM {quote(aggregate.table)} AS s"
        f" SEMI JOIN touched ON {_same(aggregate, 's', 'touched')}),"
        f" new AS ({_recompute(aggregate, 'touched')})"
        f" SELECT {names}, -1::BIGINT AS {WEIGHT} FROM old UNION ALL SELECT {names}, 1::BIGINT AS {WEIGHT} FROM new"
    )


def _recompute(aggregate: Aggregate, touched: str) -> str:
    """The groups out of the stored input; with ``touched``, only those."""
    weighted = render.is_weighted(aggregate.input)
    rows = render.state(aggregate.input)
    if touched:
        rows = f"SELECT i.* FROM ({rows}) AS i SEMI JOIN {touched} ON {_same(aggregate, 'i', touched)}"
    if weighted:
        inner = ", ".join([*_keys(aggregate), *(quote(measure.column) for measure in aggregate.measures)])
        inner = f"{inner}, " if inner else ""
        rows = f"SELECT {inner}sum({WEIGHT}) AS {WEIGHT} FROM ({rows}) GROUP BY ALL HAVING sum({WEIGHT}) <> 0"
    # The one group without keys is there over nothing, too; where nothing is touched it must not come again.
    grouped = _group_by(_keys(aggregate)) or (f" HAVING EXISTS (FROM {touched})" if touched else "")
    return f"SELECT {_measured(aggregate, weighted=weighted)} FROM ({rows}){grouped}"


def _measured(aggregate: Aggregate, *, weighted: bool) -> str:
    """Keys, row count and measures of rows that are grouped by the keys."""
    rows = f"coalesce(sum({WEIGHT}), 0)" if weighted else "count(*)"
    found = [*_keys(aggregate), f"CAST({rows} AS BIGINT) AS {quote(COUNT)}"]
    for measure in aggregate.measures:
        value = quote(measure.column)
        count = f"coalesce(sum({WEIGHT}) FILTER ({value} IS NOT NULL), 0)" if weighted else f"count({value})"
        found.append(f"CAST({count} AS BIGINT) AS {quote(measure.count)}")
        if measure.sum_type:
            summed = f"sum({_exact(measure)}{f' * {WEIGHT}' if weighted else ''})"
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
