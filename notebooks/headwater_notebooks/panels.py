"""The panel of anything that has one: to nest it in ipywidgets' boxes, to set its traits, to link it."""

from __future__ import annotations

import uuid
from importlib.metadata import entry_points

from headwater.errors import UsageError
from headwater_notebooks.panel import Panel

GROUP = "headwater.panel"


def of(thing: object) -> Panel:
    """The panel that shows ``thing``; a panel is its own. The same panel each time it is asked for.

    Its class names the entry point of this group in an attribute ``panel``, or else is called as the entry point is
    (``Watch``: watch). UsageError when there is none.
    """
    if isinstance(thing, Panel):
        return thing
    known = getattr(thing, "_panel", None)
    if isinstance(known, Panel):
        return known
    name = getattr(type(thing), "panel", None) or type(thing).__name__.lower()
    for entry in entry_points(group=GROUP, name=name):
        panel = entry.load()(thing)
        assert isinstance(panel, Panel)
        thing._panel = panel  # type: ignore[attr-defined]  # they are each other's: they go together
        return panel
    names = ", ".join(sorted(entry_points(group=GROUP).names))
    raise UsageError(f"{type(thing).__name__} has no panel", todo=f"Panels are there of: {names}.")


def link(*things: object) -> list[Panel]:
    """The panels of these, which from now on show one position together, at every moment; see ``of``.

    They turn together where they are shown in one page; setting ``at`` of one sets it of all. What was linked already
    stays so: they all join the first link that is found among them.
    """
    found = [of(thing) for thing in things]
    name = next((panel._link for panel in found if panel._link), "") or uuid.uuid4().hex
    for panel in found:
        panel._link = name
    return found
