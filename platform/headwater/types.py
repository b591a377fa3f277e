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
    STRUCT("a" T, ...)          struct<a: T, ...>                           {"a": 1, ...}

Names of a STRUCT's fields are always quoted, keep their case and differ in more than that.

±infinity of DATE and TIMESTAMP are DuckDB's own sentinels (the largest and smallest day or microsecond but
one end), so they survive files and compare as infinities.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache, partial
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
_TOKENS = re.compile(r"""("(?:[^"]|"")*")|('(?:[^']|'')*')|([(),])|([^"'(),]+)""")
_MEMBER = re.compile(r"""\s*(?:"((?:[^"]|"")+)"|([^\s"]+))\s+(.*)""", re.DOTALL)


@cache
def canonical(duckdb_type: str) -> str:
    """The canonical text of a DuckDB type name; raises ValueError when files cannot hold it."""
    text = duckdb_type.strip()
    if text.endswith("[]"):
        return canonical(text[:-2]) + "[]"
    if is_struct(text):
        return struct(fields_of(text))
    text = text.upper()
    if text.startswith("ENUM"):
        return "VARCHAR"
    text = _ALIASES.get(text, text)
    if decimal := _DECIMAL.fullmatch(text):
        return f"DECIMAL({decimal[1]},{decimal[2]})"
    if text not in _ARROW:
        raise ValueError(f"type {duckdb_type} has no representation in files")
    return text


def is_struct(duckdb_type: str) -> bool:
    """Whether the text is a STRUCT's (a list of them is none)."""
    return duckdb_type[:7].upper() == "STRUCT(" and duckdb_type.endswith(")")


def struct(fields: Iterable[tuple[str, str]]) -> str:
    """The canonical text of a STRUCT of these (name, type); ValueError when two names differ in case only, or none."""
    found = [(name, canonical(kind)) for name, kind in fields]
    if not found or len({name.lower() for name, _ in found}) < len(found):
        raise ValueError(
            "a STRUCT without fields, or of names that differ in case only, has no representation in files"
        )
    return f"STRUCT({', '.join(f'{quote(name)} {kind}' for name, kind in found)})"


@cache
def fields_of(duckdb_type: str) -> tuple[tuple[str, str], ...]:
    """Names and canonical types of a STRUCT's fields; ValueError when a field has no name."""
    parts, depth = [""], 0
    for token in _TOKENS.finditer(duckdb_type.strip()[7:-1]):
        depth += (token[0] == "(") - (token[0] == ")")
        if token[0] == "," and not depth:
            parts.append("")
        else:
            parts[-1] += token[0]
    found = []
    for part in parts:
        member = _MEMBER.fullmatch(part)
        if member is None:
            raise ValueError(f"type {duckdb_type} has no representation in files: its fields have no names")
        found.append((member[1].replace('""', '"') if member[1] else member[2], canonical(member[3])))
    return tuple(found)


@cache
def arrow_type(duckdb_type: str) -> pa.DataType:
    """The Arrow type that files hold for a column of this type."""
    text = canonical(duckdb_type)
    if text.endswith("[]"):
        return pa.list_(arrow_type(text[:-2]))
    if is_struct(text):
        return pa.struct([(name, arrow_type(kind)) for name, kind in fields_of(text)])
    if decimal := _DECIMAL.fullmatch(text):
        return pa.decimal128(int(decimal[1]), int(decimal[2]))
    return _ARROW[text]


def quote(identifier: str) -> str:
    """An SQL identifier in double quotes."""
    return '"' + identifier.replace('"', '""') + '"'


def file_sql(duckdb_type: str) -> str:
    """How DuckDB names the type that files hold for this column."""
    text = canonical(duckdb_type)
    if text.endswith("[]"):
        return file_sql(text[:-2]) + "[]"
    if is_struct(text):
        return f"STRUCT({', '.join(f'{quote(name)} {file_sql(kind)}' for name, kind in fields_of(text))})"
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


def over_leaves(value: str, duckdb_type: str, leaf: Callable[[str, str], str]) -> str:
    """SQL of ``value`` with every value in it that is no list or struct as ``leaf`` (value, type) has it."""
    text = canonical(duckdb_type)
    if text.endswith("[]"):
        element = over_leaves("e", text[:-2], leaf)
        return value if element == "e" else f"list_transform({value}, lambda e: {element})"
    if not is_struct(text):
        return leaf(value, text)
    inner = {name: (field_sql(value, name), kind) for name, kind in fields_of(text)}
    made = {name: over_leaves(*each, leaf) for name, each in inner.items()}
    if all(made[name] == was for name, (was, _) in inner.items()):
        return value
    parts = ", ".join(f"{quote(name)} := {sql}" for name, sql in made.items())
    return f"CASE WHEN {value} IS NOT NULL THEN struct_pack({parts}) END"


def field_sql(value: str, name: str) -> str:
    """SQL of a field of a struct; a dot would be taken for that of a table's column."""
    return f"struct_extract({value}, '" + name.replace("'", "''") + "')"


def _lift_leaf(value: str, text: str) -> str:
    if text == "INTERVAL":
        months, days, micros = (field_sql(value, part) for part in ("months", "days", "micros"))
        return f"(to_months({months}) + to_days({days}) + to_microseconds({micros}))"
    if text == "TIMETZ":
        return f"headwater_timetz({field_sql(value, 'micros')}, {field_sql(value, 'offset')})"
    return f"CAST({value} AS {text})" if text in ("HUGEINT", "JSON") else value


def lower_leaf(value: str, text: str) -> str:
    """SQL that turns a value that is no list or struct into what files hold for it."""
    if text == "INTERVAL":
        return f"headwater_interval_parts({value})"
    if text == "TIMETZ":
        return f"headwater_timetz_parts({value})"
    return f"CAST({value} AS {file_sql(text)})" if text in ("HUGEINT", "JSON") else value


_lift = partial(over_leaves, leaf=_lift_leaf)
_lower = partial(over_leaves, leaf=lower_leaf)


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
