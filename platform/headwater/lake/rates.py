"""Rates and lags of a lake over the last minutes: plots and figures, as text, as a picture, as a live panel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from html import escape
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from headwater import position as positions
from headwater.lake.flow import EPOCH, RECORDS_MAX, SECOND, Bucket, Flow, Rate, Span
from headwater.lake.html import render
from headwater.lake.plain import plain_table
from headwater.lake.plot.drawing import draw
from headwater.lake.plot.encoding import stretch
from headwater.lake.plot.palette import MOST
from headwater.lake.plot.picture import Look, Picture, stacked
from headwater.lake.plot.points import Point, Points, Series
from headwater.lake.plot.svg import legend, svg

if TYPE_CHECKING:
    from headwater.lake.lake import Lake

WINDOWS: Final = ("1m", "5m", "1h")
HEADS: Final = ("name", "rows", "rows/s", "bytes/s", "lag p50", "lag p95", "lag p99")
_TYPES: Final = ("VARCHAR", "BIGINT", *["DOUBLE"] * 5)
_PLOTS: Final = (("rows", 150), ("bytes", 100), ("lag", 170))
_UNITS: Final = {
    "rows": ((1.0, "rows/s"),),
    "bytes": ((1.0, "B/s"), (1024.0, "KiB/s"), (1024.0**2, "MiB/s"), (1024.0**3, "GiB/s")),
    "lag": ((1.0, "lag p95, ms"), (1e3, "lag p95, s"), (60e3, "lag p95, min")),
}


class Rates:
    """Rates and lags over the last ``window``; in a notebook a live panel."""

    def __init__(self, lake: Lake, window: str = "5m", *, interval: float = 1.0) -> None:
        stretch(window)
        self.lake = lake
        self.flow = Flow(lake)
        self.window = window
        self.interval = interval
        self._panel: Any = None

    def measure(self, window: str | None = None, at: positions.Position = None) -> list[Rate]:
        """Every topic and view that had records in the window that ends now, or at a position; the busiest first."""
        return self.flow.measured(self.span(window, at))

    def span(self, window: str | None = None, at: positions.Position = None) -> Span:
        """The stretch of time that is measured."""
        return self.flow.span(window or self.window, at)

    def picture(
        self,
        rates: Sequence[Rate],
        span: Span,
        *,
        width: int = Look.width,
        log: bool = False,
        hidden: Iterable[str] = (),
    ) -> tuple[Picture, list[Points]]:
        """Three plots above one another with one time axis: rows, bytes, lag; those that ``drawn`` chooses."""
        zone = ZoneInfo(self.lake.log.timezone)
        plots = []
        looks = []
        for what, height in _PLOTS:
            each, label = _points(drawn(rates), what, span, zone)
            plots.append(each)
            looks.append(
                Look(
                    kind="line", y_label=label, time=True, zone=zone, log=log, width=width, height=height, zero=True,
                    x_label="committed" if what == "lag" else "", hidden=frozenset(hidden), left=56, bare=what != "lag",
                )
            )  # fmt: skip
        return stacked([draw(points, look) for points, look in zip(plots, looks, strict=True)]), plots

    def notes(self, rates: Sequence[Rate]) -> list[str]:
        """What is not in the plots, or not whole."""
        found = [f"{MOST} of {len(rates):,} are drawn: views, then the busiest topics"] if len(rates) > MOST else []
        cut = [short(rate.name) for rate in rates if not rate.whole]
        return [*found, *(f"of {name} only the newest records, about {RECORDS_MAX:,}" for name in cut)]

    def svg(self, *, at: positions.Position = None, window: str | None = None) -> str:
        """The plots as a string, for a file or a mail."""
        span = self.span(window, at)
        rates = self.flow.measured(span)
        return svg(self.picture(rates, span)[0], self.label(rates, window))

    def label(self, rates: Sequence[Rate], window: str | None = None) -> str:
        """What the plots show, in a sentence."""
        total = sum(each.rows_per_s for each in rates if each.kind != "changelog")
        return f"rates over {window or self.window}: {len(rates)} topics and views, {total:,.1f} rows/s into topics"

    def static_html(self, at: positions.Position = None) -> str:
        """Plots, legend and figures: readable where no script runs."""
        span = self.span(at=at)
        rates = self.flow.measured(span)
        picture, _ = self.picture(rates, span)
        rows = [texts(rate) for rate in rates]
        table = render(HEADS, _TYPES, rows, len(rows), len(rows), span.upto)
        notes = "".join(f"<div>{escape(note)}</div>" for note in self.notes(rates))
        key = legend([short(rate.name) for rate in drawn(rates)], dashed=True)
        return f'<div style="overflow-x: auto">{svg(picture, self.label(rates))}{key}{notes}</div>{table}'

    def __str__(self) -> str:
        span = self.span()
        rows = [texts(rate) for rate in self.flow.measured(span)]
        return plain_table(HEADS, _TYPES, rows, len(rows), span.upto)

    def __repr__(self) -> str:
        return str(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        """The live panel where the notebook package is present, else plots and figures as they are now."""
        for panel in entry_points(group="headwater.panel", name="rates"):
            self._panel = self._panel or panel.load()(self)
            return self._panel._repr_mimebundle_(include=include, exclude=exclude)
        return {"text/plain": str(self), "text/html": self.static_html()}


def _points(rates: Sequence[Rate], what: str, span: Span, zone: ZoneInfo) -> tuple[Points, str]:
    """One plot of all rates in the unit that reads best, and the name of what it shows."""
    values = [value for rate in rates for each in rate.buckets if (value := _value(each, what, span)) is not None]
    units = _UNITS[what]
    unit, label = next((each for each in reversed(units) if max(values, default=0) >= 2 * each[0]), units[0])
    series = tuple(
        Series(short(rate.name), tuple(_point(each, what, span, unit, zone) for each in rate.buckets), rate.rows)
        for rate in rates
    )
    ends = (span.start + span.step / 2, span.end - span.step / 2)
    return Points(series=series, span=ends, rows=sum(rate.rows for rate in rates)), label


def _value(bucket: Bucket, what: str, span: Span) -> float | None:
    return {"rows": bucket.rows * SECOND / span.step, "bytes": bucket.bytes, "lag": bucket.lag_ms}[what]


def _point(bucket: Bucket, what: str, span: Span, unit: float, zone: ZoneInfo) -> Point:
    value = _value(bucket, what, span)
    texts_of = {"rows": lambda each: f"{count_text(each)} rows/s", "bytes": lambda each: f"{bytes_text(each)}/s"}
    text = None if value is None else texts_of.get(what, lag_text)(value)
    shown = None if value is None else value / unit
    begins = (EPOCH + timedelta(microseconds=bucket.start)).astimezone(zone)
    when = f"{begins:%Y-%m-%d %H:%M:%S}, {span.step / SECOND:g} s"
    return Point(bucket.start, bucket.start + span.step, shown, shown, shown, when, when, text, text, bucket.rows)


def drawn(rates: Sequence[Rate]) -> list[Rate]:
    """Ten at most, in their order: up to five views, for how late those are is what people ask, and what is busiest."""
    views = [rate for rate in rates if rate.kind == "changelog"][: MOST // 2]
    rest = [rate for rate in rates if rate not in views][: MOST - len(views)]
    return [rate for rate in rates if rate in views or rate in rest]


def short(name: str) -> str:
    """A name as it is told from others: without its source's."""
    return name if name.count(".") < 2 else name.split(".", 1)[1]


def texts(rate: Rate) -> tuple[str | None, ...]:
    """A rate as a row of text."""
    lags = rate.lag_ms or (None, None, None)
    shown = tuple(None if each is None else lag_text(each) for each in lags)
    return (rate.name, f"{rate.rows:,}", count_text(rate.rows_per_s), bytes_text(rate.bytes_per_s), *shown)


def count_text(value: float) -> str:
    if 0 < value < 0.1:
        return f"{value:.1g}"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.1f}"


def bytes_text(value: float) -> str:
    """In units of 1024 that people read: B, KiB, MiB, GiB."""
    for unit in ("B", "KiB", "MiB"):
        if value < 1000:
            return f"{value:,.0f} {unit}" if unit == "B" or value >= 100 else f"{value:,.1f} {unit}"
        value /= 1024
    return f"{value:,.1f} GiB"


def lag_text(milliseconds: float) -> str:
    """Milliseconds, from ten seconds on seconds, from ten minutes on minutes."""
    if abs(milliseconds) < 10_000:
        return f"{milliseconds:,.0f} ms"
    seconds = milliseconds / 1e3
    return f"{seconds:,.1f} s" if seconds < 600 else f"{seconds / 60:,.1f} min"
