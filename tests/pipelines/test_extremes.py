"""Least and greatest values of groups: only groups whose extremes may become others are read again."""

from __future__ import annotations

import random
from pathlib import Path

import duckdb
import pytest
from tests.pipelines.world import World

from headwater_pipelines.compiler import recompute
from headwater_pipelines.compiler.plan import Base, Extreme, Input, Item, Leaf, Recompute, Select
from headwater_pipelines.runtime import relation

SHAPES = {
    "both": "SELECT k, min(a) AS lo, max(a) AS hi FROM items GROUP BY k",
    "several": "SELECT k, grp, min(a + grp) AS lo, max(f) AS hi, max(s) AS word FROM items GROUP BY k, grp",
    "filtered": "SELECT grp, min(a) FILTER (WHERE s = 'x') AS lo, max(b) FILTER (a > 1) AS hi FROM items GROUP BY grp",
    "bag": "SELECT k, min(x) AS lo FROM bag GROUP BY k",
    "joined": "SELECT r.name, max(i.b) AS m, min(i.d) AS first FROM items i JOIN refs r ON i.k = r.k1 GROUP BY r.name",
    "without_values": "SELECT k, min(CASE WHEN a > 2 THEN a END) AS lo FROM items GROUP BY k",
    "having": "SELECT k, max(a) AS hi FROM items GROUP BY k HAVING min(a) < 2",
    "above": "SELECT lo, count(*) AS n FROM (SELECT k, grp, min(a) AS lo FROM items GROUP BY k, grp) GROUP BY lo",
}


@pytest.mark.parametrize("open_rows_max", [4, 100_000])
def test_least_and_greatest_values(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_rows_max: int
) -> None:
    monkeypatch.setattr(relation, "OPEN_ROWS_MAX", open_rows_max)
    print("seed", seed)
    world = World(random.Random(seed), tmp_path, SHAPES)
    for _ in range(30):
        world.step()
    world.state.close()


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ((5, 1), []),  # between the two
        ((1, 1), []),  # another of the least
        ((0, 1), [1]),
        ((9, 1), []),
        ((10, 1), [1]),
        ((5, -1), []),
        ((1, -1), [1]),  # there may be none left
        ((9, -1), [1]),
        ((None, 1), []),
        ((None, -1), []),  # the others keep the group
    ],
)
def test_which_changes_move_an_extreme(change: tuple[int | None, int], moved: list[int]) -> None:
    """Of a group with values from 1 to 9; what was taken back in the state counts for nothing."""
    rows = Select((Item("t", Leaf(Base("t", 1, "table"))),), (), (("k0", "t.k"), ("c0", "t.v")))
    extremes = (Extreme("c1", "i.c0", is_least=True), Extreme("c2", "i.c0", is_least=False))
    outputs = (("c0", "INTEGER"), ("c1", "INTEGER"), ("c2", "INTEGER"))
    node = Recompute((Input("hw_i", rows, ("k0",)),), "", outputs, ("c0",), "aggregate", "GROUP", extremes)
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE {node.table} (c0 INTEGER, c1 INTEGER, c2 INTEGER, _w BIGINT)")
        stored = "(1, 1, 5, 1), (1, 1, 5, -1), (1, 1, 9, 1), (2, 0, 0, 1), (2, 0, 0, -1), (3, NULL, NULL, 1)"
        connection.execute(f"INSERT INTO {node.table} VALUES {stored}")
        value, weight = ("NULL" if part is None else part for part in change)
        delta = f"SELECT * FROM (VALUES (1, {value}, {weight}), (2, 5, 1), (3, 7, 1), (NULL, 7, 1)) AS d(k0, c0, _w)"
        found = connection.execute(recompute.moved_sql(node, extremes, delta)).fetchall()
    # The second group is new, the third had no value, the last was never there.
    assert sorted((key for (key,) in found), key=lambda key: key or 9) == [*moved, 2, 3, None]
