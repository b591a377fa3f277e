"""Whether the touched keys are computed anew, or all of them because most are touched: the answer is the same."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.pipelines.world import Change, World

from headwater_pipelines.runtime import adaptive

SHAPES = {
    "window": "SELECT id, k, rank() OVER (PARTITION BY k ORDER BY a) AS r FROM items",
    "grouped": "SELECT grp, max(a) AS m, list(k ORDER BY id) AS l FROM items GROUP BY grp",
    "left": "SELECT i.id, b.x FROM items i LEFT JOIN bag b USING (k)",
    "full": "SELECT i.id, i.grp, e.n FROM items i FULL JOIN events e ON e.grp = i.grp",
    "except": "SELECT k, a AS x FROM items EXCEPT ALL SELECT k, x FROM bag",
    "first": "SELECT DISTINCT ON (k) k, id, a FROM items ORDER BY k, a DESC, id",
    "chained": "SELECT r, count(*) FROM (SELECT rank() OVER (PARTITION BY k ORDER BY a) AS r FROM items) GROUP BY r",
}


@pytest.mark.parametrize("share", [0.0, 0.4, float("inf")])
def test_the_answer_does_not_depend_on_how_it_is_computed(
    seed: int, share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptive, "WHOLE_SHARE", share)
    world = World(random.Random(seed), tmp_path, SHAPES)
    world.state.open_rows_max = 6  # whatever has no runs is small, and no matter
    whole = 0
    for _ in range(4):
        world.step()
        whole += len(world.program.adaptive.whole)
    for view_id in world.views:
        world.compare_contents(view_id)
    assert share != 0.0 or whole > 0, "nothing was computed as a whole"
    assert share != float("inf") or whole == 0
    world.state.close()


def test_few_rows_of_a_result_are_not_few_keys(seed: int, tmp_path: Path) -> None:
    """Of an anti join that leaves hardly anything, a change of some keys is still not one of most."""
    world = World(
        random.Random(seed), tmp_path, {"except": "SELECT id FROM items EXCEPT SELECT id FROM items WHERE id >= 0"}
    )
    world.state.open_rows_max = 6
    world.TRUNCATES = 0.0  # or all keys change at once
    (items,) = world.topics = [topic for topic in world.topics if topic.name == "items"]
    rows = [dict(zip(items.schema.names, world.row(items), strict=True)) | {"id": key} for key in range(20)]
    world.apply([Change("items", "c", row) for row in rows])
    world.SIZES = (1, 1, 1, 1, 1)
    for _ in range(3):
        world.step()
        assert not world.program.adaptive.whole
    world.state.close()


def test_keys_are_counted_again_when_the_rows_have_doubled(seed: int, tmp_path: Path) -> None:
    world = World(random.Random(seed), tmp_path, {"left": SHAPES["left"]})
    world.state.open_rows_max = 6
    for _ in range(20):
        world.step()
        if world.program.adaptive.keys:
            break
    (source,) = (each for each in world.program.derived if each.table in world.program.adaptive.keys)
    rows, keys = world.program.adaptive.keys[source.table]
    assert 0 < keys <= rows
    read = [world.state.relations[base.table].rows for base in world.program.bases]
    assert rows <= 2 * sum(read)
    assert sum(read) <= 2 * rows
    world.state.close()
