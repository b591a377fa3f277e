"""Replay: a view made anew beside the live one, compared with it, and promoted, whatever was wrong with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import duckdb
import pytest

from headwater.config import Settings, load
from headwater.errors import Expired, NameNotFound, NotYet, PipelineError, TopicChanged, UsageError
from headwater.lake import Lake
from headwater.log import Log, open_log, retention, seal
from headwater_pipelines import api
from headwater_pipelines.compiler.plan import Aggregate, sources
from headwater_pipelines.replay import replay
from headwater_pipelines.runtime import registry, worker
from headwater_pipelines.runtime.state import FILE

from .conftest import VIEWS, Shop


def run(log: Log) -> None:
    worker.run(log, Settings(), threading.Event(), until_caught_up=True)


def begin(log: Log) -> None:
    for name, sql in VIEWS.items():
        api.create_view(log, sql, name=name)
    run(log)


def again(log: Log, name: str, start: int, stop: int, *, promote: bool = False) -> replay.Replayed:
    plan = replay.plan(log, name, start, stop)
    return replay.replay(log, plan, Settings(step_rows_target=20), print, promote=promote)


def rows(log: Log, name: str, at: int | None = None) -> Counter[Any]:
    return Counter(tuple(row.values()) for row in Lake(log).sql(f"SELECT * FROM {name}", at=at).arrow().to_pylist())


@contextmanager
def working(shop: Shop) -> Iterator[None]:
    """The worker in a thread, with a log of its own; begun anew, as `up` does it, where it may be."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            with open_log(shop.lake) as log, suppress(TopicChanged):
                worker.run(log, Settings(), stop)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def corrupt(shop: Shop, name: str) -> None:
    """What is stored for the groups of a view is wrong from now on, and so is what it publishes of those touched."""
    with open_log(shop.lake) as log:
        root = registry.compile_all(log, log.views())[0][log.view(name).id].root
    with duckdb.connect(str(shop.lake / "state" / FILE)) as state:
        for source in sources(root):
            if isinstance(source, Aggregate):
                state.execute(f'UPDATE "{source.table}_open" SET s_x0 = s_x0 + 1000, n = n + 1')


def wrongly_published(shop: Shop) -> None:
    """All views are live, and revenue has been wrong for a step."""
    with open_log(shop.lake) as log:
        begin(log)
        shop.update(log, "orders", range(30))
        run(log)
    corrupt(shop, "revenue")
    with open_log(shop.lake) as log:
        shop.update(log, "orders", range(30))
        run(log)


def changes(log: Log, name: str, after: int, upto: int) -> list[tuple[Any, int]]:
    """The rows of a changelog's records, and their weights."""
    topic = log.topic(f"views.{name}")
    found = log.read_changes(topic.name, after, upto, [*topic.schema.names, "_weight"]).to_pylist()
    return [(tuple(row[each] for each in topic.schema.names), row["_weight"]) for row in found]


def fold(found: list[tuple[Any, int]]) -> Counter[Any]:
    """What they come to; where something was wrong, with rows that stand less than once."""
    total = Counter[Any]()
    for row, weight in found:
        total[row] += weight
    return Counter({row: weight for row, weight in total.items() if weight})


def test_a_view_over_any_range_is_as_it_was_published(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        begin(log)
        for _ in range(8):
            shop.commit(log)
            run(log)
        ends = sorted(shop.rng.sample(shop.commits, 2))
        for name in VIEWS:
            done = again(log, name, *ends)
            assert (done.start, done.comparison.is_same, done.comparison.sample) == (ends[0], True, ())
            assert done.comparison.replayed.rows == sum(rows(log, name, ends[1]).values())
        assert not list((shop.lake / "state" / replay.FOLDER).iterdir())


def test_where_time_decides_the_recorded_instants_do(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        api.create_view(log, "SELECT id, now() AS at FROM orders", name="seen")
        run(log)
        for _ in range(4):
            shop.commit(log)
            run(log)
        for start in (shop.commits[0], shop.commits[2], shop.commits[-1]):
            assert again(log, "seen", start, log.newest_commit()).comparison.is_same


def test_wrong_rows_are_found_and_promotion_mends_them_and_what_reads_them(shop: Shop) -> None:
    """In one commit, whose changes are exactly the difference; views that share what was wrong are mended with it."""
    with open_log(shop.lake) as log:
        begin(log)
        shop.update(log, "orders", range(30))
        run(log)
    corrupt(shop, "revenue")
    with open_log(shop.lake) as log, Lake(log) as reader:
        first = reader.sql("SELECT * FROM revenue").fetchall()
        shop.update(log, "orders", range(30))
        run(log)
        assert reader.sql("SELECT * FROM revenue").fetchall() != first
        for name in ("revenue", "countries"):
            assert not again(log, name, shop.commits[0], log.newest_commit()).comparison.is_same
        before = log.newest_commit()
        with working(shop):
            done = again(log, "revenue", shop.commits[0], before, promote=True)
        assert (done.comparison.is_same, len(done.comparison.sample) > 0) == (False, True)
        for name in VIEWS:
            shop.check(log, name, done.commit, shop.commits[-1])
        wrong, mended = fold(changes(log, "revenue", 0, before)), rows(log, "revenue")
        followed = Counter(tuple(row.values()) for row in reader.sql("SELECT * FROM revenue").arrow().to_pylist())
        assert followed == mended, "who has read it all along reads what who begins now does"
        difference = changes(log, "revenue", before, done.commit)
        assert len(difference) == len(fold(difference)) > 0
        assert all(weight == mended[row] - wrong[row] for row, weight in difference)
        for _ in range(3):
            shop.commit(log)
            run(log)
        for name in VIEWS:
            shop.check(log, name, log.newest_commit(), shop.commits[-1])


def test_promotion_runs_the_pipeline_where_nobody_does(shop: Shop) -> None:
    wrongly_published(shop)
    with open_log(shop.lake) as log:
        heard = list[str]()
        done = api.replay_view(log, load(shop.folder), "revenue", promote=True, say=heard.append)
        assert heard[-1].startswith(f"promoted at commit {done.commit}; ")
        shop.check(log, "revenue", done.commit, shop.commits[-1])
        assert log.replacements() == []
        again_s = api.replay_view(log, load(shop.folder), "revenue", "0", f"commit:{done.commit}")
        assert again_s.comparison.is_same


def test_what_cannot_be_promoted_is_withdrawn(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_log(shop.lake) as log:
        begin(log)
        before = log.view("revenue")
        api.pause_pipeline(log, "somebody")
        with pytest.raises(PipelineError, match="paused by somebody"):
            again(log, "revenue", 0, log.newest_commit(), promote=True)
        api.resume_pipeline(log)

        def interrupted(*_: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(replay, "_switched", interrupted)
        with pytest.raises(KeyboardInterrupt):
            again(log, "revenue", 0, log.newest_commit(), promote=True)
        assert log.replacements() == []
        shop.commit(log)
        run(log)
        assert log.view("revenue") == before
        shop.check_every_step(log, list(VIEWS))


def test_ranges_that_cannot_be_replayed(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        for _ in range(3):
            shop.commit(log)
        begin(log)
        whole = api.replay_view(log, load(shop.folder), "totals")
        assert (whole.start, whole.stop) == (shop.commits[-1], shop.commits[-1])
        for _ in range(5):
            shop.commit(log)
            run(log)
        with pytest.raises(NameNotFound):
            replay.plan(log, "nothing", 0, log.newest_commit())
        with pytest.raises(NotYet, match="has published nothing"):
            replay.plan(log, "totals", 0, shop.commits[1])
        with pytest.raises(UsageError, match="behind its end"):
            replay.plan(log, "totals", log.newest_commit(), log.newest_commit())
        limits = Settings(time_travel_s=0.001, history_s=0.001)
        for _ in range(3):
            seal.seal(log, limits)
            shop.commit(log)
            run(log)
        assert retention.retain(log, limits)
        with pytest.raises(Expired) as raised:
            replay.plan(log, "totals", 0, log.newest_commit())
        oldest = int(raised.value.todo.rsplit(":", 1)[1].rstrip("."))
        assert again(log, "totals", oldest, log.newest_commit()).comparison.is_same
        with pytest.raises(Expired):
            replay.plan(log, "totals", oldest - 1, log.newest_commit())


REPLAY = """
import sys
from headwater.config import load
from headwater.log import open_log
from headwater_pipelines import api
project = load(sys.argv[1])
with open_log(project.lake_dir) as log:
    api.replay_view(log, project, "revenue", 0, promote=True)
"""


@pytest.mark.parametrize("point", ["make", "ask", "switch"])
def test_a_replay_that_is_killed_leaves_a_view_as_it_was_or_as_it_should_be(shop: Shop, point: str) -> None:
    wrongly_published(shop)
    with open_log(shop.lake) as log:
        wrong, before = rows(log, "revenue"), log.newest_commit()
        with working(shop):
            environment = {**os.environ, "HEADWATER_FAILPOINTS": f"kill:replay.{point}:after:1"}
            argv = [sys.executable, "-c", REPLAY, str(shop.folder)]
            done = subprocess.run(argv, check=False, env=environment, capture_output=True, text=True, timeout=60)
            assert done.returncode == -signal.SIGKILL, done.stderr
            assert len(list((shop.lake / "state" / replay.FOLDER).iterdir())) == 1
            assert point != "make" or (log.replacements(), rows(log, "revenue")) == ([], wrong)
            mended = again(log, "revenue", 0, before, promote=True).commit
        assert (log.replacements(), list((shop.lake / "state" / replay.FOLDER).iterdir())) == ([], [])
        shop.check(log, "revenue", mended, shop.commits[-1])
        shop.commit(log)
        run(log)
        shop.check(log, "revenue", log.newest_commit(), shop.commits[-1])


def test_what_a_replay_has_left_is_removed_by_the_next_and_what_one_uses_is_not(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        parent = shop.lake / "state" / replay.FOLDER
        with replay.workplace(log) as first:
            reused = parent / f"{os.getpid()}-of-another"  # whose number this process has now
            reused.mkdir()
            os.utime(reused, (0, 0))
            gone = subprocess.Popen([sys.executable, "-c", ""])
            gone.wait()
            (parent / f"{gone.pid}-gone").mkdir()
            with replay.workplace(log) as second:
                assert set(parent.iterdir()) == {first, second}
        assert list(parent.iterdir()) == []
