"""A drawing for a terminal: bars with names and values, or one row of blocks for each series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from headwater.lake.plot.points import Point, Points
from headwater.lake.plot.shapes import shorten

_WIDTH: Final = 40


def letters(points: Points, value: Callable[[Point], str]) -> list[str]:
    """Lines of text; ``value`` says what a point stands for."""
    series = points.series
    if points.categories:
        return [line for each in series for line in _bars(each.points, each.name if len(series) > 1 else "", value)]
    wide = max((len(shorten(each.name)) for each in series), default=0)
    return [f"{shorten(each.name).ljust(wide)}  {_sparks(each.points)}" for each in series if each.points]


def _bars(points: Sequence[Point], name: str, value: Callable[[Point], str]) -> list[str]:
    largest = max((abs(each.y or 0) for each in points), default=0) or 1
    wide = max((len(shorten(each.x0_text)) for each in points), default=0)
    return ([name] if name else []) + [
        f"{shorten(each.x0_text).ljust(wide)}  {'█' * round(abs(each.y or 0) / largest * _WIDTH)} {value(each)}"
        for each in points
    ]


def _sparks(points: Sequence[Point]) -> str:
    """About as many blocks as a line of a terminal holds, each the greatest of its points; a gap is a space."""
    every = max(1, -(-len(points) // (_WIDTH * 2)))
    parts = [points[place : place + every] for place in range(0, len(points), every)]
    tops = [max((each.y for each in part if each.y is not None), default=None) for part in parts]
    known = [each for each in tops if each is not None]
    if not known:
        return ""
    low, high = min(0.0, *known), max(known)
    room = (high / 8 - low / 8) or 1.0  # eighths: a double holds them
    return "".join(" " if top is None else "▁▂▃▄▅▆▇█"[min(7, int((top / 8 - low / 8) / room * 8))] for top in tops)
