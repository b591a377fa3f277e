"""How long the operating panels' answers take: names of 1,000 tables, 100,000 dead letters, a replay, and health.

Asked as the page asks, of the panels' own handlers, without a browser. A reply is to take less than 100 ms, so that a
page feels at hand; one that says that nothing has changed is what a panel costs while it is looked at.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.harness import Report, parse, percentile, say
from headwater.config import Settings
from headwater.lake import Lake, open_lake
from headwater.log import open_log
from headwater.log.system import transaction
from headwater.schema import Schema
from headwater_notebooks.backfill_panel import BackfillPanel
from headwater_notebooks.dead_letters_panel import DeadLettersPanel
from headwater_notebooks.panel import Panel
from headwater_notebooks.schema_panel import SchemaPanel
from headwater_pipelines import api
from headwater_pipelines.runtime import worker

TABLES, COLUMNS = 1_000, 50
LETTERS, QUICK_LETTERS = 100_000, 20_000
BATCH = 5_000
RARE = 500
"""One of so many letters has the other cause."""
ASKED, QUICK_ASKED = 50, 15
GOAL_MS = 100.0


def main() -> int:
    options = parse("operating", "answers of the schema, dead letter and replay panels, and lake.health()")
    report = Report("operating", quick=options.quick)
    letters, asked = (QUICK_LETTERS, QUICK_ASKED) if options.quick else (LETTERS, ASKED)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "headwater.toml").write_text('[project]\nname = "operating"\n')
        open_log(root / "lake", create=True).close()
        with open_lake(root) as lake:
            _fill(lake, letters)
            _measure(report, lake, asked)
    return report.finish(as_json=options.json)


def _fill(lake: Lake, letters: int) -> None:
    say(f"creating {TABLES:,} tables of {COLUMNS} columns")
    columns = Schema.of({f"column_{number}": "BIGINT" for number in range(COLUMNS)})
    with transaction(lake.log, "system:benchmark") as tx:
        for number in range(TABLES):
            tx.create_topic(f"big.public.table_{number:04}", "event", columns)
        tx.commit()
    lake.create_topic("app.clicks", {"user": "BIGINT", "page": "VARCHAR"})
    say(f"setting {letters:,} records aside")
    bad = [{"user": f"u{n}", "page": "/"} if n % RARE else {"user": 1, "ref": "x"} for n in range(BATCH)]
    with lake.producer(on_error="dead_letter") as producer:
        producer.send("clicks", [{"user": n % 100, "page": "/"} for n in range(BATCH)])
        for _ in range(letters // BATCH):
            producer.send("clicks", bad)
    api.create_view(lake, "SELECT user, count(*) AS n FROM clicks GROUP BY user", name="visits")
    worker.run(lake.log, Settings(), threading.Event(), until_caught_up=True)


def _measure(report: Report, lake: Lake, asked: int) -> None:
    process = psutil.Process()
    cpu = sum(process.cpu_times()[:2])
    schema, letters = SchemaPanel(lake.schema()), DeadLettersPanel(lake.dlq)
    replay = BackfillPanel(lake.replay("visits"))
    cause = {"topic": "app.clicks", "cause": "InvalidRecords at ref"}
    questions: list[tuple[str, Panel, Mapping[str, Any]]] = [
        ("schema_names", schema, {"op": "browse"}),
        ("schema_search", schema, {"op": "browse", "search": "column_49"}),
        ("schema_table", schema, {"op": "browse", "chosen": "big.public.table_0500"}),
        ("schema_past", schema, {"op": "browse", "at": str(lake.position() - 1)}),
        ("letters_page", letters, {"op": "list"}),
        ("letters_rare", letters, {"op": "list", **cause}),
        ("replay_state", replay, {"op": "state"}),
    ]
    for name, panel, request in questions:
        reply, milliseconds = _asked(lambda panel=panel, request=request: panel.handle({"id": "1", **request}), asked)  # type: ignore[misc]
        assert "error" not in reply, reply
        report.figure(f"{name}_p50_ms", median(milliseconds))
        report.goal(f"{name}_p95_ms", percentile(milliseconds, 0.95), at_most=GOAL_MS)
        report.figure(f"{name}_kib", len(json.dumps(reply)) / 1024)
        same = {"id": "1", **request, "since_version": reply["version"]}
        _, milliseconds = _asked(lambda panel=panel, same=same: panel.handle(same), asked)  # type: ignore[misc]
        report.figure(f"{name}_unchanged_p50_ms", median(milliseconds))
    _, milliseconds = _asked(lake.health, asked)
    report.figure("health_p50_ms", median(milliseconds))
    report.figure("cpu_s", sum(process.cpu_times()[:2]) - cpu)
    report.figure("rss_mb", process.memory_info().rss / 2**20)


def _asked(ask: Callable[[], Any], times: int) -> tuple[Any, list[float]]:
    """The last answer, and milliseconds of each; the first, which fills what is kept, is not counted."""
    answer, taken = ask(), []
    for _ in range(times):
        began = time.perf_counter()
        answer = ask()
        taken.append((time.perf_counter() - began) * 1e3)
    return answer, taken


if __name__ == "__main__":
    sys.exit(main())
