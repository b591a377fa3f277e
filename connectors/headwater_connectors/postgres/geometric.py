"""Geometric types from the wire as PostgreSQL prints them: float8 numbers between brackets."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from headwater_connectors.postgres.cells import Cells, offsets_of, places_of
from headwater_connectors.postgres.containers import Print
from headwater_connectors.postgres.floats import double_texts
from headwater_connectors.postgres.spelling import chosen, joined, nulled, per_row

_POINT_BYTES = 16


def pattern(text: str) -> Print:
    """A type of so many numbers as there are ``#`` in ``text``."""
    parts = text.split("#")

    def texts(cells: Cells) -> pa.Array:
        pieces: list[pa.Array | str] = [parts[0]]
        for place, part in enumerate(parts[1:]):
            pieces += [double_texts(cells, 8 * place), part]
        return nulled(joined(*pieces), cells)

    return texts


def polygon_texts(cells: Cells) -> pa.Array:
    return nulled(joined("(", _points(cells, 0), ")"), cells)


def path_texts(cells: Cells) -> pa.Array:
    """Closed ones in round, open ones in square brackets."""
    closed = cells.byte() == 1
    opens, closes = (chosen(closed, pa.scalar(a), pa.scalar(b)) for a, b in (("(", "["), (")", "]")))
    return nulled(joined(opens, _points(cells, 1), closes), cells)


def _points(cells: Cells, offset: int) -> pa.Array:
    """A number of points, int4 at ``offset``, and the points."""
    counts = cells.counts(offset)
    start = np.repeat(cells.start + offset + 4, counts) + _POINT_BYTES * places_of(counts)
    points = Cells(cells.buffer, start, np.full(len(start), _POINT_BYTES))
    return per_row(_POINT(points), offsets_of(counts), ",")


_POINT = pattern("(#,#)")
