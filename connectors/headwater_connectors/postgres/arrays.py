"""Array literals (``{1,NULL,"a b"}``) to cells of their elements, for a whole column at once.

Quoting is resolved the way fast JSON parsers do it: which characters are escaped follows from the parity of
backslash runs, which are quoted from the parity of unescaped quotes before them.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from headwater_connectors.postgres.cells import PAD, Bools, Bytes, Cells, Int64s

_QUOTE, _BACKSLASH, _OPEN, _CLOSE, _BOUND = b'"\\{}['


def elements(cells: Cells, delimiter: str = ",") -> tuple[Cells, Int64s, Bools]:
    """Element cells of all rows one after another, list offsets (n + 1), and the odd rows.

    Odd: more than one dimension or a lower bound other than 1, which a list cannot hold; they have no elements.
    """
    data, offsets = flat(cells)
    escaped = is_escaped(data)
    quote = (data == _QUOTE) & ~escaped
    outside = (np.cumsum(quote) & 1) == 0
    opens = (data == _OPEN) & outside
    commas = (data == ord(delimiter)) & outside
    closes = (data == _CLOSE) & outside

    size = np.diff(offsets)
    odd = (_count(opens, offsets) != 1) | (cells.byte() == _BOUND)
    odd &= size > 0
    filled = ~odd & (size > 2)
    separators = np.flatnonzero((opens | commas | closes) & np.repeat(filled, size))
    begins = separators[~closes[separators]]
    ends = separators[~opens[separators]]
    lists = np.zeros(len(cells) + 1, np.int64)
    np.cumsum(np.where(filled, _count(commas, offsets) + 1, 0), out=lists[1:])
    return _cells(data, escaped, begins + 1, ends), lists, odd


def quoted(cells: Cells) -> tuple[Cells, Int64s, Bytes]:
    """All that is in double quotes in the texts, one after another: cells, of which row, and the byte behind them."""
    data, offsets = flat(cells)
    escaped = is_escaped(data)
    places = np.flatnonzero((data == _QUOTE) & ~escaped)
    begins, ends = places[0::2], places[1::2]
    after = np.append(data, np.uint8(0))[ends + 1]
    rows = np.searchsorted(offsets, begins, side="right") - 1
    return _cells(data, escaped, begins, ends + 1), rows, after


def list_array(values: pa.Array, offsets: Int64s, valid: Bools | None) -> pa.Array:
    """A list array, NULL where ``valid`` is false."""
    mask = None if valid is None else pa.array(~valid)
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values, mask=mask)


def flat(cells: Cells) -> tuple[Bytes, Int64s]:
    """The texts one after another, and where each begins."""
    text = cells.bytes()
    offsets = np.frombuffer(text.buffers()[1], np.int32, len(cells) + 1, text.offset * 4).astype(np.int64)
    return _buffer_of(text, int(offsets[-1])), offsets


def _buffer_of(text: pa.Array, size: int) -> Bytes:
    data = text.buffers()[2]
    return np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8, size)


def is_escaped(data: Bytes) -> Bools:
    """Which bytes stand behind an odd number of backslashes."""
    backslash = data == _BACKSLASH
    if not backslash.any():
        return np.zeros(len(data), np.bool_)
    places = np.arange(len(data))
    last_other = np.maximum.accumulate(np.where(backslash, -1, places))
    run_before = np.concatenate(([0], (places - last_other)[:-1]))
    odd: Bools = (run_before & 1) == 1
    return odd


def _count(flags: Bools, offsets: Int64s) -> Int64s:
    running = np.concatenate(([0], np.cumsum(flags)))
    return running[offsets[1:]] - running[offsets[:-1]]


def _cells(data: Bytes, escaped: Bools, start: Int64s, end: Int64s) -> Cells:
    padded = np.concatenate((data, np.frombuffer(PAD, np.uint8)))
    quoted = (padded[start] == _QUOTE) & (end > start)
    null = ~quoted & (end - start == 4) & (Cells(padded, start, end - start).integers("u4") == 0x4E554C4C)
    found = without(data, (data == _BACKSLASH) & ~escaped, start + quoted, end - quoted)
    return Cells(found.buffer, found.start, np.where(null, 0, found.length), ~null if null.any() else None)


def without(data: Bytes, removed: Bools, start: Int64s, end: Int64s) -> Cells:
    """The cells from each ``start`` to its ``end`` in ``data``, without the bytes that are to be removed."""
    if removed.any():
        before = np.concatenate(([0], np.cumsum(removed)))
        start, end = start - before[start], end - before[end]
        data = data[~removed]
    return Cells(np.concatenate((data, np.frombuffer(PAD, np.uint8))), start, end - start)
