"""A transaction of five million rows through three views, within a limit of 1 GB: time, memory, what readers see.

    python -m benchmarks.large_step [--quick] [--json] [--rows N] [--views NAME,NAME] [--limit-mb N]

One commit inserts ``rows`` rows into a table that has a fifth as many, the next one changes every one of them. Each is
one step of a pipeline that runs in a process of its own, which is measured: DuckDB holds to its limit, and what the
process needs beyond it (the program, records on their way in and out) is bounded by the goal. Meanwhile a reader asks
for a number of every view, in one answer, again and again: it may see what was before the step or what is after it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil

import headwater as hw
from benchmarks.harness import Report, parse, run, say
from benchmarks.processes import own_mb
from benchmarks.views import VIEWS, Source
from headwater.config import Settings
from headwater.log import Log, open_log
from headwater.ownership import own
from headwater_pipelines.api import create_view
from headwater_pipelines.runtime.publish import PRODUCER
from headwater_pipelines.runtime.worker import Worker

ROWS, QUICK_ROWS = 5_000_000, 1_000_000
APPENDED = 100_000
"""Rows of one batch of the commit: as a source spools them."""
BEYOND_MB = 300
"""What the process may hold beyond DuckDB's limit, in units of 10^6 bytes."""
SAMPLE_S = 0.05
TIMEOUT_S = 3_600.0


def main() -> int:
    options = parse("large_step", (__doc__ or "").split("\n", maxsplit=1)[0], _more)
    if options.child:
        print(json.dumps({"seconds": _pipeline(Path(options.child), options.limit_mb)}))
        return 0
    report = Report("large_step", quick=options.quick)
    rows = options.rows or (QUICK_ROWS if options.quick else ROWS)
    with tempfile.TemporaryDirectory() as folder:
        _measure(report, Path(folder), rows, options.views.split(","), options.limit_mb)
    return report.finish(as_json=options.json)


def _more(parser: argparse.ArgumentParser) -> None:
    default = Settings().pipeline_memory_bytes_max >> 20
    parser.add_argument("--rows", type=int, help="of the transaction (default 5 million)")
    parser.add_argument("--views", default="filter,aggregate,join2", help=f"of {', '.join(VIEWS)}")
    parser.add_argument("--limit-mb", type=int, default=default, help="DuckDB's memory limit, in MiB")
    parser.add_argument("--child", help=argparse.SUPPRESS)


def _measure(report: Report, folder: Path, rows: int, names: list[str], limit_mb: int) -> None:
    with open_log(folder / "lake", create=True) as log, own(log, "source:shop") as owner:
        source = Source(log, owner.epoch, rows, np.random.default_rng(1))
        say("loading, and filling the views")
        source.load(rows // 5)
        for name in names:
            create_view(log, VIEWS[name], name=f"{name}_view")
        _pipeline(folder, limit_mb)
        report.figure("rows", rows)
        for kind, op in (("insert", "c"), ("update", "u")):
            say(f"{kind}: a transaction of {rows:,} rows")
            source.commit_large(op, rows // 5, rows // 5 + rows, APPENDED)
            _step(report, folder, log, kind, names, limit_mb)


def _step(report: Report, folder: Path, log: Log, kind: str, names: list[str], limit_mb: int) -> None:
    command = [sys.executable, "-m", "benchmarks.large_step", "--child", str(folder), "--limit-mb", str(limit_mb)]
    before = log.last_step()
    with Reader(folder, names) as reader, Sampler() as sampler:
        cost = run(command, timeout=TIMEOUT_S, stdout=subprocess.PIPE)
    if cost.exit_code:
        raise SystemExit(f"{kind}: the pipeline failed")
    found = json.loads(cost.stdout)
    for name in names:
        view = log.view(f"{name}_view")
        if view.state != "live":
            report.note(f"{kind}: {view.name} is {view.state}: {view.reason}")
    after = log.last_step()
    assert before is not None
    assert after is not None
    say(f"{kind}: {found['seconds']:.0f} s")
    report.figure(f"{kind}_step_s", found["seconds"])
    report.figure(f"{kind}_cpu_s", cost.cpu_s)
    report.goal(f"{kind}_steps", after.number - before.number, at_least=1, at_most=1)
    report.goal(f"{kind}_live_views", sum(log.view(f"{n}_view").state == "live" for n in names), at_least=len(names))
    report.goal(f"{kind}_peak_mb", sampler.anonymous_mb, at_most=limit_mb * 1.048576 + BEYOND_MB)
    report.figure(f"{kind}_peak_mapped_included_mb", cost.peak_mb)
    report.figure(f"{kind}_reads", reader.reads)
    report.goal(f"{kind}_states_seen", len(reader.seen), at_most=2)
    report.goal(f"{kind}_differences", differences(folder, names), at_most=0)


def _pipeline(folder: Path, limit_mb: int) -> float:
    """One pipeline, until it has caught up; the seconds that took."""
    with open_log(folder / "lake") as log, own(log, PRODUCER) as owner:
        worker = Worker(log, owner.epoch, Settings(pipeline_memory_bytes_max=limit_mb << 20))
        try:
            began = time.perf_counter()
            worker.run(threading.Event(), log.newest_commit())
            return time.perf_counter() - began
        finally:
            worker.close()


def differences(folder: Path, names: Sequence[str]) -> int:
    """Rows in which views and what DuckDB makes of their SQL differ, at one position."""
    found = 0
    with hw.open(folder / "lake") as lake:
        for name in names:
            one, other = f"(FROM {name}_view)", f"({VIEWS[name]})"
            counts = (f"(SELECT count(*) FROM ({a} EXCEPT ALL {b}))" for a, b in ((one, other), (other, one)))
            found += int(lake.sql(f"SELECT {' + '.join(counts)} AS n").pl()["n"][0])
    return found


class Reader:
    """Reads one number of every view, at one position, until the block ends; ``seen`` are the different answers."""

    def __init__(self, folder: Path, names: Sequence[str], pause_s: float = 0.5) -> None:
        self.folder = folder
        self.pause_s = pause_s
        self.query = "SELECT " + ", ".join(f"(SELECT sum(hash(v)) FROM {name}_view v) AS {name}" for name in names)
        self.seen: set[str] = set()
        self.reads = 0
        self._done = threading.Event()
        self._answered = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Reader:
        self._thread.start()
        self.wait()
        return self

    def wait(self) -> None:
        """Until it has asked and read once more."""
        with self._answered:
            enough = self.reads + 2  # the first of them may have been asked before
            self._answered.wait_for(lambda: self.reads >= enough or not self._thread.is_alive(), timeout=60)

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        with hw.open(self.folder / "lake") as lake:
            while not self._done.wait(self.pause_s):
                self.seen.add(str(lake.sql(self.query).pl().rows()))
                with self._answered:
                    self.reads += 1
                    self._answered.notify_all()


class Sampler:
    """The highest resident memory without mapped files that a child of this process had, in the block."""

    def __init__(self) -> None:
        self.anonymous_mb = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(SAMPLE_S):
            for child in psutil.Process().children():
                with suppress(psutil.NoSuchProcess):
                    self.anonymous_mb = max(self.anonymous_mb, own_mb(child.pid))


if __name__ == "__main__":
    sys.exit(main())
