"""Rates and lags as live plots above one another, with a row of figures for each topic and view."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import traitlets

from headwater.errors import UsageError
from headwater.lake.chart import version
from headwater.lake.flow import Rate
from headwater.lake.plot.palette import COLOURS, DASHES, MOST
from headwater.lake.rates import HEADS, WINDOWS, Rates, drawn, short, texts
from headwater_notebooks.chart_panel import wanted_of
from headwater_notebooks.panel import Panel


class RatesPanel(Panel):
    """Shows ``lake.rates(...)``: a new answer once a bucket of the window is over."""

    module = "chart_panel"

    _label = traitlets.Unicode("rates").tag(sync=True)
    _window = traitlets.Unicode("").tag(sync=True)
    _windows: traitlets.List[Any] = traitlets.List().tag(sync=True)
    _interval_ms = traitlets.Int(1000).tag(sync=True)

    def __init__(self, rates: Rates) -> None:
        self.rates, self.lake = rates, rates.lake
        every = max(100, round(rates.interval * 1000))
        super().__init__(_window=rates.window, _windows=list(WINDOWS), _interval_ms=every)

    def answer(self, op: str, request: Mapping[str, Any]) -> dict[str, Any]:
        if op != "chart":
            return super().answer(op, request)
        window = request.get("window") or self.rates.window
        if not isinstance(window, str):
            raise UsageError("window is a text like 5m")
        wanted = wanted_of(request)
        span = self.rates.span(window, self.where(request))
        current = version(span.end, window, wanted)
        head = {"version": current, "position": str(span.upto)}
        if request.get("since_version") == current:
            return {**head, "unchanged": True}
        rates = self.rates.flow.measured(span)
        picture, plots = self.rates.picture(
            rates, span, width=wanted["width"], log=wanted["log"], hidden=wanted["hidden"]
        )
        places = {rate.name: n for n, rate in enumerate(drawn(rates))}
        total = sum(each.rows_per_s for each in rates if each.kind != "changelog")
        return {
            **head,
            "kind": "line",
            "label": self.rates.label(rates, window),
            "extent": f"{total:,.1f} rows/s into topics",
            "notes": [*picture.notes, *self.rates.notes(rates)],
            "size": [picture.width, picture.height],
            "frame": list(picture.frame),
            "sideways": False,
            "elements": list(picture.elements),
            "marks": [[each.series, each.x, each.y, each.left, each.right, each.point] for each in picture.marks],
            "series": [
                {
                    **_key(each.name, n),
                    "n": plot * MOST + n,
                    "named": True,
                    "points": [[point.x0_text, point.x1_text, point.low_text or "", ""] for point in each.points],
                }
                for plot, points in enumerate(plots)
                for n, each in enumerate(points.series)
            ],
            "figures": {"heads": HEADS, "rows": [_row(rate, places.get(rate.name)) for rate in rates]},
            "heads": [],
            "column": "",
            "choice": None,
            "chosen": [],
        }

    def static_html(self) -> str:
        return self.rates.static_html(self.at or None)

    def __repr__(self) -> str:
        return str(self.rates)


def _key(name: str, n: int) -> dict[str, str]:
    return {"name": name, "colour": COLOURS[n], "dash": DASHES[n]}


def _row(rate: Rate, n: int | None) -> dict[str, Any]:
    """Figures of a topic or view; one that is drawn, as number ``n``, has its name and colour as a key."""
    _, *figures = ["-" if text is None else text for text in texts(rate)]
    return {"key": None if n is None else _key(short(rate.name), n), "cells": [short(rate.name), *figures]}
