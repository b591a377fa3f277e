"""A dashboard as a widget: its panels in a grid, linked, the slider above them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets
import traitlets

from headwater.errors import UsageError
from headwater.lake.dashboard import Dashboard, grid, tracks
from headwater.lake.shown import panel_of
from headwater_notebooks.panel import WIDGET_VIEW, Panel, linked


class Board(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets is untyped
    """Nests in ipywidgets' boxes and tabs as any widget does. ``panels``: its parts in order, the slider first."""

    panels: Sequence[Panel] = ()
    paused = traitlets.Bool(False)
    """Whether all parts are paused; setting it sets it of each."""

    def __init__(self, dashboard: Dashboard) -> None:
        self.dashboard = dashboard
        self.panels = [_panel(thing) for thing in dashboard.parts]
        linked(self.panels)
        for panel in self.panels:
            panel.layout.min_width = "0"  # a wide table scrolls inside its own cell
        top, rest = ([], self.panels) if dashboard.timeline is None else (self.panels[:1], self.panels[1:])
        layout = ipywidgets.Layout(grid_template_columns=tracks(dashboard.columns), grid_gap="0 8px")
        super().__init__(children=[*top, ipywidgets.GridBox(children=rest, layout=layout)])
        self.observe(self._pause, "paused")

    def _pause(self, change: Any) -> None:
        for panel in self.panels:
            panel.paused = change["new"]

    def static_html(self) -> str:
        """The parts' static forms."""
        rest = [panel.static_html() for panel in self.panels]
        top = "" if self.dashboard.timeline is None else rest.pop(0)
        return top + grid(rest, self.dashboard.columns)

    def close(self) -> None:
        """End all panels; what they show stays on the page."""
        for panel in self.panels:
            panel.close()

    def __repr__(self) -> str:
        return "\n\n".join(repr(panel) for panel in self.panels)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        bundle: dict[str, Any] = {"text/plain": repr(self), "text/html": self.static_html()}
        if not all(panel.closed for panel in self.panels):
            bundle[WIDGET_VIEW] = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        return bundle, {}


def _panel(thing: Any) -> Panel:
    panel = thing if isinstance(thing, Panel) else panel_of(thing)
    if not isinstance(panel, Panel):
        raise UsageError(f"{type(thing).__name__} has no panel of its own", todo="Give lake.watch(...) and the like.")
    return panel
