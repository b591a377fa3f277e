"""When views with ``refresh = 'every ...'`` are due; those that are refreshed by hand never are by themselves."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from headwater.catalog.records import View, to_micros
from headwater.log import Log
from headwater_pipelines.compiler import CompiledView
from headwater_pipelines.compiler.refresh import every_s

NEVER_US = 2**63 - 1


class Schedule:
    """Of the views that sleep until their time has come, when that is."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self._due_us: dict[int, int] = {}

    @property
    def is_due(self) -> bool:
        """Whether the time of a view that sleeps has come."""
        now = self.log.clock.now_us()
        return any(now >= due for due in self._due_us.values())

    def is_wanted(self, view: View, compiled: CompiledView) -> bool:
        """Whether a view is to be built or maintained now; one that is not refreshed continuously, when it is due."""
        if view.refresh == "continuous" or view.state != "live":
            return True
        last = self.log.newest_common_step(frozenset({view.id}), self.log.newest_commit())
        if last is not None:
            self.sleep(view.id, compiled, last.instant)
        return last is None or self.log.clock.now_us() >= self._due_us.get(view.id, NEVER_US)

    def sleep(self, view: int, compiled: CompiledView, since: datetime) -> None:
        """A view was refreshed at an instant: note when it is to be refreshed again, if by itself."""
        seconds = every_s(compiled.definition.options)
        if seconds is not None:
            self._due_us[view] = to_micros(since) + seconds * 1_000_000

    def keep(self, views: Collection[int]) -> None:
        """Forget all views but these."""
        self._due_us = {view: due for view, due in self._due_us.items() if view in views}
