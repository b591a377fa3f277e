"""Current rows of a large keyed table: through the lake, beside reading its base straight."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import duckdb
import numpy as np

from benchmarks.harness import Report, say
from benchmarks.log_data import (
    BLOCK_ROWS,
    SEED,
    TABLE,
    TABLE_COLUMNS,
    Producer,
    accounts,
    alternate,
    limits,
    ratio,
    seal_all,
)
from benchmarks.processes import Meter
from headwater import duck
from headwater.lake import Lake, open_lake
from headwater.log import Log, base, open_log, read
from headwater.schema import Schema

KEYS, QUICK_KEYS = 10_000_000, 1_000_000
REPEAT, QUICK_REPEAT = 5, 3
CHANGES = 1_000
GOAL_TIMES_BASE, GOAL_SECOND_MS = 2.0, 50.0
LOOK_UP = "SELECT * FROM accounts WHERE id = $id"
QUERIES = {
    "all": f"SELECT {', '.join(f'max({name})' for name in TABLE_COLUMNS)} FROM {{}}",
    "one": "SELECT sum(visits) FROM {}",
    "group": "SELECT city, count(*), sum(balance) FROM {} GROUP BY city",
}


def measure(report: Report, folder: Path, quick: bool) -> None:
    """1 % and then 10 % of the keys changed since the base; the second read after 1,000 more changes."""
    keys, repeat = (QUICK_KEYS, QUICK_REPEAT) if quick else (KEYS, REPEAT)
    with open_log(folder / "lake", create=True) as log:
        writer = Producer(log)
        writer.create(TABLE, "table", Schema.of(TABLE_COLUMNS, key=["id"]))
        write_keys(log, writer, keys)
        with Meter(os.getpid()) as meter:
            began = time.perf_counter()
            base.write(log, log.topic(TABLE), log.newest_commit(), limits())
            report.figure("table_base_write_s", time.perf_counter() - began)
        report.figure("table_base_write_cpu_s", meter.cpu_s)
        chance = np.random.default_rng(SEED)
        changed = chance.permutation(keys)[: keys // 10]
        for share, ids in {"1_percent": changed[: keys // 100], "10_percent": changed[keys // 100 :]}.items():
            for part in np.array_split(ids, max(1, len(ids) // 20_000)):
                writer.write({TABLE: accounts(part, "u", 1)})
            say(f"table: {share} changed")
            _read(report, log, writer, share, repeat)
    report.figure("table_keys", keys)


def write_keys(log: Log, writer: Producer, keys: int) -> None:
    """The table's first rows, sealed."""
    for place, first in enumerate(range(0, keys, BLOCK_ROWS)):
        rows = accounts(np.arange(first, min(first + BLOCK_ROWS, keys)), "c", place)
        writer.write({TABLE: rows})
        if place % 4 == 3:
            seal_all(log)
    seal_all(log)


def _read(report: Report, log: Log, writer: Producer, share: str, repeat: int) -> None:
    found = base.newest(log, log.topic(TABLE), log.newest_commit())
    assert found is not None
    straight = f"read_parquet('{log.storage.path(found.path)}')"
    held = share == "1_percent"
    with duck.connect(memory_limit=f"{limits().query_memory_bytes_max // 2**20}MiB") as plain:
        _first(report, log, plain, straight, share, repeat)
        with open_lake(log.folder) as lake:
            for name, query in QUERIES.items():
                run = _both(lake, plain, query, straight)
                alternate(1, **run)
                seconds = alternate(repeat, **run)
                report.figure(f"table_{share}_{name}_ms", statistics.median(seconds["through"]) * 1000)
                times = ratio(seconds["through"], seconds["straight"])
                if name == "all" and held:
                    report.goal(f"table_{share}_{name}_times_base", times, at_most=GOAL_TIMES_BASE)
                else:
                    report.figure(f"table_{share}_{name}_times_base", times)
            _second(report, log, writer, lake, share, repeat)


def _both(lake: Lake, plain: duckdb.DuckDBPyConnection, query: str, straight: str) -> dict[str, Callable[[], object]]:
    return {
        "straight": lambda: plain.sql(query.format(straight)).to_arrow_table(),
        "through": lambda: lake.sql(query.format("accounts")),
    }


def _first(report: Report, log: Log, plain: duckdb.DuckDBPyConnection, straight: str, share: str, repeat: int) -> None:
    """The first answer of a reader that has just opened the lake: it folds the changes too."""

    def first() -> None:
        with open_lake(log.folder) as lake:
            lake.sql(QUERIES["all"].format("accounts"))

    seconds = alternate(repeat, base=lambda: plain.sql(QUERIES["all"].format(straight)).to_arrow_table(), first=first)
    report.figure(f"table_{share}_base_ms", statistics.median(seconds["base"]) * 1000)
    report.figure(f"table_{share}_first_ms", statistics.median(seconds["first"]) * 1000)
    times = ratio(seconds["first"], seconds["base"])
    if share == "1_percent":
        report.goal(f"table_{share}_first_times_base", times, at_most=GOAL_TIMES_BASE)
    else:
        report.figure(f"table_{share}_first_times_base", times)


def _second(report: Report, log: Log, writer: Producer, lake: Lake, share: str, repeat: int) -> None:
    """After 1,000 more changes: what the same query costs more than once more, less what reading the changes costs."""
    look_ups, more, alone = [], [], []
    chance = np.random.default_rng(SEED + 1)
    keys = int(lake.sql("SELECT max(id) + 1 FROM accounts").scalar())
    for _ in range(3 * repeat):
        before = log.newest_commit()
        writer.write({TABLE: accounts(chance.integers(0, keys, CHANGES), "u", 2)})
        look_up = partial(lake.sql, LOOK_UP, params={"id": int(chance.integers(0, keys))})
        seconds = [_time(look_up) for _ in range(2)]
        look_ups.append(seconds[1])
        alone.append(_time(partial(read.changes, log, log.topic(TABLE), before, log.newest_commit())))
        more.append(seconds[0] - seconds[1] - alone[-1])
    report.figure(f"table_{share}_lookup_ms", statistics.median(look_ups) * 1000)
    report.figure(f"table_{share}_changes_ms", statistics.median(alone) * 1000)
    if share == "1_percent":
        report.goal(f"table_{share}_second_read_ms", statistics.median(more) * 1000, at_most=GOAL_SECOND_MS)
    else:
        report.figure(f"table_{share}_second_read_ms", statistics.median(more) * 1000)


def _time(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
