"""What a step of a view costs when 1,000 rows of a large table change, by the number of rows that are stored.

    python -m benchmarks.views [--quick] [--json] [--rows N,N] [--views NAME,NAME] [--steps N] [--churn N]

A fact table of ``rows`` rows (40 bytes each), a table of a tenth and one of a hundredth as many, in a real log. For
each view the pipeline's worker fills it, takes in ``churn`` commits of 1,000 updated rows untimed but merged and
checkpointed as ever, and then ``steps`` of each kind, one commit a step: of keys drawn uniformly from the whole table,
and of recent ones (Zipf, 1.2, from the newest key back). A step is all of it: reading the log, the view's delta, state,
commit, publishing; and the checkpoint or the freezing of a full part where it falls into a step. Peak memory is the
process's; of it, what maps files can be taken back by the system at any time: ``memory_mb`` is without.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.harness import Report, parse, say
from benchmarks.processes import own_mb
from headwater.config import Settings
from headwater.log import Log, open_log
from headwater.ownership import own
from headwater.schema import Schema
from headwater_pipelines.api import create_view, drop_view
from headwater_pipelines.runtime.publish import PRODUCER
from headwater_pipelines.runtime.worker import Worker

CHANGED = 1_000
LOAD_ROWS = 1_000_000
"""Rows of one commit while the tables are loaded."""
FACT = Schema.of(id="BIGINT", k="BIGINT", x="DECIMAL(12,2)", t="BIGINT", s="VARCHAR", key=["id"])
DIM = Schema.of(k="BIGINT", g="BIGINT", name="VARCHAR", key=["k"])
GROUP = Schema.of(g="BIGINT", label="VARCHAR", key=["g"])
VIEWS = {
    "filter": "SELECT id, x, s FROM fact WHERE x > 500",
    "aggregate": "SELECT k, count(*) AS n, sum(x) AS total FROM fact GROUP BY k",
    "join2": "SELECT f.id, f.x, d.name FROM fact f JOIN dim d USING (k)",
    "join3": "SELECT f.id, f.x, d.name, g.label FROM fact f JOIN dim d USING (k) JOIN grp g ON d.g = g.g",
    "left": "SELECT f.id, f.x, d.name FROM fact f LEFT JOIN dim d USING (k)",
    "top": "SELECT k, id, x FROM fact QUALIFY row_number() OVER (PARTITION BY k ORDER BY x DESC, id) <= 3",
    "window": "SELECT id, k, sum(x) OVER (PARTITION BY k ORDER BY t, id) AS running FROM fact",
}
GOALS = {"filter": 100.0, "aggregate": 100.0, "join2": 200.0, "join3": 300.0}
"""p95 of a step in ms over 50 million rows, keys uniform; half of it over 10 million."""
GOAL_ROWS = 50_000_000


def main() -> int:
    options = parse("views", (__doc__ or "").split("\n", maxsplit=1)[0], _more)
    sizes = options.rows or ([1_000_000] if options.quick else [1_000_000, 10_000_000, GOAL_ROWS])
    names = options.views or (["filter", "join2"] if options.quick else list(VIEWS))
    steps = options.steps or (30 if options.quick else 200)
    churn = options.churn if options.churn is not None else (20 if options.quick else 5_000)
    report = Report("views", quick=options.quick)
    for rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            _size(report, Path(folder), rows, names, steps, churn)
    return report.finish(as_json=options.json)


def _more(parser: argparse.ArgumentParser) -> None:
    def listed(kind: type) -> Callable[[str], list[Any]]:
        return lambda text: [kind(part) for part in text.split(",")]

    parser.add_argument("--rows", type=listed(int), help="sizes of the fact table (default 1, 10 and 50 million)")
    parser.add_argument("--views", type=listed(str), help=f"of {', '.join(VIEWS)}; default all")
    parser.add_argument("--steps", type=int, help="timed steps of each kind (default 200)")
    parser.add_argument("--churn", type=int, help="steps before them (default 5,000)")


@dataclass
class Source:
    """Writes to the log as a source does: whole commits under its position."""

    log: Log
    epoch: int
    rows: int
    rng: np.random.Generator
    position: int = 0

    def commit(self, tables: dict[str, pa.Table], *, create: bool = False) -> None:
        before = str(self.position) if self.position else None
        with self.log.transaction("source:shop", self.epoch, before) as tx:
            if create:
                for name, schema in (("fact", FACT), ("dim", DIM), ("grp", GROUP)):
                    tx.create_topic(f"shop.public.{name}", "table", schema, source="shop")
            for name, table in tables.items():
                tx.append(f"shop.public.{name}", table)
            self.position += 1
            tx.position = str(self.position)
            tx.commit()

    def load(self, rows: int | None = None) -> None:
        """The tables; of the facts ``rows``, if not all."""
        rows = self.rows if rows is None else rows
        self.commit({"grp": self.groups()}, create=True)
        for first in range(0, self.rows // 10, LOAD_ROWS):
            self.commit({"dim": self.dims(np.arange(first, min(first + LOAD_ROWS, self.rows // 10)))})
        for first in range(0, rows, LOAD_ROWS):
            self.commit({"fact": self.facts(np.arange(first, min(first + LOAD_ROWS, rows)), "r")})

    def commit_large(self, op: str, first: int, end: int, batch: int) -> None:
        """Facts of these ids in one commit of many batches."""
        with self.log.transaction("source:shop", self.epoch, str(self.position)) as tx:
            for low in range(first, end, batch):
                tx.append("shop.public.fact", self.facts(np.arange(low, min(low + batch, end)), op))
            self.position += 1
            tx.position = str(self.position)
            tx.commit()

    def update(self, kind: str) -> None:
        """One commit of updated facts."""
        if kind == "uniform":
            ids = self.rng.integers(0, self.rows, CHANGED)
        else:
            ids = self.rows - np.minimum(self.rng.zipf(1.2, 2 * CHANGED), self.rows)
        self.commit({"fact": self.facts(np.unique(ids)[:CHANGED], "u")})

    def facts(self, ids: np.ndarray, op: str) -> pa.Table:
        n, rng = len(ids), self.rng
        cents = pa.array(rng.integers(0, 100_000, n)).cast(pa.decimal128(19, 0))
        columns = {
            "id": pa.array(ids),
            "k": pa.array(rng.integers(0, self.rows // 10, n)),
            "x": pc.divide(cents, pa.scalar(100, pa.decimal128(3, 0))).cast(pa.decimal128(12, 2), safe=False),
            "t": pa.array(rng.integers(0, 10**9, n)),
            "s": _texts("state ", rng.integers(0, 50, n)),
        }
        return _records(columns, op)

    def dims(self, keys: np.ndarray) -> pa.Table:
        of = pa.array(self.rng.integers(0, self.rows // 100, len(keys)))
        return _records({"k": pa.array(keys), "g": of, "name": _texts("name ", keys)}, "r")

    def groups(self) -> pa.Table:
        keys = np.arange(self.rows // 100)
        return _records({"g": pa.array(keys), "label": _texts("label ", keys)}, "r")


def _texts(word: str, numbers: np.ndarray) -> pa.Array:
    return pc.binary_join_element_wise(word, pa.array(numbers).cast(pa.string()), "")


def _records(columns: dict[str, pa.Array], op: str) -> pa.Table:
    size = len(next(iter(columns.values())))
    return pa.table({**columns, "_op": pa.repeat(pa.scalar(op), size), "_seq": pa.array(range(size), pa.int64())})


def _size(report: Report, folder: Path, rows: int, names: Sequence[str], steps: int, churn: int) -> None:
    with open_log(folder / "lake", create=True) as log, own(log, "source:shop") as owner:
        source = Source(log, owner.epoch, rows, np.random.default_rng(1))
        say(f"loading {rows:,} rows into the log")
        source.load()
        for name in names:
            _view(report, log, source, name, steps, churn)


def _view(report: Report, log: Log, source: Source, name: str, steps: int, churn: int) -> None:
    create_view(log, VIEWS[name], name=name)
    label = f"{name}_{source.rows // 1_000_000}m"
    with own(log, PRODUCER) as owner:
        worker = Worker(log, owner.epoch, Settings())
        try:
            say(f"{label}: filling")
            began = time.perf_counter()
            worker.run(threading.Event(), log.newest_commit())
            report.figure(f"{label}_fill_s", time.perf_counter() - began)
            if (view := log.view(name)).state != "live":
                report.note(f"{label}: {view.state}: {view.reason}")
                report.goal(f"{label}_is_live", 0, at_least=1)
                return
            _run(worker, source, "uniform", churn)
            for kind in ("uniform", "recent"):
                spent = time.process_time()
                times = _run(worker, source, kind, steps)
                _record(report, f"{label}_{kind}", times, time.process_time() - spent)
            _judge(report, label, name, source.rows)
            relations = worker.engine.state.relations.values()
            report.figure(f"{label}_stored_rows", sum(each.rows for each in relations))
            report.figure(f"{label}_stored_mb", sum(run.bytes for each in relations for run in each.runs) / 1e6)
            report.figure(f"{label}_memory_mb", own_mb(os.getpid()))
        finally:
            worker.close()
    report.figure("peak_mapped_included_mb", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
    drop_view(log, name)


def _run(worker: Worker, source: Source, kind: str, steps: int) -> list[float]:
    """Milliseconds of each step, with what a worker does between two of them."""
    found = []
    for _ in range(steps):
        source.update(kind)
        began = time.perf_counter()
        if worker.advance() is None:
            raise RuntimeError("a step took nothing in")
        found.append((time.perf_counter() - began) * 1e3)
    return found


def _record(report: Report, label: str, times: Sequence[float], cpu_s: float) -> None:
    p50, p95, p99 = np.percentile(times, [50, 95, 99])
    for word, value in (("p50", p50), ("p95", p95), ("p99", p99), ("max", max(times))):
        report.figure(f"{label}_{word}_ms", float(value))
    report.figure(f"{label}_cpu_ms", cpu_s / len(times) * 1e3)
    say(f"{label}: p50 {p50:.0f} ms, p95 {p95:.0f}, p99 {p99:.0f}, max {max(times):.0f}")


def _judge(report: Report, label: str, name: str, rows: int) -> None:
    if name not in GOALS or rows not in (GOAL_ROWS, GOAL_ROWS // 5):
        return
    goal = GOALS[name] if rows == GOAL_ROWS else GOALS[name] / 2
    value = report.figures[f"{label}_uniform_p95_ms"]
    assert isinstance(value, float)
    report.goal(f"{label}_p95_ms", value, at_most=goal)


if __name__ == "__main__":
    sys.exit(main())
