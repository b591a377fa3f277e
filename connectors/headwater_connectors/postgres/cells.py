"""Cells: where the values of one column lie inside a buffer of raw bytes from the server.

Everything here is arithmetic on whole columns. A buffer ends with ``PAD`` zero bytes, so that a fixed-width
read at any cell start stays inside it; positions of NULL cells are in range and their length is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Bytes = npt.NDArray[np.uint8]
Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

PAD = bytes(64)


@dataclass(frozen=True)
class Cells:
    """``length[i]`` bytes at ``start[i]`` for each valid row ``i``; ``valid`` is None when all are.

    ``near``: of every row some bytes from where a valid value begins, (n, width), read already; or None.
    """

    buffer: Bytes
    start: Int64s
    length: Int64s
    valid: Bools | None = None
    near: Bytes | None = None

    def __len__(self) -> int:
        return len(self.start)

    def take(self, rows: npt.NDArray[Any] | slice) -> Cells:
        """The cells of these rows (numbers, a mask or a part)."""
        valid = None if self.valid is None else self.valid[rows]
        return Cells(self.buffer, self.start[rows], self.length[rows], valid)

    def shifted(self, front: int, back: int = 0) -> Cells:
        """Without the first ``front`` and the last ``back`` bytes of each value."""
        return Cells(self.buffer, self.start + front, np.maximum(self.length - front - back, 0), self.valid)

    def masked(self, valid: Bools) -> Cells:
        """Also NULL where ``valid`` is false."""
        both = valid if self.valid is None else self.valid & valid
        return Cells(self.buffer, self.start, self.length, both, self.near)

    def byte(self, offset: int = 0) -> Bytes:
        """The byte at ``offset`` of each value (undefined for NULL and shorter ones)."""
        if (near := self._near(offset + 1)) is not None:
            return near[:, offset].copy()
        return self.buffer[self.start + offset]

    def integers(self, kind: str, offset: int = 0) -> npt.NDArray[Any]:
        """Big-endian numbers of numpy kind ``i2 i4 i8 u2 u4 f4 f8`` at ``offset`` of each value."""
        if (near := self._near(offset + int(kind[1:]))) is not None:
            return numbers(near, kind, offset)
        return read(self.buffer, kind, self.start + offset)

    def counts(self, offset: int = 0) -> Int64s:
        """The int4 numbers at ``offset``, 0 for NULL."""
        found = self.integers("i4", offset).astype(np.int64)
        return found if self.valid is None else np.where(self.valid, found, 0)

    def bytes(self, kind: pa.DataType | None = None) -> pa.Array:
        """The values themselves as an Arrow ``binary`` or ``string`` array (one copy, in C++).

        ValueError when they do not lie inside the buffer: Arrow would read whatever is there.
        """
        kind = kind or pa.binary()
        count = len(self)
        ends = self.start + self.length
        if count and (self.start.min() < 0 or self.length.min() < 0 or ends.max() > len(self.buffer)):
            raise ValueError("a value whose length is not that of its bytes")
        offsets = np.empty(2 * count + 1, np.int32)
        offsets[0:-1:2] = self.start
        offsets[1::2] = ends
        offsets[-1] = offsets[-2] if count else 0
        # The buffer read as an array of 2n strings: the values at even places, what lies between them at odd ones.
        spans = pa.Array.from_buffers(kind, 2 * count, [None, pa.py_buffer(offsets), pa.py_buffer(self.buffer)])
        places = pa.array(np.arange(0, 2 * count, 2, dtype=np.int32), mask=self.nulls())
        return spans.take(places)

    def fixed(self, width: int) -> Bytes:
        """The first ``width`` bytes of each value, as an (n, width) array."""
        if (near := self._near(width)) is not None:
            return np.ascontiguousarray(near[:, :width])
        return gathered(self.buffer, self.start, width)

    @property
    def empty(self) -> bool:
        """Whether there are cells, and all of them are NULL."""
        return self.valid is not None and len(self) > 0 and not self.valid.any()

    def nulls(self) -> Bools | None:
        """Mask of NULL rows as pyarrow wants it, or None."""
        return None if self.valid is None else ~self.valid

    def _near(self, width: int) -> Bytes | None:
        return self.near if self.near is not None and width <= self.near.shape[1] else None


def read(buffer: Bytes, kind: str, at: Int64s) -> npt.NDArray[Any]:
    """Big-endian numbers at arbitrary byte positions: an overlapping, unaligned view makes it one gather."""
    width = int(kind[1:])
    view: npt.NDArray[Any] = np.ndarray((len(buffer) - width + 1,), dtype=f"<{kind}", buffer=buffer, strides=(1,))
    return view[at].byteswap(inplace=True)


def gathered(buffer: Bytes, at: Int64s, width: int) -> Bytes:
    """So many bytes at arbitrary positions, as an (n, width) array."""
    view = np.ndarray((len(buffer) - width + 1,), dtype=f"V{width}", buffer=buffer, strides=(1,))
    taken: Bytes = view[at].view(np.uint8).reshape(len(at), width)
    return taken


def numbers(rows: Bytes, kind: str, offset: int) -> npt.NDArray[Any]:
    """Big-endian numbers at ``offset`` of every one of such rows."""
    found: npt.NDArray[Any] = rows[:, offset : offset + int(kind[1:])].view(f">{kind}")[:, 0].astype(kind)
    return found


def offsets_of(counts: Int64s) -> Int64s:
    """Where the items of each row begin when those of all rows stand one after another; n + 1 numbers."""
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def places_of(counts: Int64s) -> Int64s:
    """0, 1, 2, ... for the items of each row, one row after another."""
    offsets = offsets_of(counts)
    return np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)


def array_of(cells: Cells, values: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    """An Arrow array of fixed-width ``values``, NULL where the cells are."""
    storage: pa.Array = pa.array(values, mask=cells.nulls())
    return storage if storage.type == kind else storage.view(kind)
