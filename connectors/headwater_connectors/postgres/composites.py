"""Composite values, binary ones or row literals (``(1,"a b",)``), to cells of their fields, a whole column at once.

Every field has as many cells as there are values, NULL where the value is. *Odd* are values of another shape than the
column's type has now, such as those from before an ``ALTER TYPE``; their fields are NULL, too.

In a row literal a quote or backslash inside quotes stands twice, and a field of nothing, without quotes, is NULL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, count

import numpy as np
import pyarrow as pa

from headwater_connectors.postgres import arrays
from headwater_connectors.postgres.cells import Bools, Cells, Int64s, read

Split = Callable[[Cells], tuple[list[Cells], Bools]]
"""The cells of each field, and the odd rows."""

_QUOTE, _BACKSLASH, _COMMA = b'"\\,'


def of_binary(oids: Sequence[int]) -> Split:
    """Of values that the server sends in binary; ``oids`` are the types of the fields."""

    def split(cells: Cells) -> tuple[list[Cells], Bools]:
        counts = cells.counts()
        odd = counts != len(oids)
        if cells.valid is not None:
            odd &= cells.valid
        rows = np.flatnonzero(~odd if cells.valid is None else ~odd & cells.valid)
        position = cells.start[rows] + 4
        found: list[tuple[Int64s, Int64s]] = []
        other = np.zeros(len(rows), np.bool_)
        for oid in oids:
            other |= read(cells.buffer, "u4", position) != oid
            length = read(cells.buffer, "i4", position + 4).astype(np.int64)
            position = position + 8
            found.append((position, length))
            position = position + np.maximum(length, 0)
        odd[rows[other]] = True
        same = rows[~other]
        return [_field(cells, same, start[~other], length[~other]) for start, length in found], odd

    return split


def of_text(width: int) -> Split:
    """Of row literals with so many fields."""

    def split(cells: Cells) -> tuple[list[Cells], Bools]:
        data, offsets = arrays.flat(cells)
        size = np.diff(offsets)
        quote = data == _QUOTE
        marks = np.cumsum(quote)
        commas = (data == _COMMA) & (marks & 1 == 0)
        running = np.concatenate(([0], np.cumsum(commas)))
        odd = (running[offsets[1:]] - running[offsets[:-1]] + 1 != width) & (size > 0)
        rows = np.flatnonzero((size > 0) & ~odd)
        inside = np.zeros(len(size), np.bool_)
        inside[rows] = True
        ends = np.flatnonzero(commas & np.repeat(inside, size)).reshape(len(rows), width - 1)
        first, last = offsets[rows][:, None] + 1, offsets[rows + 1][:, None] - 1
        start, end = np.hstack((first, ends + 1)), np.hstack((ends, last))
        quoted = (np.append(data, np.uint8(0))[start] == _QUOTE) & (end > start)
        null = ~quoted & (end == start)
        # Of two quotes in a row the first closes and the second opens again: one of them is meant.
        again = quote & (marks & 1 == 1) & np.concatenate(([False], quote[:-1]))
        removed = again | ((data == _BACKSLASH) & ~arrays.is_escaped(data))
        found = arrays.without(data, removed, (start + quoted).ravel(), (end - quoted).ravel())
        starts = found.start.reshape(start.shape)
        lengths = np.where(null, -1, found.length.reshape(start.shape))
        whole = Cells(found.buffer, np.zeros(len(size), np.int64), size)
        return [_field(whole, rows, starts[:, place], lengths[:, place]) for place in range(width)], odd

    return split


def _field(cells: Cells, rows: Int64s, start: Int64s, length: Int64s) -> Cells:
    """Cells for each of ``cells``: those of ``rows``, NULL where ``length`` is negative; the others are NULL."""
    starts, lengths = cells.start.copy(), np.zeros(len(cells), np.int64)
    valid = np.zeros(len(cells), np.bool_)
    starts[rows], lengths[rows], valid[rows] = start, np.maximum(length, 0), length >= 0
    return Cells(cells.buffer, starts, lengths, None if valid.all() else valid)


def struct_array(names: Sequence[str], fields: Sequence[pa.Array], valid: Bools | None) -> pa.Array:
    """A struct array, NULL where ``valid`` is false."""
    mask = None if valid is None else pa.array(~valid)
    return pa.StructArray.from_arrays(list(fields), list(names), mask=mask)


def distinct(names: Sequence[str]) -> list[str]:
    """Names that differ in more than their case, as DuckDB has them: later ones that do not get ``__2``, ..."""
    seen: set[str] = set()
    found = []
    for name in names:
        unlike = next(each for each in chain([name], (f"{name}__{n}" for n in count(2))) if each.lower() not in seen)
        seen.add(unlike.lower())
        found.append(unlike)
    return found
