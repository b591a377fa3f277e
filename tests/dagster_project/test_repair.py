"""A view that is wrong: found by its check, repaired by a backfill of the hours, as the pages ask for it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
import pytest
from tests.waiting import until

from headwater.lake import Lake
from headwater.log import open_log
from headwater_dagster import worker as process
from headwater_dagster.health import EQUAL
from headwater_dagster.lease import caught_up
from headwater_pipelines.replay import audit
from headwater_pipelines.runtime import worker
from headwater_pipelines.runtime.state import FILE

from .conftest import TOTALS, Shop
from .pages import Pages

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]

EQUALS = """query($path: [String!]!, $name: String!) { assetCheckExecutions(
  assetKey: {path: $path}, checkName: $name, limit: 1) { status evaluation { success severity description } } }"""
BACKFILL = """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
STATUS = """query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status
  runs: unfinishedRuns { runId } } } }"""
Rows = Counter[tuple[Any, ...]]


@pytest.fixture
def wrong(shop: Shop) -> Shop:
    """Before Dagster looks, the stored sums were changed behind the worker's back, and published."""
    shop.order()
    worker.run(shop.log, shop.project.settings, threading.Event(), until_caught_up=True)
    with duckdb.connect(str(shop.project.lake_dir / "state" / FILE)) as state:
        names = [name for (name,) in state.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        (table,) = [name for name in names if name.startswith("a_")]
        state.execute(f'UPDATE "{table}" SET s_x0 = s_x0 + 1000')
    shop.order()
    worker.run(shop.log, shop.project.settings, threading.Event(), until_caught_up=True)
    return shop


@contextmanager
def reading(shop: Shop) -> Iterator[list[Rows]]:
    """Whatever a reader sees meanwhile, who reads all the time: each state once, in order."""
    seen, stop = list[Rows](), threading.Event()

    def run() -> None:
        with open_log(shop.project.lake_dir) as log, Lake(log) as lake:
            while not stop.is_set():
                rows = Rows(lake.sql("SELECT * FROM totals").fetchall())
                if not seen or seen[-1] != rows:
                    seen.append(rows)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


@contextmanager
def watching(shop: Shop) -> Iterator[Rows]:
    """What a watcher is told, added up, after the first answer: rows that come count up, those that go down."""
    told, begun = Rows(), threading.Event()
    log = open_log(shop.project.lake_dir)
    watch = Lake(log).watch("SELECT * FROM totals", interval=0.05)

    def run() -> None:
        for each in watch.changes():
            for *row, weight in (tuple(one.values()) for one in each.rows.to_pylist()):
                told[tuple(row)] += 0 if each.snapshot else weight
            begun.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(30)
    try:
        yield told
    finally:
        watch.close()
        thread.join()
        log.close()


def now(shop: Shop) -> Rows:
    return Rows(Lake(shop.log).sql("SELECT * FROM totals").fetchall())


def right(shop: Shop) -> Rows:
    return Rows(Lake(shop.log).sql(f"SELECT * FROM ({TOTALS})").fetchall())


def test_found_by_the_check_repaired_by_the_hour_and_promoted(wrong: Shop, pages: Pages) -> None:
    shop = wrong
    until(lambda: process.find(shop.log) is not None, "a worker under a lease", 200)
    until(lambda: caught_up(shop.log, shop.log.newest_commit()), "the views")
    assert now(shop) != right(shop)

    def verdict() -> Any:
        found = pages.ask(EQUALS, path=["views", "totals"], name=EQUAL)
        return found[0]["evaluation"] if found else None

    audit.housekeep(shop.project, shop.log)  # as maintenance does every minute
    until(lambda: verdict() is not None, "the check's verdict")
    assert (verdict()["success"], verdict()["severity"]) == (False, "ERROR")

    before, after = now(shop), right(shop)
    hour = shop.log.commits(limit=1)[0].time.strftime("%Y-%m-%d-%H:00")
    wanted = {
        "assetSelection": [{"path": ["replay", "totals"]}],
        "partitionNames": [hour],
        "runConfigData": {"ops": {"replay__totals": {"config": {"promote": True}}}},
    }
    with reading(shop) as seen, watching(shop) as told:
        made = pages.ask(BACKFILL, params=wanted)
        assert made["__typename"] == "LaunchBackfillSuccess", made

        def status() -> Any:
            return pages.ask(STATUS, id=made["backfillId"])["status"]

        until(lambda: status() not in ("REQUESTED", "COMPLETING"), "the backfill's end", 200)
        assert status() == "COMPLETED_SUCCESS"
        assert now(shop) == right(shop) == after
        until(lambda: seen[-1] == after, "the reader")
        until(lambda: Rows({row: n for row, n in told.items() if n > 0}) == after - before, "the watcher")
    assert seen == [before, after], "no state in between"
    assert Rows({row: -n for row, n in told.items() if n < 0}) == before - after
    # The wrong step had taken back rows that were never there: the promotion settles that as well.
    records = shop.log.read_changes("views.totals", 0, shop.log.newest_commit(), ["name", "total", "_weight"])
    folded = Rows()
    for row in records.to_pylist():
        folded[row["name"], row["total"]] += row["_weight"]
    assert Rows({row: n for row, n in folded.items() if n}) == after
    until(lambda: verdict()["success"], "the check passes")
