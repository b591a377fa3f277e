"""TPC-H: what a step of each of the 22 queries, as a view, costs beside running the query again.

    python -m benchmarks.tpch [--quick] [--json] [--scale F] [--only q01 q05 ...] [--folder DIR] [--write PAGE]

The tables of ``tpchgen-cli`` are written to a log once, and so are the changes: commits of 0.1 %, 1 % and 10 % of the
orders, of their line items (a third each new, deleted and updated: RF1, RF2 and updates) and of partsupp. For each
query a process of its own takes a copy of that lake and fills the view; then the worker takes one commit a step. A step
is all of it: reading the log, the tables that the view reads, the view's delta, its state, commit, publishing. ``all``
is one pipeline with all 22 views, which share their tables. At the end each view is compared with its query.

A recomputation is DuckDB running the query over the same tables, which lie in a DuckDB file and are never read from the
log nor kept; with as many threads as the pipeline has. Best of three, and medians of the steps of a size. Both in CPU
time as well, which other work on the machine disturbs less. Memory is what no file stands behind, at its highest.

``--write docs/views.md`` puts the table into the page, in the place of the one before of the same scale factor.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from benchmarks.harness import Report, markdown, parse, require_block, say, write_block
from benchmarks.log_data import Producer
from benchmarks.tpch_data import Changes, Trade, generate
from benchmarks.tpch_queries import QUERIES, TABLES
from headwater.config import Settings
from headwater.log import Log, open_log
from headwater.ownership import own
from headwater_pipelines.api import create_view
from headwater_pipelines.compiler.explain import CLASSES, explain
from headwater_pipelines.runtime.publish import PRODUCER
from headwater_pipelines.runtime.worker import Worker

SCALE, QUICK_SCALE = 1.0, 0.01
QUICK = ("q01", "q05", "q18")
STEPS = {0.001: 5, 0.01: 3, 0.1: 2}
"""Commits of each share of the rows, timed; one of each size comes before them."""
ALL = "all"
THREADS = max(1, (os.cpu_count() or 1) // 2)
"""Of the pipeline's DuckDB, and of the recomputation."""


@dataclass(frozen=True)
class Time:
    wall_ms: float
    cpu_ms: float


class Watch:
    """``time`` since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    @property
    def time(self) -> Time:
        return Time((time.perf_counter() - self._wall) * 1e3, (time.process_time() - self._cpu) * 1e3)


@dataclass(frozen=True)
class Run:
    """What one pipeline took. ``steps``: by share; ``rows``: the views' contents by name."""

    nodes: str
    """Each with its class."""
    fill_s: float
    fill_cpu_s: float
    steps: Mapping[float, Sequence[Time]]
    peak_mb: float
    stored_mb: float
    rows: Mapping[str, pa.Table]

    def step(self, share: float) -> Time:
        times = self.steps[share]
        return Time(*(statistics.median(getattr(each, kind) for each in times) for kind in ("wall_ms", "cpu_ms")))


def main() -> int:
    options = parse("tpch", (__doc__ or "").split("\n", maxsplit=1)[0], _more)
    scale = options.scale or (QUICK_SCALE if options.quick else SCALE)
    names = options.only or (QUICK if options.quick else [*QUERIES, ALL])
    report, runs, again = Report("tpch", quick=options.quick), dict[str, Run](), dict[str, Time]()
    block = f"benchmarks.tpch --scale {scale:g}"
    if options.write:
        require_block(options.write, block)
    with tempfile.TemporaryDirectory(prefix="headwater-tpch-", dir=options.folder) as made:
        folder = Path(made)
        say(f"scale factor {scale:g}: making the tables")
        generate(folder, scale)
        trade = Trade(folder, database=folder / "tables.duckdb")
        trade.connection.execute(f"SET threads = {THREADS}")
        rows = sum(map(trade.count, TABLES))
        for name, query in QUERIES.items():
            again[name] = recompute(trade, query)
        again[ALL] = Time(*(sum(getattr(each, kind) for each in again.values()) for kind in ("wall_ms", "cpu_ms")))
        shares = write(trade, folder)
        for name in names:
            runs[name] = apart(folder, name, shares)
            differences = sum(trade.differences(QUERIES[each], rows) for each, rows in runs[name].rows.items())
            record(report, name, runs[name], again[name], differences)
        trade.connection.close()
    if not options.json:
        show(runs, again)
    if options.write:
        write_block(options.write, block, _page(scale, rows, runs, again))
    return report.finish(as_json=options.json)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scale", type=float, help=f"scale factor ({SCALE:g}; quick {QUICK_SCALE:g})")
    parser.add_argument("--only", nargs="+", choices=[*QUERIES, ALL], help="measure only these")
    parser.add_argument("--write", type=Path, help="the page whose table of this scale factor is to be replaced")
    parser.add_argument("--folder", type=Path, help="where the lakes are written (default: the temporary folder)")


def recompute(trade: Trade, query: str) -> Time:
    """The quickest of three runs of a query over the tables as they stand."""
    found = []
    for _ in range(3):
        watch = Watch()
        trade.connection.sql(query).to_arrow_table()
        found.append(watch.time)
    return min(found, key=lambda each: each.cpu_ms)


# ---- the log


def write(trade: Trade, folder: Path) -> list[float]:
    """The tables into a lake, and their changes into files; the shares of these, in order."""
    with open_log(folder / "lake", create=True) as log:
        producer = Producer(log, "tpch")
        for name, schema in TABLES.items():
            producer.create(f"tpch.{name}", "table", schema)
        for rows in trade.copy():
            append(producer, rows)
    # One of each size first: a first step makes indexes that the following ones find.
    shares = [*STEPS, *(share for share, steps in STEPS.items() for _ in range(steps))]
    for number, share in enumerate(shares):
        say(f"changes of {share:.1%}")
        for name, table in trade.change(share).items():
            with pa.OSFile(str(_file(folder, number, name)), "wb") as sink, pa.ipc.new_file(sink, table.schema) as file:
                file.write_table(table)
    return shares


def append(producer: Producer, changes: Changes) -> None:
    producer.write({f"tpch.{name}": table for name, table in changes.items()})


def _file(folder: Path, number: int, name: str) -> Path:
    return folder / f"{number}-{name}.arrow"


def _changes(folder: Path, number: int) -> Changes:
    paths = {name: _file(folder, number, name) for name in TABLES}
    return {name: pa.ipc.open_file(str(path)).read_all() for name, path in paths.items() if path.exists()}


# ---- one pipeline


def apart(folder: Path, name: str, shares: Sequence[float]) -> Run:
    """``measure`` in a process of its own: what it holds at most is then of this pipeline alone."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, folder, name, shares).result()


def measure(folder: Path, name: str, shares: Sequence[float]) -> Run:
    """Fill the views over a copy of the lake, and take the changes in."""
    queries = QUERIES if name == ALL else {name: QUERIES[name]}
    lake = folder / "copy"
    shutil.copytree(folder / "lake", lake)
    try:
        with open_log(lake) as log:
            producer = Producer(log, "tpch")
            for view, sql in queries.items():
                create_view(log, sql, name=view)
            with own(log, PRODUCER) as owner:
                worker = Worker(log, owner.epoch, Settings())
                try:
                    return _measured(worker, producer, folder, shares)
                finally:
                    worker.close()
    finally:
        shutil.rmtree(lake)


def _measured(worker: Worker, producer: Producer, folder: Path, shares: Sequence[float]) -> Run:
    log = worker.log
    steps: dict[float, list[Time]] = {share: [] for share in STEPS}
    with Memory() as memory:
        watch = Watch()
        worker.run(threading.Event(), log.newest_commit())
        fill = watch.time
        _require_live(log)
        for number, share in enumerate(shares):
            append(producer, _changes(folder, number))
            watch = Watch()
            if worker.advance() is None:
                raise RuntimeError("a step took nothing in")
            steps[share].append(watch.time)
    _require_live(log)
    relations = worker.engine.state.relations.values()
    return Run(
        _nodes(worker),
        fill.wall_ms / 1e3,
        fill.cpu_ms / 1e3,
        {share: times[1:] for share, times in steps.items()},
        memory.peak_mb,
        sum(run.bytes for each in relations for run in each.runs) / 1e6,
        dict(_contents(worker)),
    )


def _require_live(log: Log) -> None:
    for view in log.views():
        if view.state != "live":
            raise RuntimeError(f"{view.name} is {view.state}: {view.reason}")


def _nodes(worker: Worker) -> str:
    """The nodes of a view with their classes as ``view explain`` names them, output first, and how many are linear.

    Of several views, how many there are of each class.
    """
    views = [explain(view).nodes for view in worker.engine.program.views.values()]
    nodes = [node for each in views for node in each]
    linear = Counter(node.operator for node in nodes if node.maintenance == "linear")
    rest = f"linear: {', '.join(f'{count} {operator}' for operator, count in linear.most_common())}"
    if len(views) == 1:
        kept = ", ".join(f"{node.operator} {node.maintenance}" for node in nodes if node.maintenance != "linear")
    else:
        counts = Counter(node.maintenance for node in nodes)
        kept, rest = ", ".join(f"{counts[kind]} {kind}" for kind in CLASSES[1:]), f"{counts['linear']} linear"
    return "; ".join(part for part in (kept, rest) if part)


def _contents(worker: Worker) -> Iterable[tuple[str, pa.Table]]:
    program, state = worker.engine.program, worker.engine.state
    for number, view in program.views.items():
        copies = f"({program.contents(number)}) AS v, range(v._weight) AS copies(i)"
        yield view.name, state.query(f"SELECT v.* EXCLUDE (_weight) FROM {copies}")


class Memory:
    """The most that this process holds while the block runs; where the system does not say, nothing."""

    def __init__(self) -> None:
        self.peak_mb = float("nan")
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="memory")

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(0.05) and Path("/proc/self/status").exists():
            lines = Path("/proc/self/status").read_text().splitlines()
            now = next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("RssAnon:"))
            self.peak_mb = max(now, self.peak_mb if self.peak_mb == self.peak_mb else 0.0)


# ---- the figures


def record(report: Report, name: str, run: Run, again: Time, differences: int) -> None:
    report.figure(f"{name}_nodes", run.nodes)
    report.figure(f"{name}_fill_s", run.fill_s)
    report.figure(f"{name}_fill_cpu_s", run.fill_cpu_s)
    for share in STEPS:
        word = f"{share * 100:g}".replace(".", "_")
        report.figure(f"{name}_step_{word}_percent_ms", run.step(share).wall_ms)
        report.figure(f"{name}_step_{word}_percent_cpu_ms", run.step(share).cpu_ms)
    report.figure(f"{name}_recompute_ms", again.wall_ms)
    report.figure(f"{name}_recompute_cpu_ms", again.cpu_ms)
    report.figure(f"{name}_recompute_by_step_0_1_percent", again.cpu_ms / run.step(0.001).cpu_ms)
    report.figure(f"{name}_peak_mb", run.peak_mb)
    report.figure(f"{name}_stored_mb", run.stored_mb)
    report.goal(f"{name}_differing_rows", differences, at_most=0)
    say(f"{name}: " + ", ".join(_shown(run, again)))


def _shown(run: Run, again: Time) -> list[str]:
    """Nodes, fill, steps of each size, recomputation, memory."""
    steps = [f"{run.step(share).cpu_ms:,.0f}" for share in STEPS]
    return [run.nodes, *steps, f"{again.cpu_ms:,.0f}", f"{run.fill_cpu_s:.1f}", f"{run.peak_mb:,.0f}"]


HEADS = ("query", "nodes", *(f"{share * 100:g} %" for share in STEPS), "again", "fill, s", "memory, MB")


def show(runs: Mapping[str, Run], again: Mapping[str, Time]) -> None:
    table = Table(title="milliseconds of CPU", title_justify="left")
    for word in HEADS:
        table.add_column(word, justify="left" if word in ("query", "nodes") else "right")
    for name, run in runs.items():
        table.add_row(name, *_shown(run, again[name]))
    Console().print(table)


def _page(scale: float, rows: int, runs: Mapping[str, Run], again: Mapping[str, Time]) -> str:
    lines = [[name, *_shown(run, again[name])] for name, run in runs.items()]
    return f"Scale factor {scale:g}, {rows:,} rows:\n\n{markdown(HEADS, lines)}"


if __name__ == "__main__":
    sys.exit(main())
