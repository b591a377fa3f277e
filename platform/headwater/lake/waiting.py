"""Waiting for tables to be copied and views to be filled, with a bar to look at meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from headwater import progress
from headwater.errors import NameNotFound, NotYet, PipelineError

if TYPE_CHECKING:
    from headwater.catalog.records import View
    from headwater.lake.lake import Lake

WAIT_S = 600.0
_LOOK_S = 0.2

Far = tuple[float, str] | None
"""How far something is (0..1) and what to say beside it; None when it is there."""


def wait(lake: Lake, name: str, seconds: float = WAIT_S) -> None:
    """Return once the table or view of this name can be read as a whole; an interrupt ends the waiting alone.

    NotYet after ``seconds``; PipelineError when the view has failed or is paused.
    """
    short = name.removeprefix("views.")
    view = any(each.name == short for each in lake.log.views())
    _until(lake, name, seconds, (lambda: _view(lake, short)) if view else lambda: _table(lake, name))


def _until(lake: Lake, name: str, seconds: float, look: Callable[[], Far]) -> None:
    until = time.monotonic() + seconds
    newest = lake.log.newest_commit()
    with progress.bar(f"waiting for {name}") as bar:
        while (far := look()) is not None:
            if time.monotonic() >= until:
                said = f" ({far[1]})" if far[1] else ""
                raise NotYet(f"{name} is not there after {seconds:g} s{said}", todo="Does `headwater up` run?")
            bar.to(*far)
            newest = lake.log.wait(newest, _LOOK_S)


def _view(lake: Lake, name: str) -> Far:
    view = lake.log.view(name)
    new = next((each for each in lake.log.replacements() if each.replaces == view.id), None)
    for each in (new, view):
        if each is not None and each.state in ("failed", "paused"):
            raise PipelineError(
                f"view {name} is {each.state}: {each.reason}", todo="`lake.view(NAME).resume()` goes on."
            )
    return _filled(lake, view) if new is not None or view.topic is None else None


def _filled(lake: Lake, view: View) -> Far:
    row = next((each for each in lake.status()["views"] if each["name"] == view.name), None)
    fill = (row or {}).get("fill")
    if not fill or not fill["of"]:
        return 0.0, ""
    return fill["rows"] / fill["of"], f"{fill['rows']:,} of {fill['of']:,} rows"


def _table(lake: Lake, name: str) -> Far:
    """A table appears with all rows of its first copy; one that is copied again says so in its state."""
    try:
        topic = lake.log.topic(name)
    except NameNotFound:
        notes = [row["copy"] for row in lake.status()["sources"] if row["copy"]]
        return 0.0, "; ".join(notes)
    return None if topic.state == "live" else (0.0, f"{topic.state}: {topic.reason}")
