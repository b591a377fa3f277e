"""What the log holds for a job: whole commits up to about a batch of rows, as one frame of changes an input.

A range of more rows than twice a batch, which is one large commit or the rows that a job begins with, comes in
parts: input by input as the job names them, each in the order of its log, cut at the same rows every time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import duckdb
import polars as pl
import pyarrow as pa

from headwater import duck, record, types
from headwater.catalog.records import Topic
from headwater.log import Log, expired, offsets, scan
from headwater.log.rows import CurrentRows
from headwater.log.scan import Span
from headwater_pipelines.jobs.records import as_frame, columns_of, frame_schema

CURRENT = ("table", "multiset", "changelog")
"""Kinds of topics that have rows apart from their records."""


def changes(log: Log, inputs: Sequence[Topic], after: int, upto: int, rows: int) -> Iterator[list[pl.DataFrame]]:
    """The frames of each call for commits in (after, upto]; no call where there is nothing.

    Expired when retention has removed some of them, CorruptFile when stored bytes are not the committed ones.
    """
    spans = [_spans(log, topic, after, upto) for topic in inputs]
    most = sum(span.high - span.low for found in spans for span in found)
    parts = [_records(log, topic, found, rows) for topic, found in zip(inputs, spans, strict=True)]
    yield from _calls(inputs, parts, whole=most <= 2 * rows)


def current(
    log: Log, inputs: Sequence[Topic], commit: int, rows: int, memory_limit: str
) -> Iterator[list[pl.DataFrame]]:
    """The frames of each call of a job that begins with the rows at ``commit``; records of topics that have no rows."""
    with duck.connect(timezone=log.timezone, memory_limit=memory_limit, for_files=True) as own:
        parts = [
            _rows(log, own, topic, commit, rows)
            if topic.kind in CURRENT
            else _records(log, topic, _spans(log, topic, 0, commit), rows)
            for topic in inputs
        ]
        yield from _calls(inputs, parts, whole=False)


def _calls(
    inputs: Sequence[Topic], parts: Sequence[Iterator[pa.Table]], *, whole: bool
) -> Iterator[list[pl.DataFrame]]:
    nothing = [as_frame(record.empty(frame_schema(topic))) for topic in inputs]
    if whole:
        tables = [list(each) for each in parts]
        if any(tables):
            pairs = zip(tables, nothing, strict=True)
            yield [_in_order(pa.concat_tables(found)) if found else none for found, none in pairs]
        return
    for place, each in enumerate(parts):
        for table in each:
            frames = list(nothing)
            frames[place] = as_frame(table)
            yield frames


def _in_order(table: pa.Table) -> pl.DataFrame:
    """In the order of commits; within one, as partitions and offsets have it."""
    frame = as_frame(table)
    one = frame[record.PARTITION].n_unique() == 1
    return frame if one else frame.sort(record.COMMIT, maintain_order=True)


def _spans(log: Log, topic: Topic, after: int, upto: int) -> list[Span]:
    """The offsets of the records of commits in (after, upto], by partition."""
    with log.catalog.read() as connection:
        if topic.kind != "event" or after:  # of events the oldest go for good, and a job begins with what is left
            expired.require_whole(connection, topic, after, upto)
        ends = {state.partition: state.next_offset for state in offsets.states(connection, [topic.id])}
    low = scan.offsets_after(log, topic, ends, after)
    high = scan.offsets_after(log, topic, ends, upto)
    return [Span(partition=each, low=low[each], high=high[each]) for each in ends if low[each] < high[each]]


def _records(log: Log, topic: Topic, spans: Sequence[Span], rows: int) -> Iterator[pa.Table]:
    """The records of these spans, exactly ``rows`` in each table but the last."""
    held: list[pa.Table] = []
    count = 0
    for table in _pieces(log, topic, spans, rows):
        held.append(table)
        count += table.num_rows
        while count >= rows:
            whole = pa.concat_tables(held)
            yield whole.slice(0, rows)
            held, count = [whole.slice(rows)], count - rows
    if count:
        yield pa.concat_tables(held)


def _pieces(log: Log, topic: Topic, spans: Sequence[Span], rows: int) -> Iterator[pa.Table]:
    for span in spans:
        low = span.low
        while low < span.high:
            with log.catalog.read() as connection:
                (found,) = scan.plan(connection, topic, [Span(partition=span.partition, low=low, high=span.high)])
            for piece in scan.pieces(log, found, rows, columns_of(topic)):
                if piece.table.num_rows:
                    yield piece.table
            low = found.upto


def _rows(log: Log, own: duckdb.DuckDBPyConnection, topic: Topic, commit: int, rows: int) -> Iterator[pa.Table]:
    """The rows of a topic at a commit as records of an initial copy, ordered so that the parts are the same again."""
    target = frame_schema(topic)
    now = CurrentRows(log, own, topic).at(topic, commit)
    lowered = [
        f"{types.lower_sql(field.name, field.type)} AS {types.quote(field.name)}" for field in topic.schema.fields
    ]
    order = ", ".join(types.quote(name) for name in topic.schema.key or topic.schema.names)
    found = own.sql(f"SELECT {', '.join(lowered)} FROM ({now}) ORDER BY {order}")
    for batch in found.to_arrow_reader(rows):
        table = pa.Table.from_batches([batch])
        told = {
            record.OP: pa.repeat(pa.scalar("r"), table.num_rows),
            record.WEIGHT: pa.repeat(pa.scalar(1, pa.int64()), table.num_rows),
            record.COMMIT: pa.repeat(pa.scalar(commit, pa.int64()), table.num_rows),
            record.PARTITION: pa.repeat(pa.scalar(0, pa.int32()), table.num_rows),
        }
        for name, values in told.items():
            if name in target.names:
                table = table.append_column(name, values)
        yield record.fill(table, target).cast(target)
