"""A plot as elements with places: the only code that draws. A page patches them in, a file has them as text.

An element is a tag, attributes and children or a text, as JSON values; equal data gives equal elements.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from zoneinfo import ZoneInfo

from headwater.lake.plot import scale
from headwater.lake.plot.palette import COLOURS, DASHES, MOST
from headwater.lake.plot.points import Point, Points, Series
from headwater.lake.plot.scale import Scale, Tick

Element = list[Any]
"""``[tag, {attribute: value}, [child, ...]]`` or ``[tag, {attribute: value}, text]``."""

WIDTH, HEIGHT = 720, 280
WIDTHS: Final = (240, 3000)
HEIGHTS: Final = (80, 1600)
_FONT: Final = 11
_TOP, _RIGHT, _BOTTOM, _BARE = 26, 14, 38, 10
_LABEL_MAX: Final = 26
_LINE: Final = {"stroke": "currentColor", "stroke-opacity": 0.16, "shape-rendering": "crispEdges"}
_TICKS_EACH: Final = (52, 92)
"""Pixels between two marks of the axes, at least: from bottom to top, from left to right."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """How points are to be drawn. ``hidden``: series that the reader has put away; colours stay with their series."""

    kind: str
    x_label: str = ""
    y_label: str = ""
    unit: str = ""
    time: bool = False
    zone: ZoneInfo | None = None
    log: bool = False
    width: int = WIDTH
    height: int = HEIGHT
    hidden: frozenset[str] = frozenset()
    zero: bool = False
    """Whether the y axis begins at 0 for lines, too."""
    bare: bool = False
    """Without labels along x: those of the plot below it hold for it, too."""
    left: int = 0
    """Room for the labels of the y axis, at least: plots above one another begin at the same place."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Where a reader can point: the middle and the ends of a point in pixels, of which series, and its place there."""

    series: int
    point: int
    x: float
    y: float
    left: float
    right: float


@dataclass(frozen=True, kw_only=True)
class Picture:
    """``frame``: left, top, right and bottom of the plot's inside. ``sideways``: categories run from top to bottom."""

    width: int
    height: int
    elements: tuple[Element, ...]
    marks: tuple[Mark, ...] = ()
    frame: tuple[float, float, float, float] = (0, 0, 0, 0)
    sideways: bool = False
    notes: tuple[str, ...] = field(default=())


def stacked(pictures: Sequence[Picture]) -> Picture:
    """Plots of the same series above one another, as one picture; the n-th one's series are counted on from n * 10."""
    elements: list[Element] = []
    marks: list[Mark] = []
    frames, down = [], 0
    for n, picture in enumerate(pictures):
        moved = [_counted(element, n * MOST) for element in picture.elements]
        elements.append(["g", {"transform": f"translate(0 {down})"}, moved])
        marks += [replace(mark, series=mark.series + n * MOST, y=_r(mark.y + down)) for mark in picture.marks]
        left, top, right, bottom = picture.frame
        frames.append((left, top + down, right, bottom + down))
        down += picture.height
    whole = (max(each[0] for each in frames), frames[0][1], min(each[2] for each in frames), frames[-1][3])
    return Picture(
        width=pictures[0].width,
        height=down,
        elements=tuple(elements),
        marks=tuple(marks),
        frame=whole,
        notes=tuple(note for picture in pictures for note in picture.notes),
    )


def _counted(element: Element, first: int) -> Element:
    tag, attributes, inside = element
    if "data-series" not in attributes:
        return element
    return [tag, {**attributes, "data-series": str(int(attributes["data-series"]) + first)}, inside]


def draw(points: Points, look: Look) -> Picture:
    """Everything placed; a picture of no rows says so."""
    shown = [(n, each) for n, each in enumerate(points.series) if each.name not in look.hidden]
    values = [value for _, each in shown for point in each.points for value in _values(point, log=look.log)]
    if not values:
        return _nothing(points, look)
    if look.kind == "bar" and points.categories:
        return _Bars(points, look, shown).picture()
    return _Plane(points, look, shown, values).picture()


def _nothing(points: Points, look: Look) -> Picture:
    text = (
        "no rows" if not points.rows else "nothing to show: every series is hidden, or has no value that can be placed"
    )
    words = ["text", {"x": look.width / 2, "y": look.height / 2, "text-anchor": "middle", "fill-opacity": 0.7}, text]
    return Picture(width=look.width, height=look.height, elements=(words,), frame=(0, 0, look.width, look.height))


def _values(point: Point, *, log: bool = False) -> Iterator[float]:
    for value in (point.y, point.low, point.high):
        if value is not None and (value > 0 or not log):
            yield value


def _y_scale(look: Look, values: Sequence[float], start: float, end: float, *, zero: bool) -> Scale:
    if look.log:
        return scale.orders(min(values), max(values), start, end)
    count = max(2, round(abs(start - end) / _TICKS_EACH[0]))
    return scale.numbers(min(values), max(values), start, end, count=count, zero=zero)


class _Plane:
    """Numbers or times against numbers: lines, areas, bins and dots."""

    def __init__(
        self, points: Points, look: Look, shown: Sequence[tuple[int, Series]], values: Sequence[float]
    ) -> None:
        self.points, self.look, self.shown = points, look, shown
        stacked = look.kind in ("bar", "histogram")
        self.stacks = _stacked(shown) if stacked else {}
        if stacked:
            values = [end for low, high in self.stacks.values() for end in (low, high) if end > 0 or not look.log]
        zero = look.zero or stacked or look.kind == "area"
        top, bottom = _TOP, look.height - (_BARE if look.bare else _BOTTOM)
        self.y = _y_scale(look, values or [1.0], bottom, top, zero=zero)
        left = max(look.left, 12 + max((text_width(each.label) for each in self.y.ticks), default=0))
        room = 5 if look.kind == "scatter" else 0
        self.frame = (left, top, look.width - _RIGHT, bottom)
        low, high = self._span()
        count = max(2, int((look.width - left - _RIGHT) // _TICKS_EACH[1]))
        ends = (left + room, look.width - _RIGHT - room)
        if look.time:
            self.x = scale.times(low, high, *ends, count=count, zone=look.zone)
        else:
            self.x = scale.exact(low, high, *ends, count=count)

    def _span(self) -> tuple[float, float]:
        if self.look.kind in ("bar", "histogram"):
            every = [point for _, each in self.shown for point in each.points]
            return min(each.x0 for each in every), max(each.x1 for each in every)
        assert self.points.span is not None
        return self.points.span

    def picture(self) -> Picture:
        look = self.look
        drawn = {"line": self._lines, "area": self._lines, "scatter": self._dots}.get(look.kind, self._bins)
        marks: list[Mark] = []
        shapes = drawn(marks)
        axes = [*_left_axis(self.y, self.frame, look), *_bottom_axis(self.x, self.frame, look)]
        return Picture(
            width=look.width,
            height=look.height,
            elements=(*axes, *_band(self._band(), self.frame), *shapes),
            marks=tuple(marks),
            frame=self.frame,
            notes=self._notes(),
        )

    def _notes(self) -> tuple[str, ...]:
        if not self.look.log:
            return ()
        below = sum(point.y is not None and point.y <= 0 for _, each in self.shown for point in each.points)
        return (
            (f"{below:,} {'point' if below == 1 else 'points'} at or below 0 not on a logarithmic scale",)
            if below
            else ()
        )

    def _band(self) -> tuple[float, float] | None:
        low, high = self.points.band
        if low is None and high is None:
            return None
        left, _, right, _ = self.frame
        at = (left if low is None else self.x.place(low), right if high is None else self.x.place(high))
        ends = (min(max(at[0], left), right), min(max(at[1], left), right))
        return ends if ends[0] < ends[1] else (ends[0] - 1, ends[0] + 1)

    def _at(self, point: Point) -> float:
        return self.x.place(point.x0 / 2 + point.x1 / 2)

    def _height(self, value: float) -> float:
        return self.y.place(value)

    def _fits(self, value: float | None) -> bool:
        return value is not None and (value > 0 or not self.look.log)

    def _lines(self, marks: list[Mark]) -> list[Element]:
        found = []
        for n, series in self.shown:
            runs = list(self._runs(series))
            shapes: list[Element] = []
            base = self._height(self.y.low if self.look.log else min(max(0.0, self.y.low), self.y.high))
            ranged = any(point.low != point.high for point in series.points)
            for run in runs:
                places = [(self._at(point), self._height(point.y or 0)) for point in run]
                if self.look.kind == "area":
                    shapes.append(_filled(places, [(places[-1][0], base), (places[0][0], base)], n, 0.22))
                if ranged:
                    shapes.append(self._range(run, n))
                shapes.append(_stroked(places, n))
            found.append(_group(n, shapes))
            for place, point in enumerate(series.points):
                if self._fits(point.y):
                    marks.append(self._mark(n, place, point, self._height(point.y or 0)))
        return found

    def _mark(self, n: int, place: int, point: Point, height: float) -> Mark:
        ends = (_r(self.x.place(point.x0)), _r(self.x.place(point.x1)))
        return Mark(series=n, point=place, x=_r(self._at(point)), y=_r(height), left=ends[0], right=ends[1])

    def _runs(self, series: Series) -> Iterator[list[Point]]:
        """Stretches without a gap."""
        run: list[Point] = []
        for point in series.points:
            if self._fits(point.y):
                run.append(point)
            elif run:
                yield run
                run = []
        if run:
            yield run

    def _range(self, run: Sequence[Point], n: int) -> Element:
        ends = [(self._at(each), each.low or 0.0, each.high or 0.0) for each in run]
        upper = [(x, self._height(high)) for x, _, high in ends]
        return _filled(upper, [(x, self._height(low)) for x, low, _ in reversed(ends)], n, 0.18)

    def _dots(self, marks: list[Mark]) -> list[Element]:
        found = []
        for n, series in self.shown:
            dots: list[Element] = []
            for place, point in enumerate(series.points):
                if not self._fits(point.y):
                    continue
                mark = self._mark(n, place, point, self._height(point.y or 0))
                marks.append(mark)
                dots.append(["circle", {"cx": mark.x, "cy": mark.y, "r": 3}, ""])
            style = {"fill": COLOURS[n], "fill-opacity": 0.55, "stroke": COLOURS[n], "stroke-opacity": 0.9}
            found.append(_group(n, dots, style))
        return found

    def _bins(self, marks: list[Mark]) -> list[Element]:
        found = []
        for n, series in self.shown:
            boxes: list[Element] = []
            for place, point in enumerate(series.points):
                low, high = self.stacks[n, place]
                left, right = self.x.place(point.x0), self.x.place(point.x1)
                gap = 1 if right - left > 4 else 0
                bottom, top = self._height(low), self._height(high)
                if not self._fits(point.y):
                    continue
                boxes.append(_box(left + gap / 2, top, right - left - gap, bottom - top))
                marks.append(self._mark(n, place, point, top))
            found.append(_group(n, boxes, {"fill": COLOURS[n]}))
        return found


class _Bars:
    """Categories against numbers: upright where their names fit below, else sideways with the names in full."""

    def __init__(self, points: Points, look: Look, shown: Sequence[tuple[int, Series]]) -> None:
        self.points, self.look, self.shown = points, look, shown
        self.stacks = _stacked(shown)
        widest = max(text_width(shorten(name)) for name in points.categories)
        count = len(points.categories)
        self.sideways = (look.width - 90) / count < widest + 10
        self.height = max(look.height, _TOP + _BOTTOM + count * 18) if self.sideways else look.height
        values = [end for ends in self.stacks.values() for end in ends if end > 0 or not look.log] or [1.0]
        if self.sideways:
            left = 12 + widest
            self.frame = (left, _TOP - 8, look.width - _RIGHT - 14, self.height - _BOTTOM)
            ends = (self.frame[0], self.frame[2])
        else:
            self.frame = (0, _TOP, look.width - _RIGHT, self.height - _BOTTOM)
            ends = (self.frame[3], self.frame[1])
        self.value = self._scale(values, *ends)
        if not self.sideways:
            left = 12 + max((text_width(each.label) for each in self.value.ticks), default=0)
            self.frame = (left, *self.frame[1:])
        first, last = (self.frame[1], self.frame[3]) if self.sideways else (self.frame[0], self.frame[2])
        self.step = (last - first) / count
        self.first = first

    def _scale(self, values: Sequence[float], start: float, end: float) -> Scale:
        if self.look.log:
            return scale.orders(min(values), max(values), start, end)
        each = _TICKS_EACH[1] if self.sideways else _TICKS_EACH[0]
        return scale.numbers(
            min(values), max(values), start, end, count=max(2, round(abs(start - end) / each)), zero=True
        )

    def picture(self) -> Picture:
        marks: list[Mark] = []
        shapes = [self._series(n, series, marks) for n, series in self.shown]
        names = [Tick(self.first + (n + 0.5) * self.step, name) for n, name in enumerate(self.points.categories)]
        axes = _sideways_axes(self.value, names, self.frame, self.look) if self.sideways else [
            *_left_axis(self.value, self.frame, self.look),
            _plain([*(_name_below(each, self.frame) for each in names), _x_label(self.look, self.frame)]),
        ]  # fmt: skip
        return Picture(
            width=self.look.width,
            height=self.height,
            elements=(*axes, *shapes, _zero(self.value, self.frame, upright=not self.sideways)),
            marks=tuple(marks),
            frame=self.frame,
            sideways=self.sideways,
        )

    def _series(self, n: int, series: Series, marks: list[Mark]) -> Element:
        boxes: list[Element] = []
        thick = min(self.step * 0.8, 64)
        for place, point in enumerate(series.points):
            if point.y is None or (self.look.log and point.y <= 0):
                continue
            low, high = (self.value.place(end) for end in self.stacks[n, place])
            middle = self.first + (point.x0 + 0.5) * self.step
            edges = {"left": _r(middle - self.step / 2), "right": _r(middle + self.step / 2)}
            if self.sideways:
                boxes.append(_box(min(low, high), middle - thick / 2, abs(high - low), thick))
                marks.append(Mark(series=n, point=place, x=_r(high), y=_r(middle), **edges))
            else:
                boxes.append(_box(middle - thick / 2, min(low, high), thick, abs(high - low)))
                marks.append(Mark(series=n, point=place, x=_r(middle), y=_r(high), **edges))
        return _group(n, boxes, {"fill": COLOURS[n]})


def _stacked(shown: Sequence[tuple[int, Series]]) -> dict[tuple[int, int], tuple[float, float]]:
    """Where each bar begins and ends: on those before it at its place, what is below zero downwards."""
    ends: dict[tuple[float, bool], float] = {}
    found = {}
    for n, series in shown:
        for place, point in enumerate(series.points):
            value = point.y or 0.0
            side = (point.x0, value < 0)
            low = ends.get(side, 0.0)
            ends[side] = low + value
            found[n, place] = (low, low + value)
    return found


# ---- axes


def _left_axis(y: Scale, frame: tuple[float, float, float, float], look: Look) -> list[Element]:
    left, top, right, _ = frame
    lines = [["path", {"d": f"M{left} {_r(y.place(each.at))}H{right}", **_LINE}, ""] for each in y.ticks]
    labels = [_words(left - 7, y.place(each.at) + 4, each.label, "end") for each in y.ticks]
    unit = f" ({look.unit})" if look.unit else ""
    title = [_words(2, top - 13, f"↑ {shorten(look.y_label, 60)}{unit}", "start", strong=True)] if look.y_label else []
    return [_plain(lines), _plain([*labels, *title]), _zero(y, frame, upright=True)]


def _zero(y: Scale, frame: tuple[float, float, float, float], *, upright: bool) -> Element:
    """A firm line where values begin, if that is within."""
    left, top, right, bottom = frame
    within = not y.log and y.low <= 0 <= y.high
    at = _r(y.place(0.0)) if within else bottom
    shape = f"M{left} {at}H{right}" if upright else f"M{at if within else left} {top}V{bottom}"
    return ["path", {**_LINE, "d": shape, "stroke-opacity": 0.55, "fill": "none"}, ""]


def _bottom_axis(x: Scale, frame: tuple[float, float, float, float], look: Look) -> list[Element]:
    _, _, right, bottom = frame
    found: list[Element] = []
    free, context_free = float("-inf"), float("-inf")
    for tick in x.ticks:
        at, half = x.place(tick.at), text_width(tick.label) / 2
        found.append(["path", {"d": f"M{_r(at)} {bottom}v5", **_LINE, "stroke-opacity": 0.55}, ""])
        if look.bare:
            continue
        if at - half >= free and at + half <= right + _RIGHT:
            found.append(_words(at, bottom + 17, tick.label, "middle"))
            free = at + half + 6
        start = max(at - half, 0)
        if tick.context and start >= context_free and start + text_width(tick.context) <= right + _RIGHT:
            found.append(_words(start, bottom + 31, tick.context, "start", dim=True))
            context_free = start + text_width(tick.context) + 10
    return [_plain(found if look.bare else [*found, _x_label(look, frame, context_free)])]


def _x_label(look: Look, frame: tuple[float, float, float, float], free: float = 0.0) -> Element:
    """What x is, and of a time its zone, at the right below."""
    zone = f" ({look.zone.key})" if look.time and look.zone else ""
    text = f"{shorten(look.x_label, 40)}{zone} →" if look.x_label else ""
    if frame[2] - text_width(text) < free:
        text = ""
    return _words(frame[2] + 4, frame[3] + 31, text, "end", strong=True)


def _name_below(tick: Tick, frame: tuple[float, float, float, float]) -> Element:
    return _words(tick.at, frame[3] + 17, shorten(tick.label), "middle", title=tick.label)


def _sideways_axes(
    value: Scale, names: Sequence[Tick], frame: tuple[float, float, float, float], look: Look
) -> list[Element]:
    left, top, _, bottom = frame
    lines = [["path", {"d": f"M{_r(value.place(each.at))} {top}V{bottom}", **_LINE}, ""] for each in value.ticks]
    labels = [_words(value.place(each.at), bottom + 15, each.label, "middle") for each in value.ticks]
    beside = [_words(left - 7, each.at + 4, shorten(each.label), "end", title=each.label) for each in names]
    unit = f" ({look.unit})" if look.unit else ""
    titles = [
        _words(2, 11, f"↓ {shorten(look.x_label, 40)}", "start", strong=True),
        _words(frame[2] + 4, bottom + 31, f"{shorten(look.y_label, 60)}{unit} →", "end", strong=True),
    ]
    return [_plain(lines), _plain([*labels, *beside, *titles])]


def _band(ends: tuple[float, float] | None, frame: tuple[float, float, float, float]) -> list[Element]:
    """What is chosen; always there, so that the page finds it."""
    _, top, _, bottom = frame
    left, right = ends or (0.0, 0.0)
    shape = {"x": _r(left), "y": top, "width": _r(max(0.0, right - left)), "height": bottom - top}
    return [["rect", {"class": "hw-chosen", "fill": "#808080", "fill-opacity": 0.22, **shape}, ""]]


# ---- shapes


def _group(n: int, children: list[Element], style: Mapping[str, Any] | None = None) -> Element:
    return ["g", {"class": "hw-series", "data-series": str(n), **(style or {})}, children]


def _plain(children: list[Element]) -> Element:
    return ["g", {"class": "hw-axis"}, children]


def _stroked(places: Sequence[tuple[float, float]], n: int) -> Element:
    if len(places) == 1:
        return ["circle", {"cx": _r(places[0][0]), "cy": _r(places[0][1]), "r": 2.5, "fill": COLOURS[n]}, ""]
    line = {"d": _path(places), "fill": "none", "stroke": COLOURS[n], "stroke-width": 1.75, "stroke-linejoin": "round"}
    return ["path", line | ({"stroke-dasharray": DASHES[n]} if DASHES[n] else {}), ""]


def _filled(
    there: Sequence[tuple[float, float]], back: Sequence[tuple[float, float]], n: int, opacity: float
) -> Element:
    return ["path", {"d": _path([*there, *back]) + "Z", "fill": COLOURS[n], "fill-opacity": opacity}, ""]


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{_r(x)} {_r(y)}" for x, y in places)


def _box(x: float, y: float, width: float, height: float) -> Element:
    return ["rect", {"x": _r(x), "y": _r(y), "width": _r(max(width, 0.5)), "height": _r(max(height, 0))}, ""]


def _words(
    x: float, y: float, text: str, anchor: str, *, strong: bool = False, dim: bool = False, title: str = ""
) -> Element:
    look: dict[str, Any] = {"x": _r(x), "y": _r(y), "text-anchor": anchor}
    look |= {"font-weight": 600} if strong else {}
    look |= {"fill-opacity": 0.75} if dim else {}
    return ["text", look, [["title", {}, title], ["tspan", {}, text]] if title and title != text else text]


def _r(value: float) -> float:
    """A tenth of a pixel is enough, and short."""
    rounded = round(value, 1)
    return int(rounded) if rounded == int(rounded) else rounded


def text_width(text: str) -> float:
    """About the pixels that a label takes; wide characters are twice as wide."""
    return sum(_FONT if unicodedata.east_asian_width(each) in "WF" else _FONT * 0.58 for each in text)


def shorten(text: str, most: int = _LABEL_MAX) -> str:
    """A long name with its middle left out; line ends are no part of a label."""
    line = " ".join(text.split())
    if len(line) <= most:
        return line
    return f"{line[: most * 2 // 3]}…{line[-(most - most * 2 // 3 - 1) :]}"
