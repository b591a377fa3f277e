"""Binary values to the text that PostgreSQL prints for them, for every type whose binary form says all of it.

Missing are money (its text is the server's locale's), the reg types (names of the server's catalog), tsquery, and what
has no binary form: a source with such columns is read in text mode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from headwater.errors import SourceError
from headwater_connectors.postgres import (
    containers,
    extensions,
    floats,
    geometric,
    network,
    numeric,
    temporal_texts,
    text_search,
)
from headwater_connectors.postgres.cells import Cells, offsets_of, places_of, read
from headwater_connectors.postgres.containers import Print
from headwater_connectors.postgres.spelling import chosen, joined, nulled, numbers, per_row

_HEX_PREFIX = "\\x"


class TextNeeded(SourceError):
    """A binary session sent a type without binary decoder: a column, or type, made since the session began."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """A field of a composite, as pg_attribute has it: ``number`` stays the same through a renaming."""

    number: int
    name: str
    type_oid: int
    modifier: int


@dataclass(frozen=True, slots=True)
class TypeInfo:
    """What pg_type says of a type: ``kind`` is typtype (b e d c r m p), ``element`` an array's element type, ``base``
    and ``base_modifier`` a domain's, ``part`` a range's subtype or a multirange's range; ``delimiter`` separates
    elements of an array of it; ``sends``: it has a binary form; ``extension`` is the one that made it, or empty;
    ``fields`` are the types of a composite's, ``attributes`` those of one whose shape is known for a column (see
    ``composite_types.shaped``): shapes change, and a column keeps to the one that its topic has."""

    kind: str
    name: str = ""
    element: int = 0
    base: int = 0
    base_modifier: int = -1
    part: int = 0
    delimiter: str = ","
    sends: bool = True
    extension: str = ""
    fields: Sequence[int] = ()
    attributes: Sequence[Attribute] = ()


Types = Mapping[int, TypeInfo]


def printer(oid: int, known: Types) -> Print | None:
    """How values of a type are printed; None where only the server can."""
    if oid in _BUILTIN:
        return _BUILTIN[oid]
    info = known.get(oid)
    return None if info is None else _MADE.get(info.kind, _plain)(info, known)


def _plain(info: TypeInfo, known: Types) -> Print | None:
    """An array, or a type that an extension made."""
    if not info.element:
        return extensions.PRINTERS.get((info.extension, info.name))
    element = printer(info.element, known)
    return element and containers.array_texts(element, delimiter(info.element, known))


def _range(info: TypeInfo, known: Types) -> Print | None:
    part = printer(info.part, known)
    return part and (containers.range_texts if info.kind == "r" else containers.multirange_texts)(part)


def delimiter(oid: int, known: Types) -> str:
    """What separates the elements in the text of an array of this type."""
    info = known.get(oid)
    return info.delimiter if info else ","


def _composite(info: TypeInfo, known: Types) -> Print | None:
    """By the types that each value says its fields have: they may be others by now than when it was written."""

    def field(oid: int) -> Print:
        found = printer(oid, known)
        if found is None:
            raise TextNeeded(f"a composite value has a field of a type (oid {oid}) that is read as text only")
        return found

    return containers.composite_texts(field) if all(printer(oid, known) for oid in info.fields) else None


def text_of(cells: Cells) -> pa.Array:
    """Of types whose binary form is their text."""
    return cells.bytes(pa.string())


def versioned(cells: Cells) -> pa.Array:
    """Of types whose binary form is a version number, one byte, and their text."""
    return cells.shifted(1).bytes(pa.string())


def _integers(kind: str) -> Print:
    return lambda cells: nulled(numbers(cells.integers(kind)), cells)


def _booleans(cells: Cells) -> pa.Array:
    return nulled(chosen(cells.byte() == 1, pa.scalar("t"), pa.scalar("f")), cells)


def _bytes(cells: Cells) -> pa.Array:
    return joined(_HEX_PREFIX, hexadecimal(cells))


def hexadecimal(cells: Cells) -> pa.Array:
    return pl.Series(cells.bytes()).bin.encode("hex").to_arrow().cast(pa.string())


def _uuids(cells: Cells) -> pa.Array:
    digits = hexadecimal(cells)
    bounds = (0, 8, 12, 16, 20, 32)
    return joined(*(pc.utf8_slice_codeunits(digits, a, b) for a, b in pairwise(bounds)), between="-")


def char_texts(cells: Cells) -> pa.Array:
    return _CHARS.take(pa.array(cells.byte(), mask=cells.nulls()))


def _bits(cells: Cells) -> pa.Array:
    """An int4 number of bits, and those, from the highest of each byte on."""
    counts = cells.counts()
    offsets, number = offsets_of(counts), places_of(counts)
    held = cells.buffer[np.repeat(cells.start + 4, counts) + (number >> 3)]
    characters = (held >> (7 - (number & 7)).astype(np.uint8) & 1) + np.uint8(ord("0"))
    data = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(characters)]
    return nulled(pa.Array.from_buffers(pa.string(), len(cells), data), cells)


def _tids(cells: Cells) -> pa.Array:
    return nulled(joined("(", numbers(cells.integers("u4")), ",", numbers(cells.integers("u2", 4)), ")"), cells)


def _lsns(cells: Cells) -> pa.Array:
    high, low = (pc.utf8_upper(hexadecimal(half)) for half in (cells.shifted(0, 4), cells.shifted(4)))
    return joined(*(pc.replace_substring_regex(half, "^0{1,7}", "") for half in (high, low)), between="/")


def _snapshots(cells: Cells) -> pa.Array:
    """int4 running transactions, xmin and xmax, and those that run: ``xmin:xmax:a,b``."""
    counts = cells.counts()
    running = numbers(read(cells.buffer, "u8", np.repeat(cells.start + 20, counts) + 8 * places_of(counts)))
    ends = (numbers(cells.integers("u8", at)) for at in (4, 12))
    return nulled(joined(*ends, per_row(running, offsets_of(counts), ","), between=":"), cells)


_CHARS = pa.array([""] + [chr(code) if code < 128 else f"\\{code:o}" for code in range(1, 256)])
_SMALL, _OID = _integers("i2"), _integers("u4")
_BUILTIN: dict[int, Print | None] = {
    16: _booleans,
    17: _bytes,
    18: char_texts,
    20: _integers("i8"),
    21: _SMALL,
    22: containers.vector_texts(_SMALL),
    23: _integers("i4"),
    26: _OID,
    27: _tids,
    28: _OID,  # xid
    29: _OID,  # cid
    30: containers.vector_texts(_OID),
    **dict.fromkeys((19, 25, 114, 142, 1042, 1043, 1790), text_of),  # name text json xml bpchar varchar refcursor
    **dict.fromkeys((3802, 4072), versioned),  # jsonb jsonpath
    600: geometric.pattern("(#,#)"),
    601: geometric.pattern("[(#,#),(#,#)]"),
    602: geometric.path_texts,
    603: geometric.pattern("(#,#),(#,#)"),
    604: geometric.polygon_texts,
    628: geometric.pattern("{#,#,#}"),
    718: geometric.pattern("<(#,#),#>"),
    650: network.address_texts,
    869: network.address_texts,
    774: lambda cells: network.hardware_texts(cells, 8),
    829: lambda cells: network.hardware_texts(cells, 6),
    700: floats.single_texts,
    701: floats.double_texts,
    1082: temporal_texts.date_texts,
    1083: temporal_texts.time_texts,
    1114: temporal_texts.stamp_texts,
    1184: lambda cells: temporal_texts.stamp_texts(cells, "+00"),
    1186: temporal_texts.interval_texts,
    1266: temporal_texts.timetz_texts,
    1560: _bits,
    1562: _bits,
    1700: numeric.texts,
    2950: _uuids,
    2970: _snapshots,  # txid_snapshot
    5038: _snapshots,
    3220: _lsns,
    3614: text_search.vector_texts,
    5069: _integers("u8"),  # xid8
}
_MADE: dict[str, Callable[[TypeInfo, Types], Print | None]] = {
    "d": lambda info, known: printer(info.base, known),
    "e": lambda _, __: text_of,
    "c": _composite,
    "r": _range,
    "m": _range,
}
