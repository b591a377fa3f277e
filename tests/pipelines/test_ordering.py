"""Orders that leave a choice: a view's answer follows from its rows, whatever order they are stored in."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.pipelines.world import Topic, World

from headwater.errors import UnsupportedSql
from headwater.schema import Schema
from headwater_pipelines.compiler import CompiledView, Relations, Table, compile_view, parse
from headwater_pipelines.compiler.explain import explain
from headwater_pipelines.compiler.plan import Base
from headwater_pipelines.compiler.refusals import SAMPLING
from headwater_pipelines.compiler.totals import ORDERED

KEYED = Schema.of(id="BIGINT", k="VARCHAR", a="INTEGER", b="INTEGER", key=["id"])
BAG = Schema.of(k="VARCHAR", x="INTEGER", y="INTEGER")
RELATIONS = Relations([Table(Base("items", 1, "table"), KEYED), Table(Base("bag", 2, "multiset"), BAG)])
OPEN = {
    "lists": "SELECT k, list(x) AS l, array_agg(y) FILTER (x > 0) AS m, string_agg(x, '-') AS s FROM bag GROUP BY k",
    "ties_in_a_list": "SELECT k, list(y ORDER BY x DESC) AS l, string_agg(y, ',' ORDER BY x) AS s FROM bag GROUP BY k",
    "one_of_many": "SELECT k, first(x) AS f, last(x) AS l, any_value(y) AS v, mode(y) AS m FROM bag GROUP BY k",
    "extremes": "SELECT k, arg_max(a, b) AS t, min_by(id, b) AS s, arg_min(id, b, 2) AS u FROM items GROUP BY k",
    "json": "SELECT k, json_group_array(x) AS j, json_group_object(y, x) AS o FROM bag WHERE y >= 0 GROUP BY k",
    "numbered": "SELECT x, row_number() OVER (PARTITION BY k ORDER BY y) AS n, ntile(3) OVER (ORDER BY y) AS t"
    " FROM bag",
    "neighbours": "SELECT id, lag(id) OVER (ORDER BY b) AS p, lead(a, 2, 0) OVER (PARTITION BY k) AS q FROM items",
    "rows_frame": "SELECT id, sum(id) OVER (ORDER BY b ROWS 2 PRECEDING) AS s FROM items",
    "peers": "SELECT id, last_value(id) OVER (PARTITION BY k ORDER BY b) AS l, first_value(a) OVER w AS f,"
    " list(id) OVER w AS m FROM items WINDOW w AS (PARTITION BY k ORDER BY b DESC)",
    "second_of_peers": "SELECT k, nth_value(x, 2 ORDER BY y) OVER (PARTITION BY k) AS v FROM bag",
    "star": "SELECT i.*, b.x, row_number() OVER (PARTITION BY i.k ORDER BY i.b) AS n FROM items i JOIN bag b USING (k)",
    "over_groups": "SELECT k, count(*) AS n, row_number() OVER (ORDER BY count(*)) AS p FROM bag GROUP BY k",
    "over_sets": "SELECT k, y, row_number() OVER (ORDER BY count(*)) AS p FROM bag GROUP BY ROLLUP (k, y)",
    "alias_is_a_column": "SELECT a AS b, row_number() OVER (ORDER BY b) AS n FROM items",
    "limit": "SELECT x, y FROM bag ORDER BY y DESC LIMIT 7",
    "limit_of_keyed": "SELECT a FROM items ORDER BY b LIMIT 6",
    "limit_alone": "SELECT * FROM bag LIMIT 5",
    "limit_of_groups": "SELECT k, count(*) AS n FROM items GROUP BY k ORDER BY n LIMIT 2 OFFSET 1",
    "limit_of_union": "SELECT x FROM bag UNION ALL SELECT a FROM items LIMIT 5",
    "limit_of_distinct": "SELECT DISTINCT x, y FROM bag ORDER BY y LIMIT 5",
    "first_of_each": "SELECT DISTINCT ON (k) k, x, y FROM bag ORDER BY k, y",
    "first_of_each_keyed": "SELECT DISTINCT ON (k) k, a FROM items",
    "qualified": "SELECT x, y FROM bag QUALIFY row_number() OVER (PARTITION BY k ORDER BY y) = 1",
    "subquery": "SELECT i.id, (SELECT b.x FROM bag b WHERE b.k = i.k ORDER BY b.y LIMIT 1) AS v FROM items i",
    "array": "SELECT i.id, ARRAY(SELECT b.x FROM bag b WHERE b.k = i.k ORDER BY b.y) AS v FROM items i",
    "ordered_subquery": "SELECT k, list(x) AS l FROM (SELECT k, x FROM bag ORDER BY y DESC) GROUP BY k",
    "ordered_cte": "WITH o AS (SELECT * FROM bag ORDER BY y) SELECT k, first(x) AS f FROM o GROUP BY k",
    "limit_of_ordered": "SELECT x FROM (SELECT x FROM bag ORDER BY y) LIMIT 4",
    "as_of": "SELECT i.id, b.x FROM items i ASOF LEFT JOIN bag b ON i.k = b.k AND i.b >= b.y",
    "as_of_around": "SELECT i.id, j.id AS o, b.x FROM items i, items j"
    " ASOF JOIN (SELECT DISTINCT k, x, y FROM bag) b ON i.k = b.k AND j.b >= b.y",
    "cte": "WITH n AS (SELECT k, x, row_number() OVER (PARTITION BY k ORDER BY y) AS p FROM bag) FROM n WHERE p < 3",
}  # fmt: skip
BY_HASH = ("over_groups", "over_sets", "limit_of_groups", "limit_of_distinct")
"""Groups come in an order of their own, whatever that of their rows."""
ROUNDED = (
    "SELECT coalesce((round(TRY_CAST(v AS DOUBLE), 6) + 0.0)::VARCHAR, v) FROM (SELECT ({})::VARCHAR AS v FROM bag)"
)
TOTAL = [
    "SELECT k, list(a ORDER BY b, id) AS l FROM items GROUP BY k",
    "SELECT id, row_number() OVER (PARTITION BY k ORDER BY b, i.id DESC) AS n FROM items i",
    "SELECT id, sum(a) OVER (PARTITION BY k ORDER BY b) AS s, rank() OVER (ORDER BY b) AS r FROM items",
    "SELECT k, sum(a) AS s, lag(sum(a)) OVER (ORDER BY k) AS p FROM items GROUP BY k",
    "SELECT k, count(*) AS n FROM items GROUP BY k ORDER BY n DESC, k LIMIT 3",
    "SELECT x, y FROM bag ORDER BY ALL LIMIT 3",
    "SELECT x AS u, y FROM bag ORDER BY u, 2 LIMIT 3",
    "SELECT id FROM items ORDER BY b, id LIMIT 3",
    "SELECT a FROM items ORDER BY b, id LIMIT 3",
    "SELECT max(a) AS m FROM items LIMIT 1",
    "SELECT b.k, i.a FROM bag b ASOF JOIN items i ON i.id = b.x AND i.b <= b.y",
]


def compiled(sql: str) -> CompiledView:
    return compile_view(parse(sql, name="v"), RELATIONS)


@pytest.fixture(scope="module")
def stored() -> Iterator[list[duckdb.DuckDBPyConnection]]:
    """The same rows in several databases, each time in another order."""
    rng = random.Random(5)
    keyed = [(i, rng.choice("xyz"), rng.randrange(3), rng.randrange(3)) for i in range(30)]
    bag = [(rng.choice("xyz"), rng.randrange(-1, 4), rng.randrange(3)) for _ in range(40)]
    found = [duckdb.connect(config={"threads": 1}) for _ in range(12)]
    for connection in found:
        connection.execute("CREATE TABLE items (id BIGINT, k VARCHAR, a INTEGER, b INTEGER)")
        connection.execute("CREATE TABLE bag (k VARCHAR, x INTEGER, y INTEGER)")
        for name, rows in (("items", keyed), ("bag", bag)):
            connection.execute(f"INSERT INTO {name} VALUES {', '.join(map(repr, rng.sample(rows, len(rows))))}")
    yield found
    for connection in found:
        connection.close()


def answers(sql: str, stored: list[duckdb.DuckDBPyConnection]) -> int:
    """How many different ones DuckDB gives."""
    return len({repr(sorted(map(repr, each.execute(sql).fetchall()))) for each in stored})


@pytest.mark.parametrize("name", OPEN)
def test_the_answer_follows_from_the_rows(stored: list[duckdb.DuckDBPyConnection], name: str) -> None:
    view = compiled(OPEN[name])
    assert view.ordered
    assert answers(view.query, stored) == 1
    assert name in BY_HASH or answers(OPEN[name], stored) > 1, "there was no choice"


@pytest.mark.parametrize("sql", TOTAL)
def test_an_order_that_leaves_no_choice_stays(sql: str) -> None:
    assert not compiled(sql).ordered


class Ties(World):
    """Few values, many equal rows."""

    FILL = 60

    def tables(self) -> list[Topic]:
        return [
            Topic(Base("shop.public.items", 1, "table"), KEYED),
            Topic(Base("shop.public.bag", 2, "multiset"), BAG),
        ]

    def value(self, topic: Topic, name: str, text: str) -> Any:
        value = super().value(topic, name, text)
        return 0 if name == "y" and value is None else value  # no key of JSON


def test_views_equal_their_ordered_sql_at_every_step(seed: int, tmp_path: Path) -> None:
    world = Ties(random.Random(seed), tmp_path, OPEN)
    for _ in range(3):
        world.step()
    world.state.close()


def test_every_other_aggregate_function_has_one_answer(stored: list[duckdb.DuckDBPyConnection]) -> None:
    """A function that depends on the order of rows, and that this does not know, would be found here."""
    query = "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type = 'aggregate'"
    names = {name for (name,) in stored[0].execute(query).fetchall()}
    assert names >= ORDERED
    tried = 0
    for name in sorted(names - ORDERED - SAMPLING):
        for given in ("x", "x, y", "x, 0.5", "x > 1", "x, 2"):
            try:
                found = answers(ROUNDED.format(f'"{name}"({given})'), stored[:4])
            except duckdb.Error:
                continue
            tried += 1
            assert found == 1, (name, given)
    assert tried > 60


@pytest.mark.parametrize(
    ("sql", "place"),
    [
        ("SELECT sum(x) OVER (ORDER BY y ROWS 2 PRECEDING EXCLUDE TIES) AS s FROM bag", (1, 8)),
        ("SELECT k, list(n) AS l FROM (SELECT k, sum(x) n FROM bag GROUP BY ALL ORDER BY min(x)) GROUP BY k", (1, 80)),
    ],
)  # fmt: skip
def test_what_cannot_be_made_total_is_refused(sql: str, place: tuple[int, int]) -> None:
    with pytest.raises(UnsupportedSql) as caught:
        compiled(sql)
    assert caught.value.code == "ORDER_NOT_TOTAL"
    assert (caught.value.line, caught.value.column) == place
    assert "order" in caught.value.todo.lower()


def test_explain_says_what_was_chosen() -> None:
    plan = explain(compiled("SELECT a, row_number() OVER (PARTITION BY k ORDER BY b) AS n FROM items LIMIT 3"))
    said = (
        "where an order left a choice, it is made: row_number() OVER (PARTITION BY k ORDER BY b, id); LIMIT ORDER BY id"
    )
    assert said in str(plan)
    assert plan.to_dict()["ordered"] == list(plan.ordered)
    assert [name for name, _ in compiled("SELECT k, list(a) FROM items GROUP BY k").columns] == ["k", "list(a)"]
