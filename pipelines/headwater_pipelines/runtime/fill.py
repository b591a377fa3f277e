"""Filling views beside the live program: from the log, at one commit, into tables that nobody else reads.

    live worker   step ── step ── step ── step ── switch (one transaction) ── step
    fill          load at F ─▶ derive ─▶ catch up ─▶ ready ─┘

A fill has a connection and a thread of its own and a schema of the state file (``b<number>``), in which its program
runs unchanged. At the switch the live state notes these tables and runs as its own, so that no row is moved.

A fill that is cut short is taken up again when the same views are asked for: its schema says what it is for
(``filling``) and which relations are whole (``filled``). Those are kept, what was begun is begun anew, and once it was
catching up it goes on from the last commit that it took in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import datetime

import duckdb

from headwater import duck, types
from headwater.catalog.records import to_datetime, to_micros
from headwater.errors import Expired, HeadwaterError
from headwater.log import Log, base, leases, read
from headwater.types import quote
from headwater_pipelines.compiler import CompiledView
from headwater_pipelines.compiler.plan import Base, digest
from headwater_pipelines.runtime import intake, relation, watermark
from headwater_pipelines.runtime import runs as files
from headwater_pipelines.runtime.arrived import Arrived
from headwater_pipelines.runtime.aside import give_way
from headwater_pipelines.runtime.bases import Store
from headwater_pipelines.runtime.blame import ViewFailed
from headwater_pipelines.runtime.budget import Budget
from headwater_pipelines.runtime.intake import RawValue
from headwater_pipelines.runtime.program import Program
from headwater_pipelines.runtime.state import State, unfinished

PART_ROWS = 100_000
"""Rows loaded by one statement: small, so that a live step between two of them is not late."""
ROUNDS_MAX = 20
"""So often it catches up by itself; what a busy source commits meanwhile is left to the switch."""


TABLES = (
    "CREATE TABLE IF NOT EXISTS filling (plan VARCHAR, position BIGINT, instant BIGINT)",
    "CREATE TABLE IF NOT EXISTS filled (relation VARCHAR)",
)
"""What an unfinished fill is for, and where it stands."""


class Beside(State):
    """The state file on a second connection, whose own tables are in ``schema``; those that are there are its own."""

    def __init__(self, live: State, schema: str, timezone: str) -> None:
        self.__dict__.update(live.__dict__)
        self.home = schema
        self.freezes_beside = False
        self.connection = live.connection.cursor()
        self.relations, self._obsolete, self._fresh, self._statements = {}, [], [], {}
        duck.pin(self.connection, timezone)
        for macro in types.MACROS:
            self.connection.execute(f"CREATE OR REPLACE TEMP {macro}")
        self.connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        self.connection.execute(f"SET search_path = '{schema}'")
        for statement in (*relation.TABLES, *TABLES):
            self.connection.execute(statement)
        self._drop_begun()

    def _drop_begun(self) -> None:
        """Of what is there, keep the relations that are whole."""
        self.begin()
        self.relations = relation.load(self)
        whole = {name for (name,) in self.connection.execute("SELECT relation FROM filled").fetchall()}
        for table in self.relations.keys() - whole:
            self.drop(table)
        tables = (
            "SELECT table_name FROM duckdb_tables() WHERE schema_name = ? AND table_name LIKE '%\\_open' ESCAPE '\\'"
        )
        known = {relation.open_table(table) for table in self.relations}
        for (name,) in self.connection.execute(tables, [self.home]).fetchall():
            if name not in known:
                self.write(f"DROP TABLE {self.home}.{quote(name)}")
        self.commit()

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
        self.lease = leases.Lease(log, 0, expires_s=expires_s)
        self.state = Beside(live, _schema(log, live, self.program, live_at()), log.timezone)
        self.position, self.instant = self._resume(live_at())
        self.lease.moves_to(self.position)
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
                self._step(arrived, None, found.upto)
            self.position = max(found.upto, self.position + (0 if found.commits else 1))
            self.lease.moves_to(self.position)

    def move_clock(self, instant: datetime) -> None:
        """Let time pass, or go back, to the instant of the step that takes it over."""
        if self.program.reads_clock:
            self._step({}, instant, self.position)

    def close(self, *, keep: bool = False) -> None:
        """End it, from any thread but its own; its tables go unless they are to be ``keep``-t: to be taken up again."""
        self._stop.set()
        while self.is_running:
            self.state.connection.interrupt()
            self._thread.join(0.05)
        self.lease.close()
        if not keep:
            self.state.remove()
        self.state.close()
        self.state.relations = {}  # they know it: their files would be mapped until Python looks for such circles

    def _run(self) -> None:
        give_way()
        try:
            self._load()
            self.state.release()
            for source in self.program.derived:
                if source.table not in self.state.relations:
                    self.program.create(self.state, [source], self.instant)
                    self._note({source.table})
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
            made = intake.relations(stores)
            if made <= self.state.relations.keys():
                self.rows += sum(rows_at(self.log, store.base, self.position) for store in stores)
                continue
            users = self.program.users(stores[0].base)
            try:
                with self.program.blame(users):
                    intake.load(self.log, self.state, stores, self.position, PART_ROWS, self._loaded)
            except RawValue as error:
                raise ViewFailed(str(error), users) from error
            self._note(made)

    def _note(self, tables: set[str]) -> None:
        """These relations are whole, as of ``position``."""
        self.state.write("INSERT INTO filled SELECT unnest(?)", [sorted(tables)])

    def _resume(self, live_at: int) -> tuple[int, datetime]:
        """The commit and the instant that what is there stands at; those of now where nothing is."""
        row = self.state.row("SELECT position, instant FROM filling")
        if row is None:
            row = (live_at, self.log.clock.now_us())
            self.state.write("INSERT INTO filling VALUES (?, ?, ?)", [_plan(self.program), *row])
        return int(row[0]), to_datetime(row[1])

    def _step(self, arrived: Mapping[Base, Arrived], instant: datetime | None, upto: int) -> None:
        self.instant = instant or self.instant
        self.state.begin()
        for view, late in self.program.step(self.state, arrived, instant):
            # Nobody reads its output: at the switch its whole contents count, and the rows that came late.
            timed = self.views[-view].event_time if view < 0 else None
            if timed is not None:
                self.state.relations[watermark.held(timed)].append("SELECT *, 1 FROM arrived", late)
        self.program.settle(self.state)
        self.state.write("UPDATE filling SET position = ?, instant = ?", [upto, to_micros(self.instant)])
        self.state.commit()

    def _loaded(self, rows: int) -> None:
        """Called after each loaded part; a fill that is to end ends here."""
        self.rows += rows
        self.budget.check(self.program, self.state)
        if self._stop.is_set():
            raise Stopped("the fill was ended")


class Stopped(HeadwaterError):
    """A fill ended because nobody wants it any more."""


def rows_at(log: Log, each: Base, commit: int, *, whole: bool = False) -> int:
    """About how many records have to be read for a topic's rows at a commit; ``whole``: Expired where some are gone."""
    topic = log.topic(each.name)
    found = base.newest(log, topic, commit)
    rest = read.plan(log, topic, found.commit if found else 0, commit, whole=whole)
    return (found.rows if found else 0) + rest.rows


def _plan(program: Program) -> str:
    """What a fill is for: its views, and the columns that it stores of what they read."""
    views = sorted((view, digest(compiled.root)) for view, compiled in program.views.items())
    return digest((views, sorted((base.table, store.schema.to_json()) for base, store in program.stores.items())))


def _schema(log: Log, live: State, program: Program, live_at: int) -> str:
    """The schema of an unfinished fill for the same that can go on, or a new one; other unfinished ones are dropped."""
    found = None
    for name in unfinished(live):
        row = live.row(f"SELECT plan, position FROM {name}.filling")
        if row is not None and row[0] == _plan(program) and _reaches(log, program, int(row[1]), live_at):
            found = name
    drop_unfinished(live, found)
    query = "SELECT coalesce(max(schema_name[2:]::INTEGER), 0) FROM duckdb_schemas() WHERE schema_name ~ 'b[0-9]+'"
    return found or f"b{1 + (live.row(query) or (0,))[0]}"


def _reaches(log: Log, program: Program, position: int, upto: int) -> bool:
    """Whether the log still has all from a position on."""
    try:
        for each in program.stores:
            read.plan(log, log.topic(each.name), position, upto, whole=True)
    except Expired:
        return False
    return position <= upto


def drop_unfinished(state: State, kept: str | None = None) -> None:
    """Remove what earlier processes were filling, but for ``kept``."""
    for name in unfinished(state):
        if name != kept:
            runs = state.connection.execute(f"SELECT number FROM {name}.runs").fetchall()
            state.write(f"DROP SCHEMA {quote(name)} CASCADE")
            for (number,) in runs:  # those of an adopted fill are no longer noted there
                files.delete(state.run_path(number))


def adopted(state: State, schema: str) -> None:
    """Its relations are the live program's now; inside that transaction."""
    for table in ("filling", "filled", "relations", "runs"):
        state.write(f"DELETE FROM {schema}.{table}")
