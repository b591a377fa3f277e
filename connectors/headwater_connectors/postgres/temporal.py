"""Dates and times from the wire, binary and text, to the numbers that files hold.

Files count days and microseconds from 1970, the server's binary form from 2000. ±infinity are DuckDB's
sentinels: the largest number and its negative. What 64 bits of microseconds cannot hold is reported as odd.
Text forms are those of a session with DateStyle ISO, IntervalStyle iso_8601 and TimeZone UTC.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from headwater_connectors.postgres.cells import Bools, Cells, Int64s, array_of

DAYS_2000 = 10_957
MICROS_2000 = DAYS_2000 * 86_400_000_000
DAY_INFINITY = 2**31 - 1
INFINITY = 2**63 - 1
_YEAR_294247 = 9_223_371_244_800_000_000  # the first microsecond, and day, that are refused: a whole year is a rule
_DAY_294247 = _YEAR_294247 // 86_400_000_000

INTERVAL = pa.struct([("months", pa.int32()), ("days", pa.int32()), ("micros", pa.int64())])
TIMETZ = pa.struct([("micros", pa.int64()), ("offset", pa.int32())])

_STAMP = r"^(-?infinity)$|^(\d+)-(\d\d)-(\d\d)(?: (\d\d):(\d\d):(\d\d)(?:\.(\d+))?)?(?:\+00)?( BC)?$"
_TIMETZ = r"^(\d\d):(\d\d):(\d\d)(?:\.(\d+))?([+-])(\d\d)(?::(\d\d))?(?::(\d\d))?$"
_INTERVAL = (
    r"^P(?:(-?\d+)Y)?(?:(-?\d+)M)?(?:(-?\d+)D)?"
    r"(?:T(?:(-?\d+)H)?(?:(-?\d+)M)?(?:(-?)(\d+)(?:\.(\d+))?S)?)?$"
)


def dates_binary(cells: Cells) -> pa.Array:
    days = cells.integers("i4").astype(np.int64)
    shifted = np.where(days == DAY_INFINITY, days, np.where(days == -(2**31), -DAY_INFINITY, days + DAYS_2000))
    return array_of(cells, shifted.astype(np.int32), pa.date32())


def stamps_binary(cells: Cells, kind: pa.DataType) -> tuple[pa.Array, Bools]:
    """Timestamps, and which of them are beyond what files hold (after the year 294246)."""
    micros = cells.integers("i8")
    if len(micros) and micros.min() > -(2**63) and micros.max() < _YEAR_294247 - MICROS_2000:
        return array_of(cells, micros + MICROS_2000, kind), np.zeros(len(cells), np.bool_)
    odd: Bools = (micros >= _YEAR_294247 - MICROS_2000) & (micros != INFINITY)
    if cells.valid is not None:
        odd &= cells.valid
    low = micros == -(2**63)
    infinite = low | (micros == INFINITY)
    shifted = np.where(infinite | odd, 0, micros) + MICROS_2000
    shifted[infinite] = INFINITY
    shifted[low] = -INFINITY
    return array_of(cells.masked(~odd), shifted, kind), odd


def times_binary(cells: Cells) -> pa.Array:
    return array_of(cells, cells.integers("i8"), pa.time64("us"))


def timetz_binary(cells: Cells) -> pa.Array:
    east = -cells.integers("i4", 8)
    return _struct(cells, TIMETZ, cells.integers("i8"), east)


def intervals_binary(cells: Cells) -> tuple[pa.Array, Bools]:
    """Intervals, and which are infinite (PostgreSQL 17 and later)."""
    micros, days, months = cells.integers("i8"), cells.integers("i4", 8), cells.integers("i4", 12)
    odd: Bools = (micros == INFINITY) & (days == DAY_INFINITY) & (months == DAY_INFINITY)
    odd |= (micros == -(2**63)) & (days == -(2**31)) & (months == -(2**31))
    if cells.valid is not None:
        odd &= cells.valid
    return _struct(cells.masked(~odd), INTERVAL, months, days, micros), odd


def dates_text(cells: Cells) -> tuple[pa.Array, Bools]:
    plain = cells.length == 10
    if cells.valid is not None:
        plain |= ~cells.valid
    if bool(plain.all()):
        return pc.cast(cells.bytes(pa.string()), pa.date32()), np.zeros(len(cells), np.bool_)
    days, _, infinity = _calendar(cells)
    days = np.where(infinity != 0, infinity * DAY_INFINITY, days)
    return array_of(cells, days.astype(np.int32), pa.date32()), np.zeros(len(cells), np.bool_)


def stamps_text(cells: Cells, kind: pa.TimestampType) -> tuple[pa.Array, Bools]:
    """As ``stamps_binary``, from text; the usual form is read by Arrow, the rest by pattern."""
    body = cells.shifted(0, 3) if kind.tz else cells
    usual = (cells.byte(4) == ord("-")) & (body.length <= 26) & (body.byte(10) == ord(" "))
    usual &= cells.buffer[cells.start + np.maximum(cells.length - 1, 0)] != ord("C")
    if cells.valid is not None:
        usual |= ~cells.valid
    micros = pc.cast(body.masked(usual).bytes(pa.string()), pa.timestamp("us"))
    none = np.zeros(len(cells), np.bool_)
    if bool(usual.all()):
        return micros.view(pa.int64()).view(kind), none
    values = np.array(pc.fill_null(micros.view(pa.int64()), 0))
    rows = np.flatnonzero(~usual)
    days, of_day, infinity = _calendar(cells.take(rows))
    beyond = (infinity == 0) & (days >= _DAY_294247)
    none[rows] = beyond
    finite = np.where(beyond, 0, days) * 86_400_000_000 + of_day
    values[rows] = np.where(infinity != 0, infinity * INFINITY, finite)
    return array_of(cells.masked(~none), values, kind), none


def times_text(cells: Cells) -> pa.Array:
    seconds = _two(cells, 0) * 3600 + _two(cells, 3) * 60 + _two(cells, 6)
    micros = np.zeros(len(cells), np.int64)
    for place in range(6):
        micros = micros * 10 + np.where(cells.length > 9 + place, cells.byte(9 + place) - 48, 0)
    return array_of(cells, seconds * 1_000_000 + micros, pa.time64("us"))


def timetz_text(cells: Cells) -> pa.Array:
    parts = _groups(cells, _TIMETZ, 8)
    hour, minute, second, east_hour, east_minute, east_second = (_number(parts[i]) for i in (0, 1, 2, 5, 6, 7))
    east = (east_hour * 3600 + east_minute * 60 + east_second) * _sign(parts[4])
    micros = (hour * 3600 + minute * 60 + second) * 1_000_000 + _micros(parts[3])
    return _struct(cells, TIMETZ, micros, east)


def intervals_text(cells: Cells) -> tuple[pa.Array, Bools]:
    odd: Bools = (cells.byte() != ord("P")) & (True if cells.valid is None else cells.valid)
    parts = _groups(cells, _INTERVAL, 8)
    years, months, days, hours, minutes, seconds = (_number(parts[i]) for i in (0, 1, 2, 3, 4, 6))
    fine = (seconds * 1_000_000 + _micros(parts[7])) * _sign(parts[5])
    micros = (hours * 3600 + minutes * 60) * 1_000_000 + fine
    return _struct(cells.masked(~odd), INTERVAL, years * 12 + months, days, micros), odd


def _calendar(cells: Cells) -> tuple[Int64s, Int64s, Int64s]:
    """Days since 1970, microseconds of the day, and -1 / 0 / 1 for infinities, of any ISO text."""
    parts = _groups(cells, _STAMP, 9)
    infinity = np.array(parts[0].replace_strict({"infinity": 1, "-infinity": -1}, default=0, return_dtype=pl.Int64))
    year, month, day, hour, minute, second = (_number(parts[i]) for i in range(1, 7))
    year = np.where(np.array(parts[8].is_not_null()), 1 - year, year)
    of_day = (hour * 3600 + minute * 60 + second) * 1_000_000 + _micros(parts[7])
    return _days(year, np.maximum(month, 1), np.maximum(day, 1)), of_day, infinity


def _days(year: Int64s, month: Int64s, day: Int64s) -> Int64s:
    """Days since 1970-01-01 of a proleptic Gregorian date: years begin in March, so leap days end them."""
    year = year - (month <= 2)
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return year * 365 + year // 4 - year // 100 + year // 400 + of_year - 719_468


def _groups(cells: Cells, pattern: str, count: int) -> list[pl.Series]:
    series = pl.Series(cells.bytes(pa.string()))
    struct = series.str.extract_groups(pattern).struct
    return [struct.field(str(place)) for place in range(1, count + 1)]


def _number(part: pl.Series) -> Int64s:
    return part.cast(pl.Int64).fill_null(0).to_numpy()


def _sign(part: pl.Series) -> Int64s:
    return np.where((part == "-").fill_null(False).to_numpy(), -1, 1)


def _micros(part: pl.Series) -> Int64s:
    return _number(part.str.pad_end(6, "0"))


def _two(cells: Cells, offset: int) -> Int64s:
    high, low = cells.byte(offset).astype(np.int64), cells.byte(offset + 1).astype(np.int64)
    return (high - 48) * 10 + low - 48


def _struct(cells: Cells, kind: pa.StructType, *parts: npt.NDArray[np.int64]) -> pa.Array:
    """A struct array of plain children; their values under a NULL row are not read by anyone."""
    arrays = [pa.array(part.astype(field.type.to_pandas_dtype())) for part, field in zip(parts, kind, strict=True)]
    nulls = cells.nulls()
    return pa.StructArray.from_arrays(arrays, fields=list(kind), mask=None if nulls is None else pa.array(nulls))
