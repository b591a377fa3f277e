"""What crash tests kill and cut off: a process that captures a known history, seals it, and writes bases.

Its source is a seeded history of numbered batches over two tables, its position the number of batches that are
durable. Whatever happens to it, a later run goes on from the stored position; each run may take another number of
batches into one commit, as a source does that has fallen behind. ``check_folder`` is the oracle: what is there is a
prefix of the source that holds all that was acknowledged.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from headwater import failpoint
from headwater.config import Settings
from headwater.lake import open_lake
from headwater.log import Log, base, open_log, recovery, seal
from headwater.log.verify import verify
from headwater.ownership import own
from headwater.testing.changes import BagHistory, KeyedHistory

KEYED, BAG = "shop.public.t", "shop.public.bag"
PRODUCER = "source:shop"
COUNT = 8
"""Batches of the source: enough for a seal and a base in the midst, and commits before, between and after them."""
LIMITS = replace(Settings(), row_group_rows=32)
IDENTITY = {KEYED: ["_lsn", "_seq", "_op", "a", "b"], BAG: ["_op", "_weight", "x", "y"]}
"""Columns that say which record of the source a stored one is."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A piece of the source, and the rows of each table after it."""

    tables: dict[str, pa.Table]
    rows: dict[str, Counter[tuple[Any, ...]]]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What a crash test runs, and how it knows that nothing was lost, doubled or made up.

    ``run(folder, acknowledged, seed, again)`` works on the lake in ``folder`` to its end, from wherever it stands
    (``again``: a run after a crash), and calls ``acknowledge`` once a position is durable. ``stands(log,
    acknowledged, complete)`` raises AssertionError when the log does not stand where it was said to, which costs
    next to nothing; ``check(log, seed)`` unless every record and row is what it must be there.
    """

    run: Callable[[Path, Path, int, bool], None]
    stands: Callable[[Log, Sequence[str], bool], None]
    check: Callable[[Log, int], None]


def batches(seed: int, count: int = COUNT) -> list[Batch]:
    keyed, bag = KeyedHistory(seed), BagHistory(seed, "multiset")
    return [
        Batch(
            tables={KEYED: keyed.commit(), BAG: bag.commit()},
            rows={KEYED: Counter(keyed.expected()), BAG: Counter(bag.expected())},
        )
        for _ in range(count)
    ]


def run(folder: Path, acknowledged: Path, seed: int, again: bool = False, plan: str = "") -> None:
    """Capture everything, one batch to a commit (``again``: three), with sealing and a base on the way.

    Writes each position to ``acknowledged`` once it is durable. ``plan`` is what HEADWATER_FAILPOINTS would hold.
    """
    if plan:
        failpoint.follow(plan)
    source = batches(seed)
    with open_log(Path(folder), create=True) as log, own(log, PRODUCER) as owner:
        done = int(log.producer(PRODUCER).position or 0)
        if not log.topics():
            _create(log, owner.epoch)
        while done < COUNT:
            last = min(done + (3 if again else 1), COUNT)
            _commit(log, owner.epoch, done, last, source[done:last])
            acknowledge(Path(acknowledged), str(last))
            done = last
            if done in (COUNT // 3, COUNT // 3 + 1):
                seal.seal(log, LIMITS)
            if done in (COUNT // 2, COUNT // 2 + 1):
                base.write(log, log.topic(KEYED), log.newest_commit(), LIMITS)
        log.set_confirmed(PRODUCER, str(done))
        seal.seal(log, LIMITS)
        base.write(log, log.topic(BAG), log.newest_commit(), LIMITS)
        recovery.remove_retired(log, grace_s=0)
        recovery.remove_orphans(log, grace_s=0)


def acknowledge(path: Path, what: str) -> None:
    """Tell the world that ``what`` is durable: a line of a file that belongs to the test."""
    failpoint.hit("acknowledge:before")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, f"{what}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    failpoint.hit("acknowledge:after")


def stands(log: Log, acknowledged: Sequence[str], complete: bool) -> None:
    position = int(log.producer(PRODUCER).position or 0)
    assert position >= max((int(each) for each in acknowledged), default=0), "an acknowledged position is gone"
    assert position == COUNT or not complete


def check(log: Log, seed: int) -> None:
    """What is there is exactly the source up to the stored position."""
    position = int(log.producer(PRODUCER).position or 0)
    source = batches(seed)
    with open_lake(log.folder) as lake:
        for name in (KEYED, BAG) if log.topics() else ():
            _check_records(log, name, [batch.tables[name] for batch in source[:position]])
            truth = source[position - 1].rows[name] if position else Counter()
            assert Counter(lake.sql(f"SELECT * FROM {name.rpartition('.')[2]}").fetchall()) == truth


def check_folder(
    workload: Workload, folder: Path, seed: int, acknowledged: Sequence[str], *, complete: bool, rows: bool = True
) -> None:
    """The oracle for any workload's lake, whatever was left of it: opens, verifies, and its own checks."""
    if not (folder / "catalog.sqlite").exists():
        assert not acknowledged, "something was acknowledged and there is no catalog"
        assert not complete
        return
    with open_log(folder, create=True) as log:
        workload.stands(log, acknowledged, complete)
        findings = verify(log, deep=True).findings
        assert not findings, findings
        for manifest in (folder / "manifests").glob("*.json"):
            json.loads(manifest.read_bytes())  # old or new, but whole
        if rows:
            workload.check(log, seed)


def _check_records(log: Log, name: str, tables: list[pa.Table]) -> None:
    columns = IDENTITY[name]
    sent = Counter(tuple(row.values()) for table in tables for row in table.select(columns).to_pylist())
    found = log.read_changes(name, 0, log.newest_commit(), [*columns, "_partition", "_offset"]).to_pylist()
    for partition in {row["_partition"] for row in found}:
        offsets = [row["_offset"] for row in found if row["_partition"] == partition]
        assert offsets == list(range(len(offsets))), f"offsets of partition {partition} of {name} are not dense"
    # A truncate stands in both partitions.
    kept = [row for row in found if row["_op"] != "t" or row["_partition"] == 0]
    assert Counter(tuple(row[column] for column in columns) for row in kept) == sent


def _create(log: Log, epoch: int) -> None:
    with log.transaction(PRODUCER, epoch, None) as tx:
        tx.create_topic(KEYED, "table", KeyedHistory.schema, partitions=2, source="shop")
        tx.create_topic(BAG, "multiset", BagHistory.schema, source="shop")
        tx.commit()


def _commit(log: Log, epoch: int, done: int, last: int, source: list[Batch]) -> None:
    with log.transaction(PRODUCER, epoch, str(done) if done else None) as tx:
        for batch in source:
            for name, table in batch.tables.items():
                tx.append(name, table)
        tx.position = str(last)
        tx.commit()


CAPTURE = Workload(run=run, stands=stands, check=check)
