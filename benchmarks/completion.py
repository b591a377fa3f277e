"""How long a key press waits for completions in an SQL cell, over a catalog of 1,000 tables of 50 columns.

Each completion is asked for as the notebook asks: through IPython's completer, with all its other matchers. ``cold`` is
the first one in a process (functions are read, names are indexed); ``changed`` the first one after a table was created.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import pyarrow as pa
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

from benchmarks.harness import Report, parse, percentile, say
from headwater import ownership
from headwater.log import Log, open_log
from headwater.schema import Schema

TABLES, QUICK_TABLES = 1_000, 1_000
COLUMNS = 50
ASKED, QUICK_ASKED = 300, 60
CHANGES = 10
A_TRANSACTION = 100
"""Tables created by one."""
GOAL_MS = 50.0
CELLS = (
    "%%sql\nSELECT * FROM or|",
    "%%sql\nSELECT o.c| FROM orders_7 AS o WHERE o.column_3 > 5",
    "%%sql\nWITH a AS (SELECT * FROM orders_9), b AS (SELECT a.column_4 AS x FROM a)\nSELECT b.| FROM b",
    "%%sql\nSELECT col| FROM orders_1 JOIN orders_2 USING (column_0)",
    "%%sql\nSELECT col|",
    "%%sql\nSELECT date_|",
    "%%sql\nSELECT * FROM log.|",
    "%%view v\n|",
)


def main() -> int:
    options = parse("completion", "completions in SQL cells over a large catalog")
    report = Report("completion", quick=options.quick)
    tables, asked = (QUICK_TABLES, QUICK_ASKED) if options.quick else (TABLES, ASKED)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "headwater.toml").write_text('[project]\nname = "completion"\n')
        with open_log(root / "lake", create=True) as log:
            say(f"creating {tables:,} tables of {COLUMNS} columns")
            _create(log, [f"orders_{number}" for number in range(tables)])
            shell = InteractiveShell.instance()
            shell.run_line_magic("load_ext", "headwater")
            shell.run_line_magic("headwater", str(root))
            _measure(report, log, shell, asked)
            shell.run_line_magic("unload_ext", "headwater")
    return report.finish(as_json=options.json)


def _measure(report: Report, log: Log, shell: InteractiveShell, asked: int) -> None:
    for text in ("pri|", "import o|"):  # what IPython itself takes long for the first time is not ours
        _complete(shell, text)
    report.figure("cold_ms", _complete(shell, CELLS[0])[0])
    report.figure("cold_functions_ms", _complete(shell, CELLS[5])[0])
    chosen = random.Random(1)
    taken = []
    for _ in range(asked):
        milliseconds, found = _complete(shell, chosen.choice(CELLS))
        assert found
        taken.append(milliseconds)
    report.figure("p50_ms", median(taken))
    report.goal("p95_ms", percentile(taken, 0.95), at_most=GOAL_MS)
    report.figure("worst_ms", max(taken))
    changed = []
    for number in range(CHANGES):
        _create(log, [f"later_{number}"])
        milliseconds, found = _complete(shell, f"%%sql\nSELECT * FROM later_{number}|")
        assert found == 1
        changed.append(milliseconds)
    report.figure("changed_p50_ms", median(changed))


def _complete(shell: InteractiveShell, text: str) -> tuple[float, int]:
    """Milliseconds, and how many there were."""
    cursor = text.index("|")
    began = time.perf_counter()
    with provisionalcompleter():
        found = len(list(shell.Completer.completions(text.replace("|", ""), cursor)))
    return (time.perf_counter() - began) * 1e3, found


def _create(log: Log, names: list[str]) -> None:
    for begin in range(0, len(names), A_TRANSACTION):
        with ownership.own(log, "source:shop") as owner:
            state = log.producer("source:shop")
            with log.transaction(
                producer="source:shop", epoch=owner.epoch, expected_position=state.position
            ) as transaction:
                for name in names[begin : begin + A_TRANSACTION]:
                    # A column in two is in every table, the others are in this one alone.
                    columns = [f"column_{n}" if n % 2 == 0 else f"column_{n}_of_{name}" for n in range(COLUMNS)]
                    schema = Schema.of(dict.fromkeys(columns, "BIGINT"), key=["column_0"])
                    rows = pa.table({column: pa.array([], pa.int64()) for column in columns})
                    rows = rows.append_column("_op", pa.array([], pa.string()))
                    transaction.create_topic(f"shop.public.{name}", "table", schema, source="shop")
                    transaction.append(f"shop.public.{name}", rows)
                transaction.position = f"0/{log.newest_commit() + 1:X}"
                transaction.commit()


if __name__ == "__main__":
    sys.exit(main())
