"""Records of partitions from an offset on, a piece at a time: what consumers and replays read.

    plan (one catalog transaction for all partitions) ──▶ parts in offset order ──▶ tables of bounded rows
                                                        hot batch: bytes checked, small ones joined
                                                        segment: row groups chosen by the statistics of _offset

A partition's offsets may have gaps: compaction and retention remove records and never move those that stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sqlalchemy import Connection, bindparam, func, select

from headwater import record
from headwater.catalog import tables
from headwater.catalog.prepared import Prepared
from headwater.catalog.records import Batch, Segment, Topic
from headwater.errors import CorruptFile
from headwater.log import evolve, quarantine, read, topics

if TYPE_CHECKING:
    from headwater.log.log import Log

PARTS_MAX = 64
"""Batches and segments of a partition in one plan: bounds a plan, and how long it keeps its view of the files."""

_batch, _segment, _file = tables.batch, tables.segment, tables.file
_COVERING = (
    select(func.max(_batch.c.first_offset))
    .where(_batch.c.topic == bindparam("of_topic"), _batch.c.partition == bindparam("of_partition"))
    .where(_batch.c.first_offset <= bindparam("low"))
    .scalar_subquery()
)
_HOT = Prepared(
    select(_batch, _file.c.path, tables.commit.c.time)
    .join(_file, _file.c.id == _batch.c.file)
    .join(tables.commit, tables.commit.c.number == _batch.c.commit)
    .where(_batch.c.topic == bindparam("of_topic"), _batch.c.partition == bindparam("of_partition"))
    .where(_batch.c.first_offset >= func.coalesce(_COVERING, bindparam("low")))
    .where(_batch.c.first_offset < bindparam("high"), _batch.c.first_offset + _batch.c.rows > bindparam("low"))
    .order_by(_batch.c.first_offset)
    .limit(PARTS_MAX)
)
_SEALED = Prepared(
    select(_segment, _file.c.path, _file.c.bytes, _file.c.digest)
    .join(_file, _file.c.id == _segment.c.file)
    .where(_segment.c.topic == bindparam("of_topic"), _segment.c.partition == bindparam("of_partition"))
    .where(_segment.c.last_offset >= bindparam("low"), _segment.c.first_offset < bindparam("high"))
    .where(_file.c.removed.is_(None))
    .order_by(_segment.c.first_offset)
    .limit(PARTS_MAX)
)


@dataclass(frozen=True, kw_only=True)
class Span:
    """The offsets of one partition that are wanted: from ``low`` to before ``high``."""

    partition: int
    low: int
    high: int


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Records of one partition in offset order; ``upto``: everything before it is in this piece or does not exist."""

    partition: int
    table: pa.Table
    upto: int


@dataclass(frozen=True, kw_only=True)
class ScanPlan:
    """What to read of one topic, by partition: segments, then hot batches, and the offset that they reach to."""

    plan: read.Plan
    span: Span
    upto: int


def plan(connection: Connection, topic: Topic, spans: Sequence[Span]) -> list[ScanPlan]:
    """What holds the records of these spans, in the caller's read transaction; at most ``PARTS_MAX`` parts each."""
    found = [_parts(connection, topic.id, span) for span in spans]
    versions = {part.schema_version for segments, _ in found for part in segments}
    versions |= {part.schema_version for _, batches in found for part in batches}
    schemas = topics.schemas(connection, topic.id) if versions - {topic.schema_version} else {}
    schemas[topic.schema_version] = topic.schema
    newest = max(versions, default=0)
    if newest > topic.schema_version:  # it changed after the caller had looked: no new column is left out
        topic = replace(topic, schema=schemas[newest], schema_version=newest)
    damaged = tuple(quarantine.of(connection, topic.id))
    plans = []
    for span, (segments, batches) in zip(spans, found, strict=True):
        chosen = read.Plan(
            topic=topic,
            after=0,
            upto=0,
            batches=tuple(batches),
            segments=tuple(segments),
            schemas=schemas,
            missing=damaged,
        )
        plans.append(ScanPlan(plan=chosen, span=span, upto=_reach(span, segments, batches)))
    return plans


def _parts(connection: Connection, topic: int, span: Span) -> tuple[list[Segment], list[Batch]]:
    place = {"of_topic": topic, "of_partition": span.partition, "low": span.low, "high": span.high}
    segments = _SEALED.records(connection, Segment, place)
    if len(segments) == PARTS_MAX:
        return segments, []  # hot batches come after all segments
    return segments, _HOT.records(connection, Batch, place)


def _reach(span: Span, segments: Sequence[Segment], batches: Sequence[Batch]) -> int:
    """The offset before which nothing is missing from the parts."""
    if len(segments) == PARTS_MAX:
        return segments[-1].last_offset + 1
    if len(batches) == PARTS_MAX:
        return batches[-1].first_offset + batches[-1].rows
    return span.high


def pieces(log: Log, scan: ScanPlan, rows: int, columns: Sequence[str] | None = None) -> Iterator[Piece]:
    """The span's records, at most ``rows`` in a piece; the last one's ``upto`` is the plan's.

    Memory is bounded by a piece and one hot batch or the pages of one row group. CorruptFile when stored bytes
    are not the committed ones.
    """
    target = scan.plan.target
    wanted = target if columns is None else pa.schema([target.field(name) for name in columns])
    span = replace(scan.span, high=min(scan.span.high, scan.upto))
    for segment in scan.plan.segments:
        quarantine.refuse(scan.plan.topic.name, (segment,), scan.plan.missing)
        with _blaming(log, segment):
            for table in _segment_tables(log, scan.plan, segment, span, rows):
                yield from _cut(table, span, rows, wanted)
        yield Piece(partition=span.partition, table=record.empty(wanted), upto=min(segment.last_offset + 1, span.high))
    for table in _hot_tables(log, scan.plan, span, rows):
        yield from _cut(table, span, rows, wanted)
    yield Piece(partition=span.partition, table=record.empty(wanted), upto=span.high)


@contextmanager
def _blaming(log: Log, segment: Segment) -> Iterator[None]:
    """What the Parquet reader says about a damaged file, as CorruptFile that names it."""
    try:
        yield
    except (pa.ArrowException, OSError):
        read.check_files(log, [segment])
        raise


def _cut(table: pa.Table, span: Span, rows: int, wanted: pa.Schema) -> Iterator[Piece]:
    """A table's records inside the span, in pieces."""
    offsets = table.column(record.OFFSET)
    if table.num_rows == 0 or offsets[-1].as_py() < span.low:
        return
    if offsets[0].as_py() < span.low or offsets[-1].as_py() >= span.high:
        inside = pc.and_(pc.greater_equal(offsets, span.low), pc.less(offsets, span.high))
        table = table.filter(inside)
    nested = any(pa.types.is_nested(field.type) for field in wanted)
    for start in range(0, table.num_rows, rows):
        # take, not slice, of nested columns: DuckDB refuses a struct that begins in the middle of its buffers
        part = (
            table.take(np.arange(start, min(start + rows, table.num_rows)))
            if nested and start
            else table.slice(start, rows)
        )
        upto = part.column(record.OFFSET)[-1].as_py() + 1
        yield Piece(partition=span.partition, table=part.select(wanted.names), upto=upto)


def _hot_tables(log: Log, found: read.Plan, span: Span, rows: int) -> Iterator[pa.Table]:
    """Hot batches, small ones joined to about ``rows``: a batch of one record each must not be a read each."""
    pending: list[pa.Table] = []
    count = 0
    for batch in found.batches:
        try:
            quarantine.refuse(found.topic.name, (batch,), found.missing)
            table = read.read_batch(log, found, batch)
        except CorruptFile:
            if pending:  # what stands before the damage is whole
                yield pa.concat_tables(pending)
            raise
        pending.append(table)
        count += min(batch.rows, batch.first_offset + batch.rows - span.low)
        if count >= rows:
            yield pa.concat_tables(pending)
            pending, count = [], 0
    if pending:
        yield pa.concat_tables(pending)


def _segment_tables(log: Log, found: read.Plan, segment: Segment, span: Span, rows: int) -> Iterator[pa.Table]:
    """The row groups of a segment that reach into the span, decoded a piece at a time."""
    with pq.ParquetFile(log.storage.path(segment.path), page_checksum_verification=True, pre_buffer=False) as file:
        groups = groups_in(file, record.OFFSET, span.low, span.high - 1)
        for batch in file.iter_batches(batch_size=rows, row_groups=groups) if groups else ():
            table = pa.Table.from_batches([batch])
            if segment.schema_version != found.topic.schema_version:
                table = _to_schema(table, found, segment.schema_version)
            yield record.fill(table, found.target)


def _to_schema(table: pa.Table, found: read.Plan, version: int) -> pa.Table:
    """Records of an older schema version in the shape of the plan's."""
    shaped = evolve.to_schema(table, found.schemas[version], found.topic.schema, found.topic.kind)
    for name in record.IMPLICIT:
        shaped = shaped.append_column(name, table.column(name))
    return shaped


def groups_in(file: pq.ParquetFile, column: str, low: int, high: int) -> list[int]:
    """Row groups in which an integer column may hold a value from ``low`` to ``high``."""
    place = file.schema_arrow.get_field_index(column)
    chosen = []
    for group in range(file.num_row_groups):
        statistics = _statistics(file, group, place)
        if statistics is None or (statistics.max >= low and statistics.min <= high):
            chosen.append(group)
    return chosen


def _statistics(file: pq.ParquetFile, group: int, field: int) -> pq.Statistics | None:
    """Statistics of a top-level column: nested columns before it have several leaves, so it is found by name."""
    name = file.schema_arrow.field(field).name
    metadata = file.metadata.row_group(group)
    for leaf in range(metadata.num_columns - 1, -1, -1):  # the metadata columns are the last
        if metadata.column(leaf).path_in_schema == name:
            found = metadata.column(leaf).statistics
            return found if found is not None and found.has_min_max else None
    return None


def offsets_after(log: Log, topic: Topic, partitions: Mapping[int, int], commit: int) -> dict[int, int]:
    """Of each partition (with the offset it ends at), the first record that a commit after ``commit`` published.

    What is read from there, together with the state at ``commit``, is everything, once.
    """
    return {partition: _offset_after(log, topic, partition, end, commit) for partition, end in partitions.items()}


def _offset_after(log: Log, topic: Topic, partition: int, end: int, commit: int) -> int:
    here = (_segment.c.topic == topic.id) & (_segment.c.partition == partition) & (_segment.c.last_commit > commit)
    sealed = select(_segment, _file.c.path, _file.c.bytes, _file.c.digest).join(_file, _file.c.id == _segment.c.file)
    first_sealed = sealed.where(here, _file.c.removed.is_(None)).order_by(_segment.c.first_offset).limit(1)
    hot = select(func.min(_batch.c.first_offset)).where(
        _batch.c.topic == topic.id, _batch.c.partition == partition, _batch.c.commit > commit
    )
    with log.catalog.read() as connection:
        row = connection.execute(first_sealed).one_or_none()
        first_hot = connection.execute(hot).scalar_one()
    if row is None:
        return end if first_hot is None else int(first_hot)
    segment = Segment(**row._asdict())
    if segment.first_commit > commit:
        return segment.first_offset
    found = value_at(log, segment, (record.COMMIT, commit + 1), record.OFFSET)
    return segment.last_offset + 1 if found is None else found


def value_at(log: Log, segment: Segment, at_least: tuple[str, int], column: str) -> int | None:
    """An integer (or a time, in microseconds) of a segment's first record where another column is large enough."""
    name, low = at_least
    with (
        _blaming(log, segment),
        pq.ParquetFile(log.storage.path(segment.path), page_checksum_verification=True) as file,
    ):
        for group in groups_in(file, name, low, 2**63 - 1):
            table = file.read_row_group(group, columns=sorted({name, column}))
            values = table.filter(pc.greater_equal(table.column(name), low)).column(column)
            if len(values):
                return int(values[0].cast(pa.int64()).as_py())
    return None


def commit_times(log: Log, topic: Topic, wanted: Mapping[int, int]) -> dict[int, int]:
    """Of each partition, when its first record at or after an offset was published, in microseconds.

    Partitions without such a record are left out. One catalog transaction; a file is opened for those records
    that are sealed in the middle of a segment.
    """
    spans = [Span(partition=partition, low=offset, high=2**62) for partition, offset in wanted.items()]
    found: dict[int, int] = {}
    with log.catalog.read() as connection:
        parts = {span.partition: (span, *_parts(connection, topic.id, span)) for span in spans}
    for partition, (span, segments, batches) in parts.items():
        time = None
        if segments:
            time = value_at(log, segments[0], (record.OFFSET, span.low), record.INGESTED_AT)
        if time is None and batches:
            time = batches[0].time
        if time is not None:
            found[partition] = time
    return found
