"""What a plan says about its rows."""

from __future__ import annotations

import pytest

from headwater.schema import Schema
from headwater_pipelines.compiler import Relations, Table, compile_view, parse
from headwater_pipelines.compiler.plan import Base, is_row_by_row
from headwater_pipelines.compiler.syntax import Duck

RELATIONS = Relations(
    [
        Table(Base("items", 1, "table"), Schema.of(id="BIGINT", k="VARCHAR", l="INTEGER[]", key=["id"])),
        Table(Base("bag", 2, "multiset"), Schema.of(k="VARCHAR", x="INTEGER")),
    ]
)


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("SELECT id + 1 AS n FROM items WHERE k <> 'a'", True),
        ("SELECT k FROM items UNION ALL SELECT k FROM bag", True),
        ("SELECT k, count(*) AS n FROM items GROUP BY k", True),
        ("SELECT id, rank() OVER (PARTITION BY k ORDER BY id) AS r FROM items", True),
        ("SELECT i.id, b.x FROM items i JOIN bag b USING (k)", False),
        ("SELECT id, unnest(l) AS x FROM items", False),
        ("SELECT n + 1 AS n FROM (SELECT unnest(range(1000000)) AS n FROM items) WHERE n > 7", False),
        ("SELECT id, generate_subscripts(l, 1) AS n FROM items", False),
        ("SELECT k FROM items UNION ALL SELECT CAST(unnest(l) AS VARCHAR) AS k FROM items", False),
    ],
)
def test_which_trees_give_at_most_a_row_for_a_row(query: str, answer: bool) -> None:
    assert is_row_by_row(compile_view(parse(query, name="v"), RELATIONS, Duck()).root) is answer
