"""What renewing the lease costs the views: time from a commit to its published step, beside Dagster and without it.

    python -m benchmarks.leases [--quick] [--json] [--renewals N] [--lease S] [--rows N]

A source commits every 100 ms over three views; one worker takes it in all the time. First without Dagster, then with
a daemon whose leases last 20 s (as a rule 10 minutes), until so many have been renewed, then without it again. A
renewal is from a second before the end of a lease to three seconds after the next one's run is at work: in it a code
server starts a process, which imports Dagster. Steady is what lies between the renewals. Against it are held the whole
time from the first renewal to the end of the last, and, harder, the renewals alone; and hardest, the whole time against
what was without Dagster.
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
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.harness import Report, parse, percentile, say
from benchmarks.views import VIEWS, Source
from headwater.config import Project, load
from headwater.log import open_log
from headwater.ownership import own
from headwater_dagster import instance, lease, worker
from headwater_dagster.location import LEASE_VARIABLE
from headwater_pipelines.api import create_view

ROWS, QUICK_ROWS = 200_000, 20_000
NAMES = ("filter", "aggregate", "join2")
LEASE_S, QUICK_LEASE_S = 20.0, 5.0
RENEWALS, QUICK_RENEWALS = 3, 1
ALONE_S, QUICK_ALONE_S = 30.0, 3.0
WARM_S = 3.0
EVERY_S = 0.1
BEFORE_S, AFTER_S = 1.0, 3.0
"""A renewal begins so long before a lease ends, and lasts so long once the next one is at work."""
LOST_S = 180.0
GOAL = 1.2

Sample = tuple[float, float]
"""When a commit was made, and how many ms later its step was published."""


def main() -> int:
    options = parse("leases", (__doc__ or "").split("\n", maxsplit=1)[0], _more)
    report = Report("leases", quick=options.quick)
    renewals = options.renewals or (QUICK_RENEWALS if options.quick else RENEWALS)
    rows = options.rows or (QUICK_ROWS if options.quick else ROWS)
    alone_s = QUICK_ALONE_S if options.quick else ALONE_S
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "headwater.toml").write_text('[project]\nname = "leases"\n')
        project = load(root)
        with _site(project, rows) as samples:
            time.sleep(WARM_S)
            began = time.time()
            time.sleep(alone_s)
            alone = [(began, time.time())]
            say(f"Dagster, until {renewals} leases have been renewed")
            with _daemon(project, options.lease or (QUICK_LEASE_S if options.quick else LEASE_S)) as daemon:
                runs = _runs(project, renewals, daemon)
            began = time.time()
            time.sleep(alone_s)
            alone.append((began, time.time()))
        _report(report, samples, alone, runs)
    return report.finish(as_json=options.json)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lease", type=float, help=f"seconds that one lasts ({LEASE_S:g}; quick {QUICK_LEASE_S:g})")
    parser.add_argument("--renewals", type=int, help=f"of the lease ({RENEWALS}; quick {QUICK_RENEWALS})")
    parser.add_argument("--rows", type=int, help=f"of the fact table ({ROWS:,}; quick {QUICK_ROWS:,})")


@contextmanager
def _site(project: Project, rows: int) -> Iterator[list[Sample]]:
    """The lake, a worker that is at work, and a source that commits; what it measures comes into the list."""
    samples, stop = list[Sample](), threading.Event()
    with (
        open_log(project.lake_dir, create=True) as log,
        own(log, "source:shop") as owner,
        ThreadPoolExecutor(1) as pool,
    ):
        source = Source(log, owner.epoch, rows, np.random.default_rng(1))
        say(f"writing {rows:,} rows")
        source.load()
        for name in NAMES:
            create_view(log, VIEWS[name], name=name)
        found, _ = worker.ensure(project, log, starter="benchmark")
        while not lease.caught_up(log, log.newest_commit()):
            time.sleep(EVERY_S)
        measured = pool.submit(_measure, source, samples, stop)
        try:
            yield samples
            if (now := worker.find(log)) is None or now.pid != found.pid:
                raise SystemExit("the worker has ended: the figures are not those of renewals")
        finally:
            stop.set()
            measured.result()
            worker.stop(log)


def _measure(source: Source, samples: list[Sample], stop: threading.Event) -> None:
    log, due = source.log, time.monotonic()
    while not stop.is_set():
        source.update("uniform")
        at, began, commit = time.time(), time.perf_counter(), log.newest_commit()
        while ((step := log.last_step()) is None or step.input_commit < commit) and not stop.is_set():
            time.sleep(0.001)
        samples.append((at, (time.perf_counter() - began) * 1e3))
        due = max(due + EVERY_S, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


@contextmanager
def _daemon(project: Project, seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    """Dagster's code server and daemon, which is given; both have ended at the end."""
    code, _, daemon = instance.processes(project)
    instance.create_databases(project)
    environment = {**os.environ, **instance.environment(project), LEASE_VARIABLE: str(seconds)}
    with ExitStack() as stack:
        yield [stack.enter_context(_running(argv, environment, project)) for argv in (code, daemon)][-1]
        with open_log(project.lake_dir) as log:
            log.set_setting(worker.STOPPING, "benchmark")  # the lease that is held ends, and brings no worker back


@contextmanager
def _running(argv: list[str], environment: dict[str, str], project: Project) -> Iterator[subprocess.Popen[bytes]]:
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        argv, env=environment, cwd=project.root, stdout=quiet, stderr=quiet, start_new_session=True
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _runs(project: Project, renewals: int, daemon: subprocess.Popen[bytes]) -> list[Sample]:
    """Wait for one lease more than the renewals; of each its begin and its end."""
    import dagster as dg

    end = time.monotonic() + LOST_S * (renewals + 1)
    os.environ |= instance.environment(project)
    with dg.DagsterInstance.get() as own_instance:
        while time.monotonic() < end and daemon.poll() is None:
            records = own_instance.get_run_records(dg.RunsFilter(tags={lease.TAG: lease.NAME}), ascending=True)
            if any(record.dagster_run.status == dg.DagsterRunStatus.FAILURE for record in records):
                raise SystemExit("a lease has failed")
            begun = [(record.start_time, record.end_time) for record in records if record.start_time]
            if len(begun) > renewals and time.time() > begun[renewals][0] + AFTER_S:
                return [(began, ended or float("inf")) for began, ended in begun[: renewals + 1]]
            time.sleep(EVERY_S)
    raise SystemExit("the leases have not been renewed: is the machine too busy, or the daemon gone?")


def _report(report: Report, samples: Sequence[Sample], alone: Sequence[Sample], runs: Sequence[Sample]) -> None:
    renewed = [(a[1] - BEFORE_S, b[0] + AFTER_S) for a, b in pairwise(runs)]
    between = [(a[0] + AFTER_S, a[1] - BEFORE_S) for a in runs[:-1]]
    whole = [(renewed[0][0], renewed[-1][1])]
    p95 = {}
    for label, spans in (("alone", alone), ("between", between), ("renewing", renewed), ("whole", whole)):
        found = [took for at, took in samples if any(begin <= at <= end for begin, end in spans)]
        report.figure(f"{label}_commits", len(found))
        report.figure(f"{label}_p50_ms", percentile(found, 0.5))
        p95[label] = percentile(found, 0.95)
        report.figure(f"{label}_p95_ms", p95[label])
    report.figure("renewal_s", sum(end - begin for begin, end in renewed) / len(renewed))
    report.figure("renewing_by_alone", p95["renewing"] / p95["alone"])
    report.goal("whole_by_between", p95["whole"] / p95["between"], at_most=GOAL)
    report.goal("renewing_by_between", p95["renewing"] / p95["between"], at_most=GOAL)
    report.goal("whole_by_alone", p95["whole"] / p95["alone"], at_most=GOAL)


if __name__ == "__main__":
    sys.exit(main())
