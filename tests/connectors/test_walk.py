"""Where the values of rows lie, whatever stands next to what: against a walk over one row after the other."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest

from headwater_connectors.postgres.cells import PAD, Cells
from headwater_connectors.postgres.walk import UNCHANGED, walk_copy, walk_tuples

NUMBERS = {1: "u1", 2: "i2", 4: "i4", 8: "i8"}


def column(width: int, rows: int, chance: random.Random) -> list[bytes | None]:
    """All values, none, or some of them; of a fixed length, or each of its own."""
    share = chance.choice((0.0, 0.0, 0.3, 1.0))
    return [
        None if chance.random() < share else chance.randbytes(width or chance.choice((0, 1, 3, 16, 17, 70)))
        for _ in range(rows)
    ]


def found(cells: Cells) -> list[bytes | None]:
    values: list[bytes | None] = cells.bytes().to_pylist()
    return values


def numbers(cells: Cells, width: int) -> list[int | None]:
    """As a decoder reads them."""
    read = cells.byte() if width == 1 else cells.integers(NUMBERS[width])
    valid = np.ones(len(cells), np.bool_) if cells.valid is None else cells.valid
    return [int(value) if sent else None for value, sent in zip(read.tolist(), valid.tolist(), strict=True)]


@pytest.mark.parametrize("seed", range(30))
def test_cells_are_where_the_rows_have_them(seed: int) -> None:
    chance = random.Random(seed)
    widths = [chance.choice((0, 0, 1, 2, 4, 8, 12, 16)) for _ in range(chance.randint(1, 14))]
    rows = chance.choice((1, 2, 50))
    values = [column(width, rows, chance) for width in widths]
    copy, tuples = bytearray(), bytearray()
    at_copy, at_tuples, kinds = [], [], []
    for row in range(rows):
        at_copy.append(len(copy))
        at_tuples.append(len(tuples))
        copy += struct.pack(">h", len(widths))
        tuples += struct.pack(">h", len(widths))
        for value in (each[row] for each in values):
            copy += struct.pack(">i", -1 if value is None else len(value)) + (value or b"")
            kinds.append(ord(chance.choice("nu")) if value is None else ord(chance.choice("tb")))
            tuples.append(kinds[-1])
            tuples += b"" if value is None else struct.pack(">i", len(value)) + value
    walked = walk_copy(np.frombuffer(bytes(copy) + PAD, np.uint8), np.array(at_copy), widths)
    sent, marks, ends = walk_tuples(np.frombuffer(bytes(tuples) + PAD, np.uint8), np.array(at_tuples), widths)
    assert [found(cells) for cells in walked] == values
    assert [found(cells) for cells in sent] == values
    assert ends.tolist() == [*at_tuples[1:], len(tuples)]
    assert [mark for row in zip(*(each.tolist() for each in marks), strict=True) for mark in row] == kinds
    for width, cells, other, expected in zip(widths, walked, sent, values, strict=True):
        if width in NUMBERS:
            whole = [None if each is None else int.from_bytes(each, signed=width > 1) for each in expected]
            assert numbers(cells, width) == numbers(other, width) == whole


def test_a_row_with_another_number_of_columns_is_refused() -> None:
    data = np.frombuffer(struct.pack(">hB", 1, UNCHANGED) + PAD, np.uint8)
    with pytest.raises(ValueError, match="a row of 1 columns where 2 were announced"):
        walk_tuples(data, np.array([0]), [0, 4])
