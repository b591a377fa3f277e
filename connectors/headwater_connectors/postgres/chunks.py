"""Chunks of a table: ranges of its pages, each read in a short transaction of its own.

A chunk's transaction takes ACCESS SHARE with a short wait, makes sure that the table is still the one that was
planned (its file and its columns, looked at after the lock), notes its snapshot, reads and commits: nobody waits
for us longer than one chunk takes, and the pool ends even that when somebody does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
from psycopg import sql

from headwater import record
from headwater.config import SourceConfig
from headwater.errors import HeadwaterError
from headwater_connectors.postgres import catalog
from headwater_connectors.postgres.catalog import TableInfo, column_types, log_names
from headwater_connectors.postgres.cells import Int64s
from headwater_connectors.postgres.columns import ColumnType
from headwater_connectors.postgres.copy_stream import row_at, rows_of
from headwater_connectors.postgres.known import Known, is_still
from headwater_connectors.postgres.pool import Waited
from headwater_connectors.postgres.printing import TextNeeded, Types
from headwater_connectors.postgres.rows import Letter, TableUnreadable, raw, refuse_odd_keys
from headwater_connectors.postgres.session import Connection, promises_no_encoding
from headwater_connectors.postgres.snapshot import Snapshot, use
from headwater_connectors.postgres.walk import walk_copy

CHUNK_PAGES = 8_192
"""64 MB of a table: read within a second, and little to read again after a crash."""
PAGES_MIN = 64
"""A chunk that somebody waited for is read again in halves, down to so many pages."""


_GIVEN_WAY = (
    psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled,
    psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected,
)  # fmt: skip
"""The last two: on a standby, what it replays does not wait for us any longer."""
_GONE = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.InvalidSchemaName)


class TableMoved(Exception):
    """The table is not the planned one any more: its file or its columns are others."""


@dataclass(frozen=True, order=True)
class Chunk:
    """Pages [low, high) of a part; ``high`` is None for all that there are from ``low`` on, new ones included."""

    part: int
    low: int
    high: int | None

    @property
    def name(self) -> str:
        return f"{self.part}-{self.low}"

    @property
    def pages(self) -> int:
        return CHUNK_PAGES if self.high is None else self.high - self.low

    def halves(self) -> tuple[Chunk, ...]:
        """The same pages in two chunks; the chunk alone when it is small, or has no end."""
        if self.high is None or self.pages <= PAGES_MIN:
            return (self,)
        middle = self.low + self.pages // 2
        return replace(self, high=middle), replace(self, low=middle)


def plan(table: TableInfo) -> list[Chunk]:
    """Chunks that cover every part of the table, whatever it grows by meanwhile."""
    return [
        Chunk(part.oid, low, low + CHUNK_PAGES if low + CHUNK_PAGES < part.pages else None)
        for part in table.parts
        for low in range(0, max(part.pages, 1), CHUNK_PAGES)
    ]


def left(chunks: Sequence[Chunk], done: Sequence[Chunk]) -> list[Chunk]:
    """What of the planned chunks the done ones, each a planned one or a part of it, do not cover."""
    missing = []
    for chunk in chunks:
        inside = sorted(
            each
            for each in done
            if each.part == chunk.part
            and each.low >= chunk.low
            and (chunk.high is None or (each.high is not None and each.high <= chunk.high))
        )
        low: int | None = chunk.low
        for each in inside:
            if low is not None and each.low > low:
                missing.append(replace(chunk, low=low, high=each.low))
            low = each.high
        if low is not None and (chunk.high is None or low < chunk.high):
            missing.append(replace(chunk, low=low))
    return missing


@dataclass(frozen=True)
class Reader:
    """Reads rows of one table as records of its topic; ``known`` is what the table must still be."""

    table: TableInfo
    known: Known
    types: Types
    config: SourceConfig

    def chunk(
        self, connection: Connection, chunk: Chunk, snapshot: str | None = None, only: sql.Composable | None = None
    ) -> Iterator[Snapshot | pa.Table | Letter]:
        """First the snapshot that is read, then the rows, and those that cannot be read as letters.

        The transaction ends with the iterator.

        Raises TableMoved, Waited, SnapshotLost.
        ``snapshot``: the name of an exported one to read under, instead of a new one. ``only``: a condition on rows.
        """
        place = self.place(chunk)
        if only is not None:
            place += sql.SQL(" AND {}").format(only)
        yield from self._read(connection, self._part(chunk), place, snapshot)

    def rows(self, connection: Connection, chunk: Chunk, where: sql.Composable, snapshot: str) -> Iterator[pa.Table]:
        """The chunk's rows ``t`` in a snapshot that fulfil a condition. TableUnreadable when one cannot be read."""
        place = sql.SQL("{} AND {}").format(self.place(chunk), where)
        for each in self._read(connection, self._part(chunk), place, snapshot):
            if isinstance(each, Letter):
                raise TableUnreadable(f"a row of {self.table.full_name} cannot be read: {each.error}")
            if isinstance(each, pa.Table):
                yield each

    def ask(self, connection: Connection, chunk: Chunk, query: sql.Composed, snapshot: str) -> list[tuple[Any, ...]]:
        """The answer to a query over ``place`` in a snapshot, as safely as rows are read."""
        with self._held(connection, self._part(chunk), snapshot):
            answer: list[tuple[Any, ...]] = connection.execute(query).fetchall()
        return answer

    def place(self, chunk: Chunk) -> sql.Composed:
        """FROM and WHERE of a chunk, whose rows are called ``t``."""
        part = self._part(chunk)
        place = sql.SQL("FROM ONLY {} t WHERE true").format(sql.Identifier(part.namespace, part.name))
        if part.filenode:
            place += sql.SQL(" AND ctid >= {}").format(sql.Literal(f"({chunk.low},0)"))
        if part.filenode and chunk.high is not None:
            place += sql.SQL(" AND ctid < {}").format(sql.Literal(f"({chunk.high},0)"))
        return place + self._filter()

    def _filter(self) -> sql.Composable:
        """The condition on rows, in the words of the server that published it."""
        return sql.SQL(" AND {}").format(_verbatim(self.known.published)) if self.known.chosen else sql.SQL("")

    def _part(self, chunk: Chunk) -> catalog.Part:
        return next(each for each in self.table.parts if each.oid == chunk.part)

    def keys(self, connection: Connection, values: str, snapshot: str) -> Iterator[pa.Table | Letter]:
        """The rows with one of these keys in a snapshot; ``values``: keys as SQL rows of texts, ``('1'), ('2')``."""
        whole = replace(self.table.parts[0], oid=self.table.oid, namespace=self.table.namespace, name=self.table.name)
        columns = [column for number in self.known.key for column in self.table.columns if column.number == number]
        named = [sql.Identifier(f"c{place}") for place in range(len(columns))]
        same = sql.SQL(" AND ").join(
            sql.SQL("t.{} = k.{}::{}").format(sql.Identifier(column.name), name, _verbatim(column.type_name))
            for name, column in zip(named, columns, strict=True)
        )
        place = sql.SQL("FROM {} {} t WHERE EXISTS (SELECT FROM (VALUES {}) AS k({}) WHERE {})").format(
            sql.SQL("ONLY" if self.table.parts[0].oid == self.table.oid else ""),
            sql.Identifier(whole.namespace, whole.name),
            _verbatim(values),
            sql.SQL(", ").join(named),
            same,
        )
        place += self._filter()
        yield from (each for each in self._read(connection, whole, place, snapshot) if not isinstance(each, Snapshot))

    def _read(
        self, connection: Connection, part: catalog.Part, place: sql.Composable, snapshot: str | None
    ) -> Iterator[Snapshot | pa.Table | Letter]:
        kinds, as_bytes = column_types(self.table, self.types), promises_no_encoding(connection)
        with self._held(connection, part, snapshot) as seen:
            yield seen
            if as_bytes:
                connection.execute("SET LOCAL client_encoding = 'SQL_ASCII'")
            command = self._copy(place, kinds).as_bytes(connection)
            for data, starts in rows_of(connection, command, len(kinds)):
                yield from self._readable(data, starts, kinds, as_bytes)

    @contextmanager
    def _held(self, connection: Connection, part: catalog.Part, snapshot: str | None) -> Iterator[Snapshot]:
        """A transaction that holds the part, which is still what was planned; ends with the block."""
        try:
            with connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                if snapshot is not None:
                    use(connection, snapshot)
                lock = sql.SQL("LOCK TABLE ONLY {} IN ACCESS SHARE MODE")
                connection.execute(lock.format(sql.Identifier(part.namespace, part.name)))
                yield self._same_table(connection)
        except _GIVEN_WAY as error:
            raise Waited(str(error)) from error
        except TextNeeded as error:  # a field of a composite, of a type that was made since
            raise TableMoved(f"{self.table.full_name} changed: {error}") from error
        except _GONE as error:
            raise TableMoved(f"{self.table.full_name} is gone or changed: {error}") from error

    def _same_table(self, connection: Connection) -> Snapshot:
        """The snapshot; TableMoved unless the table, looked at after the lock, is what was planned."""
        row = connection.execute("SELECT pg_current_snapshot()::text").fetchone()
        assert row is not None
        now = catalog.tables(connection, oids=[self.table.oid], config=self.config)
        if not now or not is_still(self.known, now[0]):
            raise TableMoved(f"{self.table.full_name} changed while it was copied")
        return Snapshot.parse(row[0])

    def _copy(self, place: sql.Composable, kinds: Sequence[ColumnType]) -> sql.Composed:
        """COPY BINARY; a type without binary decoder is sent as its exact text inside it.

        format('%s') runs the type's output function, which a cast to text does not always (inet, bpchar, boolean).
        """
        columns = []
        for column, kind in zip(self.table.columns, kinds, strict=True):
            name = sql.Identifier(column.name)
            text = sql.SQL("CASE num_nonnulls({0}) WHEN 1 THEN format('%s', {0}) END").format(name)
            columns.append(name if kind.binary else text)
        listed = sql.SQL(", ").join(columns)
        return sql.SQL("COPY (SELECT {} {}) TO STDOUT (FORMAT binary)").format(listed, place)

    def _readable(
        self, data: bytes, starts: Int64s, kinds: Sequence[ColumnType], validates: bool
    ) -> Iterator[pa.Table | Letter]:
        """Rows as records; those that cannot be decoded are found by halving, and become letters."""
        try:
            rows = self._records(data, starts, kinds)
            if validates:
                rows.validate(full=True)
        except HeadwaterError:
            raise
        except Exception as error:  # noqa: BLE001 -- whatever the bytes of one row bring about
            if len(starts) > 1:
                middle = len(starts) // 2
                yield from self._readable(data, starts[:middle], kinds, validates)
                yield from self._readable(data, starts[middle:], kinds, validates)
                return
            text = str(error).strip() or type(error).__name__
            yield Letter(self.table.oid, "copy", row_at(data, int(starts[0])), type(error).__name__, text, {})
            return
        yield rows

    def _records(self, data: bytes, starts: Int64s, kinds: Sequence[ColumnType]) -> pa.Table:
        cells = walk_copy(np.frombuffer(data, np.uint8), starts, [kind.width for kind in kinds])
        columns = [(kind.binary or kind.text)(cell) for kind, cell in zip(kinds, cells, strict=True)]
        if self.known.kind == "table":
            numbers = [column.number for column in self.table.columns]
            refuse_odd_keys(columns[numbers.index(number)] for number in self.known.key)
        names = log_names([column.name for column in self.table.columns])
        count = len(starts)
        found = dict(zip(names, (column.values for column in columns), strict=True))
        found[record.OP] = pa.array(["r"]).take(pa.array(np.zeros(count, np.int8)))
        if self.known.kind == "multiset":
            found[record.WEIGHT] = pa.array(np.ones(count, np.int64))
        return pa.table({**found, **raw(names, columns, np.arange(count))})


def _verbatim(text: str) -> sql.SQL:
    """SQL that was quoted where it was made: a type's name as the server writes it, or literals."""
    return sql.SQL(text)
