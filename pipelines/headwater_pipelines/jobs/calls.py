"""The calls of one step of a job: its function gets frames, and what it returns becomes records of its output.

Nothing is published here: records go to ``append``, and the topics they are for are those of a transaction that the
caller commits, or, in a replay, throws away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from headwater.catalog.records import Topic
from headwater.errors import PipelineError, SchemaError
from headwater.failpoint import hit
from headwater.jobs import NAMESPACE, Job, JobContext
from headwater.log import Log, Transaction
from headwater.schema import Schema
from headwater_pipelines.jobs.failure import JobFailed, calling
from headwater_pipelines.jobs.letters import Letters
from headwater_pipelines.jobs.records import infer, to_output
from headwater_pipelines.jobs.state import KeyedState, NoState


@dataclass(frozen=True, kw_only=True)
class Made:
    """What the calls of a step came to, beside its records: rows taken in and given out, and dead letters."""

    rows: int
    rows_out: int
    letters: pa.Table | None


Append = Callable[[str, pa.Table], None]
"""Takes records of the topic of this full name."""


class Calls:
    """A job's function with its state; JobFailed for whatever it does wrong."""

    def __init__(self, log: Log, job: Job, state: KeyedState | None) -> None:
        self.log = log
        self.job = job
        self.state = state

    def make(self, tx: Transaction, append: Append, after: int, upto: int, calls: Iterator[list[pl.DataFrame]]) -> Made:
        """Call the function with the frames of commits in (after, upto]."""
        if self.state is not None:
            name, about = self.job.state_topic, f"state of job {self.job.name}"
            tx.create_topic(name, "table", self.state.schema, description=about, hidden=True, if_absent=True)
            self.state.begin(lambda table: append(name, table))
        instant = self.log.commit_info(upto).time
        state = NoState(self.job.name) if self.state is None else self.state
        rows = rows_out = 0
        letters = Letters(self.log, self.job)
        for part, frames in enumerate(calls):
            rows += sum(frame.height for frame in frames)
            context = JobContext(job=self.job.name, after=after, commit=upto, instant=instant, state=state, part=part)
            for given in self._attempt(tx, frames, context, letters):
                rows_out += given.num_rows
                append(self.job.topic, given)
        return Made(rows=rows, rows_out=rows_out, letters=letters.table())

    def declare_output(self, tx: Transaction) -> None:
        """A declared output is there from the first step on, so that views and other jobs can name it."""
        schema = output_schema(self.job)
        if schema is not None:
            self._create(tx, schema)

    def _attempt(
        self, tx: Transaction, frames: list[pl.DataFrame], context: JobContext, letters: Letters
    ) -> Iterator[pa.Table]:
        """What the function returns; where it fails and the job goes on all the same, for each half of the rows."""
        if self.job.on_error == "fail":
            given = self._call(tx, frames, context)
        else:
            try:
                with nullcontext() if self.state is None else self.state.whole():
                    given = self._call(tx, frames, context)
            except JobFailed as error:
                if self.state is not None and self.state.is_broken:
                    raise  # that is no row's fault
                if sum(frame.height for frame in frames) > 1:
                    for half in _halves(frames):
                        yield from self._attempt(tx, half, context, letters)
                else:
                    letters.add(frames, error)
                return
        if given is not None:
            yield given

    def _call(self, tx: Transaction, frames: list[pl.DataFrame], context: JobContext) -> pa.Table | None:
        """What the function returns, as records of the output."""
        hit("job.call:before")
        with calling(self.job):
            returned = self.job(*frames, *([context] if self.job.takes_context else []))
            if self.state is not None and self.state.is_broken:
                raise PipelineError("a statement of the state has failed, and the function went on all the same")
            if returned is None:
                return None
            topic = self._output(tx, returned)
            return None if topic is None else to_output(returned, topic, self.log.timezone)

    def _output(self, tx: Transaction, first: pl.DataFrame) -> Topic | None:
        """The output's topic as the transaction has it; made from the first rows where nothing declares it."""
        if not isinstance(first, pl.DataFrame):
            raise SchemaError(f"it returned a {type(first).__name__}", todo="Return a Polars DataFrame, or None.")
        schema = output_schema(self.job)
        if schema is None and tx.topic(self.job.topic) is None:
            if not first.height:
                return None
            schema = infer(first, self.job.key)
        if schema is not None:
            self._create(tx, schema)
        return tx.topic(self.job.topic)

    def _create(self, tx: Transaction, schema: Schema) -> None:
        known = tx.topic(self.job.topic)
        begins = tx.expected_position is None and known is not None and known.id
        if known is not None and begins and known.name.startswith(f"{NAMESPACE}."):
            if is_same(known, schema) and self.log.producer(tx.producer).commit is not None:
                return  # emptied by the job's reset, so that what reads it follows
            tx.drop_topic(known.name)  # of the job before its reset, or of another one that is gone
        elif known is not None:
            require_same(known, schema, self.job)
            return
        tx.create_topic(self.job.topic, "table" if self.job.key else "event", schema, description=self.job.description)


def _halves(frames: Sequence[pl.DataFrame]) -> tuple[list[pl.DataFrame], list[pl.DataFrame]]:
    """The first half of the rows, input by input, and the rest."""
    left = sum(frame.height for frame in frames) // 2
    first, rest = [], []
    for frame in frames:
        first.append(frame.head(left))
        rest.append(frame.slice(min(left, frame.height)))
        left -= first[-1].height
    return first, rest


def state_schema(job: Job) -> Schema:
    """The state's columns. SchemaError for a type that files cannot hold."""
    return _schema(dict(job.state), job.state_key, job)


def output_schema(job: Job) -> Schema | None:
    """The output's columns, where they are declared."""
    return None if job.columns is None else _schema(dict(job.columns), job.key, job)


def _schema(columns: dict[str, str], key: tuple[str, ...], job: Job) -> Schema:
    try:
        return Schema.of(columns, key=key)
    except ValueError as error:
        raise SchemaError(f"job {job.name}: {error}", where=f"{job.file.name}, line {job.line}") from error


def is_same(topic: Topic, schema: Schema) -> bool:
    """Whether the topic has these columns and this key, and is of the kind that a job makes for them."""
    had = [(field.name, field.type) for field in topic.schema.fields]
    new = [(field.name, field.type) for field in schema.fields]
    kind = "table" if schema.key else "event"
    return (had, topic.schema.key, topic.kind, topic.source) == (new, schema.key, kind, None)


def require_same(topic: Topic, schema: Schema, job: Job) -> None:
    """SchemaError unless ``is_same``."""
    if is_same(topic, schema):
        return
    had = ", ".join(f"{field.name} {field.type}" for field in topic.schema.fields)
    new = ", ".join(f"{field.name} {field.type}" for field in schema.fields)
    raise SchemaError(
        f"{topic.name} is a {topic.kind} of ({had}) with the key ({', '.join(topic.schema.key)}),"
        f" the job declares ({new}) with ({', '.join(schema.key)})",
        todo=f"`headwater job reset {job.name}` makes it anew; or declare what it has, or another output.",
    )
