"""The copy of one table, from its first chunk to the rows that appear in one commit.

    changes since before the first chunk ──────────────▶ pending (hidden topic, by the capture)
    chunk, chunk, ...  each under a snapshot of its own ─▶ kept pieces
    S: a snapshot after the last chunk    W: the WAL's end after S
    once the stream has passed W:   chunks less K, K read again under S, then what S does not see of pending

Exactly the table's rows at the commit in which they appear, whatever happened meanwhile: a row that moves between
two chunks, a commit that is streamed before snapshots see it, a change of a key are all in K (architecture 6).
A crash loses the chunk that was being read; a lost S costs a new S. A table of one chunk, one without a key and one
that changes faster than it is read are copied under one snapshot, which is then S, and begin again when it is lost.
So is a large one that readers see already, and may be right: check sums of its chunks tell which keys have to be read.

With ``copy_from = "standby"`` rows are read there, always under one snapshot, a slot's. Everything else stays with
the primary: which transactions are open, and what the stream has to pass. When three snapshots in a row were refused
or lost, the copy is made from the primary, and the status says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg
import pyarrow as pa
from psycopg import sql

from headwater import failpoint, logs
from headwater.catalog.records import Topic
from headwater.log import topics
from headwater.log.rows import CurrentRows
from headwater.log.staging import Kept, Staging, kept, tables_of
from headwater_connectors.postgres import catalog, chunks, selection
from headwater_connectors.postgres.chunks import Chunk, Reader, TableMoved
from headwater_connectors.postgres.difference import Difference
from headwater_connectors.postgres.known import RETYPED, Known, is_still
from headwater_connectors.postgres.pending import Pending, untouched, workbench
from headwater_connectors.postgres.pieces import WAIT_SECONDS, Pieces, chunk_of, refused
from headwater_connectors.postgres.pool import Waited
from headwater_connectors.postgres.progress import Progress
from headwater_connectors.postgres.rows import Letter
from headwater_connectors.postgres.selection import Selection
from headwater_connectors.postgres.session import Connection
from headwater_connectors.postgres.snapshot import Seen, Snapshot, SnapshotLost, exported
from headwater_connectors.postgres.sums import Sums, added, buckets_for, differing

if TYPE_CHECKING:
    from headwater_connectors.postgres.copier import Copier

READ_AGAIN_FRACTION = 0.1
READ_AGAIN_MIN = 50_000
"""A table of which more keys than this share, and this many, changed meanwhile is copied under one snapshot."""
COMPARED_HERE_PAGES_MAX = 32_768
"""A table of up to 256 MB is read and compared here: check sums of rows cost the server, and us, more than to send them
does. Of a larger one, what is sent and written meanwhile counts for more."""
STANDBY_SNAPSHOTS_MAX = 3
"""A copy for which so many snapshots of a standby were refused or lost is made from the primary."""
AGAIN_SECONDS_MAX = 30.0
"""The longest pause before a copy goes on that had to let go of its snapshot: somebody waited for it."""

_log = logs.logger("copy")


class Stopped(Exception):
    """The capture ends where nothing may be finished any more; what is kept waits for the next one."""


class _TooFast(Exception):
    """More keys changed while the chunks were read than it pays to read again."""


@dataclass(frozen=True, kw_only=True)
class Copied:
    """A table ready to appear: ``pieces`` are adopted in order, then pending's records after commit ``upto`` follow."""

    known: Known
    topic: Topic
    pieces: tuple[Kept, ...]
    upto: int
    letters: tuple[Letter, ...] = ()
    """Rows that could not be read, perhaps of a version that changed since."""


@dataclass(frozen=True)
class _Same:
    """Every bucket but these is equal on both sides."""

    sums: Sums
    buckets: list[int]

    @property
    def where(self) -> str:
        """The condition that a row of the lake is in one of those."""
        listed = f" NOT IN ({', '.join(map(str, self.buckets))})" if self.buckets else " >= 0"
        return f"{self.sums.bucket_here()}{listed}"


class Copying:
    """``run`` in a thread; ``topic`` is the pending topic, whose schema is the copied table's."""

    def __init__(self, copier: Copier, known: Known, pending: Topic, shown: Topic | None) -> None:
        self.copier = copier
        self.known = known
        self.pending = pending
        self.progress = Progress(known.full_name)
        self.topic = self._destination(pending, shown)
        self.pieces = Pieces(copier, known, self.topic, self.progress)
        self._gave_way = False
        self._standby_snapshots = 0

    def run(self) -> Copied:
        """Raises TableMoved when the table is another one now, Stopped, and SourceUnreachable (to be run again)."""
        pause = WAIT_SECONDS
        while True:
            try:
                return self._run()
            except (Waited, SnapshotLost) as error:
                _log.info("the copy of %s gave way, and goes on: %s", self.known.full_name, error)
                self.progress.phase = "giving way"
                self._give_way(error)
                self.copier.pause(pause)
                pause = min(2 * pause, AGAIN_SECONDS_MAX)

    def _give_way(self, error: Exception) -> None:
        """What the next try does otherwise."""
        if not self.pieces.on_standby:
            self._gave_way = True
        elif self._standby_snapshots >= STANDBY_SNAPSHOTS_MAX:
            self.pieces.on_standby = False
            self.progress.server = f"the primary, because of the standby: {error}"
            _log.warning("%s is copied from the primary, not from the standby: %s", self.known.full_name, error)

    def _run(self) -> Copied:
        if self.pieces.on_standby:
            self.progress.server = "the standby"
        with self.copier.connection() as connection:
            reader = self._reader(connection)
            if self.known.where:
                return self._selected(reader, selection.of(self.known, self.known.where))
            sums = self._sums(reader)
            whole = self.pieces.on_standby or self._held_whole(reader.table)
            self._await_writers(connection, whole=whole or sums is not None)
            if sums is not None:
                return self._by_sums(reader, sums)
            if whole:
                return self._whole(reader)
            try:
                return self._by_chunks(reader)
            except _TooFast:
                _log.info("%s changes faster than it is copied: one snapshot", self.known.full_name)
                return self._whole(reader)

    # ---- what is copied

    def _destination(self, pending: Topic, shown: Topic | None) -> Topic:
        """The topic that the copied rows are written for, as it will be in the commit in which they appear."""
        if shown is None or self.known.replaces:
            new = topics.new(
                self.known.topic, pending.kind, pending.schema, self.copier.partitions(self.known), self.copier.source,
                "", pending.settings,
            )  # fmt: skip
            return replace(new, description=pending.description)
        version = shown.schema_version + (pending.schema != shown.schema)
        return replace(shown, schema=pending.schema, schema_version=version)

    @property
    def _compares(self) -> bool:
        return bool(self.known.shown) and not self.known.replaces

    def _reader(self, connection: Connection) -> Reader:
        try:
            found = catalog.tables(connection, oids=[self.known.oid], measured=True, config=self.copier.config)
        except psycopg.errors.LockNotAvailable as error:
            raise Waited(str(error)) from error
        if not found:
            raise TableMoved(f"{self.known.full_name} is gone")
        if not is_still(self.known, found[0]):
            raise TableMoved(f"{self.known.full_name} changed before it was copied")
        self.progress.all_pages = sum(part.pages for part in found[0].parts)
        return Reader(found[0], self.known, catalog.known_types(connection), self.copier.config)

    def _held_whole(self, table: catalog.TableInfo) -> bool:
        return self.known.kind != "table" or len(chunks.plan(table)) == 1

    def _await_writers(self, connection: Connection, *, whole: bool) -> None:
        """Until every transaction has ended that ran when the table's changes began to be sent.

        What such a one wrote before is in no stream, so every chunk must see it.
        """
        name = self.pieces.name("begun")
        now = begun = _snapshot(connection)
        if not whole:  # chunks are kept over a crash, so what they had to see is, too
            found = kept(self.copier.log, name) or [Staging(self.copier.log).keep(name, {"snapshot": str(now)})]
            begun = Snapshot.parse(found[0].facts["snapshot"])
        self.progress.phase = "waiting for transactions that were open"
        while not begun.ended_since(now):
            self.copier.pause(WAIT_SECONDS)
            now = _snapshot(connection)

    def _sums(self, reader: Reader) -> Sums | None:
        """How rows are compared without reading all of them, where readers see some that may be right.

        None once the snapshot for it had to be let go: chunks outlast that.
        """
        if self._gave_way or not self._compares or any(field.id >= RETYPED for field in self.topic.schema.fields):
            return None
        if sum(part.pages for part in reader.table.parts) <= COMPARED_HERE_PAGES_MAX:
            return None
        keys = self.topic.schema.key or self.topic.schema.names
        count = buckets_for(reader.table.rows)
        found = Sums(table=reader.table, schema=self.topic.schema, keys=keys, buckets=count, odd=True)
        return found if found.summable else None

    # ---- reading

    def _by_sums(self, reader: Reader, sums: Sums) -> Copied:
        """Of the table under one snapshot, which is S, only the buckets of keys that readers do not see alike."""
        self.pieces.forget("")
        planned = chunks.plan(reader.table)
        with self._exported() as (final, name):
            self.progress.begin("comparing")
            there = added(self.pieces.over(planned, lambda chunk: self._sum_chunk(reader, chunk, name, sums)))
            with workbench(self.copier.log.storage.path("state")) as connection:
                shown = CurrentRows(self.copier.log, connection, self.topic)
                here = sums.here(connection, f"({shown.at(self.topic, self.copier.log.newest_commit())})")
            buckets = differing(here, there)
            read = self.pieces.read(reader, planned, name, sums.among(buckets)) if buckets else []
        _log.info("%s: %d of %d buckets of keys differ", self.known.full_name, len(buckets), sums.buckets)
        return self._finish(reader, read, final, None, _Same(sums, buckets))

    def _sum_chunk(self, reader: Reader, chunk: Chunk, snapshot: str, sums: Sums) -> list[tuple[Any, ...]]:
        with self.pieces.connection() as connection:
            self.copier.check()
            found = reader.ask(connection, chunk, sums.there(reader.place(chunk)), snapshot)
        self.progress.add(sum(count for _, count, _ in found), chunk.pages)
        return found

    def _whole(self, reader: Reader) -> Copied:
        """Every chunk under one snapshot, which is S."""
        self.pieces.forget("")
        planned = chunks.plan(reader.table)
        with self._exported() as (final, name):
            pieces = self.pieces.read(reader, planned, name)
        return self._finish(reader, pieces, final, None)

    def _by_chunks(self, reader: Reader) -> Copied:
        """Chunks that a crash keeps. Raises _TooFast."""
        self.pieces.forget("whole-")
        plan = self.pieces.name("plan")
        found = kept(self.copier.log, plan)
        if not found:
            planned = [[c.part, c.low, c.high] for c in chunks.plan(reader.table)]
            found = [Staging(self.copier.log).keep(plan, {"chunks": planned})]
        planned_chunks = [Chunk(*each) for each in found[0].facts["chunks"]]
        done = kept(self.copier.log, self.pieces.name("chunk-"))
        self.progress.add(sum(piece.rows for piece in done), sum(chunk_of(piece).pages for piece in done))
        pieces = done + self.pieces.read(reader, chunks.left(planned_chunks, [chunk_of(piece) for piece in done]), None)
        with self._exported() as (final, name):
            return self._finish(reader, pieces, final, name)

    def _selected(self, reader: Reader, selected: Selection) -> Copied:
        """The rows that a condition selects, there or here, and those that changed meanwhile: compared under S.

        A condition that one of the two cannot evaluate changes nothing, and the log says why.
        """
        self.pieces.forget("")
        only = sql.SQL("({})").format(sql.SQL(selected.server))
        try:
            with self._exported() as (final, name):
                pieces = self.pieces.read(reader, [Chunk(part.oid, 0, None) for part in reader.table.parts], name, only)
                return self._finish_selected(reader, pieces, final, name, selected)
        except (psycopg.DataError, psycopg.ProgrammingError, duckdb.Error) as error:
            _log.error("rows of %s cannot be selected by %s: %s", self.known.full_name, self.known.where, error)
            return Copied(known=self.known, topic=self.topic, pieces=(), upto=0)

    def _finish_selected(
        self, reader: Reader, pieces: list[Kept], final: Seen, exported: str, selected: Selection
    ) -> Copied:
        log = self.copier.log
        self.copier.await_stream()
        upto = log.newest_commit()
        letters = self.pieces.with_letters([], *refused(pieces))
        with workbench(log.storage.path("state")) as connection:
            pending = Pending(log, self.pending, upto, connection)
            difference = Difference(log, self.topic, connection, selects=True)
            pending.touch_all(final)
            difference.select(selected.lake, (t for piece in pieces for t in tables_of(log, piece, self.topic)), upto)
            pieces = self._read_again(reader, pieces, pending, exported, letters)
            rows = (table for piece in pieces for table in tables_of(log, piece, self.topic))
            changes = self.pieces.stage("changes", difference.changes(rows, (), upto))
            tail = self.pieces.stage("tail", pending.tail(final))
        found = (*changes, *tail)
        return Copied(known=self.known, topic=self.topic, pieces=found, upto=upto, letters=tuple(letters))

    @contextmanager
    def _exported(self) -> Iterator[tuple[Seen, str]]:
        """A snapshot of the server that is read, as S: what it sees, and its exported name."""
        with self.pieces.connection() as holding, ExitStack() as making:
            if not self.pieces.on_standby:
                yield making.enter_context(exported(holding))
                return
            self.progress.phase = "waiting for a snapshot: transactions that are open on the primary end first"
            self._standby_snapshots += 1
            seen, under = making.enter_context(self.copier.slot(holding))
            with exported(holding, under) as (_, name):
                making.close()  # the slot, and the WAL that it keeps, are not needed any more
                yield seen, name

    # ---- finishing

    def _finish(
        self, reader: Reader, pieces: list[Kept], final: Seen, exported: str | None, same: _Same | None = None
    ) -> Copied:
        """Everything that can be done before the appearing commit. Raises _TooFast.

        ``same``: what of the rows that readers see was found to be equal, and not read.
        """
        self.progress.phase = "waiting for the stream"
        failpoint.hit("copy.finish:before")
        self.copier.await_stream()
        upto = self.copier.log.newest_commit()
        self.progress.phase = "finishing"
        letters = self.pieces.with_letters([], *refused(pieces))
        if not self._compares and untouched(self.copier.log, self.pending, upto):
            return Copied(known=self.known, topic=self.topic, pieces=tuple(pieces), upto=upto, letters=tuple(letters))
        with workbench(self.copier.log.storage.path("state")) as connection:
            pending = Pending(self.copier.log, self.pending, upto, connection)
            if exported is not None:
                again = pending.touch(final, [Snapshot.parse(piece.facts["snapshot"]) for piece in pieces])
                rows = sum(piece.rows for piece in pieces)
                if again > max(READ_AGAIN_MIN, READ_AGAIN_FRACTION * rows) or not pending.again_is_readable:
                    raise _TooFast
                pieces = self._read_again(reader, pieces, pending, exported, letters) if again else pieces
            tail = self.pieces.stage("tail", pending.tail(final))
            if self._compares:
                pieces, tail = self._compared(pieces, tail, upto, connection, same), []
        found = (*pieces, *tail)
        return Copied(known=self.known, topic=self.topic, pieces=found, upto=upto, letters=tuple(letters))

    def _read_again(
        self, reader: Reader, pieces: list[Kept], pending: Pending, exported: str, letters: list[Letter]
    ) -> list[Kept]:
        """The pieces without the rows of K, and K's rows under S; ``letters`` grows by those that cannot be read."""
        kept_pieces = [self._without_again(piece, pending) for piece in pieces]
        read = Staging(self.copier.log)
        with self.pieces.connection() as connection:
            for values in pending.again():
                for rows in self._retried(partial(reader.keys, connection, values, exported)):
                    if isinstance(rows, Letter):
                        letters[:] = self.pieces.with_letters(letters, rows)
                    else:
                        read.append(self.topic, rows)
        return [*kept_pieces, read.keep(self.pieces.name("final-again"), {})]

    def _without_again(self, piece: Kept, pending: Pending) -> Kept:
        tables = list(tables_of(self.copier.log, piece, self.topic))
        less = [pending.without_again(table) for table in tables]
        if all(one is other for one, other in zip(tables, less, strict=True)):
            return piece
        staging = Staging(self.copier.log)
        for table in less:
            staging.append(self.topic, table)
        return staging.keep(self.pieces.name(f"final-{chunk_of(piece).name}"), {})

    def _compared(
        self,
        pieces: Sequence[Kept],
        tail: Sequence[Kept],
        upto: int,
        connection: duckdb.DuckDBPyConnection,
        same: _Same | None,
    ) -> list[Kept]:
        """The differences from what readers see, in place of the copied rows."""
        difference = Difference(self.copier.log, self.topic, connection)
        log = self.copier.log
        if same is not None and not same.buckets and not tail:
            return []
        rows = (table for piece in pieces for table in tables_of(log, piece, self.topic))
        after = (table for piece in tail for table in tables_of(log, piece, self.topic))
        return self.pieces.stage("changes", difference.changes(rows, after, upto, same.where if same else ""))

    def _retried(self, read: Callable[[], Iterator[pa.Table | Letter]]) -> list[pa.Table | Letter]:
        while True:
            try:
                return list(read())
            except Waited:
                self.copier.pause(WAIT_SECONDS)


def _snapshot(connection: Connection) -> Snapshot:
    row = connection.execute("SELECT pg_current_snapshot()::text").fetchone()
    assert row is not None
    return Snapshot.parse(row[0])
