"""Filling views beside the live program: from the log, at one commit, into tables that nobody else reads.

    live worker   step ── step ── step ── step ── switch (one transaction) ── step
    fill          load at F ─▶ derive ─▶ catch up ─▶ ready ─┘

A fill has a connection and a thread of its own and a schema of the state file (``b<number>``), in which its program
runs unchanged. At the switch the live state notes these tables and runs as its own, so that no row is moved.

A fill that is cut short begins anew: what it left is dropped at the next start. To go on would need every loaded
part to be a commit of its own, and loading from a base is quick; what is slow, deriving, is one statement anyway.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import datetime

import duckdb

from headwater import duck, types
from headwater.catalog.records import to_datetime
from headwater.errors import HeadwaterError
from headwater.log import Log, base, leases, read
from headwater.types import quote
from headwater_pipelines.compiler import CompiledView
from headwater_pipelines.compiler.plan import Base
from headwater_pipelines.runtime import intake, relation, watermark
from headwater_pipelines.runtime.arrived import Arrived
from headwater_pipelines.runtime.aside import give_way
from headwater_pipelines.runtime.bases import Store
from headwater_pipelines.runtime.budget import Budget
from headwater_pipelines.runtime.intake import RawValue
from headwater_pipelines.runtime.program import Program, ViewFailed
from headwater_pipelines.runtime.state import State

PART_ROWS = 100_000
"""Rows loaded by one statement: small, so that a live step between two of them is not late."""
ROUNDS_MAX = 20
"""So often it catches up by itself; what a busy source commits meanwhile is left to the switch."""


class Beside(State):
    """The state file on a second connection, whose own tables are in ``schema``."""

    def __init__(self, live: State, schema: str, timezone: str) -> None:
        self.__dict__.update(live.__dict__)
        self.home = schema
        self.connection = live.connection.cursor()
        self.relations, self._obsolete, self._fresh, self._statements = {}, [], [], {}
        duck.pin(self.connection, timezone)
        for macro in types.MACROS:
            self.connection.execute(f"CREATE OR REPLACE TEMP {macro}")
        self.connection.execute(f"CREATE SCHEMA {schema}")
        self.connection.execute(f"SET search_path = '{schema}'")
        for statement in relation.TABLES:
            self.connection.execute(statement)

    def remove(self) -> None:
        """Drop all of it, files included."""
        self.rollback()
        self.connection.execute(f"DROP SCHEMA {self.home} CASCADE")
        for run in [run for each in self.relations.values() for run in each.runs]:
            run.delete()


class Fill:
    """Views being filled together. ``position`` is the commit that its tables stand at.

    ``live_at`` gives the commit that the live program stands at. ``rows`` of ``rows_of`` records are loaded.
    ``error`` is what ended it: ViewFailed, RawValue and CorruptFile concern the views, others the worker.
    """

    def __init__(
        self,
        log: Log,
        live: State,
        number: int,
        views: Mapping[int, CompiledView],
        stores: Mapping[Base, Store],
        live_at: Callable[[], int],
        expires_s: float,
        budget: Budget,
    ) -> None:
        self.log = log
        self.views = dict(views)
        self.program = Program(self.views, stores)
        self.live_at = live_at
        self.budget = budget
        self.lease = leases.Lease(log, live_at(), expires_s=expires_s)
        self.position = live_at()
        self.state = Beside(live, f"b{number}", log.timezone)
        self.rows = 0
        self.rows_of = sum(rows_at(log, each, self.position) for each in stores)
        self.error: HeadwaterError | duckdb.Error | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"fill {self.state.home}", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def wait(self, seconds: float) -> None:
        """Until it has ended, or so long."""
        self._thread.join(seconds)

    def advance(self, upto: int, rows_target: int = PART_ROWS) -> None:
        """Bring its tables to commit ``upto``; by the thread, or by the caller once that has ended."""
        while self.position < upto and not self._stop.is_set():
            found = intake.next_range(self.log, self.position, upto, rows_target)
            if found.commits:
                arrived = intake.read(self.log, self.state, self.program.stores.values(), found, rows_target)
                self._step(arrived, None)
            self.position = max(found.upto, self.position + (0 if found.commits else 1))
            self.lease.moves_to(self.position)

    def move_clock(self, instant: datetime) -> None:
        """Let time pass, or go back, to the instant of the step that takes it over."""
        if self.program.reads_clock:
            self._step({}, instant)

    def close(self, *, keep: bool = False) -> None:
        """End it, from any thread but its own; its tables go unless they are to be ``keep``-t."""
        self._stop.set()
        while self.is_running:
            self.state.connection.interrupt()
            self._thread.join(0.05)
        self.lease.close()
        if not keep:
            self.state.remove()
        self.state.close()

    def _run(self) -> None:
        give_way()
        try:
            self._load()
            self.state.release()
            self.program.create(self.state, self.program.derived, to_datetime(self.log.clock.now_us()))
            self.budget.check(self.program, self.state)
            self.program.prepare(self.state)
            self.state.drop_temporary()
            for _ in range(ROUNDS_MAX):
                if self.position >= self.live_at() or self._stop.is_set():
                    return
                self.advance(self.live_at())
        except (HeadwaterError, duckdb.Error) as error:
            self.error = error

    def _load(self) -> None:
        for stores in self.program.loads:
            users = self.program.users(stores[0].base)
            try:
                with self.program.blame(users):
                    intake.load(self.log, self.state, stores, self.position, PART_ROWS, self._loaded)
            except RawValue as error:
                raise ViewFailed(str(error), users) from error

    def _step(self, arrived: Mapping[Base, Arrived], instant: datetime | None) -> None:
        self.state.begin()
        for view, late in self.program.step(self.state, arrived, instant):
            # Nobody reads its output: at the switch its whole contents count, and the rows that came late.
            timed = self.views[-view].event_time if view < 0 else None
            if timed is not None:
                self.state.relations[watermark.held(timed)].append("SELECT *, 1 FROM arrived", late)
        self.state.settle()
        self.state.commit()

    def _loaded(self, rows: int) -> None:
        """Called after each loaded part; a fill that is to end ends here."""
        self.rows += rows
        self.budget.check(self.program, self.state)
        if self._stop.is_set():
            raise Stopped("the fill was ended")


class Stopped(HeadwaterError):
    """A fill ended because nobody wants it any more."""


def rows_at(log: Log, each: Base, commit: int) -> int:
    """About how many records have to be read for a topic's rows at a commit."""
    topic = log.topic(each.name)
    found = base.newest(log, topic, commit)
    rest = read.plan(log, topic, found.commit if found else 0, commit)
    return (found.rows if found else 0) + rest.rows


def drop_unfinished(state: State) -> None:
    """Remove what earlier processes were filling, but not what became the live program's."""
    kept = {each.home for each in state.relations.values()}
    schemas = state.connection.execute("SELECT schema_name FROM duckdb_schemas() WHERE NOT internal").fetchall()
    for (name,) in schemas:
        if name not in kept | {"main"}:
            state.write(f"DROP SCHEMA {quote(name)} CASCADE")
