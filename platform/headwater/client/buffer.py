"""Rows that were accepted and are not committed yet: a queue bounded in bytes, between callers and one sender.

    put (waits, or raises) ──▶ parcels in order ──▶ take: after the linger, or enough bytes, or someone waits
                                                         └─ done: their bytes are free again

A parcel is committed whole. Parcels that need a commit of their own (transactions, expected offsets, batch numbers
of the caller) are taken alone; others that follow each other share one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import pyarrow as pa

from headwater.catalog.records import Topic
from headwater.client.delivery import Delivery
from headwater.errors import BufferFull, UsageError
from headwater.log import Transaction

OnFull = Literal["block", "raise"]


@dataclass(kw_only=True)
class Send:
    """Rows of one ``send``, checked against ``topic`` as it was then."""

    topic: Topic
    table: pa.Table
    delivery: Delivery
    letters: pa.Table | None = None
    expect: Mapping[int, int] = field(default_factory=dict)

    @cached_property
    def bytes(self) -> int:
        """What it holds in memory."""
        return int(self.table.nbytes) + (int(self.letters.nbytes) if self.letters is not None else 0)


@dataclass(kw_only=True)
class Parcel:
    """What is committed together, or not at all."""

    sends: list[Send]
    alone: bool = False
    sequence: int | None = None
    deadline: float | None = None
    """``time.monotonic()`` after which it must not become visible any more."""
    staged: list[Callable[[Transaction], None]] = field(default_factory=list)
    """What else happens in this commit."""
    accepted: float = field(default_factory=time.monotonic)

    @cached_property
    def bytes(self) -> int:
        """Of all its sends; asked for the first time when no send is added any more."""
        return sum(send.bytes for send in self.sends)

    @property
    def rows(self) -> int:
        return sum(send.table.num_rows for send in self.sends)


class Buffer:
    """Thread-safe. ``held`` counts from acceptance to the end of the commit."""

    def __init__(self, *, bytes_max: int, linger_s: float, on_full: OnFull, block_s: float, age_max_s: float) -> None:
        self.bytes_max = bytes_max
        self.held = 0
        self._linger_s = linger_s
        self._on_full = on_full
        self._block_s = block_s
        self._age_max_s = age_max_s
        self._parcels: deque[Parcel] = deque()
        self._waiting = 0
        self._taken: list[Parcel] = []
        self._changed = threading.Condition()
        self._due_bytes = bytes_max
        self._hurried = False
        self._closed = False

    def reserve(self, size: int) -> None:
        """Room for ``size`` bytes; waits for it, or BufferFull."""
        if size > self.bytes_max:
            raise BufferFull(
                f"{size:,} bytes in one batch are more than the buffer's {self.bytes_max:,}",
                todo="Send it in slices, or open the producer with a larger buffer_bytes.",
            )
        with self._changed:
            if not self._has_room(size):
                if self._on_full == "raise":
                    raise self._full(size, "at once")
                self._hurried = True
                self._changed.notify_all()
                if not self._changed.wait_for(lambda: self._has_room(size), self._block_s):
                    raise self._full(size, f"within {self._block_s:g} s")
            self.held += size

    def release(self, size: int) -> None:
        """Give reserved room back."""
        with self._changed:
            self.held -= size
            self._changed.notify_all()

    def put(self, parcel: Parcel) -> None:
        """Queue a parcel whose bytes are reserved; UsageError, and they are free again, once the buffer is closed."""
        with self._changed:
            if self._closed:
                self.held -= parcel.bytes
                raise UsageError("the producer was closed meanwhile", todo="Open another one.")
            self._parcels.append(parcel)
            self._waiting += parcel.bytes
            if len(self._parcels) == 1 or parcel.alone or self._waiting >= self._due_bytes:
                self._changed.notify_all()

    def take(self, *, rows_max: int, bytes_max: int) -> list[Parcel]:
        """The next parcels for one commit, in order; waits for them. Empty once the buffer is closed and drained."""
        with self._changed:
            self._changed.wait_for(lambda: self._parcels or self._closed)
            if self._parcels:
                wait_s = self._parcels[0].accepted + self._linger_s - time.monotonic()
                self._due_bytes = bytes_max
                self._changed.wait_for(self._is_due, max(0.0, wait_s))
            self._taken = self._cut(rows_max, bytes_max)
            if not self._parcels:
                self._hurried = False
            return self._taken

    def done(self) -> None:
        """What was taken last is committed, or has failed."""
        with self._changed:
            self.held -= sum(parcel.bytes for parcel in self._taken)
            self._taken = []
            self._changed.notify_all()

    def hurry(self) -> None:
        """Do not linger over what is queued now."""
        with self._changed:
            self._hurried = bool(self._parcels)
            self._changed.notify_all()

    def drain(self, timeout: float | None) -> bool:
        """Wait until everything queued so far is committed or has failed; False after ``timeout`` seconds."""
        with self._changed:
            self._hurried = bool(self._parcels)
            self._changed.notify_all()
            last = self._parcels[-1] if self._parcels else self._taken[-1] if self._taken else None
            return self._changed.wait_for(lambda: last is None or not self._holds(last), timeout)

    def close(self) -> None:
        """No parcel comes any more: ``take`` drains what is there, then ends."""
        with self._changed:
            self._closed = True
            self._hurried = True
            self._changed.notify_all()

    def _holds(self, parcel: Parcel) -> bool:
        return any(parcel is other for other in (*self._taken, *self._parcels))

    def _has_room(self, size: int) -> bool:
        oldest = self._taken[0] if self._taken else self._parcels[0] if self._parcels else None
        young = oldest is None or time.monotonic() - oldest.accepted <= self._age_max_s
        return young and self.held + size <= self.bytes_max

    def _is_due(self) -> bool:
        return self._hurried or self._closed or self._parcels[0].alone or self._waiting >= self._due_bytes

    def _cut(self, rows_max: int, bytes_max: int) -> list[Parcel]:
        taken: list[Parcel] = []
        rows = size = 0
        while self._parcels and not (taken and (taken[0].alone or self._parcels[0].alone)):
            rows, size = rows + self._parcels[0].rows, size + self._parcels[0].bytes
            if taken and (rows > rows_max or size > bytes_max):
                break
            taken.append(self._parcels.popleft())
            self._waiting -= taken[-1].bytes
        return taken

    def _full(self, size: int, when: str) -> BufferFull:
        return BufferFull(
            f"no room for {size:,} bytes {when}: {self.held:,} of {self.bytes_max:,} wait for their commit",
            todo="Send slower, or open the producer with a larger buffer_bytes.",
        )
