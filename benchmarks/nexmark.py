"""Nexmark: how many events a second each of its queries takes in, as a view of its own, from the log to its changelog.

    python -m benchmarks.nexmark [--quick] [--json] [--only q0 q5 ...] [--events N]

A lake is made for each query, and its view is filled while there are no events; these are then written to the log,
50,000 in a commit, and the pipeline's worker takes them in, in steps of its own size: reading the log, the view's
delta, its state, and publishing are measured, writing the events is not. All events count, as in the published figures;
topics that a query does not read cost it nothing, which is so for 92 % of the events of q3 and q8.

Per core is events by CPU seconds of the process. Published figures are from different machines and years: Feldera's
and Flink's are theirs of 2024 for 16 cores, RisingWave's of 2023 (docs/views.md has the sources).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from benchmarks.harness import Report, parse, say
from benchmarks.log_data import Producer
from benchmarks.nexmark_data import SIDE_INPUT, TABLES, Generator, side_input
from benchmarks.nexmark_queries import QUERIES
from headwater.config import Settings
from headwater.log import open_log
from headwater.ownership import own
from headwater_pipelines.api import create_view
from headwater_pipelines.runtime.publish import PRODUCER
from headwater_pipelines.runtime.worker import Worker

EVENTS, QUICK_EVENTS = 2_000_000, 100_000
COMMIT_EVENTS = 50_000
SIDE = "nexmark.side_input"

PUBLISHED: dict[str, tuple[float, float, float]] = {
    "q0": (436, 165, 118),
    "q1": (412, 163, 119),
    "q2": (422, 195, 127),
    "q3": (413, 127, 97),
    "q4": (265, 31, 13.9),
    "q5": (412, 41, 9.1),
    "q6": (250, 0, 0),
    "q7": (196, 18, 99),
    "q8": (415, 131, 61),
    "q9": (57, 13, 8.2),
    "q10": (0, 0, 106),
    "q11": (0, 34, 0),
    "q12": (418, 125, 0),
    "q13": (230, 98, 0),
    "q14": (429, 137, 45),
    "q15": (221, 57, 79),
    "q16": (51, 15, 8.1),
    "q17": (242, 107, 17),
    "q18": (85, 32, 9.8),
    "q19": (75, 63, 0),
    "q20": (85, 17, 12.7),
    "q21": (415, 77, 89),
    "q22": (394, 95, 111),
}
"""Thousand events per second and core of Feldera, Flink and RisingWave; 0: none is published."""
FELDERA, FLINK, RISINGWAVE = (
    {query: each[place] for query, each in PUBLISHED.items() if each[place]} for place in range(3)
)
SHARE_ABOVE_FELDERA = 1 / 3


@dataclass(frozen=True)
class Run:
    """What one query took: seconds, and milliseconds of its steps."""

    events: int
    wall_s: float
    cpu_s: float
    steps_ms: list[float]

    @property
    def per_core(self) -> float:
        return self.events / self.cpu_s


def measure(query: str, events: Mapping[str, pa.Table], count: int, folder: Path) -> Run:
    """Write the events that the query reads and take them in."""
    stop = threading.Event()
    with open_log(folder / "lake", create=True) as log:
        producer = Producer(log, "nexmark")
        for name, schema in TABLES.items():
            producer.create(f"nexmark.{name}", "event", schema)
        producer.create(SIDE, "table", SIDE_INPUT)
        rows = side_input()
        producer.write({SIDE: rows.append_column("_op", pa.repeat(pa.scalar("r"), len(rows)))})
        create_view(log, QUERIES[query], name="answer")
        with own(log, PRODUCER) as owner:
            worker = Worker(log, owner.epoch, Settings())
            try:
                worker.run(stop, log.newest_commit())
                _write(producer, query, events, count)
                worker.pulse.times.clear()
                began, spent = time.perf_counter(), time.process_time()
                worker.run(stop, log.newest_commit())
                run = Run(
                    count,
                    time.perf_counter() - began,
                    time.process_time() - spent,
                    [1e3 * s for s in worker.pulse.times],
                )
                [view] = log.views()
                if view.state != "live" or worker.engine.progress.input_commit < log.newest_commit() - len(
                    run.steps_ms
                ):
                    raise RuntimeError(f"{query} is {view.state}: {view.reason}")
            finally:
                worker.close()
    return run


def _write(producer: Producer, query: str, events: Mapping[str, pa.Table], count: int) -> None:
    read = [name for name in events if f" {name}" in QUERIES[query] or f"({name}" in QUERIES[query]]
    parts = -(-count // COMMIT_EVENTS)
    for part in range(parts):
        slices = {}
        for name in read:
            first, last = (len(events[name]) * place // parts for place in (part, part + 1))
            slices[f"nexmark.{name}"] = events[name].slice(first, last - first)
        producer.write(slices)


def record(report: Report, query: str, run: Run) -> None:
    report.figure(f"{query}_events_per_s", run.events / run.wall_s)
    report.figure(f"{query}_events_per_s_per_core", run.per_core)
    report.figure(f"{query}_step_p50_ms", statistics.median(run.steps_ms))
    if query in FLINK:
        report.goal(f"{query}_per_core_by_flink", run.per_core / (FLINK[query] * 1e3), at_least=1.0)


def compare(report: Report, runs: Mapping[str, Run]) -> None:
    known = [query for query in runs if query in FELDERA]
    above = [query for query in known if runs[query].per_core > FELDERA[query] * 1e3]
    if known:
        report.goal("share_above_feldera", len(above) / len(known), at_least=SHARE_ABOVE_FELDERA)
    report.note("above Feldera per core: " + (", ".join(above) or "none"))


def show(runs: Mapping[str, Run]) -> None:
    table = Table(title="thousand events a second", title_justify="left")
    for name in ("query", "in all", "per core", "Feldera", "Flink", "RisingWave", "by Flink", "step ms"):
        table.add_column(name, justify="left" if name == "query" else "right")
    for query, run in runs.items():
        published = (f"{each[query]:g}" if query in each else "" for each in (FELDERA, FLINK, RISINGWAVE))
        ratio = f"{run.per_core / FLINK[query] / 1e3:.2f}" if query in FLINK else ""
        own = (f"{run.events / run.wall_s / 1e3:,.0f}", f"{run.per_core / 1e3:,.0f}")
        table.add_row(query, *own, *published, ratio, f"{statistics.median(run.steps_ms):,.0f}")
    Console().print(table)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", choices=list(QUERIES), help="measure only these queries")
    parser.add_argument("--events", type=int, help=f"how many ({EVENTS:,}; quick {QUICK_EVENTS:,})")
    parser.add_argument("--rate", type=int, default=100_000, help="events in a second of event time (100,000)")
    parser.add_argument("--folder", type=Path, help="where the lakes are written (default: the temporary folder)")


def main() -> int:
    options = parse("nexmark", (__doc__ or "").split("\n")[0], _more)
    count = options.events or (QUICK_EVENTS if options.quick else EVENTS)
    report, runs = Report("nexmark", quick=options.quick), dict[str, Run]()
    events = Generator(rate=options.rate).events(0, count)
    for query in options.only or QUERIES:
        with tempfile.TemporaryDirectory(prefix=f"headwater-{query}-", dir=options.folder) as folder:
            runs[query] = measure(query, events, count, Path(folder))
        record(report, query, runs[query])
        say(f"{query}: {runs[query].per_core / 1e3:,.0f} thousand events a second and core")
    compare(report, runs)
    if not options.json:
        show(runs)
    return report.finish(as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
