"""Received messages, packed, and where whole source transactions end among them.

A commit of the log may end only where a source transaction does (law 2). Messages stay blocks of bytes and their
lengths from the connection on: no Python object ever stands for one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from headwater_connectors.postgres.cells import Int64s
from headwater_connectors.postgres.stream import FRAME, Block

XLOG_DATA = struct.Struct(">cQQq")
"""'w', start LSN, end LSN, send time; the message follows."""
KEEPALIVE = struct.Struct(">cQqB")
"""'k', end of WAL, send time, answer wanted."""
HEADER = FRAME + XLOG_DATA.size
"""Bytes before each message."""
_COMMIT, _KEEPALIVE = ord("C"), ord("k")


class Part(Protocol):
    """Messages in stream order: a chunk, or what ``load`` makes one. ``size`` in bytes, of which ``held`` in memory."""

    @property
    def messages(self) -> int: ...
    @property
    def whole(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def held(self) -> int: ...
    def load(self) -> Chunk: ...


@dataclass(frozen=True)
class Chunk:
    """Messages in stream order, headers included. ``whole`` of them end with the last commit (0: none does)."""

    data: bytes | memoryview
    lengths: Int64s
    whole: int

    @classmethod
    def of(cls, data: bytes | memoryview, lengths: Int64s) -> Chunk:
        types = np.frombuffer(data, np.uint8)[np.cumsum(lengths) - lengths + HEADER]
        commits = np.flatnonzero(types == _COMMIT)
        return cls(data, lengths, int(commits[-1]) + 1 if len(commits) else 0)

    @property
    def messages(self) -> int:
        return len(self.lengths)

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def held(self) -> int:
        return len(self.data)

    def load(self) -> Chunk:
        return self

    def split(self, count: int) -> tuple[Chunk, Chunk]:
        """The first ``count`` messages, and the others (which hold no commit)."""
        at = int(self.lengths[:count].sum())
        view = memoryview(self.data)
        return Chunk(view[:at], self.lengths[:count], count), Chunk(view[at:], self.lengths[count:], 0)


@dataclass(frozen=True)
class Idle:
    """A keepalive: the server has sent everything before ``end_lsn``, and may want an answer."""

    end_lsn: int
    answer: bool = False
    size: int = 0


def received(block: Block) -> Iterator[Chunk | Idle]:
    """What was read, in order: runs of messages, and keepalives between them."""
    starts = np.cumsum(block.lengths) - block.lengths
    kinds = np.frombuffer(block.data, np.uint8)[starts + FRAME]
    view, low = memoryview(block.data), 0
    for place in (*np.flatnonzero(kinds == _KEEPALIVE).tolist(), len(starts)):
        end = len(view) if place == len(starts) else int(starts[place])
        if place > low:
            yield Chunk.of(view[int(starts[low]) : end], block.lengths[low:place])
        if place < len(starts):
            _, lsn, _, answer = KEEPALIVE.unpack_from(view, end + FRAME)
            yield Idle(lsn, bool(answer))
        low = place + 1


def pieces(chunks: Sequence[Part], size: int) -> Iterator[list[Part]]:
    """The chunks in order, in runs of at least ``size`` bytes (the last one: what is left)."""
    piece: list[Part] = []
    held = 0
    for chunk in chunks:
        piece.append(chunk)
        held += chunk.size
        if held >= size:
            yield piece
            piece, held = [], 0
    if piece:
        yield piece


class Pending:
    """Received and not yet decoded. Takes come at transaction boundaries unless asked otherwise."""

    def __init__(self) -> None:
        self._chunks: list[Part] = []
        self._whole = 0
        self.size = 0
        self.messages = 0

    @property
    def whole(self) -> bool:
        """Whether a source transaction ends in here."""
        return self._whole > 0

    def add(self, chunk: Part) -> None:
        self._chunks.append(chunk)
        self.size += chunk.held
        self.messages += chunk.messages
        if chunk.whole:
            self._whole = len(self._chunks)

    def take_whole(self) -> list[Part]:
        """Everything up to the end of the last whole transaction; what follows stays."""
        taken, rest = self._chunks[: self._whole], self._chunks[self._whole :]
        last = taken[-1] if taken else None
        if isinstance(last, Chunk) and last.whole < last.messages:
            taken[-1], tail = last.split(last.whole)
            rest.insert(0, tail)
        self._reset(rest)
        return taken

    def take_all(self) -> list[Part]:
        """Everything, in the middle of a transaction: for one too large to be held in memory."""
        taken = self._chunks
        self._reset([])
        return taken

    def _reset(self, chunks: list[Part]) -> None:
        self._chunks = chunks
        self._whole = 0
        self.size = sum(chunk.held for chunk in chunks)
        self.messages = sum(chunk.messages for chunk in chunks)
