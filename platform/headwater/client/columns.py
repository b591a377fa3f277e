"""What the ways into a column share, and the way of Arrow columns into the types that files hold.

A conversion is one Arrow call for the whole column. Only when that call refuses are halves tried, down to the rows
that do not fit: NULL stands there, and their numbers are told.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headwater import default, types

Rows = npt.NDArray[np.int64]
NONE: Rows = np.empty(0, dtype=np.int64)
REFUSED = (pa.ArrowException, OverflowError, UnicodeError, ValueError, TypeError)
STAMP = "TIMESTAMP WITH TIME ZONE"
Converted = tuple[pa.Array, Rows]
"""A column of the file type, and the rows that do not fit."""


def file_type(kind: str) -> pa.DataType:
    """The Arrow type of a column; MAP is that of the headers."""
    return pa.map_(pa.string(), pa.string()) if kind == "MAP" else types.arrow_type(kind)


def as_one(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, column.type)


def salvage(rows: int, kind: str, attempt: Callable[[int, int], pa.Array]) -> Converted:
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


def lists(child: pa.Array, bad: Rows, lengths: npt.NDArray[np.int64], null: npt.NDArray[np.bool_]) -> Converted:
    ends = np.concatenate([[0], np.cumsum(lengths)])
    array = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), child, mask=pa.array(null) if null.any() else None)
    return array, np.unique(np.searchsorted(ends, bad, side="right") - 1) if len(bad) else NONE


def of_arrow(array: pa.Array, kind: str, zone: str) -> Converted:
    source, target = array.type, file_type(kind)
    if pa.types.is_null(source):
        return pa.nulls(len(array), target), NONE
    if pa.types.is_dictionary(source):
        return of_arrow(array.cast(source.value_type), kind, zone)
    if pa.types.is_run_end_encoded(source):
        return of_arrow(pc.run_end_decode(array), kind, zone)
    if is_list(source) and kind.endswith("[]"):
        plain = array.cast(pa.list_(source.value_type))
        lengths = pc.fill_null(pc.list_value_length(plain), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        child, bad = of_arrow(plain.flatten(), kind[:-2], zone)
        return lists(child, bad, lengths, plain.is_null().to_numpy(zero_copy_only=False))
    change = _change(source, kind, zone)
    if change is None:
        return pa.nulls(len(array), target), np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))
    result, bad = salvage(len(array), kind, lambda start, stop: change(array.slice(start, stop - start)))
    return result, np.concatenate([bad, no_json(result)]) if kind == "JSON" else bad


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
        return as_map if is_.is_map(source) or is_list(source) else None
    if kind in ("INTERVAL", "TIMETZ"):
        return _structs(source, target)
    if kind == STAMP and is_.is_timestamp(source) and source.tz is None:
        return lambda part: in_zone(part.cast(pa.timestamp("us")), zone)
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


def is_list(source: pa.DataType) -> bool:
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
    found = ask("SELECT TRY_CAST(v AS UUID) AS v FROM given", _utf8(part.cast(pa.string())))
    if found.null_count > part.null_count:
        raise ValueError
    return _uuid(found)


def as_map(part: pa.Array) -> pa.Array:
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


def in_zone(naive: pa.Array, zone: str) -> pa.Array:
    """Of two instants that a clock showed the earlier one; an instant that it never showed is refused."""
    return pc.assume_timezone(naive, zone, ambiguous="earliest", nonexistent="raise").cast(file_type(STAMP))


def _narrow(part: pa.Array, target: pa.DataType) -> pa.Array:
    narrow = part.cast(target)
    if pc.any(pc.and_(pc.is_inf(narrow), pc.is_finite(part))).as_py():
        raise OverflowError
    return narrow


def lost(before: pa.Array, after: pa.Array) -> Rows:
    return np.flatnonzero(pc.and_(before.is_valid(), after.is_null()).to_numpy(zero_copy_only=False))


def no_json(array: pa.Array) -> Rows:
    valid = ask("SELECT (v IS NULL OR json_valid(v))::INTEGER AS v FROM given", array)
    return np.flatnonzero(valid.to_numpy(zero_copy_only=False) == 0)


def ask(sql: str, array: pa.Array, zone: str = "UTC") -> pa.Array:
    """A query over one column ``given.v``, by this thread's DuckDB; rows keep their order."""
    connection = default.connection()
    connection.execute("SET TimeZone = $zone", {"zone": zone})
    connection.register("given", pa.table({"v": array}))
    try:
        return as_one(connection.sql(sql).to_arrow_table().column(0))
    finally:
        connection.unregister("given")
        connection.execute("SET TimeZone = 'UTC'")
