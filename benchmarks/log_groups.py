"""Fan-out: what each further consumer group on one topic costs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from benchmarks.harness import Report, percentile
from benchmarks.log_data import BLOCK_ROWS, EVENT_COLUMNS, EVENTS, Producer, events, seal_all
from benchmarks.processes import Meter
from headwater.client.consumer import Consumer
from headwater.log import Log, open_log
from headwater.schema import Schema

GROUPS = (1, 8, 32)
SEALED_ROWS, QUICK_SEALED_ROWS = 2_000_000, 200_000
LIVE_COMMITS, QUICK_LIVE_COMMITS = 500, 100
LIVE_ROWS, COMMITS_PER_S = 1_000, 50
WAIT_S = 60.0
"""How long a group may take to join, and to see what was published last."""


def measure(report: Report, folder: Path, quick: bool) -> None:
    """Each group reads everything there is (sealed), then follows a producer of 50 commits a second."""
    rows = QUICK_SEALED_ROWS if quick else SEALED_ROWS
    commits = QUICK_LIVE_COMMITS if quick else LIVE_COMMITS
    with open_log(folder / "lake", create=True) as log:
        writer = Producer(log)
        writer.create(EVENTS, "event", Schema.of(EVENT_COLUMNS))
        for first in range(0, rows, BLOCK_ROWS):
            writer.write({EVENTS: events(first, min(BLOCK_ROWS, rows - first))})
        seal_all(log)
        for count in GROUPS:
            _catch_up(report, folder / "lake", rows, count)
        _follow(report, folder / "lake", writer, commits)
    report.note(
        f"groups: {rows:,} sealed rows caught up with by each; {commits} commits of {LIVE_ROWS} rows followed; "
        "one consumer a group, each in a thread, all in one process"
    )


def _catch_up(report: Report, path: Path, rows: int, count: int) -> None:
    with open_log(path) as log, Meter(os.getpid()) as meter:
        began = time.perf_counter()

        def read(number: int) -> None:
            seen = 0
            with Consumer(log, EVENTS, group=f"catch_{count}_{number}", stop="latest") as consumer:
                for batch in consumer:
                    seen += len(batch)
            if seen != rows:
                raise SystemExit(f"a group read {seen} of {rows} rows")

        _in_threads(count, read)
        took = time.perf_counter() - began
    report.figure(f"groups_{count}_catch_up_rows_per_s", round(rows * count / took))
    report.figure(f"groups_{count}_catch_up_cpu_s_per_group", meter.cpu_s / count)


def _follow(report: Report, path: Path, writer: Producer, commits: int) -> None:
    rows = [events(place * LIVE_ROWS, LIVE_ROWS) for place in range(commits)]
    for count in GROUPS:
        with open_log(path) as log:
            run = _Following(log, count, commits)
            with Meter(os.getpid()) as meter:
                began = time.perf_counter()
                published = run.publish(writer, rows)
                took = time.perf_counter() - began
        delays = [at - published[commit] for commit, at in run.seen]
        report.figure(f"groups_{count}_follow_p50_ms", percentile(delays, 0.5) * 1000)
        report.figure(f"groups_{count}_follow_p99_ms", percentile(delays, 0.99) * 1000)
        report.figure(f"groups_{count}_follow_cores", meter.cpu_s / took)


class _Following:
    """``count`` groups that wait at the newest commit, each in a thread, until they have seen ``commits`` more.

    ``seen``: the newest commit of each batch that anyone was handed, and when.
    """

    def __init__(self, log: Log, count: int, commits: int) -> None:
        self.log = log
        self.seen: list[tuple[int, float]] = []
        self._start = log.newest_commit()
        self._last = self._start + commits
        self._ready = threading.Barrier(count + 1, timeout=WAIT_S)
        self._pool = ThreadPoolExecutor(count)
        self._work = [self._pool.submit(self._follow, f"follow_{count}_{number}") for number in range(count)]
        with suppress(threading.BrokenBarrierError):  # a group that failed says why
            self._ready.wait()
            return
        for each in self._work:
            each.result()

    def publish(self, writer: Producer, rows: Sequence[pa.Table]) -> dict[int, float]:
        """When each commit was published; returns when every group has seen the last."""
        published: dict[int, float] = {}
        began = time.perf_counter()
        for place, table in enumerate(rows):
            time.sleep(max(0.0, began + place / COMMITS_PER_S - time.perf_counter()))
            number = writer.write({EVENTS: table}).number
            published[number] = time.perf_counter()
        for each in self._work:
            each.result(WAIT_S)
        self._pool.shutdown()
        return published

    def _follow(self, group: str) -> None:
        with Consumer(self.log, EVENTS, group=group, start=f"commit:{self._start}") as consumer:
            consumer.poll()
            self._ready.wait()
            reached = self._start
            while reached < self._last:
                batch = consumer.poll(timeout=1.0)
                if batch is not None:
                    reached = batch.arrow().column("_commit")[-1].as_py()
                    self.seen.append((reached, time.perf_counter()))


def _in_threads(count: int, work: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))
