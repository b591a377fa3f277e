"""Values made of values, as the server sends them in binary: arrays, composites, ranges and multiranges.

    array       int4 dimensions, int4 has nulls, int4 element type, (int4 size, int4 lower bound) each; elements
    composite   int4 fields; each: int4 type, then as an element
    multirange  int4 ranges; each as an element
    range       a byte of flags; its finite bounds as elements
    element     int4 length, or -1 for NULL; its bytes

Elements of all rows are found one after another in lockstep: a step of the loop is the k-th element of every row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater_connectors.postgres.cells import Bools, Bytes, Cells, Int64s, offsets_of, places_of, read
from headwater_connectors.postgres.spelling import chosen, joined, nulled, numbers, per_row, quoted

Print = Callable[[Cells], pa.Array]
"""The text that PostgreSQL prints for each binary value, in the session's settings."""

_FEW = 32
"""Rows from which on a step for all of them costs less than one for each."""
_EMPTY, _LOWER_INCLUDED, _UPPER_INCLUDED = 0x01, 0x02, 0x04
_NO_LOWER, _NO_UPPER = 0x29, 0x51


@dataclass(frozen=True)
class Items:
    """The elements of all rows one after another: those of row i from ``offsets[i]`` to ``offsets[i + 1]``."""

    cells: Cells
    offsets: Int64s


def walk(buffer: Bytes, at: Int64s, counts: Int64s, skip: int = 0) -> Items:
    """``counts[i]`` elements from the position ``at[i]`` on, each after ``skip`` bytes that are passed over."""
    offsets = offsets_of(counts)
    start, length = np.empty(offsets[-1], np.int64), np.empty(offsets[-1], np.int64)
    position, rows, step = at.copy(), np.flatnonzero(counts > 0), 0
    while len(rows) >= _FEW:
        begin = position[rows] + skip + 4
        size = read(buffer, "i4", begin - 4).astype(np.int64)
        place = offsets[rows] + step
        start[place], length[place] = begin, size
        position[rows] = begin + np.maximum(size, 0)
        step += 1
        rows = rows[counts[rows] > step]
    data = buffer.data
    for row in rows.tolist():  # what the few longest rows have more than all others
        at_byte: int = position[row].item()
        for element in range(int(offsets[row]) + step, int(offsets[row + 1])):
            at_byte += skip + 4
            start[element] = at_byte
            length[element] = int.from_bytes(data[at_byte - 4 : at_byte], signed=True)
            at_byte += max(int(length[element]), 0)
    valid = length >= 0
    return Items(Cells(buffer, start, np.maximum(length, 0), None if valid.all() else valid), offsets)


def elements(cells: Cells) -> tuple[Cells, Int64s, Bools]:
    """As ``arrays.elements``, of binary arrays."""
    dimensions = cells.counts()
    odd: Bools = (dimensions > 1) | ((dimensions == 1) & (cells.integers("i4", 16) != 1))
    counts = np.where((dimensions == 1) & ~odd, cells.integers("i4", 12), 0).astype(np.int64)
    found = walk(cells.buffer, cells.start + 20, counts)
    return found.cells, found.offsets, odd


def array_texts(element: Print, delimiter: str) -> Print:
    """``{1,NULL,"a b"}``, of any dimensions and lower bounds."""

    def texts(cells: Cells) -> pa.Array:
        shape = _Shape.of(cells)
        items = walk(cells.buffer, shape.first, shape.counts)
        printed = pc.fill_null(quoted(element(items.cells), "array", delimiter), "NULL")
        whole = joined(shape.bounds(cells), per_row(shape.braced(printed), items.offsets, delimiter))
        return nulled(chosen(shape.counts == 0, pa.scalar("{}"), whole), cells)

    return texts


def vector_texts(element: Print) -> Print:
    """``1 2 3``: int2vector and oidvector, arrays that print otherwise."""

    def texts(cells: Cells) -> pa.Array:
        shape = _Shape.of(cells)
        items = walk(cells.buffer, shape.first, shape.counts)
        return nulled(per_row(element(items.cells), items.offsets, " "), cells)

    return texts


@dataclass(frozen=True)
class _Shape:
    """Of each array its number of dimensions, their ``sizes`` as (n, 6), its elements and where they begin."""

    dimensions: Int64s
    sizes: Int64s
    counts: Int64s
    first: Int64s

    @classmethod
    def of(cls, cells: Cells) -> _Shape:
        dimensions = cells.counts()
        sizes = np.ones((len(cells), int(dimensions.max(initial=1))), np.int64)
        for place in range(sizes.shape[1]):
            has = dimensions > place
            sizes[has, place] = cells.take(has).integers("i4", 12 + 8 * place)
        counts = np.where(dimensions > 0, sizes.prod(axis=1), 0)
        return cls(dimensions, sizes, counts, cells.start + 12 + 8 * dimensions)

    def braced(self, printed: pa.Array) -> pa.Array:
        """With braces in front of the first, and behind the last, element of each (sub)array."""
        number = places_of(self.counts)
        opens, closes = np.zeros(len(printed), np.int64), np.zeros(len(printed), np.int64)
        for place in range(self.sizes.shape[1]):
            block = np.repeat(self.sizes[:, place:].prod(axis=1), self.counts)
            has = np.repeat(self.dimensions > place, self.counts)
            opens += has & (number % block == 0)
            closes += has & ((number + 1) % block == 0)
        depths = range(self.sizes.shape[1] + 1)
        left, right = (pa.array([mark * depth for depth in depths]) for mark in "{}")
        return joined(left.take(pa.array(opens)), printed, right.take(pa.array(closes)))

    def bounds(self, cells: Cells) -> pa.Array:
        """``[2:3][0:1]=`` where a lower bound is not 1, else nothing."""
        whole, other = pa.array([""] * len(cells), pa.string()), np.zeros(len(cells), np.bool_)
        for place in range(self.sizes.shape[1]):
            has = self.dimensions > place
            low = np.ones(len(cells), np.int64)
            low[has] = cells.take(has).integers("i4", 16 + 8 * place)
            other |= low != 1
            high = low + self.sizes[:, place] - 1
            whole = joined(whole, chosen(has, joined("[", numbers(low), ":", numbers(high), "]"), pa.scalar("")))
        return chosen(other, joined(whole, "="), pa.scalar(""))


def composite_texts(field: Callable[[int], Print]) -> Print:
    """``(1,"a b",)``; ``field`` is how a field of a type is printed: each field says of which (oid)."""

    def texts(cells: Cells) -> pa.Array:
        counts = cells.counts()
        items = walk(cells.buffer, cells.start + 4, counts, skip=4)
        oids = items.cells.integers("u4", -8)
        printed, order = [pa.array([], pa.string())], [np.empty(0, np.int64)]
        for oid in np.unique(oids).tolist():
            rows = np.flatnonzero(oids == oid)
            printed.append(field(oid)(items.cells.take(rows)))
            order.append(rows)
        whole = pa.concat_arrays(printed).take(pa.array(np.argsort(np.concatenate(order))))
        fields = per_row(pc.fill_null(quoted(whole, "composite"), ""), items.offsets, ",")
        return nulled(joined("(", fields, ")"), cells)

    return texts


def range_texts(bound: Print) -> Print:
    """``[1,5)``, ``empty``, ``(,)``."""

    def texts(cells: Cells) -> pa.Array:
        flags = cells.byte()
        if cells.valid is not None:
            flags = np.where(cells.valid, flags, _EMPTY).astype(np.uint8)
        has_lower, has_upper = (flags & _NO_LOWER) == 0, (flags & _NO_UPPER) == 0
        items = walk(cells.buffer, cells.start + 1, has_lower.astype(np.int64) + has_upper)
        printed = quoted(bound(items.cells), "range")
        none = len(printed)
        printed = pa.concat_arrays([printed, pa.array([""])])
        lower = printed.take(pa.array(np.where(has_lower, items.offsets[:-1], none)))
        upper = printed.take(pa.array(np.where(has_upper, items.offsets[1:] - 1, none)))
        opens = chosen((flags & _LOWER_INCLUDED) != 0, pa.scalar("["), pa.scalar("("))
        closes = chosen((flags & _UPPER_INCLUDED) != 0, pa.scalar("]"), pa.scalar(")"))
        whole = joined(opens, lower, ",", upper, closes)
        return nulled(chosen((flags & _EMPTY) != 0, pa.scalar("empty"), whole), cells)

    return texts


def multirange_texts(one: Print) -> Print:
    """``{[1,5),[7,9)}``; ``one`` prints a range."""

    def texts(cells: Cells) -> pa.Array:
        counts = cells.counts()
        items = walk(cells.buffer, cells.start + 4, counts)
        return nulled(joined("{", per_row(one(items.cells), items.offsets, ","), "}"), cells)

    return texts
