"""What a live table costs over a large table: pages, orders, filters, searches, polls, and the first paint.

    python -m benchmarks.panels [--quick] [--json] [--folder FOLDER]

A table of 10 M keys (``--quick``: 1 M), 1 % of them changed since its base, and an event topic of as many records
are written through the log. One process then answers a panel's requests for pages of 100 rows, as a kernel does; what
a request costs is the median over repetitions, on the clock (``_ms``) and on the processors (``_cpu_ms``, all threads),
and filters and searches are new ones each time, so that no total is known. Beside the first page and beside a sorted
one runs plain DuckDB with the same ``ORDER BY ... LIMIT 100`` over the table's base file, in turn, and a ratio is the
median of those of neighbouring runs. The paint is measured in a headless chromium, from the moment when the page gets
the reply to the end of the frame that shows it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from benchmarks.harness import Report, parse, run, say
from benchmarks.log_data import (
    BLOCK_ROWS,
    EVENT_COLUMNS,
    EVENTS,
    SEED,
    TABLE,
    TABLE_COLUMNS,
    Producer,
    accounts,
    alternate,
    events,
    limits,
    ratio,
    seal_all,
)
from benchmarks.log_table import write_keys
from headwater import duck
from headwater.lake import open_lake
from headwater.log import Log, base, open_log
from headwater.schema import Schema
from headwater_notebooks.pages import Pages
from headwater_notebooks.table_panel import TablePanel

KEYS, QUICK_KEYS = 10_000_000, 1_000_000
REPEAT, QUICK_REPEAT = 7, 5
ROWS, CHANGES = 100, 1_000
SECONDS = 600.0
"""What a person would not wait for is measured, too."""
TABLE_QUERY = "SELECT * FROM accounts ORDER BY id"
GOAL_PAGE_MS, GOAL_SORT_MS, GOAL_PAINT_MS = 100.0, 1_000.0, 300.0
GOALS = {
    "page_ms": GOAL_PAGE_MS,
    "page_after_a_commit_ms": GOAL_PAGE_MS,
    "deep_page_ms": GOAL_PAGE_MS,
    "sort_ms": GOAL_SORT_MS,
    "sort_text_ms": GOAL_SORT_MS,
    "filter_ms": GOAL_SORT_MS,
    "contains_ms": GOAL_SORT_MS,
    "first_paint_ms": GOAL_PAINT_MS,
}
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]

Ask = Mapping[str, Any]

_HOST = """<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="/panel.css"><div id="host"></div>
<script type="module">
import panel from "/panel.js";
const traits = TRAITS, listeners = new Map();
const heard = (event) => listeners.get(event) || listeners.set(event, new Set()).get(event);
window.painted = new Promise((done) => {
  const model = {
    get: (name) => traits[name], set: (name, value) => { traits[name] = value; }, save_changes: () => {},
    on: (event, listener) => heard(event).add(listener), off: (event, listener) => heard(event).delete(listener),
    send: async (request) => {
      const reply = await window.kernel(request);
      const began = performance.now();
      heard("msg:custom").forEach((listener) => listener(reply));
      requestAnimationFrame(() => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = () => done(performance.now() - began); // the frame is out when this comes
        port2.postMessage(null);
      });
    },
  };
  panel.render({ model, el: document.getElementById("host") });
});
</script>"""


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(_answers(Path(sys.argv[2]), int(sys.argv[3]))))
        return 0
    options = parse("panels", (__doc__ or "").split("\n")[0], _more)
    report = Report("panels", quick=options.quick)
    keys, repeat = (QUICK_KEYS, QUICK_REPEAT) if options.quick else (KEYS, REPEAT)
    with tempfile.TemporaryDirectory(prefix="headwater-panels-", dir=options.folder) as folder:
        lake = Path(folder) / "lake"
        _write(lake, keys)
        cost = run([sys.executable, "-m", "benchmarks.panels", "--child", str(lake), str(repeat)], timeout=1800)
        figures: dict[str, float] = json.loads(cost.stdout) if cost.exit_code == 0 else {}
        if not figures:
            raise RuntimeError(f"the process that answers ended with {cost.exit_code}")
        say(f"answers: {cost.wall_s:.0f} s")
        figures["first_paint_ms"], figures["first_paint_of_500_rows_ms"] = _paints(lake, repeat)
    for name, value in figures.items():
        if name in GOALS:
            report.goal(name, value, at_most=GOALS[name])
        else:
            report.figure(name, value)
    report.figure("answers_cpu_s", cost.cpu_s)
    report.figure("answers_peak_mb", cost.peak_mb)
    report.figure("rows", keys)
    return report.finish(as_json=options.json)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", type=Path, help="where the lake is written (default: the temporary folder)")


def _write(folder: Path, keys: int) -> None:
    began = time.monotonic()
    with open_log(folder, create=True) as log:
        writer = Producer(log)
        writer.create(TABLE, "table", Schema.of(TABLE_COLUMNS, key=["id"]))
        write_keys(log, writer, keys)
        base.write(log, log.topic(TABLE), log.newest_commit(), limits())
        changed = np.random.default_rng(SEED).permutation(keys)[: keys // 100]
        for part in np.array_split(changed, max(1, len(changed) // 20_000)):
            writer.write({TABLE: accounts(part, "u", 1)})
        writer.create(EVENTS, "event", Schema.of(EVENT_COLUMNS))
        for place, first in enumerate(range(0, keys, BLOCK_ROWS)):
            writer.write({EVENTS: events(first, min(BLOCK_ROWS, keys - first))})
            if place % 4 == 3:
                seal_all(log)
        seal_all(log)
    say(f"written: {time.monotonic() - began:.0f} s")


def _answers(folder: Path, repeat: int) -> dict[str, float]:
    """What each kind of request takes, in a process that does nothing else."""
    with open_log(folder) as log, open_lake(folder) as lake:
        table = TablePanel(Pages(lake, TABLE_QUERY, seconds=SECONDS))
        figures = _cost("first_answer", 1, lambda: _ask(table))
        figures |= _beside_plain(log, table, repeat)
        figures |= _cost("page", repeat, lambda: _ask(table))
        figures |= _after_commits(Producer(log), table, repeat)
        version = _ask(table)["version"]
        figures |= _cost("unchanged_poll", repeat, lambda: _ask(table, since_version=version))
        middle = str(int(_ask(table)["total"]) // 2)
        figures |= _cost("deep_page", repeat, lambda: _ask(table, key={"values": [middle], "skip": 1}))
        figures |= _cost("last_page", repeat, lambda: _ask(table, backwards=True))
        figures |= _searching(table, repeat)
        figures |= _cost("change_log", repeat, lambda: _ask(table, show="log"))
        figures |= _cost("history_of_a_key", repeat, lambda: _ask(table, show="history", of=[middle]))
        keyless = TablePanel(Pages(lake, "SELECT * FROM orders", seconds=SECONDS))
        figures |= _cost("events_page", repeat, lambda: _ask(keyless))
        sort = [{"column": "discount", "descending": True}]
        figures |= _cost("events_sort", repeat, lambda: _ask(keyless, sort=sort))
    return figures


def _searching(table: TablePanel, repeat: int) -> dict[str, float]:
    number = itertools.count(1)
    score = [{"column": "score", "descending": True}]
    asks: dict[str, Callable[[], Ask]] = {
        "sort": lambda: {"sort": score},
        "sort_text": lambda: {"sort": [{"column": "city"}]},
        "filter": lambda: {"filters": [{"column": "score", "op": ">", "value": f"0.99{next(number)}"}]},
        "filter_of_half": lambda: {"filters": [{"column": "score", "op": ">", "value": f"0.5{next(number)}"}]},
        "contains": lambda: {"filters": [{"column": "name", "op": "contains", "value": f"99{next(number)}"}]},
        "search_letters": lambda: {"search": f"city {next(number)}"},
        "search_digits": lambda: {"search": f"777{next(number)}"},
    }
    found: dict[str, float] = {}
    for name, wish in asks.items():
        found |= _cost(name, repeat, lambda wish=wish: _ask(table, **wish()))  # type: ignore[misc]
    return found


def _beside_plain(log: Log, table: TablePanel, repeat: int) -> dict[str, float]:
    found = base.newest(log, log.topic(TABLE), log.newest_commit())
    assert found is not None
    file = f"read_parquet('{log.storage.path(found.path)}')"
    wishes: dict[str, tuple[str, Ask]] = {
        "page": ("id", {}),
        "sort": ("score DESC NULLS LAST, id", {"sort": [{"column": "score", "descending": True}]}),
    }
    figures = {}
    with duck.connect(memory_limit=f"{limits().query_memory_bytes_max // 2**20}MiB") as plain:
        for name, (order, wish) in wishes.items():
            query = f"SELECT * FROM {file} ORDER BY {order} LIMIT {ROWS}"
            panel = partial(_ask, table, **wish)
            pair: dict[str, Callable[[], object]] = {"panel": panel, "plain": partial(_run, plain, query)}
            alternate(1, **pair)
            seconds = alternate(repeat, **pair)
            figures[f"plain_{name}_ms"] = statistics.median(seconds["plain"]) * 1000
            figures[f"{name}_times_plain"] = ratio(seconds["panel"], seconds["plain"])
    return figures


def _run(plain: duckdb.DuckDBPyConnection, query: str) -> object:
    return plain.sql(query).fetchall()


def _after_commits(writer: Producer, table: TablePanel, repeat: int) -> dict[str, float]:
    """The page after 1,000 more rows have changed: what every round of a live panel costs."""
    chance = np.random.default_rng(SEED + 1)

    def change() -> None:
        writer.write({TABLE: accounts(chance.integers(0, QUICK_KEYS, CHANGES), "u", 2)})

    return _cost("page_after_a_commit", repeat, lambda: _ask(table), change)


def _paints(folder: Path, repeat: int) -> tuple[float, float]:
    """Milliseconds from a reply of 100 rows, and of 500, to the frame that shows it; the median over new pages."""
    from playwright.sync_api import sync_playwright

    with open_lake(folder) as lake, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        found = []
        for rows in (ROWS, 500):
            panel = TablePanel(Pages(lake, TABLE_QUERY), page_rows=rows)
            traits = {"_page_rows": rows, "_interval_ms": 500, "_sql": TABLE_QUERY, "at": ""}
            parts = {
                "/": ("text/html", _HOST.replace("TRAITS", json.dumps(traits))),
                "/panel.js": ("text/javascript", panel._esm),
                "/panel.css": ("text/css", panel._css),
            }
            taken = []
            for _ in range(repeat):
                page = browser.new_page(viewport={"width": 1200, "height": 800})
                page.expose_function("kernel", panel.handle)
                page.route("**/*", partial(_serve, parts))
                page.goto("http://panel.localhost/")
                page.wait_for_function("() => window.painted")
                taken.append(float(page.evaluate("() => window.painted")))
                page.close()
            found.append(statistics.median(taken))
        browser.close()
    return found[0], found[1]


def _serve(parts: Mapping[str, tuple[str, str]], route: Any) -> None:
    kind, text = parts.get("/" + route.request.url.split("/", 3)[3], ("text/plain", ""))
    route.fulfill(content_type=f"{kind}; charset=utf-8", body=text)


def _ask(panel: TablePanel, **wish: Any) -> dict[str, Any]:
    reply = panel.handle({"id": 1, "op": "page", "limit": ROWS, **wish})
    if "error" in reply:
        raise RuntimeError(str(reply["error"]))
    return reply


def _cost(
    name: str, repeat: int, run: Callable[[], object], before: Callable[[], object] = lambda: None
) -> dict[str, float]:
    """Medians of milliseconds on the clock and on the processors; ``before`` each is not counted."""
    clock, processors = [], []
    for _ in range(repeat):
        before()
        began, spent = time.perf_counter(), time.process_time()
        run()
        clock.append((time.perf_counter() - began) * 1000)
        processors.append((time.process_time() - spent) * 1000)
    return {f"{name}_ms": statistics.median(clock), f"{name}_cpu_ms": statistics.median(processors)}


if __name__ == "__main__":
    sys.exit(main())
