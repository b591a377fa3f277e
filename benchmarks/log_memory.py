"""What maintenance holds in memory: a base of a table, and compaction of a keyed event topic, each in a process.

Flat means that the peak does not follow the keys: it is measured with a fifth of them first.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.harness import Report, run, say
from benchmarks.log_data import BLOCK_ROWS, TABLE, TABLE_COLUMNS, Producer, accounts, limits, seal_all
from benchmarks.log_table import write_keys
from headwater.catalog.records import TopicSettings
from headwater.log import Log, base, open_log
from headwater.schema import Schema

KEYS, QUICK_KEYS = 10_000_000, 1_000_000
GOAL_MB = 1024.0
"""Everything the process holds, its code included, in units of 10^6 bytes."""
TIMEOUT_S = 1800.0


def measure(report: Report, folder: Path, quick: bool) -> None:
    """Peak and time of a process that does one of them, for a fifth of the keys and for all."""
    most = QUICK_KEYS if quick else KEYS
    for keys in (most // 5, most):
        for task in ("base", "rebase", "compact"):
            where = folder / f"{'compact' if task == 'compact' else 'base'}-{keys}"
            if not where.exists():
                _write(where, task, keys)
            command = [sys.executable, "-m", "benchmarks.log", "--child", json.dumps([task, str(where)])]
            cost = run(command, timeout=TIMEOUT_S, stdout=subprocess.PIPE)
            if cost.exit_code:
                raise SystemExit(f"memory: {task} of {keys:,} keys failed")
            say(f"memory: {task} of {keys:,} keys {cost.wall_s:.0f} s")
            name = f"memory_{task}_{'all' if keys == most else 'fifth'}"
            report.figure(f"{name}_s", cost.wall_s)
            if keys == most:
                report.goal(f"{name}_peak_mb", cost.peak_mb, at_most=GOAL_MB)
            else:
                report.figure(f"{name}_peak_mb", cost.peak_mb)
    report.figure("memory_keys", most)
    report.note("memory: base folds all records, rebase advances that base by 1 % changed keys, compact drops half")


def _write(where: Path, task: str, keys: int) -> None:
    with open_log(where, create=True) as log:
        writer = Producer(log)
        schema = Schema.of(TABLE_COLUMNS, key=["id"])
        if task != "compact":
            writer.create(TABLE, "table", schema)
            write_keys(log, writer, keys)
            return
        with log.transaction(writer.name, writer.epoch) as tx:
            tx.create_topic(TABLE, "event", schema, settings=TopicSettings(cleanup="compact"))
            tx.commit()
        for version in range(2):
            for first in range(0, keys, BLOCK_ROWS):
                ids = np.arange(first, min(first + BLOCK_ROWS, keys))
                writer.write({TABLE: accounts(ids, "c", version).drop_columns(["_op"])})
            seal_all(log)


def child(text: str) -> int:
    """The work of one measured process."""
    task, folder = json.loads(text)
    with open_log(Path(folder)) as log:
        {"base": _base, "rebase": _rebase, "compact": _compact}[task](log)
    return 0


def _base(log: Log) -> None:
    base.write(log, log.topic(TABLE), log.newest_commit(), limits())


def _rebase(log: Log) -> None:
    writer = Producer(log)
    found = base.newest(log, log.topic(TABLE), log.newest_commit())
    assert found is not None
    writer.write({TABLE: accounts(np.arange(0, found.rows, 100), "u", 3)})
    base.write(log, log.topic(TABLE), log.newest_commit(), limits())


def _compact(log: Log) -> None:
    from headwater.log import compaction

    before = log.topic(TABLE)
    gone = compaction.compact(log, before, log.newest_commit(), replace(limits()), force=True)
    if not gone:
        raise SystemExit("nothing was compacted")
