"""The pipeline worker: follows the catalog's views, steps, and says how it fares. One per lake.

A view that fails is paused with its reason and the others go on; `headwater resume` rebuilds it. A definition
that does not compile (a table that is not there yet, say) is marked failed and tried again when topics change.
While a table is copied again (``reshaping``) its views wait, and are built anew when it is live.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping

import duckdb

from headwater import logs
from headwater.catalog.records import View
from headwater.config import Settings
from headwater.errors import CorruptFile, HeadwaterError, NameNotFound, StateMismatch
from headwater.log import Log
from headwater.log.topics import GENERATION
from headwater.ownership import own
from headwater_pipelines import api
from headwater_pipelines.compiler import CompiledView
from headwater_pipelines.compiler.refresh import is_continuous
from headwater_pipelines.compiler.syntax import Duck
from headwater_pipelines.runtime import registry
from headwater_pipelines.runtime.blame import ViewFailed
from headwater_pipelines.runtime.budget import Budget
from headwater_pipelines.runtime.engine import Engine, Withdrawn, reads_any
from headwater_pipelines.runtime.fill import Fill, rows_at
from headwater_pipelines.runtime.intake import Range, RawValue
from headwater_pipelines.runtime.merging import Merging
from headwater_pipelines.runtime.publish import PRODUCER
from headwater_pipelines.runtime.pulse import Pulse
from headwater_pipelines.runtime.schedule import Schedule
from headwater_pipelines.runtime.state import FILE, WAL_BYTES_MAX, State, remove

FEW_ROWS = 10_000
"""A step of no more change records is planned as one of few rows."""
DUCKDB_SHARE = 15 / 16
"""Of the pipeline's memory; DuckDB does not count all that it takes."""
FILL_WAIT_S = 0.02
"""While a fill runs the worker looks so often for new commits, and for its end."""
LARGE_STEP = "large step"
"""What the worker shows during a step of one commit that is larger than a step is meant to be."""
WAIT_S = 0.25
"""How long the worker sleeps at most when nothing is committed: it looks for new views and stop requests."""
IDLE_CHECKPOINT_BYTES = 1 << 20
"""An idle worker moves a WAL of this size into the file: a restart then replays little."""
IDLE_S = 2.0
"""Quiet for so long counts as idle: a gap between two commits of a busy source does not."""


def run(log: Log, settings: Settings, stop: threading.Event, *, until_caught_up: bool = False) -> None:
    """Own the pipeline and maintain every view until ``stop``, or until all input of now is consumed.

    OwnedElsewhere when another process runs it; Fenced when one took over.
    """
    with own(log, PRODUCER) as owner:
        while not _worked(Worker(log, owner.epoch, settings), stop, log.newest_commit() if until_caught_up else None):
            logs.logger("pipeline").info("something was dropped while it was taken up: begins anew")


def _worked(worker: Worker, stop: threading.Event, until: int | None) -> bool:
    """Whether a worker ended in order; False where a view or topic was dropped under its hands.

    Such a one begins anew, as after a crash, and with what there is then: one half of what it does may be done.
    """
    try:
        worker.run(stop, until)
    except NameNotFound as error:
        if not worker.is_outdated:
            worker.beat("error", str(error))
            raise
        return False
    except HeadwaterError as error:
        worker.beat("error", str(error))
        raise
    finally:
        worker.close()
    worker.beat("stopped", None)
    return True


class Worker:
    """See ``run``; ``epoch`` proves that the caller owns the pipeline."""

    def __init__(self, log: Log, epoch: int, settings: Settings) -> None:
        self.log = log
        self.epoch = epoch
        self.settings = settings
        self.pulse = Pulse(log)
        self.duck = Duck()
        self.generation = ""
        self.begun = ""
        """The catalog's generation when it was last looked at, whether or not that came to an end."""
        self.fill: Fill | None = None
        self.merging = Merging()
        self.asked: list[Mapping[int, CompiledView]] = []
        """What the present look at the catalog wants to be filled."""
        self.schedule = Schedule(log)
        self.looked = 0
        """The newest commit that a step has looked at."""
        self.engine = self._open()

    def run(self, stop: threading.Event, until: int | None) -> None:
        """Step until stopped; with ``until``, until the views stand at that commit."""
        while not stop.is_set():
            if until is None and api.paused_by(self.log) is not None:
                self.beat("paused", None)
                stop.wait(WAIT_S)
                continue
            found = self.advance(beside=True)
            if found is not None:
                continue
            if until is not None and self._has_reached(until):
                return
            if self.fill is not None:
                self.fill.wait(FILL_WAIT_S)
            else:
                self.engine.demand.waits()
                self.log.wait(self.looked, WAIT_S)
        self.engine.published()

    def advance(self, *, beside: bool = False) -> Range | None:
        """One step and what is done between two; None when there was nothing to take in.

        ``beside``: if there was something, it may still be on its way into the log.
        """
        self._reconcile()
        found = self._step(beside=beside)
        if found is None:
            self.engine.published()
        self._housekeeping(idle=found is None)
        return found

    @property
    def is_outdated(self) -> bool:
        """Whether the catalog's topics or views have changed since it was looked at."""
        return self.begun != "" and self.log.setting(GENERATION) != self.begun

    def close(self) -> None:
        if self.fill is not None:
            self.fill.close(keep=True)  # the next start takes it up
        self.merging.close()
        self.engine.close()
        self.pulse.close()

    # ---- start

    def _open(self) -> Engine:
        self.beat("starting", None)
        try:
            return self._take_over()
        except StateMismatch as mismatch:
            logs.logger("pipeline").warning(str(mismatch))
        remove(self.log.folder / "state" / FILE)
        return self._take_over()

    def _take_over(self) -> Engine:
        engine = self._engine()
        try:
            engine.open(lambda: registry.compile_all(self.log, self.log.views(), self.duck)[0])
        except BaseException:
            engine.close()
            raise
        return engine

    def _engine(self) -> Engine:
        state = State(
            self.log.folder / "state" / FILE,
            timezone=self.log.timezone,
            memory_limit=f"{int(self.settings.pipeline_memory_bytes_max * DUCKDB_SHARE) >> 20}MiB",
            open_rows_max=self.settings.open_rows_max,
            threads=max(1, (os.cpu_count() or 1) // 2),  # the server, the capture and readers need the rest
        )
        state.freezes_beside = True
        return Engine(
            self.log, self.epoch, state, self.settings.step_rows_target, Budget(self.settings.view_state_bytes_max)
        )

    # ---- views

    def _reconcile(self) -> None:
        """Bring the program in line with the catalog; cheap unless the catalog's topics or views changed."""
        generation = self.begun = self.log.setting(GENERATION) or ""
        ended = self.fill is not None and not self.fill.is_running
        if generation == self.generation and not ended and not self.schedule.is_due:
            return
        self.asked = []
        catalog = {view.id: view for view in self.log.views()}
        compiled, errors = registry.compile_all(self.log, list(catalog.values()), self.duck)
        waiting = registry.waiting(self.log, compiled)
        ready = compiled.keys() - waiting.keys()
        wanted = {v: compiled[v] for v, view in catalog.items() if view.state != "paused" and v in ready}
        asleep = {v for v, each in wanted.items() if not self.schedule.is_wanted(catalog[v], each)}
        wanted = {v: each for v, each in wanted.items() if v not in asleep}
        self._forget({v: each for v, each in wanted.items() if is_continuous(each.definition.options)})
        self.schedule.keep(asleep)
        for view in waiting.keys() & catalog.keys():
            if catalog[view].state != "paused":
                self._mark(catalog[view], "waiting", waiting[view])
        for view in errors.keys() & catalog.keys():
            if catalog[view].state != "paused":
                # Before the initial copy is published its tables are not there: that is no failure.
                waits = isinstance(errors[view], NameNotFound) and catalog[view].state == "creating"
                self._mark(catalog[view], "creating" if waits else "failed", str(errors[view]))
        added = {v: view for v, view in wanted.items() if v not in self.engine.program.views}
        self._build(added, catalog)
        for new in self.log.replacements():
            self._replace(new)
        for view in self.engine.program.views.keys() & catalog.keys():
            if catalog[view].state != "live":
                self._mark(catalog[view], "live", "")
        if self.fill is not None and self.fill.views not in self.asked:
            self.fill.close()
            self.fill = None
            ended = True
        if self.fill is None:
            self.engine.forget_fills()
        # Marks made above, and what others did meanwhile, made another generation: the next round looks at it. So it
        # does when a fill has ended: another view may have waited for it.
        self.generation = "" if ended else generation

    def _forget(self, wanted: Mapping[int, CompiledView]) -> None:
        """Remove the state of views that are dropped, paused, or defined over tables of another shape."""
        current = self.engine.program.views
        gone = {view for view in self.engine.built if view not in wanted or wanted[view] != current.get(view)}
        gone |= self.engine.stale()
        if gone:
            self.engine.drop(frozenset(gone))

    def _build(self, added: Mapping[int, CompiledView], catalog: Mapping[int, View]) -> None:
        """Fill new views; those that wait, together, so that what they read is loaded once."""
        for view, compiled in added.items():
            self._catch_up(compiled, catalog[view])
        for group in self._groups(added):
            rest = group
            while rest and (failed := self._fill(rest, catalog)):
                rest = {view: compiled for view, compiled in rest.items() if view not in failed}

    def _groups(self, added: Mapping[int, CompiledView]) -> list[Mapping[int, CompiledView]]:
        """What is being filled, which goes on as it is; then what need not wait for its end; then the rest."""
        begun = self.fill.views if self.fill is not None else {}
        begun = begun if all(added.get(view) == compiled for view, compiled in begun.items()) else {}
        rest = {view: compiled for view, compiled in added.items() if view not in begun}
        short = {view: compiled for view, compiled in rest.items() if not self._is_long({view: compiled})}
        return [begun, short, {view: compiled for view, compiled in rest.items() if view not in short}]

    def _fill(
        self, added: Mapping[int, CompiledView], catalog: Mapping[int, View], blamed: frozenset[int] = frozenset()
    ) -> frozenset[int]:
        """Build views together, long ones beside the steps. When that fails some are paused, which are returned.

        ``blamed``: which, whoever the error names.
        """
        self.asked.append(added)
        filled = self.fill if self.fill is not None and self.fill.views == added else None
        if filled is None and self._is_long(added):
            if self.fill is None:
                self.fill = self.engine.fill(added, self.settings.reader_expiry_s)
            return frozenset()
        if filled is not None and filled.is_running:
            return frozenset()
        started = time.monotonic()
        self.beat("filling", None)
        done = False
        still = [view for view, each in added.items() if not is_continuous(each.definition.options)]
        self.engine.state.plan(briefly=False)
        try:
            if filled is not None and filled.error is not None:
                raise filled.error
            with self.pulse.doing("filling"):
                self.engine.build(added, catalog, filled)
            done = True
            for view in still:
                self.schedule.sleep(view, added[view], self.engine.progress.instant)
                if catalog[view].replaces is None:
                    self._mark(catalog[view], "live", "")
        except Withdrawn as error:
            logs.logger("pipeline").info(str(error))
            return frozenset()
        except (ViewFailed, RawValue, CorruptFile) as error:
            guilty = blamed or _guilty(error, added)
            for view in guilty:
                self._mark(catalog[view], "paused", error.what)
            return guilty
        finally:
            if filled is not None:
                filled.close(keep=done)
                self.fill = None
        took = round((time.monotonic() - started) * 1e3)
        names = ", ".join(catalog[view].name for view in added)
        logs.logger("pipeline").info("view filled", extra={"view": names, "duration_ms": took})
        return frozenset()

    def _replace(self, new: View) -> None:
        """Build a replacement, together with the running views whose plans become others, and switch to it."""
        if new.state == "paused":
            return
        catalog = {view.id: view for view in self.log.views()} | {new.id: new}
        swapped = [view for view in catalog.values() if view.id != new.replaces]
        compiled, errors = registry.compile_all(self.log, swapped, self.duck)
        waiting = registry.waiting(self.log, compiled)
        if new.id in errors:
            self._mark(new, "failed", str(errors[new.id]))
        elif new.id in waiting:
            self._mark(new, "waiting", waiting[new.id])
        else:
            self._catch_up(compiled[new.id], new)
            mine, running = {new.id: compiled[new.id]}, self.engine.program.views
            again = self.engine.anew(mine, catalog)
            others = {v: each for v, each in compiled.items() if v in running}
            readers = {v: each for v, each in others.items() if each != running[v] or reads_any(each, again)}
            self._fill({**mine, **readers}, catalog, frozenset({new.id}))

    def _is_long(self, added: Mapping[int, CompiledView]) -> bool:
        """Whether to fill these views between two steps would keep others waiting."""
        if not self.engine.program.views:
            return False
        commit = self.engine.progress.input_commit
        return (
            sum(rows_at(self.log, base, commit) for base in registry.used_columns(added))
            >= self.settings.fill_beside_rows_min
        )

    def _catch_up(self, compiled: CompiledView, view: View) -> None:
        """A view is filled at the present input commit: its tables must exist there, and be whole again."""
        target = max((self.log.topic(base.name).created for base in compiled.used), default=0)
        if view.state == "waiting" or not is_continuous(compiled.definition.options):
            target = self.log.newest_commit()
        while self.engine.program.views and self.engine.progress.input_commit < target:
            if self._step() is None:
                return

    def _mark(self, view: View, state: str, reason: str) -> None:
        if (view.state, view.reason) == (state, reason):
            return
        self.log.set_view(view, state=state, reason=reason)
        if state in ("paused", "failed"):
            logs.logger("pipeline").error(f"view {view.name} is {state}: {reason}", extra={"view": view.name})

    # ---- steps

    def _step(self, *, beside: bool = False) -> Range | None:
        """One step; a view that fails in it is paused, and the step is done without it."""
        self.looked = self.log.newest_commit()
        while self.engine.program.views:
            started = time.monotonic()
            try:
                found = self.engine.next(self.looked)
                self._take(found, beside=beside)
            except ViewFailed as error:
                self._pause(error.views, error.what)
                continue
            except (RawValue, CorruptFile) as error:
                topic = error.facts.get("topic")
                if topic is None:
                    raise
                views = self.engine.program.views.items()
                self._pause(frozenset(v for v, c in views if any(b.name == topic for b in c.used)), str(error))
                continue
            self._limit()
            if not found.commits:
                return None
            seconds = time.monotonic() - started
            self.pulse.measured(found.rows, seconds)
            self.engine.pace.measured(found.rows, seconds)
            return found
        return None

    def _take(self, found: Range, *, beside: bool) -> None:
        self.engine.state.plan(briefly=found.rows <= FEW_ROWS and self.fill is None)
        if not self.engine.is_large(found):
            with self.pulse.doing("live"):
                self.engine.step(found, beside=beside)
            return
        facts = {"commit": found.upto, "rows": found.rows}
        logs.logger("pipeline").info("large step begins", extra=facts)
        started = time.monotonic()
        with self.pulse.doing(LARGE_STEP):
            self.engine.step(found)
        took = round((time.monotonic() - started) * 1e3)
        logs.logger("pipeline").info("large step published", extra={**facts, "duration_ms": took})

    def _limit(self) -> None:
        """Pause views whose state has outgrown its budget."""
        try:
            self.engine.budget.check(self.engine.program, self.engine.state)
        except ViewFailed as error:
            self._pause(error.views, error.what)

    def _pause(self, views: frozenset[int], reason: str) -> None:
        catalog = {view.id: view for view in self.log.views()}
        self.engine.drop(views)
        for view in views & catalog.keys():
            self._mark(catalog[view], "paused", reason)

    def _has_reached(self, commit: int) -> bool:
        if self.fill is not None or not self.generation:
            return False
        if not self.engine.program.views:
            return True
        rest = self.log.commits(self.engine.progress.input_commit, commit)
        return all(info.producer == PRODUCER for info in rest)

    # ---- housekeeping

    def _housekeeping(self, *, idle: bool) -> None:
        state = self.engine.state
        self.merging.tend(state)
        idle = idle and time.monotonic() - self.pulse.last_step > IDLE_S
        if state.wal_bytes >= (IDLE_CHECKPOINT_BYTES if idle else WAL_BYTES_MAX):
            self._checkpoint()
        if self.pulse.is_due:
            self.beat("idle" if idle else "live", None)

    def _checkpoint(self) -> None:
        is_shared = self.fill is not None or self.merging.is_running
        try:
            self.engine.state.checkpoint()
        except duckdb.TransactionException:
            if not is_shared:
                raise
            # DuckDB refuses it while the fill writes, or what freezes rows has given them a name: it is made later.

    def beat(self, state: str, error: str | None) -> None:
        """Show what this worker does; display only."""
        self.pulse.beat(state, error, getattr(self, "engine", None), self.fill)


def _guilty(error: ViewFailed | RawValue | CorruptFile, views: Mapping[int, CompiledView]) -> frozenset[int]:
    """Those of some views that an error concerns; all where it does not say."""
    if isinstance(error, ViewFailed):
        found = error.views & views.keys()
    else:
        topic = error.facts.get("topic")
        found = frozenset(v for v, view in views.items() if any(base.name == topic for base in view.used))
    return found or frozenset(views)
