"""How long Dagster takes to load a project's definitions: of a project with few views, and of one with a hundred.

    python -m benchmarks.definitions [--quick] [--json]

Each load is a process of its own, as a code server's, a run's, and that of `dagster definitions validate` are; the
middle of several counts. Seconds are of CPU, from the start of the process to the definitions: Dagster's own imports,
which are a figure of their own, are within. Nothing else is to be running.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import Report, parse
from headwater.log import open_log
from headwater.ownership import own
from headwater.schema import Schema
from headwater_dagster.inventory import PROJECT_VARIABLE

VIEWS = {"few": 8, "hundred": 100}
TIMES, QUICK_TIMES = 7, 3
GOAL_S = 1.5
TABLES = {
    "orders": Schema.of({"id": "BIGINT", "customer": "BIGINT", "amount": "DECIMAL(18,2)"}, key=["id"]),
    "customers": Schema.of({"id": "BIGINT", "country": "VARCHAR"}, key=["id"]),
}
QUERY = """SELECT c.country, count(*) AS orders_{n}, sum(o.amount) AS total FROM orders o
JOIN customers c ON c.id = o.customer WHERE o.amount > {n} GROUP BY c.country"""
COLUMNS = {"country": "VARCHAR", "orders_{n}": "BIGINT", "total": "DECIMAL(38,2)"}
LOAD = """
import json, sys, time
import dagster
alone = time.process_time()
import headwater_dagster.definitions as loaded
took = time.process_time()
found = [spec for each in loaded.defs.assets or () for spec in getattr(each, "specs", [each])]
drawn = sum("dagster/column_lineage" in spec.metadata for spec in found)
print(json.dumps([alone, took, drawn]))
"""


def main() -> int:
    options = parse("definitions", (__doc__ or "").splitlines()[0])
    report = Report("definitions", quick=options.quick)
    for name, views in VIEWS.items():
        with tempfile.TemporaryDirectory() as folder:
            _write(Path(folder), views)
            loads = [_load(Path(folder), views) for _ in range(QUICK_TIMES if options.quick else TIMES)]
        report.figure(f"{name}_dagster_s", statistics.median(alone for alone, _ in loads))
        report.goal(f"{name}_s", statistics.median(took for _, took in loads), at_most=GOAL_S)
    return report.finish(as_json=options.json)


def _write(root: Path, views: int) -> None:
    """A project whose views have been built: their columns are known."""
    (root / "headwater.toml").write_text('[project]\nname = "definitions"\n')
    with open_log(root / "lake", create=True) as log, own(log, "source:shop") as owner:
        with log.transaction("source:shop", owner.epoch, None) as tx:
            for table, schema in TABLES.items():
                tx.create_topic(f"shop.public.{table}", "table", schema, source="shop")
            for n in range(views):
                columns = {name.format(n=n): kind for name, kind in COLUMNS.items()}
                tx.create_topic(f"views.v{n}", "changelog", Schema.of(columns))
            tx.position = "0/1"
            tx.commit()
        for n in range(views):
            log.create_view(f"v{n}", QUERY.format(n=n), {})


def _load(root: Path, views: int) -> tuple[float, float]:
    """CPU seconds until Dagster is imported, and until the definitions are there."""
    environment = {**os.environ, PROJECT_VARIABLE: str(root)}
    done = subprocess.run([sys.executable, "-c", LOAD], env=environment, capture_output=True, text=True, check=True)
    alone, took, drawn = json.loads(done.stdout)
    if drawn < views:
        raise SystemExit(f"the lineage of {views - drawn} views is not drawn")
    return alone, took


if __name__ == "__main__":
    sys.exit(main())
