"""What the log holds for a job: whole commits up to about a batch of rows, as one frame of changes an input.

A range of more rows than two batches, which is one large commit or the rows that a job begins with, comes in parts:
input by input as the job names them, each in the order of its log, cut at the same rows every time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby

import duckdb
import polars as pl
import pyarrow as pa

from headwater import record, types
from headwater.catalog.records import Topic
from headwater.log import Log, expired, offsets, scan
from headwater.log.rows import CurrentRows
from headwater_pipelines.jobs.records import as_frame, frame_schema
from headwater_pipelines.jobs.room import Room
from headwater_pipelines.jobs.tape import Tape
from headwater_pipelines.jobs.unsent import Unsent

CURRENT = ("table", "multiset", "changelog")
"""Kinds of topics that have rows apart from their records."""


class Intake:
    """A job's inputs, read in order: each range of commits begins where the one before ended. ``rows``: of a batch."""

    def __init__(self, log: Log, rows: int, room: Room) -> None:
        self.log = log
        self.rows = rows
        self.room = room
        self._tapes: dict[tuple[int, int], Tape] = {}
        self._unsent = Unsent(log, room)

    def changes(self, inputs: Sequence[Topic], after: int, upto: int) -> Iterator[list[pl.DataFrame]]:
        """The frames of each call for commits in (after, upto]; no call where there is nothing.

        Expired when retention has removed some of them, CorruptFile when stored bytes are not the committed ones.
        """
        return self._calls(inputs, [self._records(topic, after, upto) for topic in inputs])

    def current(self, inputs: Sequence[Topic], commit: int) -> Iterator[list[pl.DataFrame]]:
        """The frames of each call of a job that begins with the rows at a commit; of events, with their records."""
        with self.room.connect("rows", self.log.timezone) as own:
            parts = [
                self._rows(own, topic, commit) if topic.kind in CURRENT else self._records(topic, 0, commit)
                for topic in inputs
            ]
            yield from self._calls(inputs, parts)

    def _calls(self, inputs: Sequence[Topic], parts: Sequence[Iterator[pa.Table]]) -> Iterator[list[pl.DataFrame]]:
        nothing = [as_frame(record.empty(frame_schema(topic))) for topic in inputs]
        coming = ((place, table) for place, part in enumerate(parts) for table in part)
        begun, count = [], 0
        for place, table in coming:
            begun.append((place, table))
            count += table.num_rows
            if count > 2 * self.rows:
                break
        else:
            if begun:
                yield _whole(begun, nothing)
            return
        for place, tables in groupby(chain(begun, coming), key=lambda each: each[0]):
            for table in _cut((each for _, each in tables), self.rows):
                yield [*nothing[:place], as_frame(table), *nothing[place + 1 :]]

    def _records(self, topic: Topic, after: int, upto: int) -> Iterator[pa.Table]:
        """The topic's records of commits in (after, upto], partition by partition."""
        with self.log.catalog.read() as connection:
            if topic.kind != "event" or after:  # of events the oldest go for good, and a job begins with what is left
                expired.require_whole(connection, topic, after, upto)
            ends = {state.partition: state.next_offset for state in offsets.states(connection, [topic.id])}
        new = {each: end for each, end in ends.items() if (topic.id, each) not in self._tapes}
        for partition, at in scan.offsets_after(self.log, topic, new, after).items():
            self._tapes[topic.id, partition] = Tape(self.log, topic, partition, at, self.rows)
        for partition, end in ends.items():
            for table in self._tapes[topic.id, partition].take(topic, upto, end):
                yield self._unsent.fill(topic, after, upto, table)

    def _rows(self, own: duckdb.DuckDBPyConnection, topic: Topic, commit: int) -> Iterator[pa.Table]:
        """The rows at a commit as records of an initial copy, ordered so that the parts are the same again."""
        target, fields = frame_schema(topic), topic.schema.fields
        now = CurrentRows(self.log, own, topic).at(topic, commit)
        lowered = ", ".join(
            f"{types.lower_sql(field.name, field.type)} AS {types.quote(field.name)}" for field in fields
        )
        order = ", ".join(types.quote(name) for name in topic.schema.key or topic.schema.names)
        told = {record.OP: "r", record.WEIGHT: 1, record.COMMIT: commit, record.PARTITION: 0}
        for batch in own.sql(f"SELECT {lowered} FROM ({now}) ORDER BY {order}").to_arrow_reader(self.rows):
            table = pa.Table.from_batches([batch])
            for name in told.keys() & set(target.names):
                table = table.append_column(name, pa.repeat(pa.scalar(told[name], target.field(name).type), len(batch)))
            yield record.fill(table, target).cast(target)


def _whole(tables: Sequence[tuple[int, pa.Table]], nothing: Sequence[pl.DataFrame]) -> list[pl.DataFrame]:
    """All of them as one call, each input's in the order of commits; within one, as partitions and offsets have it."""
    frames = list(nothing)
    for place, found in groupby(tables, key=lambda each: each[0]):
        frame = as_frame(pa.concat_tables([table for _, table in found]))
        one = frame[record.PARTITION].n_unique() == 1
        frames[place] = frame if one else frame.sort(record.COMMIT, maintain_order=True)
    return frames


def _cut(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows, exactly ``rows`` in each table but the last."""
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        held.append(table)
        count += table.num_rows
        while count >= rows:
            whole = pa.concat_tables(held)
            yield whole.slice(0, rows)
            held, count = [whole.slice(rows)], count - rows
    if count:
        yield pa.concat_tables(held)
