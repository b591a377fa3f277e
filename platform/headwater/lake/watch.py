"""Watching a query: its answer again whenever a commit may have changed it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from headwater.lake.lake import Lake
    from headwater.lake.result import Result


class Watch:
    """An endless iterator of (position, rows); positions grow, answers in between may be skipped.

    ``interval`` seconds at least lie between two answers. In a notebook the object shows itself as a live
    panel. ``close`` ends the iteration, from another thread too.
    """

    def __init__(self, lake: Lake, query: str, interval: float) -> None:
        self.lake = lake
        self.query = query
        self.interval = interval
        self._closed = threading.Event()
        self._latest: Result | None = None

    def latest(self) -> Result:
        """The answer now."""
        self._latest = self.lake.sql(self.query)
        return self._latest

    def __iter__(self) -> Iterator[tuple[int, pa.Table]]:
        position = -1
        while not self._closed.is_set():
            answer = self.latest()
            if answer.position > position:
                position = answer.position
                yield answer.position, answer.arrow()
            begun = time.monotonic()
            newest = self.lake.log.newest_commit()
            while not self._closed.is_set() and self.lake.log.wait(max(position, newest), 0.1) <= newest:
                continue
            self._closed.wait(max(0.0, self.interval - (time.monotonic() - begun)))

    def close(self) -> None:
        """End the iteration and the panel's updates."""
        self._closed.set()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        """The live panel where the notebook package is present, else the answer now as a static table."""
        for panel in entry_points(group="headwater.panel"):
            return panel.load()(self)._repr_mimebundle_(include=include, exclude=exclude)
        answer = self.latest()
        return {"text/plain": str(answer), "text/html": answer._repr_html_()}
