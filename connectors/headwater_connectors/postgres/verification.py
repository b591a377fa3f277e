"""Is the lake the source: every table compared with PostgreSQL at one position.

    S: a snapshot of the server      C: a commit after the stream has passed everything that S sees
    buckets of keys ── checksums on both sides ──▶ those that differ ── their rows ──▶ rows that differ

Rows that changed after S and before C are left out on both sides, counted, and compared the next time. Check sums are
those of ``sums``; the rows of a bucket that differs, and of tables with types that have no sum, are read and compared
value by value.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, TypeVar

import duckdb
import psycopg
from psycopg import sql

from headwater.catalog.records import Topic
from headwater.config import SourceConfig
from headwater.errors import SourceGap, SourceUnreachable
from headwater.log import Log, read
from headwater.log.rows import CurrentRows
from headwater.service.status import running
from headwater.types import lift_sql, quote
from headwater_connectors.postgres import catalog, session, sums
from headwater_connectors.postgres.chunks import Chunk, Reader, TableMoved, plan
from headwater_connectors.postgres.known import Known, is_still, key_names, load
from headwater_connectors.postgres.literal import text_sql
from headwater_connectors.postgres.pending import workbench
from headwater_connectors.postgres.pool import Pool, Waited
from headwater_connectors.postgres.rows import TableUnreadable
from headwater_connectors.postgres.snapshot import Snapshot, SnapshotLost, exported

WAITED_SECONDS = 0.05
GIVEN_WAY_MAX = 100
"""A table that so often somebody else held, or wanted, is left; so are all that remain once the snapshot had to be let
go so often: an index build waits for it."""
SHOWN = 20
"""Differing rows of a table that are named; all are counted."""
CHANGING_MAX = 100_000
"""Rows of a table that may change meanwhile: their keys are held in memory, and sent to the server."""
GAVE_WAY = "others needed it all the time; compare again when less is done to it"
WAIT_SECONDS = 60.0
"""How long the lake may take to reach the source's position before nothing is compared."""
_Answer = TypeVar("_Answer")


@dataclass(kw_only=True)
class Verified:
    """What was found of one table. ``differences``: rows only here, only there or other; ``changing``: left out."""

    table: str
    rows: int = 0
    buckets: int = 0
    read: int = 0
    differences: int = 0
    changing: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)
    skipped: str = ""


def verify(
    config: SourceConfig,
    log: Log,
    on_table: Callable[[str], None] = lambda _: None,
    ended: Callable[[], bool] = lambda: False,
    only: Collection[str] = (),
) -> list[Verified]:
    """Compare every captured table, or ``only`` those ("namespace.table").

    Capture has to run meanwhile, and ``ended`` says when it does not any more.

    SourceUnreachable when the server, or the capture, cannot be waited for; SourceGap when changes are missing.
    """
    captured = [each for each in load(log, config.name).values() if each.route != "outbox"]
    captured = [each for each in captured if not only or each.full_name in only]
    todo = sorted(captured, key=lambda each: each.topic)
    found: list[Verified] = []
    with closing(Pool(config, config.dsn)) as pool:
        for _ in range(GIVEN_WAY_MAX):
            try:
                _compare_all(config, log, pool, todo[len(found) :], found, on_table, ended)
            except (SnapshotLost, Waited):
                time.sleep(WAITED_SECONDS)
            except psycopg.Error as error:
                raise session.translate(error, config.name) from error
            if len(found) == len(todo):
                return found
    return found + [Verified(table=each.full_name, skipped=GAVE_WAY) for each in todo[len(found) :]]


def _compare_all(
    config: SourceConfig,
    log: Log,
    pool: Pool,
    todo: list[Known],
    found: list[Verified],
    on_table: Callable[[str], None],
    ended: Callable[[], bool],
) -> None:
    """Compare tables at one position. SnapshotLost or Waited: those that are not in ``found`` are left."""
    with pool.connection() as holding, exported(holding) as (seen, snapshot):
        since = log.newest_commit()
        _await(config, log, ended)
        commit = log.newest_commit()
        for known in todo:
            on_table(known.full_name)
            result = Verified(table=known.full_name)
            chosen = _chosen(log, config, known, pool, result)
            if chosen is not None:
                with workbench(log.storage.path("state")) as work:
                    try:
                        _Comparison(log, *chosen, pool, snapshot, seen, since, commit, work, result).run()
                    except (TableMoved, TableUnreadable) as error:
                        result.skipped = str(error)
            found.append(result)


def _chosen(log: Log, config: SourceConfig, known: Known, pool: Pool, result: Verified) -> tuple[Topic, Reader] | None:
    """What is compared; None, with the reason in ``result``, for a table that cannot be."""
    if known.route != "topic" or known.kind == "insert_only":
        copied = "it is being copied" if known.route == "pending" else "only inserts are sent"
        result.skipped = known.reason or copied
        return None
    topic = log.topic(known.shown)
    with pool.connection() as connection:
        types = catalog.known_types(connection)
        try:
            tables = catalog.tables(connection, oids=[known.oid], measured=True, config=config)
        except psycopg.errors.LockNotAvailable as error:
            raise Waited(str(error)) from error
    if topic.state != "live":
        result.skipped = f"it is {topic.state}: {topic.reason}"
    elif not tables or not is_still(known, tables[0]):
        result.skipped = "it changed its shape, or is gone"
    return None if result.skipped else (topic, Reader(tables[0], known, types, config))


def _await(config: SourceConfig, log: Log, ended: Callable[[], bool]) -> None:
    """Until the log holds everything that the server has written by now."""
    with session.connect(config.dsn, config.name) as connection:
        end = catalog.current_end(connection)
    until = time.monotonic() + WAIT_SECONDS
    while True:
        state = log.producer(f"source:{config.name}")
        if max(catalog.parse_lsn(each or "0/0") for each in (state.position, state.confirmed)) >= end:
            return
        said = log.live.read().get(f"source:{config.name}")
        if said is not None and said.stats.get("mended_by") and running(said):
            raise SourceGap(
                f"its capture waits: {said.stats['error']}",
                where=f"source {config.name}",
                todo=f"Run `{said.stats['mended_by']}`.",
            )
        if time.monotonic() > until or ended():
            raise SourceUnreachable(
                f"the lake did not reach {catalog.format_lsn(end)} within {WAIT_SECONDS:.0f} s",
                where=f"source {config.name}",
                todo="Is its capture running? `headwater status` tells.",
            )
        log.wait_change(log.catalog_version(), 0.2)


@dataclass
class _Comparison:
    log: Log
    topic: Topic
    reader: Reader
    pool: Pool
    snapshot: str
    seen: Snapshot
    since: int
    commit: int
    work: duckdb.DuckDBPyConnection
    result: Verified

    def run(self) -> None:
        """Raises SnapshotLost, and TableMoved."""
        schema = self.topic.schema
        self.keys = key_names(self.reader.known) or schema.names
        self.sums = sums.Sums(
            table=self.reader.table, schema=schema, keys=self.keys, buckets=sums.buckets_for(self.reader.table.rows)
        )
        shown = CurrentRows(self.log, self.work, self.topic)
        rows = ", ".join(quote(name) for name in schema.names)
        self._mark_changing()
        self.result.changing = self._count("SELECT count(*) FROM changing")
        if self.result.changing > CHANGING_MAX:
            self.result.skipped = f"{self.result.changing:,} rows changed meanwhile, more than {CHANGING_MAX:,}"
            return
        same = " AND ".join(f"r.{quote(key)} IS NOT DISTINCT FROM x.{quote(key)}" for key in self.keys)
        self.work.execute(
            f"CREATE TEMP VIEW ours AS SELECT {rows}, {self.sums.bucket_here()} AS bucket_ FROM"
            f" ({shown.at(self.topic, self.commit)}) r ANTI JOIN changing x ON {same}"
        )
        self.result.rows = self._count("SELECT count(*) FROM ours")
        differing = self._differing()
        self.result.buckets, self.result.read = self.sums.buckets, len(differing)
        if differing:
            self._compare(differing)

    def _mark_changing(self) -> None:
        """Keys that a transaction touched which S does not see; the log may hold some that were committed before."""
        fields = [self.topic.schema.field(name) for name in self.keys]
        names = ", ".join(f"{lift_sql(field.name, field.type)} AS {quote(field.name)}" for field in fields)
        plan = read.plan(self.log, self.topic, max(0, self.since - 1_000), self.commit)
        records = read.relation_sql(self.log, self.work, plan, "recent")
        self.work.execute(
            f"CREATE TABLE changing AS SELECT DISTINCT {names} FROM ({records})"
            f" WHERE _op <> 't' AND NOT {self.seen.sees_sql()}"
        )

    # ---- checksums

    def _differing(self) -> list[int]:
        """Buckets whose count or sum is not the same; all of them when rows have no text."""
        if not self.sums.summable:
            return [0]
        where = self._where(None)

        def ask(connection: session.Connection, chunk: Chunk) -> list[tuple[Any, ...]]:
            place = sql.SQL("{} AND {}").format(self.reader.place(chunk), where)
            return self.reader.ask(connection, chunk, self.sums.there(place), self.snapshot)

        theirs = sums.added(row for answer in self._pieces(ask) for row in answer)
        return sums.differing(self.sums.here(self.work, "ours"), theirs)

    def _pieces(self, act: Callable[[session.Connection, Chunk], _Answer]) -> Iterator[_Answer]:
        """What ``act`` says of each piece of the table: where somebody waited, of smaller ones."""
        todo, given_way = plan(self.reader.table), 0
        while todo:
            chunk = todo.pop()
            try:
                with self.pool.connection() as connection:
                    answer = act(connection, chunk)
            except Waited:
                given_way += 1
                if given_way > GIVEN_WAY_MAX:
                    raise TableMoved(GAVE_WAY) from None
                time.sleep(WAITED_SECONDS)
                todo += chunk.halves()
            else:
                yield answer

    def _where(self, buckets: list[int] | None) -> sql.Composable:
        """The condition on the server: without the changing keys, and only these buckets."""
        where: sql.Composable = sql.SQL("true")
        if buckets is not None:
            where += sql.SQL(" AND {}").format(self.sums.among(buckets))
        if self.result.changing:
            where += sql.SQL(" AND NOT EXISTS (SELECT FROM {} WHERE {})").format(*self._excluded())
        return where

    def _excluded(self) -> tuple[sql.Composable, sql.Composable]:
        """The changing keys as a table of texts, and the condition that a row has one of them."""
        schema = self.topic.schema
        texts = [text_sql(quote(key), schema.field(key).type, schema.field(key).source_type) for key in self.keys]
        rows = self.work.execute(f"SELECT {', '.join(texts)} FROM changing").fetchall()
        lists = [[row[place] for row in rows] for place in range(len(self.keys))]
        columns = dict(zip(schema.names, self.reader.table.columns, strict=True))
        arrays = sql.SQL(", ").join(sql.SQL("{}::text[]").format(sql.Literal(each)) for each in lists)
        named = [sql.Identifier(f"k{place}") for place in range(len(self.keys))]
        same = sql.SQL(" AND ").join(
            sql.SQL("t.{} IS NOT DISTINCT FROM k.{}::{}").format(
                sql.Identifier(columns[key].name), name, sql.SQL(columns[key].type_name)
            )
            for key, name in zip(self.keys, named, strict=True)
        )
        return sql.SQL("unnest({}) AS k({})").format(arrays, sql.SQL(", ").join(named)), same

    # ---- rows

    def _compare(self, buckets: list[int]) -> None:
        """Read the buckets' rows and count those that are not on both sides alike."""
        schema = self.topic.schema
        lifted = ", ".join(f"{lift_sql(field.name, field.type)} AS {quote(field.name)}" for field in schema.fields)
        self._read_theirs(buckets, lifted)
        chosen = f"SELECT * EXCLUDE (bucket_) FROM ours WHERE bucket_ IN ({', '.join(map(str, buckets))})"
        self.work.execute(
            f"CREATE TABLE differing AS SELECT 'lake' AS only_in, * FROM ({chosen} EXCEPT ALL SELECT * FROM theirs)"
            f" UNION ALL SELECT 'source', * FROM (SELECT * FROM theirs EXCEPT ALL {chosen})"
        )
        self.result.differences = self._count("SELECT count(*) FROM differing")
        found = self.work.sql(f"SELECT * FROM differing ORDER BY ALL LIMIT {SHOWN}").to_arrow_table()
        self.result.examples = [{key: str(value) for key, value in row.items()} for row in found.to_pylist()]

    def _read_theirs(self, buckets: list[int], lifted: str) -> None:
        """The server's rows of these buckets in the table ``theirs``."""
        self.work.execute("CREATE TABLE theirs AS SELECT * EXCLUDE (bucket_) FROM ours LIMIT 0")
        where = self._where(buckets)

        def take(connection: session.Connection, chunk: Chunk) -> None:
            self.work.begin()
            try:
                for rows in self.reader.rows(connection, chunk, where, self.snapshot):
                    self.work.register("piece", rows)
                    self.work.execute(f"INSERT INTO theirs SELECT {lifted} FROM piece")
                    self.work.unregister("piece")
            except BaseException:
                self.work.rollback()
                raise
            self.work.commit()

        for _ in self._pieces(take):
            pass

    def _count(self, query: str) -> int:
        [(count,)] = self.work.execute(query).fetchall()
        return int(count)
