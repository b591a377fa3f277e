"""The SQL that is generated for each operator, kept in tests/golden/, so that a change of it is seen and read.

``HEADWATER_UPDATE_GOLDEN=1`` writes the files anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headwater.schema import Schema
from headwater_pipelines.compiler import (
    Relations,
    Table,
    compile_view,
    instant,
    maintain,
    parse,
    recompute,
    render,
    top,
)
from headwater_pipelines.compiler.plan import Aggregate, Base, Clock, Recompute, Top, leaves, sources

GOLDEN = Path(__file__).parents[1] / "golden"
RELATIONS = Relations(
    [
        Table(
            Base("shop.public.a", 1, "table"),
            Schema.of(id="BIGINT", k="VARCHAR", x="DECIMAL(12,2)", at="TIMESTAMP", key=["id"]),
        ),
        Table(Base("shop.public.b", 2, "multiset"), Schema.of(k="VARCHAR", y="INTEGER", f="DOUBLE")),
    ]
)
OPERATORS = {
    "filter_project": "SELECT id, upper(k) AS k FROM a WHERE x > 1",
    "join": "SELECT a.id, b.y FROM a JOIN b ON a.k = b.k",
    "self_join": "SELECT p.id AS p, q.id AS q FROM a p JOIN a q USING (k)",
    "union_all": "SELECT k FROM a UNION ALL SELECT k FROM b",
    "aggregate": "SELECT k, count(*) AS n, sum(x) AS s, avg(x) AS m FROM a GROUP BY k HAVING n > 1",
    "aggregate_average": "SELECT k, avg(x) AS m FROM a GROUP BY k",
    "aggregate_total": "SELECT count(*) AS n, sum(y) AS s FROM b",
    "aggregate_touched": "SELECT k, sum(f) AS s FROM b GROUP BY k",
    "aggregate_recomputed": "SELECT k, max(x) AS m FROM a GROUP BY k",
    "distinct": "SELECT DISTINCT k FROM b",
    "except": "SELECT k FROM a EXCEPT SELECT k FROM b",
    "left_join": "SELECT a.id, b.y FROM a LEFT JOIN b ON a.k = b.k AND b.y > a.x",
    "semi_join": "SELECT id FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k)",
    "top": "SELECT id FROM a ORDER BY x DESC, id LIMIT 3",
    "extremes": "SELECT max(x) AS m, count(*) AS n FROM a",
    "window": "SELECT id, rank() OVER (PARTITION BY k ORDER BY x) AS r FROM a",
    "time_filter": "SELECT id FROM a WHERE a.at > now() - INTERVAL 1 DAY AND a.at + INTERVAL 1 HOUR < now()",
    "whole": "SELECT id FROM a WHERE k > ANY (SELECT k FROM b) OR x > 1",
}


def generated(sql: str) -> str:
    """The definition, then the statements: each aggregate's delta and application, each term of the output."""
    view = compile_view(parse(sql, name="v"), RELATIONS)
    parts = [f"-- view\n{sql}"]
    for source in sources(view.root):
        if isinstance(source, Aggregate):
            terms = [render.term(source.input, place) for place, _ in enumerate(leaves(source.input))]
            touched = f"({maintain.touched_sql(source, ' UNION ALL '.join(terms))})"
            delta = maintain.delta_sql(source, touched, source.table, {})
            parts.append(f"-- delta of {source.table}\n{delta}")
        if isinstance(source, Clock):
            parts.append(f"-- delta of {source.table}\n{instant.delta_sql(source, instant.at(0))}")
            parts += [f"-- bounds\n{statement}" for statement in instant.bounds_sql(source)]
        if isinstance(source, Recompute):
            deltas = {
                each: " UNION ALL ".join(render.term(each.node, place) for place, _ in enumerate(leaves(each.node)))
                for each in source.inputs
            }
            if source.keys:
                parts.append(f"-- touched keys\n{recompute.touched_sql(source, deltas)}")
            if source.extremes:
                moved = recompute.moved_sql(source, source.extremes, *deltas.values())
                parts.append(f"-- of these, those whose extremes may become others\n{moved}")
            delta = recompute.delta_sql(source, source.table, "touched" if source.keys else "", {})
            parts.append(f"-- delta of {source.table}\n{delta}")
        if isinstance(source, Top):
            terms = [render.term(source.input, place) for place, _ in enumerate(leaves(source.input))]
            table = top.touched_table(source)
            parts.append(
                f"-- {table}, the changes that are not behind\n{top.touched_sql(source, ' UNION ALL '.join(terms))}"
            )
            parts.append(f"-- whether these leave enough\n{top.has_enough_sql(source, table)}")
            parts.append(f"-- delta of {source.table}\n{top.delta_sql(source, table)}")
            parts.append(f"-- the same where they do not\n{top.refilled_sql(source, {})}")
    for place, source in enumerate(leaves(view.root)):
        parts.append(f"-- output term of {source.table}\n{render.term(view.root, place)}")
    parts.append(f"-- contents\n{render.state(view.root)}")
    return ";\n\n".join(parts) + ";\n"


@pytest.mark.parametrize("name", OPERATORS)
def test_generated_sql(name: str) -> None:
    file = GOLDEN / f"view_{name}.sql"
    found = generated(OPERATORS[name])
    if os.environ.get("HEADWATER_UPDATE_GOLDEN"):
        file.write_text(found)
    assert found == file.read_text(), f"{file.name} differs; read the change, then set HEADWATER_UPDATE_GOLDEN=1"
