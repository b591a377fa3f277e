"""Dates and times from the wire as PostgreSQL prints them (DateStyle ISO, IntervalStyle iso_8601, TimeZone UTC)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headwater_connectors.postgres.cells import Bools, Cells, Int64s
from headwater_connectors.postgres.spelling import chosen, joined, nulled, numbers, padded
from headwater_connectors.postgres.temporal import DAY_INFINITY, DAYS_2000, INFINITY

_DAY = 86_400_000_000
_NOTHING = pa.scalar("")


def date_texts(cells: Cells) -> pa.Array:
    days = cells.integers("i4").astype(np.int64)
    text = _dated(days, None, "")
    return nulled(_infinite(text, days == DAY_INFINITY, days == -(2**31)), cells)


def stamp_texts(cells: Cells, zone: str = "") -> pa.Array:
    """timestamps; with ``zone`` ``+00`` timestamps with time zone."""
    micros = cells.integers("i8")
    days, of_day = np.divmod(micros, _DAY)
    text = _dated(days, of_day, zone)
    return nulled(_infinite(text, micros == INFINITY, micros == -(2**63)), cells)


def time_texts(cells: Cells) -> pa.Array:
    return nulled(_clock(cells.integers("i8")), cells)


def timetz_texts(cells: Cells) -> pa.Array:
    west = cells.integers("i4", 8).astype(np.int64)
    hours, minutes, seconds = _three(np.abs(west))
    zone = joined(chosen(west > 0, pa.scalar("-"), pa.scalar("+")), padded(hours, 2))
    zone = joined(zone, chosen((minutes != 0) | (seconds != 0), joined(":", padded(minutes, 2)), _NOTHING))
    zone = joined(zone, chosen(seconds != 0, joined(":", padded(seconds, 2)), _NOTHING))
    return nulled(joined(_clock(cells.integers("i8")), zone), cells)


def interval_texts(cells: Cells) -> pa.Array:
    micros = cells.integers("i8")
    days, months = cells.integers("i4", 8).astype(np.int64), cells.integers("i4", 12).astype(np.int64)
    high = (micros == INFINITY) & (days == DAY_INFINITY) & (months == DAY_INFINITY)
    low = (micros == -(2**63)) & (days == -(2**31)) & (months == -(2**31))
    seconds, fine = _toward_zero(micros, 1_000_000)
    minutes, seconds = _toward_zero(seconds, 60)
    hours, minutes = _toward_zero(minutes, 60)
    years, rest = _toward_zero(months, 12)
    sign = chosen((seconds < 0) | (fine < 0), pa.scalar("-"), _NOTHING)
    exact = joined(sign, numbers(np.abs(seconds)), _fraction(np.abs(fine)), "S")
    text = joined(
        "P", _unit(years, "Y"), _unit(rest, "M"), _unit(days, "D"), chosen(micros != 0, pa.scalar("T"), _NOTHING),
        _unit(hours, "H"), _unit(minutes, "M"), chosen((seconds != 0) | (fine != 0), exact, _NOTHING),
    )  # fmt: skip
    text = chosen((micros == 0) & (days == 0) & (months == 0), pa.scalar("PT0S"), text)
    return nulled(_infinite(text, high, low), cells)


def _dated(days: Int64s, of_day: Int64s | None, zone: str) -> pa.Array:
    """Days since 2000 and microseconds of the day."""
    date = (days + DAYS_2000).astype("datetime64[D]")
    month = date.astype("datetime64[M]")
    year = month.astype("datetime64[Y]").astype(np.int64) + 1970
    of_year = month.astype(np.int64) % 12 + 1
    of_month = (date - month).astype(np.int64) + 1
    text = joined(padded(np.where(year > 0, year, 1 - year), 4), padded(of_year, 2), padded(of_month, 2), between="-")
    if of_day is not None:
        text = joined(text, " ", _clock(of_day), zone)
    return text if bool((year > 0).all()) else joined(text, chosen(year > 0, _NOTHING, pa.scalar(" BC")))


def _infinite(text: pa.Array, high: Bools, low: Bools) -> pa.Array:
    if not (high.any() or low.any()):
        return text
    return chosen(high, pa.scalar("infinity"), chosen(low, pa.scalar("-infinity"), text))


def _clock(micros: Int64s) -> pa.Array:
    seconds, fine = np.divmod(micros, 1_000_000)
    hours, minutes, seconds = _three(seconds)
    return joined(joined(padded(hours, 2), padded(minutes, 2), padded(seconds, 2), between=":"), _fraction(fine))


def _fraction(micros: Int64s) -> pa.Array:
    """``.5`` of half a second in microseconds, nothing of a whole one."""
    if not micros.any():
        return pa.array([""]).take(pa.array(np.zeros(len(micros), np.int8)))
    return chosen(micros != 0, joined(".", pc.utf8_rtrim(padded(micros, 6), "0")), _NOTHING)


def _three(seconds: Int64s) -> tuple[Int64s, Int64s, Int64s]:
    return seconds // 3600, seconds // 60 % 60, seconds % 60


def _toward_zero(values: Int64s, by: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Quotient and rest with the sign of the value."""
    rest = np.fmod(values, by)
    return (values - rest) // by, rest


def _unit(values: Int64s, letter: str) -> pa.Array:
    return chosen(values != 0, joined(numbers(values), letter), _NOTHING)
