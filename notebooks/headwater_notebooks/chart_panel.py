"""A chart that follows the lake: what the kernel has placed, which the page patches in, reads out and lets choose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import traitlets

from headwater.errors import UsageError
from headwater.lake.chart import Chart, Drawn, table_heads, version
from headwater.lake.plot.palette import COLOURS, DASHES
from headwater.lake.plot.picture import HEIGHT, HEIGHTS, WIDTH, WIDTHS
from headwater_notebooks.panel import Panel

HIDDEN_MAX: Final = 10
FILTERS_MAX: Final = 20


class ChartPanel(Panel):
    """Shows a ``lake.chart(...)``.

    ``selection``: the chosen stretch of x (or the chosen bar), as conditions of a table's ``filters``; empty without
    one. Both ways: ``jslink((chart, "selection"), (table, "filters"))`` shows its rows.
    ``filters``: conditions, of the same form, on the rows that are drawn.
    """

    module = "chart_panel"

    selection: traitlets.List[Any] = traitlets.List().tag(sync=True)
    filters: traitlets.List[Any] = traitlets.List().tag(sync=True)
    _title = traitlets.Unicode("").tag(sync=True)
    _log = traitlets.Bool(False).tag(sync=True)
    _interval_ms = traitlets.Int(1000).tag(sync=True)

    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        self.lake = getattr(chart.source, "lake", None)
        self.query = getattr(chart.source, "sql", "")
        super().__init__(_title=chart.title, _log=chart.log, _interval_ms=max(100, round(chart.interval * 1000)))

    def answer(self, op: str, request: Mapping[str, Any]) -> dict[str, Any]:
        if op != "chart":
            return super().answer(op, request)
        at = self.where(request)
        wanted = wanted_of(request)
        selection = _conditions(request, "selection")
        state = self.chart.source.state(at)
        current = version(state.rows, wanted, selection)
        if request.get("since_version") == current:
            return {"version": current, "unchanged": True, **_position(state.position)}
        drawn = self.chart.draw(at=at, chosen=_limits(selection), **wanted)
        head = {"version": current, **_position(drawn.position)}
        return {**head, "time": drawn.time, **document(self.chart, drawn, selection)}

    def static_html(self) -> str:
        return self.chart.static_html(self.at or None)

    def __repr__(self) -> str:
        return str(self.chart)


def document(chart: Chart, drawn: Drawn, selection: list[Mapping[str, Any]]) -> dict[str, Any]:
    """A drawing as the page takes it: elements in their places, and for each mark what to read out there."""
    picture, encoding = drawn.picture, drawn.encoding
    series = drawn.points.series
    upper = "<" if encoding.kind in ("bar", "histogram") else "<="
    return {
        "kind": encoding.kind,
        "label": chart.label(drawn),
        "extent": drawn.extent,
        "notes": drawn.notes,
        "size": [picture.width, picture.height],
        "frame": list(picture.frame),
        "sideways": picture.sideways,
        "elements": list(picture.elements),
        "marks": [[each.series, each.x, each.y, each.left, each.right, each.point] for each in picture.marks],
        "series": [
            {
                "n": n,
                "name": each.name,
                "colour": COLOURS[n],
                "dash": DASHES[n] if encoding.kind in ("line", "area") else "",
                "named": bool(drawn.names),
                "points": [[point.x0_text, point.x1_text, *drawn.told(point)] for point in each.points],
            }
            for n, each in enumerate(series)
        ],
        "heads": table_heads(drawn),
        "column": encoding.x.name,
        "choice": ["=", "="] if drawn.points.categories else [">=", upper],
        "chosen": [str(each.get("value", "")) for each in selection] if drawn.points.categories else [],
    }


def _position(position: str) -> dict[str, str]:
    """Rows that are of no lake have none."""
    return {"position": position} if position else {}


def wanted_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """What the page asks for, checked and bounded."""
    hidden = request.get("hidden") or []
    if not isinstance(hidden, list) or not all(isinstance(each, str) for each in hidden) or len(hidden) > HIDDEN_MAX:
        raise UsageError(f"hidden is a list of at most {HIDDEN_MAX} names of series")
    return {
        "width": _size(request, "width", WIDTH, WIDTHS),
        "height": _size(request, "height", HEIGHT, HEIGHTS),
        "log": bool(request.get("log")),
        "hidden": tuple(hidden),
        "filters": _conditions(request, "filters"),
    }


def _size(request: Mapping[str, Any], name: str, usual: int, limits: tuple[int, int]) -> int:
    value = request.get(name) or usual
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"{name} is a whole number of pixels")
    return min(max(value, limits[0]), limits[1])


def _conditions(request: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = request.get(name) or []
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value) or len(value) > FILTERS_MAX:
        raise UsageError(f"{name} is a list of at most {FILTERS_MAX} conditions, each with column, op and value")
    return value


def _limits(selection: list[Mapping[str, Any]]) -> tuple[str | None, str | None]:
    """From and to of a chosen stretch."""
    low = next((str(each.get("value")) for each in selection if each.get("op") in (">=", ">")), None)
    return low, next((str(each.get("value")) for each in selection if each.get("op") in ("<=", "<")), None)
