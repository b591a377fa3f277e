"""The rotating comparison of views with their queries: all rows in turn; what differs is said until it is mended."""

from __future__ import annotations

import duckdb
import pytest

from headwater.config import Project, Settings, load
from headwater.lake import Lake
from headwater.log import Log, open_log
from headwater_pipelines import api
from headwater_pipelines.replay import audit, replay
from headwater_pipelines.replay.comparison import compare, parted
from headwater_pipelines.replay.rows import Rows

from .conftest import VIEWS, Shop
from .test_view_replay import begin, run, working, wrongly_published

ON_VIEW = "SELECT count(*) AS n, sum(revenue)::DECIMAL(38,2) AS total FROM revenue"
TIMED = "SELECT id, total FROM orders WHERE now() > TIMESTAMPTZ '2000-01-01'"


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause between parts, and no end to a round's time."""
    monkeypatch.setattr(audit, "_pause", lambda *_: -1.0)
    monkeypatch.setattr(audit, "ROUND_S", 600.0)


def project(shop: Shop) -> Project:
    return load(shop.folder)


def known(log: Log, name: str) -> audit.Audited:
    return audit.known(log, log.view(name).id)


@pytest.mark.parametrize("parts", [1, 7])
def test_the_parts_of_a_view_are_all_of_it(shop: Shop, parts: int) -> None:
    with open_log(shop.lake) as log:
        begin(log)
        for name in VIEWS:
            wanted = replay.plan(log, name, None, log.newest_commit())
            total = 0
            for part in range(parts):
                where = parted(wanted.compiled, parts, part)
                with replay.workplace(log) as folder, Lake(log) as lake:
                    rows = Rows(log, lake, wanted.view, wanted.compiled, folder, Settings(), print, by_query=True)
                    made = rows.make(wanted.start, wanted.step, where)
                    found = compare(lake, wanted.compiled, made, wanted.step.publish_commit, where)
                assert found.is_same, (name, part, found)
                total += found.live.rows
            assert total == api.compare_view(log, project(shop), name).live.rows


def test_columns_may_be_called_anything(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        begin(log)
        names = ("other", "one", "rowid", "c0", "_live", "_replayed", "_more")
        listed = ", ".join(f'id + {number} AS "{name}"' for number, name in enumerate(names))
        api.create_view(log, f"SELECT {listed}, id / 3.0::DOUBLE AS third FROM orders", name="odd")
        run(log)
        found = api.compare_view(log, project(shop), "odd")
        assert found.is_same, found
        assert found.live.rows == found.live.distinct > 0


@pytest.mark.usefixtures("at_once")
def test_a_rotation_covers_every_view(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "PART_ROWS", 40)
    with open_log(shop.lake) as log:
        begin(log)
        api.create_view(log, ON_VIEW, name="on_view")
        api.create_view(log, TIMED, name="timed")
        run(log)
        names = [*VIEWS, "on_view", "timed"]
        assert audit.housekeep(project(shop), log)["compared"] == len(names)
        parts = {name: known(log, name).parts for name in names}
        assert max(parts.values()) > 1
        assert parts["timed"] == 1
        for _ in range(max(parts.values()) - 1):
            shop.commit(log)
            run(log)
            audit.housekeep(project(shop), log)
        for name in names:
            found = known(log, name)
            assert (found.trouble, found.differing) == ("", {}), name
            assert 0 < found.whole_since <= found.at, name


@pytest.mark.usefixtures("at_once")
def test_what_differs_is_found_and_stays_until_it_is_mended(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "PART_ROWS", 40)
    wrongly_published(shop)
    with open_log(shop.lake) as log:
        rounds = 0
        while not known(log, "revenue").whole_since:
            audit.housekeep(project(shop), log)
            rounds += 1
        found = known(log, "revenue")
        assert rounds == found.parts > 1
        assert found.differing
        assert all(each["missing"] and each["sample"] for each in found.differing.values())
        assert not known(log, "big_orders").differing
        audit.housekeep(project(shop), log)
        assert known(log, "revenue").differing, "a new rotation forgets nothing"
        with working(shop):
            api.replay_view(log, project(shop), "revenue", promote=True)
        for _ in range(rounds):
            audit.housekeep(project(shop), log)
        found = known(log, "revenue")
        assert not found.differing
        assert found.whole_since


def test_a_comparison_of_all_is_kept(shop: Shop) -> None:
    wrongly_published(shop)
    with open_log(shop.lake) as log:
        compared = api.compare_view(log, project(shop), "revenue")
        assert not compared.is_same
        kept = {view["name"]: view["compared"] for view in Lake(log).status()["views"]}["revenue"]
        assert kept["differing"]["0"]["missing"] == compared.missing
        api.replay_view(log, project(shop), "big_orders")
        other = known(log, "big_orders")
        assert other.whole_since
        assert not other.differing


def test_a_view_is_not_compared_again_before_its_time(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "AGAIN_S", 600.0)  # longer than this takes on the busiest machine
    with open_log(shop.lake) as log:
        begin(log)
        first = audit.housekeep(project(shop), log)["compared"]
        assert first == len(VIEWS)
        assert audit.housekeep(project(shop), log)["compared"] == 0


def test_what_time_decides_and_is_large_says_who_compares_it(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "BUILD_ROWS_MAX", 1)
    with open_log(shop.lake) as log:
        api.create_view(log, TIMED, name="timed")
        run(log)
        audit.housekeep(project(shop), log)
        assert "headwater replay timed" in known(log, "timed").trouble


def test_a_comparison_that_fails_is_said_and_ends_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_log(shop.lake) as log:
        begin(log)
        monkeypatch.setattr(audit, "parted", lambda *_: "WHERE error('no memory is left')")
        assert audit.housekeep(project(shop), log)["compared"]
        assert "no memory is left" in known(log, "big_orders").trouble


def test_a_comparison_that_runs_out_of_memory_is_said_too(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise duckdb.OutOfMemoryException("Out of Memory Error: failed to allocate")

    with open_log(shop.lake) as log:
        begin(log)
        monkeypatch.setattr(audit, "compare", full)
        assert audit.housekeep(project(shop), log)["compared"]
        assert "could not be compared" in known(log, "big_orders").trouble


def test_what_is_known_of_a_view_goes_with_it(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        begin(log)
        audit.housekeep(project(shop), log)
        gone = log.view("big_orders").id
        assert audit.known(log, gone).at
        log.drop_view("big_orders")
        audit.housekeep(project(shop), log)
        assert not audit.known(log, gone).at
        assert known(log, "revenue").at


@pytest.mark.usefixtures("at_once")
def test_a_part_that_has_come_right_is_no_longer_said_to_differ(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        begin(log)
        view = log.view("revenue")
        wrong = {"commit": 1, "missing": 1, "extra": 0, "sample": []}
        audit._store(log, view.id, audit.Audited(at=1.0, differing={"0": wrong}))
        audit.housekeep(project(shop), log)
        assert not audit.known(log, view.id).differing
