"""kill -9 at the crash points of a real worker process: nothing lost, nothing twice, every step right.

The points are read off a recorded run, never listed by hand. Each killed run leaves its mess to the next one,
which is killed at another point; at the end every published step is compared with the SQL from scratch.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headwater import failpoint
from headwater.config import Settings
from headwater.log import open_log
from headwater.ownership import own
from headwater_pipelines import api
from headwater_pipelines.runtime import worker
from headwater_pipelines.runtime.publish import PRODUCER, Publisher

from .conftest import VIEWS, Shop

Worker = Callable[..., int]


@pytest.fixture
def run_worker(command: Path, shop: Shop) -> Worker:
    """`headwater views --until-caught-up` as a process of its own, with failpoints; its exit status.

    Few rows are stored as many are: in runs, which are merged. Few commits are a step: each is published while the
    next is worked on.
    """

    def run(failpoints: str = "") -> int:
        argv = [str(command), "views", "--until-caught-up", "--project", str(shop.folder)]
        few = {"HEADWATER_OPEN_ROWS_MAX": "2", "HEADWATER_STEP_ROWS_TARGET": "8"}
        environment = {**os.environ, **few, "HEADWATER_FAILPOINTS": failpoints}
        done = subprocess.run(argv, check=False, env=environment, capture_output=True, text=True, timeout=900)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode

    return run


def more_work(shop: Shop, *, recreate: bool) -> None:
    """New input, and sometimes a view to drop and to fill."""
    with open_log(shop.lake) as log:
        if recreate:
            api.drop_view(log, "big_orders")
            api.create_view(log, VIEWS["big_orders"], name="big_orders")
        for _ in range(2):
            shop.commit(log)


def recorded(shop: Shop, run_worker: Worker, tmp_path: Path) -> dict[str, int]:
    """Names of the crash points that a run with a drop, a fill and a step passes, with how often."""
    assert run_worker() == 0
    more_work(shop, recreate=True)
    file = tmp_path / "points"
    assert run_worker(f"record:{file}") == 0
    names = file.read_text().split()
    return {name: names.count(name) for name in dict.fromkeys(names)}


def kill_at_each(shop: Shop, run_worker: Worker, points: list[tuple[str, int]]) -> int:
    """One killed run per (name, hit), each over new input and the leavings of the one before; kills that hit."""
    killed = 0
    for name, hit in points:
        more_work(shop, recreate=True)
        killed += run_worker(f"kill:{name}:{hit}") == -signal.SIGKILL
    assert run_worker() == 0
    return killed


def prepare(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        for name, sql in VIEWS.items():
            api.create_view(log, sql, name=name)
        shop.commit(log)


def compare(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        assert [view.state for view in log.views()] == ["live"] * len(VIEWS)
        step = log.last_step()
        assert step is not None
        assert step.input_commit >= shop.commits[-1]
        numbers = [each.number for each in log.steps()]
        assert numbers == list(range(1, len(numbers) + 1)), "steps are dense: none lost, none twice"
        shop.check_every_step(log, list(VIEWS))


def test_kill_at_points_of_every_seam(shop: Shop, run_worker: Worker, tmp_path: Path) -> None:
    prepare(shop)
    counts = recorded(shop, run_worker, tmp_path)
    names = {"state.write:before", "state.commit:before", "state.commit:after", "state.run:before", "state.run:after"}
    names |= {"catalog.commit:after"}
    assert names <= set(counts)
    points = [(name, shop.rng.randrange(1, counts[name] + 1)) for name in shop.rng.sample(sorted(names), 2)]
    killed = kill_at_each(shop, run_worker, points)
    print(f"{killed} of {len(points)} runs were killed")
    assert killed
    compare(shop)


def test_no_step_is_committed_before_the_last_one_is_published(
    shop: Shop, run_worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a step that is not published the state alone has the output, and only the last one's."""
    prepare(shop)
    assert run_worker() == 0
    file, waits, wait = tmp_path / "points", threading.Event(), Publisher.wait

    def watched(publisher: Publisher) -> None:
        if publisher._begun is not None:
            waits.set()
        wait(publisher)

    monkeypatch.setattr(Publisher, "wait", watched)
    with open_log(shop.lake) as log, own(log, PRODUCER) as owner, ThreadPoolExecutor(1) as beside:
        mine = worker.Worker(log, owner.epoch, Settings())
        mine.advance()
        commits = [shop.commit(log) for _ in range(2)]

        def step(to: int) -> None:
            mine.engine.step(mine.engine.next(to), beside=True)

        failpoint.follow(f"record:{file}")
        with log.catalog.write():  # so nothing is published
            steps = [beside.submit(step, to) for to in commits]
            assert waits.wait(60)
            assert file.read_text().split().count("state.commit:after") == 1
        steps[-1].result()
        mine.engine.published()
        failpoint.follow("")
        mine.close()
    compare(shop)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_kill_at_every_point(shop: Shop, run_worker: Worker, tmp_path: Path) -> None:
    prepare(shop)
    counts = recorded(shop, run_worker, tmp_path)
    points = [(name, hit) for name, count in counts.items() for hit in range(1, count + 1)]
    kill_at_each(shop, run_worker, points)
    compare(shop)


def test_published_but_reply_lost(shop: Shop, run_worker: Worker) -> None:
    """The catalog has the step, the worker does not know: the next one must not publish it again."""
    prepare(shop)
    assert run_worker() == 0
    with open_log(shop.lake) as log:
        shop.commit(log)
        before = log.last_step()
    assert before is not None
    assert run_worker("kill:catalog.commit:after:2") == -signal.SIGKILL
    with open_log(shop.lake) as log:
        for _ in range(3):
            shop.commit(log)
    assert run_worker() == 0
    compare(shop)
