"""Replays: how fast a view is made anew, beside DuckDB that runs its SQL once, and what the live worker feels of it.

    python -m benchmarks.replay [--quick] [--json] [--rows N]

The tables of ``benchmarks.views``, committed over a day, sealed. For a filter, an aggregate and a join, in turn: the
replay from the beginning of the log (the rows of its file are there), and DuckDB that runs the same SQL over the same
Parquet files of change records, into a Parquet file. The records of both are the same, so the ratio is that of their
times. The comparison with the live view comes on top and is a figure of its own. Then all 24 hours as one backfill in
Dagster, and the time from a commit to its published step while a process replays again and again, against before.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np

from benchmarks.harness import Report, parse, percentile, say
from benchmarks.views import VIEWS, Source
from headwater import maintenance
from headwater.catalog.records import to_micros
from headwater.config import Settings, load
from headwater.log import Log, open_log, read
from headwater.ownership import own
from headwater_pipelines.api import create_view
from headwater_pipelines.replay import replay
from headwater_pipelines.runtime import worker

ROWS, QUICK_ROWS = 5_000_000, 500_000
NAMES = ("filter", "aggregate", "join2")
HOURS, REPEATS = 24, 3
UPDATES_AN_HOUR = 20
LIVE_S, QUICK_LIVE_S = 20.0, 6.0
EVERY_S = 0.1
GOAL_OF_DUCKDB = 0.7
GOAL_LIVE = 2.0
BEGAN = datetime(2026, 1, 5, tzinfo=UTC)


class Hours:
    """A clock of which the benchmark turns the hands; then it goes by itself."""

    def __init__(self) -> None:
        self.at: datetime | None = BEGAN
        self._ticks = 0

    def now_us(self) -> int:
        self._ticks += 1
        return to_micros(self.at) + self._ticks if self.at is not None else time.time_ns() // 1000


def main() -> int:
    options = parse("replay", (__doc__ or "").split("\n", maxsplit=1)[0], _more)
    rows = options.rows or (QUICK_ROWS if options.quick else ROWS)
    report = Report("replay", quick=options.quick)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "headwater.toml").write_text('[project]\nname = "replay"\n')
        settings = load(root).settings
        clock = Hours()
        with open_log(root / "lake", create=True, clock=clock) as log, own(log, "source:shop") as owner:
            source = Source(log, owner.epoch, rows, np.random.default_rng(1))
            _fill(log, source, clock, settings)
            for name in NAMES:
                _rate(report, log, root, name)
            _backfill(report, root)
            _live(report, log, root, source, QUICK_LIVE_S if options.quick else LIVE_S)
    return report.finish(as_json=options.json)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, help=f"of the fact table ({ROWS:,}; quick {QUICK_ROWS:,})")


def _fill(log: Log, source: Source, clock: Hours, settings: Settings) -> None:
    """The tables in the first hour, some updates in each, the views after each, all of it sealed."""
    say(f"writing {source.rows:,} rows and a day of updates")
    source.load()
    maintenance.run_once(log, settings, force=True)
    for name in NAMES:
        create_view(log, VIEWS[name], name=name)
    for hour in range(HOURS):
        clock.at = BEGAN + timedelta(hours=hour, minutes=30)
        for _ in range(UPDATES_AN_HOUR):
            source.update("uniform")
        worker.run(log, settings, threading.Event(), until_caught_up=True)
    clock.at = None
    maintenance.run_once(log, settings, force=True)


def _rate(report: Report, log: Log, root: Path, name: str) -> None:
    """The replay and DuckDB, one after the other, the best of some times each."""
    wanted = replay.plan(log, name, 0, log.newest_commit())
    settings = load(root).settings
    ours, peers, compared = [], [], []
    for _ in range(REPEATS):
        began = time.perf_counter()
        done = replay.replay(log, wanted, settings, lambda _: None)
        compared.append(time.perf_counter() - began - done.seconds)
        assert done.comparison.is_same, done.comparison
        ours.append(done.seconds)
        peers.append(_duckdb(log, root, name))
    records = sum(_plan(log, table).rows for table in ("fact", "dim") if table in VIEWS[name])
    report.figure(f"{name}_rows_per_s", records / min(ours))
    report.figure(f"{name}_duckdb_rows_per_s", records / min(peers))
    report.figure(f"{name}_compare_s", min(compared))
    report.goal(f"{name}_by_duckdb", min(peers) / min(ours), at_least=GOAL_OF_DUCKDB)


def _plan(log: Log, table: str) -> read.Plan:
    return read.plan(log, log.topic(f"shop.public.{table}"), 0, log.newest_commit())


def _duckdb(log: Log, root: Path, name: str) -> float:
    """DuckDB, opened anew, over the files of the records, into a file."""
    began = time.perf_counter()
    with duckdb.connect() as own_duckdb:
        for table in ("fact", "dim"):
            paths = [str(log.storage.path(each.path)) for each in _plan(log, table).segments]
            own_duckdb.execute(f"CREATE VIEW {table} AS FROM read_parquet({paths})")
        own_duckdb.execute(f"COPY ({VIEWS[name]}) TO '{root / 'peer.parquet'}' (FORMAT parquet)")
    return time.perf_counter() - began


def _backfill(report: Report, root: Path) -> None:
    """All hours of a view in one run of Dagster's."""
    import dagster as dg

    from headwater_dagster import build_definitions

    asset = build_definitions(root).resolve_assets_def(dg.AssetKey(["replay", "aggregate"]))
    first, last = (BEGAN + timedelta(hours=hour) for hour in (0, HOURS - 1))
    chosen = {
        "dagster/asset_partition_range_start": first.strftime("%Y-%m-%d-%H:%M"),
        "dagster/asset_partition_range_end": last.strftime("%Y-%m-%d-%H:%M"),
    }
    say(f"{HOURS} hours as one backfill")
    with dg.DagsterInstance.ephemeral() as instance:
        began = time.perf_counter()
        done = dg.materialize([asset], instance=instance, tags=chosen)
        report.figure("backfill_24_hours_s", time.perf_counter() - began)
        events = done.get_asset_materialization_events()
    report.goal("backfill_hours", len(events), at_least=HOURS)


def _live(report: Report, log: Log, root: Path, source: Source, seconds: float) -> None:
    """From a commit of 1,000 rows to its published step, without a replay and beside one."""
    argv = [sys.executable, "-m", "headwater.cli", "views", "--project", str(root)]
    with _running(argv):
        _latencies(log, source, 5.0)
        before = _latencies(log, source, seconds)
        say("replays beside the live worker")
        again = f"while {sys.executable} -m headwater.cli replay join2 --from 0 --project {root}; do :; done"
        with _running(["bash", "-c", again]):
            during = _latencies(log, source, seconds)
    for label, found in (("before", before), ("during", during)):
        report.figure(f"live_{label}_p50_ms", percentile(found, 0.5))
        report.figure(f"live_{label}_p95_ms", percentile(found, 0.95))
    report.goal("live_p95_by_before", percentile(during, 0.95) / percentile(before, 0.95), at_most=GOAL_LIVE)


@contextmanager
def _running(argv: list[str]) -> Iterator[None]:
    """A process with all of its children, ended at the end; it must not end before."""
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
        if process.poll() is not None:
            raise SystemExit(f"{' '.join(argv)} has ended")
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _latencies(log: Log, source: Source, seconds: float) -> list[float]:
    found, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        source.update("uniform")
        began, commit = time.perf_counter(), log.newest_commit()
        while (step := log.last_step()) is None or step.input_commit < commit:
            time.sleep(0.001)
        found.append((time.perf_counter() - began) * 1e3)
        time.sleep(EVERY_S)
    return found


if __name__ == "__main__":
    sys.exit(main())
