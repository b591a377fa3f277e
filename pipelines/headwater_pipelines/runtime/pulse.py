"""What the worker shows of itself in the live file: how it fares and, while something takes long, that it lives.

A beat is made between two steps. While a step or a fill runs, a thread beats in the worker's place, so that a large one
is not taken for one that hangs; work that lasts longer than anything should is, in the end.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from headwater.errors import CatalogError
from headwater.log import Log
from headwater_pipelines.runtime.engine import Engine
from headwater_pipelines.runtime.fill import Fill
from headwater_pipelines.runtime.publish import PRODUCER

BEAT_S = 0.25
LONG_S = 1.0
"""How often the thread looks; work that ends sooner is not shown."""
LONG_S_MAX = 6 * 3600.0
"""After so long in one piece of work nothing is shown any more: then it hangs."""


class Pulse:
    """Figures of the steps so far, and the beats. ``close`` ends the thread."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.times: deque[float] = deque(maxlen=500)
        self.rows = 0
        self.rate = 0.0
        self.last_step = time.monotonic()
        self._last_beat = 0.0
        self._doing: tuple[str, float] | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
        self._thread.start()

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self._last_beat >= BEAT_S

    def measured(self, rows: int, seconds: float) -> None:
        """A step has ended."""
        self.last_step = time.monotonic()
        self.times.append(seconds)
        self.rows += rows
        self.rate = rows / seconds if seconds else 0.0

    @contextmanager
    def doing(self, state: str) -> Iterator[None]:
        """Show ``state`` while the block takes long."""
        self._doing = (state, time.monotonic())
        try:
            yield
        finally:
            self._doing = None

    def beat(self, state: str, error: str | None, engine: Engine | None, fill: Fill | None) -> None:
        """Show everything; between two steps only."""
        self._last_beat = time.monotonic()
        ordered = sorted(self.times)
        self.log.live.beat(
            PRODUCER,
            state=state,
            error=error,
            input_commit=engine.progress.input_commit if engine else 0,
            step=engine.progress.number if engine else 0,
            rows=self.rows,
            rows_per_s=round(self.rate if state == "live" else 0.0, 1),
            step_ms_last=round(self.times[-1] * 1e3, 2) if self.times else None,
            step_ms_p95=round(ordered[int(len(ordered) * 0.95)] * 1e3, 2) if ordered else None,
            filling=_filling(fill),
            stored=_stored(engine) if engine else "{}",
        )

    def close(self) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(LONG_S):
            doing, now = self._doing, time.monotonic()
            if doing is not None and LONG_S <= now - doing[1] < LONG_S_MAX:
                with suppress(CatalogError):  # the next one between two steps says it
                    self.log.live.beat(PRODUCER, state=doing[0])


def _stored(engine: Engine) -> str:
    """Of every stored relation, as JSON: rows, bytes, ms that the last step spent on it, its views."""
    program, relations = engine.program, engine.state.relations
    return json.dumps(
        {
            source.table: {
                "rows": relations[source.table].rows,
                "bytes": relations[source.table].bytes,
                "ms": round(program.spent_s.get(source.table, 0.0) * 1e3, 2),
                "whole": source.table in program.adaptive.whole,
                "views": sorted(program.views[view].name for view in program.users(source)),
            }
            for source in program.order
            if source.table in relations
        }
    )


def _filling(fill: Fill | None) -> str:
    """Of every view that is filled beside the steps, as JSON: records read, and of how many."""
    views = fill.views.values() if fill is not None else ()
    return json.dumps({each.name: {"rows": fill.rows, "of": fill.rows_of} for each in views} if fill else {})
