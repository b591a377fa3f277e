"""The worker lets time pass: with the next commit or without one, forwards and back, after hours of not running.

At every step the view's rows are those of its SQL with ``now()`` at the instant that the step recorded.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from tests.waiting import until

from headwater.catalog.records import to_micros
from headwater.config import Settings
from headwater.errors import StorageError
from headwater.lake import Lake
from headwater.log import open_log
from headwater.ownership import own
from headwater.schema import Schema
from headwater_pipelines import api
from headwater_pipelines.runtime import engine, state, worker
from headwater_pipelines.runtime.state import State

START = datetime(2026, 5, 1, 12, tzinfo=UTC)
VIEWS = {
    "recent": "SELECT id, ts FROM visits WHERE ts > now() - INTERVAL 1 HOUR",
    "per_minute": "SELECT date_trunc('minute', ts) AS minute, count(*) AS n FROM visits"
    " WHERE ts > now() - INTERVAL 1 HOUR GROUP BY ALL",
    "today": "SELECT count(*) AS n FROM visits WHERE ts >= current_date",
}


class SetClock:
    """A clock that shows what it is set to."""

    def __init__(self) -> None:
        self.now = START

    def now_us(self) -> int:
        return to_micros(self.now)


class Visits:
    """A log of visits, one each minute, whose clock is set by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = SetClock()
        self.log = open_log(folder, create=True, clock=self.clock)
        self.rows: list[tuple[int, datetime]] = []
        self.upto: dict[int, int] = {0: 0}
        with own(self.log, "source:web") as owner:
            self.epoch = owner.epoch
            with self.log.transaction("source:web", self.epoch, None) as tx:
                schema = Schema.of(id="BIGINT", ts="TIMESTAMP WITH TIME ZONE")
                tx.create_topic("web.public.visits", "insert_only", schema, source="web")
                tx.position = "0"
                tx.commit()
        for name, sql in VIEWS.items():
            api.create_view(self.log, sql, name=name)

    def visit(self, *minutes: int) -> None:
        """Visits so many minutes after START, in one commit."""
        fresh = [(len(self.rows) + place, START + timedelta(minutes=each)) for place, each in enumerate(minutes)]
        ids, times = zip(*fresh, strict=True)
        position = self.log.producer("source:web").position
        with self.log.transaction("source:web", self.epoch, position) as tx:
            columns = {"id": pa.array(ids, pa.int64()), "ts": pa.array(times, pa.timestamp("us", "UTC"))}
            tx.append("web.public.visits", pa.table({**columns, "_op": ["c"] * len(fresh)}))
            tx.position = str(int(position or 0) + 1)
            commit = tx.commit().number
        self.rows += fresh
        self.upto[commit] = len(self.rows)

    def run(self) -> None:
        worker.run(self.log, Settings(), threading.Event(), until_caught_up=True)

    def check(self) -> list[datetime]:
        """Every step's views by its input commit and instant; returns the instants."""
        lake = Lake(self.log)
        for step in self.log.steps():
            there = self.rows[: self.upto[max(commit for commit in self.upto if commit <= step.input_commit)]]
            recent = [(number, ts) for number, ts in there if ts > step.instant - timedelta(hours=1)]
            day = step.instant.replace(hour=0, minute=0, second=0, microsecond=0)
            at = f"commit:{step.publish_commit}"
            wanted = {
                "SELECT id, epoch_us(ts) FROM recent ORDER BY id": [(n, to_micros(ts)) for n, ts in recent],
                "SELECT coalesce(sum(n), 0)::BIGINT FROM per_minute": [(len(recent),)],
                "SELECT n FROM today": [(sum(ts >= day for _, ts in there),)],
            }
            for view in self.log.views():
                for query, rows in wanted.items():
                    if view.id in step.views and f" {view.name}" in query:
                        assert lake.sql(query, at=at).fetchall() == rows, (view.name, step)
        return [step.instant for step in self.log.steps()]


@pytest.fixture
def visits(tmp_path: Path) -> Iterator[Visits]:
    made = Visits(tmp_path / "lake")
    yield made
    made.log.close()


def test_rows_come_and_go_with_their_time_though_nothing_is_committed(visits: Visits) -> None:
    visits.visit(0, 10, 20)
    visits.run()
    steps = len(visits.log.steps())
    visits.clock.now = START + timedelta(minutes=30)
    visits.run()
    assert len(visits.log.steps()) == steps, "no row has come to its end: nothing is published"
    visits.clock.now = START + timedelta(minutes=75)
    visits.run()
    assert len(visits.log.steps()) == steps + 1
    visits.clock.now = START + timedelta(minutes=5)
    visits.run()
    assert visits.check()[-1] == visits.clock.now
    assert Lake(visits.log).sql("SELECT id FROM recent").rows == 3, "the clock went back, and rows came again"
    visits.visit(*range(50, 60))
    visits.clock.now = START + timedelta(days=40)
    visits.visit(40 * 24 * 60 - 1)
    visits.run()
    assert visits.check()[-1] == visits.clock.now
    assert Lake(visits.log).sql("SELECT id FROM recent").rows == 1, "after a long time away"


@pytest.mark.long
def test_a_view_filled_beside_others_stands_at_their_instant(visits: Visits) -> None:
    visits.visit(0, 10, 20)
    visits.run()
    before = visits.log.last_step()
    visits.clock.now = START + timedelta(minutes=65)
    api.create_view(visits.log, "SELECT count(*) AS n FROM recent", name="number")
    visits.run()
    assert before is not None
    built = next(step for step in visits.log.steps() if step.number == before.number + 1)
    assert built.instant == before.instant
    visits.check()
    assert Lake(visits.log).sql("SELECT n FROM number").fetchall()[0][0] == 2


@pytest.mark.long
def test_many_rows_that_end_at_once_are_published_in_parts(visits: Visits, monkeypatch: pytest.MonkeyPatch) -> None:
    """``date_trunc`` ends an hour's rows in one instant: no statement and no record batch holds all of them."""
    sizes: list[int] = []
    parts = State.parts

    def parted(own: State, sql: str, *, few: bool = False) -> Iterator[pa.Table]:
        for part in parts(own, sql, few=few):
            sizes.append(part.num_rows)
            yield part

    monkeypatch.setattr(state, "PART_ROWS", 7)
    monkeypatch.setattr(State, "parts", parted)
    api.create_view(visits.log, "SELECT id FROM visits WHERE ts >= date_trunc('hour', now())", name="this_hour")
    visits.visit(*range(60))
    visits.run()
    sizes.clear()
    visits.clock.now = START + timedelta(minutes=61)
    visits.run()
    assert Lake(visits.log).sql("SELECT id FROM this_hour").rows == 0
    assert max(sizes) == 7
    assert sum(sizes) >= 60
    visits.check()


def test_a_step_of_the_clock_that_was_not_published_keeps_its_instant(
    visits: Visits, monkeypatch: pytest.MonkeyPatch
) -> None:
    visits.visit(0, 10, 20)
    visits.run()
    steps = len(visits.log.steps())

    def died(*_: object) -> None:
        raise StorageError("the machine died")

    monkeypatch.setattr(engine, "publish", died)
    visits.clock.now = applied = START + timedelta(minutes=65)
    with pytest.raises(StorageError):
        visits.run()
    monkeypatch.undo()
    visits.clock.now = START + timedelta(minutes=75)
    visits.run()
    assert visits.check()[steps:] == [applied, visits.clock.now]


@pytest.mark.long
def test_a_running_worker_moves_the_clock_by_itself(visits: Visits) -> None:
    visits.visit(0, 10)
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=(visits.log, Settings(), stop))
    thread.start()
    try:
        until(lambda: all(view.state == "live" for view in visits.log.views()))
        visits.clock.now = START + timedelta(minutes=65)
        until(lambda: visits.log.steps()[-1].instant == visits.clock.now)
    finally:
        stop.set()
        thread.join()
    visits.check()
