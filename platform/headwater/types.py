"""The one table of column types: DuckDB name, Arrow type in files, and the way between them.

A column's type is written as a DuckDB type text in canonical upper case, e.g. ``DECIMAL(12,2)``,
``TIMESTAMP WITH TIME ZONE``, ``VARCHAR[]``. Files hold the Arrow type of this table. Where a file cannot
hold the DuckDB type itself (Parquet loses an interval's microseconds, DuckDB writes HUGEINT as DOUBLE),
``lift_sql`` and ``lower_sql`` are the exact conversions; for all other types they are the bare column.

    DuckDB                      Arrow in files                              JSON / CSV text
    BOOLEAN                     bool                                        true
    SMALLINT INTEGER BIGINT     int16 int32 int64                           1 (quoted in JSON beyond 2^53)
    UBIGINT                     uint64                                      as above
    FLOAT DOUBLE                float32 float64                             1.5
    DECIMAL(p,s)                decimal128(p,s)                             "12.50"
    HUGEINT                     decimal128(38,0)                            "1"
    VARCHAR JSON                string                                      "x"
    BLOB                        binary                                      hexadecimal
    UUID                        arrow.uuid over 16 bytes                    "6fa4…"
    DATE TIME TIMESTAMP         date32 time64[us] timestamp[us]             ISO 8601
    TIMESTAMP WITH TIME ZONE    timestamp[us, UTC]                          ISO 8601
    TIMETZ                      struct(micros int64, offset int32)          offset in seconds east of UTC
    INTERVAL                    struct(months int32, days int32, micros int64)
    T[]                         list<T>

±infinity of DATE and TIMESTAMP are DuckDB's own sentinels (the largest and smallest day or microsecond but
one end), so they survive files and compare as infinities.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

import pyarrow as pa

_INTERVAL: Final = pa.struct([("months", pa.int32()), ("days", pa.int32()), ("micros", pa.int64())])
_TIMETZ: Final = pa.struct([("micros", pa.int64()), ("offset", pa.int32())])

_ARROW: Final[dict[str, pa.DataType]] = {
    "BOOLEAN": pa.bool_(),
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "UTINYINT": pa.uint8(),
    "USMALLINT": pa.uint16(),
    "UINTEGER": pa.uint32(),
    "UBIGINT": pa.uint64(),
    "HUGEINT": pa.decimal128(38, 0),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "VARCHAR": pa.string(),
    "JSON": pa.string(),
    "BLOB": pa.binary(),
    "UUID": pa.uuid(),
    "DATE": pa.date32(),
    "TIME": pa.time64("us"),
    "TIMETZ": _TIMETZ,
    "TIMESTAMP": pa.timestamp("us"),
    "TIMESTAMP WITH TIME ZONE": pa.timestamp("us", tz="UTC"),
    "INTERVAL": _INTERVAL,
}

_ALIASES: Final = {
    "TIME WITH TIME ZONE": "TIMETZ",
    "TIMESTAMPTZ": "TIMESTAMP WITH TIME ZONE",
    "INT": "INTEGER",
    "INT8": "BIGINT",
    "INT4": "INTEGER",
    "INT2": "SMALLINT",
    "REAL": "FLOAT",
    "TEXT": "VARCHAR",
    "STRING": "VARCHAR",
    "BOOL": "BOOLEAN",
    "BYTEA": "BLOB",
}

_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")


@cache
def canonical(duckdb_type: str) -> str:
    """The canonical text of a DuckDB type name; raises ValueError when files cannot hold it."""
    text = duckdb_type.strip().upper()
    if text.endswith("[]"):
        return canonical(text[:-2]) + "[]"
    if text.startswith("ENUM"):
        return "VARCHAR"
    text = _ALIASES.get(text, text)
    if decimal := _DECIMAL.fullmatch(text):
        return f"DECIMAL({decimal[1]},{decimal[2]})"
    if text not in _ARROW:
        raise ValueError(f"type {duckdb_type} has no representation in files")
    return text


@cache
def arrow_type(duckdb_type: str) -> pa.DataType:
    """The Arrow type that files hold for a column of this type."""
    text = canonical(duckdb_type)
    if text.endswith("[]"):
        return pa.list_(arrow_type(text[:-2]))
    if decimal := _DECIMAL.fullmatch(text):
        return pa.decimal128(int(decimal[1]), int(decimal[2]))
    return _ARROW[text]


def quote(identifier: str) -> str:
    """An SQL identifier in double quotes."""
    return '"' + identifier.replace('"', '""') + '"'


def is_plain(duckdb_type: str) -> bool:
    """Whether DuckDB reads and writes the file type of this column without a conversion."""
    text = canonical(duckdb_type).removesuffix("[]")
    return text not in {"INTERVAL", "TIMETZ", "HUGEINT", "JSON"}


def file_sql(duckdb_type: str) -> str:
    """How DuckDB names the type that files hold for this column."""
    text = canonical(duckdb_type)
    if text.endswith("[]"):
        return file_sql(text[:-2]) + "[]"
    return {
        "INTERVAL": "STRUCT(months INTEGER, days INTEGER, micros BIGINT)",
        "TIMETZ": 'STRUCT(micros BIGINT, "offset" INTEGER)',
        "HUGEINT": "DECIMAL(38,0)",
        "JSON": "VARCHAR",
    }.get(text, text)


def lift_sql(column: str, duckdb_type: str) -> str:
    """SQL that turns the file column ``column`` into a value of ``duckdb_type``; quotes the name."""
    return _lift(quote(column), canonical(duckdb_type))


def lower_sql(column: str, duckdb_type: str) -> str:
    """SQL that turns the value column ``column`` into what files hold for ``duckdb_type``."""
    return _lower(quote(column), canonical(duckdb_type))


def convert_sql(value: str, old: str, new: str) -> str:
    """SQL that turns the file value ``value`` of type ``old`` into the file value of type ``new``.

    As DuckDB casts the two types; it raises ConversionException for a value that has no counterpart. A DATE
    beyond TIMESTAMP's range becomes the infinity at its end, so that it still sorts where it did.
    """
    old, new = canonical(old), canonical(new)
    if old == new:
        return value
    if old.endswith("[]") and new.endswith("[]"):
        return f"list_transform({value}, lambda e: {convert_sql('e', old[:-2], new[:-2])})"
    if (old, new) == ("DATE", "TIMESTAMP"):
        return (
            f"CASE WHEN {value} > DATE '294246-12-31' THEN TIMESTAMP 'infinity'"
            f" WHEN {value} < DATE '290308-01-01 (BC)' THEN TIMESTAMP '-infinity' ELSE CAST({value} AS TIMESTAMP) END"
        )
    return _lower(f"CAST({_lift(value, old)} AS {new})", new)


def constant_sql(text: str, duckdb_type: str) -> str:
    """SQL of the file value that ``text`` stands for, as DuckDB reads it; bytes are hexadecimal."""
    quoted = "'" + text.replace("'", "''") + "'"
    kind = canonical(duckdb_type)
    depth = kind.count("[]")
    if kind.startswith("BLOB"):
        return _unhex(f"CAST({quoted} AS VARCHAR{'[]' * depth})", depth)
    return _lower(f"CAST({quoted} AS {kind})", kind)


def _unhex(value: str, depth: int) -> str:
    return f"unhex({value})" if depth == 0 else f"list_transform({value}, lambda e: {_unhex('e', depth - 1)})"


def _lift(value: str, text: str) -> str:
    if is_plain(text):
        return value
    if text.endswith("[]"):
        return f"list_transform({value}, lambda e: {_lift('e', text[:-2])})"
    if text == "INTERVAL":
        return f"(to_months({value}.months) + to_days({value}.days) + to_microseconds({value}.micros))"
    if text == "TIMETZ":
        return f'headwater_timetz({value}.micros, {value}."offset")'
    return f"CAST({value} AS {text})"


def _lower(value: str, text: str) -> str:
    if is_plain(text):
        return value
    if text.endswith("[]"):
        return f"list_transform({value}, lambda e: {_lower('e', text[:-2])})"
    if text == "INTERVAL":
        return f"headwater_interval_parts({value})"
    if text == "TIMETZ":
        return f"headwater_timetz_parts({value})"
    return f"CAST({value} AS {'VARCHAR' if text == 'JSON' else 'DECIMAL(38,0)'})"


MACROS: Final = (
    # An interval's three parts are independent in both systems; extract() mixes units, so take them apart.
    """MACRO headwater_interval_parts(i) AS CASE WHEN i IS NOT NULL THEN {
        'months': (datepart('year', i) * 12 + datepart('month', i))::INTEGER,
        'days': datepart('day', i)::INTEGER,
        'micros': (datepart('hour', i) * 3600000000 + datepart('minute', i) * 60000000
                   + datepart('microsecond', i))::BIGINT} END""",
    """MACRO headwater_timetz(micros, east) AS CASE WHEN micros IS NOT NULL THEN
        CAST(printf('%02d:%02d:%02d.%06d%s%02d:%02d:%02d', micros // 3600000000, micros // 60000000 % 60,
            micros // 1000000 % 60, micros % 1000000, CASE WHEN east < 0 THEN '-' ELSE '+' END,
            abs(east) // 3600, abs(east) // 60 % 60, abs(east) % 60) AS TIMETZ) END""",
    """MACRO headwater_timetz_parts(t) AS CASE WHEN t IS NOT NULL THEN {
        'micros': (datepart('hour', t) * 3600000000 + datepart('minute', t) * 60000000
                   + datepart('microsecond', t))::BIGINT,
        'offset': (datepart('timezone', t))::INTEGER} END""",
)
"""Created in every database of those that lift or lower; ``duck.connect`` does."""
