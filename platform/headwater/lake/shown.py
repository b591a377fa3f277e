"""What shows itself as a live panel where the notebook package is present: the panel comes by an entry point."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any, Final

GROUP: Final = "headwater.panel"


def panel_of(thing: Any, name: str = "") -> Any:
    """The panel that an entry point makes of ``thing``, one however often it is asked for; None where there is none.

    The entry point is called ``name``, else what the thing's class says in ``panel``, else as the class is (watch).
    """
    found = getattr(thing, "_panel", None)
    name = name or getattr(type(thing), "panel", "") or type(thing).__name__.lower()
    if found is None:
        for entry in entry_points(group=GROUP, name=name):
            found = thing._panel = entry.load()(thing)
    return found
