"""Charts over many rows: how long the kernel takes to answer one request of a chart's panel.

    python -m benchmarks.charts [--quick] [--json] [--rows N]

A captured table of ten million rows (quick: one million), read once so that the lake has its current rows. Then each
kind of chart is asked for as the page asks, some times, and the middle of the times counts; a request of which nothing
changed is a figure of its own. Peak memory is that of the whole process, the table included.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.harness import Report, parse, percentile, say
from headwater import Lake
from headwater.lake import open_lake
from headwater.log import open_log
from headwater.ownership import own
from headwater.schema import Schema
from headwater_notebooks.chart_panel import ChartPanel
from headwater_notebooks.rates_panel import RatesPanel

ROWS, QUICK_ROWS = 10_000_000, 1_000_000
COMMIT_ROWS = 500_000
TIMES = 7
GOAL_MS, QUICK_GOAL_MS = 1000, 200
TABLE = "shop.public.sales"
COLUMNS = Schema.of(
    {"id": "BIGINT", "moment": "TIMESTAMPTZ", "shop": "VARCHAR", "total": "DECIMAL(18,2)", "weight": "DOUBLE"},
    key=["id"],
)
CHARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "line": ("SELECT moment, total FROM sales", {}),
    "line_by_shop": ("SELECT moment, total, shop FROM sales", {"color": "shop"}),
    "area": ("SELECT moment, weight FROM sales", {"kind": "area"}),
    "window": ("SELECT moment, total, shop FROM sales", {"window": "15m"}),
    "bars": ("SELECT shop, total FROM sales", {}),
    "histogram": ("SELECT weight FROM sales", {}),
    "histogram_of_times": ("SELECT moment, shop FROM sales", {"kind": "histogram"}),
    "scatter": ("SELECT weight, total, shop FROM sales", {"kind": "scatter"}),
}


def main() -> int:
    options = parse("charts", (__doc__ or "").split("\n", maxsplit=1)[0], _more)
    rows = options.rows or (QUICK_ROWS if options.quick else ROWS)
    report = Report("charts", quick=options.quick)
    with tempfile.TemporaryDirectory() as folder:
        _fill(Path(folder), rows)
        with open_lake(Path(folder)) as lake:
            began = time.perf_counter()
            assert lake.sql("SELECT count(*) FROM sales").scalar() == rows
            report.figure("first_read_s", time.perf_counter() - began)
            report.figure("rows", rows)
            for name in CHARTS:
                _measure(report, lake, name, GOAL_MS if rows > QUICK_ROWS else QUICK_GOAL_MS)
            _measure_rates(report, lake)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    report.figure("cpu_s", usage.ru_utime + usage.ru_stime)
    report.figure("peak_mb", usage.ru_maxrss / 1024)
    return report.finish(as_json=options.json)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, help=f"of the table ({ROWS:,}; quick {QUICK_ROWS:,})")


def _fill(folder: Path, rows: int) -> None:
    """The table, committed in parts as an initial copy is."""
    say(f"writing {rows:,} rows")
    (folder / "headwater.toml").write_text('[project]\nname = "charts"\n')
    with open_log(folder / "lake", create=True) as log, own(log, "source:shop") as owner, duckdb.connect() as made:
        made.execute("SET TimeZone = 'UTC'")
        position = None
        for first in range(0, rows, COMMIT_ROWS):
            table = made.sql(
                "SELECT i AS id, TIMESTAMPTZ '2026-11-01 00:00:00+00' + INTERVAL (i) MILLISECOND * 60 AS moment,"
                " 'shop ' || hash(i) % 8 AS shop, CAST(hash(i + 1) % 100000 / 100 AS DECIMAL(18,2)) AS total,"
                " sqrt(hash(i + 2) % 1000000) AS weight, 'r' AS _op FROM range($first, $last) t(i)",
                params={"first": first, "last": min(rows, first + COMMIT_ROWS)},
            ).to_arrow_table()
            with log.transaction("source:shop", owner.epoch, position) as transaction:
                if position is None:
                    transaction.create_topic(TABLE, "table", COLUMNS, source="shop")
                transaction.append(TABLE, table)
                position = transaction.position = f"0/{first + 1:X}"
                transaction.commit()


def _measure(report: Report, lake: Lake, name: str, goal_ms: int) -> None:
    say(name)
    query, options = CHARTS[name]
    panel = ChartPanel(lake.chart(query, **options))
    request = {"id": 1, "op": "chart", "width": 860}
    took, worked = [], time.process_time()
    for _ in range(TIMES):
        began = time.perf_counter()
        reply = panel.handle(request)
        took.append((time.perf_counter() - began) * 1e3)
        assert "error" not in reply, reply
    report.figure(f"{name}_cpu_ms", (time.process_time() - worked) * 1e3 / TIMES)
    report.figure(f"{name}_reply_kb", len(json.dumps(reply)) / 1024)
    report.goal(f"{name}_ms", percentile(took, 0.5), at_most=goal_ms)
    if name == "line":
        began = time.perf_counter()
        assert panel.handle({**request, "since_version": reply["version"]})["unchanged"]
        report.figure("unchanged_ms", (time.perf_counter() - began) * 1e3)


def _measure_rates(report: Report, lake: Lake) -> None:
    """Of an hour in which all of it was committed: as many records as are looked at, at most."""
    say("rates")
    panel, worked, began = RatesPanel(lake.rates("1h")), time.process_time(), time.perf_counter()
    reply = panel.handle({"id": 1, "op": "chart"})
    report.figure("rates_ms", (time.perf_counter() - began) * 1e3)
    report.figure("rates_cpu_ms", (time.process_time() - worked) * 1e3)
    report.figure("rates_reply_kb", len(json.dumps(reply)) / 1024)


if __name__ == "__main__":
    sys.exit(main())
