"""The pipeline over its state file: start, step, build, drop. Every change of state ends in one published commit.

    read (a, b]  ─▶  one state transaction: rows, aggregates, progress, outbox  ─▶  one log commit (the outbox)

Invariant: the state stands at the catalog's last published step, or one ahead with that step's outbox inside.
At start the second case publishes the outbox again; anything else is a state of another history and is
rebuilt from the log, which the caller is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial

import pyarrow as pa

from headwater.catalog.records import View, to_datetime
from headwater.errors import PipelineError, StateMismatch
from headwater.log import Log
from headwater.log.demand import Follower
from headwater_pipelines.compiler import CompiledView, render
from headwater_pipelines.compiler.plan import Base, Source, digest, inputs_of, sources
from headwater_pipelines.compiler.refresh import is_continuous
from headwater_pipelines.compiler.relations import versioned
from headwater_pipelines.runtime import difference, intake, letters, outbox, watermark
from headwater_pipelines.runtime.arrived import Arrived
from headwater_pipelines.runtime.bases import Store
from headwater_pipelines.runtime.blame import ViewFailed
from headwater_pipelines.runtime.budget import Budget
from headwater_pipelines.runtime.fill import Fill, adopted, drop_unfinished
from headwater_pipelines.runtime.intake import Range, RawValue
from headwater_pipelines.runtime.journal import Built, Journal, Progress, Stored
from headwater_pipelines.runtime.outbox import Outbox
from headwater_pipelines.runtime.pace import Pace
from headwater_pipelines.runtime.program import Program
from headwater_pipelines.runtime.publish import Publisher, publish
from headwater_pipelines.runtime.registry import used_columns
from headwater_pipelines.runtime.state import State
from headwater_pipelines.runtime.versions import shape, stored_copy

LARGE_ROWS = 250_000
"""Temporary tables are dropped after a step that made larger ones; smaller ones are replaced by the next step's."""

CLOCK_S = 1.0
"""Views that read the clock see it move once in this time, with the next commit or by itself."""
CLOCK_SHARE = 0.1
"""The share of its time that a worker spends on moving the clock, at most: it then moves less often."""
CLOCK_S_MAX = 60.0
"""The clock moves once in this time, however long that takes."""


class Withdrawn(PipelineError):
    """A replacement that was built is not asked for any more; nothing has happened."""


class Engine:
    """Owns the state. ``compiled`` are all views of the catalog that compile; the program runs some of them."""

    def __init__(self, log: Log, epoch: int, state: State, rows_target: int, budget: Budget) -> None:
        self.log = log
        self.epoch = epoch
        self.state = state
        self.rows_target = rows_target
        self.pace = Pace(rows_target)
        self.budget = budget
        self.journal = Journal(state)
        self.publisher = Publisher()
        self.demand = Follower(log.folder)
        self.built: dict[int, Built] = {}
        self.program = Program({}, {})
        self.progress = self._fresh_progress()
        self.pace_s, self.moved_s = CLOCK_S, -CLOCK_S_MAX
        """How often the clock moves, and when (monotonic) it was last tried."""

    # ---- start

    def open(self, compile_all: Callable[[], Mapping[int, CompiledView]]) -> None:
        """Take over the state file as it is; StateMismatch when it does not belong to this log any more.

        ``compile_all`` compiles the catalog's views: after the last step is published, which may switch some.
        """
        progress = self.journal.read()
        last = self.log.last_step()
        number = last.number if last else 0
        if progress is None:
            self.journal.create(self.progress)
            return
        if progress.incarnation != self.log.incarnation or progress.number not in (number, number + 1):
            raise StateMismatch(
                f"the pipeline's state stands at step {progress.number} of lake {progress.incarnation[:8]},"
                f" the catalog at step {number} of {self.log.incarnation[:8]}",
                todo="It is rebuilt from the log.",
            )
        self.progress = progress
        self.built = self.journal.built()
        if progress.number == number + 1:
            self._require_replacements()
            piece = outbox.spilled(self.log, progress.number) if progress.spilled else None
            publish(self.log, self.epoch, progress, self.built, self.journal.outbox(progress.number), piece)
        outbox.release(self.log)
        compiled = compile_all()
        views = {view: compiled[view] for view in self.built if self._is_current(view, compiled)}
        self._adopt(views)

    def _require_replacements(self) -> None:
        """The step to be published may hold what a replacement means for others: then it must still be there."""
        known = {view.id for view in (*self.log.views(), *self.log.replacements())}
        gone = [entry.name for view, entry in self.built.items() if entry.replaces is not None and view not in known]
        if gone:
            raise StateMismatch(
                f"the replacement of view {gone[0]} was taken back before it was published",
                todo="The state is rebuilt from the log.",
            )

    def _is_current(self, view: int, compiled: Mapping[int, CompiledView]) -> bool:
        """Whether the state was built for this very plan over tables of the same shape."""
        known = compiled.get(view)
        if known is None or digest(known.root) != self.built[view].plan or known.schema != self.built[view].schema:
            return False
        stored = self.journal.stored()
        if any(source.table not in self.state.relations for source in Program({view: known}, {}).derived):
            return False
        return all(
            base.table in stored
            and names <= set(stored[base.table].schema.names)
            and self._same_types(stored[base.table])
            for base, names in known.used.items()
        )

    def stale(self) -> frozenset[int]:
        """Running views over a table that was recreated or whose used columns have other types now."""
        stored = self.journal.stored()
        return frozenset(
            view
            for view, compiled in self.program.views.items()
            if not all(base.table in stored and self._same_types(stored[base.table]) for base in compiled.used)
        )

    def _same_types(self, stored: Stored) -> bool:
        topic = {topic.id: topic for topic in self.log.topics()}.get(abs(stored.topic))
        if topic is None:
            return False
        schema = versioned(topic.schema) if stored.kind == "history" else topic.schema
        now = {field.name: field.type for field in schema.fields}
        return all(now.get(field.name) == field.type for field in stored.schema.fields)

    def _adopt(self, views: Mapping[int, CompiledView]) -> None:
        """Run these views from now on, over the stored copies that the file has."""
        stored = self.journal.stored()
        stores = {base: stored_copy(base, stored[base.table].schema) for view in views.values() for base in view.used}
        self.program = Program(views, stores)

    # ---- step

    def next(self, newest: int) -> Range:
        """The source commits that the next step is to consume; there may be none."""
        self.demand.looks()
        return intake.next_range(self.log, self.progress.input_commit, newest, self.pace.rows)

    def is_large(self, found: Range) -> bool:
        """Whether these are one commit larger than a step is meant to be."""
        return found.rows > self.rows_target

    def step(self, found: Range, *, beside: bool = False) -> None:
        """Consume source commits and publish; without any, only time may pass.

        ``beside``: it may be published while the next step is worked on; ``published`` waits for it.
        """
        if not found.commits:
            self._tick()
            return
        arrived = intake.read(self.log, self.state, self.program.stores.values(), found, self.rows_target)
        self._advance(found.upto, arrived, self._instant(), beside=beside)
        if self.state.temporary_rows > LARGE_ROWS:
            self.state.drop_temporary()

    def published(self) -> None:
        """Wait until every step is published; raises what ``publish`` does."""
        self.publisher.wait()

    def close(self) -> None:
        self.publisher.close()
        self.state.close()
        self.demand.close()

    def _advance(
        self, commit: int, arrived: Mapping[Base, Arrived], instant: datetime, *, beside: bool = False
    ) -> None:
        """One step to an input commit and an instant, published; none where only time passed, and that to no effect."""
        progress = self._next(commit, frozenset(self.program.views), instant)
        moves, started = instant != self.progress.instant, time.monotonic()
        with Outbox(self.log, self.built) as out:
            with _Transaction(self.state) as transaction:
                self.journal.forget()
                outputs = self.program.step(self.state, arrived, instant if moves else None)
                for view, part in outputs:
                    self.demand.ends()
                    out.add(view, part)
                self.program.settle(self.state)
                self.demand.ends()
                progress = replace(progress, watermarks=self.program.watermarks(self.state))
                progress = out.keep(self.journal, progress)
                if commit == self.progress.input_commit and not self.program.has_changed:
                    transaction.give_up()
                self.published()
            if moves:
                self.moved_s = time.monotonic()
                self.pace_s = min(max(CLOCK_S, (self.moved_s - started) / CLOCK_SHARE), CLOCK_S_MAX)
        if transaction.given_up:
            return
        self.progress = progress
        self.publisher.start(partial(publish, self.log, self.epoch, progress, self.built, list(out.parts()), out.piece))
        if not beside or out.piece is not None:  # kept pieces are let go of by name: only one may be on its way
            self.published()

    def _tick(self) -> None:
        """Let time pass for the views that read the clock, when it is due."""
        instant = self._instant()
        if self.program.reads_clock and instant != self.progress.instant:
            self._advance(self.progress.input_commit, {}, instant)

    def _instant(self) -> datetime:
        """The next step's: the time now, unless the clock is read and has moved only just now."""
        is_due = time.monotonic() - self.moved_s >= self.pace_s
        return self._now() if is_due or not self.program.reads_clock else self.progress.instant

    # ---- build and drop

    def fill(self, added: Mapping[int, CompiledView], expires_s: float) -> Fill:
        """Begin to fill views beside the steps; ``build`` takes it over once it has ended.

        ``expires_s``: so long at most it holds history back.
        """
        used = used_columns(added)
        stores = self._stores({**self.program.views, **added})
        mine = {base: store for base, store in stores.items() if base in used}
        return Fill(self.log, self.state, added, mine, lambda: self.progress.input_commit, expires_s, self.budget)

    def forget_fills(self) -> None:
        """Remove what is left of fills that nobody asks for any more; while none runs."""
        drop_unfinished(self.state)

    def build(self, added: Mapping[int, CompiledView], catalog: Mapping[int, View], filled: Fill | None = None) -> None:
        """Fill views at the present input commit, or take them as ``filled``, and publish their contents as one step.

        ``catalog`` holds the view of every id. Where a changelog exists already it receives the difference: after a
        resume or a rebuild, from a view that takes another's place (``View.replaces``), and from a running one whose
        plan became another because it reads that view. A view that takes the place of one with the same plan has what
        is derived for it made anew, and so have those that share it. A view that is not refreshed continuously stands
        still after it: nothing of it is kept, and it is built anew when its time comes.
        """
        still = {view for view, compiled in added.items() if not is_continuous(compiled.definition.options)}
        self.published()
        ended = {catalog[view].replaces for view in added}
        views = {v: compiled for v, compiled in {**self.program.views, **added}.items() if v not in ended}
        if not self.program.views:
            self.progress = self._at(self.log.newest_commit())
        # What runs stands at the last step's instant, and so does what is filled beside it.
        instant = self.progress.instant if self.program.reads_clock else self._now()
        if filled is not None:
            filled.advance(self.progress.input_commit)
            filled.move_clock(instant)
        program = Program(views, self._stores(views))
        again = self._forgotten(added) | self.anew(added, catalog)
        before = {view: self._before(catalog[view], compiled, catalog, again) for view, compiled in added.items()}
        progress = self._next(self.progress.input_commit, frozenset(views), instant)
        kept = {view: built for view, built in self.built.items() if view not in ended}
        made = {v: Built(c.name, digest(c.root), c.schema, catalog[v].replaces, _side(c)) for v, c in added.items()}
        built = {**kept, **made}
        going = self._without(program, still)
        with Outbox(self.log, built) as out, _Transaction(self.state):
            self.journal.forget()
            taken = self._take(filled, program, again) if filled else frozenset()
            self._load(program, taken, set() if filled else again)
            missing = [source for source in program.derived if source.table not in self.state.relations]
            program.create(self.state, missing, instant)
            self.budget.check(program, self.state)
            program.prepare(self.state)
            for view in added:
                for part in difference.parts(self.state, program, view, before[view]):
                    out.add(view, part)
                for part in self._late(program, view, catalog[view]):
                    out.add(-view, part)
                for part in program.letters(view, self.state, render.state):
                    out.add(-view, letters.fresh(self.log, f"views.{program.views[view].name}", part))
            progress = replace(progress, watermarks=program.watermarks(self.state))
            self._remove_unused(going)
            self.journal.set_stored(self._stored(going))
            self.journal.set_built(built)
            progress = out.keep(self.journal, progress)
            self._require_wanted(catalog[view] for view in added)
        self.progress, self.program = progress, going
        self.built = {view: each for view, each in built.items() if view not in still}
        self.state.drop_temporary()
        publish(self.log, self.epoch, progress, built, out.parts(), out.piece)

    def _require_wanted(self, added: Iterable[View]) -> None:
        """Withdrawn where a replacement is not asked for any more; before the state holds it, which is hard to undo."""
        waiting = {each.id for each in self.log.replacements()}
        for view in added:
            if view.replaces is not None and view.id not in waiting:
                raise Withdrawn(f"the replacement of view {view.name} was taken back")

    def _late(self, program: Program, view: int, known: View) -> Iterator[pa.Table]:
        """Late rows that a load has found, for the outbox, but for those that the side topic has already."""
        compiled, topics = program.views[view], {topic.name for topic in self.log.topics()}
        own = frozenset({view if known.replaces is None else known.replaces})
        last = self.log.newest_common_step(own, self.log.newest_commit())
        after = last.input_commit if last and f"views.{compiled.name}.late" in topics else 0
        if compiled.event_time and watermark.held(compiled.event_time) in self.state.relations:
            yield from self.state.parts(watermark.held_sql(compiled.event_time, after))

    def drop(self, views: frozenset[int]) -> None:
        """Stop maintaining views and remove the state that only they used."""
        self.published()
        self.built = {view: built for view, built in self.built.items() if view not in views}
        program = self._without(self.program, views)
        with _Transaction(self.state):
            self.journal.set_built(self.built)
            self._remove_unused(program)
            self.journal.set_stored(self._stored(program))
        self.program = program

    @staticmethod
    def _without(program: Program, views: Collection[int]) -> Program:
        kept = {view: compiled for view, compiled in program.views.items() if view not in views}
        used = used_columns(kept)
        return Program(kept, {base: store for base, store in program.stores.items() if base in used})

    def _take(self, filled: Fill, program: Program, again: set[str]) -> frozenset[Base]:
        """Of what is there twice, keep one: both stand at the same commit. The topics whose filled copies are kept.

        ``again``: relations of which the filled ones are kept in any case.
        """
        taken, kept = set(), set[str]()
        for stores in filled.program.loads:
            missing = any(self.program.stores.get(s.base) != s or s.base.table in again for s in stores)
            if missing and all(program.stores[s.base] == s for s in stores):
                taken |= {store.base for store in stores}
                kept |= intake.relations(stores)
        live = {source.table for source in self.program.derived} - again
        kept |= {each.table for each in filled.program.derived if each.table not in live}
        for table in kept:
            self.state.drop(table)
        for table, relation in filled.state.relations.items():
            self.state.take(relation, keep=table in kept)
        adopted(self.state, filled.state.home)
        return frozenset(taken)

    def _remove_unused(self, program: Program) -> None:
        for table in self.state.relations.keys() - program.tables:
            self.state.drop(table)

    def anew(self, added: Mapping[int, CompiledView], catalog: Mapping[int, View]) -> set[str]:
        """The derived relations of views that shall take the place of themselves, which are doubted, and what is
        derived from these for others."""
        doubted = set[Source]()
        for view, compiled in added.items():
            old = self.program.views.get(catalog[view].replaces or 0)
            if old is not None and old.root == compiled.root:
                doubted |= {source for source in sources(compiled.root) if not isinstance(source, Base)}
        for source in self.program.derived:
            if any(doubted & set(sources(node)) for node in inputs_of(source)):
                doubted.add(source)
        return {source.table for source in doubted}

    def _before(
        self, view: View, compiled: CompiledView, catalog: Mapping[int, View], again: Collection[str]
    ) -> str | None:
        """A SELECT of what the view's changelog holds at the present step; None when it is a new one."""
        own = view if view.replaces is None else catalog[view.replaces]
        if own.topic is None or own.name != view.name:
            return None
        topic = self.log.topic(own.topic)
        difference.require_shape(topic, compiled, view.id)
        running = self.program.views.get(own.id)
        if running is not None and not self._forgotten({own.id: running}) and not reads_any(running, again):
            return self.program.contents(own.id)
        return difference.published(self.log, self.state, topic, self.log.newest_commit())

    def _forgotten(self, views: Mapping[int, CompiledView]) -> set[str]:
        """Stored relations that these views read, and of which rows may be gone: closed windows are in them no more."""
        read = {source.table for view in views.values() for source in sources(view.root)}
        return read & {source.table for source in self.program.forgets}

    def _stores(self, views: Mapping[int, CompiledView]) -> dict[Base, Store]:
        """Stored copies for these views: existing ones that have the columns, else the union of old and new."""
        found = {}
        for base, names in used_columns(views).items():
            store = self.program.stores.get(base)
            fits = store is not None and names <= set(store.schema.names)
            found[base] = store if store and fits else stored_copy(base, shape(self.log, base, names))
        return found

    def _load(self, program: Program, taken: frozenset[Base], again: set[str]) -> None:
        """Create and fill the stored copies that the running program does not have, and that were not ``taken``.

        What is to be made ``again`` is dropped.
        """
        for source in program.derived:
            if source.table in again:
                self.state.drop(source.table)
        for stores in program.loads:
            known = self.program.stores
            missing = [
                s.base for s in stores if (known.get(s.base) != s or s.base.table in again) and s.base not in taken
            ]
            if not missing:
                continue
            for table in intake.relations(stores):
                self.state.drop(table)
            users = program.users(missing[0])
            try:
                with program.blame(users):
                    intake.load(self.log, self.state, stores, self.progress.input_commit, self.rows_target)
            except RawValue as error:
                raise ViewFailed(str(error), users) from error

    def _stored(self, program: Program) -> list[Stored]:
        return [Stored(b.table, b.id, b.name, b.kind, store.schema) for b, store in program.stores.items()]

    # ---- progress

    def _now(self) -> datetime:
        return to_datetime(self.log.clock.now_us())

    def _fresh_progress(self) -> Progress:
        last = self.log.last_step()
        return Progress(
            incarnation=self.log.incarnation,
            epoch=self.epoch,
            number=last.number if last else 0,
            input_commit=0,
            instant=self._now(),
            views=frozenset(),
        )

    def _at(self, commit: int) -> Progress:
        return Progress(**{**self.progress.__dict__, "input_commit": commit})

    def _next(self, commit: int, views: frozenset[int], instant: datetime) -> Progress:
        return Progress(
            incarnation=self.progress.incarnation,
            epoch=self.epoch,
            number=self.progress.number + 1,
            input_commit=commit,
            instant=instant,
            views=views,
        )


def reads_any(view: CompiledView, tables: Collection[str]) -> bool:
    """Whether a view reads one of these stored relations."""
    return any(source.table in tables for source in sources(view.root))


def _side(view: CompiledView) -> str:
    """What ``Built.late`` says of a view."""
    return view.event_time.type if view.event_time else (letters.MARK if view.letters else "")


class _Transaction:
    """One transaction of the state: committed at the end of the block, rolled back when it raises or is given up."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.given_up = False

    def __enter__(self) -> _Transaction:
        self.state.begin()
        return self

    def give_up(self) -> None:
        self.given_up = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None and not self.given_up:
            self.state.commit()
        else:
            self.state.rollback()
