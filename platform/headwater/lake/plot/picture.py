"""What a plot is drawn as: how it is to look, and the picture: elements with places, and where a reader can point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from zoneinfo import ZoneInfo

from headwater.lake.plot.palette import MOST
from headwater.lake.plot.shapes import Element, px

Frame = tuple[float, float, float, float]
"""Left, top, right and bottom of the inside of a plot."""
WIDTH, HEIGHT = 720, 280
WIDTHS: Final = (240, 3000)
HEIGHTS: Final = (80, 1600)
TOP, RIGHT, BOTTOM, BARE = 26, 14, 38, 10
"""Pixels around the inside; below it the last where there are no labels."""
TICKS_EACH: Final = (52, 92)
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
    """``sideways``: categories run from top to bottom."""

    width: int
    height: int
    elements: tuple[Element, ...]
    marks: tuple[Mark, ...] = ()
    frame: Frame = (0, 0, 0, 0)
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
        marks += [replace(mark, series=mark.series + n * MOST, y=px(mark.y + down)) for mark in picture.marks]
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
