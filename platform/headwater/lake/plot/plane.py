"""Numbers or times against numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headwater.lake.plot import scale
from headwater.lake.plot.axes import band, bottom_axis, left_axis, value_scale
from headwater.lake.plot.bars import stacks_of
from headwater.lake.plot.palette import COLOURS
from headwater.lake.plot.picture import BARE, BOTTOM, RIGHT, TICKS_EACH, TOP, Look, Mark, Picture
from headwater.lake.plot.points import Point, Points, Series
from headwater.lake.plot.shapes import Element, box, filled, group, px, stroked, text_width


class Plane:
    """Lines, areas, bins and dots."""

    def __init__(
        self, points: Points, look: Look, shown: Sequence[tuple[int, Series]], values: Sequence[float]
    ) -> None:
        self.points, self.look, self.shown = points, look, shown
        stacked = look.kind in ("bar", "histogram")
        self.stacks = stacks_of(shown) if stacked else {}
        if stacked:
            values = [end for low, high in self.stacks.values() for end in (low, high) if end > 0 or not look.log]
        zero = look.zero or stacked or look.kind == "area"
        top, bottom = TOP, look.height - (BARE if look.bare else BOTTOM)
        self.y = value_scale(look, values or [1.0], bottom, top, zero=zero)
        left = max(look.left, 12 + max((text_width(each.label) for each in self.y.ticks), default=0))
        room = 5 if look.kind == "scatter" else 0
        self.frame = (left, top, look.width - RIGHT, bottom)
        low, high = self._span()
        count = max(2, int((look.width - left - RIGHT) // TICKS_EACH[1]))
        ends = (left + room, look.width - RIGHT - room)
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
        axes = [*left_axis(self.y, self.frame, look), *bottom_axis(self.x, self.frame, look)]
        return Picture(
            width=look.width,
            height=look.height,
            elements=(*axes, *band(self._chosen(), self.frame), *shapes),
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

    def _chosen(self) -> tuple[float, float] | None:
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
                    shapes.append(filled(places, [(places[-1][0], base), (places[0][0], base)], n, 0.22))
                if ranged:
                    shapes.append(self._range(run, n))
                shapes.append(stroked(places, n))
            found.append(group(n, shapes))
            for place, point in enumerate(series.points):
                if self._fits(point.y):
                    marks.append(self._mark(n, place, point, self._height(point.y or 0)))
        return found

    def _mark(self, n: int, place: int, point: Point, height: float) -> Mark:
        ends = (px(self.x.place(point.x0)), px(self.x.place(point.x1)))
        return Mark(series=n, point=place, x=px(self._at(point)), y=px(height), left=ends[0], right=ends[1])

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
        return filled(upper, [(x, self._height(low)) for x, low, _ in reversed(ends)], n, 0.18)

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
            found.append(group(n, dots, style))
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
                boxes.append(box(left + gap / 2, top, right - left - gap, bottom - top))
                marks.append(self._mark(n, place, point, top))
            found.append(group(n, boxes, {"fill": COLOURS[n]}))
        return found
