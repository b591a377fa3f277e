"""What the log costs its producers, its readers and its catalog.

    python -m benchmarks.log [--quick] [--json] [--only NAME ...]

    produce     1,000-row durable commits beside their floor: the same bytes, two fsyncs and a SQLite commit; throughput
    scan        aggregations over 50 M rows through ``lake.sql`` beside DuckDB's ``read_parquet`` on the sealed files
    table       current rows of 10 M keys, 1 % and 10 % changed since the base, beside DuckDB reading the base
    hot         one topic behind a full hot tier that it shares with others
    segments    opening a reader on a catalog of 1 M segments: over 1,000 topics, and of one topic
    day         the catalog's size after a day of 50 commits a second
    memory      what writing a base and compacting 10 M keys hold in memory
    groups      1, 8 and 32 consumer groups on one topic

What is compared alternates in one run, and a ratio is the median of those of neighbouring runs, so that a machine
which is slower for a minute is so for both. Everything is written through the log itself, but for the rows of
``segments`` and ``day``, which bulk SQL puts into the catalog.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import log_catalog, log_groups, log_hot, log_memory, log_produce, log_scan, log_table
from benchmarks.harness import Report, parse, say

PARTS: dict[str, Callable[[Report, Path, bool], None]] = {
    "produce": log_produce.measure,
    "scan": log_scan.measure,
    "table": log_table.measure,
    "hot": log_hot.measure,
    "segments": log_catalog.measure_segments,
    "day": log_catalog.measure_day,
    "memory": log_memory.measure,
    "groups": log_groups.measure,
}


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        return log_memory.child(sys.argv[2])
    options = parse("log", (__doc__ or "").split("\n")[0], _more)
    report = Report("log", quick=options.quick)
    for name in options.only or PARTS:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"headwater-{name}-", dir=options.folder) as folder:
            PARTS[name](report, Path(folder), options.quick)
        say(f"{name}: {time.monotonic() - began:.0f} s")
    return report.finish(as_json=options.json)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", choices=list(PARTS), help="measure only these parts")
    parser.add_argument("--folder", type=Path, help="where the lakes are written (default: the temporary folder)")


if __name__ == "__main__":
    sys.exit(main())
