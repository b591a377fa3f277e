"""The rows that a view has at a commit, made anew, as a Parquet file: in the types of files, each row with its weight.

    by its SQL       where the rows of its tables at that commit decide: DuckDB runs it once, over base and changes
    by its program   where time decides, or other views are read: steps over the changes, as the worker does them

Both are read only, and neither looks at what the pipeline has stored or published.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from headwater.catalog.records import Step, View
from headwater.config import Settings
from headwater.lake import Lake
from headwater.log import Log
from headwater.record import WEIGHT
from headwater.types import quote
from headwater_pipelines.compiler import CompiledView, maintain
from headwater_pipelines.compiler.syntax import message
from headwater_pipelines.replay.build import Build, quoted
from headwater_pipelines.runtime.blame import ViewFailed
from headwater_pipelines.runtime.program import Program

PREFIX = "views."
WATCH_S = 0.2
"""Between two looks at how far a query is."""


class Rows:
    """Makes a view's rows at commits that only grow. To be closed; the errors are those of ``Build``."""

    def __init__(
        self,
        log: Log,
        lake: Lake,
        view: View,
        compiled: CompiledView,
        folder: Path,
        settings: Settings,
        said: Callable[[int], None],
        *,
        by_query: bool = False,
        total: int = 0,
    ) -> None:
        """``total``: records that are read, where ``said`` is to hear of a query while it runs."""
        self.log = log
        self.lake = lake
        self.view = view
        self.compiled = compiled
        self.path = folder / "rows.parquet"
        self._begun = False
        self._said, self._total = said, total
        by_query = by_query or is_one_query(compiled)
        self._build = None if by_query else Build(log, view, compiled, folder, settings, said)

    def make(self, start: int, step: Step, where: str = "") -> Path:
        """The file with the rows at a step's input commit, from those of the tables at ``start`` on.

        Only those that fulfil ``where``, a condition on the view's columns, if its SQL makes them.
        """
        if self._build is None:
            # At its publishing commit views are read as of the same step, and tables at its input.
            self._query(step.publish_commit if self._reads_views else step.input_commit, where)
            return self.path
        steps = self.log.steps(0, step.number)
        if not self._begun:
            before = [each for each in steps if each.input_commit <= start]
            self._build.begin(start, (before[-1] if before else steps[0]).instant)
            self._begun = True
        self._build.follow(steps, step.input_commit)
        self._build.export(self.path)
        return self.path

    def close(self) -> None:
        if self._build is not None:
            self._build.close()

    @property
    def _reads_views(self) -> bool:
        return any(map(_is_view, self.compiled.reads))

    def _query(self, commit: int, where: str) -> None:
        listed = lowered(self.compiled)
        names = ", ".join(quote(name) for name, _ in self.compiled.columns)
        query = f"SELECT {listed}, 1::BIGINT AS {WEIGHT} FROM ({self.compiled.query}) AS view({names}) {where}"
        with self.lake.reading(query, at=commit) as (cursor, sql):
            try:
                with _watched(cursor, self._said, self._total):
                    cursor.execute(f"COPY ({sql}) TO '{quoted(self.path)}' (FORMAT parquet)")
            except duckdb.Error as error:
                raise ViewFailed(message(error), frozenset({self.view.id})) from error


@contextmanager
def _watched(cursor: duckdb.DuckDBPyConnection, said: Callable[[int], None], total: int) -> Iterator[None]:
    """While the block's query runs ``said`` hears of its share of ``total``, as DuckDB tells it."""
    if not total:
        yield
        return
    over, told = threading.Event(), 0

    def watch() -> None:
        nonlocal told
        while not over.wait(WATCH_S):
            reached = round(max(0.0, cursor.query_progress()) / 100 * total)
            if reached > told:
                said(reached - told)
                told = reached

    cursor.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false; SET progress_bar_time = 0")
    watcher = threading.Thread(target=watch, name="progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        cursor.execute("SET enable_progress_bar = false")


def is_one_query(compiled: CompiledView) -> bool:
    """Whether a view's rows follow from those of tables at one commit, by the SQL as it is written."""
    return _is_timeless(compiled) and not any(map(_is_view, compiled.reads))


def is_timeless(log: Log, compiled: CompiledView) -> bool:
    """Whether they follow so from tables and from what other views have published at the same step.

    One with a refresh of its own is read by its definition, and not by what it last held.
    """
    own_pace = {f"{PREFIX}{view.name}" for view in log.views() if view.refresh != "continuous"}
    return _is_timeless(compiled) and not own_pace.intersection(compiled.reads)


def _is_timeless(compiled: CompiledView) -> bool:
    program = Program({0: compiled}, {})
    is_timed = program.reads_clock or any(base.event_time is not None for base in compiled.used)
    return not is_timed and not compiled.letters


def _is_view(name: str) -> bool:
    return name.startswith(PREFIX)


def lowered(compiled: CompiledView) -> str:
    """A view's columns in the types of files."""
    return ", ".join(f"{maintain.file_sql(name, kind)} AS {quote(name)}" for name, kind in compiled.columns)
