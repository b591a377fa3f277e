"""Whatever is killed, or cancelled, beside a lease or a replay: one pipeline goes on, and the live view is whole.

Who is to be killed at a certain place is held there (``headwater.failpoint``). The views of these tests are wrong to
begin with, so that a replay that is promoted changes what they show.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pytest
from dagster import DagsterInstance
from tests.waiting import until

from headwater.lake import Lake
from headwater_dagster import beats, instance, lease, worker
from headwater_dagster.replay import JOB, OP
from headwater_dagster.stream import MAX_RUNTIME_TAG
from headwater_pipelines.api import paused_by
from headwater_pipelines.replay.replay import FOLDER
from headwater_pipelines.runtime import worker as pipeline
from headwater_pipelines.runtime.state import FILE

from .conftest import Shop, worker_processes
from .pages import DAEMON, TERMINATE, Pages

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

LONG_S = 240.0
"""The longest that anything takes: Dagster makes a new code server once a minute, and a failed lease waits for one."""
RUN = {"made": "replay.make:after", "asked": "replay.ask:after", "switched": "replay.switch:after"}
"""Where a replay's run is held: its rows are made, it has asked the worker for the switch, it has seen it."""
WORKER = {"begins": "state.begin:after", "commits": "state.commit:before"}
"""Where the worker is held while it builds what is to be promoted."""
ENDED = ("SUCCESS", "FAILURE", "CANCELED")


@pytest.fixture
def lease_s() -> float:
    return 3_600.0


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """The folder of the places at which whoever passes is held."""
    folder = tmp_path / "held"
    folder.mkdir()
    return folder


@pytest.fixture
def failpoints(held: Path) -> str:
    return f"hold:{held}"


@pytest.fixture
def beating(beating: Shop) -> Shop:
    """A view for each replay; all of them are wrong from the beginning."""
    for number in range(1, 5):
        beating.log.create_view(
            f"sums_{number}", f"SELECT customer, sum(amount + {number}) AS total FROM orders GROUP BY ALL", {}
        )
    beating.order()
    run_views(beating)
    with duckdb.connect(str(beating.project.lake_dir / "state" / FILE)) as state:
        tables = state.execute("SELECT table_name FROM duckdb_tables() WHERE table_name LIKE 'a_%'").fetchall()
        for (table,) in tables:
            state.execute(f'UPDATE "{table}" SET s_x0 = s_x0 + 1000')
    beating.order()
    run_views(beating)
    for view in beating.log.views():
        if view.name.startswith("sums_"):
            assert rows(beating, view.name) != truth(beating, view.name)
    return beating


def run_views(shop: Shop) -> None:
    pipeline.run(shop.log, shop.project.settings, threading.Event(), until_caught_up=True)


def hold(held: Path, place: str) -> None:
    (held / place).touch()


def let_go(held: Path, place: str) -> None:
    (held / place).unlink()


def pids(held: Path, place: str) -> list[int]:
    """Who waits there, or has."""
    file = held / place
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []


def rows(shop: Shop, view: str) -> list[tuple[Any, ...]]:
    return Lake(shop.log).sql(f"SELECT * FROM {view} ORDER BY ALL").fetchall()


def truth(shop: Shop, view: str) -> list[tuple[Any, ...]]:
    return Lake(shop.log).sql(f"SELECT * FROM ({shop.log.view(view).sql}) ORDER BY ALL").fetchall()


def is_right(shop: Shop, view: str) -> bool:
    return not shop.log.replacements() and rows(shop, view) == truth(shop, view)


def workplaces(shop: Shop) -> list[Path]:
    return list((shop.project.lake_dir / "state" / FOLDER).iterdir())


def config(view: str, *, promote: bool = True) -> dict[str, Any]:
    return {"ops": {OP: {"config": {"view": view, "promote": promote}}}}


def a_lease(pages: Pages) -> tuple[dict[str, Any], worker.Worker]:
    """The lease that is held, and its worker, which has taken in everything."""
    shop = pages.shop
    until(lambda: pages.runs("STARTED") and worker.find(shop.log), "a lease that works", LONG_S)
    until(lambda: lease.caught_up(shop.log, shop.log.newest_commit()), "the steps of the worker", LONG_S)
    (run,) = pages.runs("STARTED")
    found = worker.find(shop.log)
    assert found is not None
    return run, found


def process_of(pages: Pages, run: str) -> psutil.Process:
    """The process of a run that beats."""
    until(lambda: beats.PREFIX + run in pages.shop.log.live.read(), "the run's first beat", LONG_S)
    return psutil.Process(pages.shop.log.live.read()[beats.PREFIX + run].pid)


def ended(pages: Pages, run: str) -> str:
    """The run's last status, once it has one."""
    until(lambda: pages.status(run) in ENDED, lambda: f"the end of run {run}, which is {pages.status(run)}", LONG_S)
    return pages.status(run)


def replay_held(pages: Pages, held: Path, view: str, place: str) -> str:
    """Launch a replay of a view to be promoted; the run, once it or the worker is held at a place."""
    if place in RUN:
        hold(held, RUN[place])
        run = pages.launch(JOB, config(view))
        until(lambda: pids(held, RUN[place]), lambda: f"the run at {place}: {pages.status(run)}", LONG_S)
        return run
    run = replay_held(pages, held, view, "made")
    hold(held, WORKER[place])
    let_go(held, RUN["made"])
    until(lambda: pids(held, WORKER[place]), lambda: f"the worker at {place}: {pages.status(run)}", LONG_S)
    found = worker.find(pages.shop.log)
    assert found is not None
    assert pids(held, WORKER[place]) == [found.pid]
    return run


def release(held: Path) -> None:
    for file in held.iterdir():
        file.unlink()


def steps_go_on(pages: Pages) -> None:
    """One worker, which takes in what is ordered."""
    shop = pages.shop
    order = shop.order()
    until(lambda: lease.caught_up(shop.log, order), "the steps of the worker", LONG_S)
    # A successor that was started while a replay ran the pipeline itself says so and ends.
    until(lambda: len(worker_processes(shop.project)) == 1, "exactly one worker", LONG_S)
    assert paused_by(shop.log) is None


def a_new_replay_works(pages: Pages, view: str) -> None:
    """It gets its place in the pool, promotes, and leaves nothing behind, whoever was killed before it."""
    again = pages.launch(JOB, config(view))
    assert ended(pages, again) == "SUCCESS"
    assert is_right(pages.shop, view)
    assert workplaces(pages.shop) == []


def next_lease(pages: Pages, before: str) -> dict[str, Any]:
    """The one lease that follows another."""

    def following() -> list[dict[str, Any]]:
        return [run for run in pages.runs("STARTED") if run["runId"] != before]

    until(following, "the next lease", LONG_S)
    (run,) = following()
    assert [each["runId"] for each in pages.runs("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")] == [
        run["runId"]
    ]
    return run


# ---- leases


def test_what_is_killed_beside_a_lease_ends_no_worker(pages: Pages) -> None:
    shop = pages.shop
    run, first = a_lease(pages)

    process_of(pages, run["runId"]).kill()
    assert ended(pages, run["runId"]) == "FAILURE", "its code server has seen it"
    run = next_lease(pages, run["runId"])

    process = process_of(pages, run["runId"])
    server = process.parent()
    assert server is not None
    server.kill()
    process.kill()
    assert pages.status(run["runId"]) == "STARTED", "nobody is left who could have seen it"
    assert ended(pages, run["runId"]) == "FAILURE", "the sensor has missed its beats"
    run = next_lease(pages, run["runId"])

    process = process_of(pages, run["runId"])
    server = process.parent()
    assert server is not None
    server.kill()
    pages.children[DAEMON].kill()
    pages.children[DAEMON].wait()
    pages.start(DAEMON)
    until(lambda: run["runId"] in (pages.tick("renew_lease")["skipReason"] or ""), "a look of the new daemon", LONG_S)
    beaten = shop.log.live.read()[beats.PREFIX + run["runId"]].beat_at
    until(lambda: shop.log.live.read()[beats.PREFIX + run["runId"]].beat_at > beaten, "a beat of the run's")
    assert pages.runs("STARTED")[0]["runId"] == run["runId"], "its process lives: the lease goes on"

    assert paused_by(shop.log) is None
    found = worker.find(shop.log)
    assert found is not None
    assert (found.pid, found.epoch) == (first.pid, first.epoch)
    steps_go_on(pages)


def test_a_run_that_takes_too_long_pauses_nothing(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    run, first = a_lease(pages)
    monkeypatch.setenv("DAGSTER_HOME", str(instance.home(pages.shop.project)))
    with DagsterInstance.get() as own:
        own.add_run_tags(run["runId"], {MAX_RUNTIME_TAG: "1"})
    assert ended(pages, run["runId"]) in ("FAILURE", "CANCELED"), "the daemon says one, the run's process the other"
    next_lease(pages, run["runId"])
    assert paused_by(pages.shop.log) is None
    found = worker.find(pages.shop.log)
    assert found is not None
    assert (found.pid, found.epoch) == (first.pid, first.epoch)
    steps_go_on(pages)


# ---- replays


def test_the_process_of_a_replay_is_killed(pages: Pages, held: Path) -> None:
    shop = pages.shop
    a_lease(pages)
    for number, place in enumerate(["made", "asked", "commits", "switched"], 1):
        view = f"sums_{number}"
        wrong = rows(shop, view)
        run = replay_held(pages, held, view, place)
        if place in ("made", "commits"):
            assert rows(shop, view) == wrong, "untouched until the switch"
        process_of(pages, run).kill()
        assert ended(pages, run) == "FAILURE"
        assert len(workplaces(shop)) == 1
        release(held)
        if place == "made":
            assert (rows(shop, view), shop.log.replacements()) == (wrong, [])
        else:  # what was asked of the worker is done, whether or not anybody waits for it
            until(lambda view=view: is_right(shop, view), "the switch", LONG_S)  # type: ignore[misc]
        a_new_replay_works(pages, view)
        steps_go_on(pages)


@pytest.mark.parametrize("place", ["made", "commits"])
def test_the_code_server_of_a_replay_is_killed(pages: Pages, held: Path, place: str) -> None:
    """Its run goes on; with both of them gone, Dagster calls it started until the sensor misses its beats."""
    shop = pages.shop
    a_lease(pages)
    wrong = rows(shop, "sums_1")
    run = replay_held(pages, held, "sums_1", place)
    server = process_of(pages, run).parent()
    assert server is not None
    server.kill()
    assert rows(shop, "sums_1") == wrong
    release(held)
    assert ended(pages, run) == "SUCCESS"
    a_new_replay_works(pages, "sums_1")

    wrong = rows(shop, "sums_2")
    run = replay_held(pages, held, "sums_2", place)
    process = process_of(pages, run)
    server = process.parent()
    assert server is not None
    server.kill()
    process.kill()
    assert pages.status(run) == "STARTED", "it has the only place in the pool, and nobody is left to say that it ended"
    assert rows(shop, "sums_2") == wrong
    release(held)
    again = pages.launch(JOB, config("sums_2"))
    assert ended(pages, again) == "SUCCESS"
    assert pages.status(run) == "FAILURE"
    assert is_right(shop, "sums_2")
    assert workplaces(shop) == []
    steps_go_on(pages)


def test_the_daemon_is_killed_during_a_replay(pages: Pages, held: Path) -> None:
    shop = pages.shop
    a_lease(pages)
    for view, place in (("sums_1", "made"), ("sums_2", "commits")):
        wrong = rows(shop, view)
        run = replay_held(pages, held, view, place)
        pages.children[DAEMON].kill()
        pages.children[DAEMON].wait()
        assert rows(shop, view) == wrong
        release(held)
        assert ended(pages, run) == "SUCCESS", "it needs no daemon"
        assert is_right(shop, view)
        pages.start(DAEMON)
        a_new_replay_works(pages, view)
    steps_go_on(pages)


def test_the_worker_is_killed_during_a_replay(pages: Pages, held: Path) -> None:
    shop = pages.shop
    _, first = a_lease(pages)
    for number, place in enumerate(["made", "asked", "begins", "commits"], 1):
        view = f"sums_{number}"
        wrong = rows(shop, view)
        run = replay_held(pages, held, view, place)
        (process,) = worker_processes(shop.project)
        process.kill()
        if place != "asked":
            assert rows(shop, view) == wrong
        release(held)
        assert ended(pages, run) == "SUCCESS", "the successor has done what was asked of the first"
        assert is_right(shop, view)
        assert workplaces(shop) == []
        steps_go_on(pages)
    last = worker.find(shop.log)
    assert last is not None
    assert last.epoch >= first.epoch + 4
    assert len(pages.runs("STARTED")) == 1


def test_a_replay_is_cancelled(pages: Pages, held: Path) -> None:
    shop = pages.shop
    a_lease(pages)
    for number, place in enumerate(["made", "begins", "asked", "commits"], 1):
        view = f"sums_{number}"
        wrong = rows(shop, view)
        run = replay_held(pages, held, view, place)
        pages.ask(TERMINATE, run=run)
        assert ended(pages, run) == "CANCELED"
        assert shop.log.replacements() == [], "taken back, unless the switch was done"
        assert workplaces(shop) == []
        if place != "asked":
            assert rows(shop, view) == wrong
        release(held)
        steps_go_on(pages)
        if place in ("made", "begins"):
            assert rows(shop, view) != truth(shop, view), "it stays as it was"
        if place == "commits":  # the worker's state held what was taken back: all of it has been made anew
            assert is_right(shop, view)
        a_new_replay_works(pages, view)
