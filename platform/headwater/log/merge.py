"""Merging: runs of small neighbouring segments of a partition become one, so that a reader opens few files.

Sealing makes a segment for each partition every few seconds; their rows, order and offsets are right, but each
file costs an open and a footer. Segments are merged by size classes, ``FAN_IN`` of one class into one of the
next, so each record is rewritten as often as there are classes (log of the size), not once for each seal.
Memory is bounded by a row group.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Connection, delete, func, select, update

from headwater.catalog import tables
from headwater.catalog.records import Segment
from headwater.config import Settings
from headwater.errors import CorruptFile
from headwater.log import chain, manifest, quarantine, read
from headwater.log.parquet import ParquetFile
from headwater.log.seal import add_segments

if TYPE_CHECKING:
    from headwater.log.log import Log

FAN_IN = 8
"""Neighbours of a size class that are merged at once: each class is this many times the one below."""
SMALLEST_ROWS = 1_000
"""Everything below is of the lowest class."""
READ_ROWS = 50_000
"""Records held while copying."""


def merge(log: Log, settings: Settings, passes: int = 8, fan_in: int = FAN_IN) -> int:
    """Merge what is due, ``fan_in`` segments at a time, at most ``passes`` times; how many segments were replaced.

    The caller owns ``maintenance``. A partition with damaged records is left alone, in quarantine; nothing is
    swapped before the new file is durable.
    """
    replaced = 0
    left_alone = quarantine.partitions(log)
    for topic_id, partition in [place for place in _crowded(log, fan_in) if tuple(place) not in left_alone]:
        for run in _runs(live(log, topic_id, partition), settings.segment_rows_max, fan_in):
            if passes == 0:
                return replaced
            passes -= 1
            try:
                new = write(log, run, settings)
            except CorruptFile:
                break  # it is in quarantine now
            replace(log, run, [new], "merge")
            replaced += len(run)
    return replaced


def live(log: Log, topic_id: int, partition: int | None = None) -> list[Segment]:
    """The live segments of a topic or one of its partitions, in partition and offset order."""
    segment, file = tables.segment, tables.file
    query = (
        select(segment, file.c.path, file.c.bytes, file.c.digest)
        .join(file, file.c.id == segment.c.file)
        .where(segment.c.topic == topic_id, file.c.removed.is_(None))
        .order_by(segment.c.partition, segment.c.first_offset)
    )
    if partition is not None:
        query = query.where(segment.c.partition == partition)
    with log.catalog.read() as connection:
        return [Segment(**row._mapping) for row in connection.execute(query)]


def write(log: Log, run: Sequence[Segment], settings: Settings) -> Segment:
    """The records of neighbouring segments as one durable file that nothing names yet."""
    read.check_files(log, run)
    name = new_name(run[0])
    with ParquetFile(log.storage, name, _schema(log, run), settings.row_group_rows) as file:
        for table in records(log, run):
            file.write(table)
        size, digest = file.finish()
    if file.rows != sum(segment.rows for segment in run):
        raise CorruptFile(f"{file.rows} records were read where the catalog has others", where=run[0].path)
    return merged(run, path=name, rows=file.rows, size=size, digest=digest, compacted=_newest(run))


def merged(run: Sequence[Segment], *, path: str, rows: int, size: int, digest: str, compacted: int | None) -> Segment:
    """The catalog's row of one file that takes the place of ``run``: it covers the same offsets and commits."""
    first, last = run[0], run[-1]
    return Segment(
        file=0,
        path=path,
        topic=first.topic,
        partition=first.partition,
        schema_version=first.schema_version,
        rows=rows,
        bytes=size,
        digest=digest,
        first_offset=first.first_offset,
        last_offset=last.last_offset,
        first_commit=min(segment.first_commit for segment in run),
        last_commit=max(segment.last_commit for segment in run),
        last_time=last.last_time,
        compacted=compacted,
    )


def new_name(first: Segment) -> str:
    """A file name that was never used."""
    return f"data/segments/{first.topic}-{first.partition}-{first.first_offset}-{uuid.uuid4().hex[:12]}.parquet"


def records(log: Log, run: Sequence[Segment], columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The records of segments of one schema version in offset order, some at a time."""
    for segment in run:
        with pq.ParquetFile(log.storage.path(segment.path)) as file:
            for batch in file.iter_batches(READ_ROWS, columns=None if columns is None else list(columns)):
                yield pa.Table.from_batches([batch])


def replace(log: Log, old: Sequence[Segment], new: Sequence[Segment], kind: chain.EntryKind) -> None:
    """Swap segments in one catalog transaction; the old files go once no reader can still have them."""
    topic = old[0].topic
    with log.catalog.write() as connection:
        now = log.clock.now_us()
        chain.append(
            connection,
            kind,
            number=max(segment.last_commit for segment in old),
            time=now,
            producer="maintenance",
            removed=[segment.digest for segment in old],
            added=[segment.digest for segment in new],
        )
        retire(connection, old, now)
        add_segments(connection, list(new), now)
    manifest.refresh(log, topic)


def retire(connection: Connection, old: Sequence[Segment], now_us: int) -> None:
    """These segments leave the catalog, their files its live set; the caller records the chain's entry."""
    files = [segment.file for segment in old]
    connection.execute(delete(tables.segment).where(tables.segment.c.file.in_(files)))
    connection.execute(update(tables.file).where(tables.file.c.id.in_(files)).values(removed=now_us))


def _crowded(log: Log, fan_in: int) -> list[tuple[int, int]]:
    """Partitions with at least ``fan_in`` segments."""
    segment, file = tables.segment, tables.file
    query = (
        select(segment.c.topic, segment.c.partition)
        .join(file, file.c.id == segment.c.file)
        .where(file.c.removed.is_(None))
        .group_by(segment.c.topic, segment.c.partition)
        .having(func.count() >= fan_in)
    )
    with log.catalog.read() as connection:
        return [(row.topic, row.partition) for row in connection.execute(query)]


def _runs(segments: Sequence[Segment], rows_max: int, fan_in: int) -> Iterator[list[Segment]]:
    """Neighbours worth merging: ``fan_in`` of one class, of one schema version, together not above ``rows_max``."""
    for _, same in groupby(segments, key=lambda s: (s.schema_version, size_class(s.rows))):
        found = list(same)
        for start in range(0, len(found) - fan_in + 1, fan_in):
            run = found[start : start + fan_in]
            if sum(segment.rows for segment in run) <= rows_max:
                yield run


def size_class(rows: int) -> int:
    """0 for the smallest segments, one more for each factor of ``FAN_IN``."""
    found = 0
    while rows >= SMALLEST_ROWS:
        rows, found = rows // FAN_IN, found + 1
    return found


def _newest(run: Sequence[Segment]) -> int | None:
    """What a merged segment says of compaction: the newest that any part has, since gaps stay."""
    return max((segment.compacted for segment in run if segment.compacted is not None), default=None)


def _schema(log: Log, run: Sequence[Segment]) -> pa.Schema:
    return pq.read_schema(log.storage.path(run[0].path))
