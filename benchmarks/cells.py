"""Showing the result of a query over many rows, beside fetching all of them; and how long an interrupt takes.

Each is done in a process of its own, whose peak memory is compared with one that only opens the lake.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.harness import Report, parse, run, say
from benchmarks.log_data import TABLE, TABLE_COLUMNS, Producer, limits
from benchmarks.log_table import write_keys
from headwater.lake import Lake, open_lake
from headwater.log import base, open_log
from headwater.schema import Schema

ROWS, QUICK_ROWS = 10_000_000, 1_000_000
INTERRUPTS, QUICK_INTERRUPTS = 20, 5
GOAL_BY_FETCHED, GOAL_MB, GOAL_INTERRUPT_S = 0.2, 250.0, 1.0
QUERY = "SELECT * FROM accounts"
ENDLESS = "SELECT a.i FROM range(100000) a(i), range(1000000) b(i) WHERE (a.i * b.i + b.i) % 999999937 = 3"
PARTS: dict[str, Callable[[Lake], object]] = {
    "opened": lambda lake: lake.sql("SELECT 1"),
    "shown": lambda lake: lake.sql(QUERY)._repr_html_(),
    "shown_filtered": lambda lake: lake.sql(f"{QUERY} WHERE visits > 1")._repr_html_(),
    "shown_sorted": lambda lake: lake.sql(f"{QUERY} ORDER BY balance DESC")._repr_html_(),
    "fetched": lambda lake: lake.sql(QUERY).arrow(),
    "fetched_at_once": lambda lake: lake.sql(QUERY, whole=True).arrow(),
}
TIMES = 3


def main() -> int:
    options = parse("cells", "showing large results, and interrupting queries", _more)
    if options.part:
        return _part(options.part, Path(options.lake))
    report = Report("cells", quick=options.quick)
    rows = QUICK_ROWS if options.quick else ROWS
    with tempfile.TemporaryDirectory() as folder:
        lake = Path(folder) / "lake"
        say(f"writing {rows:,} rows")
        with open_log(lake, create=True) as log:
            writer = Producer(log)
            writer.create(TABLE, "table", Schema.of(TABLE_COLUMNS, key=["id"]))
            write_keys(log, writer, rows)
            base.write(log, log.topic(TABLE), log.newest_commit(), limits())
        report.figure("rows", rows)
        memory, seconds = {}, {}
        for part in PARTS:
            argv = [sys.executable, "-m", "benchmarks.cells", "--part", part, "--lake", str(lake)]
            cost = run(argv, timeout=600)
            said = json.loads(cost.stdout)
            memory[part] = cost.peak_mb
            report.figure(f"{part}_first_s", said[0])
            seconds[part] = median(said[1:])
            report.figure(f"{part}_s", seconds[part])
            report.figure(f"{part}_more_mb", cost.peak_mb - memory["opened"])
        by_fetched = seconds["shown"] / seconds["fetched_at_once"]
        if options.quick:
            report.figure("shown_by_fetched", by_fetched)  # of so few rows a good part is shown
        else:
            report.goal("shown_by_fetched", by_fetched, at_most=GOAL_BY_FETCHED)
        report.goal("shown_held_mb", memory["shown"] - memory["opened"], at_most=GOAL_MB)
        _interrupts(report, lake, QUICK_INTERRUPTS if options.quick else INTERRUPTS)
    return report.finish(as_json=options.json)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--lake", help=argparse.SUPPRESS)


def _part(name: str, folder: Path) -> int:
    """The seconds of each time, as JSON; what it gave is dropped before the next."""
    with open_lake(folder) as lake:
        taken = []
        for _ in range(TIMES):
            began = time.perf_counter()
            PARTS[name](lake)
            taken.append(time.perf_counter() - began)
    print(json.dumps(taken))
    return 0


def _interrupts(report: Report, folder: Path, times: int) -> None:
    """From the signal to the KeyboardInterrupt, with the lake usable behind it."""
    say("interrupting")
    queries = {"endless": ENDLESS, "sort": f"{QUERY} ORDER BY balance, city, id DESC LIMIT 100000000"}
    worst = 0.0
    with open_lake(folder) as lake:
        lake.sql(QUERY)
        for name, query in queries.items():
            taken = []
            for _ in range(times):
                sent: list[float] = []
                timer = threading.Timer(0.2, _send, (sent,))
                timer.start()
                try:
                    lake.sql(query)
                    timer.join()
                    threading.Event().wait(1)
                except KeyboardInterrupt:
                    taken.append(time.perf_counter() - sent[0])
                assert lake.sql("SELECT 7").scalar() == 7
            report.figure(f"interrupt_{name}_p50_s", median(taken))
            worst = max(worst, *taken)
    report.goal("interrupt_worst_s", worst, at_most=GOAL_INTERRUPT_S)


def _send(sent: list[float]) -> None:
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
