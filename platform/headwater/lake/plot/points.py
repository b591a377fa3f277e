"""The bounded points of a plot, as the rows of its SELECT say them.

An aggregation's answer has a line for each point, and a few that are no points: of what was left out, and the span.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from headwater.lake.plot.encoding import Encoding

CATEGORIES_MAX: Final = 40


class Line(NamedTuple):
    """A row of an aggregation's answer. ``part`` "point": of ``series``, from ``x0`` to ``x1``, of ``n`` rows with
    ``m`` values. "span", "series", "all", "empty", "more" and "band" are facts: numbers in ``n`` and ``m``, or ends in
    ``x0`` and ``x1``.
    """

    part: str
    series: str
    x0: Any
    x1: Any
    x0_text: str
    x1_text: str
    y: float | None
    low: float | None
    high: float | None
    low_text: str | None
    high_text: str | None
    n: Any
    m: Any


@dataclass(frozen=True, slots=True)
class Point:
    """One place: x from ``x0`` to ``x1`` (equal for a single value), its middle value and range, and exact texts.

    Over categories ``x0`` is the number of the category. ``y`` None is a gap: rows, but no value.
    """

    x0: float
    x1: float
    y: float | None
    low: float | None
    high: float | None
    x0_text: str
    x1_text: str
    low_text: str | None
    high_text: str | None
    rows: int


@dataclass(frozen=True, slots=True)
class Series:
    name: str
    points: tuple[Point, ...]
    rows: int


@dataclass(frozen=True, kw_only=True)
class Points:
    """What there is to draw. ``span``: of x over all rows. ``others``: series left out, and their rows.

    ``form``: "each" when every point is one value, "range" when it stands for several (mean, least and greatest),
    "sum" and "count" of bars and histograms, "sample" of a scatter plot with more rows than it shows.
    """

    series: tuple[Series, ...] = ()
    span: tuple[float, float] | None = None
    rows: int = 0
    unplaced: int = 0
    empty: int = 0
    form: str = "each"
    categories: tuple[str, ...] = ()
    others: tuple[int, int] = (0, 0)
    more_categories: int = 0
    band: tuple[float | None, float | None] = (None, None)
    notes: tuple[str, ...] = field(default=())


def read(found: Sequence[tuple[Any, ...]], encoding: Encoding, dots: int) -> Points:
    """An aggregation's rows as Points; ``dots``: how many a scatter plot shows at most."""
    parts: dict[str, list[Line]] = {}
    for line in map(Line._make, found):
        parts.setdefault(line.part, []).append(line)
    (span,), (every,) = parts["span"], parts["all"]
    rows, placed = int(span.m), int(span.n)
    sizes = {line.series: int(line.n) for line in parts.get("series", ())}
    series = _series(parts.get("point", ()), encoding, list(sizes))
    band = parts["band"][0] if "band" in parts else None
    is_category = encoding.x.sort == "category"
    return Points(
        series=series,
        span=None if span.x0 is None or is_category else (span.x0, span.x1),
        rows=placed,
        unplaced=rows - placed if not encoding.window else 0,
        empty=sum(int(line.n) - int(line.m) for part in ("point", "empty") for line in parts.get(part, ())),
        form=_form(series, encoding, dots),
        categories=_categories(series) if is_category else (),
        others=(max(0, int(every.n) - len(sizes)), int(every.m or 0) - sum(sizes.values())),
        more_categories=max(0, int(parts["more"][0].n) - CATEGORIES_MAX) if "more" in parts else 0,
        band=(band.x0, band.x1) if band else (None, None),
    )


def _series(found: Sequence[Line], encoding: Encoding, largest: Sequence[str]) -> tuple[Series, ...]:
    names = largest if encoding.color else [each.name for each in encoding.y] or [""]
    by_name: dict[str, list[Point]] = {name: [] for name in names}
    for line in found:
        by_name[line.series].append(Point(*line[2:4], *line[6:9], *line[4:6], *line[9:11], int(line.n)))
    return tuple(
        Series(name, tuple(sorted(points, key=lambda each: each.x0)), sum(each.rows for each in points))
        for name, points in by_name.items()
    )


def _form(series: Sequence[Series], encoding: Encoding, dots: int) -> str:
    if encoding.kind == "scatter":
        return "sample" if sum(len(each.points) for each in series) == dots else "each"
    single = all(point.rows == 1 for each in series for point in each.points)
    if encoding.kind in ("bar", "histogram"):
        return "count" if not encoding.y else "each" if single and encoding.x.sort == "category" else "sum"
    return "each" if single else "range"


def _categories(series: Sequence[Series]) -> tuple[str, ...]:
    names = {int(point.x0): point.x0_text for each in series for point in each.points}
    return tuple(names[place] for place in sorted(names))
