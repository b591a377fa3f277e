"""The first rows of a whole table are kept while others come and go, and taken anew when they are used up."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.pipelines.world import Batch, Change, World

from headwater_pipelines.compiler import top
from headwater_pipelines.compiler.explain import explain
from headwater_pipelines.compiler.plan import Top
from headwater_pipelines.runtime.relation import Relation

SHAPES = {
    "best": "SELECT id, b FROM items ORDER BY b DESC, id LIMIT 3",
    "nulls_first": "SELECT k, x FROM bag ORDER BY x NULLS FIRST, k DESC LIMIT 5 OFFSET 2",
    "hidden": "SELECT k FROM bag ORDER BY x LIMIT 5",
    "no_order": "SELECT grp, n FROM events LIMIT 4",
    "nothing": "SELECT id FROM items ORDER BY f DESC NULLS FIRST, s LIMIT 0",
    "of_join": "SELECT i.id, r.name FROM items i JOIN refs r ON i.k = r.k1 ORDER BY i.a DESC, r.name LIMIT 6",
    "of_groups": "SELECT k, count(*) AS n FROM items GROUP BY k ORDER BY n DESC LIMIT 2",
    "of_first": "SELECT * FROM (SELECT id, b FROM items ORDER BY b, id LIMIT 9) ORDER BY id DESC LIMIT 3 OFFSET 4",
    "few": "SELECT id FROM items WHERE f > 9 ORDER BY id LIMIT 4",
    "distinct": "SELECT DISTINCT k FROM bag ORDER BY k LIMIT 2",
    "all": "SELECT x FROM bag ORDER BY ALL DESC LIMIT 3",
    "of_union": "SELECT k, x FROM bag UNION ALL SELECT k, grp FROM items ORDER BY x DESC, 1 LIMIT 4 OFFSET 1",
    "of_except": "SELECT k FROM bag EXCEPT SELECT k FROM items WHERE a > 3 LIMIT 1",
    "extremes": "SELECT max(a) AS hi, min(b) AS lo, count(*) AS n, sum(a) AS s FROM items",
    "filtered": "SELECT max(x) FILTER (WHERE k = 'x') AS hi FROM bag",
    "of_others": "SELECT arg_max(k, f) AS k, arg_min(id, b) AS i, any_value(grp ORDER BY b) AS g FROM items"
    " WHERE a > 0",
    "places": "SELECT first(s ORDER BY d DESC) FILTER (WHERE a > 2) AS s, last(s ORDER BY d NULLS FIRST) AS t,"
    " arg_max(k, b ORDER BY id) FILTER (WHERE f > 0) AS k FROM items",
    "having": "SELECT max(s) AS s, min(d) AS d, max(f) AS f FROM items HAVING count(*) > 3",
    "compared": "SELECT id FROM items WHERE b >= (SELECT max(b) FROM items)",
    "of_nothing": "SELECT min(n) AS m FROM events WHERE grp > 100",
    "distinct_values": "SELECT max(a) - min(a) AS m, count(DISTINCT k) AS n FROM items",
}  # fmt: skip


@pytest.mark.usefixtures("few_spare_rows", "sometimes_in_runs")
def test_the_first_rows_are_those_of_the_query(seed: int, tmp_path: Path) -> None:
    print("seed", seed)
    world = World(random.Random(seed), tmp_path, SHAPES)
    for view in world.views.values():
        assert {node.maintenance for node in explain(view).nodes} >= {"first-rows"}, view.name
        assert explain(view).is_incremental, view.name
    world.compare_all()  # over empty tables: an ungrouped aggregate has its one row
    for _ in range(6):
        world.step()
    for view_id in world.views:
        world.compare_contents(view_id)
    world.state.close()


def test_what_is_kept_is_taken_anew_when_it_is_used_up(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten rows behind the bound do not move it, nor do they wake it; it moves when all of the spare ones have gone."""
    monkeypatch.setattr(top, "SPARE_ROWS", 4)
    world = World(random.Random(seed), tmp_path, {"first": "SELECT id FROM items ORDER BY id LIMIT 2"})
    [source] = [each for each in world.program.derived if isinstance(each, Top)]
    stored = world.state.relations[source.table]
    world.apply([_row(world, "c", number) for number in range(100, 120)])
    assert (_ids(stored), _bound(stored)) == ([100, 101, 102, 103, 104, 105], 105)
    before = stored.rows
    world.apply([_row(world, "c", number) for number in range(120, 130)] + [_row(world, "d", 110)])
    assert stored.rows == before
    world.apply([_row(world, "d", number) for number in (100, 103, 105)])
    assert (_ids(stored), _bound(stored)) == ([101, 102, 104], 105)
    world.apply([_row(world, "c", 50), _row(world, "c", 51), _row(world, "d", 50), _row(world, "d", 104)])
    assert (_ids(stored), _bound(stored)) == ([51, 101, 102], 105)
    world.apply([_row(world, "d", number) for number in (101, 102)])
    assert (_ids(stored), _bound(stored)) == ([51, 106, 107, 108, 109, 111], 111)
    world.apply([_row(world, "c", 60), _row(world, "d", 107)])
    assert (_ids(stored), _bound(stored)) == ([51, 60, 106, 108, 109, 111], 111)
    world.apply([Change("items", "t")])
    assert (_ids(stored), _bound(stored)) == ([], None)
    world.apply([_row(world, "c", number) for number in (7, 3)])
    assert (_ids(stored), _bound(stored)) == ([3, 7], None)
    world.state.close()


def test_equal_rows_are_kept_as_one(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same row two hundred times over is shown as often as there is room, before a bound that it is itself."""
    monkeypatch.setattr(top, "SPARE_ROWS", 4)
    world = World(random.Random(seed), tmp_path, {"same": "SELECT k, x FROM bag ORDER BY x LIMIT 3 OFFSET 2"})
    row = {"k": "x", "x": 1}
    batch: Batch = [Change("bag", "c", row)] * 200 + [Change("bag", "c", {"k": "y", "x": 2})]
    world.apply(batch)
    assert world.folds[1].total() == 3
    [source] = [each for each in world.program.derived if isinstance(each, Top)]
    found = f"SELECT count(*) FROM ({world.state.relations[source.table].current_sql()})"
    assert world.state.row(found) == (3,)  # shown, not shown, the bound
    world.apply([Change("bag", "d", row)] * 199)
    world.apply([Change("bag", "d", row), Change("bag", "c", {"k": "z", "x": None})])
    world.state.close()


def _row(world: World, op: str, number: int) -> Change:
    empty = dict.fromkeys(next(topic for topic in world.topics if topic.name == "items").schema.names)
    return Change("items", op, {**empty, "id": number})


def _ids(stored: Relation) -> list[int]:
    found = stored.state.query(f"SELECT id FROM ({stored.current_sql()}) WHERE hw_shown IS NOT NULL ORDER BY id")
    return [int(number) for number in found.column("id").to_pylist()]


def _bound(stored: Relation) -> int | None:
    """The bound as the number whose key it is."""
    key = "create_sort_key(n, 'ASC NULLS LAST')"
    found = f"SELECT n FROM (SELECT range AS n FROM range(1000)) WHERE {key} IN"
    row = stored.state.row(f"{found} (SELECT hw_key FROM ({stored.current_sql()}) WHERE hw_shown IS NULL)")
    return int(row[0]) if row else None
