"""Dagster shows what is created and forgets what is dropped, without anybody asking it to."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest
from tests.waiting import until

from headwater.config import Settings
from headwater.log import administration, archive, seal
from headwater_dagster.server import MODULE_VARIABLE, RETRY_S, SETTLED_S, WAIT_S, Follower
from headwater_pipelines import api
from headwater_pipelines.runtime import worker as pipeline

from .conftest import Shop, headwater
from .pages import Pages

KEYS = "{ assetNodes { assetKey { path } } }"
HOURS = """query { assetNodeOrError(assetKey: {path: ["replay", "small"]}) { ... on AssetNode { partitionKeys } } }"""
BACKFILL = """mutation($hours: [String!]!) { launchPartitionBackfill(backfillParams: {
  assetSelection: [{path: ["replay", "small"]}], partitionNames: $hours}) { ... on LaunchBackfillSuccess { backfillId }
  ... on PythonError { message } } }"""
DONE = """query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill {
  status error { message } } } }"""
OURS = """
import dagster as dg
from headwater_dagster import build_definitions
defs = dg.Definitions.merge(build_definitions(), dg.Definitions(assets=[dg.AssetSpec("report")]))
"""


@dataclass
class Counted:
    """What Dagster's code server is asked, in its stead."""

    reloads: int = 0
    is_there: bool = True

    def lives(self) -> bool:
        return self.is_there

    def reload(self) -> None:
        self.reloads += 1


@pytest.fixture
def server() -> Counted:
    return Counted()


@pytest.fixture
def follower(shop: Shop, server: Counted) -> Iterator[Follower]:
    made = Follower(shop.project, server)
    yield made
    made.close()


def looked(follower: Follower, start: float, seconds: float) -> list[float]:
    """Look twice a second of a clock of the test's own; when it reloaded."""
    times = [start + step / 2 for step in range(int(seconds * 2) + 1)]
    return [now for now in times if follower.look(now)]


def test_what_is_created_or_dropped_is_loaded_once_it_has_settled(shop: Shop, follower: Follower) -> None:
    assert looked(follower, 0, 20) == [], "nothing has changed"
    for name in ("one", "two"):
        api.create_view(shop.log, "SELECT id FROM orders", name=name)
    assert looked(follower, 20, 20) == [20 + SETTLED_S], "both at once"
    api.drop_view(shop.log, "one")
    assert looked(follower, 40, 20) == [40 + SETTLED_S]
    administration.alter(shop.log, "orders", owner="team:web")
    assert looked(follower, 60, 20) == [60 + SETTLED_S]
    shop.project.file.write_text(shop.project.file.read_text() + "[slo]\nlag_warn_s = 5\n")
    assert looked(follower, 80, 20) == [80 + SETTLED_S]


def test_a_project_that_never_settles_is_loaded_all_the_same(shop: Shop, follower: Follower) -> None:
    times = []
    for number in range(30):
        shop.log.create_view(f"v{number}", "SELECT id FROM orders")
        times += looked(follower, number / 2, 0)
    assert times == [WAIT_S]


def test_what_only_moves_is_not_loaded(shop: Shop, follower: Follower) -> None:
    pipeline.run(shop.log, Settings(), threading.Event(), until_caught_up=True)
    assert len(looked(follower, 0, 20)) == 1, "the changelogs"
    shop.order()
    shop.beat()
    pipeline.run(shop.log, Settings(), threading.Event(), until_caught_up=True)
    api.pause_view(shop.log, "large")
    assert looked(follower, 20, 20) == []


def test_looking_leaves_the_archive_alone(shop: Shop, follower: Follower) -> None:
    """It looks twice a second for as long as Dagster runs: reading old commits' files, it grew by the hour."""
    for _ in range(6):
        shop.order()
    seal.seal(shop.log, Settings())
    assert archive.archive(shop.log, keep=2, least=1) > 0
    segments = list((shop.project.lake_dir / "data" / "commits").glob("*.parquet"))
    assert segments
    for each in segments:
        each.unlink()
    api.create_view(shop.log, "SELECT id FROM orders", name="another")
    assert len(looked(follower, 0, 20)) == 1, "it still sees what is new"


def test_a_project_that_cannot_be_read_stays_as_it_is(shop: Shop, follower: Follower, server: Counted) -> None:
    text = shop.project.file.read_text()
    shop.project.file.write_text("[project\n")
    assert looked(follower, 0, 10) == []
    shop.project.file.write_text(text)
    assert len(looked(follower, 10, 10)) == 1
    assert server.reloads == 1


def test_a_server_that_died_is_brought_back_now_and_then(follower: Follower, server: Counted) -> None:
    assert looked(follower, 0, 2) == []
    server.is_there = False
    assert looked(follower, 2, RETRY_S) == [2.5], "not because of one answer that did not come"
    assert looked(follower, 2.5 + RETRY_S, RETRY_S - 1) == [2.5 + RETRY_S], "it may be unable to come back"


def test_a_server_that_has_not_answered_yet_is_waited_for(follower: Follower, server: Counted) -> None:
    server.is_there = False
    assert looked(follower, 0, 60) == []


def shown(pages: Pages) -> set[tuple[str, ...]]:
    return {tuple(each["assetKey"]["path"]) for each in pages.ask(KEYS)}


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("lease_s", [300.0])
def test_a_running_dagster_follows_and_its_daemon_runs_what_is_new(pages: Pages) -> None:
    project = pages.shop.project
    assert ("views", "large") in shown(pages)
    file = project.root / "small.sql"
    file.write_text("SELECT id FROM orders WHERE amount < 50")
    headwater(project, "view", "create", str(file))
    created = time.monotonic()
    until(lambda: ("views", "small") in shown(pages), "the new view")
    print(f"a new view is shown after {time.monotonic() - created:.1f} s")
    until(lambda: pages.shop.log.view("small").topic is not None, "its first step", 200)
    hours = pages.ask(HOURS)["partitionKeys"][-1:]
    begun = pages.ask(BACKFILL, hours=hours)
    until(lambda: pages.ask(DONE, id=begun["backfillId"])["status"] not in ("REQUESTED",), "the backfill's end", 200)
    assert pages.ask(DONE, id=begun["backfillId"]) == {"status": "COMPLETED_SUCCESS", "error": None}
    headwater(project, "view", "drop", "small")
    dropped = time.monotonic()
    until(lambda: not {("views", "small"), ("replay", "small")} & shown(pages), "its end")
    print(f"a dropped view is gone after {time.monotonic() - dropped:.1f} s")
    assert ("views", "large") in shown(pages)


@pytest.fixture
def own_module(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Definitions of somebody's own, with the project's merged in."""
    (shop.project.root / "ours.py").write_text(OURS)
    monkeypatch.setenv(MODULE_VARIABLE, "ours")


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("lease_s", [300.0])
@pytest.mark.usefixtures("own_module")
def test_definitions_come_back_when_their_process_is_killed(pages: Pages) -> None:
    code = psutil.Process(pages.children[0].pid)

    def holding() -> list[psutil.Process]:
        """The process with the definitions; runs are its children in turn."""
        alive = [each for each in code.children() if each.status() != psutil.STATUS_ZOMBIE]
        return [each for each in alive if "grpc" in each.cmdline()]

    def has_ticked(since: float) -> bool:
        tick = pages.tick("renew_lease")
        return tick["status"] in ("SUCCESS", "SKIPPED") and tick["timestamp"] > since

    (before,) = holding()
    until(lambda: has_ticked(0), "a first tick", 90)
    before.kill()
    killed = time.time()
    until(lambda: any(each.pid != before.pid for each in holding()), "a process in its place")

    until(lambda: has_ticked(killed), "a tick of a sensor", 90)
    print(f"sensors tick again {time.time() - killed:.1f} s after the kill")
    assert {("views", "totals"), ("report",)} <= shown(pages)
    pages.shop.log.create_view("late", "SELECT id FROM orders")
    until(lambda: {("views", "late"), ("report",)} <= shown(pages), "the new view")
