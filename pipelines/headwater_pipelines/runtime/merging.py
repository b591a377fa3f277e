"""Runs of a relation become one beside the steps, so that a look-up has few of them to search.

A thread of its own reads runs, which never change, and writes a new one; the worker makes it live between two steps.
What was not made live is no part of the state: at the next start its files are removed.
"""

from __future__ import annotations

import threading

import duckdb
import pyarrow as pa

from headwater_pipelines.runtime.aside import give_way
from headwater_pipelines.runtime.relation import Relation
from headwater_pipelines.runtime.runs import Run, Stopped
from headwater_pipelines.runtime.state import State


class Merging:
    """At most one merge at a time. ``tend`` is called between two steps."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._table = ""
        self._parts: list[Run] = []
        self._made: Run | None = None

    def tend(self, state: State) -> None:
        """Begin a merge that is due, or make live what one has made; what ended it in error is raised here."""
        if self._thread is None:
            self._begin(state)
        elif not self.is_running:
            self._thread = None
            if self._error is not None:
                raise self._error
            self._finish(state)

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def wait(self, seconds: float) -> None:
        """Until it has ended, or so long."""
        if self._thread is not None:
            self._thread.join(seconds)

    def close(self) -> None:
        """End what is under way, without a trace."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _begin(self, state: State) -> None:
        for relation in state.relations.values():
            if parts := relation.due():
                self._table, self._parts, self._made, self._error = relation.table, parts, None, None
                self._thread = threading.Thread(target=self._run, args=(relation,), name="merge runs", daemon=True)
                self._thread.start()
                return

    def _run(self, relation: Relation) -> None:
        give_way()
        try:
            self._made = relation.merge(self._parts, self._stop)
        except Stopped:
            return
        except (OSError, duckdb.Error, pa.ArrowException) as error:
            self._error = error

    def _finish(self, state: State) -> None:
        if self._made is None:
            return
        relation = state.relations.get(self._table)
        numbers = {run.number for run in self._parts}
        live = [run for run in relation.runs if run.number in numbers] if relation else []
        if relation is None or len(live) < len(numbers):  # it was dropped, or filled anew, meanwhile
            self._made.delete()
            return
        state.begin()
        relation.replace(live, self._made)
        state.commit()
