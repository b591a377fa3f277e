"""The price of a durable commit beside its floor, and how many rows a second a producer gets in."""

from __future__ import annotations

import os
import sqlite3
import statistics
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from benchmarks.harness import Report, percentile
from benchmarks.log_data import EVENT_COLUMNS, EVENTS, Producer, alternate, events, ratio
from benchmarks.processes import Meter
from headwater.lake import open_lake
from headwater.log import Log, open_log
from headwater.schema import Schema
from headwater.storage import hot

COMMIT_ROWS = 1_000
COMMITS, QUICK_COMMITS = 1_000, 200
LARGE_ROWS, SEND_ROWS = 100_000, 10_000
ROWS, QUICK_ROWS = 10_000_000, 1_000_000
GOAL_P50_MS, GOAL_P99_MS = 5.0, 25.0


def measure(report: Report, folder: Path, quick: bool) -> None:
    """Latency of small commits through a transaction and a producer, and throughput of both."""
    with open_log(folder / "lake", create=True) as log:
        writer = Producer(log)
        writer.create(EVENTS, "event", Schema.of(EVENT_COLUMNS))
        _latency(report, log, writer, folder, QUICK_COMMITS if quick else COMMITS)
        _throughput(report, log, writer, QUICK_ROWS if quick else ROWS)


def _latency(report: Report, log: Log, writer: Producer, folder: Path, commits: int) -> None:
    rows = events(0, COMMIT_ROWS)
    with open_lake(log.folder) as lake, lake.producer(linger_ms=0) as producer, _Floor(folder, rows) as floor:

        def sent() -> None:
            producer.send(EVENTS, rows).result()

        work: dict[str, Callable[[], object]] = {
            "floor": floor.commit,
            "commit": lambda: writer.write({EVENTS: rows}),
            "producer": sent,
        }
        alternate(20, **work)
        seconds = alternate(commits, **work)
    report.figure("produce_commit_bytes", floor.size)
    report.figure("produce_floor_create_p50_ms", percentile(floor.creating, 0.5) * 1000)
    for name, values in seconds.items():
        middle, late = percentile(values, 0.5) * 1000, percentile(values, 0.99) * 1000
        if name == "floor":
            report.figure("produce_floor_p50_ms", middle)
            report.figure("produce_floor_p99_ms", late)
        else:
            report.goal(f"produce_{name}_p50_ms", middle, at_most=GOAL_P50_MS)
            report.goal(f"produce_{name}_p99_ms", late, at_most=GOAL_P99_MS)
            report.figure(f"produce_{name}_times_floor", ratio(values, seconds["floor"]))


class _Floor:
    """The same bytes and promises without a log: write, fsync, fsync of the folder, one row in SQLite."""

    def __init__(self, folder: Path, rows: pa.Table) -> None:
        self.folder = folder / "floor"
        self.folder.mkdir()
        self.data, _ = hot.encode(rows)
        self.size = self.data.nbytes
        self.creating: list[float] = []
        """Seconds of creating each file: after thousands of deletions ext4 takes ten times as long, for minutes."""
        self.catalog = sqlite3.connect(folder / "floor.sqlite", isolation_level=None)
        self.catalog.execute("PRAGMA journal_mode=WAL")
        self.catalog.execute("PRAGMA synchronous=FULL")
        self.catalog.execute("CREATE TABLE batch (path TEXT, length INTEGER)")

    def commit(self) -> None:
        path = self.folder / uuid.uuid4().hex
        began = time.perf_counter()
        with path.open("xb", buffering=0) as file:
            self.creating.append(time.perf_counter() - began)
            file.write(self.data)
            os.fsync(file.fileno())
        entry = os.open(self.folder, os.O_RDONLY)
        os.fsync(entry)
        os.close(entry)
        self.catalog.execute("BEGIN IMMEDIATE")
        self.catalog.execute("INSERT INTO batch VALUES (?, ?)", (path.name, self.size))
        self.catalog.execute("COMMIT")

    def __enter__(self) -> _Floor:
        return self

    def __exit__(self, *_: object) -> None:
        self.catalog.close()


def _throughput(report: Report, log: Log, writer: Producer, rows: int) -> None:
    large, small = events(0, LARGE_ROWS), events(0, SEND_ROWS)
    with open_lake(log.folder) as lake:

        def transactions() -> None:
            for _ in range(rows // LARGE_ROWS):
                writer.write({EVENTS: large})

        def sends() -> None:
            with lake.producer() as producer:
                for _ in range(rows // SEND_ROWS):
                    producer.send(EVENTS, small)

        for name, run in {"transaction": transactions, "producer": sends}.items():
            before, began = _bytes(log), time.perf_counter()
            with Meter(os.getpid()) as meter:
                run()
            took = time.perf_counter() - began
            report.figure(f"produce_{name}_rows_per_s", round(rows / took))
            report.figure(f"produce_{name}_mb_per_s", (_bytes(log) - before) / took / 1e6)
            report.figure(f"produce_{name}_cpu_s_per_m_rows", meter.cpu_s / rows * 1e6)
    batches = statistics.mean(commit.rows or 0 for commit in log.commits()[-10:])
    report.note(
        f"produce: transactions of {LARGE_ROWS:,} rows, sends of {SEND_ROWS:,} joined to {batches:,.0f} a commit"
    )


def _bytes(log: Log) -> int:
    """Data that commits have made durable so far."""
    return sum(file.stat().st_size for file in (log.folder / "data" / "hot").iterdir())
