"""A workload of housekeeping: small commits, each followed by sealing, merging, compacting, retaining and archiving.

Half a day passes with each batch, so that history leaves while it runs. What must hold wherever it is cut off: the
rows are those of the source up to the stored position, each key's newest event is there at its offset, what is left
of the history is what was written, and the chain adds up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from headwater.catalog.records import TopicSettings
from headwater.config import Settings
from headwater.lake import open_lake
from headwater.log import Log, archive, compaction, merge, open_log, recovery, retention, seal
from headwater.log.proof import prove
from headwater.ownership import own
from headwater.schema import Schema
from headwater.testing.changes import KeyedHistory
from headwater.testing.workload import Workload, acknowledge

TABLE, EVENTS = "shop.public.t", "shop.e"
PRODUCER = "source:shop"
COUNT = 10
DAY_S = 86_400
LIMITS = replace(Settings(), row_group_rows=16, time_travel_s=DAY_S, history_s=2 * DAY_S, compact_dirty_fraction=0.01)
EVENT = Schema.of({"id": "BIGINT", "what": "VARCHAR"}, key=["id"])


@dataclass
class Days:
    """A clock that shows the time of a batch: the same after a crash as before it."""

    batch: int = 0

    def now_us(self) -> int:
        start = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
        return (start + self.batch * DAY_S // 2) * 1_000_000


def run(folder: Path, acknowledged: Path, seed: int, again: bool = False) -> None:
    """Write all batches, keeping house after each (``again``: after every second)."""
    history = KeyedHistory(seed)
    source = [history.commit() for _ in range(COUNT)]
    clock = Days()
    with open_log(folder, create=True, clock=clock) as log, own(log, PRODUCER) as owner:
        done = clock.batch = int(log.producer(PRODUCER).position or 0)
        if not log.topics():
            _create(log, owner.epoch)
        while done < COUNT:
            with log.transaction(PRODUCER, owner.epoch, str(done) if done else None) as tx:
                tx.append(TABLE, source[done])
                tx.append(EVENTS, event(done))
                tx.position = str(done + 1)
                tx.commit()
            acknowledge(acknowledged, str(done + 1))
            done = clock.batch = done + 1
            if not again or done % 2 == 0:
                _keep(log)
        _keep(log)


def event(number: int) -> pa.Table:
    """The events of a batch: three keys that come again and again, and every third batch a tombstone."""
    what = None if number % 3 == 2 else f"e{number}"
    return pa.table({"id": [number % 2, 7], "what": pa.array([what, f"s{number}"], pa.string())})


def _keep(log: Log) -> None:
    with own(log, "maintenance"):
        seal.seal(log, LIMITS)
        merge.merge(log, LIMITS, fan_in=2)
        keep = retention.readable(log, LIMITS)
        compaction.compact(log, log.topic(EVENTS), keep.floor, LIMITS, force=True)
        retention.retain(log, LIMITS)
        archive.archive(log, keep=2, least=2)
        recovery.remove_retired(log, grace_s=0)
        recovery.remove_orphans(log, grace_s=0)


def _create(log: Log, epoch: int) -> None:
    compacted = TopicSettings(cleanup="compact", delete_retention_s=DAY_S)
    with log.transaction(PRODUCER, epoch, None) as tx:
        tx.create_topic(TABLE, "table", KeyedHistory.schema, partitions=2, source="shop")
        tx.create_topic(EVENTS, "event", EVENT, settings=compacted)
        tx.commit()


def stands(log: Log, acknowledged: Sequence[str], complete: bool) -> None:
    position = int(log.producer(PRODUCER).position or 0)
    assert position >= max((int(each) for each in acknowledged), default=0), "an acknowledged position is gone"
    assert position == COUNT or not complete


def check(log: Log, seed: int) -> None:
    position = int(log.producer(PRODUCER).position or 0)
    assert prove(log).findings == []
    if not log.topics():
        return
    history = KeyedHistory(seed)
    sent = [history.commit() for _ in range(position)]
    with open_lake(log.folder) as lake:
        assert Counter(lake.sql("SELECT * FROM t").fetchall()) == Counter(history.expected())
    identity = ["_lsn", "_seq", "_op", "a", "b"]
    known = Counter(tuple(row.values()) for table in sent for row in table.select(identity).to_pylist())
    left = log.read_changes(TABLE, 0, log.newest_commit(), [*identity, "_partition"]).to_pylist()
    held = Counter(tuple(row.values())[:5] for row in left if row["_op"] != "t" or row["_partition"] == 0)
    assert held <= known, "a record is there twice, or was never sent"
    _check_events(log, position)


def _check_events(log: Log, position: int) -> None:
    sent = [row for number in range(position) for row in event(number).to_pylist()]
    newest = {row["id"]: row["what"] for row in sent}
    found = log.read_changes(EVENTS, 0, log.newest_commit(), ["_offset", "id", "what"]).to_pylist()
    offsets = [row["_offset"] for row in found]
    assert offsets == sorted(set(offsets))
    assert all(sent[row["_offset"]] == {"id": row["id"], "what": row["what"]} for row in found), "an offset moved"
    last = {row["id"]: row["what"] for row in found}
    assert {key: what for key, what in newest.items() if what is not None}.items() <= last.items()


KEEPING = Workload(run=run, stands=stands, check=check)
