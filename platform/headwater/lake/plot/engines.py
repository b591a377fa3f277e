"""Charts of other libraries, where they are installed: they get all rows, and draw as they do."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any, Literal

import pyarrow as pa

from headwater.errors import UsageError
from headwater.lake.plot.encoding import Encoding

Engine = Literal["altair", "plotly"]
_MARKS = {"histogram": "bar", "scatter": "point"}
_TYPES = {"number": "quantitative", "time": "temporal", "category": "nominal"}
_MODULES = {"altair": "altair", "plotly": "plotly.express"}


def handed_over(engine: str, rows: pa.Table, encoding: Encoding, title: str, *, log: bool) -> Any:
    """The rows in the chart object of another library, where it is installed."""
    if engine not in _MODULES:
        raise UsageError(f"no engine is called {engine!r}", todo="Use altair, plotly, or leave it out.")
    try:
        library = import_module(_MODULES[engine])
    except ImportError as error:
        raise UsageError(
            f"{engine} is not installed",
            todo=f"`pip install {engine}`, or leave engine= out: the built-in chart needs nothing.",
        ) from error
    import polars as pl

    drawn = _plotly if engine == "plotly" else _altair
    return drawn(library, pl.from_arrow(rows), encoding, title, log=log)


def _plotly(library: Any, frame: Any, encoding: Encoding, title: str, *, log: bool) -> Any:
    y = [each.name for each in encoding.y]
    color = encoding.color.name if encoding.color else None
    more = {"log_y": True} if log else {}
    draw = getattr(library, encoding.kind)
    return draw(frame, x=encoding.x.name, y=y or None, color=color, title=title or None, **more)


def _altair(library: Any, frame: Any, encoding: Encoding, title: str, *, log: bool) -> Any:
    made = library.Chart(frame, title=title) if title else library.Chart(frame)
    color = encoding.color.name if encoding.color else ""
    up = library.Y(aggregate="count", type="quantitative", title="rows")
    if len(encoding.y) > 1:
        made = made.transform_fold([_escaped(each.name) for each in encoding.y], as_=["series", "value"])
        up, color = library.Y(field="value", type="quantitative"), "series"
    elif encoding.y:
        up = library.Y(field=_escaped(encoding.y[0].name), type="quantitative", title=encoding.y[0].name)
    x, binned = encoding.x, encoding.kind == "histogram"
    channels = {
        "x": library.X(field=_escaped(x.name), type=_TYPES[x.sort], title=x.name, bin=binned or library.Undefined),
        "y": up.scale(type="log") if log else up,
    }
    if color:
        channels["color"] = library.Color(field=_escaped(color), type="nominal", title=color)
    return getattr(made, f"mark_{_MARKS.get(encoding.kind, encoding.kind)}")().encode(**channels)


def _escaped(name: str) -> str:
    """A column's name as Vega's path to it: ``sum(a.b)`` is one name, not a field of a field."""
    return re.sub(r"([\\.\[\]'\"])", r"\\\1", name)
