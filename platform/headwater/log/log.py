"""The handle on a lake's log: what exists, where every writer stands, and waiting for the next commit."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection, bindparam, func, select, update
from sqlalchemy.dialects.sqlite import insert

from headwater.catalog import tables
from headwater.catalog.catalog import FILE, Catalog, new_incarnation, put_setting
from headwater.catalog.live import Live
from headwater.catalog.prepared import Prepared
from headwater.catalog.published import PublishedCatalog, SilentLive
from headwater.catalog.records import MAX_COMMIT, CommitInfo, ProducerState, Step, Topic, View, to_datetime, to_micros
from headwater.clock import Clock, SystemClock
from headwater.errors import Expired, NameNotFound, NotYet
from headwater.log import archive, names, read, topics, views, witness
from headwater.log.fold import fold_sql
from headwater.log.transaction import Transaction
from headwater.storage import Storage
from headwater.storage.local import refuse_remote

POLL_S = 0.005
"""How often a waiting process looks whether another one has committed; one SQLite pragma each time."""

CACHED_POSITIONS_MAX = 256
"""Lists of topics and views kept for past positions; each is small, but there are many positions."""

FOLDERS = ("data/hot", "data/segments", "data/bases", "manifests", "run", "state", "logs")


# Built once: every step and every read asks them.
_GENERATION = Prepared(select(tables.setting.c.value).where(tables.setting.c.name == bindparam("setting")))
_PRODUCER = Prepared(select(tables.producer).where(tables.producer.c.name == bindparam("producer")))
_COMMITS = Prepared(
    select(tables.commit)
    .where(tables.commit.c.number > bindparam("after"), tables.commit.c.number <= bindparam("upto"))
    .order_by(tables.commit.c.number)
    .limit(bindparam("most"))
)


def open_log(folder: Path, *, create: bool = False, clock: Clock | None = None, read_only: bool | None = None) -> Log:
    """The log in ``folder``. With ``create``, an empty one is made where there is none.

    ``read_only`` reads the newest published catalog copy and follows it, some seconds stale; the default is to
    do so where this process may not write the folder. CatalogError when the catalog is older than the folder.
    """
    if read_only is None:
        read_only = not create and (folder / FILE).exists() and not os.access(folder, os.W_OK)
    return Log(folder, create=create, clock=clock or SystemClock(), read_only=read_only)


@dataclass(frozen=True, kw_only=True)
class _Now:
    """The topics that exist, and those that names were found to mean; true as of what ``_written`` said."""

    written: int
    generation: str
    topics: Sequence[Topic]
    resolved: dict[str, Topic]


class Log:
    """Thread-safe; any number of processes may hold the same folder open. A context manager."""

    def __init__(self, folder: Path, *, create: bool, clock: Clock, read_only: bool = False) -> None:
        self.folder = folder
        self.read_only = read_only
        self.clock = clock
        self.storage = Storage(folder)
        if create:
            refuse_remote(folder)
            self.storage.make_folder("", *FOLDERS)
        self.catalog = PublishedCatalog(folder) if read_only else Catalog(folder, create=create)
        if not read_only:
            witness.require_newer(self.catalog)
        self.live = SilentLive(folder, clock) if read_only else Live(folder, clock)
        self._wrote = False
        self._newest = 0
        self._arrived = threading.Condition()
        self._look_lock = threading.Lock()
        self._looker: sqlite3.Connection | None = None
        self._seen = (-1, -1)
        self._topics: dict[int | None, list[Topic]] = {}
        self._views: dict[int | None, list[View]] = {}
        self._generation = ""
        self._now = _Now(written=-1, generation="", topics=[], resolved={})
        if create:
            self._first_start()

    # ---- commits

    def newest_commit(self) -> int:
        """The number of the newest commit; 0 for an empty lake."""
        return self._look()

    def wait(self, after: int, timeout: float) -> int:
        """Return as soon as a commit newer than ``after`` exists, or after ``timeout`` seconds; the newest."""
        deadline = time.monotonic() + timeout
        newest = self._look()
        while newest <= after and (left := deadline - time.monotonic()) > 0:
            with self._arrived:
                self._arrived.wait(min(POLL_S, left))
            newest = self._look()
        return newest

    def catalog_version(self) -> int:
        """A number that changes with every transaction on the catalog, this process's included; one pragma."""
        self._look()
        return self._seen[0]

    def wait_change(self, version: int, timeout: float) -> None:
        """Return as soon as ``catalog_version`` is not ``version``, or after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while self.catalog_version() == version and (left := deadline - time.monotonic()) > 0:
            with self._arrived:
                self._arrived.wait(min(POLL_S, left))

    def published(self, number: int) -> None:
        """Wake this process's waiters; a transaction calls it."""
        self._wrote = True
        with self._look_lock:
            self._newest = max(self._newest, number)
        with self._arrived:
            self._arrived.notify_all()

    def commit_info(self, number: int) -> CommitInfo:
        """NotYet when there is no such commit yet, Expired when retention has removed it."""
        with self.catalog.read() as connection:
            row = connection.execute(select(tables.commit).where(tables.commit.c.number == number)).one_or_none()
        if row is None:
            archived = archive.commits(self, number - 1, number, 1)
            if archived:
                return archived[0]
            if 0 < number <= self.newest_commit():
                raise Expired(f"commit {number} is beyond what is kept", todo="Read a later position.")
            raise NotYet(f"there is no commit {number}", todo=f"The newest is {self.newest_commit()}.")
        return _commit_info(row)

    def commits(self, after: int = 0, upto: int | None = None, limit: int = 100_000) -> list[CommitInfo]:
        """Commits in (after, upto], oldest first."""
        place = {"after": after, "upto": MAX_COMMIT if upto is None else upto, "most": limit}
        with self.catalog.read() as connection:
            rows = _COMMITS.all(connection, place)
            older = after + 1 < archive.oldest_kept(connection)
        found = [_commit_info(row) for row in rows]
        return found if not older else (archive.commits(self, after, place["upto"], limit) + found)[:limit]

    def commit_at_time(self, moment: datetime) -> int:
        """The newest commit at or before ``moment``; 0 when there is none."""
        query = select(tables.commit.c.number).where(tables.commit.c.time <= to_micros(moment))
        with self.catalog.read() as connection:
            newest = query.order_by(tables.commit.c.time.desc()).limit(1)
            found = connection.execute(newest).scalar_one_or_none()
        return found or archive.commit_at_time(self, to_micros(moment))

    def newest_commit_where(self, producer: str, holds: Callable[[str], bool]) -> int:
        """The newest commit before this producer's first position for which ``holds`` is false; 0 for none.

        ``holds`` must be true up to some position and false after it: found by bisection.
        """
        commit = tables.commit
        mine = select(commit.c.number, commit.c.position).where(commit.c.producer == producer)
        low, high = 0, self.newest_commit()
        with self.catalog.read() as connection:
            while low < high:
                middle = (low + high + 1) // 2
                query = mine.where(commit.c.number <= middle).order_by(commit.c.number.desc()).limit(1)
                row = connection.execute(query).first()
                if row is None or row.position is None or holds(row.position):
                    low = middle
                else:
                    high = row.number - 1
            first = connection.execute(mine.order_by(commit.c.number).limit(1)).first()
        if first is not None and low >= first.number:
            return low
        end = first.number if first is not None else self.newest_commit() + 1
        return _newest_archived_where(archive.positions(self, producer), holds, end)

    def transaction(self, producer: str, epoch: int, expected_position: str | None = None) -> Transaction:
        """Begin a transaction of a producer that owns its name with this epoch (see ``ownership``)."""
        return Transaction(self, producer, epoch, expected_position)

    # ---- producers

    def producer(self, name: str) -> ProducerState:
        """Where a writer stands; an unknown one has epoch 0 and no position."""
        with self.catalog.read() as connection:
            row = _PRODUCER.first(connection, {"producer": name})
        if row is None:
            return ProducerState(name=name, epoch=0, position=None, commit=None, confirmed=None)
        return ProducerState(
            name=name, epoch=row.epoch, position=row.position, commit=row.commit, confirmed=row.confirmed
        )

    def raise_epoch(self, name: str) -> int:
        """Fence every earlier holder of a producer name; returns the new epoch."""
        with self.catalog.write() as connection:
            values = insert(tables.producer).values(name=name, epoch=1)
            upsert = values.on_conflict_do_update(
                index_elements=["name"], set_={"epoch": tables.producer.c.epoch + 1}
            ).returning(tables.producer.c.epoch)
            return int(connection.execute(upsert).scalar_one())

    def set_confirmed(self, name: str, position: str) -> None:
        """Remember a position acknowledged on idle input: a field of the producer, no commit."""
        with self.catalog.write() as connection:
            mine = tables.producer.c.name == name
            connection.execute(update(tables.producer).where(mine).values(confirmed=position))

    def forget_producer(self, name: str) -> None:
        """Remove a producer's position, for example when its source is dropped."""
        with self.catalog.write() as connection:
            mine = tables.producer.c.name == name
            connection.execute(update(tables.producer).where(mine).values(position=None, confirmed=None))

    # ---- topics

    def topics(self, at: int | None = None, hidden: bool = False) -> list[Topic]:
        """Topics at commit ``at`` (None: now), ordered by name."""
        if at is None:
            found: Sequence[Topic] = self._current().topics
        else:
            with self.catalog.read() as connection:
                found = self._cached_topics(connection, at)
        return [topic for topic in found if hidden or not topic.hidden]

    def topic(self, name: str, at: int | None = None) -> Topic:
        """The topic of this full name, or of this short one when it is unique; NameNotFound, AmbiguousName."""
        if at is not None:
            return names.resolve(name, self.topics(at, hidden=True))
        found = self._current()
        if name not in found.resolved:
            found.resolved[name] = names.resolve(name, found.topics)
        return found.resolved[name]

    def schemas(self, topic: Topic) -> dict[int, Any]:
        """Every schema version of a topic by its number."""
        with self.catalog.read() as connection:
            return topics.schemas(connection, topic.id)

    # ---- records

    def read_changes(self, name: str, after: int, upto: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The records of commits in (after, upto], ordered by partition and offset.

        Columns: the topic's own, as files hold them (schema in force at ``upto``), then its metadata columns,
        then the implicit ones. CorruptFile when stored bytes are not the committed ones.
        """
        return read.changes(self, self.topic(name), after, upto, columns)

    def read_pieces(self, name: str, after: int, upto: int, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
        """The same in pieces of about so many rows, in bounded memory; sealed records come in no order."""
        return read.pieces(self, self.topic(name), after, upto, columns, rows)

    def fold_sql(self, schema: Any, kind: str, source_sql: str) -> str:
        """See ``fold.fold_sql``."""
        return fold_sql(schema, kind, source_sql)

    # ---- views and steps

    def views(self, at: int | None = None) -> list[View]:
        """Views that exist at commit ``at`` (None: now), oldest first."""
        with self.catalog.read() as connection:
            self._refresh(connection)
            found = self._views.get(at)
            if found is None:
                found = self._views[at] = views.read(connection, at)
            return list(found)

    def view(self, name: str) -> View:
        """The view of this name; NameNotFound with near names."""
        found = {view.name: view for view in self.views()}
        if name not in found:
            raise NameNotFound(f"there is no view {name}", suggestions=names.near(name, list(found)))
        return found[name]

    def create_view(self, name: str, sql: str, options: dict[str, Any] | None = None) -> View:
        """Register a definition in state 'creating'; the pipeline builds it. DuplicateName when it exists."""
        with self.catalog.write() as connection:
            return views.create(connection, name, sql, options or {})

    def replacements(self) -> list[View]:
        """Definitions that have not taken the place of their views (``View.replaces``) yet."""
        with self.catalog.read() as connection:
            return views.replacements(connection)

    def replace_view(self, old: View, name: str, sql: str, options: dict[str, Any] | None = None) -> View:
        """Register what shall take the place of ``old``; the pipeline builds it beside. DuplicateName."""
        with self.catalog.write() as connection:
            return views.replace(connection, old, name, sql, options or {})

    def describe_view(self, view: View, options: dict[str, Any]) -> View:
        """Give a view other options, of which no row depends; returns it with them."""
        with self.catalog.write() as connection:
            views.set_options(connection, view, options)
        return self.view(view.name)

    def withdraw_replacement(self, new: View) -> None:
        """Forget what ``replace_view`` registered, unless the pipeline has switched to it already."""
        with self.catalog.write() as connection:
            views.withdraw(connection, new)

    def drop_view(self, name: str) -> None:
        """The view ends with the newest commit; its changelog stays readable at older positions."""
        view = self.view(name)
        with self.catalog.write() as connection:
            views.drop(connection, view)

    def set_view(self, view: str | View, *, state: str, reason: str = "") -> None:
        """Set the state of the view of this name, or of a replacement."""
        found = self.view(view) if isinstance(view, str) else view
        with self.catalog.write() as connection:
            views.set_state(connection, found, state, reason)

    def steps(self, after: int = 0, upto: int | None = None) -> list[Step]:
        """Published steps with a number in (after, upto], oldest first."""
        with self.catalog.read() as connection:
            found = views.steps(connection, after, upto)
        if found and found[0].number == after + 1:
            return found
        last = found[0].number - 1 if found else MAX_COMMIT if upto is None else upto
        return archive.steps(self, after, last) + found

    def last_step(self, at: int | None = None) -> Step | None:
        """The newest step published at or before commit ``at``."""
        with self.catalog.read() as connection:
            found = views.last_step(connection, at)
        return found if found is not None or at is None else archive.last_step(self, at)

    def newest_common_step(self, ids: frozenset[int], at: int) -> Step | None:
        """The newest step published at or before ``at`` that refreshed all views of these ids."""
        with self.catalog.read() as connection:
            found = views.newest_common_step(connection, ids, at)
            kept = archive.oldest_kept(connection)
        if found is not None and (found.publish_commit >= kept or kept <= 1):
            return found
        return archive.last_step(self, at, ids) or found

    # ---- settings and housekeeping

    def setting(self, name: str) -> str | None:
        return self.catalog.setting(name)

    def set_setting(self, name: str, value: str | None) -> None:
        self.catalog.set_setting(name, value)

    @property
    def incarnation(self) -> str:
        """Names this copy of the lake; private state of another incarnation must not be trusted."""
        return self.setting("incarnation") or ""

    @property
    def timezone(self) -> str:
        return self.setting("timezone") or "UTC"

    def close(self) -> None:
        with self._look_lock:
            if self._looker is not None:
                self._looker.close()
                self._looker = None
        if self._wrote and self.folder.is_dir():
            witness.write(self.catalog)
        self.catalog.close()

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _first_start(self) -> None:
        with self.catalog.write() as connection:
            known = {row.name for row in connection.execute(select(tables.setting.c.name))}
            defaults = {"incarnation": new_incarnation(), "timezone": "UTC", topics.GENERATION: "0.0"}
            for name, value in defaults.items():
                if name not in known:
                    put_setting(connection, name, value)

    def _current(self) -> _Now:
        """The topics that exist, read again only when somebody has changed one since."""
        now = self._now
        # First: what is read then is at least as new.
        written, generation = (-1, "") if self.read_only else self._written(now)
        if written == now.written and not self.read_only:
            return now
        if generation and generation == now.generation:
            now = replace(now, written=written)
        else:
            with self.catalog.read() as connection:
                generation, found = _generation(connection), topics.read(connection, None)
            now = _Now(written=written, generation=generation, topics=found, resolved={})
        self._now = now
        return now

    def _cached_topics(self, connection: Connection, at: int | None) -> list[Topic]:
        self._refresh(connection)
        found = self._topics.get(at)
        if found is None:
            found = self._topics[at] = topics.read(connection, at)
        return found

    def _refresh(self, connection: Connection) -> None:
        """Forget what was read of topics and views when anyone has changed one since."""
        generation = _generation(connection)
        if generation != self._generation or len(self._topics) + len(self._views) > CACHED_POSITIONS_MAX:
            self._topics, self._views = {}, {}
            self._generation = generation

    def _look(self) -> int:
        """The newest commit, at the price of one pragma when no other process has written."""
        if self.read_only:
            with self.catalog.read() as connection:
                self._newest = connection.execute(select(func.max(tables.commit.c.number))).scalar_one() or 0
            self._seen = (self._newest, self._newest)
            return self._newest
        with self._look_lock:
            looker, version = self._version()
            if (version, self._newest) != self._seen:
                row = looker.execute('SELECT max(number) FROM "commit"').fetchone()
                self._newest = max(self._newest, row[0] or 0)
                self._seen = (version, self._newest)
            return self._newest

    def _written(self, now: _Now) -> tuple[int, str]:
        """A number that changes with every write to the catalog, and the generation of its topics if it has."""
        with self._look_lock:
            looker, version = self._version()
            if version == now.written:
                return version, now.generation
            row = looker.execute("SELECT value FROM setting WHERE name = ?", (topics.GENERATION,)).fetchone()
            return version, row[0] if row else ""

    def _version(self) -> tuple[sqlite3.Connection, int]:
        """A connection that never writes, and what it sees of the others; the caller has ``_look_lock``."""
        if self._looker is None:
            path = self.folder / FILE
            self._looker = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
        return self._looker, int(self._looker.execute("PRAGMA data_version").fetchone()[0])


def _generation(connection: Connection) -> str:
    return str(_GENERATION.value(connection, {"setting": topics.GENERATION}))


def _newest_archived_where(
    files: Iterator[list[tuple[int, str | None]]], holds: Callable[[str], bool], before: int
) -> int:
    """``newest_commit_where`` among archived commits; ``before``: the producer's first commit after them."""
    for commits in files:
        good = bisect_left(commits, True, key=lambda each: each[1] is not None and not holds(each[1]))
        if good:
            return (commits[good][0] if good < len(commits) else before) - 1
        before = commits[0][0] if commits else before
    return 0


def _commit_info(row: Any) -> CommitInfo:
    return CommitInfo(
        number=row.number,
        time=to_datetime(row.time),
        producer=row.producer,
        position=row.position,
        rows=row.rows,
    )
