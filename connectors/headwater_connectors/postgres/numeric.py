"""numeric from the wire: base-10000 digits to DECIMAL or to exact text, whole columns at a time.

Binary layout: int16 digit count, weight, sign, display scale, then the digits. The value is
sum(digit[i] * 10000 ** (weight - i)); it is rounded to the column's scale by the server already.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headwater_connectors.postgres.cells import Bools, Cells, Int64s, read

_POWERS = 10 ** np.arange(19, dtype=np.int64)
_NEGATIVE = 0x4000
_SPECIAL = {0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}


def specials(cells: Cells) -> Bools:
    """Which binary values are NaN or an infinity."""
    special: Bools = cells.integers("u2", 4) >= 0xC000
    return special if cells.valid is None else special & cells.valid


def decimals(cells: Cells, precision: int, scale: int) -> tuple[pa.Array, Bools]:
    """DECIMAL(precision, scale) of binary values, and which of them are NaN or an infinity, and NULL here."""
    head = cells.integers("i8")  # count, weight, sign and display scale: one read instead of four
    odd: Bools = head >> 16 & 0xC000 == 0xC000
    if cells.valid is not None:
        odd &= cells.valid
    if odd.any():
        cells = cells.masked(~odd)
    kind = pa.decimal128(precision, scale)
    if precision > 18:
        return pc.cast(texts(cells), kind), odd
    total = _unscaled(cells, head, precision, scale)
    np.negative(total, out=total, where=head >> 16 & 0xFFFF == _NEGATIVE)
    return from_int64(total, kind, cells.valid), odd


def _unscaled(cells: Cells, head: Int64s, precision: int, scale: int) -> Int64s:
    """The values times ten to their scale, without signs.

    The last digit of a value may reach up to three decimal places beyond the scale, all of them 0: where 64 bits hold
    those too they are cut off in the end, else from the digit.
    """
    beyond = -scale % 4 if precision + -scale % 4 <= 18 else 0
    total = np.zeros(len(cells), np.int64)
    count = head >> 48 if cells.valid is None else np.where(cells.valid, head >> 48, 0)
    power = 4 * (head << 16 >> 48) + scale + beyond
    for place in range(int(count.max(initial=0))):
        if place % 4 == 0:
            four = cells.integers("i8", 8 + 2 * place)
        digit = four >> 48 - 16 * (place % 4) & 0xFFFF
        digit[count <= place] = 0
        if beyond == -scale % 4:
            total += digit * _POWERS[np.clip(power, 0, 18)]
        else:
            whole = digit * _POWERS[np.clip(power, 0, 18)]
            total += np.where(power >= 0, whole, digit // _POWERS[np.clip(-power, 0, 4)])
        power -= 4
    return total // 10**beyond if beyond else total


def from_int64(values: Int64s, kind: pa.Decimal128Type, valid: Bools | None) -> pa.Array:
    """A decimal128 array of unscaled values."""
    wide = np.empty((len(values), 2), np.int64)
    wide[:, 0] = values
    wide[:, 1] = values >> 63
    bitmap = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(kind, len(values), [bitmap, pa.py_buffer(wide)])


def texts(cells: Cells) -> pa.Array:
    """The text that PostgreSQL prints for each binary value, every digit of its display scale."""
    sign = cells.integers("u2", 4)
    special = specials(cells)
    count = np.where(special, 0, _digit_counts(cells))
    weight = cells.integers("i2", 2).astype(np.int64)
    shown = np.where(special, 0, cells.integers("u2", 6)).astype(np.int64)
    if cells.valid is not None:
        shown = np.where(cells.valid, shown, 0)
    first = np.where(count > 0, cells.integers("i2", 8), 0)
    width = 1 + (first >= 10) + (first >= 100) + (first >= 1000)
    whole = np.where((count > 0) & (weight >= 0), 4 * weight + width, 1)
    negative = ((sign == _NEGATIVE) & ~special).astype(np.int64)
    size = negative + whole + np.where(shown > 0, shown + 1, 0)
    text = _spell(cells, count, weight, negative, whole, size)
    if not special.any():
        return text
    for code, word in _SPECIAL.items():
        text = pc.if_else(pa.array((sign == code) & special), pa.scalar(word), text)
    return text


def _digit_counts(cells: Cells) -> Int64s:
    count = cells.integers("i2").astype(np.int64)
    return count if cells.valid is None else np.where(cells.valid, count, 0)


def _spell(cells: Cells, count: Int64s, weight: Int64s, negative: Int64s, whole: Int64s, size: Int64s) -> pa.Array:
    """One output character per element: its decimal place gives the base-10000 digit and the digit in it."""
    offsets = np.zeros(len(cells) + 1, np.int64)
    np.cumsum(size, out=offsets[1:])
    row = np.repeat(np.arange(len(cells)), size)
    place = np.arange(offsets[-1]) - offsets[:-1][row] - negative[row]
    point = whole[row]
    exponent = np.where(place < point, point - 1 - place, point - place)
    group = weight[row] - (exponent >> 2)
    held = (group >= 0) & (group < count[row])
    digit = read(cells.buffer, "i2", np.where(held, cells.start[row] + 8 + 2 * group, 0))
    characters: npt.NDArray[np.int64] = np.where(held, digit, 0) // _POWERS[exponent & 3] % 10 + ord("0")
    characters = np.where(place == point, ord("."), np.where(place < 0, ord("-"), characters))
    array = pa.Array.from_buffers(
        pa.string(),
        len(cells),
        [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(characters.astype(np.uint8))],
    )
    nulls = cells.nulls()
    return array if nulls is None else pc.if_else(pa.array(nulls), pa.scalar(None, pa.string()), array)
