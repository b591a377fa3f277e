"""Charts of other libraries, where they are installed: they get all rows, and draw as they do."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal

import pyarrow as pa

from headwater.errors import UsageError
from headwater.lake.plot.encoding import Encoding

Engine = Literal["altair", "plotly"]
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

    frame = pl.from_arrow(rows)
    y = [each.name for each in encoding.y]
    color = encoding.color.name if encoding.color else None
    if engine == "plotly":
        more: dict[str, Any] = {"log_y": True} if log else {}
        draw_it = getattr(library, encoding.kind)
        return draw_it(frame, x=encoding.x.name, y=y or None, color=color, title=title or None, **more)
    made = library.Chart(frame, title=title) if title else library.Chart(frame)
    if len(y) > 1:
        made, y, color = made.transform_fold(y, as_=["series", "value"]), ["value"], "series"
    kinds = {"histogram": "bar", "scatter": "point"}
    mark = getattr(made, f"mark_{kinds.get(encoding.kind, encoding.kind)}")()
    across = library.X(encoding.x.name, bin=True) if encoding.kind == "histogram" else library.X(encoding.x.name)
    up = library.Y(f"{y[0]}:Q") if y else library.Y("count()")
    return mark.encode(x=across, y=up.scale(type="log") if log else up, **({"color": color} if color else {}))
