"""From which share of touched keys on a relation is better computed as a whole than key by key.

    python -m benchmarks.adaptive [--quick] [--json] [--rows N]

For three kinds of recomputed relations over ``rows`` rows in groups of ten, a batch changes one row in each of a share
of the groups, and the program applies it both ways, each time to a state of its own. The times are of the processor,
all threads together, for others may use the machine meanwhile.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from benchmarks.changes import as_changes
from benchmarks.harness import Report, parse, say
from headwater.schema import Schema
from headwater_pipelines.compiler import Relations, Table, compile_view
from headwater_pipelines.compiler import parse as parse_view
from headwater_pipelines.compiler.plan import Base
from headwater_pipelines.runtime import adaptive
from headwater_pipelines.runtime.arrived import Arrived
from headwater_pipelines.runtime.bases import Store, prune
from headwater_pipelines.runtime.program import Program
from headwater_pipelines.runtime.state import FILE, State

GROUP_ROWS = 10
SHARES = (0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
FACT = Schema.of(id="BIGINT", k="BIGINT", x="BIGINT", s="VARCHAR", key=["id"])
DIM = Schema.of(k="BIGINT", name="VARCHAR", key=["k"])
BASES = {"fact": (Base("shop.public.fact", 1, "table"), FACT), "dim": (Base("shop.public.dim", 2, "table"), DIM)}
VIEWS = {
    "max": "SELECT k, max(x) AS m, min(s) AS s FROM fact GROUP BY k",
    "window": "SELECT id, k, rank() OVER (PARTITION BY k ORDER BY x, id) AS r FROM fact",
    "left": "SELECT f.id, f.x, d.name FROM fact f LEFT JOIN dim d USING (k)",
}


def main() -> int:
    options = parse("adaptive", (__doc__ or "").split("\n", maxsplit=1)[0], _more)
    rows = options.rows or (100_000 if options.quick else 1_000_000)
    report = Report("adaptive", quick=options.quick)
    for name, sql in VIEWS.items():
        for share in SHARES:
            touched, whole = (min(_seconds(sql, rows, share, limit) for _ in range(2)) for limit in (2.0, 0.0))
            say(f"{name}: {share:.0%} of the keys: {touched * 1000:.0f} ms by key, {whole * 1000:.0f} ms as a whole")
            report.figure(f"{name} {share:.0%} by key ms", round(touched * 1000))
            report.figure(f"{name} {share:.0%} whole ms", round(whole * 1000))
    return report.finish(as_json=options.json)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, help="rows of the fact table (default 1 million)")


def _seconds(sql: str, rows: int, share: float, limit: float) -> float:
    """Processor time of the step, with ``limit`` as the share from which on everything is computed."""
    adaptive.WHOLE_SHARE = limit
    relations = Relations([Table(base, schema) for base, schema in BASES.values()])
    view = compile_view(parse_view(sql, name="v"), relations)
    stores = {base: Store(base, prune(schema, view.used[base])) for base, schema in BASES.values() if base in view.used}
    groups = rows // GROUP_ROWS
    with tempfile.TemporaryDirectory() as folder:
        state = State(Path(folder) / FILE, timezone="UTC")
        program = Program({1: view}, stores)
        state.begin()
        for store in stores.values():
            store.create(state)
        for base, store in stores.items():
            data = _fact(range(rows), groups, 0) if base.id == 1 else _dim(groups)
            store.load(state, Arrived.of(data.select(store.reads)))
        program.create(state, program.derived, datetime(2026, 1, 1, tzinfo=UTC))
        program.prepare(state)
        state.commit()
        changed = _fact(range(int(groups * share)), groups, 1)
        store = stores[BASES["fact"][0]]
        state.begin()
        began = time.process_time()
        for _ in program.step(state, {store.base: Arrived.of(changed.select(store.reads))}):
            pass
        state.commit()
        spent = time.process_time() - began
        state.close()
    return spent


def _fact(ids: range, groups: int, added: int) -> pa.Table:
    rows = {
        "id": pa.array(ids, pa.int64()),
        "k": pa.array([i % groups for i in ids], pa.int64()),
        "x": pa.array([i * 7919 % 1_000_003 + added for i in ids], pa.int64()),
        "s": pa.array([f"row {i % 1000}" for i in ids]),
    }
    return as_changes(pa.table(rows), "u" if added else "c")


def _dim(groups: int) -> pa.Table:
    names = pa.array([f"group {i}" for i in range(groups)])
    return as_changes(pa.table({"k": pa.array(range(groups), pa.int64()), "name": names}), "c")


if __name__ == "__main__":
    sys.exit(main())
