"""A batch of pgoutput messages in one buffer, and which source transaction each of them belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from headwater import record
from headwater.schema import Schema
from headwater_connectors.postgres.cells import PAD, Bytes, Cells, Int64s, read
from headwater_connectors.postgres.snapshot import widen
from headwater_connectors.postgres.temporal import MICROS_2000
from headwater_connectors.postgres.transactions import HEADER, XLOG_DATA, Chunk

BEGIN, COMMIT, INSERT, UPDATE, DELETE, TRUNCATE, RELATION, MESSAGE = b"BCIUDTRM"
CONTEXT = b"headwater.context\0"
"""The prefix of a logical message in which an application says who changes what and why, as a JSON object."""
DDL = b"headwater.ddl\0"
"""... in which the event trigger says what became of a table, see ``event_trigger``."""

TRANSACTIONS = Schema.of(
    {
        "xid": "BIGINT",
        "begin_lsn": "BIGINT",
        "commit_lsn": "BIGINT",
        "committed_at": "TIMESTAMP WITH TIME ZONE",
        "rows": "BIGINT",
        "actor": "VARCHAR",
        "correlation_id": "VARCHAR",
        "traceparent": "VARCHAR",
        "context": "JSON",
    }
)
"""``<source>.transactions``: one row per source transaction that changed a captured table. The last four are what the
application sent in it, see ``CONTEXT``; NULL where it sent nothing, or no JSON."""


@dataclass(frozen=True)
class Batch:
    """Raw messages, headers included, in one padded buffer; ``start`` are the messages' type bytes."""

    buffer: Bytes
    start: Int64s
    end: Int64s

    @classmethod
    def of(cls, chunks: Sequence[Chunk]) -> Batch:
        buffer = np.concatenate([np.frombuffer(data, np.uint8) for data in (*(chunk.data for chunk in chunks), PAD)])
        ends = np.cumsum(np.concatenate([chunk.lengths for chunk in chunks]))
        starts = np.concatenate((np.zeros(1, np.int64), ends[:-1])) + HEADER
        return cls(buffer, starts, ends)

    def message(self, place: int) -> bytes:
        return self.buffer[self.start[place] : self.end[place]].tobytes()


@dataclass
class Open:
    """A source transaction whose begin is in an earlier batch than its commit."""

    lsn: int
    begin_lsn: int
    xid: int
    committed_at: int
    changes: int
    context: str | None = None


@dataclass(frozen=True)
class Context:
    """Per message: which transaction, and how many changes came before; per transaction: its begin's fields.

    Transaction 0 is the one left open by the batch before.
    """

    transaction: Int64s
    running: Int64s
    lsn: Int64s
    begin_lsn: Int64s
    xid: Int64s
    committed_at: Int64s
    before: Int64s
    position: int
    sent: dict[int, str]
    """What applications sent, of the few transactions in which they did."""

    @classmethod
    def of(cls, batch: Batch, kinds: Bytes, left: Open | None, near: int) -> Context:
        begins = kinds == BEGIN
        change = (kinds == INSERT) | (kinds == UPDATE) | (kinds == DELETE) | (kinds == TRUNCATE)
        running = np.cumsum(change)
        at = batch.start[begins]
        left = left or Open(0, 0, 0, 0, 0)
        commits = np.flatnonzero(kinds == COMMIT)
        end_lsn = int(read(batch.buffer, "i8", batch.start[commits[-1:]] + 10)[0]) if len(commits) else 0
        return cls(
            np.cumsum(begins),
            running,
            _after(left.lsn, read(batch.buffer, "i8", at + 1)),
            _after(left.begin_lsn, read(batch.buffer, "i8", at - XLOG_DATA.size + 1)),
            _after(left.xid, widen(read(batch.buffer, "u4", at + 17).astype(np.int64), near)),
            _after(left.committed_at, read(batch.buffer, "i8", at + 9) + MICROS_2000),
            _after(-left.changes, running[begins]),
            end_lsn,
            ({} if left.context is None else {0: left.context}) | _sent(batch, kinds, np.cumsum(begins)),
        )

    def metadata(self, places: Int64s) -> dict[str, pa.Array]:
        of = self.transaction[places]
        return {
            record.COMMITTED_AT: _utc(self.committed_at[of]),
            record.LSN: pa.array(self.lsn[of]),
            record.XID: pa.array(self.xid[of]),
            record.SEQ: pa.array(self.running[places] - self.before[of]),
        }

    def transactions(self, kinds: Bytes) -> pa.Table:
        """One row per transaction that commits in the batch (schema: ``TRANSACTIONS``)."""
        places = np.flatnonzero(kinds == COMMIT)
        of = self.transaction[places]
        return pa.table(
            {
                "xid": pa.array(self.xid[of]),
                "begin_lsn": pa.array(self.begin_lsn[of]),
                "commit_lsn": pa.array(self.lsn[of]),
                "committed_at": _utc(self.committed_at[of]),
                "rows": pa.array(self.running[places] - self.before[of]),
                **self._contexts(of),
            }
        )

    def _contexts(self, of: Int64s) -> dict[str, pa.Array]:
        texts = pa.nulls(len(of), pa.string())
        if self.sent:
            held = pa.array(list(self.sent.values()), pa.string())
            place = pc.index_in(pa.array(of), pa.array(list(self.sent), pa.int64()))
            texts = held.take(place)
        json = pl.Series(texts, dtype=pl.String)
        valid = json.str.json_path_match("$").is_not_null()
        named = {
            name: json.str.json_path_match(f"$.{name}").to_arrow().cast(pa.string())
            for name in ("actor", "correlation_id", "traceparent")
        }
        return {**named, "context": pc.if_else(valid.to_arrow(), texts, pa.scalar(None, pa.string()))}

    def still_open(self, kinds: Bytes) -> Open | None:
        ends = np.flatnonzero((kinds == BEGIN) | (kinds == COMMIT))
        last = self.transaction[-1]
        if (len(ends) and kinds[ends[-1]] == COMMIT) or (not len(ends) and self.lsn[0] == 0):
            return None
        changes = int(self.running[-1] - self.before[last])
        fields = (self.lsn, self.begin_lsn, self.xid, self.committed_at)
        lsn, begin_lsn, xid, committed_at = (int(field[last]) for field in fields)
        return Open(lsn, begin_lsn, xid, committed_at, changes, self.sent.get(int(last)))


def said(batch: Batch, kinds: Bytes, prefix: bytes) -> Int64s:
    """Places of the messages of a prefix, NUL included, that belong to a transaction: others stand anywhere."""
    places = np.flatnonzero(kinds == MESSAGE)
    at = batch.start[places]
    mine = batch.buffer[at[:, None] + 10 + np.arange(len(prefix))] == np.frombuffer(prefix, np.uint8)
    found: Int64s = places[(batch.buffer[at + 1] == 1) & mine.all(axis=1)]
    return found


def _sent(batch: Batch, kinds: Bytes, transaction: Int64s) -> dict[int, str]:
    """The contexts that applications sent inside transactions: the last one of each."""
    places = said(batch, kinds, CONTEXT)
    at = batch.start[places] + 10 + len(CONTEXT)
    texts = Cells(batch.buffer, at + 4, read(batch.buffer, "u4", at).astype(np.int64)).bytes()
    found = dict(zip(transaction[places].tolist(), texts.to_pylist(), strict=True))
    return {number: text.decode(errors="replace") for number, text in found.items()}


def _after(first: int, rest: npt.NDArray[Any]) -> Int64s:
    return np.concatenate((np.array([first], np.int64), rest.astype(np.int64)))


def _utc(micros: Int64s) -> pa.Array:
    return pa.array(micros).view(pa.timestamp("us", tz="UTC"))
