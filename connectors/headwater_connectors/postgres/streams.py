"""Transactions that the server sends before they end: spooled to disk until their commit, then as if sent whole.

    S xid ... messages with their (sub)transaction's id ... E    a segment, between other transactions
    A xid subxid                                                 a (sub)transaction was rolled back
    c xid                                                        the commit: Begin, the messages that count, Commit

A spool is an unnamed file: gone with its session, which the server's resending needs, and with the process. Rows of
rolled back subtransactions are dropped. Relations are not: the server announces a table once for each streamed
transaction, whichever subtransaction that was in, and one that was altered in a rolled back part is announced anew.
They are understood when a row needs them, so a shape that was rolled back never is.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headwater.storage.local import named_errors
from headwater_connectors.postgres.cells import PAD, Bytes, Int64s, read
from headwater_connectors.postgres.messages import Ignored, prefixes
from headwater_connectors.postgres.transactions import HEADER, XLOG_DATA, Chunk, Part

START, STOP, COMMIT, ABORT = b"SEcA"
_CONTROL = np.frombuffer(b"SEcA", np.uint8)
_RELATION, _ORIGIN, _MESSAGE = b"ROM"
_FRAME = bytes(HEADER - XLOG_DATA.size)
PART_BYTES = 4 << 20
"""Read back at a time, and decoded together."""


class Unattributed(Exception):
    """A transaction in progress had logical messages and a part that was rolled back.

    The server does not say which part a message belongs to. Of a transaction that it sends after the commit, it
    leaves out what was rolled back.
    """


class _Spool:
    """The messages of one transaction in progress, in ``parts`` of some megabytes: messages, then their lengths.

    In memory are a part's place (offset, bytes, count of messages) and the lengths of the part that is being written.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor = -1
        self.begin_lsn = 0
        self.size = 0
        self.parts: list[tuple[int, int, int]] = []
        self._begun = 0
        self._lengths: list[Int64s] = []
        self.aborted: set[int] = set()
        self.says = False
        """Whether it has logical messages."""
        with named_errors("state (a transaction in progress)"), tempfile.TemporaryFile(dir=folder) as file:
            self._descriptor = os.dup(file.fileno())

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def add(self, data: memoryview, lengths: Int64s) -> None:
        self._write(data)
        self._lengths.append(lengths.astype(np.int64))
        if self.size - self._begun >= PART_BYTES:
            self.end_part()

    def end_part(self) -> None:
        """What was added since the last part is one."""
        if self._lengths:
            lengths = np.concatenate(self._lengths)
            self.parts.append((self._begun, self.size - self._begun, len(lengths)))
            self._write(lengths.data.cast("B"))
            self._begun, self._lengths = self.size, []

    def _write(self, data: memoryview) -> None:
        with named_errors("state (a transaction in progress)"):
            while data:  # a call may take less than it was given
                count = os.pwrite(self._descriptor, data, self.size)
                data, self.size = data[count:], self.size + count


@dataclass(frozen=True)
class Spooled:
    """A part of a committed transaction that is still on disk; ``load`` makes it a chunk."""

    spool: _Spool
    offset: int
    size: int
    messages: int
    whole: int = 0
    held: int = 0

    def load(self) -> Chunk:
        """The part's messages without transaction ids, as the server would have sent them after the commit."""
        data = np.frombuffer(self.spool.read(self.offset, self.size) + PAD, np.uint8)
        lengths = np.frombuffer(self.spool.read(self.offset + self.size, 8 * self.messages), np.int64)
        return _plain(data, np.cumsum(lengths) - lengths + HEADER, lengths, self.spool.aborted)


def _plain(data: Bytes, at: Int64s, lengths: Int64s, aborted: set[int]) -> Chunk:
    """Messages whose type bytes are ``at``, less the rolled back ones, each less the four bytes of its id."""
    kept = np.ones(len(data) - len(PAD), np.bool_)
    rows = data[at] != _ORIGIN  # says where the transaction came from, and has no id
    if aborted:
        gone = np.isin(read(data, "u4", at + 1), np.array(list(aborted), np.uint32))
        rows &= ~(gone & (data[at] != _RELATION))
    if not rows.all():
        kept &= np.repeat(rows, lengths)
    kept[(at[:, None] + np.arange(1, 5)).ravel()] = False
    return Chunk(data[: len(kept)][kept].tobytes(), lengths[rows] - 4, 0)


class Streams:
    """Sorts what was received: whole transactions pass, those in progress wait in ``folder``. One session's."""

    def __init__(self, folder: Path, ignored: Ignored | None = None) -> None:
        self._folder = folder
        self._ignored = ignored or Ignored()
        self._spools: dict[int, _Spool] = {}
        self._open: _Spool | None = None

    @property
    def size(self) -> int:
        """Bytes of transactions that have not ended."""
        return sum(spool.size for spool in self._spools.values())

    def sort(self, chunk: Chunk) -> Iterator[Part]:
        """The chunk's messages that can be decoded now, in the order of commits. Raises Unattributed."""
        data = np.frombuffer(chunk.data, np.uint8)
        starts = np.cumsum(chunk.lengths) - chunk.lengths
        kinds = data[starts + HEADER]
        places = np.flatnonzero(np.isin(kinds, _CONTROL)) if self._spools or START in kinds else ()
        if not len(places) and self._open is None:
            yield from self._outside(memoryview(chunk.data), chunk.lengths, chunk)
            return
        view, low = memoryview(chunk.data), 0
        for place in (*places, len(starts)):
            end = int(starts[place]) if place < len(starts) else len(view)
            if place > low:
                yield from self._run(view[int(starts[low]) : end], chunk.lengths[low:place])
            if place < len(starts):
                yield from self._control(bytes(view[end : end + int(chunk.lengths[place])]))
            low = int(place) + 1

    def _run(self, data: memoryview, lengths: Int64s) -> Iterator[Chunk]:
        if self._open is None:
            yield from self._outside(data, lengths, None)
            return
        if not self._open.begin_lsn:
            places = np.cumsum(lengths) - lengths + len(_FRAME) + 1
            found = read(np.frombuffer(bytes(data) + PAD, np.uint8), "i8", places)
            self._open.begin_lsn = int(found[found > 0].min(initial=np.iinfo(np.int64).max)) if found.any() else 0
        at = np.cumsum(lengths) - lengths + HEADER
        self._open.says |= bool((np.frombuffer(data, np.uint8)[at] == _MESSAGE).any())
        self._open.add(data, lengths)

    def _outside(self, data: memoryview, lengths: Int64s, chunk: Chunk | None) -> Iterator[Chunk]:
        """Messages that are in no segment, without those that belong to no transaction: they are only counted."""
        held = np.frombuffer(data, np.uint8)
        ends = np.cumsum(lengths)
        at = ends - lengths + HEADER
        loose = (held[at] == _MESSAGE) & (held[np.minimum(at + 1, len(held) - 1)] == 0)
        if not loose.any():
            yield Chunk.of(data, lengths) if chunk is None else chunk
            return
        self._ignored.add(prefixes(held, at[loose], ends[loose]))
        if not loose.all():
            yield Chunk.of(held[np.repeat(~loose, lengths)].tobytes(), lengths[~loose])

    def _control(self, message: bytes) -> Iterator[Part]:
        kind, xid = message[HEADER], int.from_bytes(message[HEADER + 1 : HEADER + 5])
        if kind == START:
            if xid not in self._spools:
                self._spools[xid] = _Spool(self._folder)
            self._open = self._spools[xid]
        elif kind == STOP:
            self._open = None
        elif kind == ABORT:
            self._abort(xid, int.from_bytes(message[HEADER + 5 : HEADER + 9]))
        else:
            yield from self._commit(xid, message)

    def _abort(self, xid: int, part: int) -> None:
        if part == xid:
            del self._spools[xid]
        else:
            self._spools[xid].aborted.add(part)

    def _commit(self, xid: int, message: bytes) -> Iterator[Part]:
        spool = self._spools.pop(xid)
        if spool.says and spool.aborted:
            raise Unattributed
        flags, lsn, end, time = struct.unpack_from(">bqqq", message, HEADER + 5)
        yield _message(spool.begin_lsn, struct.pack(">cqqI", b"B", lsn, time, xid), 0)
        spool.end_part()
        for offset, size, messages in spool.parts:
            yield Spooled(spool, offset, size, messages)
        yield _message(lsn, struct.pack(">cbqqq", b"C", flags, lsn, end, time), 1)


def _message(lsn: int, body: bytes, whole: int) -> Chunk:
    data = _FRAME + XLOG_DATA.pack(b"w", lsn, lsn, 0) + body
    return Chunk(data, np.array([len(data)], np.int64), whole)
