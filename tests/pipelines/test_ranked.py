"""Which conditions over a subquery's window functions decide what is stored, and which are left outside."""

from __future__ import annotations

import pytest

from headwater.schema import Schema
from headwater_pipelines.compiler import Relations, Table, compile_view, parse
from headwater_pipelines.compiler.plan import Base, Recompute, sources

ITEMS = Table(Base("shop.public.items", 1, "table"), Schema.of(id="BIGINT", k="VARCHAR", a="INTEGER", key=["id"]))
RANK = "rank() OVER (PARTITION BY k ORDER BY id)"


@pytest.mark.parametrize(
    ("sql", "stored", "outside"),
    [
        (f"SELECT id FROM (SELECT *, {RANK} AS place FROM items) WHERE place = 1", ["= 1"], []),
        (f"SELECT id FROM (SELECT id, {RANK} AS place FROM items) t WHERE t.place < 9 AND id > 7", ["< 9", "> 7"], []),
        (f"SELECT id FROM (SELECT *, {RANK} AS place FROM items) WHERE place < 9 AND a > 7", ["< 9"], ["> 7"]),
        (f"WITH r AS (SELECT id, {RANK} AS p FROM items) SELECT id FROM r AS q WHERE q.p = 2", ["= 2"], []),
        (f"WITH r(x, y) AS (SELECT id, {RANK} AS x FROM items) SELECT y FROM r WHERE x = 2", [], ["= 2"]),
        (f"SELECT id FROM (SELECT *, {RANK} AS place FROM items) WHERE place < a", [], ["place < "]),
        (
            f"SELECT id FROM (SELECT *, {RANK} AS place, 2 AS a FROM items) WHERE place < 9 AND a > 7",
            ["< 9"],
            ["> 7"],
        ),
        (f"SELECT id FROM (SELECT id, {RANK} AS place FROM items LIMIT 5) WHERE place < 9", [], ["< 9"]),
        (f"SELECT id FROM (SELECT DISTINCT id, {RANK} AS place FROM items) WHERE place < 9", [], ["< 9"]),
        (f"SELECT id FROM (SELECT id, {RANK} AS place FROM items) t(id, a) WHERE a < 9", [], ["< 9"]),
    ],
)
def test_only_conditions_over_what_is_written_out_decide(sql: str, stored: list[str], outside: list[str]) -> None:
    root = compile_view(parse(sql, name="v"), Relations([ITEMS])).root
    window = next(source for source in sources(root) if isinstance(source, Recompute) and source.operator == "window")
    for text in stored:
        assert text in window.query.partition("QUALIFY")[2]
    for text in outside:
        assert text not in window.query
        assert text in repr(root)
