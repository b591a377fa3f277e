"""The rows that a view has at a commit, made anew, as a Parquet file: in the types of files, each row with its weight.

    by its SQL       where the rows of its tables at that commit decide: DuckDB runs it once, over base and changes
    by its program   where time decides, or other views are read: steps over the changes, as the worker does them

Both are read only, and neither looks at what the pipeline has stored or published.
"""

from __future__ import annotations

from collections.abc import Callable
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
    ) -> None:
        self.log = log
        self.lake = lake
        self.view = view
        self.compiled = compiled
        self.path = folder / "rows.parquet"
        self._begun = False
        self._build = None if is_one_query(compiled) else Build(log, view, compiled, folder, settings, said)

    def make(self, start: int, step: Step) -> Path:
        """The file with the rows at a step's input commit, from those of the tables at ``start`` on."""
        if self._build is None:
            self._query(step.input_commit)
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

    def _query(self, commit: int) -> None:
        listed = lowered(self.compiled)
        names = ", ".join(quote(name) for name, _ in self.compiled.columns)
        query = f"SELECT {listed}, 1::BIGINT AS {WEIGHT} FROM ({self.compiled.query}) AS view({names})"
        with self.lake.reading(query, at=commit) as (cursor, sql):
            try:
                cursor.execute(f"COPY ({sql}) TO '{quoted(self.path)}' (FORMAT parquet)")
            except duckdb.Error as error:
                raise ViewFailed(message(error), frozenset({self.view.id})) from error


def is_one_query(compiled: CompiledView) -> bool:
    """Whether a view's rows follow from those of tables at one commit, by the SQL as it is written."""
    program = Program({0: compiled}, {})
    is_timed = program.reads_clock or any(base.event_time is not None for base in compiled.used)
    return not is_timed and not compiled.letters and not any(name.startswith("views.") for name in compiled.reads)


def lowered(compiled: CompiledView) -> str:
    """A view's columns in the types of files."""
    return ", ".join(f"{maintain.file_sql(name, kind)} AS {quote(name)}" for name, kind in compiled.columns)
