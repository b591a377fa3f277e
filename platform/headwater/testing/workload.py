"""What a crash test kills: a process that captures a known history, seals it, and writes a base.

Its source is a seeded history of numbered batches, its position the number of batches that are durable. Whatever
happens to it, a later run goes on from the stored position; each run may take another number of batches into one
commit, as a source does that has fallen behind.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from headwater import failpoint
from headwater.config import Settings
from headwater.log import Log, base, open_log, recovery, seal
from headwater.ownership import own
from headwater.testing.changes import KeyedHistory

TOPIC = "shop.public.t"
PRODUCER = "source:shop"
LIMITS = replace(Settings(), row_group_rows=32)


def batches(seed: int, count: int) -> list[tuple[pa.Table, Counter[tuple[Any, ...]]]]:
    """The source: each batch's records, and the rows of the table after it."""
    history = KeyedHistory(seed)
    return [(history.commit(), Counter(history.expected())) for _ in range(count)]


def run(folder: Path, acknowledged: Path, seed: int, count: int, group: int, plan: str = "") -> None:
    """Capture all ``count`` batches, ``group`` to a commit, with sealing and a base on the way.

    Writes each position to ``acknowledged`` once it is durable. ``plan`` is what HEADWATER_FAILPOINTS would hold.
    """
    failpoint.follow(plan)
    source = batches(seed, count)
    with open_log(folder, create=True) as log, own(log, PRODUCER) as owner:
        done = int(log.producer(PRODUCER).position or 0)
        if not log.topics():
            _create(log, owner.epoch)
        while done < count:
            last = min(done + group, count)
            _commit(log, owner.epoch, done, last, [table for table, _ in source[done:last]])
            _acknowledge(acknowledged, last)
            done = last
            if done in (count // 3, count // 3 + 1):
                seal.seal(log, LIMITS)
            if done in (count // 2, count // 2 + 1):
                base.write(log, log.topic(TOPIC), log.newest_commit(), LIMITS)
        log.set_confirmed(PRODUCER, str(done))
        seal.seal(log, LIMITS)
        recovery.remove_retired(log, grace_s=0)
        recovery.remove_orphans(log, grace_s=0)


def _create(log: Log, epoch: int) -> None:
    with log.transaction(PRODUCER, epoch, None) as tx:
        tx.create_topic(TOPIC, "table", KeyedHistory.schema, partitions=2, source="shop")
        tx.commit()


def _commit(log: Log, epoch: int, done: int, last: int, tables: list[pa.Table]) -> None:
    with log.transaction(PRODUCER, epoch, str(done) if done else None) as tx:
        for table in tables:
            tx.append(TOPIC, table)
        tx.position = str(last)
        tx.commit()


def _acknowledge(path: Path, position: int) -> None:
    failpoint.hit("acknowledge:before")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, f"{position}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    failpoint.hit("acknowledge:after")
