"""A picture of points."""

from __future__ import annotations

from collections.abc import Iterator

from headwater.lake.plot.bars import Bars
from headwater.lake.plot.picture import Look, Picture
from headwater.lake.plot.plane import Plane
from headwater.lake.plot.points import Point, Points


def draw(points: Points, look: Look) -> Picture:
    """Everything placed; a picture of no rows says so."""
    shown = [(n, each) for n, each in enumerate(points.series) if each.name not in look.hidden]
    values = [value for _, each in shown for point in each.points for value in _values(point, log=look.log)]
    if not values:
        return _nothing(points, look)
    if look.kind == "bar" and points.categories:
        return Bars(points, look, shown).picture()
    return Plane(points, look, shown, values).picture()


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
