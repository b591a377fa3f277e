"""Event ids of the last while, in memory: a record whose id was seen within the topic's window is dropped.

    ids of the window ──▶ runs of sorted 128-bit hashes ◀── advanced from the log, by columns
                                   │
    batch ──▶ hashes ──▶ fresh? ───┘      inside the write transaction: has anyone added one of these meanwhile?

Exact with any number of producers: what other processes committed since the last look is read before the batch is
published, under the catalog's write lock, and a batch that lost a race is sifted again. "Within the window" goes by
commit times. 128 bits: among 10 million ids the chance that a new one is mistaken for another is 3e-32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sqlalchemy import Connection, bindparam, select

from headwater import record
from headwater.catalog import tables
from headwater.catalog.prepared import Prepared
from headwater.catalog.records import Topic, to_datetime, to_micros
from headwater.errors import BufferFull
from headwater.log import CommitInfo, Log

IDS_MAX = 10_000_000
"""Ids that a window may hold: 24 bytes each, twice that while runs are merged, so half a gigabyte at most."""

COMMITS_READ = 1_000
"""Commits whose ids are read at a time, when a window is filled from the log."""

Hashes = npt.NDArray[np.bytes_]
"""Of 16 bytes each."""

_ENDS = Prepared(
    select(tables.partition.c.partition, tables.partition.c.next_offset).where(
        tables.partition.c.topic == bindparam("in_topic")
    )
)


class Moved(Exception):
    """Another producer has published an id of this batch meanwhile; sift again. Never leaves the client."""


@dataclass
class _Run:
    """Ids in order of their hash, each with the time of its commit in microseconds."""

    hashes: Hashes
    times: npt.NDArray[np.int64]


class Window:
    """The ids of one topic's window. Not thread-safe: the producer's sending thread has it."""

    def __init__(self, log: Log, topic: Topic) -> None:
        assert topic.settings.dedupe_s is not None
        self.log = log
        self.topic = topic
        self._width_us = int(topic.settings.dedupe_s * 1e6)
        self._runs: list[_Run] = []
        self._ends: dict[int, int] = {}
        self._alone = False
        start = to_datetime(log.clock.now_us()) - timedelta(microseconds=self._width_us)
        self._upto = log.commit_at_time(start)

    def advance(self) -> None:
        """Take in what was published since the last look."""
        with self.log.catalog.read() as connection:
            newest = connection.execute(select(tables.commit.c.number).order_by(tables.commit.c.number.desc())).scalar()
            ends = self._ends_now(connection)
        while ends != self._ends and newest is not None and self._upto < newest:
            upto = min(newest, self._upto + COMMITS_READ)
            self._add(_run(*self._read(self._upto, upto)))
            self._require_room(0)
            self._upto = upto
        self._ends, self._upto = ends, max(self._upto, newest or 0)
        cut = self.log.clock.now_us() - self._width_us
        self._runs = [run for run in self._runs if run.times.max() >= cut]

    def fresh(self, ids: pa.ChunkedArray) -> tuple[npt.NDArray[np.bool_], Hashes]:
        """Which rows stay: no id, or one not seen in the window nor earlier in ``ids``; and their hashes, in order."""
        valid = ids.is_valid().to_numpy()
        hashes = _hashes(ids.drop_null())
        distinct, first = np.unique(hashes, return_index=True)  # sorted: looking them up walks each run once
        new = ~self._known(distinct)
        self._require_room(int(new.sum()))
        keep = ~valid
        keep[np.flatnonzero(valid)[first[new]]] = True
        return keep, distinct[new]

    def settle(self, connection: Connection, info: CommitInfo, hashes: Hashes) -> None:
        """Inside the catalog transaction: Moved when one of these ids was published since ``advance``."""
        self._alone = self._ends_now(connection) == self._ends
        if not self._alone:
            others, _ = self._read(self._upto, info.number - 1)
            if np.isin(hashes, others).any():
                raise Moved

    def published(self, info: CommitInfo, hashes: Hashes, rows: Mapping[int, int]) -> None:
        """This producer's own commit of so many rows by partition: unless others came between, it is not read back."""
        if self._alone:
            self._add(_Run(hashes=hashes, times=np.full(len(hashes), to_micros(info.time), dtype=np.int64)))
            self._ends = {partition: end + rows.get(partition, 0) for partition, end in self._ends.items()}
            self._upto = info.number

    def _read(self, after: int, upto: int) -> tuple[Hashes, npt.NDArray[np.int64]]:
        rows = self.log.read_changes(self.topic.name, after, upto, [record.EVENT_ID, record.INGESTED_AT])
        rows = rows.filter(rows.column(record.EVENT_ID).is_valid())
        times = rows.column(record.INGESTED_AT).cast(pa.int64()).to_numpy()
        return _hashes(rows.column(record.EVENT_ID)), times

    def _known(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        cut = self.log.clock.now_us() - self._width_us
        known = np.zeros(len(hashes), dtype=bool)
        for run in self._runs:
            place = np.minimum(np.searchsorted(run.hashes, hashes), len(run.hashes) - 1)
            known |= (run.hashes[place] == hashes) & (run.times[place] >= cut)
        return known

    def _add(self, run: _Run) -> None:
        """Merged with its neighbours so that each run is at least twice the next: few are searched."""
        if not len(run.hashes):
            return
        self._runs.append(run)
        while len(self._runs) > 1 and len(self._runs[-2].hashes) < 2 * len(self._runs[-1].hashes):
            right, left = self._runs.pop(), self._runs.pop()
            merged = np.concatenate([left.hashes, right.hashes]), np.concatenate([left.times, right.times])
            self._runs.append(_run(*merged))

    def _require_room(self, more: int) -> None:
        """BufferFull when the window would hold too many ids with ``more`` new ones; nothing is dropped for room."""
        held = sum(len(run.hashes) for run in self._runs) + more
        if held > IDS_MAX:
            raise BufferFull(
                f"the dedupe window holds {held:,} event ids, more than {IDS_MAX:,}",
                where=self.topic.name,
                todo="Give the topic a shorter dedupe window, or spread the events over several topics.",
            )

    def _ends_now(self, connection: Connection) -> dict[int, int]:
        return {row.partition: row.next_offset for row in _ENDS.all(connection, {"in_topic": self.topic.id})}


def _run(hashes: Hashes, times: npt.NDArray[np.int64]) -> _Run:
    """Sorted, each id once, with its newest time."""
    order = np.lexsort((times, hashes))
    hashes, times = hashes[order], times[order]
    last = np.ones(len(hashes), dtype=bool)
    last[:-1] = hashes[1:] != hashes[:-1]
    return _Run(hashes=hashes[last], times=times[last])


def _hashes(ids: pa.ChunkedArray) -> Hashes:
    import polars as pl  # a tenth of a second that only a topic with a dedupe window pays

    texts = pl.Series(ids.cast(pa.large_string()))
    halves = np.stack([texts.hash(1).to_numpy(), texts.hash(2).to_numpy()], axis=1)
    return np.ascontiguousarray(halves).view("S16").ravel()
