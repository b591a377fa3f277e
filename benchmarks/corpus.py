"""Rows that a step reads for each statement of the corpus, when 100 rows change in every table that it reads.

    python -m benchmarks.corpus [--quick] [--json] [--rows N] [--only TEXT] [--every N] [-o FILE]

The tables of ``tests/pipelines/test_corpus.py`` with ``rows`` rows in the largest of them (orders, items, payments,
visits, events; others a tenth to a thousandth), loaded once. Each statement is a view of its own over them, filled and
stepped in a transaction that is rolled back. Read are the rows that DuckDB scans, of whatever: stored rows, rows that
were found by their keys, the change itself. Of a statement that takes more than ``LIMIT_S`` nothing is known.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from tests.pipelines.test_corpus import FILES, TABLES, statements

from benchmarks.harness import Report, parse, say
from headwater import record
from headwater.errors import HeadwaterError, UnsupportedSql
from headwater.types import quote
from headwater_pipelines.compiler import CompiledView, Relations, Table, compile_view
from headwater_pipelines.compiler import parse as parse_view
from headwater_pipelines.compiler.explain import explain
from headwater_pipelines.compiler.plan import Base
from headwater_pipelines.runtime.arrived import Arrived
from headwater_pipelines.runtime.bases import Store
from headwater_pipelines.runtime.program import Program
from headwater_pipelines.runtime.state import FILE, Exported, State

CHANGED = 100
LIMIT_S = 60.0
OPEN_SHARE = 0.01
"""Rows of an open part, as a share of the largest table's: what is larger is found by its keys."""
NOW = datetime(2026, 3, 1, tzinfo=UTC)
SMALLER = {"customers": 10, "products": 50, "prices": 10, "stock": 20, "employees": 500, "regions": 5_000, "rates": 200}
"""So many times fewer rows than the largest table has."""


class Counting(State):
    """A state that counts what its statements scan, once it has been asked to."""

    scanned = 0
    counts = False

    def count(self) -> None:
        self.connection.execute("PRAGMA enable_profiling = 'no_output'")
        self.counts = True

    def write(self, *arguments: Any, **named: Any) -> int:
        return int(self._counted(super().write(*arguments, **named)))

    def temporary(self, *arguments: Any, **named: Any) -> int:
        return int(self._counted(super().temporary(*arguments, **named)))

    def numbers(self, *arguments: Any, **named: Any) -> Any:
        return self._counted(super().numbers(*arguments, **named))

    def query(self, sql: str) -> pa.Table:
        return self._counted(super().query(sql))

    def export(self, sql: str, rows: int) -> Exported:
        return Exported(self.query(sql).to_reader(rows))

    def _counted(self, result: Any) -> Any:
        if self.counts:
            profile = json.loads(self.connection.get_profiling_information())
            self.scanned += sum(_scans(each) for each in profile.get("operator", ()))
        return result


def _scans(operator: dict[str, Any]) -> int:
    own = 0
    if operator["type"].endswith("SCAN") and operator.get("extra_info"):
        own = max(operator.get("rows_scanned") or 0, operator.get("intermediate_rows") or 0)
    return own + sum(map(_scans, operator.get("children", ())))


@dataclass
class Result:
    name: str
    kind: str
    """``incremental``, ``full``, or why nothing was measured."""
    stored: int = 0
    read: int = 0


def main() -> int:
    options = parse("corpus", (__doc__ or "").split("\n", maxsplit=1)[0], _more)
    rows = options.rows or (20_000 if options.quick else 1_000_000)
    report = Report("corpus", quick=options.quick)
    with tempfile.TemporaryDirectory() as folder:
        found = list(_measured(Path(folder), rows, options.only, options.every))
    if options.output:
        lines = (f"{each.name}\t{each.kind}\t{each.stored}\t{each.read}" for each in found)
        Path(options.output).write_text("\n".join(lines) + "\n")
    for kind in ("incremental", "full"):
        own = [each.read / max(each.stored, 1) for each in found if each.kind == kind]
        report.figure(f"{kind} statements", len(own))
        if own:
            report.figure(f"{kind} median share of rows read", round(statistics.median(own), 5))
            report.figure(f"{kind} reading less than 1 % of the rows", sum(share < 0.01 for share in own))
            report.figure(f"{kind} reading less than 10 % of the rows", sum(share < 0.1 for share in own))
    report.figure("not measured", sum(each.kind not in ("incremental", "full") for each in found))
    return report.finish(as_json=options.json)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, help="rows of the largest tables (default 1 million)")
    parser.add_argument("--only", default="", help="statements whose name has this in it")
    parser.add_argument(
        "--every", type=int, default=1, help="every Nth statement only: all take hours at 1 million rows"
    )
    parser.add_argument("-o", "--output", default="", help="a file for a line per statement: name, kind, stored, read")


def _measured(folder: Path, rows: int, only: str, every: int) -> Iterator[Result]:
    tables = [(Base(f"shop.public.{n}", i, kind), s) for i, (n, (kind, s)) in enumerate(TABLES.items(), start=1)]
    state = Counting(folder / FILE, timezone="UTC", open_rows_max=int(rows * OPEN_SHARE))
    state.connection.execute("PRAGMA disable_progress_bar")
    stores = {base: Store(base, schema) for base, schema in tables}
    changes = {}
    state.begin()
    for base, store in stores.items():
        name = base.name.rpartition(".")[2]
        count = max(rows // SMALLER.get(name, 1), 5)
        store.create(state)
        store.load(state, Arrived.of(_data(store, name, count, rows, 0)))
        state.relations[base.table].settle()
        changes[base] = Arrived.of(_data(store, name, min(CHANGED, count), rows, 1))
    state.commit()
    state.checkpoint()
    state.count()
    relations = Relations([Table(base, schema) for base, schema in tables])
    chosen = [(name, sql) for name, sql in statements(*FILES).items() if only in name]
    for name, sql in chosen[::every]:
        result = _one(state, stores, changes, relations, name, sql)
        say(f"{name}: {result.kind}, read {result.read:,} of {result.stored:,}")
        yield result
    state.close()


def _one(
    state: Counting, stores: dict[Base, Store], changes: dict[Base, Arrived], relations: Relations, name: str, sql: str
) -> Result:
    try:
        view = compile_view(parse_view(sql, name="v"), relations)
    except UnsupportedSql as error:
        return Result(name, error.code)
    kind = "incremental" if explain(view).is_incremental else "full"
    used = [base for base in stores if base in view.used]
    stored = sum(state.relations[base.table].rows for base in used)
    state.begin()
    timer = threading.Timer(LIMIT_S, state.connection.interrupt)
    timer.start()
    try:
        read = _step(state, view, {base: stores[base] for base in used}, changes)
    except (HeadwaterError, duckdb.Error) as error:
        return Result(name, f"not measured: {str(error)[:60]}", stored)
    finally:
        timer.cancel()
        state.rollback()
    return Result(name, kind, stored, read)


def _step(state: Counting, view: CompiledView, stores: dict[Base, Store], changes: dict[Base, Arrived]) -> int:
    program = Program({1: view}, stores)
    program.create(state, program.derived, NOW)
    program.prepare(state)
    state.scanned = 0
    for _ in program.step(state, {base: changes[base] for base in stores}):
        pass
    return state.scanned


def _data(store: Store, name: str, count: int, rows: int, salt: int) -> pa.Table:
    """Change records with values from the row's number: keys that meet, words that repeat, a NULL now and then."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        listed = [f"{_value(name, f.name, f.type, rows, salt)} AS {quote(f.name)}" for f in store.schema.fields]
        key = "i * 7" if salt else "i"  # what changes is spread over the table
        table = connection.sql(
            f"SELECT {', '.join(listed)} FROM (SELECT {key} AS i FROM range({count}) r(i))"
        ).to_arrow_table()
    op = "u" if salt and store.base.kind == "table" else "c"
    meta = {
        record.OP: pa.array([op] * count),
        record.WEIGHT: pa.array([1] * count, pa.int64()),
        record.OFFSET: pa.array(range(count), pa.int64()),
        record.PARTITION: pa.array([0] * count, pa.int32()),
        record.UNCHANGED: pa.nulls(count, pa.list_(pa.string())),
        record.LSN: pa.nulls(count, pa.int64()),
        record.SEQ: pa.nulls(count, pa.int64()),
        record.COMMIT: pa.array([1] * count, pa.int64()),
    }
    return pa.table({**dict(zip(table.column_names, table.columns, strict=True)), **meta}).select(store.reads)


WORDS: dict[str, Sequence[str]] = {
    "status": ("new", "paid", "shipped", "cancelled"), "channel": ("web", "store", "app"),
    "method": ("card", "paypal", "invoice"), "kind": ("view", "click", "purchase", "signup"),
    "page": ("/", "/cart", "/shoes", "/checkout"), "segment": ("vip", "new", "regular"),
    "category": ("shoes", "hats", "books"), "warehouse": ("A", "B"), "department": ("it", "sales", "hr"),
    "currency": ("EUR", "USD", "PLN"), "region": ("EU", "NA", "APAC"),
}  # fmt: skip


def _value(table: str, name: str, text: str, rows: int, salt: int) -> str:  # noqa: PLR0911 -- one per kind of column
    """SQL over the row's number ``i`` for a column."""
    mixed = f"(hash(i, '{name}', {salt}) % {{}})::BIGINT"
    references = {"customer_id": rows // 10, "product_id": rows // 50, "order_id": rows, "manager_id": rows // 1000}
    if (table, name) in (("items", "order_id"), ("stock", "product_id"), ("prices", "product_id")):
        return f"(i // 2)::{text}"
    if name == "line":
        return "(i % 2)::INTEGER"
    if name == "warehouse":
        return "CASE i % 2 WHEN 0 THEN 'A' ELSE 'B' END"
    if name == "valid_from":
        return "TIMESTAMP '2026-01-01' + INTERVAL 30 DAY * (i % 2)"
    if name == "id":
        return f"i::{text}"
    if table == "employees" and name == "manager_id":
        return "CASE WHEN i > 0 THEN (i // 8)::INTEGER END"
    if name in references:
        return f"({mixed.format(max(references[name], 1))})::{text}"
    if name in WORDS:
        return f"{list(WORDS[name])!r}[1 + {mixed.format(len(WORDS[name]))}]"
    if name == "country":
        return f"'C' || {'i' if table == 'regions' else mixed.format(max(rows // 5000, 5))}"
    if name == "visitor":
        return f"'v' || {mixed.format(max(rows // 20, 1))}"
    return _typed(name, text, mixed)


def _typed(name: str, text: str, mixed: str) -> str:
    if text.startswith("STRUCT"):
        geo = f"{{'lat': {mixed.format(90)}::DOUBLE, 'lon': {mixed.format(180)}::DOUBLE}}"
        return f"{{'street': 'street ' || {mixed.format(500)}, 'zip': '1' || {mixed.format(9000)}, 'geo': {geo}}}"
    amount = f"'amount', {mixed.format(50)}, 'tags', ['a', 'b']"
    later = f"INTERVAL 1 SECOND * {mixed.format(10_000_000)}"
    makers = {
        "VARCHAR[]": f"['a', 'b', 'c', 'sale'][1:{mixed.format(4)}]",
        "JSON": f"json_object('color', 'red', 'size', {mixed.format(9)}, {amount})",
        "BOOLEAN": f"{mixed.format(3)} > 0",
        "DATE": f"DATE '2026-01-01' + {mixed.format(120)}::INTEGER",
        "TIMESTAMP": f"TIMESTAMP '2026-01-01' + {later}",
        "TIMESTAMP WITH TIME ZONE": f"TIMESTAMPTZ '2026-01-01 00:00:00+00' + {later}",
        "DOUBLE": f"{mixed.format(400)} / 4.0",
        "DECIMAL(4,3)": f"({mixed.format(400)} / 1000.0)::DECIMAL(4,3)",
        "VARCHAR": f"'{name} ' || {mixed.format(1000)}",
    }
    return makers.get(text, f"{mixed.format(500)}::{text}")


if __name__ == "__main__":
    sys.exit(main())
