"""inet, cidr and hardware addresses from the wire as PostgreSQL prints them.

inet and cidr: family (2: version 4, 3: version 6), bits of the mask, 1 for cidr, bytes of the address; the address.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from headwater_connectors.postgres.cells import Bools, Cells, Int64s
from headwater_connectors.postgres.spelling import chosen, joined, nulled, numbers

_VERSION_6 = 3
_HEX = pa.array([f"{byte:02x}" for byte in range(256)])
_WORDS = 8


def address_texts(cells: Cells) -> pa.Array:
    six = cells.byte() == _VERSION_6
    bits, is_cidr = cells.byte(1).astype(np.int64), cells.byte(2) == 1
    text = _version_4(cells, 4)
    if six.any():
        text = chosen(six, _version_6(cells), text)
    masked = is_cidr | (bits != np.where(six, 128, 32))
    return nulled(chosen(masked, joined(text, "/", numbers(bits)), text), cells)


def hardware_texts(cells: Cells, count: int) -> pa.Array:
    """macaddr and macaddr8, of 6 and 8 bytes."""
    octets = [_HEX.take(pa.array(cells.byte(place))) for place in range(count)]
    return nulled(joined(*octets, between=":"), cells)


def _version_4(cells: Cells, offset: int) -> pa.Array:
    return joined(*(numbers(cells.byte(offset + place)) for place in range(4)), between=".")


def _version_6(cells: Cells) -> pa.Array:
    """Lower case, the longest run of two or more zero words as ``::``; a version 4 address in it as such."""
    words = [cells.integers("u2", 4 + 2 * place).astype(np.int64) for place in range(_WORDS)]
    first, length = _longest_zeros(words)
    hexadecimal = [_lower(word) for word in words]
    embedded = (first == 0) & ((length == 6) | ((length == 5) & (words[5] == 0xFFFF)))
    text = pa.array([""]).take(pa.array(np.zeros(len(cells), np.int8)))
    for place in range(_WORDS):
        inside = (place >= first) & (place < first + length)
        mark = ":" if place else ""
        shown = joined(mark, hexadecimal[place])
        if place == 6:
            shown = chosen(embedded, joined(mark, _version_4(cells, 16)), shown)
        if place == 7:
            inside |= embedded
        text = joined(text, chosen(inside, chosen(first == place, pa.scalar(":"), pa.scalar("")), shown))
    return chosen(first + length == _WORDS, joined(text, ":"), text)


def _longest_zeros(words: list[Int64s]) -> tuple[Int64s, Int64s]:
    """Where the first of the longest runs of zero words begins, and its length; (-1, 0) when it is under 2."""
    run, best, end = (np.zeros(len(words[0]), np.int64) for _ in range(3))
    for place, word in enumerate(words):
        run = np.where(word == 0, run + 1, 0)
        longer: Bools = run > best
        best, end = np.where(longer, run, best), np.where(longer, place + 1, end)
    few = best < 2
    return np.where(few, -1, end - best), np.where(few, 0, best)


def _lower(word: Int64s) -> pa.Array:
    """Hexadecimal without zeros in front."""
    return _WORD_TEXTS.take(pa.array(word))


_WORD_TEXTS = pa.array([f"{word:x}" for word in range(1 << 16)])
