"""The changes that catch whoever keeps views: each written down, with the rows that must come of it.

Which test holds what, of the twelve things that a comparison with DuckDB has to cover:

     1  changelog = rows = query, no negative weight, nothing comes and goes    World.publish, World.compare: everywhere
     2  any cut into batches; tables in any order                    test_random_queries: test_how_changes_are_cut...
     3  keys that change, pairs that cancel out, duplicates, rows deleted and inserted again, first and last of a group
                                                                     here, and at random in test_random_queries
     4  NULL in keys, values, joins and NOT IN; groups of nothing    here
     5  both sides of a join in one batch, self-joins, a view on two that read the same, outer joins 0 to 1 and back
                                                                     here
     6  ties, rows that change their partition, ends of frames, the edge of a LIMIT                            here
     7  windows of time, now() forwards and back                     test_time_windows, test_clock, test_clock_worker
     8  killed anywhere, nothing lost and nothing twice              test_pipeline_crash
     9  filled while inputs change; a replacement's difference       test_fill, test_lifecycle, test_runtime
    10  what holds between views holds at every step                 here
    11  sums beyond BIGINT, exact DECIMAL, floats                    here
    12  a code and a place for every refusal                         test_refusals, test_functions
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from tests.pipelines.world import Batch, Change, Topic, World

VIEWS = {
    # 3: groups
    "count": "SELECT k, count(*) AS n, count(v) AS nv, sum(v) AS s FROM a GROUP BY k",
    "highest": "SELECT k, max(v) AS hi FROM a GROUP BY k",
    "values": "SELECT v FROM a",
    "kinds": "SELECT DISTINCT k FROM a",
    "bagged": "SELECT k, v FROM b",
    "bag_count": "SELECT k, count(*) AS n FROM b GROUP BY k",
    # 4: NULL
    "total": "SELECT count(*) AS n, count(v) AS nv, sum(v) AS s, max(v) AS hi FROM a",
    "joined": "SELECT a.id, b.v AS bv FROM a JOIN b ON a.k = b.k",
    "null_safe": "SELECT a.id, b.v AS bv FROM a JOIN b ON a.k IS NOT DISTINCT FROM b.k",
    "not_in": "SELECT id FROM a WHERE v NOT IN (SELECT v FROM b)",
    "not_exists": "SELECT id FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.v = a.v)",
    # 5: joins
    "left": "SELECT a.id, b.v AS bv FROM a LEFT JOIN b ON a.k = b.k",
    "full": "SELECT a.id, b.v AS bv FROM a FULL JOIN b ON a.k = b.k",
    "self": "SELECT x.id AS x, y.id AS y FROM a x JOIN a y ON x.k = y.k AND x.id < y.id",
    "three": "SELECT a.id, b.v AS bv, c.id AS c FROM a JOIN b ON a.k = b.k JOIN a c ON c.v = b.v",
    "diamond": "SELECT c.k, c.n, h.hi FROM view_count c JOIN view_highest h ON c.k = h.k",
    # 6: order
    "ranks": "SELECT id, rank() OVER (PARTITION BY k ORDER BY v) AS r,"
    " row_number() OVER (PARTITION BY k ORDER BY v, id) AS n,"
    " sum(v) OVER (PARTITION BY k ORDER BY v, id ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS s FROM a",
    "top": "SELECT id, v FROM a ORDER BY v DESC NULLS LAST, id LIMIT 2",
}


class Traps(World):
    """A keyed table ``a`` and a bag ``b``, and steps that are written down."""

    def __init__(self) -> None:
        super().__init__(random.Random(0), None, VIEWS)

    def tables(self) -> list[Topic]:
        return [
            self.topic("a", 1, "table", ["id"], id="BIGINT", k="VARCHAR", v="INTEGER"),
            self.topic("b", 2, "multiset", [], k="VARCHAR", v="INTEGER"),
        ]

    def rows(self, name: str) -> list[str]:
        """What a view's changelog adds up to."""
        fold = self.folds[list(VIEWS).index(name) + 1]
        return sorted((+fold).elements())


def a(op: str, id_: int, k: str | None = None, v: int | None = None, old: tuple[Any, ...] = ()) -> Change:
    before = dict(zip(("id", "k", "v"), old, strict=True)) if old else {}
    return Change("a", op, {"id": id_, "k": k, "v": v}, before)


def b(op: str, k: str | None, v: int | None) -> Change:
    return Change("b", op, {"k": k, "v": v})


START = [a("c", 1, "x", 1), a("c", 2, "x", 1), a("c", 3, "y", None), a("c", 4, None, 5), b("c", "x", 1), b("c", "x", 1)]
CASES: list[tuple[str, list[Batch], dict[str, list[tuple[Any, ...]]]]] = [
    ("nothing at all", [], {"total": [(0, 0, None, None)], "count": [], "not_in": [], "full": []}),
    ("start", [START], {
        "count": [("x", 2, 2, 2), ("y", 1, 0, None), (None, 1, 1, 5)], "bag_count": [("x", 2)],
        "joined": [(1, 1)] * 2 + [(2, 1)] * 2, "left": [(1, 1)] * 2 + [(2, 1)] * 2 + [(3, None), (4, None)],
        "not_in": [(4,)], "not_exists": [(3,), (4,)], "self": [(1, 2)],
        "ranks": [(1, 1, 1, 2), (2, 1, 2, 2), (3, 1, 1, None), (4, 1, 1, 5)], "top": [(1, 1), (4, 5)],
    }),
    ("a key that changes", [START, [a("u", 9, "x", 1, (1, "x", 1))]], {
        "count": [("x", 2, 2, 2), ("y", 1, 0, None), (None, 1, 1, 5)], "self": [(2, 9)], "top": [(2, 1), (4, 5)],
    }),
    ("a pair that cancels out", [START, [a("c", 7, "z", 9), a("d", 7), b("c", "z", 1), b("d", "z", 1)]], {
        "kinds": [("x",), ("y",), (None,)], "bag_count": [("x", 2)], "top": [(1, 1), (4, 5)],
    }),
    ("deleted and inserted again", [START, [a("d", 1), a("c", 1, "x", 8)], [a("d", 2), a("c", 2, "x", 1)]], {
        "count": [("x", 2, 2, 9), ("y", 1, 0, None), (None, 1, 1, 5)], "top": [(1, 8), (4, 5)],
    }),
    ("one of two equal rows", [START, [b("d", "x", 1)]], {"bagged": [("x", 1)], "joined": [(1, 1), (2, 1)]}),
    ("the last row of a group", [START, [a("d", 3)], [a("d", 4)], [a("d", 1), a("d", 2)]], {
        "count": [], "kinds": [], "total": [(0, 0, None, None)], "top": [], "full": [(None, 1)] * 2,
    }),
    ("the first row of a group again", [START, [Change("a", "t")], [a("c", 1, "x", 3)]], {
        "count": [("x", 1, 1, 3)], "highest": [("x", 3)], "left": [(1, 1)] * 2,
    }),
    ("truncated and filled in one batch", [START, [Change("a", "t"), a("c", 2, "x", 3)]], {
        "count": [("x", 1, 1, 3)], "values": [(3,)], "ranks": [(2, 1, 1, 3)],
    }),
    ("NULL comes into what is not in", [START, [b("c", "q", None)]], {"not_in": [], "not_exists": [(3,), (4,)]}),
    ("NULL leaves it, then all does", [START, [b("c", "q", None)], [b("d", "q", None)], [Change("b", "t")]], {
        "not_in": [(1,), (2,), (3,), (4,)], "left": [(1, None), (2, None), (3, None), (4, None)],
    }),
    ("keys of NULL meet only as equals", [START, [b("c", None, 6)]], {
        "joined": [(1, 1)] * 2 + [(2, 1)] * 2, "null_safe": [(1, 1)] * 2 + [(2, 1)] * 2 + [(4, 6)],
        "full": [(1, 1)] * 2 + [(2, 1)] * 2 + [(3, None), (4, None), (None, 6)],
    }),
    ("both sides leave in one batch", [START, [a("d", 1), b("d", "x", 1), b("d", "x", 1)]], {
        "joined": [], "three": [], "full": [(2, None), (3, None), (4, None)],
    }),
    ("both sides come in one batch", [START, [a("c", 5, "z", 7), b("c", "z", 7)]], {
        "three": [(1, 1, 1)] * 2 + [(1, 1, 2)] * 2 + [(2, 1, 1)] * 2 + [(2, 1, 2)] * 2 + [(5, 7, 5)],
        "diamond": [("x", 2, 1), ("y", 1, None), ("z", 1, 7)],
    }),
    ("a match comes and goes", [START, [b("c", "y", 2)], [b("d", "y", 2)]], {
        "left": [(1, 1)] * 2 + [(2, 1)] * 2 + [(3, None), (4, None)],
    }),
    ("a row changes its partition", [START, [a("u", 2, "y", 1, (2, "x", 1))]], {
        "ranks": [(1, 1, 1, 1), (2, 1, 1, 1), (3, 2, 2, 1), (4, 1, 1, 5)], "self": [(2, 3)],
    }),
    ("over the edge of a LIMIT and back", [START, [a("c", 8, "x", 9), a("c", 9, "x", 9)], [a("d", 9)]], {
        "top": [(4, 5), (8, 9)],
    }),
]  # fmt: skip


@pytest.fixture(scope="module")
def traps() -> Iterator[Traps]:
    world = Traps()
    yield world
    world.state.close()


@pytest.mark.parametrize(("batches", "wanted"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_changes_that_catch(traps: Traps, batches: list[Batch], wanted: dict[str, list[tuple[Any, ...]]]) -> None:
    emptied = [Change("a", "t"), Change("b", "t")]
    traps.replay([emptied + batches[0], *batches[1:]] if batches else [emptied])
    found = {name: traps.rows(name) for name in wanted}
    assert found == {name: sorted(map(repr, rows)) for name, rows in wanted.items()}
    for view_id in traps.views:
        traps.compare_contents(view_id)


class Bank(World):
    """Money that only moves: every view of it adds up to nothing."""

    CHOSEN = 1.0

    def tables(self) -> list[Topic]:
        return [
            self.topic("moves", 1, "table", ["id"], id="BIGINT", giver="INTEGER", taker="INTEGER", sum="DECIMAL(9,2)")
        ]

    def value(self, topic: Topic, name: str, text: str) -> Any:  # noqa: ARG002
        if name == "sum":
            return self.rng.choice([Decimal("0.01"), Decimal("7.30")])
        return self.rng.randrange(60 if name == "id" else 5)


def test_what_holds_between_views_holds_at_every_step(seed: int) -> None:
    print("seed", seed)
    shapes = {
        "given": "SELECT giver AS account, sum(sum) AS s FROM moves GROUP BY giver",
        "taken": "SELECT taker AS account, sum(sum) AS s FROM moves GROUP BY taker",
        "balance": "SELECT account, coalesce(t.s, 0) - coalesce(g.s, 0) AS s FROM view_given g"
        " FULL JOIN view_taken t USING (account)",
        "all": "SELECT sum(s) AS s FROM view_balance",
        "none": "SELECT b.account FROM view_balance b JOIN view_all ON view_all.s <> 0",
    }
    world = Bank(random.Random(seed), None, shapes)
    for _ in range(6):
        world.step()
        assert +world.folds[4] in ({"(Decimal('0.00'),)": 1}, {"(None,)": 1})
        assert not +world.folds[5]
    world.state.close()


class Ends(World):
    """Numbers at the ends of their types."""

    def tables(self) -> list[Topic]:
        return [self.topic("ends", 1, "table", ["id"], id="BIGINT", n="BIGINT", x="DECIMAL(18,6)", f="DOUBLE")]

    def value(self, topic: Topic, name: str, text: str) -> Any:  # noqa: ARG002
        choices: dict[str, list[Any]] = {
            "n": [2**63 - 1, -(2**63), 2**62, 1], "x": [Decimal("999999999999.999999"), Decimal("-0.000001")],
            "f": [1e308, -1e308, 1e-300, 0.1, float("inf"), None],
        }  # fmt: skip
        return self.rng.choice(choices[name]) if name in choices else self.rng.randrange(30)


def test_numbers_at_the_ends_of_their_types(seed: int) -> None:
    """Sums of BIGINT are exact beyond it, and those of DECIMAL to the last digit; an infinity that leaves is gone."""
    print("seed", seed)
    shapes = {
        "whole": "SELECT sum(n) AS s, avg(n) AS m, count(*) AS c, sum(x) AS x, avg(x) AS mx FROM ends",
        "groups": "SELECT id % 3 AS g, sum(n) AS s, sum(x) AS x, avg(x) AS m, sum(n) - max(n) AS rest"
        " FROM ends GROUP BY g",
        "floats": "SELECT id % 5 AS g, max(f) AS hi, sum(f) FILTER (WHERE f < 1) AS small FROM ends GROUP BY g",
        "infinite": "SELECT id % 2 AS g, sum(f) FILTER (WHERE f > 1e300) = 'inf'::DOUBLE AS i FROM ends GROUP BY g",
    }
    world = Ends(random.Random(seed), None, shapes)
    for _ in range(4):
        world.step()
    world.state.close()
