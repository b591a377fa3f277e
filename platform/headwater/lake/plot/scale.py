"""Scales: where a value stands between two pixels, and at which values a reader wants a mark.

Numbers get steps of 1, 2 or 5 times a power of ten, times the steps of a clock and a calendar in their own zone.
Positions are doubles (times: microseconds since 1970); exact values travel beside them, as text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

SECOND: Final = 1_000_000
_MINUTE, _HOUR, _DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND
_CLOCK: Final = (
    *(each * 1000 for each in (1, 2, 5, 10, 20, 50, 100, 200, 500)),
    *(each * SECOND for each in (1, 2, 5, 10, 15, 30)),
    *(each * _MINUTE for each in (1, 2, 5, 10, 15, 30)),
    *(each * _HOUR for each in (1, 2, 3, 6, 12)),
    *(each * _DAY for each in (1, 2, 7)),
)
_MONTHS: Final = (1, 3, 6, 12, 24, 60, 120, 240, 600, 1200, 6000)
_MONTH: Final = 30.44 * _DAY
_FIRST, _LAST = -62_135_596_800 * SECOND, 253_402_214_400 * SECOND  # what datetime can say, less a day for zones
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LARGE: Final = 1e300
"""Beyond this, a whole number of steps may be more than a double holds."""
_MOST: Final = 1.7e308
_SUFFIXES: Final = ((1e12, "T"), (1e9, "G"), (1e6, "M"))


@dataclass(frozen=True)
class Tick:
    """A mark at ``at`` (in the scale's values) with its label; ``context``: what a reader needs once, as the date."""

    at: float
    label: str
    context: str = ""


@dataclass(frozen=True)
class Scale:
    """From values in ``low``..``high`` to pixels ``start``..``end``. ``log``: by orders of magnitude, positive only."""

    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[Tick] = ()
    log: bool = False

    def place(self, value: float) -> float:
        if self.log:
            share = math.log10(max(value, self.low) / self.low) / math.log10(self.high / self.low)
        else:  # halves: the distance of two finite doubles may be none
            share = (value / 2 - self.low / 2) / (self.high / 2 - self.low / 2)
        return self.start + share * (self.end - self.start)


def numbers(low: float, high: float, start: float, end: float, *, count: int, zero: bool = False) -> Scale:
    """A linear scale that begins and ends at a mark; about ``count`` marks. ``zero``: includes 0."""
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if max(abs(low), abs(high)) > _LARGE:
        return exact(low, high, start, end, count=count)
    if not low < high:
        room = abs(low) * 0.1 or 1.0
        low, high = (low - room, high + room) if not zero else (0.0, 1.0)
    step = nice(_distance(low, high, count))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(Tick(at, label) for at, label in _labelled([each * step for each in range(first, last + 1)], step))
    return Scale(ticks[0].at, ticks[-1].at, start, end, ticks)


def exact(low: float, high: float, start: float, end: float, *, count: int) -> Scale:
    """A linear scale of exactly these values, marks inside: for what runs from left to right."""
    if not low < high:
        room = abs(low) * 0.1 or 1.0
        low, high = max(low - room, -_MOST), min(high + room, _MOST)
    step = nice(_distance(low, high, count))
    inside = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ticks = tuple(Tick(at, label) for at, label in _labelled([each * step for each in inside], step))
    return Scale(low, high, start, end, ticks)


def orders(low: float, high: float, start: float, end: float) -> Scale:
    """A logarithmic scale of positive values between whole powers of ten."""
    first = max(-307, min(307, math.floor(math.log10(low) + 1e-9)))
    last = min(308, max(first + 1, math.ceil(math.log10(high) - 1e-9)))
    parts = (1, 2, 5) if last - first <= 2 else (1,)
    every = max(1, math.ceil((last - first) / 8))
    ends = [part * 10.0**power for power in range(first, last, every) for part in parts] + [10.0**last]
    return Scale(10.0**first, 10.0**last, start, end, tuple(Tick(at, number(at)) for at in ends), log=True)


def times(low: float, high: float, start: float, end: float, *, count: int, zone: ZoneInfo | None) -> Scale:
    """A scale of moments with marks at whole steps of the clock or calendar of ``zone`` (None: times without one)."""
    if not low < high:
        low, high = low - _MINUTE / 2, high + _MINUTE / 2
    if low < _FIRST or high > _LAST:
        return Scale(low, high, start, end)
    raw = (high - low) / max(count, 1)
    step = next((each for each in _CLOCK if each >= raw), None)
    if step is None:
        months = next((each for each in _MONTHS if each * _MONTH >= raw), _MONTHS[-1])
        moments, step = _calendar(low, high, months, zone), int(months * _MONTH)
    else:
        moments = _clock(low, high, step, zone)
    return Scale(low, high, start, end, tuple(_time_ticks(moments, step)))


def nice(raw: float) -> float:
    """The next of 1, 2 and 5 times a power of ten that is not less."""
    if raw <= 0 or not math.isfinite(raw):
        return 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    return next(part * power for part in (1.0, 2.0, 5.0, 10.0) if part * power >= raw * (1 - 1e-9))


def number(value: float) -> str:
    """A number as a label: thousands separated, large ones in M, G and T, what is larger or tiny by its exponent."""
    size = abs(value)
    if size and (size >= 1e15 or size < 1e-4):
        return f"{value:.3g}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")
    for unit, suffix in _SUFFIXES:
        if size >= unit * (10 if suffix == "M" else 1):
            return f"{value / unit:,.6g}{suffix}"
    return f"{value:,.10g}"


def _distance(low: float, high: float, count: int) -> float:
    return high / max(count, 1) - low / max(count, 1)


def _labelled(values: Sequence[float], step: float) -> list[tuple[float, str]]:
    """Marks with labels; what rounding left beside zero is zero."""
    found = [0.0 if abs(each) < step / 2 else each for each in values]
    largest = max(map(abs, found), default=0.0)
    if step >= 1e-4 and largest < 1e7:
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        return [(each, f"{each:,.{digits}f}") for each in found]
    return [(each, number(float(f"{each:.12g}"))) for each in found]


def _moment(micros: float, zone: ZoneInfo | None) -> datetime:
    """On the clock of the zone, without it."""
    return (_EPOCH + timedelta(microseconds=int(micros))).astimezone(zone or UTC).replace(tzinfo=None)


def _micros(moment: datetime, zone: ZoneInfo | None) -> float:
    return (moment.replace(tzinfo=zone or UTC) - _EPOCH) / timedelta(microseconds=1)


def _clock(low: float, high: float, step: int, zone: ZoneInfo | None) -> list[tuple[float, datetime]]:
    begin = _moment(low, zone)
    midnight = begin.replace(hour=0, minute=0, second=0, microsecond=0)
    if step == 7 * _DAY:
        midnight -= timedelta(days=midnight.weekday())
    past = int((begin - midnight) / timedelta(microseconds=1)) // step
    return _within(low, high, zone, lambda n: midnight + timedelta(microseconds=(past + n) * step))


def _calendar(low: float, high: float, months: int, zone: ZoneInfo | None) -> list[tuple[float, datetime]]:
    begin = _moment(low, zone)
    place = (begin.year * 12 + begin.month - 1) // months * months

    def at(n: int) -> datetime:
        year, month = divmod(place + n * months, 12)
        return datetime(min(max(year, 1), 9999), month + 1, 1)  # noqa: DTZ001 -- on the zone's clock, said beside it

    return _within(low, high, zone, at)


def _within(
    low: float, high: float, zone: ZoneInfo | None, at: Callable[[int], datetime]
) -> list[tuple[float, datetime]]:
    """Moments in the range, oldest first; an hour that a clock leaves out or shows twice stands once."""
    found: list[tuple[float, datetime]] = []
    for n in range(200):
        moment = at(n)
        micros = _micros(moment, zone)
        if micros > high or moment.year >= 9999:
            break
        if micros >= low and (not found or micros > found[-1][0]):
            found.append((micros, moment))
    return found


def _time_ticks(moments: Sequence[tuple[float, datetime]], step: int) -> list[Tick]:
    """Labels as short as the step allows; the date, or the year, where it is new."""
    ticks, before = [], ""
    for micros, moment in moments:
        if step < _DAY:
            seconds = f"%H:%M:%S.{moment.microsecond // 1000:03}" if step < SECOND else "%H:%M:%S"
            label, context = moment.strftime("%H:%M" if step >= _MINUTE else seconds), _date(moment)
        elif step < _MONTH * 0.9:
            label, context = f"{moment:%b} {moment.day}", str(moment.year)
        elif step < _MONTH * 11:
            label, context = f"{moment:%b}", str(moment.year)
        else:
            label, context = str(moment.year), ""
        ticks.append(Tick(micros, label, context if context != before else ""))
        before = context
    return ticks


def _date(moment: datetime) -> str:
    return f"{moment:%b} {moment.day}, {moment.year}"
