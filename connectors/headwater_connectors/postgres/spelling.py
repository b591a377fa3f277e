"""Texts put together from columns of parts, as PostgreSQL's output functions do it for one value."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headwater_connectors.postgres.cells import Cells, Int64s

_SPACE = r"\t\n\v\f\r "
_WORD = {"array": r"(?i)^$|^null$|", "range": "^$|", "composite": "^$|"}
_MARKS = {"array": r"{}\"\\", "range": r"\[\](),\"\\", "composite": r"(),\"\\"}


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


def quoted(texts: pa.Array, place: str, delimiter: str = "") -> pa.Array:
    """Texts as elements of an ``array`` or parts of a ``range`` or ``composite``: in quotes where they need them."""
    needs = pc.match_substring_regex(texts, f"{_WORD[place]}[{_MARKS[place]}{delimiter}{_SPACE}]")
    if not pc.any(needs).as_py():
        return texts
    escaped = pc.replace_substring_regex(texts, r'(["\\])', r"\\\1" if place == "array" else r"\1\1")
    return pc.if_else(needs, joined('"', escaped, '"'), texts)
