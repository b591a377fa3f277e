"""tsvector from the wire as PostgreSQL prints it: ``'cat':3A,5 'it''s'``.

int4 lexemes; each: its text, a zero byte, int2 positions, and those: two bits of weight, fourteen of position.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from headwater_connectors.postgres.cells import Cells, Int64s, offsets_of, places_of, read
from headwater_connectors.postgres.spelling import chosen, escaped, joined, nulled, numbers, per_row

_WEIGHTS = pa.array(["", "C", "B", "A"])


def vector_texts(cells: Cells) -> pa.Array:
    counts = cells.counts()
    offsets = offsets_of(counts)
    start, length = _lexemes(cells, counts, offsets)
    words = Cells(cells.buffer, start, length).bytes(pa.string())
    words = joined("'", escaped(words, b"'\\"), "'")
    return nulled(per_row(joined(words, _positions(cells, start + length + 1)), offsets, " "), cells)


def _lexemes(cells: Cells, counts: Int64s, offsets: Int64s) -> tuple[Int64s, Int64s]:
    """Where each lexeme's text lies, in lockstep over the rows."""
    zeros = np.flatnonzero(cells.buffer == 0)
    start, length = np.empty(offsets[-1], np.int64), np.empty(offsets[-1], np.int64)
    position, rows, step = cells.start + 4, np.flatnonzero(counts > 0), 0
    while len(rows):
        begin = position[rows]
        end = zeros[np.searchsorted(zeros, begin)]
        place = offsets[rows] + step
        start[place], length[place] = begin, end - begin
        position[rows] = end + 3 + 2 * read(cells.buffer, "u2", end + 1).astype(np.int64)
        step += 1
        rows = rows[counts[rows] > step]
    return start, length


def _positions(cells: Cells, at: Int64s) -> pa.Array:
    """``:3A,5`` for each lexeme, or nothing."""
    counts = read(cells.buffer, "u2", at).astype(np.int64)
    entry = read(cells.buffer, "u2", np.repeat(at + 2, counts) + 2 * places_of(counts)).astype(np.int64)
    shown = joined(numbers(entry & 0x3FFF), _WEIGHTS.take(pa.array(entry >> 14)))
    return chosen(counts > 0, joined(":", per_row(shown, offsets_of(counts), ",")), pa.scalar(""))
