"""The jobs of a project in one process: a thread for each, so that one that waits or fails leaves the others alone.

A job is owned like a source: whoever runs it holds its lock and epoch, so two processes never run the same one. When
a file of the project's jobs changes, all are loaded anew and go on where they stand.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence

from headwater import logs
from headwater.config import Project
from headwater.errors import (
    AmbiguousName,
    ConfigError,
    CorruptFile,
    DiskFull,
    HeadwaterError,
    OwnedElsewhere,
    PipelineError,
    PositionConflict,
    PositionError,
    SchemaError,
    TopicChanged,
)
from headwater.log import Log, jobs
from headwater.log.jobs import JobRecord
from headwater.ownership import own
from headwater_pipelines import api
from headwater_pipelines.jobs import project as declared_in
from headwater_pipelines.jobs.project import Declared
from headwater_pipelines.jobs.runner import Done, Runner, Waiting

WAIT_S = 0.25
"""How long an idle job sleeps at most: then it looks whether it was paused."""
BEAT_S = 0.25
BUSY_S = 1.0
"""A job in a call of so long is shown as live all the same."""
JOIN_S = 0.05
"""How often the process looks after its threads."""
LOOK_S = 1.0
"""How often the process beats, the folder is looked at, and a job that another process runs is asked for."""
_PAUSE = (AmbiguousName, PipelineError, SchemaError, CorruptFile, PositionError, ConfigError)
"""What a person has to mend: the job waits for that, paused with the reason."""


def run(
    log: Log, project: Project, stop: threading.Event, names: Sequence[str] = (), *, until_caught_up: bool = False
) -> None:
    """Run the project's jobs, or those named, until ``stop``; or until each has taken in what is there now.

    ConfigError and NameNotFound for what is declared; OwnedElsewhere when a named one runs in another process.
    """
    if until_caught_up:
        _catch_up(log, project, stop, _chosen(project, names), wait=not names)
        return
    if names:
        _chosen(project, names)
    while True:
        seen = declared_in.stamp(project)  # before they are loaded, or a change meanwhile would go unseen
        declared, errors = declared_in.load(project)
        _report(log, errors, {each.job.name for each in declared})
        mine = [each for each in declared if not names or each.job.name in names]
        if not mine:
            logs.logger("jobs").warning("jobs/ declares no job to run: waiting for one")
        if _run_all(log, project, stop, [JobWorker(log, project, each, wait=not names) for each in mine], seen):
            return
        logs.logger("jobs").info("jobs/ changed: applying")


def _chosen(project: Project, names: Sequence[str]) -> list[Declared]:
    """The jobs of these names. ConfigError where there is none at all, and for a file with a mistake."""
    declared, errors = declared_in.load(project)
    if not declared and not errors:
        raise ConfigError("the project declares no job", where=str(project.jobs_dir), todo="Write one with @hw.job.")
    if errors:
        raise next(iter(errors.values()))
    return declared_in.choose(declared, names)


def _catch_up(log: Log, project: Project, stop: threading.Event, declared: Sequence[Declared], *, wait: bool) -> None:
    """Once for every job: one may read what another one has written meanwhile.

    PipelineError when one was paused, or waits for something that nobody here can give it.
    """
    before = {record.name for record in jobs.read(log) if record.state == "paused"}
    for _ in declared:
        until = log.newest_commit()
        _run_all(log, project, stop, [JobWorker(log, project, each, wait=wait, until=until) for each in declared], None)
        if stop.is_set() or log.newest_commit() == until:
            break
    mine = {each.job.name for each in declared}
    paused = [r for r in jobs.read(log) if r.state == "paused" and r.name in mine - before]
    waiting = [r for r in jobs.read(log) if r.state == "waiting" and r.name in mine]
    if (paused or waiting) and not stop.is_set():
        resume = f"Mend it, then `headwater job resume {paused[0].name}`." if paused else ""
        raise PipelineError("; ".join(map(_behind, [*paused, *waiting])), todo=resume)


def _behind(record: JobRecord) -> str:
    """Why a job has not taken in what is there."""
    return f"job {record.name} {'is paused' if record.state == 'paused' else 'waits'}: {record.reason}"


def _report(log: Log, errors: Mapping[str, HeadwaterError], declared: Collection[str]) -> None:
    """Jobs of a file with a mistake have failed, until it is mended; so have those that no file declares any more."""
    for error in errors.values():
        logs.logger("jobs").error(str(error))
    for record in jobs.read(log):
        if record.state != "paused" and record.name not in declared:
            mistake = errors.get(record.file.partition(":")[0].removeprefix("jobs/"))
            gone = f"jobs/ does not declare it any more. `headwater job drop {record.name}` forgets it."
            jobs.set_state(log, record.name, "failed", gone if mistake is None else str(mistake))


def _run_all(
    log: Log,
    project: Project,
    stop: threading.Event,
    workers: Sequence[JobWorker],
    seen: declared_in.Stamp | None,
) -> bool:
    """Whether it is the end; False when a file changed. Raises what ended a job that is not paused for it."""
    _register(log, [worker.declared for worker in workers])
    for worker in workers:
        worker.start()
    next_look = 0.0
    try:
        while not stop.is_set() and (seen is not None or any(worker.is_alive() for worker in workers)):
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + LOOK_S
                log.live.beat(jobs.COMPONENT, state="running", error=None, jobs=len(workers))
                if seen is not None and declared_in.stamp(project) != seen:
                    return False
            for worker in workers:
                worker.show_busy()
            if any(worker.error for worker in workers):
                break
            stop.wait(JOIN_S)
    finally:
        for worker in workers:
            worker.stop.set()
        for worker in workers:
            worker.join()
    for worker in workers:
        if worker.error is not None:
            log.live.beat(jobs.COMPONENT, state="error", error=str(worker.error))
            raise worker.error
    log.live.beat(jobs.COMPONENT, state="stopped", error=None)
    return True


def _register(log: Log, declared: Sequence[Declared]) -> None:
    """Tell the catalog what there is. A job that would read its own output, through others too, is paused."""
    for each in declared:
        jobs.register(log, declared_in.record_of(log, each))
    reads: dict[str, Sequence[str]] = {record.output: record.inputs for record in jobs.read(log)}
    if log.views():
        reads |= {f"views.{name}": inputs for name, inputs in api.lineage(log).items()}
    for each in declared:
        circle = jobs.circle(reads, each.job.topic)
        if circle:
            reason = f"it would read what it writes: {' → '.join(circle)}"
            jobs.set_state(log, each.job.name, "paused", reason)


class JobWorker(threading.Thread):
    """One job's thread. ``error``: what ended it, that is no reason to pause the job."""

    def __init__(self, log: Log, project: Project, declared: Declared, *, wait: bool, until: int | None = None) -> None:
        super().__init__(name=f"job {declared.job.name}", daemon=True)
        self.log = log
        self.project = project
        self.declared = declared
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self.rows = 0
        self.times: deque[float] = deque(maxlen=500)
        self._name = declared.job.name
        self._component = jobs.PREFIX + self._name
        self._until = until
        self._wait = wait
        self._waits = False
        self._told = ""
        """Who runs the job instead, once that was said."""
        self._owns = False
        self._last_beat = 0.0
        self._rate = 0.0

    def run(self) -> None:
        try:
            while not self.stop.is_set() and not self._is_done():
                if self._record().state == "paused":
                    self._rest("paused")
                else:
                    self._own()
        except BaseException as error:  # noqa: BLE001 -- a thread's end is told to whoever started it
            self.error = error

    # ---- the job, as long as it is ours

    def _own(self) -> None:
        """Run the job until it is stopped, paused, done, or starts anew."""
        try:
            with own(self.log, self._component) as owner:
                self._owns = True
                self._run_as(owner.epoch)
                if self.stop.is_set() or self._is_done():
                    self._beat("stopped", None)
                self._owns = False
        except OwnedElsewhere as error:
            if not self._wait:
                raise
            self._await(error.what)

    def _await(self, told: str) -> None:
        """Another process runs the job: say so once, and look again in a while."""
        if told != self._told:
            self._told = told
            until = "until it ends" if self._until is None else "until it has taken in what is there"
            logs.logger("jobs").info(f"{told}: waiting {until}")
        self.stop.wait(LOOK_S)
        self._waits = self._record().state == "waiting"

    def _run_as(self, epoch: int) -> None:
        self._beat("starting", None)
        try:
            runner = Runner(self.log, self.declared.job, epoch, self.project.settings)
        except _PAUSE as error:
            self._pause(error)
            return
        try:
            self._follow(runner)
        except (PositionConflict, DiskFull, TopicChanged) as error:
            logs.logger("jobs").warning(f"job {self._name} starts again: {error}")
        except _PAUSE as error:
            self._pause(error)
            return
        finally:
            runner.close()
        if not self._is_done():
            self.stop.wait(WAIT_S)

    def _follow(self, runner: Runner) -> None:
        while not self.stop.is_set() and not self._is_done(runner):
            newest = self.log.newest_commit()
            began = time.monotonic()
            done = self._step(runner, newest)
            if done is not None:
                self._count(done, time.monotonic() - began)
            self._show(runner, "live" if done else "idle")
            if self._record().state == "paused":
                return
            if done is None and not self._is_done(runner):
                self.log.wait(newest, WAIT_S)

    def _step(self, runner: Runner, newest: int) -> Done | None:
        """One step; without its inputs there is none, and they may come."""
        try:
            done = runner.step(newest)
        except Waiting as error:
            self._mark("waiting", error.what)
            self._waits = True
            return None
        self._waits = False
        if self._record().state in ("waiting", "failed"):
            jobs.register(self.log, declared_in.record_of(self.log, self.declared))  # its inputs have their names now
            self._mark("live", "")
        return done

    def _is_done(self, runner: Runner | None = None) -> bool:
        """With ``until``, whether the job has taken in everything up to there, or will not."""
        if self._until is None:
            return False
        record = self._record()
        after = runner.after if runner is not None else jobs.position(self.log, self._name)
        if record.state == "paused" or self._waits or after is None:
            return record.state == "paused" or self._waits
        rest = jobs.unseen(self.log, record, self._until)
        return after >= self._until or (rest is not None and not rest.total)

    # ---- what is told

    def _record(self) -> JobRecord:
        return jobs.find(self.log, self._name)

    def _pause(self, error: HeadwaterError) -> None:
        reason = (
            str(error) if not isinstance(error, PipelineError) else " ".join(filter(None, (error.what, error.todo)))
        )
        self._mark("paused", reason)
        self._beat("paused", None)

    def _mark(self, state: jobs.State, reason: str) -> None:
        record = self._record()
        if (record.state, record.reason) == (state, reason) or record.state == "paused":
            return
        jobs.set_state(self.log, self._name, state, reason)
        if state in ("paused", "waiting"):
            level = logging.ERROR if state == "paused" else logging.INFO
            logs.logger("jobs").log(level, _behind(self._record()))

    def _rest(self, state: str) -> None:
        self._beat(state, None)
        self.stop.wait(WAIT_S)

    def _count(self, done: Done, seconds: float) -> None:
        self.times.append(seconds)
        self.rows += done.rows
        if done.letters:
            rows = "1 row that fails" if done.letters == 1 else f"{done.letters:,} rows that fail"
            where = f"`headwater dlq show {self.declared.job.topic}`"
            logs.logger("jobs").warning(f"job {self._name} went on without {rows}: {where}")
        self._rate = done.rows / seconds if seconds else 0.0

    def _show(self, runner: Runner, state: str) -> None:
        if time.monotonic() - self._last_beat >= BEAT_S:
            self._beat(state, runner)

    def show_busy(self) -> None:
        """Beat for the job's thread while that is in a long call; for the thread that looks after it."""
        if self._owns and time.monotonic() - self._last_beat > BUSY_S:
            self._last_beat = time.monotonic()
            self.log.live.beat(self._component, state="live", error=None)

    def _beat(self, state: str, runner: Runner | None) -> None:
        """Show what this job does; display only."""
        self._last_beat = time.monotonic()
        ordered = sorted(self.times)
        figures: dict[str, int | float | None] = {
            "rows": self.rows,
            "rows_per_s": round(self._rate if state == "live" else 0.0, 1),
            "step_ms_last": round(self.times[-1] * 1e3, 2) if self.times else None,
            "step_ms_p95": round(ordered[int(len(ordered) * 0.95)] * 1e3, 2) if ordered else None,
        }
        if runner is not None:
            figures |= {"input_commit": runner.after, "state_rows": None if runner.state is None else len(runner.state)}
        self.log.live.beat(self._component, state=state, error=None, **figures)
