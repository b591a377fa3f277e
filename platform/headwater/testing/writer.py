"""The shortest way to write a log in a test: one producer, one append per commit."""

from __future__ import annotations

import pyarrow as pa

from headwater.catalog.records import CommitInfo, Kind
from headwater.log import Log, Transaction
from headwater.schema import Schema

SOURCE = "source:shop"


class Writer:
    """Owns ``producer`` (every earlier owner is fenced) and commits at the position that is stored."""

    def __init__(self, log: Log, producer: str = SOURCE) -> None:
        self.log = log
        self.producer = producer
        self.epoch = log.raise_epoch(producer)

    def transaction(self) -> Transaction:
        return self.log.transaction(self.producer, self.epoch, self.log.producer(self.producer).position)

    def create(self, name: str, kind: Kind, schema: Schema, partitions: int = 1) -> CommitInfo:
        """A commit that only creates a topic of source ``shop``."""
        with self.transaction() as tx:
            tx.create_topic(name, kind, schema, partitions=partitions, source="shop")
            return tx.commit()

    def write(self, name: str, rows: pa.Table, position: str | None = None) -> CommitInfo:
        """A commit of these rows; ``position`` moves the producer's position with it."""
        with self.transaction() as tx:
            tx.append(name, rows)
            if position is not None:
                tx.position = position
            return tx.commit()
