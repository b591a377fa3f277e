"""Rows that a step reads for each statement of the corpus, when 100 rows change in every table that it reads.

    python -m benchmarks.corpus [--quick] [--json] [--rows N] [--only TEXT] [--every N] [-o FILE] [--write PAGE]

The tables of ``tests/pipelines/test_corpus.py`` with ``rows`` rows in the largest of them (orders, items, payments,
visits, events; others a tenth to a thousandth), loaded once. Each statement is a view of its own over them, filled and
stepped in a transaction that is rolled back. Read are the rows that DuckDB scans, of whatever: stored rows, rows that
were found by their keys, the change itself. A statement that takes more than ``LIMIT_S`` of CPU or more than
``MEMORY`` is listed with that. All of them take a quarter of an hour of CPU at a million rows.

``-o`` writes a line for each statement; ``--write docs/views.md`` puts the summary into the page, and the lines into
``tests/pipelines/corpus.tsv``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from tests.pipelines.test_corpus import AS_THEY_CAME, FILES, TABLES, statements

from benchmarks.corpus_data import records
from benchmarks.harness import Report, markdown, parse, percentile, require_block, say, write_block
from headwater.errors import HeadwaterError, UnsupportedSql
from headwater_pipelines.compiler import CompiledView, Relations, Table, compile_view
from headwater_pipelines.compiler import parse as parse_view
from headwater_pipelines.compiler.explain import CLASSES, explain
from headwater_pipelines.compiler.plan import Base
from headwater_pipelines.runtime.arrived import Arrived
from headwater_pipelines.runtime.bases import Store
from headwater_pipelines.runtime.program import Program
from headwater_pipelines.runtime.state import FILE, Exported, State

CHANGED = 100
QUICK_EVERY = 4
LIMIT_S = 60.0
"""CPU that filling a view and a step of it may take."""
MEMORY = "4GB"
OPEN_SHARE = 0.01
"""Rows of an open part, as a share of the largest table's: what is larger is found by its keys."""
NOW = datetime(2026, 3, 1, tzinfo=UTC)
REFUSED, INCREMENTAL = "refused", "without"
WORST = 12
COLUMNS = ("file", "name", "class", "nodes", "rows", "read")
BLOCK = "benchmarks.corpus"
LINES = FILES[0].with_suffix(".tsv")
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


@dataclass(frozen=True)
class Result:
    file: str
    name: str
    kind: str
    """The costliest class of its nodes, or ``refused``."""
    nodes: str
    """Those that are more than linear, output first; the code of a refusal."""
    stored: int = 0
    """Rows of the tables that it names."""
    read: int | None = None
    missing: str = ""
    """Why it is not known how many are read."""

    @property
    def share(self) -> float:
        return (self.read or 0) / max(self.stored, 1)

    @property
    def line(self) -> list[str]:
        read = self.missing if self.read is None else str(self.read)
        return [self.file, self.name, self.kind, self.nodes, str(self.stored), read]


def main() -> int:
    options = parse("corpus", (__doc__ or "").split("\n", maxsplit=1)[0], _more)
    rows = options.rows or (20_000 if options.quick else 1_000_000)
    report, found = Report("corpus", quick=options.quick), list[Result]()
    if options.write:
        require_block(options.write, BLOCK)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as files:
        paths = [*filter(None, [options.output, LINES if options.write else None])]
        opened = [files.enter_context(Path(path).open("w")) for path in paths]
        for file in opened:
            print(*COLUMNS, sep="\t", file=file)
        every = options.every or (QUICK_EVERY if options.quick else 1)
        for result in _measured(Path(folder), rows, options.only, every):
            found.append(result)
            for file in opened:
                print(*result.line, sep="\t", file=file, flush=True)
    summarize(report, found)
    if options.write:
        write_block(options.write, BLOCK, page(found, rows))
    return report.finish(as_json=options.json)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, help="rows of the largest tables (default 1 million)")
    parser.add_argument("--only", default="", help="statements whose name has this in it")
    parser.add_argument("--every", type=int, help=f"every Nth statement only (default 1, with --quick {QUICK_EVERY})")
    parser.add_argument("-o", "--output", default="", help=f"a file for a line per statement: {', '.join(COLUMNS)}")
    parser.add_argument("--write", type=Path, help=f"the page for the summary; the lines go to {LINES.name}")


def _measured(folder: Path, rows: int, only: str, every: int) -> Iterator[Result]:
    tables = [(Base(f"shop.public.{n}", i, kind), s) for i, (n, (kind, s)) in enumerate(TABLES.items(), start=1)]
    state = Counting(folder / FILE, timezone="UTC", memory_limit=MEMORY, open_rows_max=int(rows * OPEN_SHARE))
    state.connection.execute("PRAGMA disable_progress_bar")
    stores = {base: Store(base, schema) for base, schema in tables}
    changes = {}
    state.begin()
    for base, store in stores.items():
        name = base.name.rpartition(".")[2]
        count = max(rows // SMALLER.get(name, 1), 5)
        store.create(state)
        store.load(state, Arrived.of(records(store, name, count, rows, 0)))
        state.relations[base.table].settle()
        changes[base] = Arrived.of(records(store, name, min(CHANGED, count), rows, 1))
    state.commit()
    state.checkpoint()
    state.count()
    relations = Relations([Table(base, schema) for base, schema in tables])
    chosen = [(file.name, name, sql) for file in FILES for name, sql in statements(file).items() if only in name]
    for file, name, sql in chosen[::every]:
        result = _one(state, stores, changes, relations, (file, name), sql)
        say("  ".join(result.line))
        yield result
    state.close()


def _one(
    state: Counting,
    stores: dict[Base, Store],
    changes: dict[Base, Arrived],
    relations: Relations,
    named: tuple[str, str],
    sql: str,
) -> Result:
    try:
        view = compile_view(parse_view(sql, name="v"), relations)
    except UnsupportedSql as error:
        return Result(*named, REFUSED, error.code)
    nodes = explain(view).nodes
    kind = max((node.maintenance for node in nodes), key=CLASSES.index)
    kept = ", ".join(f"{node.operator} {node.maintenance}" for node in nodes if node.maintenance != "linear")
    used = {base: store for base, store in stores.items() if base in view.used}
    result = Result(*named, kind, kept, sum(state.relations[base.table].rows for base in used))
    state.begin()
    try:
        with Limit(LIMIT_S, state.connection):
            return replace(result, read=_step(state, view, used, changes))
    except (HeadwaterError, duckdb.Error) as error:
        return replace(result, missing=_reason(error))
    finally:
        state.rollback()


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "Interrupted" in text:
        return f"more than {LIMIT_S:g} s of CPU"
    if "No space left" in text:
        return "more disk than was free"
    return f"more than {MEMORY} of memory" if "more memory" in text or "Out of Memory" in text else text


class Limit:
    """Interrupts the connection when the process has spent so much CPU in the block."""

    def __init__(self, seconds: float, connection: duckdb.DuckDBPyConnection) -> None:
        self._end = time.process_time() + seconds
        self._connection = connection
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="limit")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(0.5):
            if time.process_time() > self._end:
                self._connection.interrupt()  # again and again: it ends one statement, of which there are many


def _step(state: Counting, view: CompiledView, stores: dict[Base, Store], changes: dict[Base, Arrived]) -> int:
    program = Program({1: view}, stores)
    program.create(state, program.derived, NOW)
    program.prepare(state)
    state.scanned = 0
    for _ in program.step(state, {base: changes[base] for base in stores}):
        pass
    return state.scanned


# ---- the summary


def summarize(report: Report, found: Sequence[Result]) -> None:
    for kind in (*CLASSES, INCREMENTAL):
        shares = _shares(found, kind)
        report.figure(f"{kind}_statements", len(shares))
        report.figure(f"{kind}_median_share", percentile(shares, 0.5))
        report.figure(f"{kind}_p90_share", percentile(shares, 0.9))
        report.figure(f"{kind}_below_10_percent", sum(share < 0.1 for share in shares))
    report.figure("refused", sum(each.kind == REFUSED for each in found))
    report.figure("not_measured", sum(bool(each.missing) for each in found))


def _shares(found: Sequence[Result], kind: str, rows: int = 0) -> list[float]:
    """Of the SELECTs of a kind over so many rows."""
    kinds = CLASSES[:-1] if kind == INCREMENTAL else [kind]
    return [each.share for each in found if each.kind in kinds and each.read is not None and each.stored >= rows]


def page(found: Sequence[Result], rows: int) -> str:
    """The summary as the page has it."""
    parts = [markdown(("", "SELECTs", "accepted", f"{INCREMENTAL} `full`", "as they came"), _accepted(found))]
    small = sum(0 < each.stored < rows for each in found)
    parts.append(
        f"Rows that a step reads, of the rows of the tables that the SELECT names, where these have {rows:,} and more"
        f" (the other {small} are about tables of 200 to {rows // 10:,}, of which 100 changed rows are many):"
    )
    heads = ("costliest node", "SELECTs", "median", "p90", "below 1 %", "below 10 %")
    parts.append(markdown(heads, _classes(found, rows)))
    read = [each for each in found if each.kind in CLASSES[:-1] and each.read is not None and each.stored >= rows]
    read = sorted(read, key=lambda each: each.share, reverse=True)[:WORST]
    parts.append(f"Of those {INCREMENTAL} `full` these read the largest share:")
    worst = ([f"`{each.name}`", each.nodes, f"{each.read:,}", f"{each.stored:,}"] for each in read)
    parts.append(markdown(("SELECT", "nodes that are more than linear", "read", "of"), worst))
    missing: dict[str, list[str]] = {}
    for each in found:
        if each.missing:
            missing.setdefault(each.missing, []).append(f"`{each.name}`")
    parts += [f"Not measured ({why}): {', '.join(names)}." for why, names in missing.items()]
    return "\n\n".join(parts)


def _accepted(found: Sequence[Result]) -> Iterator[list[str]]:
    for file, (accepted, incremental) in AS_THEY_CAME.items():
        mine = [each.kind for each in found if each.file == file]
        kept = [kind for kind in mine if kind != REFUSED]
        without = sum(kind != "full" for kind in kept)
        came = f"{accepted} accepted, {incremental} {INCREMENTAL}"
        yield [f"`{file}`", str(len(mine)), str(len(kept)), str(without), came]


def _classes(found: Sequence[Result], rows: int) -> Iterator[list[str]]:
    for kind in (*CLASSES[:-1], INCREMENTAL, CLASSES[-1]):
        shares = _shares(found, kind, rows)
        if shares:
            middle, high = (f"{percentile(shares, part):.1%}".replace("%", " %") for part in (0.5, 0.9))
            below = [f"{100 * sum(share < limit for share in shares) / len(shares):.0f} %" for limit in (0.01, 0.1)]
            shown = f"all {INCREMENTAL} `full`" if kind == INCREMENTAL else f"`{kind}`"
            yield [shown, str(len(shares)), middle, high, *below]


if __name__ == "__main__":
    sys.exit(main())
