"""Texts put together from columns of parts, as PostgreSQL's output functions do it for one value."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headwater_connectors.postgres.cells import Bools, Bytes, Cells, Int64s

Place = Literal["array", "range", "composite"]
_MARKS: dict[Place, bytes] = {"array": b'{}"\\', "range": b'[](),"\\', "composite": b'(),"\\'}


def joined(*parts: pa.Array | str, between: str = "") -> pa.Array:
    """The parts of each row one after another; NULL where one of them is."""
    return pc.binary_join_element_wise(*(pa.scalar(each) if isinstance(each, str) else each for each in parts), between)


def numbers(values: npt.NDArray[np.integer]) -> pa.Array:
    return pc.cast(pa.array(values), pa.string())


def padded(values: npt.NDArray[np.integer], width: int) -> pa.Array:
    """Numbers of at least ``width`` digits, zeros in front."""
    return pc.utf8_lpad(numbers(values), width, "0")


def chosen(which: npt.NDArray[np.bool_], yes: pa.Array | pa.Scalar, no: pa.Array | pa.Scalar) -> pa.Array:
    return pc.if_else(pa.array(which), yes, no)


def per_row(items: pa.Array, offsets: Int64s, between: str) -> pa.Array:
    """Row i is the items, none of them NULL, from ``offsets[i]`` to ``offsets[i + 1]`` and ``between`` between them."""
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), items), between)


def nulled(texts: pa.Array, cells: Cells) -> pa.Array:
    """NULL where the cells are."""
    nulls = cells.nulls()
    return texts if nulls is None else pc.if_else(pa.array(nulls), pa.scalar(None, pa.string()), texts)


def holding(texts: pa.Array, marks: bytes) -> Bools:
    """Which texts have one of these bytes in them. Reads bytes: a pattern for each text takes ten times as long."""
    data, offsets = _content(texts)
    marked = np.zeros(256, np.bool_)
    marked[np.frombuffer(marks, np.uint8)] = True
    places = np.flatnonzero(marked[data])
    found = np.zeros(len(texts), np.bool_)
    found[np.searchsorted(offsets, places, side="right") - 1] = True
    return found


def escaped(texts: pa.Array, marks: bytes, mark: str = "") -> pa.Array:
    """With ``mark`` in front of each of these bytes, or where there is none the byte itself twice."""
    which = holding(texts, marks)
    if not which.any():
        return texts
    some = texts.filter(pa.array(which))
    for each in sorted(map(chr, marks), key="\\".__eq__, reverse=True):  # a backslash first: others may be marked by it
        some = pc.replace_substring(some, each, (mark or each) + each)
    return pc.replace_with_mask(texts, pa.array(which), some)


def quoted(texts: pa.Array, place: Place, delimiter: str = "") -> pa.Array:
    """Texts as elements of an ``array`` or parts of a ``range`` or ``composite``: in quotes where they need them."""
    needs = holding(texts, _MARKS[place] + delimiter.encode() + b"\t\n\v\f\r ")
    data, offsets = _content(texts)
    length = np.diff(offsets)
    needs |= length == 0
    if place == "array" and (four := np.flatnonzero(length == 4)).size:
        word = data[offsets[four][:, None] + np.arange(4)] & 0xDF  # upper case
        needs[four] |= (word == np.frombuffer(b"NULL", np.uint8)).all(axis=1)
    if not needs.any():
        return texts
    some = escaped(texts.filter(pa.array(needs)), b'"\\', "\\" if place == "array" else "")
    return pc.replace_with_mask(texts, pa.array(needs), joined('"', some, '"'))


def _content(texts: pa.Array) -> tuple[Bytes, Int64s]:
    """The bytes of all texts one after another, and where each begins."""
    _, ends, held = texts.buffers()
    offsets = np.frombuffer(ends, np.int32, len(texts) + 1, texts.offset * 4).astype(np.int64)
    if held is None:
        return np.empty(0, np.uint8), offsets
    return np.frombuffer(held, np.uint8, int(offsets[-1] - offsets[0]), int(offsets[0])), offsets - offsets[0]
