"""Stream jobs: rows a second of one that passes rows on and of one with keyed state, beside a plain Polars loop.

    python -m benchmarks.jobs [--quick] [--json]

The limit is a loop as anybody would write it: Polars reads the same sealed files batch by batch, keeps its state in a
frame, and writes each batch of output as an fsynced file. It loses its state and its place when it is killed. The jobs
write output, state and position in one commit a batch, and go on. Then the cost of a step when little changes: a
commit of a few rows, with all of the state there.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from benchmarks.harness import Report, parse, percentile, say
from headwater.config import Settings
from headwater.jobs import Job, JobContext, job
from headwater.log import Log, open_log, read
from headwater.log.seal import seal
from headwater.ownership import own
from headwater.schema import Schema
from headwater_pipelines.jobs.runner import Runner

ROWS, QUICK_ROWS = 5_000_000, 500_000
BATCH_ROWS = 100_000
CUSTOMERS, QUICK_CUSTOMERS = 1_000_000, 100_000
SMALL_STEPS, QUICK_SMALL_STEPS = 200, 30
SMALL_ROWS = 10
TOPIC = "shop.events.orders"
COLUMNS = {"id": "BIGINT", "customer": "BIGINT", "amount": "DOUBLE", "note": "VARCHAR"}
GOAL_OF_POLARS = 0.1
"""Share of the plain loop's rows a CPU second: a job checks types, writes its state, and records where it stands."""


def pass_on(orders: pl.DataFrame) -> pl.DataFrame:
    return orders.filter(pl.col("amount") > 10).select("id", "customer", (pl.col("amount") * 1.2).alias("amount"))


def merged(old: pl.DataFrame, orders: pl.DataFrame) -> pl.DataFrame:
    """The new totals of the customers in a batch."""
    new = orders.group_by("customer").agg(n=pl.len().cast(pl.Int64), total=pl.col("amount").sum())
    return pl.concat([old, new]).group_by("customer").agg(pl.col("n").sum(), pl.col("total").sum())


def keep(orders: pl.DataFrame, context: JobContext) -> pl.DataFrame:
    now = merged(context.state.get(orders), orders)
    context.state.put(now)
    return now


TOTALS = {"customer": "BIGINT", "n": "BIGINT", "total": "DOUBLE"}
PASSED: Job = job(
    inputs=TOPIC,
    output="passed",
    columns={"id": "BIGINT", "customer": "BIGINT", "amount": "DOUBLE"},
    batch_rows=BATCH_ROWS,
    start="beginning",
)(pass_on)
KEPT: Job = job(
    inputs=TOPIC,
    output="kept",
    key="customer",
    columns=TOTALS,
    state=TOTALS,
    state_key="customer",
    batch_rows=BATCH_ROWS,
    start="beginning",
)(keep)


def write(log: Log, epoch: int, first: int, rows: int, customers: int) -> None:
    """One commit of orders."""
    rng = np.random.default_rng(first)
    table = pa.table(
        {
            "id": np.arange(first, first + rows),
            "customer": rng.integers(0, customers, rows),
            "amount": rng.integers(0, 10_000, rows) / 100,
            "note": pa.array(rng.choice(np.array(["", "gift", "express", "call before delivery"]), rows)),
        }
    )
    with log.transaction("source:orders", epoch, log.producer("source:orders").position) as tx:
        if log.newest_commit() == 0:
            tx.create_topic(TOPIC, "event", Schema.of(COLUMNS))
        tx.append(TOPIC, table)
        tx.position = str(first + rows)
        tx.commit()


def plain_pass(batches: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    return map(pass_on, batches)


def plain_keep(batches: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """State as a frame; what changed is replaced in it."""
    kept = pl.DataFrame(schema={"customer": pl.Int64, "n": pl.Int64, "total": pl.Float64})
    for batch in batches:
        keys = batch.select("customer").unique()
        now = merged(kept.join(keys, on="customer", how="semi"), batch)
        kept = pl.concat([kept.join(keys, on="customer", how="anti"), now])
        yield now


def cost(act: Callable[[], None]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - wall, time.process_time() - cpu


def batches_of(files: list[Path]) -> Iterator[pl.DataFrame]:
    """Batches of the sealed files."""
    for file in files:
        rows = pl.scan_parquet(file).select(list(COLUMNS))
        for first in range(0, rows.select(pl.len()).collect().item(), BATCH_ROWS):
            yield rows.slice(first, BATCH_ROWS).collect()


def write_all(folder: Path, outputs: Iterable[pl.DataFrame]) -> None:
    """Each output as a durable file."""
    for number, output in enumerate(outputs):
        with (folder / f"{number}.arrow").open("wb") as file:
            output.write_ipc(file)
            file.flush()
            os.fsync(file.fileno())


def run(runner: Runner) -> None:
    while runner.step(runner.log.newest_commit()) is not None or runner.after != runner.log.newest_commit():
        pass


class Bench:
    """One lake with orders, and what is measured over it."""

    def __init__(self, report: Report, log: Log, epoch: int, *, quick: bool) -> None:
        self.report = report
        self.log = log
        self.epoch = epoch
        self.quick = quick
        self.customers = QUICK_CUSTOMERS if quick else CUSTOMERS
        rows = QUICK_ROWS if quick else ROWS
        self.rows = rows
        for first in range(0, rows, BATCH_ROWS):
            write(log, epoch, first, BATCH_ROWS, self.customers)
        seal(log, Settings())
        plan = read.plan(log, log.topic(TOPIC), 0, log.newest_commit())
        self.files = [log.storage.path(segment.path) for segment in plan.segments]

    def measure(self, declared: Job, plain: Callable[[Iterable[pl.DataFrame]], Iterator[pl.DataFrame]]) -> None:
        """One job over all orders, the same in plain Polars, then small steps and a restart."""
        name, rows = declared.output, self.rows
        with tempfile.TemporaryDirectory() as folder:
            limit, limit_cpu = cost(lambda: write_all(Path(folder), plain(batches_of(self.files))))
        with own(self.log, f"job:{declared.name}") as owner:
            runner = Runner(self.log, declared, owner.epoch, Settings())
            wall, cpu = cost(lambda: run(runner))
            say(f"{name}: {rows / wall:,.0f} rows/s, plain Polars {rows / limit:,.0f}")
            self.report.figure(f"{name}_rows_per_s", rows / wall)
            self.report.figure(f"{name}_rows_per_cpu_s", rows / cpu)
            self.report.figure(f"{name}_polars_rows_per_s", rows / limit)
            self.report.figure(f"{name}_polars_rows_per_cpu_s", rows / limit_cpu)
            self.report.figure(f"{name}_of_polars", limit / wall)
            self.report.goal(f"{name}_of_polars_per_cpu", limit_cpu / cpu, at_least=GOAL_OF_POLARS)
            self._small(name, runner)
            runner.close()
            if runner.state is not None:
                again, _ = cost(lambda: Runner(self.log, declared, owner.epoch, Settings()).close())
                self.report.figure(f"{name}_restart_ms", again * 1e3)

    def _small(self, name: str, runner: Runner) -> None:
        """A step a commit of few rows."""
        times = []
        for number in range(QUICK_SMALL_STEPS if self.quick else SMALL_STEPS):
            write(self.log, self.epoch, 10**9 + number * SMALL_ROWS, SMALL_ROWS, self.customers)
            began = time.perf_counter()
            runner.step(self.log.newest_commit())
            times.append((time.perf_counter() - began) * 1e3)
        self.report.figure(f"{name}_small_step_p50_ms", statistics.median(times))
        self.report.figure(f"{name}_small_step_p95_ms", percentile(times, 0.95))
        if runner.state is not None:
            self.report.figure(f"{name}_state_rows", len(runner.state))


def main() -> None:
    options = parse("jobs", __doc__.partition("\n")[0])
    report = Report("jobs", quick=options.quick)
    with (
        tempfile.TemporaryDirectory() as folder,
        open_log(Path(folder) / "lake", create=True) as log,
        own(log, "source:orders") as owner,
    ):
        bench = Bench(report, log, owner.epoch, quick=options.quick)
        report.figure("rows", bench.rows)
        bench.measure(PASSED, plain_pass)
        bench.measure(KEPT, plain_keep)
    report.note(f"batches of {BATCH_ROWS:,} rows from sealed files; small steps: commits of {SMALL_ROWS} rows")
    sys.exit(report.finish(as_json=options.json))


if __name__ == "__main__":
    main()
