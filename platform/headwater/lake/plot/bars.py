"""Categories against numbers; and how values stand on one another, as bars and bins do."""

from __future__ import annotations

from collections.abc import Sequence

from headwater.lake.plot.axes import left_axis, name_below, sideways_axes, value_scale, x_label, zero_line
from headwater.lake.plot.palette import COLOURS
from headwater.lake.plot.picture import BOTTOM, RIGHT, TICKS_EACH, TOP, Look, Mark, Picture
from headwater.lake.plot.points import Points, Series
from headwater.lake.plot.scale import Tick
from headwater.lake.plot.shapes import Element, box, group, plain, px, shorten, text_width


class Bars:
    """Upright where their names fit below, else sideways with the names in full."""

    def __init__(self, points: Points, look: Look, shown: Sequence[tuple[int, Series]]) -> None:
        self.points, self.look, self.shown = points, look, shown
        self.stacks = stacks_of(shown)
        widest = max(text_width(shorten(name)) for name in points.categories)
        count = len(points.categories)
        self.sideways = (look.width - 90) / count < widest + 10
        self.height = max(look.height, TOP + BOTTOM + count * 18) if self.sideways else look.height
        values = [end for ends in self.stacks.values() for end in ends if end > 0 or not look.log] or [1.0]
        if self.sideways:
            left = 12 + widest
            self.frame = (left, TOP - 8, look.width - RIGHT - 14, self.height - BOTTOM)
            ends = (self.frame[0], self.frame[2])
        else:
            self.frame = (0, TOP, look.width - RIGHT, self.height - BOTTOM)
            ends = (self.frame[3], self.frame[1])
        self.value = value_scale(look, values, *ends, zero=True, each=TICKS_EACH[self.sideways])
        if not self.sideways:
            left = 12 + max((text_width(each.label) for each in self.value.ticks), default=0)
            self.frame = (left, *self.frame[1:])
        first, last = (self.frame[1], self.frame[3]) if self.sideways else (self.frame[0], self.frame[2])
        self.step = (last - first) / count
        self.first = first

    def picture(self) -> Picture:
        marks: list[Mark] = []
        shapes = [self._series(n, series, marks) for n, series in self.shown]
        names = [Tick(self.first + (n + 0.5) * self.step, name) for n, name in enumerate(self.points.categories)]
        axes = sideways_axes(self.value, names, self.frame, self.look) if self.sideways else [
            *left_axis(self.value, self.frame, self.look),
            plain([*(name_below(each, self.frame) for each in names), x_label(self.look, self.frame)]),
        ]  # fmt: skip
        return Picture(
            width=self.look.width,
            height=self.height,
            elements=(*axes, *shapes, zero_line(self.value, self.frame, upright=not self.sideways)),
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
            edges = {"left": px(middle - self.step / 2), "right": px(middle + self.step / 2)}
            if self.sideways:
                boxes.append(box(min(low, high), middle - thick / 2, abs(high - low), thick))
                marks.append(Mark(series=n, point=place, x=px(high), y=px(middle), **edges))
            else:
                boxes.append(box(middle - thick / 2, min(low, high), thick, abs(high - low)))
                marks.append(Mark(series=n, point=place, x=px(middle), y=px(high), **edges))
        return group(n, boxes, {"fill": COLOURS[n]})


def stacks_of(shown: Sequence[tuple[int, Series]]) -> dict[tuple[int, int], tuple[float, float]]:
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
