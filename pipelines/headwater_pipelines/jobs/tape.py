"""The records of one partition in their order, read on from where the last step ended: nothing is read twice.

Files are read in larger pieces than steps are long; what a step does not take is there for the next one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from headwater import record
from headwater.catalog.records import Topic
from headwater.log import Log, scan
from headwater.log.scan import Piece, Span
from headwater_pipelines.jobs.records import columns_of


class Tape:
    """``at``: the offset of the first record that was not given out. ``rows``: of a piece, at most."""

    def __init__(self, log: Log, topic: Topic, partition: int, at: int, rows: int) -> None:
        self.log = log
        self.partition = partition
        self.at = at
        self._rows = rows
        self._topic = topic
        self._held: pa.Table | None = None
        self._pieces: Iterator[Piece] = iter(())
        self._reached = at

    def take(self, topic: Topic, upto: int, end: int) -> Iterator[pa.Table]:
        """The next records of commits up to ``upto``; ``end``: an offset that all of those are before.

        CorruptFile when stored bytes are not the committed ones.
        """
        if topic.schema_version != self._topic.schema_version:
            self._rewind(topic)
        while (table := self._next(end)) is not None:
            count = int(np.searchsorted(table.column(record.COMMIT).to_numpy(), upto, side="right"))
            self._held = table.slice(count) if count < table.num_rows else None
            if count:
                self.at = table.column(record.OFFSET)[count - 1].as_py() + 1
                yield table.slice(0, count)
            if self._held is not None:
                return

    def _rewind(self, topic: Topic) -> None:
        """Forget what was read ahead."""
        self._topic, self._held, self._pieces, self._reached = topic, None, iter(()), self.at

    def _next(self, end: int) -> pa.Table | None:
        """Records that follow those given out; None when there are none before ``end``."""
        if self._held is not None:
            return self._held
        while True:
            piece = next(self._pieces, None)
            if piece is not None:
                self._reached = piece.upto
                if piece.table.num_rows:
                    return piece.table
            elif self._reached >= end:
                return None
            else:
                self._pieces = self._open(end)

    def _open(self, end: int) -> Iterator[Piece]:
        span = Span(partition=self.partition, low=self._reached, high=end)
        with self.log.catalog.read() as connection:
            (found,) = scan.plan(connection, self._topic, [span])
        return scan.pieces(self.log, found, self._rows, columns_of(self._topic))
