"""Answers to SELECTs: every name of a query is defined as what it was at one position, then DuckDB runs it.

query ──▶ names resolved ──▶ one position for all ──▶ a temporary view for each ──▶ the caller's SQL over them
                           (of views: a step they share)  kept rows, or records where they are
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb

from headwater import position as positions
from headwater import record
from headwater.catalog.records import Step, Topic, View
from headwater.errors import (
    HeadwaterError,
    NameNotFound,
    NoCommonPosition,
    NotYet,
    SqlError,
    SqlSyntax,
    UnknownColumn,
)
from headwater.lake import history
from headwater.lake.attended import Attention
from headwater.lake.memory import Memory
from headwater.lake.resolve import Reference, Resolved, may_differ, mentioned, resolve
from headwater.lake.result import Asked, Params, Result, Rows, fetch
from headwater.log import Log, base, generations, quarantine, read
from headwater.log.names import near
from headwater.log.rows import records_sql
from headwater.types import quote

if TYPE_CHECKING:
    from headwater.lake.lake import Lake

STOPPED = ("waiting", "paused", "failed")
"""States of a view that is not brought up to date."""
STALE_AFTER_S = 60.0
"""A paused view older than this makes a query without ``at=`` fail instead of answering from the past."""

_READER_ERRORS = (duckdb.IOException, duckdb.InvalidInputException, duckdb.InternalException, duckdb.FatalException)

_KIND_PREFIX = re.compile(r"^\w+(?: \w+)* Error: ")
"""DuckDB begins its messages with the kind of error, which our own class says already."""

_UNKNOWN_COLUMN = re.compile(
    r'[Cc]olumn (?:with name )?"?([^"\s]+)"? (?:\S+ )?not found|does not have a column named "([^"]+)"'
)

_KEPT_KINDS = ("table", "multiset", "changelog")
_RECORD_KINDS = ("event", "transactions", "system")
"""Kinds whose rows are their records, each by itself: one that cannot be read changes no other."""
_TRUNCATED_KINDS = ("table", "multiset", "insert_only")


@dataclass(frozen=True)
class Seen:
    """What an answer is made of. Two with equal ``topics`` and ``newest`` are of the same rows, at any position."""

    position: int
    topics: tuple[Topic, ...]
    newest: tuple[int, ...]


class Answers:
    """Thread-safe. ``pinned``: the position of queries that name none."""

    def __init__(self, log: Log, memory: Memory, pinned: positions.Position) -> None:
        self.log = log
        self.memory = memory
        self.pinned = pinned

    def answer(
        self,
        lake: Lake,
        query: str,
        at: positions.Position,
        params: Params,
        seconds: float | None,
        missing: list[quarantine.Damage] | None,
        *,
        whole: bool,
    ) -> Result:
        """See ``Lake.sql``. ``missing`` takes what was left out; None refuses to leave anything out."""
        whole = whole or missing is not None or may_differ(query)

        def ask(attention: Attention) -> tuple[Resolved, int, int, Rows, list[str]]:
            with (
                self.reading(query, at, missing, attention) as (cursor, resolved, published, inputs),
                attention.on(cursor),
                _at_most(cursor, seconds),
            ):
                try:
                    relation = cursor.sql(resolved.sql, params=params)
                    rows = fetch(relation, whole=whole, ordered=resolved.ordered)
                except duckdb.Error as error:
                    raise self._explained(error, resolved, published) from error
                return resolved, published, inputs, rows, [str(kind) for kind in relation.types]

        resolved, published, inputs, rows, types = self.memory.attendant.run(ask)
        explicit = at is not None or self.pinned is not None
        notices = () if explicit else self._notices(resolved)
        question = Asked(text=query, params=params, references=resolved.references)
        return Result(lake, question, rows, types, published, inputs, missing=missing or (), notices=notices)

    def _notices(self, resolved: Resolved) -> list[str]:
        """What is to know of the newest rows of the tables and views in a query."""
        topics = {reference.topic.name: reference.topic for reference in resolved.references}
        found = [f"{name} is {topic.state}: {topic.reason}" for name, topic in topics.items() if topic.state != "live"]
        if not any(topic.kind == "changelog" for topic in topics.values()):
            return found
        stopped = [each for each in self.log.views() if f"views.{each.name}" in topics and each.state in STOPPED]
        return found + [
            f"view {each.name} is {each.state} ({each.reason}): these are its last rows" for each in stopped
        ]

    def seen(self, query: str, at: positions.Position = None) -> Seen:
        """What an answer now, or at a position, would be made of. Raises what the answer would."""
        where = self.pinned if at is None else at
        then = positions.resolve(self.log, where) if where is not None else None
        resolved = self._resolved(query, then)
        published, inputs = self._positions(resolved.references, then)
        topics = tuple(reference.topic for reference in resolved.references)
        return Seen(published, topics, read.newest(self.log, [(t, _commit(t, published, inputs)) for t in topics]))

    @contextmanager
    def reading(
        self,
        query: str,
        at: positions.Position,
        missing: list[quarantine.Damage] | None = None,
        attention: Attention | None = None,
    ) -> Iterator[tuple[duckdb.DuckDBPyConnection, Resolved, int, int]]:
        """A cursor in a transaction that sees every name of ``query`` at one position."""
        cursor = self.memory.cursor()
        with ExitStack() as stack:
            resolved, published, inputs = self._begin(cursor, query, at, stack, missing, attention or Attention())
            yield cursor, resolved, published, inputs

    def _begin(
        self,
        cursor: duckdb.DuckDBPyConnection,
        query: str,
        at: positions.Position,
        stack: ExitStack,
        missing: list[quarantine.Damage] | None,
        attention: Attention,
    ) -> tuple[Resolved, int, int]:
        """Resolve the query, define its names, and pin what they see; ``stack`` ends the transaction."""
        with self.memory.lock:
            where = self.pinned if at is None else at
            explicit = where is not None
            then = positions.resolve(self.log, where) if explicit else None
            resolved = self._resolved(query, then)
            published, inputs = self._positions(resolved.references, then)
            stack.callback(self._end, cursor)
            try:
                with attention.on(self.memory.connection):
                    bodies = [
                        self._body(cursor, resolved, n, published, inputs, missing)
                        for n in range(len(resolved.references))
                    ]
                for reference, body in zip(resolved.references, bodies, strict=True):
                    self.memory.define(reference.private, body, reference.topic.schema)
                cursor.execute("BEGIN")
                kept = next(filter(_is_kept, resolved.references), None)
                if kept is not None:
                    # A transaction's snapshot of a database begins with its first statement on it.
                    cursor.execute(f"SELECT 1 FROM {quote(kept.private)} LIMIT 0")
            except duckdb.Error as error:
                raise self._explained(error, resolved, published, defining=True) from error
        return resolved, published, inputs

    def _resolved(self, query: str, then: int | None) -> Resolved:
        topics = self.log.topics(then)
        try:
            return resolve(query, topics)
        except NameNotFound as error:
            known = {topic.name.lower() for topic in topics}
            asked = mentioned(query)
            for view in self.log.views(then):
                if view.name.lower() in asked and f"views.{view.name}".lower() not in known:
                    raise _unpublished(view.name, self.log.newest_commit() if then is None else then) from error
            raise

    def _end(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """End a reading transaction. A damaged file can take DuckDB's whole memory down: then begin a new one."""
        try:
            with suppress(duckdb.TransactionException):  # it had not begun
                cursor.execute("ROLLBACK")
        except duckdb.FatalException:
            with self.memory.lock:  # nobody is between two looks at what it replaces
                self.memory.begin()

    def _body(
        self,
        cursor: duckdb.DuckDBPyConnection,
        resolved: Resolved,
        place: int,
        published: int,
        inputs: int,
        missing: list[quarantine.Damage] | None,
    ) -> str:
        """SQL of what a query's name stands for: kept rows, or records of which the hot ones are registered."""
        reference = resolved.references[place]
        topic = reference.topic
        commit = _commit(topic, published, inputs)
        if _is_kept(reference):
            return self.memory.rows(topic).at(topic, commit)
        skips = missing is not None and (reference.facet == "log" or topic.kind in _RECORD_KINDS)
        plan = read.plan(self.log, topic, 0, commit, skip_damaged=skips)
        if missing is not None:
            missing += plan.missing
        if resolved.newest_first:
            plan = read.newest_first(plan)
        source = read.relation_sql(self.log, cursor, plan, f"records_{place}")
        linear = reference.facet != "log" and topic.kind in _TRUNCATED_KINDS and generations.spans(plan)
        if linear:
            source = generations.linear_sql(source)
        if reference.facet == "rows":
            return records_sql(topic, source)
        if reference.facet == "history":
            shown = generations.STORED_OFFSET if linear else record.OFFSET
            return history.history_sql(topic, history.completed(cursor, topic, source, f"moves_{place}"), shown)
        return source

    def _explained(self, error: duckdb.Error, resolved: Resolved, commit: int, *, defining: bool = False) -> SqlError:
        """The error for the person who asked; raises CorruptFile instead when a damaged file is behind it.

        ``defining``: nothing of the person's own SQL had run yet.
        """
        # Some of the Parquet reader's errors have no class of their own, some come as the caller's fault.
        if isinstance(error, duckdb.InterruptException):  # no file is to blame, and nobody waits for a look at them
            return _sql_error(error, resolved)
        by_reader = type(error) is duckdb.Error or isinstance(error, _READER_ERRORS) or ".parquet" in str(error)
        if defining or by_reader:
            for reference in resolved.references:
                read.check_files(self.log, read.plan(self.log, reference.topic, 0, commit, skip_damaged=True).segments)
                found = base.newest(self.log, reference.topic, commit)
                read.check_files(self.log, [found] if found else [])
        return _sql_error(error, resolved)

    def _positions(self, references: Sequence[Reference], then: int | None) -> tuple[int, int]:
        """The publish commit that views are read at, and the input commit that tables are read at."""
        names = {r.topic.name.removeprefix("views.") for r in references if r.topic.kind == "changelog"}
        found = [view for view in self.log.views(then) if view.name in names] if names else []
        # After the views: one that took another's place is in a step that is published then.
        commit = self.log.newest_commit() if then is None else then
        if not names:
            return commit, commit
        step = self._common_step(frozenset(view.id for view in found), commit)
        if step is None:
            raise self._no_common_position(found, commit)
        if then is None:
            self._require_fresh(found, step)
        return step.publish_commit, step.input_commit

    def _common_step(self, ids: frozenset[int], commit: int) -> Step | None:
        return self.log.newest_common_step(ids, commit)

    def _no_common_position(self, found: Sequence[View], commit: int) -> HeadwaterError:
        own = {view.name: self._common_step(frozenset({view.id}), commit) for view in found}
        unpublished = [name for name, step in own.items() if step is None]
        if unpublished:
            return _unpublished(unpublished[0], commit)
        places = ", ".join(f"{name} at commit {step.publish_commit}" for name, step in own.items() if step)
        return NoCommonPosition(f"the views share no step: {places}", todo="Query them one by one.")

    def _require_fresh(self, found: Sequence[View], step: Step) -> None:
        stopped = [view for view in found if view.state in STOPPED]
        newest = self.log.last_step() if stopped else None
        if newest is None:
            return
        if (newest.instant - step.instant).total_seconds() > STALE_AFTER_S:
            view = stopped[0]
            mend = (
                "Wait until it is live" if view.state == "waiting" else f"Resume it with `headwater resume {view.name}`"
            )
            raise NoCommonPosition(
                f"view {view.name} is {view.state} ({view.reason or 'by hand'}) since {step.instant.isoformat()}",
                todo=f"{mend}, or read at=commit:{step.publish_commit}.",
            )


def _unpublished(view: str, commit: int) -> NotYet:
    todo = f'Wait until it is live (`headwater view list`, lake.view("{view}").wait()), or read a later position.'
    return NotYet(f"view {view} has not been published yet at commit {commit}", todo=todo)


def _commit(topic: Topic, published: int, inputs: int) -> int:
    """Where a topic is read: views as they were published, tables as those views took them in."""
    # A view's late rows are published with its steps, too.
    return published if topic.kind == "changelog" or topic.name.startswith("views.") else inputs


def _is_kept(reference: Reference) -> bool:
    """Whether the lake's memory holds what this name stands for; else its records are scanned where they are."""
    return reference.facet == "rows" and reference.topic.kind in _KEPT_KINDS


@contextmanager
def _at_most(cursor: duckdb.DuckDBPyConnection, seconds: float | None) -> Iterator[None]:
    """Interrupt what the cursor runs when the block takes longer."""
    if seconds is None:
        yield
        return
    lock, ended = threading.Lock(), threading.Event()

    def interrupt() -> None:
        with lock:  # so that it never meets what the cursor runs next
            if not ended.is_set():
                cursor.interrupt()

    timer = threading.Timer(seconds, interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    except SqlError as error:
        if isinstance(error.__cause__, duckdb.InterruptException):
            raise SqlError(
                f"the query took longer than {seconds:g} s", todo="Ask for less, or give it more."
            ) from error
        raise
    finally:
        timer.cancel()
        with lock:
            ended.set()


def _sql_error(error: duckdb.Error, resolved: Resolved) -> SqlError:
    """DuckDB's own words, without the private names, and what was probably meant."""
    text = _KIND_PREFIX.sub("", str(error).split("\n\nLINE ")[0].strip())
    for reference in resolved.references:
        text = text.replace(reference.private, reference.topic.name)
    if isinstance(error, duckdb.ParserException):
        return SqlSyntax(text, todo="Check the SQL near the marked place.")
    unknown = _UNKNOWN_COLUMN.search(text)
    if isinstance(error, duckdb.BinderException) and unknown:
        columns = [name for reference in resolved.references for name in reference.topic.schema.names]
        wanted = (unknown[1] or unknown[2]).rpartition(".")[2]
        return UnknownColumn(text.splitlines()[0].rstrip("!"), suggestion=next(iter(near(wanted, columns)), ""))
    return SqlError(text, todo="Check the SQL and the data it meets.")
