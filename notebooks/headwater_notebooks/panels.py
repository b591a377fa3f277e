"""The panel of anything that has one: to nest it in ipywidgets' boxes, to set its traits, to link it."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import overload

from headwater.errors import UsageError
from headwater.lake.dashboard import Dashboard
from headwater.lake.shown import GROUP, panel_of
from headwater_notebooks.board import Board
from headwater_notebooks.panel import Panel, linked


@overload
def of(thing: Dashboard) -> Board: ...
@overload
def of(thing: object) -> Panel: ...
def of(thing: object) -> Panel | Board:
    """The panel that shows ``thing``, of a dashboard the box of panels; a panel is its own. The same each time.

    Its class names the entry point of this group in an attribute ``panel``, or else is called as the entry point is
    (``Watch``: watch). UsageError when there is none.
    """
    if isinstance(thing, Panel | Board):
        return thing
    panel = panel_of(thing)
    if isinstance(panel, Panel | Board):
        return panel
    names = ", ".join(sorted(entry_points(group=GROUP).names))
    raise UsageError(f"{type(thing).__name__} has no panel", todo=f"Panels are there of: {names}.")


def link(*things: object) -> list[Panel]:
    """The panels of these, which from now on show one position together, at every moment; see ``of``.

    They turn together where they are shown in one page; setting ``at`` of one sets it of all. What was linked already
    stays so: they all join the first link that is found among them.
    """
    found = [of(thing) for thing in things]
    linked(found)
    return found
