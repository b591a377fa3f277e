"""The slider over a lake's commits: where linked panels are, and where they can go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import traitlets
import xxhash

from headwater.errors import UsageError
from headwater.lake.timeline import Timeline
from headwater_notebooks.panel import Panel, linked

WINDOWS = (600, 3600, 86_400)
"""Seconds that the page may restrict the slider to."""


class TimelinePanel(Panel):
    """Follows a lake's commits; its ``at`` is that of all panels that it is linked with."""

    module = "timeline_panel"

    _interval_ms = traitlets.Int(1000).tag(sync=True)

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.lake = timeline.lake
        super().__init__()
        if timeline.linked:
            from headwater_notebooks import panels  # which knows this module

            linked([*[panels.of(thing) for thing in timeline.linked], self])

    def answer(self, op: str, request: Mapping[str, Any]) -> dict[str, Any]:
        if op != "timeline":
            return super().answer(op, request)
        window = request.get("window")
        if window is not None and window not in WINDOWS:
            raise UsageError(f"a window is one of {', '.join(map(str, WINDOWS))} seconds, or none")
        found = self.timeline.commits(window_s=window)
        where = self.where(request)
        position = str(found.newest) if where is None else str(where).removeprefix("commit:")
        version = xxhash.xxh3_64_hexdigest(repr((found, position, window)).encode())
        head = {"version": version, "position": position, "time": self._time(int(position))}
        if request.get("since_version") == version:
            return {**head, "unchanged": True}
        return {
            **head,
            "oldest": str(found.oldest),
            "newest": str(found.newest),
            "start": found.start.isoformat(),
            "width_s": found.width_s,
            "edges": [str(edge) for edge in found.edges],
            "tags": [{"name": tag.name, "commit": str(tag.commit)} for tag in found.tags[:100]],
            "more_tags": max(0, len(found.tags) - 100),
        }

    def _time(self, commit: int) -> str | None:
        return self.timeline.lake.time_of(commit).isoformat() if commit else None

    def static_html(self) -> str:
        return self.timeline.static_html()

    def __repr__(self) -> str:
        return f"<timeline up to commit {self.timeline.lake.position()}>"
