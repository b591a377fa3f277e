"""One column that a caller gave, as the type that files hold; rows whose value has no such form are named.

    Python values ─┐
    Arrow column  ─┼─▶ column of the topic's file type + the rows that do not fit (NULL there)
    text          ─┘

Strict: a value is never rounded, cut or guessed. What is allowed beside the type itself: integers for any number
that holds them, whole floats for integers (pandas has no NULL in them otherwise), FLOAT from a double, bytes of
UTF-8 for text, text for a UUID, a naive time for TIMESTAMP WITH TIME ZONE (it is in the lake's zone).

The way without a bad row is one Arrow call per column. Only when that call refuses are halves tried.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headwater import default, types

Rows = npt.NDArray[np.int64]
MARK = "\x02"
"""Before what a file does not write as text; a raw control character, so that no JSON text begins with it."""
NONE: Rows = np.empty(0, dtype=np.int64)
REFUSED = (pa.ArrowException, OverflowError, UnicodeError, ValueError, TypeError)
_STAMP = "TIMESTAMP WITH TIME ZONE"
_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}
_PYTHON: dict[str, tuple[type, ...]] = {
    "BOOLEAN": (bool, np.bool_),
    "FLOAT": (float, int, np.floating, np.integer),
    "DOUBLE": (float, int, np.floating, np.integer),
    "HUGEINT": (int, np.integer),
    "VARCHAR": (str, bytes),
    "JSON": (str, dict, list),
    "BLOB": (bytes, bytearray, memoryview),
    "UUID": (uuid.UUID, str, bytes),
    "DATE": (date,),
    "TIME": (time,),
    "TIMETZ": (dict, time),
    "TIMESTAMP": (datetime, np.datetime64),
    _STAMP: (datetime, np.datetime64),
    "INTERVAL": (dict, timedelta),
    "LIST": (list, tuple, np.ndarray),
    "MAP": (dict, list),
}


@dataclass(frozen=True)
class Text:
    """A column of text that is to be read as the topic's type: what files give. An absent value is NULL.

    ``marked``: what begins with ``MARK`` was no text in the file but a number or a truth value. Lists of texts are
    lists already.
    """

    column: pa.ChunkedArray
    marked: bool = False


Given: TypeAlias = Any
"""A column as it came: a list of Python values, a chunked Arrow array, or ``Text``."""
Converted = tuple[pa.Array, Rows]


def convert(given: Given, kind: str, zone: str) -> Converted:
    """The column as ``kind`` (a canonical DuckDB type, or MAP for headers), and the rows that do not fit."""
    if isinstance(given, Text):
        return _of_text(_one(given.column), kind, zone, given.marked)
    if isinstance(given, list):
        return _of_values(given, kind, zone)
    return _of_arrow(_one(given), kind, zone)


def file_type(kind: str) -> pa.DataType:
    """The Arrow type of a column; MAP is that of the headers."""
    return pa.map_(pa.string(), pa.string()) if kind == "MAP" else types.arrow_type(kind)


def _one(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, column.type)


def _salvage(rows: int, kind: str, attempt: Callable[[int, int], pa.Array]) -> Converted:
    """``attempt(start, stop)`` for all rows at once; where it refuses, for halves, down to the single bad rows."""
    parts: list[pa.Array] = []
    bad: list[int] = []

    def go(start: int, stop: int) -> None:
        try:
            parts.append(attempt(start, stop))
        except REFUSED:
            if stop - start <= 1:
                bad.append(start)
                parts.append(pa.nulls(stop - start, file_type(kind)))
                return
            middle = (start + stop) // 2
            go(start, middle)
            go(middle, stop)

    go(0, rows)
    return parts[0] if len(parts) == 1 else pa.concat_arrays(parts), np.array(bad, dtype=np.int64)


# ---- Python values


def _of_values(values: list[Any], kind: str, zone: str) -> Converted:
    family = "LIST" if kind.endswith("[]") else "DECIMAL" if kind.startswith("DECIMAL") else kind
    allowed = _PYTHON.get(family, (int, np.integer) if family in _INTEGERS else (Decimal, int))
    strange = {each for each in set(map(type, values)) if not _is_allowed(each, family, allowed)}
    bad = NONE
    if strange:
        bad = np.array([place for place, value in enumerate(values) if type(value) in strange], dtype=np.int64)
        values = [None if type(value) in strange else value for value in values]
    if family == "LIST":
        array, more = _of_lists(values, kind, zone)
    else:
        array, more = _salvage(len(values), kind, lambda start, stop: _build(values[start:stop], kind, zone))
    if kind == "JSON":
        more = np.concatenate([more, _no_json(array)])
    return array, np.union1d(bad, more) if len(bad) else more


def _is_allowed(given: type, family: str, allowed: tuple[type, ...]) -> bool:
    if given is type(None):
        return True
    if given is bool and family != "BOOLEAN":
        return False
    return issubclass(given, allowed) and not (family == "DATE" and issubclass(given, datetime))


def _build(values: Sequence[Any], kind: str, zone: str) -> pa.Array:
    """These values, all of allowed Python types; raises one of REFUSED when any has no form in ``kind``."""
    match kind:
        case "TIMESTAMP" | "TIME":
            if any(getattr(value, "tzinfo", None) for value in values):
                raise ValueError
        case "TIMESTAMP WITH TIME ZONE":
            naive = [value is not None and getattr(value, "tzinfo", None) is None for value in values]
            if any(naive):
                given = [value if bare else None for value, bare in zip(values, naive, strict=True)]
                local = _in_zone(pa.array(given, pa.timestamp("us")), zone)
                rest = [None if bare else value for value, bare in zip(values, naive, strict=True)]
                return pc.coalesce(local, pa.array(rest, local.type))
        case "UUID":
            values = [None if value is None else _uuid_bytes(value) for value in values]
            return pa.ExtensionArray.from_storage(pa.uuid(), pa.array(values, pa.binary(16)))
        case "JSON":
            values = [json.dumps(value) if isinstance(value, dict | list) else value for value in values]
        case "INTERVAL" | "TIMETZ":
            values = [None if value is None else _parts(value, file_type(kind).names) for value in values]
    array = pa.array(values, file_type(kind))
    return _finite(array, values) if kind == "FLOAT" else array


def _uuid_bytes(value: uuid.UUID | str | bytes) -> bytes:
    return value if isinstance(value, bytes) else (uuid.UUID(value) if isinstance(value, str) else value).bytes


def _parts(value: Any, names: list[str]) -> dict[str, int]:
    """An interval or a time with its offset as the struct that files hold."""
    if isinstance(value, timedelta):
        return {"months": 0, "days": 0, "micros": value // timedelta(microseconds=1)}
    if isinstance(value, time):
        offset = value.utcoffset()
        if offset is None:
            raise ValueError
        since = timedelta(hours=value.hour, minutes=value.minute, seconds=value.second, microseconds=value.microsecond)
        return {"micros": since // timedelta(microseconds=1), "offset": offset // timedelta(seconds=1)}
    if set(value) != set(names) or None in value.values():
        raise ValueError
    return dict(value)


def _finite(array: pa.Array, values: Sequence[Any]) -> pa.Array:
    wide = pa.array(values, pa.float64())
    if pc.any(pc.and_(pc.is_inf(array), pc.is_finite(wide))).as_py():
        raise OverflowError
    return array


def _of_lists(values: list[Any], kind: str, zone: str) -> Converted:
    lengths = np.array([0 if value is None else len(value) for value in values], dtype=np.int64)
    flat = list(chain.from_iterable(value for value in values if value is not None))
    child, bad = _of_values(flat, kind[:-2], zone)
    return _lists(child, bad, lengths, np.array([value is None for value in values], dtype=bool))


def _lists(child: pa.Array, bad: Rows, lengths: npt.NDArray[np.int64], null: npt.NDArray[np.bool_]) -> Converted:
    ends = np.concatenate([[0], np.cumsum(lengths)])
    array = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), child, mask=pa.array(null) if null.any() else None)
    return array, np.unique(np.searchsorted(ends, bad, side="right") - 1) if len(bad) else NONE


# ---- Arrow columns


def _of_arrow(array: pa.Array, kind: str, zone: str) -> Converted:
    source, target = array.type, file_type(kind)
    if pa.types.is_null(source):
        return pa.nulls(len(array), target), NONE
    if pa.types.is_dictionary(source):
        return _of_arrow(array.cast(source.value_type), kind, zone)
    if pa.types.is_run_end_encoded(source):
        return _of_arrow(pc.run_end_decode(array), kind, zone)
    if _is_list(source) and kind.endswith("[]"):
        plain = array.cast(pa.list_(source.value_type))
        lengths = pc.fill_null(pc.list_value_length(plain), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        child, bad = _of_arrow(plain.flatten(), kind[:-2], zone)
        return _lists(child, bad, lengths, plain.is_null().to_numpy(zero_copy_only=False))
    change = _change(source, kind, zone)
    if change is None:
        return pa.nulls(len(array), target), np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))
    result, bad = _salvage(len(array), kind, lambda start, stop: change(array.slice(start, stop - start)))
    return result, np.concatenate([bad, _no_json(result)]) if kind == "JSON" else bad


def _change(source: pa.DataType, kind: str, zone: str) -> Callable[[pa.Array], pa.Array] | None:  # noqa: PLR0911 -- a table
    """How an Arrow type becomes ``kind``; None when it never does."""
    is_ = pa.types
    target = file_type(kind)
    text = is_.is_string(source) or is_.is_large_string(source) or is_.is_string_view(source)
    octets = is_.is_binary(source) or is_.is_large_binary(source) or is_.is_binary_view(source)
    octets = octets or is_.is_fixed_size_binary(source)
    if kind in ("VARCHAR", "JSON"):
        return (lambda part: _utf8(part.cast(target))) if text or octets else None
    if kind == "UUID" and text:
        return _uuid_of_text
    if kind == "UUID":
        return _uuid if octets or source == target else None
    if kind == "MAP":
        return _map if is_.is_map(source) or _is_list(source) else None
    if kind in ("INTERVAL", "TIMETZ"):
        return _structs(source, target)
    if kind == _STAMP and is_.is_timestamp(source) and source.tz is None:
        return lambda part: _in_zone(part.cast(pa.timestamp("us")), zone)
    if is_.is_decimal(target) and is_.is_integer(source):
        return lambda part: part.cast(pa.decimal256(76, target.scale)).cast(target)
    if kind == "FLOAT" and is_.is_floating(source):
        return lambda part: _narrow(part, target)
    same = (
        (is_.is_boolean(source) and kind == "BOOLEAN")
        or (is_.is_integer(target) and (is_.is_integer(source) or is_.is_floating(source)))
        or (is_.is_floating(target) and (is_.is_integer(source) or is_.is_floating(source)))
        or (is_.is_decimal(target) and is_.is_decimal(source))
        or (kind == "BLOB" and octets)
        or (kind == "DATE" and is_.is_date(source))
        or (kind == "TIME" and is_.is_time(source))
        or (is_.is_timestamp(target) and is_.is_timestamp(source) and (source.tz is None) == (target.tz is None))
    )
    return (lambda part: part.cast(target)) if same else None


def _is_list(source: pa.DataType) -> bool:
    is_ = pa.types
    views = is_.is_list_view(source) or is_.is_large_list_view(source)
    return bool(is_.is_list(source) or is_.is_large_list(source) or is_.is_fixed_size_list(source) or views)


def _utf8(part: pa.Array) -> pa.Array:
    part.validate(full=True)
    return part


def _uuid(part: pa.Array) -> pa.Array:
    storage = part.storage if isinstance(part, pa.ExtensionArray) else part.cast(pa.binary(16))
    return pa.ExtensionArray.from_storage(pa.uuid(), storage)


def _uuid_of_text(part: pa.Array) -> pa.Array:
    found = _ask("SELECT TRY_CAST(v AS UUID) AS v FROM given", _utf8(part.cast(pa.string())))
    if found.null_count > part.null_count:
        raise ValueError
    return _uuid(found)


def _map(part: pa.Array) -> pa.Array:
    target = file_type("MAP")
    if pa.types.is_map(part.type):
        return _utf8(part.cast(target))
    entries = part.cast(pa.list_(pa.struct([("key", pa.string()), ("value", pa.string())])))
    if set(part.type.value_type.names) != {"key", "value"}:
        raise TypeError
    lengths = pc.fill_null(pc.list_value_length(entries), 0).to_numpy(zero_copy_only=False)
    flat, ends = entries.flatten(), np.concatenate([[0], np.cumsum(lengths)])
    mask = entries.is_null() if entries.null_count else None
    return pa.MapArray.from_arrays(pa.array(ends, pa.int32()), flat.field("key"), flat.field("value"), mask=mask)


def _structs(source: pa.DataType, target: pa.DataType) -> Callable[[pa.Array], pa.Array] | None:
    if pa.types.is_struct(source) and set(source.names) == set(target.names):
        return lambda part: _struct([part.field(f.name).cast(f.type) for f in target], target, part)
    if "months" not in target.names:
        return None
    if pa.types.is_duration(source):
        return lambda part: _interval(part, part.cast(pa.duration("us")).cast(pa.int64()).fill_null(0))
    return _months_days_nanos if source == pa.month_day_nano_interval() else None


def _struct(children: list[pa.Array], target: pa.DataType, source: pa.Array) -> pa.Array:
    if any(pc.any(pc.and_(child.is_null(), source.is_valid())).as_py() for child in children):
        raise ValueError
    return pa.StructArray.from_arrays(children, fields=list(target), mask=source.is_null())


def _interval(source: pa.Array, micros: pa.Array) -> pa.Array:
    zeros = pa.repeat(pa.scalar(0, pa.int32()), len(source))
    return _struct([zeros, zeros, micros], file_type("INTERVAL"), source)


def _months_days_nanos(part: pa.Array) -> pa.Array:
    layout = np.dtype([("months", "<i4"), ("days", "<i4"), ("nanos", "<i8")])
    parts = np.frombuffer(part.buffers()[1], dtype=layout)[part.offset : part.offset + len(part)]
    valid = part.is_valid().to_numpy(zero_copy_only=False)
    if (parts["nanos"][valid] % 1000).any():
        raise ValueError
    children = [pa.array(parts["months"]), pa.array(parts["days"]), pa.array(parts["nanos"] // 1000)]
    return _struct(children, file_type("INTERVAL"), part)


def _in_zone(naive: pa.Array, zone: str) -> pa.Array:
    """Of two instants that a clock showed the earlier one; an instant that it never showed is refused."""
    return pc.assume_timezone(naive, zone, ambiguous="earliest", nonexistent="raise").cast(file_type(_STAMP))


def _narrow(part: pa.Array, target: pa.DataType) -> pa.Array:
    narrow = part.cast(target)
    if pc.any(pc.and_(pc.is_inf(narrow), pc.is_finite(part))).as_py():
        raise OverflowError
    return narrow


# ---- text


def _of_text(array: pa.Array, kind: str, zone: str, marked: bool) -> Converted:
    """Text as DuckDB reads it as the type, but exactly; bytes are hexadecimal, as the command line writes them."""
    if kind.endswith("[]"):
        return _lists_of_text(array, kind, zone, marked)
    text, bad = _of_arrow(array, "VARCHAR", zone)
    if marked and kind not in ("JSON", "MAP"):
        bare = pc.starts_with(text, MARK)
        if kind == "VARCHAR":
            bad = np.union1d(bad, np.flatnonzero(bare.fill_null(False).to_numpy(zero_copy_only=False)))
        text = pc.if_else(bare, pc.utf8_slice_codeunits(text, 1), text)
    match kind:
        case "VARCHAR":
            return text, bad
        case "JSON":
            return text, np.union1d(bad, _no_json(text))
        case "MAP":
            found = _map(_ask("SELECT TRY_CAST(TRY_CAST(v AS JSON) AS MAP(VARCHAR, VARCHAR)) AS v FROM given", text))
        case "BLOB":
            hexadecimal = "regexp_full_match(v, '([0-9A-Fa-f]{2})*')"
            found = _ask(f"SELECT CASE WHEN {hexadecimal} THEN unhex(v) END AS v FROM given", text)
        case _:
            cast = f"SELECT CASE WHEN {_exact(kind)} THEN TRY_CAST(v AS {kind}) END AS v FROM given"
            found = _ask(f"SELECT {types.lower_sql('v', kind)} AS v FROM ({cast})", text, zone)
    return found.cast(file_type(kind)), np.union1d(bad, _lost(text, found))


def _lists_of_text(array: pa.Array, kind: str, zone: str, marked: bool) -> Converted:
    text, bad, split = array, NONE, array
    if not _is_list(array.type):
        text, bad = _of_arrow(array, "VARCHAR", zone)
        split = _ask("SELECT TRY_CAST(v AS VARCHAR[]) AS v FROM given", text)
    lengths = pc.fill_null(pc.list_value_length(split), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    child, worse = _of_text(split.flatten(), kind[:-2], zone, marked)
    array, more = _lists(child, worse, lengths, split.is_null().to_numpy(zero_copy_only=False))
    return array, np.unique(np.concatenate([bad, more, _lost(text, split)]))


def _exact(kind: str) -> str:
    """SQL: the text ``v`` says no more than a ``kind`` holds. DuckDB's cast would round it or leave a part out."""
    finer = r"NOT regexp_matches(v, '\.\d{6}0*[1-9]')"
    zone = r"([Zz]|UTC|[+-]\d\d(:?\d\d){0,2})\s*$"
    if kind in _INTEGERS or kind == "HUGEINT":
        exact = r"regexp_full_match(v, '\s*[+-]?\d+(\.0*)?\s*')"
    elif kind.startswith("DECIMAL"):
        scale = kind.removesuffix(")").rpartition(",")[2]
        exact = (
            r"regexp_full_match(v, '\s*[+-]?(\d+\.?\d*|\.\d+)\s*')"
            rf" AND length(rtrim(regexp_extract(v, '\.(\d*)', 1), '0')) <= {scale}"
        )
    elif kind in ("FLOAT", "DOUBLE"):
        exact = f"(v ILIKE '%inf%' OR NOT coalesce(isinf(TRY_CAST(v AS {kind})), false))"
    elif kind == "DATE":
        exact = "v NOT LIKE '%:%'"
    elif kind in ("TIMESTAMP", "TIME"):
        exact = rf"{finer} AND NOT regexp_matches(v, ':\d\d(\.\d+)?\s*{zone}')"
    elif kind == "TIMETZ":
        exact = f"{finer} AND regexp_matches(v, '{zone}')"
    else:
        exact = finer if kind in (_STAMP, "INTERVAL") else "true"
    return exact


def _lost(before: pa.Array, after: pa.Array) -> Rows:
    return np.flatnonzero(pc.and_(before.is_valid(), after.is_null()).to_numpy(zero_copy_only=False))


def _no_json(array: pa.Array) -> Rows:
    valid = _ask("SELECT (v IS NULL OR json_valid(v))::INTEGER AS v FROM given", array)
    return np.flatnonzero(valid.to_numpy(zero_copy_only=False) == 0)


def _ask(sql: str, array: pa.Array, zone: str = "UTC") -> pa.Array:
    """A query over one column ``given.v``, by this thread's DuckDB; rows keep their order."""
    connection = default.connection()
    connection.execute("SET TimeZone = $zone", {"zone": zone})
    connection.register("given", pa.table({"v": array}))
    try:
        return _one(connection.sql(sql).to_arrow_table().column(0))
    finally:
        connection.unregister("given")
        connection.execute("SET TimeZone = 'UTC'")
