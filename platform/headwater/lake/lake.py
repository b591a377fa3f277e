"""The handle people hold: ``headwater.open(path)``. SQL over tables, views and history at one position."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from importlib.metadata import entry_points
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Unpack

import duckdb
import pyarrow as pa

from headwater import duck
from headwater import position as positions
from headwater.catalog.records import Topic, View
from headwater.client.buffer import OnFull
from headwater.client.consumer import Consumer
from headwater.client.options import ConsumerOptions, ReadOptions
from headwater.client.producer import BLOCK_S, BUFFER_BYTES, LINGER_MS, Durability, OnError, Producer
from headwater.client.replay import Replay
from headwater.client.report import GroupReport, groups
from headwater.config import FILE, Project, Settings, load
from headwater.errors import CorruptFile, about
from headwater.lake import history, views, waiting
from headwater.lake.answer import Answers, Seen
from headwater.lake.backfill import Backfill
from headwater.lake.chart import chart
from headwater.lake.dashboard import Dashboard
from headwater.lake.dependents import reading
from headwater.lake.difference import difference
from headwater.lake.features import as_of
from headwater.lake.health import Health, health
from headwater.lake.letters import Letters
from headwater.lake.listing import TOPICS, VIEWS, Listing
from headwater.lake.memory import Memory
from headwater.lake.pipeline import Pipeline
from headwater.lake.plot.encoding import Kind
from headwater.lake.plot.engines import Engine
from headwater.lake.rates import Rates
from headwater.lake.result import Params, Result
from headwater.lake.schema_tree import SchemaTree
from headwater.lake.timeline import Timeline
from headwater.lake.views import ViewHandle
from headwater.lake.watch import Watch
from headwater.log import Log, administration, leases, open_log, quarantine, retention, subjects, tags
from headwater.log.repartition import repartition
from headwater.log.topic_settings import Value
from headwater.schema import Schema
from headwater.types import quote


def open_lake(path: str | Path = ".") -> Lake:
    """Open the lake of a project (a folder with headwater.toml) or a lake folder itself, for reading.

    CatalogError when there is none.
    """
    folder = Path(path)
    if not (folder / "catalog.sqlite").exists() and (folder / "headwater.toml").exists():
        project = load(folder)
        return Lake(open_log(project.lake_dir), project=project)
    return Lake(open_log(folder))


class Lake:
    """Consistent reads, concurrent with all writers. Thread-safe; a context manager.

    ``at=`` takes a position everywhere (see ``headwater.position``). A query that names views is answered at
    the newest step that all of them share; ``Result.input_position`` says which commit of the tables that is.
    """

    def __init__(
        self,
        log: Log,
        *,
        pinned: positions.Position = None,
        shared: Lake | None = None,
        lease: leases.Lease | None = None,
        project: Project | None = None,
    ) -> None:
        self.log = log
        self._project = project
        self._pinned = pinned
        self._lease = lease
        self._memory: Memory = shared._memory if shared else Memory(log)
        self._answers = Answers(log, self._memory, pinned)

    def __repr__(self) -> str:
        views, tables = len(self.views()), len(self.tables())
        place = f"at position {self.position():,}" + (", which it keeps" if self.is_pinned else "")
        return f"<lake {self.log.folder} {place}: {tables:,} tables and event topics, {views:,} views>"

    # ---- queries

    @contextmanager
    def reading(self, query: str, *, at: positions.Position = None) -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
        """This thread's DuckDB connection, and the query as SQL that means something there until the block ends.

        For statements of your own over an answer that need not come to you: ``COPY``, aggregates. All names in it are
        read at one position, in one transaction, which is rolled back. Errors are ``sql``'s, but for DuckDB's own.
        """
        with self._answers.reading(query, at) as (cursor, resolved, _, _):
            yield cursor, resolved.sql

    def sql(
        self,
        query: str,
        *,
        at: positions.Position = None,
        params: Params = None,
        seconds: float | None = None,
        damaged: Literal["refuse", "skip"] = "refuse",
        whole: bool = False,
    ) -> Result:
        """Run one SELECT at one position. ``params`` are bound, never pasted ($name or ?).

        Plain names are tables and views, ``log."<topic>"`` the records of a topic with their metadata,
        ``history.<table>`` its versions. Raises NameNotFound, AmbiguousName, UnknownColumn, SqlError,
        NotYet and NoCommonPosition; an answer is always whole and of one position. A query that runs longer
        than ``seconds`` is given up with SqlError. Of a large answer (16 MB) the first rows come now, and all when
        they are asked for; ``whole`` has all come now.

        CorruptFile when stored bytes that the answer needs are not the committed ones. With ``damaged="skip"``
        such records (of ``log.``, and of event topics) are left out and listed in ``Result.missing``; rows of
        tables, views and histories need all of theirs and are refused all the same.
        """
        if damaged == "refuse":
            with about(query):
                return self._answers.answer(self, query, at, params, seconds, None, whole=whole)
        known = -1
        while True:
            missing: list[quarantine.Damage] = []
            try:
                return self._answers.answer(self, query, at, params, seconds, missing, whole=whole)
            except CorruptFile:
                if len(missing) <= known:  # what it found is in quarantine, so the next try is without it
                    raise
                known = len(missing)

    def seen(self, query: str, *, at: positions.Position = None) -> Seen:
        """What an answer would be made of: equal ``topics`` and ``newest`` are equal rows. Raises as ``sql``."""
        return self._answers.seen(query, at)

    # ---- what there is

    def position(self) -> int:
        """The newest commit, or the pinned one."""
        return positions.resolve(self.log, self._pinned)

    def at(self, where: positions.Position) -> Lake:
        """The same lake with every query at this position; resolved once, now.

        What it reads stays readable until it is closed or forgotten, at most ``reader_expiry_s``.
        """
        lease = leases.Lease(self.log, expires_s=Settings().reader_expiry_s)  # before the position is resolved
        pinned = positions.resolve(self.log, where)
        lease.moves_to(pinned)
        held = Lake(self.log, pinned=pinned, shared=self, lease=lease, project=self._project)
        weakref.finalize(held, lease.close)
        return held

    def tag(self, name: str, at: positions.Position = None, **about: Any) -> tags.Tag:
        """Name a position: ``at="tag:NAME"`` reads it for as long as the tag lives.

        ``about``: ``expires`` (a datetime), ``description``. DuplicateName, Expired when it cannot be read.
        """
        with self.at(self._pinned if at is None else at) as held:
            commit = held.position()
            retention.require_readable(self.log, commit)
            return tags.create(self.log, name, commit, **about)

    def tags(self) -> list[tags.Tag]:
        """Every tag that has not expired, by name."""
        return tags.listed(self.log)

    def drop_tag(self, name: str) -> None:
        """Forget a tag; NameNotFound."""
        tags.drop(self.log, name)

    def create_topic(self, name: str, columns: Mapping[str, str] | Schema, **options: Any) -> Topic:
        """Create a topic for producers: ``create_topic("shop.events.clicks", {"user": "BIGINT"}, retention="7d")``.

        ``options``: key, partitions, kind, and what ``alter_topic`` takes. UsageError, DuplicateName.
        """
        return administration.create(self.log, name, columns, **options)

    def alter_topic(self, name: str, **options: Value) -> Topic:
        """Change a topic's settings (retention, cleanup, ...), description, owner, criticality, classification."""
        return administration.alter(self.log, name, **options)

    def register_schema(
        self, name: str, columns: Mapping[str, str] | Schema, *, renames: Mapping[str, str] | None = None
    ) -> subjects.Version:
        """Give a topic of producers its next schema: all of its columns; ``renames``: new name to old name.

        Records stay as they are. A column that is new in a mapping is NULL where nobody gives it, in older records
        too. IncompatibleSchema for what the topic's compatibility refuses; what is in force is no new version.
        """
        return administration.evolve(self.log, name, columns, renames or {})

    def drop_topic(self, name: str) -> None:
        """Drop a topic; older positions read it. UsageError when views or jobs read it, or it has open dead letters."""
        administration.drop(self.log, name, reading)

    def repartition(self, name: str, partitions: int) -> None:
        """Give a topic another number of partitions; records stay where they are (see ``log.repartition``)."""
        repartition(self.log, name, partitions)

    @property
    def dlq(self) -> Letters:
        """The dead letters: list, show, redrive, mend, discard; in a notebook, a panel that does so."""
        return Letters(self)

    def topics(self) -> Listing[Topic]:
        """Every topic at this lake's position."""
        return Listing(self.log.topics(self._pinned_commit()), TOPICS, "topics")

    def tables(self) -> list[str]:
        """Full names of the captured tables and event topics."""
        return [topic.name for topic in self.topics() if topic.kind not in ("changelog", "system")]

    def views(self) -> Listing[View]:
        """The maintained views."""
        return Listing(self.log.views(self._pinned_commit()), VIEWS, "views")

    def view(self, name: str) -> ViewHandle:
        """One view: its state, lag and rows, and ``pause``, ``resume``, ``replace``, ``drop``, ... NameNotFound."""
        return views.handle(self, name)

    def wait(self, *names: str, seconds: float = waiting.WAIT_S) -> Lake:
        """Return once the tables and views of these names can be read as a whole: copied, filled.

        A progress bar shows meanwhile; an interrupt ends the waiting and nothing else. NotYet when one is not there
        after ``seconds``; PipelineError when a view failed or is paused.
        """
        for name in names:
            waiting.wait(self, name, seconds)
        return self

    def create_view(self, name: str, sql: str) -> ViewHandle:
        """Create a maintained view from a SELECT; ``.wait()`` on what is returned waits for its rows.

        What cannot be maintained is refused, and nothing is created: SqlSyntax, UnsupportedSql, UnknownColumn,
        NameNotFound, DuplicateName.
        """
        return ViewHandle(self, views.api().create_view(self, sql, name=name).name)

    @property
    def is_pinned(self) -> bool:
        """Whether this is the lake at one position (``at``)."""
        return self._pinned is not None

    def describe(self, name: str) -> Schema:
        """Columns, types and key of a table or view; NameNotFound with near names."""
        return self.log.topic(name, self._pinned_commit()).schema

    def lookup(self, name: str, key: Any) -> dict[str, Any] | None:
        """The current row of a key (a value, or a tuple or mapping for composite keys); None when absent."""
        topic = self.log.topic(name, self._pinned_commit())
        values = history.key_values(topic, key)
        condition = " AND ".join(f"{quote(column)} = ?" for column in topic.schema.key)
        found = self.sql(f"SELECT * FROM {_quoted(topic.name)} WHERE {condition}", params=values)
        rows = found.arrow().to_pylist()
        return rows[0] if rows else None

    def history(self, name: str, key: Any, *, at: positions.Position = None) -> Result:
        """Every version of one row of a table or view, the oldest first: its columns, ``valid_from``, ``valid_to``.

        ``key`` as ``lookup`` takes it. ``valid_to`` is NULL while the version is the current one; of a row that was
        deleted no version has it NULL. NameNotFound without such a name, or when it has no key.
        """
        then = self._pinned_commit() if at is None else positions.resolve(self.log, at)
        query, params = history.of_key(self.log.topic(name, then), key)
        return self.sql(query, params=params, at=at)

    def as_of(
        self,
        labels: Any,
        features: Mapping[str, Sequence[str] | None] | Sequence[str],
        *,
        on: str | Sequence[str],
        time: str,
        event_time: Mapping[str, str] | None = None,
    ) -> Result:
        """The labels, in their order, with what tables and views said of each one's key when it was made.

        A label of time t sees what ``lake.at(t)`` sees: rows of commits up to t, and none of a later one, however
        early their own columns say they were. Equal labels have equal features, whenever they are asked for.

        Args:
            labels: a Polars, pandas or Arrow table, or a Result.
            features: tables, views with a key, and event topics, by name; of each the columns, or None for all.
                A name that the labels or an earlier table have already becomes ``<table>_<name>``.
            on: the labels' columns that name the row: those of the table's key, in its order if named otherwise.
                Of an event topic the newest record that they name is taken.
            time: the labels' column with their times; without a zone they are in the lake's.
            event_time: by table, its own column of time: among the rows that were known, and not of a time after the
                label's, the latest one is taken, and ``on`` need not be the whole key.

        A label whose key had no row has NULLs. One later than the newest commit sees that. Expired when retention has
        removed what the oldest label needs, NotYet when that is older than the lake; UsageError, UnknownColumn,
        NameNotFound.
        """
        return as_of(self, self._answers, labels, features, on, time, event_time or {}, self.position())

    def watch(
        self,
        query: str,
        *,
        params: Mapping[str, Any] | None = None,
        interval: float = 0.5,
        resume: str | None = None,
    ) -> Watch:
        """The answer again whenever it may have changed; shown in a notebook, a live panel.

        ``params`` are bound as $name; one that is an ipywidgets control stands for its value, and turning it asks anew.
        ``.changes()`` yields the answer and then its changes, each with a token to ``resume`` from.
        """
        return Watch(self, query, interval, resume, params)

    def chart(
        self,
        query: str,
        *,
        kind: Kind | None = None,
        x: str | None = None,
        y: str | Sequence[str] | None = None,
        color: str | None = None,
        window: str | None = None,
        title: str = "",
        log: bool = False,
        unit: str = "",
        params: Mapping[str, Any] | None = None,
        interval: float = 1.0,
        engine: Engine | None = None,
    ) -> Any:
        """A chart of the answer that follows the lake (a ``Chart``): a live panel in a notebook, ``svg()`` for a file.

        ``kind``: "line", "bar", "area", "histogram" or "scatter"; what is left open is chosen from the columns' types.
        Several ``y`` are series, or each value of ``color`` is one. ``window``: only the last stretch of x ("15m").
        Rows are aggregated by the engine, so a chart of millions of them is as quick to show as one of hundreds.
        ``engine``: "altair" or "plotly" gives that library's own chart of all rows, where it is installed.
        UsageError, NameNotFound, and what ``sql`` raises.
        """
        options: dict[str, Any] = {"kind": kind, "x": x, "y": y, "color": color, "window": window, "title": title}
        return chart(self, query, log=log, unit=unit, params=params, interval=interval, engine=engine, **options)

    def connect(self, *, at: positions.Position = None) -> duckdb.DuckDBPyConnection:
        """A DuckDB connection of your own with every table and view at one position, as plain tables.

        ``orders`` and ``shop.public.orders`` both work; a short name that is not unique is left out. The rows
        are copied, so the connection outlives the lake and never changes.
        """
        topics = [t for t in self.topics() if t.kind != "system" and (t.kind != "changelog" or t.state == "live")]
        own = duck.connect(timezone=self.log.timezone)
        query = "SELECT 1 FROM " + ", ".join(_quoted(topic.name) for topic in topics)
        if topics:
            with self._answers.reading(query, at) as (cursor, resolved, _, _):
                for reference in resolved.references:
                    rows = cursor.sql(f"FROM {quote(reference.private)}").to_arrow_reader()
                    _copy_table(own, reference.topic.name, rows, short=_is_unique(reference.topic, topics))
        return own

    def consumer(
        self, topics: str | Sequence[str], group: str | None = None, **options: Unpack[ConsumerOptions]
    ) -> Consumer:
        """Read topics as records come: a context manager and an iterator of batches (see ``headwater.Consumer``).

        Consumers of one ``group`` share the partitions and go on where the group has committed; without one, all
        are read and nothing is stored. Options: ``start``, ``stop``, ``batch_rows``, ``columns``, ``rate``,
        ``auto_commit``, ``on_expired``, ``lease_s``, ``max_poll_s`` (see ``client.options``).
        """
        return Consumer(self.log, topics, group, **options)

    def groups(self) -> list[GroupReport]:
        """Every consumer group: its offsets, lag in records and seconds, members, and what its commits say."""
        return groups(self.log)

    def replay_topic(self, topics: str | Sequence[str], **options: Unpack[ReadOptions]) -> Replay:
        """Read a stretch of topics again, apart from every group: batches, at a ``rate``, with ``progress``."""
        return Replay(self.log, topics, **options)

    def producer(
        self,
        id: str | None = None,  # noqa: A002 -- what people write
        *,
        linger_ms: float = LINGER_MS,
        buffer_bytes: int = BUFFER_BYTES,
        on_full: OnFull = "block",
        block_s: float = BLOCK_S,
        durability: Durability = "fsync",
        on_error: OnError = "raise",
        principal: str | None = None,
    ) -> Producer:
        """Write to topics: a context manager with ``send``, ``transaction`` and ``flush`` (see ``headwater.Producer``).

        Args:
            id: a name that outlives the process: it numbers batches across restarts, and opening it again fences
                whoever held it. Without one the producer is anonymous.
            linger_ms: how long a batch waits for more rows; nobody who asks for a result waits for it.
            buffer_bytes: rows accepted and not committed yet, at most.
            on_full: when the buffer has no room, "block" for up to ``block_s`` seconds, or "raise" BufferFull.
            durability: "fsync" acknowledges what is durable, "relaxed" what is accepted.
            on_error: "raise" refuses a batch with a bad row; "dead_letter" keeps such rows in ``<topic>.dlq``.
            principal: who stands behind the writes; kept with every commit.
        """
        producer = Producer(
            self.log,
            id,
            linger_ms=linger_ms,
            buffer_bytes=buffer_bytes,
            on_full=on_full,
            block_s=block_s,
            durability=durability,
            on_error=on_error,
            principal=principal,
        )
        self._memory.producers.add(producer)
        return producer

    def diff(self, query: str, since: positions.Position, until: positions.Position = None) -> Result:
        """The rows of ``query`` that came (``_weight`` above 0) and went (below) between two positions.

        A changed row is one that went and one that came. ``until`` is the newest position if left out. Raises as
        ``sql`` does, and UsageError when the answer has other columns at one of them.
        """
        return difference(self, query, since, until)

    def timeline(self, *, link: object | Sequence[object] = ()) -> Timeline:
        """Where the lake can be read; in a notebook a slider over its commits.

        ``link``: panels (``lake.watch(...)``, ``lake.chart(...)``), one or several, that turn to the slider's position.
        """
        return Timeline(self, tuple(link) if isinstance(link, list | tuple) else (link,))

    def dashboard(self, *things: object, columns: int = 2, timeline: bool = True) -> Dashboard:
        """Several panels in one cell, at one position, at most ``columns`` beside one another.

        ``timeline``: the slider on top. UsageError for something that has no panel.
        """
        return Dashboard(self, things, columns=columns, timeline=timeline)

    def pipeline(self) -> Pipeline:
        """Sources, topics, views and jobs with what feeds them, their state and lag; in a notebook, a live graph."""
        return Pipeline(self)

    def schema(self) -> SchemaTree:
        """What there is to read: sources, tables, topics and views with their columns; in a notebook, a browser."""
        return SchemaTree(self)

    def replay(
        self, view: str, start: positions.Position = None, stop: positions.Position = None, *, promote: bool = False
    ) -> Backfill:
        """A view made anew beside the live one and compared; in a notebook, a panel that plans, starts and promotes.

        The tables' rows at ``start``, plus the changes up to ``stop``; without ``start`` from their rows there.
        ``.run()`` blocks with a progress bar. With ``promote`` what was made is then put in the live view's place.
        Raises as ``headwater replay``: NameNotFound, NotYet, Expired, UsageError.
        """
        return Backfill(self, view, start, stop, promote=promote)

    def rates(self, window: str = "5m") -> Rates:
        """Rows and bytes a second and the end-to-end lag of each topic and view over the last minutes; a live panel."""
        return Rates(self, window)

    def lineage(self) -> dict[str, list[str]]:
        """View → full names of the topics and views that its definition reads."""
        for entry in entry_points(group="headwater.lineage"):
            found: dict[str, list[str]] = entry.load()(self.log)
            return found
        return {}

    @property
    def project(self) -> Project | None:
        """The project whose lake this is: the one it was opened by, else of a folder above it; None without one."""
        if self._project is None:
            self._project = _project_of(self.log.folder)
        return self._project

    def health(self) -> Health:
        """What the checks say of every source, topic, view and job, by the limits of ``[slo]``; the worst first."""
        return health(self)

    def status(self) -> dict[str, Any]:
        """The object of ``headwater status --json``."""
        from headwater.lake.status import status

        return status(self.log)

    def time_of(self, commit: int) -> datetime:
        """When a commit was published."""
        return self.log.commit_info(commit).time

    def close(self) -> None:
        """End the lake and its producers, or only the hold on its position when ``at`` made it."""
        if self._lease is not None:
            self._lease.close()
            return
        with ExitStack() as stack:  # one that fails must not keep the others open
            stack.callback(self.log.close)
            stack.callback(self._memory.close)
            for producer in list(self._memory.producers):
                stack.callback(producer.close)

    def __enter__(self) -> Lake:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _pinned_commit(self) -> int | None:
        return None if self._pinned is None else positions.resolve(self.log, self._pinned)


def _project_of(lake: Path) -> Project | None:
    folder = next((each for each in lake.resolve().parents if (each / FILE).is_file()), None)
    found = None if folder is None else load(folder)
    return found if found is not None and found.lake_dir == lake.resolve() else None


def _is_unique(topic: Topic, topics: Sequence[Topic]) -> bool:
    last = topic.name.rpartition(".")[2].lower()
    return sum(other.name.lower().rpartition(".")[2] == last for other in topics) == 1


def _copy_table(own: duckdb.DuckDBPyConnection, name: str, rows: pa.RecordBatchReader, *, short: bool) -> None:
    """Create ``source.namespace.table`` (or ``views.name``) and, for a unique last part, a view of it."""
    *place, last = name.split(".", 2)  # shop.public."orders.dlq"
    if len(place) == 2:
        own.execute(f"ATTACH IF NOT EXISTS ':memory:' AS {quote(place[0])}")
    if place:
        own.execute(f"CREATE SCHEMA IF NOT EXISTS {'.'.join(quote(part) for part in place)}")
    own.register("copied", rows)
    table = ".".join(quote(part) for part in (*place, last))
    own.execute(f"CREATE TABLE {table} AS FROM copied")
    own.unregister("copied")
    if short:
        own.execute(f"CREATE VIEW {quote(last)} AS FROM {table}")


def _quoted(full_name: str) -> str:
    return ".".join(quote(part) for part in full_name.split("."))
