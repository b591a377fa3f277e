"""What a column's default text means: one value of its type, the same in every tier and in every process.

The text is what DuckDB reads as the type in the time zone UTC. Bytes are hexadecimal ("00ff"), lists are
written as DuckDB or JSON writes them ("[1, 2]"), a TIMESTAMP has no zone. A number must be held exactly:
"1.5" is no INTEGER and "0.005" no DECIMAL(4,2), though DuckDB would round both.
"""

from __future__ import annotations

import re
import threading
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from headwater import duck, types
from headwater.errors import SchemaError

if TYPE_CHECKING:
    from headwater.schema import Field, Schema

KEPT_MAX = 1_024
"""Evaluated defaults that a process remembers; each is one value."""

_NUMBER = re.compile(r"(TINY|SMALL|BIG|HUGE|U|UTINY|USMALL|UBIG)?INT(EGER)?|DECIMAL\(\d+,\d+\)")
_ZONE = re.compile(r"\d\d:?\d\d(:[\d.]+)?\s*(Z|UTC|[+-]\d\d(:?\d\d)?)$", re.IGNORECASE)
_local = threading.local()


@lru_cache(KEPT_MAX)
def value(text: str, duckdb_type: str) -> pa.Scalar:
    """The value as files hold it; SchemaError when the text is none of this type."""
    kind = types.canonical(duckdb_type)
    try:
        found = connection().sql(f"SELECT {types.constant_sql(text, kind)} AS v").to_arrow_table().column(0)
    except duckdb.Error as error:
        raise _no_value(text, kind) from error
    scalar = found.cast(types.arrow_type(kind))[0]
    if not scalar.is_valid or not _is_exact(text, scalar, kind):
        raise _no_value(text, kind)
    return scalar


def promoted(text: str, old: str, new: str) -> str:
    """``text``, or what must stand in its place for the same value once ``old`` is ``new``.

    Read as DOUBLE, "0.1" is not the FLOAT that it was.
    """
    return text if old == new or _normal(text, old, new) == _normal(text, new, new) else _normal(text, old, new)


def same(one: str | None, one_type: str, other: str | None, other_type: str, kind: str) -> bool:
    """Whether two defaults are one value once both are of type ``kind``, to which their types promote."""
    if one is None or other is None:
        return one is other
    return _normal(one, one_type, kind) == _normal(other, other_type, kind)


@lru_cache(KEPT_MAX)
def _normal(text: str, old: str, new: str) -> str:
    sql = types.convert_sql(types.constant_sql(text, old), old, new)
    [(found,)] = connection().execute(f"SELECT CAST({sql} AS VARCHAR)").fetchall()
    return str(found)


def spelled(scalar: pa.Scalar, duckdb_type: str) -> str:
    """The text of a file value: the way back from ``value``."""
    kind = types.canonical(duckdb_type)
    table = pa.table({"v": pa.repeat(scalar, 1)})
    own = connection()
    own.register("spelled", table)
    try:
        [(found,)] = own.execute(f"SELECT CAST({types.lift_sql('v', kind)} AS VARCHAR) FROM spelled").fetchall()
    finally:
        own.unregister("spelled")
    return str(found)


def column(field: Field, text: str | None, rows: int) -> pa.Array:
    """``rows`` times what ``text`` stands for; NULL without one."""
    kind = types.arrow_type(field.type)
    return pa.nulls(rows, kind) if text is None else pa.repeat(value(text, field.type), rows)


def fill(table: pa.Table, schema: Schema) -> pa.Table:
    """``table`` with what its producer left out and may: columns of the schema that have a default."""
    optional = [field for field in schema.fields if field.optional]
    given = set(table.column_names) if optional else set()
    for field in optional:
        if field.name not in given:
            table = table.append_column(field.name, column(field, field.write_default, table.num_rows))
    return table


def connection() -> duckdb.DuckDBPyConnection:
    """This thread's own DuckDB for conversions of single columns: one thread, rows keep their order."""
    if not hasattr(_local, "duck"):
        _local.duck = duck.connect(threads=1, for_files=True)
        _local.duck.execute("SET preserve_insertion_order = true")
    found: duckdb.DuckDBPyConnection = _local.duck
    return found


def _is_exact(text: str, found: pa.Scalar, kind: str) -> bool:
    if kind == "TIMESTAMP":
        return _ZONE.search(text.strip()) is None
    if _NUMBER.fullmatch(kind) is None:
        return True
    try:
        return Decimal(text.strip()) == Decimal(found.as_py())
    except InvalidOperation:  # another notation than decimal digits
        return False


def _no_value(text: str, kind: str) -> SchemaError:
    return SchemaError(f"the default {text!r} is no {kind}", todo="Write it as a value of that type.")
