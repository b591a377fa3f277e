"""Views filled beside the live steps equal those that were there first, whatever is committed meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import until

from headwater.config import Settings
from headwater.errors import NameNotFound
from headwater.lake import Lake
from headwater.log import Log, open_log
from headwater.ownership import own
from headwater_pipelines import api
from headwater_pipelines.runtime import fill, intake, worker
from headwater_pipelines.runtime.bases import Store
from headwater_pipelines.runtime.program import Program
from headwater_pipelines.runtime.publish import PRODUCER
from headwater_pipelines.runtime.relation import Relation
from headwater_pipelines.runtime.runs import Run
from headwater_pipelines.runtime.state import FILE, State, unfinished

from .conftest import VIEWS, Shop
from .test_lifecycle import OTHER_REVENUE, check_as_of_every_step

BESIDE = Settings(fill_beside_rows_min=1)


class Gate:
    """Holds every fill after its first loaded part until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        loaded = fill.Fill._loaded

        def hold(self_: fill.Fill, rows: int) -> None:
            self.reached.set()
            while not self.open.wait(0.01):
                loaded(self_, 0)  # it may be told to end
            loaded(self_, rows)

        monkeypatch.setattr(fill.Fill, "_loaded", hold)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


@pytest.fixture
def working() -> Iterator[Callable[[Log], threading.Thread]]:
    """Starts a worker that fills everything beside; it is stopped at the end."""
    stop, threads = threading.Event(), list[threading.Thread]()

    def start(log: Log) -> threading.Thread:
        threads.append(threading.Thread(target=worker.run, args=(log, BESIDE, stop)))
        threads[0].start()
        return threads[0]

    yield start
    stop.set()
    for thread in threads:
        thread.join()


def live(log: Log, *names: str) -> bool:
    return all(log.view(name).state == "live" for name in names)


def stepped_to(log: Log, commit: int) -> bool:
    step = log.last_step()
    return step is not None and step.input_commit >= commit


def status(log: Log, name: str) -> dict[str, object]:
    with Lake(log) as lake:
        return next(view for view in lake.status()["views"] if view["name"] == name)


@pytest.mark.long
def test_filled_while_inputs_change_equals_created_first(
    shop: Shop, gate: Gate, working: Callable[[Log], threading.Thread]
) -> None:
    log = open_log(shop.lake)
    api.create_view(log, VIEWS["totals"], name="totals")
    # The same rows by another plan: with the same one, what is stored for it would be used for both.
    api.create_view(log, VIEWS["revenue"].replace("GROUP", "AND o.id IS NOT NULL GROUP"), name="first")
    gate.open.set()
    working(log)
    until(lambda: live(log, "totals", "first"))
    gate.open.clear()
    gate.reached.clear()
    api.create_view(log, VIEWS["revenue"], name="revenue")
    api.create_view(
        log, "SELECT note, count(*) AS n FROM orders GROUP BY note", name="notes"
    )  # a column not stored yet
    api.create_view(log, "SELECT id, now() > TIMESTAMPTZ '2020-01-01' AS late FROM customers", name="clocked")
    assert gate.reached.wait(30)
    for _ in range(5):
        last = shop.commit(log)
        until(lambda: stepped_to(log, last))  # noqa: B023 -- called before the next round
    assert log.view("revenue").state == "creating", "live views went on while it was being filled"
    until(lambda: bool(status(log, "revenue")["fill"]))
    assert status(log, "revenue")["fill"]["of"] > 0  # type: ignore[index]
    gate.open.set()
    until(lambda: live(log, "revenue", "notes", "clocked"))
    for _ in range(3):
        last = shop.commit(log)
    until(lambda: stepped_to(log, last))
    shop.check_every_step(log, ["totals", "revenue"])
    check_as_of_every_step(shop, log)
    with Lake(log) as lake:
        both = ("revenue", "first")
        for one, other in (both, both[::-1]):
            assert lake.sql(f"FROM {one} EXCEPT ALL FROM {other}").rows == 0
    assert status(log, "revenue")["fill"] is None


@pytest.mark.long
def test_a_replacement_is_filled_beside_the_view_that_goes_on(
    shop: Shop, gate: Gate, working: Callable[[Log], threading.Thread]
) -> None:
    log = open_log(shop.lake)
    for name, sql in VIEWS.items():
        api.create_view(log, sql, name=name)
    gate.open.set()
    working(log)
    until(lambda: live(log, *VIEWS))
    gate.open.clear()
    gate.reached.clear()
    api.replace_view(log, OTHER_REVENUE, name="revenue")
    assert gate.reached.wait(30)
    last = shop.commit(log)
    until(lambda: stepped_to(log, last))
    assert len(log.replacements()) == 1
    # Another one while the first is being filled: that is given up.
    api.replace_view(log, OTHER_REVENUE.replace("20", "30"), name="revenue")
    gate.open.set()
    until(lambda: not log.replacements())
    last = shop.commit(log)
    until(lambda: stepped_to(log, last))
    assert "30" in log.view("revenue").sql
    check_as_of_every_step(shop, log)


@pytest.mark.long
def test_a_view_dropped_while_it_is_filled(shop: Shop, gate: Gate, working: Callable[[Log], threading.Thread]) -> None:
    log = open_log(shop.lake)
    api.create_view(log, VIEWS["totals"], name="totals")
    working(log)
    until(lambda: live(log, "totals"))  # nobody waits for anything yet: it is filled between two steps
    api.create_view(log, VIEWS["revenue"], name="revenue")
    assert gate.reached.wait(30)
    api.drop_view(log, "revenue")
    api.create_view(log, "SELECT id, note::INTEGER AS n FROM orders", name="fails")
    gate.open.set()
    until(lambda: log.view("fails").state == "paused")
    last = shop.commit(log)
    until(lambda: stepped_to(log, last))
    shop.check_every_step(log, ["totals"])


def advance(each: worker.Worker, done: Callable[[], bool]) -> None:
    """Steps until something is so."""

    def step() -> bool:
        each.advance()
        return done()

    until(step)


def test_views_that_wait_are_filled_together_and_those_that_fail_are_paused(shop: Shop, gate: Gate) -> None:
    """A fill under way goes on when there are more of them; what fails leaves the others alone."""
    fails = "SELECT id, (note || 'x')::INTEGER AS n FROM orders"
    with open_log(shop.lake) as log, own(log, PRODUCER) as owner:
        for name, sql in (("totals", VIEWS["totals"]), ("fails", fails), ("big", VIEWS["big_orders"])):
            api.create_view(log, sql, name=name)
        mine = worker.Worker(log, owner.epoch, BESIDE)
        try:
            advance(mine, lambda: log.view("fails").state == "paused" and live(log, "totals", "big"))
            api.create_view(log, VIEWS["revenue"], name="revenue")
            advance(mine, gate.reached.is_set)
            first = mine.fill
            api.create_view(log, fails.replace("'x'", "'y'"), name="also")
            api.create_view(log, "SELECT note, count(*) AS n FROM orders GROUP BY note", name="notes")
            last = shop.commit(log)
            advance(mine, lambda: stepped_to(log, last))
            assert mine.fill is first
            gate.open.set()

            def together() -> bool:  # the next look may find that it has failed already
                names = [view.name for view in mine.fill.views.values()] if mine.fill is not None else []
                return live(log, "revenue") and names == ["also", "notes"]

            advance(mine, together)
            advance(mine, lambda: log.view("also").state == "paused" and live(log, "notes"))
            advance(mine, lambda: stepped_to(log, last) and mine.fill is None)
        finally:
            mine.close()
        shop.check_every_step(log, ["totals", "revenue"])


def test_a_fill_that_is_cut_short_is_taken_up_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was loaded stays, also after another fill that came to nothing, and the tables may change meanwhile."""
    settings = Settings(fill_beside_rows_min=1, open_rows_max=8)
    loaded, cut, closing = list[str](), threading.Event(), threading.Event()
    load, create = intake.load, Program.create

    def noted(log: Log, state: State, stores: Sequence[Store], *rest: Any) -> None:
        loaded.extend(store.base.name for store in stores)
        load(log, state, stores, *rest)

    def fails(self: Program, state: State, *rest: Any) -> None:
        if isinstance(state, fill.Beside):
            cut.set()
            assert closing.wait(60)  # before that the worker might look at it and give it up
            raise fill.Stopped("cut short")
        create(self, state, *rest)

    def cut_short(log: Log) -> None:
        cut.clear()
        closing.clear()
        with monkeypatch.context() as broken, own(log, PRODUCER) as owner:
            broken.setattr(Program, "create", fails)
            cutting = worker.Worker(log, owner.epoch, settings)
            while not cut.is_set():
                cutting.advance()
            closing.set()
            cutting.close()

    monkeypatch.setattr(intake, "load", noted)
    with open_log(shop.lake) as log:
        api.create_view(log, VIEWS["totals"], name="totals")
        worker.run(log, settings, threading.Event(), until_caught_up=True)
        api.create_view(log, "SELECT note, count(*) AS n FROM orders GROUP BY note", name="revenue")
        cut_short(log)
        api.drop_view(log, "revenue")
        api.create_view(log, VIEWS["revenue"], name="revenue")
        loaded.clear()
        cut_short(log)
        assert sorted(loaded) == ["shop.public.customers", "shop.public.orders"]
        shop.commit(log)
        loaded.clear()
        worker.run(log, settings, threading.Event(), until_caught_up=True)
        assert not loaded
        assert live(log, "totals", "revenue")
        shop.commit(log)
        worker.run(log, settings, threading.Event(), until_caught_up=True)
        shop.check_every_step(log, ["totals", "revenue"])
        state = State(log.folder / "state" / FILE, timezone="UTC")
        runs = {run.number for each in state.relations.values() for run in each.runs}
        assert not unfinished(state)
        assert {
            int(file.name.split(".")[0].split("-")[0]) for file in (log.folder / "state" / "runs").iterdir()
        } == runs
        state.close()


@pytest.mark.long
@pytest.mark.parametrize("seam", ["write", "commit"])
def test_killed_while_filling(shop: Shop, command: Path, seam: str) -> None:
    """A fill that is cut short goes on at the next start, and leaves nothing behind."""

    def run(failpoints: str = "") -> int:
        argv = [str(command), "views", "--until-caught-up", "--project", str(shop.folder)]
        environment = {**os.environ, "HEADWATER_FAILPOINTS": failpoints, "HEADWATER_FILL_BESIDE_ROWS_MIN": "1"}
        done = subprocess.run(argv, check=False, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode

    with open_log(shop.lake) as log:
        api.create_view(log, VIEWS["totals"], name="totals")
    assert run() == 0
    with open_log(shop.lake) as log:
        api.create_view(log, VIEWS["revenue"], name="revenue")
        shop.commit(log)
    killed = 0
    for hit in range(2, 9, 3):
        killed += run(f"kill:state.{seam}:after:{hit}") == -signal.SIGKILL
        with open_log(shop.lake) as log:
            shop.commit(log)
    assert killed
    assert run() == 0
    with open_log(shop.lake) as log:
        last = log.last_step()
        shop.commit(log)
    assert run() == 0
    with open_log(shop.lake) as log:
        assert live(log, "totals", "revenue")
        assert log.last_step().number == last.number + 1, "what was filled is found again, not rebuilt"  # type: ignore[union-attr]
        state = State(log.folder / "state" / FILE, timezone="UTC")
        schemas = state.query("SELECT schema_name FROM duckdb_schemas() WHERE NOT internal").column(0).to_pylist()
        adopted = sorted({each.home for each in state.relations.values()} - {"main"})
        state.close()
        assert sorted(schemas) == adopted
        assert adopted
        shop.check_every_step(log, ["totals", "revenue"])


def test_a_checkpoint_is_made_later_while_rows_are_frozen(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB refuses one while another transaction on the file has written anything, a name for a table included."""
    freeze, reached, gate = Relation.freeze, threading.Event(), threading.Event()

    def held(relation: Relation, stop: threading.Event) -> Run:
        with relation.state.reading() as connection:
            connection.execute("BEGIN")
            connection.execute("CREATE TABLE written (i INTEGER)")
            reached.set()
            assert gate.wait(60)
            connection.execute("ROLLBACK")
        return freeze(relation, stop)

    monkeypatch.setattr(Relation, "freeze", held)
    with open_log(shop.lake) as log, own(log, PRODUCER) as owner:
        api.create_view(log, VIEWS["totals"], name="totals")
        mine = worker.Worker(log, owner.epoch, Settings(open_rows_max=4))
        try:
            advance(mine, lambda: live(log, "totals"))

            def freezes() -> bool:
                return reached.is_set() or shop.commit(log) < 0

            advance(mine, freezes)
            before = mine.engine.state.wal_bytes
            mine._checkpoint()
            assert mine.engine.state.wal_bytes == before > 0
            gate.set()
            until(lambda: not mine.merging.is_running)
            mine._checkpoint()
            assert mine.engine.state.wal_bytes == 0
        finally:
            gate.set()
            mine.close()
        shop.check_every_step(log, ["totals"])


def test_a_view_and_its_topic_dropped_while_it_is_built(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker begins anew with what there is; what it cannot find in a catalog that stands still ends it."""
    with open_log(shop.lake) as log, Lake(log) as lake:
        api.create_view(log, VIEWS["totals"], name="totals")
        lake.create_topic("web.clicks", {"page": "VARCHAR"})
        api.create_view(log, "SELECT page, count(*) AS n FROM clicks GROUP BY page", name="pages")
        load, dropped = intake.load, list[str]()

        def drop_first(*args: Any, **options: Any) -> None:
            if not dropped:
                dropped.extend(api.drop_view(log, "pages"))
                lake.drop_topic("web.clicks")
            load(*args, **options)

        monkeypatch.setattr(intake, "load", drop_first)
        worker.run(log, Settings(), threading.Event(), until_caught_up=True)
        assert dropped == ["pages"]
        shop.commit(log)
        worker.run(log, Settings(), threading.Event(), until_caught_up=True)
        check_as_of_every_step(shop, log)
        assert [view.state for view in log.views()] == ["live"]

        monkeypatch.setattr(worker.Worker, "advance", lambda *_, **__: log.topic("web.clicks"))
        with pytest.raises(NameNotFound, match=r"web\.clicks"):
            worker.run(log, Settings(), threading.Event(), until_caught_up=True)
