"""What a topic holds and how evenly: size and rate, the load of each partition, and its hottest keys.

A hot partition is one of the usual failures of a log: one key, or a poor choice of key, fills one partition while
the others idle. Skew is the largest open partition against the mean; a hot key is named with its share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select

from headwater import duck
from headwater.catalog import tables
from headwater.catalog.records import Topic, to_datetime
from headwater.log import read
from headwater.types import lift_sql

if TYPE_CHECKING:
    from headwater.log.log import Log

RATE_S: Final = 300.0
"""The rate is that of the last so many seconds: long enough for a minute's burst not to be the answer."""

HOT_RECORDS: Final = 1_000_000
"""Hot keys are counted among the newest so many records: bounds the work, and is what is hot now."""

HOT_MEMORY: Final = "256MB"
"""DuckDB's limit while counting; beyond it, it spills."""


@dataclass(frozen=True, kw_only=True)
class PartitionLoad:
    """Records and bytes that are stored now; ``share`` of the topic's records of its generation, 0 to 1."""

    partition: int
    is_open: bool
    records: int
    bytes: int
    share: float


@dataclass(frozen=True, kw_only=True)
class HotKey:
    """A key and how many of the records that were looked at are its own; ``share`` 0 to 1."""

    key: tuple[Any, ...]
    records: int
    share: float


def partitions(log: Log, topic: Topic) -> list[PartitionLoad]:
    """Every partition that still holds records or takes them, in their order."""
    batch, segment, file = tables.batch, tables.segment, tables.file
    hot = select(batch.c.partition, func.sum(batch.c.rows), func.sum(batch.c.byte_length))
    sealed = select(segment.c.partition, func.sum(segment.c.rows), func.sum(file.c.bytes)).join_from(
        segment, file, file.c.id == segment.c.file
    )
    totals = {number: [0, 0] for number in topic.open_partitions}
    with log.catalog.read() as connection:
        for query, table in ((hot, batch), (sealed, segment)):
            mine = query.where(table.c.topic == topic.id).group_by(table.c.partition)
            for number, rows, size in connection.execute(mine):
                total = totals.setdefault(number, [0, 0])
                total[0], total[1] = total[0] + int(rows), total[1] + int(size)
    opened = sum(rows for number, (rows, _) in totals.items() if number in topic.open_partitions)
    closed = sum(rows for rows, _ in totals.values()) - opened
    return [
        PartitionLoad(
            partition=number,
            is_open=number in topic.open_partitions,
            records=rows,
            bytes=size,
            share=rows / max(1, opened if number in topic.open_partitions else closed),
        )
        for number, (rows, size) in sorted(totals.items())
    ]


def skew(loads: Sequence[PartitionLoad]) -> float:
    """The largest open partition's records against the mean: 1 is even, the number of partitions the worst."""
    counts = [load.records for load in loads if load.is_open]
    return max(counts) * len(counts) / sum(counts) if sum(counts) else 1.0


def rows_per_s(log: Log, topic: Topic) -> float:
    """Records of the last ``RATE_S`` seconds by commit time; what was sealed since counts by the segment's share."""
    now = log.clock.now_us()
    since = log.commit_at_time(to_datetime(now - int(RATE_S * 1e6)))
    found = read.plan(log, topic, since, log.newest_commit())
    records = sum(batch.rows for batch in found.batches)
    for segment in found.segments:
        inside = segment.last_commit - max(since, segment.first_commit - 1)
        records += round(segment.rows * inside / (segment.last_commit - segment.first_commit + 1))
    return records / RATE_S


def hot_keys(log: Log, topic: Topic, most: int = 10) -> tuple[list[HotKey], int]:
    """The most frequent keys among the newest ``HOT_RECORDS`` records, and how many records were looked at.

    Exact for those records. Empty for a topic without a key.
    """
    if not topic.schema.key:
        return [], 0
    found = read.plan(log, topic, _since(log, topic), log.newest_commit())
    key = ", ".join(lift_sql(name, topic.schema.field(name).type) for name in topic.schema.key)
    with duck.connect(timezone=log.timezone, memory_limit=HOT_MEMORY) as connection:
        source = read.relation_sql(log, connection, found)
        newest = f"SELECT row({key}) AS key FROM ({source}) ORDER BY _commit DESC LIMIT {HOT_RECORDS}"
        counted = f"SELECT key, count(*) AS n FROM ({newest}) GROUP BY key"
        sql = f"SELECT key, n, sum(n) OVER () FROM ({counted}) ORDER BY n DESC, key LIMIT {most}"
        rows = connection.execute(sql).fetchall()
    looked = int(rows[0][2]) if rows else 0
    return [HotKey(key=tuple(each), records=n, share=n / looked) for each, n, _ in rows], looked


def _since(log: Log, topic: Topic) -> int:
    """A commit after which the topic has at least ``HOT_RECORDS`` records, if it has so many."""
    batch, segment = tables.batch, tables.segment
    hot = select(batch.c.commit.label("first"), batch.c.commit, batch.c.rows).where(batch.c.topic == topic.id)
    sealed = select(segment.c.first_commit, segment.c.last_commit, segment.c.rows).where(segment.c.topic == topic.id)
    with log.catalog.read() as connection:
        parts = [tuple(row) for query in (hot, sealed) for row in connection.execute(query)]
    seen = 0
    for first, _, rows in sorted(parts, key=lambda part: -part[1]):
        seen += rows
        if seen >= HOT_RECORDS:
            return int(first) - 1
    return 0
