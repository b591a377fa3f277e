"""What the catalog says is stored, part by part: hot batches, segments, bases, and whether their bytes are right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Select, Table, select

from headwater.catalog import tables
from headwater.catalog.records import Base, Batch, Segment
from headwater.errors import CorruptFile
from headwater.storage import hot

if TYPE_CHECKING:
    from headwater.log.log import Log

Part = Batch | Segment | Base

_file = tables.file
_HOT = (
    select(tables.batch, _file.c.path, tables.commit.c.time)
    .join(_file, _file.c.id == tables.batch.c.file)
    .join(tables.commit, tables.commit.c.number == tables.batch.c.commit)
)


def batches(connection: Connection) -> list[Batch]:
    """Every hot batch, oldest commit first; their number is bounded by sealing."""
    query = _HOT.order_by(tables.batch.c.commit, tables.batch.c.file, tables.batch.c.byte_offset)
    return [Batch(**row._mapping) for row in connection.execute(query)]


def segments(connection: Connection) -> list[Segment]:
    """Every live segment, by topic, partition and offset."""
    segment = tables.segment
    query = _sealed(segment).order_by(segment.c.topic, segment.c.partition, segment.c.first_offset)
    return [Segment(**row._mapping) for row in connection.execute(query)]


def bases(connection: Connection) -> list[Base]:
    """Every live base, by topic and commit."""
    query = _sealed(tables.base).order_by(tables.base.c.topic, tables.base.c.commit, tables.base.c.file)
    return [Base(**row._mapping) for row in connection.execute(query)]


def sealed(connection: Connection, file_id: int) -> Segment | Base | None:
    """The segment or base that this live file is; None for a file of another kind."""
    row = connection.execute(_sealed(tables.segment).where(_file.c.id == file_id)).one_or_none()
    if row is not None:
        return Segment(**row._mapping)
    row = connection.execute(_sealed(tables.base).where(_file.c.id == file_id)).one_or_none()
    return None if row is None else Base(**row._mapping)


def check(log: Log, part: Part) -> CorruptFile | None:
    """Read the part whole: what is wrong with its bytes, if anything."""
    try:
        if isinstance(part, Batch):
            hot.check(log.storage.read(part.path, part.byte_offset, part.byte_length), part.digest, part.path)
        else:
            log.storage.check(part.path, part.bytes, part.digest)
    except CorruptFile as error:
        return error
    return None


def size(part: Part) -> int:
    """Its bytes on disk."""
    return part.byte_length if isinstance(part, Batch) else part.bytes


def hot_files(connection: Connection) -> Iterator[tuple[str, int]]:
    """Path and size of every hot file that is still referred to."""
    query = select(_file.c.path, _file.c.bytes).where(_file.c.kind == "hot", _file.c.removed.is_(None))
    for row in connection.execute(query):
        yield row.path, row.bytes


def _sealed(table: Table) -> Select[Any]:
    query = select(table, _file.c.path, _file.c.bytes, _file.c.digest)
    return query.join(_file, _file.c.id == table.c.file).where(_file.c.removed.is_(None))
