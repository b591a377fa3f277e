"""Commits larger than a step is meant to be, output that goes through files, and views that need more than they may."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import numpy as np
import pytest
from benchmarks.large_step import Reader, differences
from benchmarks.views import VIEWS as BENCHED
from benchmarks.views import Source

import headwater as hw
from headwater.config import Settings
from headwater.lake import Lake
from headwater.log import Log, open_log, staging
from headwater.ownership import own
from headwater_pipelines import api
from headwater_pipelines.compiler.plan import Base
from headwater_pipelines.runtime import arrived, engine, intake, outbox, pulse, worker
from headwater_pipelines.runtime.relation import Relation
from headwater_pipelines.runtime.state import State

from .conftest import VIEWS, Shop

ROWS = 12_000
SMALL = Settings(step_rows_target=2_000, open_rows_max=2_000)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six slices where there would be one, and files where there would be memory."""
    monkeypatch.setattr(arrived, "SLICE_ROWS", 2_000)
    monkeypatch.setattr(outbox, "SPILL_ROWS", 1_000)
    monkeypatch.setattr(intake, "PIECE_ROWS", 1_000)


def run(log: Log, settings: Settings = SMALL) -> None:
    worker.run(log, settings, threading.Event(), until_caught_up=True)


@pytest.mark.usefixtures("small")
def test_readers_see_a_large_transaction_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A goal of the views: five million rows through three of them; here fewer, with limits as much lower."""
    monkeypatch.setattr(pulse, "LONG_S", 0.01)
    shown = set[object]()
    names = ["filter", "join2", "top"]
    with open_log(tmp_path / "lake", create=True) as log, own(log, "source:shop") as owner:
        source = Source(log, owner.epoch, ROWS, np.random.default_rng(1))
        source.load(ROWS // 5)
        for name in names:
            api.create_view(log, BENCHED[name], name=f"{name}_view")
        run(log)
        monkeypatch.setattr(log.live, "beat", lambda _, **said: shown.add(said["state"]))
        for op in "cu":
            before = log.last_step()
            source.commit_large(op, ROWS // 5, ROWS // 5 + ROWS, 1_000)
            with Reader(tmp_path, names, pause_s=0.01) as reader:
                run(log)
                reader.wait()
            after = log.last_step()
            assert before is not None
            assert after is not None
            assert after.number == before.number + 1
            assert len(reader.seen) == 2
            assert differences(tmp_path, names) == 0
    assert "large step" in shown


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_five_million_rows_within_the_memory_limit() -> None:
    """Its goals: one step, the memory limit, no partial state, each view equal to its SQL."""
    subprocess.run([sys.executable, "-m", "benchmarks.large_step"], check=True)


def test_a_large_commit_is_a_step_of_its_own(tmp_path: Path) -> None:
    with open_log(tmp_path / "lake", create=True) as log, own(log, "source:shop") as owner:
        source = Source(log, owner.epoch, 100, np.random.default_rng(1))
        source.load(0)
        start = log.newest_commit()
        for count in (40, 40, 500, 30, 80):
            source.commit({"fact": source.facts(np.arange(count), "u")})
        found, after = [], start
        while (part := intake.next_range(log, after, log.newest_commit(), 100)).commits:
            found.append(part.rows)
            after = part.upto
        assert found == [80, 500, 30, 80]


def test_spilled_output_is_published_once_whatever_fails(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "SPILL_ROWS", 0)
    names, left = ["big_orders", "totals"], dict[str, int]()
    with open_log(shop.lake) as log:
        for name in names:
            api.create_view(log, VIEWS[name], name=name)
        run(log)
        for point in ("kept", "committed", "killed"):
            with log.transaction("source:shop", shop.epoch, str(shop.position)) as tx:
                tx.append("shop.public.orders", shop.changes("orders"))
                shop.finish(tx)
            with monkeypatch.context() as broken:
                if point == "committed":
                    broken.setattr(engine, "publish", _fail)
                else:
                    broken.setattr(State, "commit", _fail)
                if point == "killed":  # nothing is put in order afterwards
                    broken.setattr(outbox, "release", lambda _: None)
                with pytest.raises(RuntimeError, match="as planned"):
                    run(log)
            left[point] = len(staging.kept(log, outbox.NAME))
            run(log)
            assert not staging.kept(log, outbox.NAME)
        assert left == {"kept": 0, "committed": 1, "killed": 1}
        assert shop.check_every_step(log, names) == 4


def _fail(*_: object) -> None:
    raise RuntimeError("as planned")


def test_a_view_that_outgrows_its_budget_is_paused_and_the_others_go_on(shop: Shop) -> None:
    limited = "CREATE MATERIALIZED VIEW {} WITH (state_limit = '{}') AS SELECT id, note, total FROM orders"
    with open_log(shop.lake) as log:
        api.create_view(log, VIEWS["totals"], name="totals")
        api.create_view(log, limited.format("small", "3 KB"))
        api.create_view(log, limited.format("tiny", "1 KB").replace("total", "total + 1 AS more"))
        run(log)
        assert [log.view(name).state for name in ("totals", "small", "tiny")] == ["live", "live", "paused"]
        while log.view("small").state == "live":
            last = shop.commit(log)
            run(log)
        assert "its state has grown to 3." in log.view("small").reason
        assert "its limit is 3.0 KB" in log.view("small").reason
        with Lake(log) as lake:
            found = {view["name"]: view for view in lake.status()["views"]}
        assert found["small"]["reason"] == log.view("small").reason
        assert found["totals"]["state_bytes"] > 3_000
        step = log.last_step()
        assert step is not None
        assert step.input_commit == last
        shop.check_every_step(log, ["totals"])


def test_what_cannot_be_settled_pauses_the_views_that_read_it(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    settle = Relation.settle

    def starve(relation: Relation) -> None:
        if relation.table == orders.table:
            raise duckdb.OutOfMemoryException("Out of Memory Error: as planned")
        settle(relation)

    with open_log(shop.lake) as log:
        for name in ("totals", "big_orders"):
            api.create_view(log, VIEWS[name], name=name)
        api.create_view(log, "SELECT country, count(*) AS n FROM customers GROUP BY country", name="people")
        run(log)
        topic = log.topic("orders")
        orders = Base(topic.name, topic.id, topic.kind)
        monkeypatch.setattr(Relation, "settle", starve)
        for _ in range(4):
            shop.commit(log)
        run(log)
        states = {name: log.view(name).state for name in ("totals", "big_orders", "people")}
        assert states == {"totals": "paused", "big_orders": "paused", "people": "live"}
        assert "pipeline_memory_bytes_max" in log.view("totals").reason
        monkeypatch.undo()
        for name in ("totals", "big_orders"):
            api.resume_view(log, name)
        shop.commit(log)
        run(log)
        shop.check_every_step(log, ["totals", "big_orders"])


def test_a_view_that_needs_more_memory_than_there_is_is_paused_and_the_others_go_on(tmp_path: Path) -> None:
    rows = 150_000
    with open_log(tmp_path / "lake", create=True) as log, own(log, "source:shop") as owner:
        source = Source(log, owner.epoch, rows, np.random.default_rng(1))
        source.load(100)
        api.create_view(log, BENCHED["aggregate"], name="aggregate_view")
        texts = "SELECT k % 2 AS g, string_agg(s || repeat('x', 300), ',' ORDER BY id) AS a FROM fact GROUP BY 1"
        api.create_view(log, texts, name="texts")
        run(log, Settings(pipeline_memory_bytes_max=32 << 20))
        assert log.view("texts").state == "live"
        source.commit_large("c", 100, 100 + rows, 50_000)
        run(log, Settings(pipeline_memory_bytes_max=32 << 20))
        assert log.view("texts").state == "paused"
        assert "pipeline_memory_bytes_max" in log.view("texts").reason
        assert log.view("aggregate_view").state == "live"
    assert differences(tmp_path, ["aggregate"]) == 0
    with hw.open(tmp_path / "lake") as lake:
        assert lake.sql("SELECT sum(n) AS n FROM aggregate_view").pl()["n"][0] == rows + 100
