"""Batches in new files that nothing names yet: what a transaction publishes, and what waits to be published.

    append ──▶ bytes in data/hot (invisible) ──▶ a transaction names them          (``Transaction.append``)
                                             └─▶ keep: durable, named, unread ──▶ a transaction adopts them, or nobody

Kept pieces belong to work that is too long to be one transaction's and must survive a crash: the chunks of an
initial copy. They count as the lake's bytes and are no orphans; only who kept them ends them.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import delete, select, update

from headwater import record
from headwater.catalog import tables
from headwater.catalog.catalog import put_setting
from headwater.catalog.records import Topic
from headwater.log import budget, evolve
from headwater.log.partitioner import partition_of
from headwater.storage import FileWriter, hot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from headwater.log.log import Log

FILE_BYTES_MAX = 64 * 1024 * 1024
"""A hot file is closed at this size; one commit may reference several. Bounds what one read maps."""

KEPT = "kept"
"""The kind of a file that is named and not published."""


@dataclass(frozen=True, kw_only=True)
class Staged:
    """A batch whose bytes are written and whose offsets are not known yet; ``file`` is a place in a list of files."""

    topic: str
    partition: int
    rows: int
    file: int
    byte_offset: int
    byte_length: int
    digest: str
    schema_version: int


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A durable piece of work in progress: its files (catalog id, path, bytes), batches and the keeper's facts."""

    name: str
    files: tuple[tuple[int, str, int], ...]
    batches: tuple[Staged, ...]
    facts: Mapping[str, Any]

    @property
    def rows(self) -> int:
        return sum(batch.rows for batch in self.batches)


class Staging:
    """New files of one writer. Not thread-safe. ``append`` keeps the order of rows within a topic partition."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.files: list[FileWriter] = []
        self.batches: list[Staged] = []

    @property
    def rows(self) -> int:
        return sum(batch.rows for batch in self.batches)

    def append(self, topic: Topic, table: pa.Table, partition: int | None = None) -> None:
        """Write rows of one topic, split by its partitions unless one is given.

        SchemaError names the column that does not fit; DiskFull, DiskLow and StorageError from the disk.
        """
        if table.num_rows == 0:
            return
        conformed = evolve.incoming(table, topic.schema, topic.kind, topic.name)
        if partition is not None or topic.partitions == 1:
            self._write(topic, topic.first_partition if partition is None else partition, conformed)
            return
        for number, part in _split(conformed, topic):
            self._write(topic, topic.first_partition + number, part)

    def seal(self) -> None:
        """Make everything durable; nothing is appended afterwards."""
        for writer in self.files:
            if writer.open:
                writer.seal()

    def discard(self) -> None:
        """Remove the files: nothing ever named them."""
        for writer in self.files:
            writer.discard()

    def keep(self, name: str, facts: Mapping[str, Any]) -> Kept:
        """Durable under ``name`` once this returns, and found by ``kept`` after any crash."""
        self.seal()
        with self.log.catalog.write() as connection:
            now = self.log.clock.now_us()
            release(connection, [name], now, published=False)
            budget.require_budget(connection, str(self.log.folder))
            named = []
            for writer in self.files:
                self.log.storage.require(writer.name, writer.length)
                values = {"path": writer.name, "kind": KEPT, "bytes": writer.length, "created": now}
                insert = tables.file.insert().values(**values).returning(tables.file.c.id)
                named.append((int(connection.execute(insert).scalar_one()), writer.name, writer.length))
            found = Kept(name=name, files=tuple(named), batches=tuple(self.batches), facts=dict(facts))
            put_setting(connection, _setting(name), _to_json(found))
        return found

    def _write(self, topic: Topic, partition: int, table: pa.Table) -> None:
        data, digest = hot.encode(table)
        start = self._writer().write(data)
        self.batches.append(
            Staged(
                topic=topic.name,
                partition=partition,
                rows=table.num_rows,
                file=len(self.files) - 1,
                byte_offset=start,
                byte_length=data.nbytes,
                digest=digest,
                schema_version=topic.schema_version,
            )
        )

    def _writer(self) -> FileWriter:
        if not self.files or self.files[-1].length >= FILE_BYTES_MAX:
            budget.require_water(self.log)
            if self.files:
                self.files[-1].seal()
            self.files.append(self.log.storage.create(f"data/hot/{uuid.uuid4().hex}.arrows"))
        return self.files[-1]


def note(connection: Connection, name: str, facts: Mapping[str, Any]) -> None:
    """Keep facts without rows, as part of the caller's transaction; found and released like any piece."""
    put_setting(connection, _setting(name), _to_json(Kept(name=name, files=(), batches=(), facts=dict(facts))))


def kept(log: Log, prefix: str) -> list[Kept]:
    """Every piece whose name begins with ``prefix``, by name."""
    setting = tables.setting
    query = select(setting.c.value).where(setting.c.name.startswith(_setting(prefix), autoescape=True))
    with log.catalog.read() as connection:
        return [_from_json(row.value) for row in connection.execute(query.order_by(setting.c.name))]


def release(connection: Connection, names: list[str], now_us: int, *, published: bool) -> None:
    """Forget kept pieces, in the caller's transaction: their files are data now, or leave after the grace period."""
    setting, file = tables.setting, tables.file
    for name in names:
        row = connection.execute(select(setting.c.value).where(setting.c.name == _setting(name))).one_or_none()
        if row is None:
            continue
        ids = [each[0] for each in _from_json(row.value).files]
        values = {"kind": "hot"} if published else {"kind": "hot", "removed": now_us}
        connection.execute(update(file).where(file.c.id.in_(ids)).values(**values))
        connection.execute(delete(setting).where(setting.c.name == _setting(name)))


def tables_of(log: Log, piece: Kept, topic: Topic) -> Iterator[pa.Table]:
    """A kept piece's rows, batch by batch, checked; CorruptFile when the bytes are not those that were kept."""
    for batch in piece.batches:
        path = piece.files[batch.file][1]
        data = log.storage.read(path, batch.byte_offset, batch.byte_length)
        yield hot.decode(data, batch.digest, f"{topic.name}, a piece not yet published: {path}")


def _split(table: pa.Table, topic: Topic) -> list[tuple[int, pa.Table]]:
    """The rows of each partition, in their order; truncate rows in all of them."""
    keys = [table.column(name) for name in topic.schema.key]
    target = partition_of(keys, topic.partitions) if keys else np.arange(table.num_rows) % topic.partitions
    everywhere = None
    if record.OP in table.column_names:
        everywhere = pc.equal(table.column(record.OP), "t").fill_null(False).to_numpy(zero_copy_only=False)
    parts = []
    for number in range(topic.partitions):
        mask = target == number
        if everywhere is not None:
            mask |= everywhere
        if mask.any():
            parts.append((number, table.filter(pa.array(mask))))
    return parts


def _setting(name: str) -> str:
    return f"{KEPT}:{name}"


def _to_json(piece: Kept) -> str:
    body = {
        "name": piece.name,
        "files": [list(each) for each in piece.files],
        "batches": [asdict(batch) for batch in piece.batches],
        "facts": dict(piece.facts),
    }
    return json.dumps(body)


def _from_json(text: str) -> Kept:
    body = json.loads(text)
    return Kept(
        name=body["name"],
        files=tuple((number, path, size) for number, path, size in body["files"]),
        batches=tuple(Staged(**batch) for batch in body["batches"]),
        facts=body["facts"],
    )
