"""One job, step by step: changes in, its function, then output, state and position as one commit.

    position ─▶ whole commits after it ─▶ function, a call for each part ─▶ transaction: output, state, position
                                             │ reads and changes                │
                                             state in DuckDB ◀── kept ──────────┘ or thrown away with it

Whatever ends a step before its commit leaves nothing of it; whatever ends it after, finds it done. So each change is
taken in exactly once.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import polars as pl

from headwater.catalog.records import Topic
from headwater.config import Settings
from headwater.errors import NameNotFound, PipelineError
from headwater.failpoint import hit
from headwater.jobs import Job
from headwater.log import Log, backlog, dead_letters, jobs
from headwater_pipelines.jobs.calls import Calls, require_same, state_schema
from headwater_pipelines.jobs.intake import Intake
from headwater_pipelines.jobs.room import Room
from headwater_pipelines.jobs.state import KeyedState

CONFIRM_S = 10.0
"""A job whose inputs are quiet says this often how far it has looked, so that it holds no history back."""


class Waiting(PipelineError):
    """An input is not there, or its rows are not the source's until it is copied again."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """A published step: commits in (after, upto], rows taken in and given out, and those that became dead letters."""

    after: int
    upto: int
    rows: int
    rows_out: int
    letters: int
    commit: int


class Runner:
    """Build it as the owner of the job with this epoch. Not thread-safe; ``close`` it.

    ``step`` raises JobFailed for what the function did or returned, Waiting, and what the log raises (Fenced,
    PositionConflict, Expired, CorruptFile, DiskFull, ...). After any of them build another one.
    """

    def __init__(self, log: Log, job: Job, epoch: int, settings: Settings) -> None:
        self.log = log
        self.job = job
        self.epoch = epoch
        folder = log.folder / "state" / f"job-{job.name}"
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
        room = Room.of(folder, settings)
        self.producer = jobs.PREFIX + job.name
        self.after = jobs.position(log, job.name)
        self._confirmed = time.monotonic()
        self.state = open_state(log, job, room, log.newest_commit())
        self._intake = Intake(log, job.batch_rows, room)
        self._calls = Calls(log, job, self.state)

    def close(self) -> None:
        if self.state is not None:
            self.state.close()

    def step(self, newest: int) -> Done | None:
        """Take in what there is up to ``newest``, about a batch of it; None when there is nothing."""
        inputs = inputs_of(self.log, self.job)
        if self.after is None and self.job.start == "rows":
            return self._publish(0, newest, self._intake.current(inputs, newest))
        if self.after is None:
            self._move_to(newest if self.job.start == "latest" else 0)
            return None
        after = self.after
        rest = backlog.after(self.log, [topic.id for topic in inputs], after, newest)
        if not rest.total:
            self._look(newest)
            return None
        upto = rest.cut(self.job.batch_rows)
        done = self._publish(after, upto, self._intake.changes(inputs, after, upto))
        if done is None:
            self._move_to(upto)
        return done

    # ---- where it stands

    def _look(self, newest: int) -> None:
        """Nothing was there up to ``newest``."""
        self.after = newest
        if time.monotonic() - self._confirmed > CONFIRM_S:
            self._move_to(newest)

    def _move_to(self, commit: int) -> None:
        """Remember that there is nothing for the job up to a commit; no commit of its own is made for that."""
        self.after = commit
        self._confirmed = time.monotonic()
        self.log.set_confirmed(self.producer, str(commit))

    # ---- a step

    def _publish(self, after: int, upto: int, calls: Iterator[list[pl.DataFrame]]) -> Done | None:
        """One commit with everything that the calls gave; None, and no commit, when there was no row for them."""
        stored = self.log.producer(self.producer).position
        with self.log.transaction(self.producer, self.epoch, stored) as tx:
            try:
                made = self._calls.make(tx, tx.append, after, upto, calls)
                if not made.rows and stored is not None:
                    self._rollback()
                    return None
                self._calls.declare_output(tx)
                if made.letters is not None:
                    dead_letters.append(tx, self.job.topic, made.letters)
                tx.position = str(upto)
                hit("job.commit:before")
                info = tx.commit()
            except BaseException:
                self._rollback()
                raise
        hit("job.commit:after")
        if self.state is not None:
            self.state.commit()
        self.after = upto
        self._confirmed = time.monotonic()
        return Done(
            after=after,
            upto=upto,
            rows=made.rows,
            rows_out=made.rows_out,
            letters=0 if made.letters is None else made.letters.num_rows,
            commit=info.number,
        )

    def _rollback(self) -> None:
        if self.state is not None:
            self.state.rollback()


def inputs_of(log: Log, job: Job) -> list[Topic]:
    """The topics that a job reads; Waiting when one is not there or is being copied again."""
    try:
        found = [log.topic(name) for name in job.inputs]
    except NameNotFound as error:
        raise Waiting(error.what) from error
    for topic in found:
        if topic.state == "reshaping":
            raise Waiting(f"{topic.name} is reshaping: {topic.reason}")
    return found


def open_state(log: Log, job: Job, room: Room, commit: int) -> KeyedState | None:
    """A job's state at a commit; None for a job that declares none. SchemaError when it has another shape."""
    if not job.state:
        return None
    schema = state_schema(job)
    topic = next((each for each in log.topics(hidden=True) if each.name == job.state_topic), None)
    if topic is not None:
        require_same(topic, schema, job)
    made = KeyedState(schema, f"state of job {job.name}", log.timezone, room)
    if topic is not None and topic.created <= commit:
        try:
            made.load(log, topic, commit)
        except duckdb.Error as error:
            made.close()
            todo = "Raise job_memory_bytes_max in [settings], then `headwater job resume`."
            raise PipelineError(f"the state of job {job.name} cannot be read: {error}", todo=todo) from error
    return made
