"""Beside the steps a full open part becomes a run, and runs become one, so that a look-up has few of them.

A thread of its own reads what does not change, and writes a new run; the worker makes it live between two steps.
What was not made live is no part of the state: at the next start its files are removed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import duckdb
import pyarrow as pa

from headwater_pipelines.runtime.aside import give_way
from headwater_pipelines.runtime.relation import Relation
from headwater_pipelines.runtime.runs import Run, Stopped
from headwater_pipelines.runtime.state import State


class Work(Protocol):
    """Makes a run out of what does not change."""

    def make(self, stop: threading.Event) -> Run: ...

    def is_wanted(self, state: State) -> bool:
        """Whether what it was made of is still there: a relation may be dropped, or filled anew, meanwhile."""
        ...

    def finish(self, state: State, made: Run) -> None:
        """Make it live; inside a transaction."""
        ...


@dataclass
class Freeze:
    """A full open part that was set aside."""

    relation: Relation

    @classmethod
    def due(cls, state: State) -> Work | None:
        return next((cls(each) for each in state.relations.values() if each.aside_rows and each.error is None), None)

    def make(self, stop: threading.Event) -> Run:
        try:
            return self.relation.freeze(stop)
        except duckdb.Error as error:
            if isinstance(error, duckdb.IOException | duckdb.FatalException):
                raise
            self.relation.error = error
            raise Stopped from error

    def is_wanted(self, state: State) -> bool:
        return state.relations.get(self.relation.table) is self.relation

    def finish(self, state: State, made: Run) -> None:  # noqa: ARG002
        self.relation.frozen(made)


@dataclass
class Merge:
    """Runs of like size."""

    relation: Relation
    parts: list[Run]

    @classmethod
    def due(cls, state: State) -> Work | None:
        return next((cls(each, parts) for each in state.relations.values() if (parts := each.due())), None)

    def make(self, stop: threading.Event) -> Run:
        return self.relation.merge(self.parts, stop)

    def is_wanted(self, state: State) -> bool:
        return len(self._live(state)) == len(self.parts)

    def finish(self, state: State, made: Run) -> None:
        state.relations[self.relation.table].replace(self._live(state), made)

    def _live(self, state: State) -> list[Run]:
        relation = state.relations.get(self.relation.table)
        numbers = {run.number for run in self.parts}
        return [run for run in relation.runs if run.number in numbers] if relation else []


class Merging:
    """At most one merge at a time, and beside it one open part being frozen. ``tend`` is called between two steps."""

    def __init__(self) -> None:
        self._freezing, self._merging = _Thread("freeze rows"), _Thread("merge runs")

    def tend(self, state: State) -> None:
        """Begin what is due, or make live what was made; what ended it in error is raised here.

        A statement that freezes concerns one relation: its error is raised as that is settled the next time.
        """
        self._freezing.tend(state, Freeze.due)
        self._merging.tend(state, Merge.due)

    @property
    def is_running(self) -> bool:
        return self._freezing.is_running or self._merging.is_running

    def wait(self, seconds: float) -> None:
        """Until it has ended, or for each of the two so long."""
        for thread in (self._freezing, self._merging):
            thread.wait(seconds)

    def close(self) -> None:
        """End what is under way, without a trace."""
        for thread in (self._freezing, self._merging):
            thread.close()


class _Thread:
    """One piece of work at a time."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._made: Run | None = None
        self._work: Work | None = None

    def tend(self, state: State, due: Callable[[State], Work | None]) -> None:
        """Begin what is due, or end what has been made."""
        if self._thread is None:
            self._begin(due(state))
        elif not self.is_running:
            work, made, error = self._work, self._made, self._error
            # Files that were read stay on the disk for as long as they are mapped here.
            self._thread = self._work = self._made = self._error = None
            if error is not None:
                raise error
            if work is not None and made is not None:
                _finish(state, work, made)

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def wait(self, seconds: float) -> None:
        if self._thread is not None:
            self._thread.join(seconds)

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _begin(self, work: Work | None) -> None:
        if work is not None:
            self._work, self._made, self._error = work, None, None
            self._thread = threading.Thread(target=self._run, args=(work,), name=self._name, daemon=True)
            self._thread.start()

    def _run(self, work: Work) -> None:
        give_way()
        try:
            self._made = work.make(self._stop)
        except Stopped:
            return
        except (OSError, duckdb.Error, pa.ArrowException) as error:
            self._error = error


def _finish(state: State, work: Work, made: Run) -> None:
    if not work.is_wanted(state):
        made.delete()
        return
    state.begin()
    work.finish(state, made)
    state.commit()
