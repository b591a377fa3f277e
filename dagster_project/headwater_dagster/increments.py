"""Views that are refreshed by hand or from time to time: one run asks for one increment, and waits for it. No Dagster.

A refresh that the pipeline had begun before it was asked may end at an older commit: then it is asked again.
"""

from __future__ import annotations

from collections.abc import Sequence

from headwater.errors import PipelineError
from headwater.log import Log, View
from headwater_dagster import worker
from headwater_pipelines.api import refresh_view


class Increments:
    """Of the views ``names``: each is to publish a step at or after the input commit ``target``."""

    def __init__(self, log: Log, names: Sequence[str], target: int) -> None:
        self.log = log
        self.target = target
        self.waiting = list(names)
        """Those that have not published it yet."""

    def ask(self) -> None:
        """Have the pipeline refresh all of them. UsageError where one is paused."""
        for name in self.waiting:
            refresh_view(self.log, name)

    def are_there(self) -> bool:
        """Whether each has published it; PipelineError with the reason where one never will."""
        self.waiting = [name for name in self.waiting if not self._is_there(self.log.view(name))]
        return not self.waiting

    def require(self) -> None:
        """PipelineError with what is the matter with one that has not published it."""
        if not self.are_there():
            view = self.log.view(self.waiting[0])
            why = f": {view.reason}" if view.reason else ""
            raise PipelineError(
                f"view {view.name} has not been refreshed, it is {view.state}{why}",
                todo="`headwater status` says what the pipeline does.",
            )

    def _is_there(self, view: View) -> bool:
        require_maintained(view)
        if view.state != "live":
            return False
        step = self.log.newest_common_step(frozenset({view.id}), self.log.newest_commit())
        if step is not None and reaches(self.log, step.input_commit, self.target):
            return True
        refresh_view(self.log, view.name)
        return False


def require_maintained(view: View) -> None:
    """PipelineError with the reason why a view is not maintained."""
    if view.state in ("paused", "failed"):
        raise PipelineError(
            f"view {view.name} is {view.state}: {view.reason}",
            todo=f"`headwater resume {view.name}`, then materialize it.",
        )


def reaches(log: Log, input_commit: int, target: int) -> bool:
    """Commits of the pipeline itself are not its input: none but those may lie between."""
    missing = log.commits(after=input_commit, upto=target)
    return all(each.producer == worker.PIPELINE for each in missing)
