"""A view made anew from the log, in a state of its own: the pipeline and what it stores are not touched.

    rows of the tables at a ─▶ stored relations ─▶ changes of (a, b] in slices ─▶ the view's rows at b

It runs in the process that asks for it, with the program that the live worker runs. Nothing of it is published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path

from headwater.catalog.records import Step, View
from headwater.config import MIB, Settings
from headwater.log import Log
from headwater_pipelines.compiler import CompiledView
from headwater_pipelines.compiler.plan import Base
from headwater_pipelines.runtime import intake
from headwater_pipelines.runtime.arrived import Arrived
from headwater_pipelines.runtime.program import Program
from headwater_pipelines.runtime.state import FILE, State
from headwater_pipelines.runtime.versions import shape, stored_copy


def quoted(path: Path) -> str:
    """A path as it stands between quotes."""
    return str(path).replace("'", "''")


class Build:
    """The state of one view at a commit, ``position``, that only moves forward. Not thread-safe; to be closed.

    ``said`` hears of every part, how many records it had. Errors are those of a fill: ViewFailed, RawValue,
    CorruptFile, and Expired where the log lacks what it needs.
    """

    def __init__(
        self,
        log: Log,
        view: View,
        compiled: CompiledView,
        folder: Path,
        settings: Settings,
        said: Callable[[int], None],
    ) -> None:
        self.log = log
        self.view = view
        self.rows_target = settings.step_rows_target
        self.said = said
        self.position = 0
        stores = {base: stored_copy(base, shape(log, base, names)) for base, names in compiled.used.items()}
        self.program = Program({view.id: compiled}, stores)
        limit = f"{settings.pipeline_memory_bytes_max // MIB}MiB"
        self.state = State(
            folder / FILE, timezone=log.timezone, memory_limit=limit, open_rows_max=settings.open_rows_max
        )

    def begin(self, commit: int, instant: datetime) -> None:
        """The tables' rows at a commit, and the view over them at an instant."""
        for stores in self.program.loads:
            intake.load(self.log, self.state, stores, commit, self.rows_target, self.said)
        self.state.begin()
        self.program.create(self.state, self.program.derived, instant)
        self.program.prepare(self.state)
        self.state.commit()
        self.state.drop_temporary()
        self.position = commit

    def advance(self, upto: int, instant: datetime | None = None) -> None:
        """Take in the changes up to a commit in slices; the last one moves the clock to ``instant``."""
        while self.position < upto:
            found = intake.next_range(self.log, self.position, upto, self.rows_target)
            end = found.upto if found.commits else upto
            arrived: Mapping[Base, Arrived] = {}
            if found.commits:
                stores = self.program.stores.values()
                arrived = intake.read(self.log, self.state, stores, found, self.rows_target)
            self._step(arrived, instant if end >= upto else None)
            self.said(found.rows)
            self.position = end

    def follow(self, steps: Iterable[Step], upto: int) -> None:
        """``advance`` as the live view did: where time decides, each recorded step is done again at its instant."""
        if self.program.reads_clock or self.program.event_times:
            for step in steps:
                if step.input_commit > self.position:
                    self.advance(step.input_commit, step.instant)
                elif step.input_commit == self.position:
                    self._step({}, step.instant)
        self.advance(upto)

    def export(self, path: Path) -> None:
        """Write the view's rows and their weights, as a changelog has them, into a Parquet file."""
        contents = self.program.contents(self.view.id)
        self.state.connection.execute(f"COPY ({contents}) TO '{quoted(path)}' (FORMAT parquet)")

    def close(self) -> None:
        self.state.close()

    def _step(self, arrived: Mapping[Base, Arrived], instant: datetime | None) -> None:
        self.state.begin()
        for _ in self.program.step(self.state, arrived, instant):
            pass  # nobody reads the changes: at the end its whole contents count
        self.program.settle(self.state)
        self.state.commit()
