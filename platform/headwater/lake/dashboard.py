"""Several panels in one cell, at one position."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar

from headwater.errors import UsageError
from headwater.lake.shown import panel_of
from headwater.lake.timeline import Timeline

if TYPE_CHECKING:
    from headwater.lake.lake import Lake


class Dashboard:
    """What ``lake.dashboard(...)`` lays out: its parts, linked, and the slider on top of them if it is wanted.

    In a notebook a grid of live panels; elsewhere the parts one after the other.
    """

    panel: ClassVar[str] = "dashboard"

    def __init__(self, lake: Lake, things: Sequence[object], *, columns: int = 2, timeline: bool = True) -> None:
        if not things:
            raise UsageError("a dashboard has at least one panel", todo='As in lake.dashboard(lake.watch("SELECT 1")).')
        if not 1 <= columns <= 12:
            raise UsageError(f"columns={columns} is not 1 to 12")
        self.lake = lake
        self.things = tuple(things)
        self.columns = columns
        self.timeline = Timeline(lake) if timeline else None

    @property
    def parts(self) -> tuple[object, ...]:
        """Everything that is shown, from the top."""
        return self.things if self.timeline is None else (self.timeline, *self.things)

    def pause(self) -> None:
        """Let no part ask any more; ``resume`` goes on."""
        self._board.paused = True

    def resume(self) -> None:
        """Let all parts ask again."""
        self._board.paused = False

    def close(self) -> None:
        """End all parts: what they show stays."""
        self._board.close()

    @property
    def _board(self) -> Any:
        board = panel_of(self, self.panel)
        if board is None:
            raise UsageError("the notebook package is not installed, so no part of this moves")
        return board

    def __str__(self) -> str:
        return "\n\n".join(str(part) for part in self.parts)

    def __repr__(self) -> str:
        return str(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        """The live panels where the notebook package is present, else the static form of each."""
        if (board := panel_of(self, self.panel)) is not None:
            return board._repr_mimebundle_(include=include, exclude=exclude)
        return {"text/plain": str(self), "text/html": grid([_static(part) for part in self.parts], self.columns)}


def grid(parts: Sequence[str], columns: int) -> str:
    """HTML of parts in a grid, which a narrow page turns into one column."""
    cells = "".join(f'<div style="min-width: 0; overflow-x: auto">{part}</div>' for part in parts)
    return f'<div style="display: grid; gap: 8px; grid-template-columns: {tracks(columns)}">{cells}</div>'


def tracks(columns: int) -> str:
    """At most so many columns of equal width, none narrower than a table can be read."""
    return f"repeat(auto-fit, minmax(max(320px, (100% - {8 * (columns - 1)}px) / {columns}), 1fr))"


def _static(part: Any) -> str:
    shown = part._repr_mimebundle_() if hasattr(part, "_repr_mimebundle_") else {}
    bundle = shown[0] if isinstance(shown, tuple) else shown
    return str(bundle.get("text/html") or f"<pre>{escape(str(part))}</pre>")
