"""The pieces of a copy: rows that were read, durable under names of their own, that nobody sees until they appear.

copy:<id>:begun            which transactions ran when the copy began
copy:<id>:plan             the chunks
copy:<id>:chunk-<chunk>    rows of a chunk under a snapshot of its own; a crash keeps them
copy:<id>:whole-<chunk>    ... under the one snapshot of the whole table; worth nothing once that is lost
copy:<id>:final-<what>     what is to appear beside them, or in place of them
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa
from psycopg import sql

from headwater import failpoint
from headwater.catalog.records import Topic
from headwater.log.staging import Kept, Staging, kept, release
from headwater_connectors.postgres.chunks import Chunk, Reader
from headwater_connectors.postgres.known import Known
from headwater_connectors.postgres.pool import Waited
from headwater_connectors.postgres.progress import Progress
from headwater_connectors.postgres.rows import Letter, TableUnreadable
from headwater_connectors.postgres.session import Connection
from headwater_connectors.postgres.snapshot import Snapshot

if TYPE_CHECKING:
    from headwater_connectors.postgres.copier import Copier

LETTERS_MAX = 1_000
LETTER_BYTES_MAX = 16 << 20
"""Rows of a table that cannot be read, and their bytes; beyond it the table is not copied."""
STAGED_ROWS = 100_000
"""Rows of a batch in a kept file: what is decoded at a time is far less, and each batch is a row of the catalog."""
WAIT_SECONDS = 0.05

_T = TypeVar("_T")


class Pieces:
    """What is read, and kept, for one copy; ``topic`` is whose rows they will be. Chunks are read several at once."""

    def __init__(self, copier: Copier, known: Known, topic: Topic, progress: Progress) -> None:
        self.copier = copier
        self.known = known
        self.topic = topic
        self.progress = progress
        self.on_standby = copier.config.copy_from == "standby"
        """Where rows are read; everything else is asked of the primary."""

    def name(self, part: str) -> str:
        return f"copy:{self.known.copy}:{part}"

    def connection(self) -> AbstractContextManager[Connection]:
        """To the server from which rows are read."""
        return self.copier.connection(standby=self.on_standby)

    def forget(self, prefix: str) -> None:
        """Let go of what an earlier try has read under a snapshot that is gone."""
        lasting = (self.name("begun"), self.name("letters-"))  # what belongs to the copy, not to one try
        names = [p.name for p in kept(self.copier.log, self.name(prefix)) if not p.name.startswith(lasting)]
        names += [p.name for p in kept(self.copier.log, self.name("final-"))] if prefix else []
        if not names:
            return
        with self.copier.log.catalog.write() as connection:
            release(connection, names, self.copier.log.clock.now_us(), published=False)

    def stage(self, name: str, rows: Iterator[pa.Table]) -> list[Kept]:
        """The rows as a final piece; none if there are none."""
        staging = Staging(self.copier.log)
        for table in rows:
            staging.append(self.topic, table)
        return [staging.keep(self.name(f"final-{name}"), {})] if staging.rows else []

    def read(
        self, reader: Reader, wanted: Sequence[Chunk], snapshot: str | None, only: sql.Composable | None = None
    ) -> list[Kept]:
        """The chunks' rows, under an exported snapshot or each under its own, a piece for each chunk in their order."""
        self.progress.begin("reading")
        return sorted(self.over(wanted, lambda chunk: [self.keep_chunk(reader, chunk, snapshot, only)]), key=chunk_of)

    def over(self, wanted: Sequence[Chunk], read: Callable[[Chunk], list[_T]]) -> Iterator[_T]:
        """What ``read`` gives for the chunks, several at once; in no order, and no longer held than it takes."""
        running: set[Future[list[_T]]] = {self.copier.readers.submit(self._patiently, chunk, read) for chunk in wanted}
        try:
            for each in as_completed(running):
                running.remove(each)
                yield from each.result()
        finally:
            for each in running:
                each.cancel()

    def keep_chunk(self, reader: Reader, chunk: Chunk, snapshot: str | None, only: sql.Composable | None) -> Kept:
        """A chunk as a durable piece; its facts are the chunk, its snapshot, and the rows that could not be read."""
        staging = Staging(self.copier.log)
        try:
            with self.connection() as connection:
                seen, letters = self._stage_chunk(staging, reader.chunk(connection, chunk, snapshot, only))
            failpoint.hit("copy.keep:before")
            facts = {
                "part": chunk.part, "low": chunk.low, "high": chunk.high, "snapshot": seen,
                "letters": [letter.to_json() for letter in letters],
            }  # fmt: skip
            piece = staging.keep(self.name(f"{'whole-' if snapshot else 'chunk-'}{chunk.name}"), facts)
        except BaseException:
            staging.discard()
            raise
        failpoint.hit("copy.keep:after")
        self.progress.add(piece.rows, chunk.pages)
        return piece

    def with_letters(self, before: list[Letter], *more: Letter) -> list[Letter]:
        """All of them. Raises TableUnreadable when they are too many."""
        letters = [*before, *more]
        if len(letters) > LETTERS_MAX or sum(len(letter.message) for letter in letters) > LETTER_BYTES_MAX:
            raise TableUnreadable(
                f"{len(letters)} rows of {self.known.full_name} cannot be read, the last because: {letters[-1].error}",
                where=self.topic.name,
                oid=self.known.oid,
            )
        return letters

    def _patiently(self, chunk: Chunk, read: Callable[[Chunk], list[_T]]) -> list[_T]:
        """In smaller and smaller chunks where somebody had to wait."""
        found, todo = [], [chunk]
        while todo:
            part = todo.pop()
            try:
                found += read(part)
            except Waited:
                self.copier.pause(WAIT_SECONDS)
                todo += part.halves()
        return found

    def _stage_chunk(self, staging: Staging, read: Iterator[Snapshot | pa.Table | Letter]) -> tuple[str, list[Letter]]:
        """Write what a reader yields; the snapshot that it says, and the rows that cannot be read."""
        seen, letters, rows = "", list[Letter](), list[pa.Table]()
        for each in read:
            self.copier.check()
            if isinstance(each, Snapshot):
                seen = str(each)
            elif isinstance(each, Letter):
                letters = self.with_letters(letters, each)
            else:
                rows.append(each)
            if sum(table.num_rows for table in rows) >= STAGED_ROWS:
                staging.append(self.topic, _joined(rows))
                rows = []
        if rows:
            staging.append(self.topic, _joined(rows))
        return seen, letters


def chunk_of(piece: Kept) -> Chunk:
    return Chunk(piece.facts["part"], piece.facts["low"], piece.facts["high"])


def refused(pieces: Sequence[Kept]) -> list[Letter]:
    """The rows of these pieces that could not be read."""
    return [Letter.from_json(each) for piece in pieces for each in piece.facts.get("letters", ())]


def _joined(rows: list[pa.Table]) -> pa.Table:
    """Some of them may have ``_raw`` and others not."""
    return pa.concat_tables(rows, promote_options="default")
