"""Elements of a picture: the only code that draws. A page patches them in, a file has them as text.

An element is a tag, attributes and children or a text, as JSON values; equal data gives equal elements.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Final

from headwater.lake.plot.palette import COLOURS, DASHES

Element = list[Any]
"""``[tag, {attribute: value}, [child, ...]]`` or ``[tag, {attribute: value}, text]``."""

LINE: Final = {"stroke": "currentColor", "stroke-opacity": 0.16, "shape-rendering": "crispEdges"}
_FONT: Final = 11
_LABEL_MAX: Final = 26


def group(n: int, children: list[Element], style: Mapping[str, Any] | None = None) -> Element:
    return ["g", {"class": "hw-series", "data-series": str(n), **(style or {})}, children]


def plain(children: list[Element]) -> Element:
    return ["g", {"class": "hw-axis"}, children]


def stroked(places: Sequence[tuple[float, float]], n: int) -> Element:
    if len(places) == 1:
        return ["circle", {"cx": px(places[0][0]), "cy": px(places[0][1]), "r": 2.5, "fill": COLOURS[n]}, ""]
    line = {"d": _path(places), "fill": "none", "stroke": COLOURS[n], "stroke-width": 1.75, "stroke-linejoin": "round"}
    return ["path", line | ({"stroke-dasharray": DASHES[n]} if DASHES[n] else {}), ""]


def filled(
    there: Sequence[tuple[float, float]], back: Sequence[tuple[float, float]], n: int, opacity: float
) -> Element:
    return ["path", {"d": _path([*there, *back]) + "Z", "fill": COLOURS[n], "fill-opacity": opacity}, ""]


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{px(x)} {px(y)}" for x, y in places)


def box(x: float, y: float, width: float, height: float) -> Element:
    return [
        "rect",
        {"x": px(x), "y": px(y), "width": px(max(width, 0.5)), "height": px(max(height, 0))},
        "",
    ]


def words(
    x: float, y: float, text: str, anchor: str, *, strong: bool = False, dim: bool = False, title: str = ""
) -> Element:
    look: dict[str, Any] = {"x": px(x), "y": px(y), "text-anchor": anchor}
    look |= {"font-weight": 600} if strong else {}
    look |= {"fill-opacity": 0.75} if dim else {}
    return ["text", look, [["title", {}, title], ["tspan", {}, text]] if title and title != text else text]


def px(value: float) -> float:
    """A tenth of a pixel is enough, and short."""
    found = round(value, 1)
    return int(found) if found == int(found) else found


def text_width(text: str) -> float:
    """About the pixels that a label takes; wide characters are twice as wide."""
    return sum(_FONT if unicodedata.east_asian_width(each) in "WF" else _FONT * 0.58 for each in text)


def shorten(text: str, most: int = _LABEL_MAX) -> str:
    """A long name with its middle left out; line ends are no part of a label."""
    line = " ".join(text.split())
    if len(line) <= most:
        return line
    return f"{line[: most * 2 // 3]}…{line[-(most - most * 2 // 3 - 1) :]}"
