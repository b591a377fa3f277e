"""The normative type table: PostgreSQL type → column type of the log, and how its bytes become columns.

    bool · int2 int4 int8 · oid                     BOOLEAN · SMALLINT INTEGER BIGINT · UBIGINT
    float4 float8                                   FLOAT DOUBLE
    numeric(p,s), p <= 38, 0 <= s <= p              DECIMAL(p,s); NaN and ±Infinity are odd
    numeric otherwise                               VARCHAR, the exact text
    text varchar bpchar name "char" enums           VARCHAR
    uuid · bytea · json jsonb                       UUID · BLOB · JSON
    date · time · timetz                            DATE · TIME · TIMETZ
    timestamp · timestamptz                         TIMESTAMP · TIMESTAMP WITH TIME ZONE; after the year 294246: odd
    interval                                        INTERVAL; ±infinity are odd
    one-dimensional arrays of these                 T[]; more dimensions or other lower bounds are odd
    composites                                      STRUCT(field T, ...); in another shape than now: odd
    domains                                         as their base type
    anything else                                   VARCHAR, the text that the server prints

An *odd* value is one the column's type cannot hold, or has such a value in it: NULL in the column, its exact text in
``_raw``. Inside a composite a type whose values are written back in a way of their own is its text (``_is_plain``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from headwater import types
from headwater_connectors.postgres import arrays, composites, containers, extensions, numeric, temporal, temporal_texts
from headwater_connectors.postgres.cells import Bools, Cells, Int64s, array_of
from headwater_connectors.postgres.printing import Attribute, Types, char_texts, delimiter, printer


@dataclass(frozen=True)
class Column:
    """Decoded values; rows ``odd`` (ascending) could not be held and print as ``odd_text``."""

    values: pa.Array
    odd: Int64s
    odd_text: pa.Array


Decode = Callable[[Cells], Column]


@dataclass(frozen=True)
class ColumnType:
    """A column's type in the log and its decoders; ``binary`` is None where only text is understood.

    Without ``sends`` the type has no binary form: the server sends its text in either mode. ``width``: of its binary
    values in bytes, 0 if they have different ones.
    """

    duckdb: str
    text: Decode
    binary: Decode | None = None
    sends: bool = True
    width: int = 0

    def nulls(self, count: int) -> Column:
        """So many NULLs."""
        return Column(pa.nulls(count, types.arrow_type(self.duckdb)), _NO_ROWS, _NO_TEXT)


_NO_ROWS: Int64s = np.empty(0, np.int64)
_NO_TEXT = pa.array([], pa.string())
_STAMP = pa.timestamp("us")
_STAMP_UTC = pa.timestamp("us", tz="UTC")


def column_type(oid: int, modifier: int, known: Types) -> ColumnType:
    """The type of a column whose pg_attribute says (atttypid, atttypmod); ``known`` are the database's types."""
    if oid == _NUMERIC:
        return _numeric(modifier)
    if oid in _BUILTIN:
        return _BUILTIN[oid]
    info = known.get(oid)
    if info is not None and info.kind == "d":
        return column_type(info.base, info.base_modifier, known)
    if info is not None and info.element:
        return _array(column_type(info.element, modifier, known), oid, info.element, known)
    if info is not None and info.attributes:
        return _composite(info.attributes, oid, known)
    return _EXTENSIONS.get((info.extension, info.name) if info else ("", "")) or _exact(oid, known)


def _exact(oid: int, known: Types) -> ColumnType:
    """VARCHAR, the text that the server prints."""
    text, info = printer(oid, known), known.get(oid)
    binary = None if text is None else _whole(text)
    return ColumnType("VARCHAR", _whole(_text), binary, sends=info is None or info.sends)


def _whole(decode: Callable[[Cells], pa.Array]) -> Decode:
    return lambda cells: Column(decode(cells), _NO_ROWS, _NO_TEXT)


def _odd(values: pa.Array, odd: Bools, text: Callable[[Int64s], pa.Array]) -> Column:
    rows = np.flatnonzero(odd)
    return Column(values, rows, text(rows)) if len(rows) else Column(values, _NO_ROWS, _NO_TEXT)


def _text(cells: Cells) -> pa.Array:
    return cells.bytes(pa.string())


def _from_text(kind: pa.DataType) -> Decode:
    return _whole(lambda cells: pc.cast(_text(cells), kind))


def _number(kind: str, arrow: pa.DataType) -> ColumnType:
    binary = _whole(
        lambda cells: array_of(cells, cells.integers(kind).astype(arrow.to_pandas_dtype(), copy=False), arrow)
    )
    return ColumnType(_DUCKDB[arrow], _from_text(arrow), binary, width=int(kind[1:]))


def _bools_text(cells: Cells) -> pa.Array:
    return pa.array(cells.byte() == ord("t"), mask=cells.nulls())


def _bools_binary(cells: Cells) -> pa.Array:
    return pa.array(cells.byte() == 1, mask=cells.nulls())


def _uuid(sixteen: npt.NDArray[Any], cells: Cells) -> pa.Array:
    bitmap = None if cells.valid is None else pa.py_buffer(np.packbits(cells.valid, bitorder="little"))
    data = pa.py_buffer(np.ascontiguousarray(sixteen))
    storage = pa.Array.from_buffers(pa.binary(16), len(cells), [bitmap, data])
    return pa.ExtensionArray.from_storage(pa.uuid(), storage)


def _uuid_binary(cells: Cells) -> pa.Array:
    return _uuid(cells.fixed(16), cells)


def _uuid_text(cells: Cells) -> pa.Array:
    digits = _NIBBLES[cells.fixed(36)[:, _UUID_DIGITS]]
    return _uuid(digits[:, 0::2] << 4 | digits[:, 1::2], cells)


def _bytea_text(cells: Cells) -> pa.Array:
    hexadecimal = pl.Series(cells.shifted(2).bytes(pa.string()))
    return hexadecimal.str.decode("hex").to_arrow().cast(pa.binary())


def _decimal_binary(precision: int, scale: int) -> Decode:
    def decode(cells: Cells) -> Column:
        values, odd = numeric.decimals(cells, precision, scale)
        return _odd(values, odd, lambda rows: numeric.texts(cells.take(rows)))

    return decode


def _decimal_text(precision: int, scale: int) -> Decode:
    def decode(cells: Cells) -> Column:
        first = cells.byte()
        odd = (first == ord("N")) | (first == ord("I")) | ((first == ord("-")) & (cells.byte(1) == ord("I")))
        odd &= cells.length > 0
        values = pc.cast(_text(cells.masked(~odd) if odd.any() else cells), pa.decimal128(precision, scale))
        return _odd(values, odd, lambda rows: _text(cells.take(rows)))

    return decode


def _numeric(modifier: int) -> ColumnType:
    precision = (modifier - 4 >> 16) & 0xFFFF
    scale = ((modifier - 4 & 0x7FF) ^ 1024) - 1024
    if modifier < 0 or precision > 38 or not 0 <= scale <= precision:
        return ColumnType("VARCHAR", _whole(_text), _whole(numeric.texts))
    name = f"DECIMAL({precision},{scale})"
    return ColumnType(name, _decimal_text(precision, scale), _decimal_binary(precision, scale))


def _stamp(kind: pa.TimestampType) -> ColumnType:
    def binary(cells: Cells) -> Column:
        values, odd = temporal.stamps_binary(cells, kind)
        return _odd(values, odd, lambda rows: temporal_texts.stamp_texts(cells.take(rows), "+00" if kind.tz else ""))

    return ColumnType(_DUCKDB[kind], _odd_text(lambda cells: temporal.stamps_text(cells, kind)), binary, width=8)


def _odd_text(decode: Callable[[Cells], tuple[pa.Array, Bools]]) -> Decode:
    def whole(cells: Cells) -> Column:
        values, odd = decode(cells)
        return _odd(values, odd, lambda rows: _text(cells.take(rows)))

    return whole


def _intervals_binary(cells: Cells) -> Column:
    values, odd = temporal.intervals_binary(cells)
    return _odd(values, odd, lambda rows: temporal_texts.interval_texts(cells.take(rows)))


def _array(element: ColumnType, oid: int, element_oid: int, known: Types) -> ColumnType:
    mark, texts = delimiter(element_oid, known), printer(oid, known)
    text = _lists(lambda cells: arrays.elements(cells, mark), element.text, _text)
    if element.binary is None or texts is None:
        return ColumnType(f"{element.duckdb}[]", text)
    return ColumnType(f"{element.duckdb}[]", text, _lists(containers.elements, element.binary, texts))


def _lists(
    elements: Callable[[Cells], tuple[Cells, Int64s, Bools]], element: Decode, texts: Callable[[Cells], pa.Array]
) -> Decode:
    """Arrays of one dimension; the others, and those of which an element cannot be held, are odd."""

    def decode(cells: Cells) -> Column:
        inner, offsets, odd = elements(cells)
        column = element(inner)
        if len(column.odd):
            odd = odd.copy()
            odd[np.searchsorted(offsets, column.odd, side="right") - 1] = True
        masked = cells.masked(~odd) if odd.any() else cells
        values = arrays.list_array(column.values, offsets, masked.valid)
        return _odd(values, odd, lambda rows: texts(cells.take(rows)))

    return decode


def _composite(attributes: Sequence[Attribute], oid: int, known: Types) -> ColumnType:
    names = composites.distinct([each.name for each in attributes])
    kinds = [_field_type(each.type_oid, each.modifier, known) for each in attributes]
    duckdb, texts = types.struct(zip(names, (kind.duckdb for kind in kinds), strict=True)), printer(oid, known)
    text = _readable(_structs(composites.of_text(len(kinds)), names, [kind.text for kind in kinds], _text), duckdb)
    binaries = [kind.binary for kind in kinds if kind.binary is not None]
    if texts is None or len(binaries) < len(kinds):
        return ColumnType(duckdb, text)
    split = composites.of_binary([each.type_oid for each in attributes])
    return ColumnType(duckdb, text, _structs(split, names, binaries, texts))


def _field_type(oid: int, modifier: int, known: Types) -> ColumnType:
    """As of a column, but the text of what ``literal`` could not write without knowing what the source calls it."""
    return column_type(oid, modifier, known) if _is_plain(oid, known) else _exact(oid, known)


def _is_plain(oid: int, known: Types) -> bool:
    """Whether the type in the log alone says how its values are written."""
    info = known.get(oid)
    if info is None or info.attributes:  # fields have been asked by themselves
        return True
    if info.kind == "d" or info.element:
        return delimiter(info.element, known) == "," and _is_plain(info.base or info.element, known)
    return (info.extension, info.name) not in _EXTENSIONS


def _structs(
    split: composites.Split, names: Sequence[str], fields: Sequence[Decode], texts: Callable[[Cells], pa.Array]
) -> Decode:
    """Composites of one shape; the others, and those of which a field cannot be held, are odd."""

    def decode(cells: Cells) -> Column:
        parts, odd = split(cells)
        columns = [field(part) for field, part in zip(fields, parts, strict=True)]
        for column in columns:
            odd[column.odd] = True
        masked = cells.masked(~odd) if odd.any() else cells
        values = composites.struct_array(names, [column.values for column in columns], masked.valid)
        return _odd(values, odd, lambda rows: texts(cells.take(rows)))

    return decode


def _readable(decode: Decode, duckdb: str) -> Decode:
    """Texts that ``decode`` refuses, found by halving, are odd: fields of an earlier shape look like anything."""

    def every(cells: Cells) -> Column:
        try:
            return decode(cells)
        except Exception:  # noqa: BLE001 -- whatever a text brings about that is none of the field's type
            if len(cells) < 2:
                return Column(pa.nulls(len(cells), types.arrow_type(duckdb)), np.arange(len(cells)), _text(cells))
            middle = len(cells) // 2
            one, other = every(cells.take(slice(middle))), every(cells.take(slice(middle, None)))
            return Column(
                pa.concat_arrays([one.values, other.values]),
                np.concatenate((one.odd, other.odd + middle)),
                pa.concat_arrays([one.odd_text, other.odd_text]),
            )

    return every


_NUMERIC = 1700
_DUCKDB = {
    types.arrow_type(name): name
    for name in ("SMALLINT", "INTEGER", "BIGINT", "UBIGINT", "FLOAT", "DOUBLE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE")
}
_UUID_DIGITS = np.array([place for place in range(36) if place not in (8, 13, 18, 23)])
_NIBBLES = np.zeros(256, np.uint8)
for _digits in ("0123456789abcdef", "0123456789ABCDEF"):
    _NIBBLES[[ord(digit) for digit in _digits]] = np.arange(16)

_TEXT = ColumnType("VARCHAR", _whole(_text), _whole(_text))
_JSON = ColumnType("JSON", _whole(_text), _whole(_text))
_BUILTIN: dict[int, ColumnType] = {
    16: ColumnType("BOOLEAN", _whole(_bools_text), _whole(_bools_binary), width=1),
    17: ColumnType("BLOB", _whole(_bytea_text), _whole(lambda cells: cells.bytes())),
    18: ColumnType("VARCHAR", _whole(_text), _whole(char_texts)),
    19: _TEXT,
    20: _number("i8", pa.int64()),
    21: _number("i2", pa.int16()),
    23: _number("i4", pa.int32()),
    25: _TEXT,
    26: _number("u4", pa.uint64()),
    114: _JSON,
    700: _number("f4", pa.float32()),
    701: _number("f8", pa.float64()),
    1042: _TEXT,
    1043: _TEXT,
    1082: ColumnType("DATE", _odd_text(temporal.dates_text), _whole(temporal.dates_binary), width=4),
    1083: ColumnType("TIME", _whole(temporal.times_text), _whole(temporal.times_binary), width=8),
    1114: _stamp(_STAMP),
    1184: _stamp(_STAMP_UTC),
    1186: ColumnType("INTERVAL", _odd_text(temporal.intervals_text), _intervals_binary, width=16),
    1266: ColumnType("TIMETZ", _whole(temporal.timetz_text), _whole(temporal.timetz_binary), width=12),
    2950: ColumnType("UUID", _whole(_uuid_text), _whole(_uuid_binary), width=16),
    3802: ColumnType("JSON", _whole(_text), _whole(lambda cells: cells.shifted(1).bytes(pa.string()))),
}
_GEOMETRY = ColumnType("BLOB", _whole(extensions.unhexed), _whole(lambda cells: cells.bytes()))
_EXTENSIONS: dict[tuple[str, str], ColumnType] = {
    ("hstore", "hstore"): ColumnType("JSON", _whole(extensions.hstore_text), _whole(extensions.hstore_binary)),
    ("vector", "vector"): ColumnType("FLOAT[]", _whole(extensions.vector_text), _whole(extensions.VECTOR.binary)),
    ("vector", "halfvec"): ColumnType("FLOAT[]", _whole(extensions.vector_text), _whole(extensions.HALF_VECTOR.binary)),
    ("postgis", "geometry"): _GEOMETRY,
    ("postgis", "geography"): _GEOMETRY,
}
