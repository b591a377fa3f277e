"""One topic behind a full hot tier: as many commits and bytes as sealing lets stand, most of them other topics'."""

from __future__ import annotations

import statistics
from pathlib import Path

from benchmarks.harness import Report
from benchmarks.log_data import EVENT_COLUMNS, Producer, alternate, events, limits
from headwater.lake import open_lake
from headwater.log import open_log, seal
from headwater.schema import Schema

TOPICS = 10
REPEAT, QUICK_REPEAT = 15, 5
GOAL_MS = 60.0


def measure(report: Report, folder: Path, quick: bool) -> None:
    """Every commit is one file with a batch of each topic; a new reader opens, and one that is open reads again."""
    settings = limits()
    names = [f"shop.sales.orders_{number}" for number in range(TOPICS)]
    rows = settings.seal_bytes // settings.seal_commits // TOPICS // 80
    with open_log(folder / "lake", create=True) as log:
        writer = Producer(log)
        for name in names:
            writer.create(name, "event", Schema.of(EVENT_COLUMNS))
        for commit in range(settings.seal_commits):
            writer.write({name: events(commit * rows, rows) for name in names})
        waiting = seal.hot(log)
    query = "SELECT count(*), sum(amount), max(id) FROM orders_3"
    with open_lake(folder / "lake") as lake:

        def opened() -> None:
            with open_lake(folder / "lake") as other:
                other.sql(query)

        run = {"open": opened, "again": lambda: lake.sql(query)}
        alternate(1, **run)
        seconds = alternate(QUICK_REPEAT if quick else REPEAT, **run)
    report.figure("hot_commits", waiting.commits)
    report.figure("hot_mb", waiting.bytes / 1e6)
    report.goal("hot_read_ms", statistics.median(seconds["again"]) * 1000, at_most=GOAL_MS)
    report.figure("hot_open_and_read_ms", statistics.median(seconds["open"]) * 1000)
