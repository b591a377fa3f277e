"""Damaged records: their partition is in quarantine, everything else goes on.

Whoever finds bytes that are not the committed ones (a reader, sealing, recovery, ``verify``, the patrol) says so
in the catalog. From then on

    a read that needs the damaged records      CorruptFile with file, topic, partition and offsets
    a read that does not need them             an answer, as before
    sealing                                    stops before the damage in that partition, for segments stand
                                               before hot batches, and does the rest
    merging, compacting                        leave the partition alone and do the rest
    appending                                  goes on: new records have new files

``verify`` ends the quarantine when the bytes are right again (a file restored from a backup), or when retention
has removed the part.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, or_, select, true, update

from headwater.catalog import tables
from headwater.catalog.prepared import Prepared
from headwater.catalog.records import Base, Batch, Segment
from headwater.errors import CatalogError, CorruptFile, DiskFull, FilesExpired, HeadwaterError
from headwater.log import chain, generations, incidents

if TYPE_CHECKING:
    from headwater.log.log import Log

TODO = "Restore the file from a backup, then run `headwater verify`; other partitions are not affected."

_MARKED = Prepared(
    select(tables.partition.c.partition, tables.partition.c.quarantine).where(
        tables.partition.c.topic == bindparam("of_topic"), tables.partition.c.quarantine.is_not(None)
    )
)


@dataclass(frozen=True, kw_only=True)
class Damage:
    """Records that cannot be read: the offsets that the damaged part holds, both ends included.

    ``hot``: the part is a hot batch.
    """

    topic: int
    partition: int
    first_offset: int
    last_offset: int
    path: str
    what: str
    hot: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.what} (offsets {self.first_offset} to {self.last_offset})"


def of(connection: Connection, topic_id: int) -> list[Damage]:
    """What is damaged of a topic; one statement, nearly always without a row."""
    return [each for row in _MARKED.all(connection, {"of_topic": topic_id}) for each in _parse(topic_id, row)]


def everything(connection: Connection) -> list[Damage]:
    """What is damaged in the whole lake."""
    partition = tables.partition
    query = select(partition.c.topic, partition.c.partition, partition.c.quarantine)
    marked = connection.execute(query.where(partition.c.quarantine.is_not(None)))
    return [each for row in marked for each in _parse(row.topic, row)]


def partitions(log: Log) -> set[tuple[int, int]]:
    """Topic and partition of everything in quarantine: what rewriting leaves alone."""
    with log.catalog.read() as connection:
        return {(each.topic, each.partition) for each in everything(connection)}


def sealable(connection: Connection) -> ColumnElement[bool]:
    """A condition on ``batch``: it does not lie at or behind a damaged one in its partition."""
    batch = tables.batch
    behind = [
        and_(
            batch.c.topic == each.topic,
            batch.c.partition == each.partition,
            batch.c.first_offset >= each.first_offset,
        )
        for each in everything(connection)
        if each.hot
    ]
    return ~or_(*behind) if behind else true()


def hit(part: Batch | Segment, damaged: Iterable[Damage]) -> Damage | None:
    """The damage that lies in this part."""
    for each in damaged:
        if each.partition == part.partition and each.path == part.path and each.first_offset == part.first_offset:
            return each
    return None


def refuse(name: str, parts: Sequence[Batch | Segment], damaged: Sequence[Damage]) -> None:
    """CorruptFile when one of these parts is damaged."""
    for part in parts if damaged else ():
        found = hit(part, damaged)
        if found is not None:
            raise _error(name, found)


def report(log: Log, part: Batch | Segment | Base, error: CorruptFile) -> HeadwaterError:
    """Put the part's partition in quarantine; returns the error for whoever needed its records.

    A process that may not write raises all the same; who may will meet it too. A part that has left the catalog
    since it was planned is not damaged, its file was removed: FilesExpired.
    """
    name = _topic_name(log, part.topic)
    with log.catalog.read() as connection:
        live = _is_live(connection, part)
    if not live:
        todo = "Ask again; a reader that takes long needs a lease."
        return FilesExpired("a file left the lake while it was read", where=f"{name}, {part.path}", todo=todo)
    if isinstance(part, Base):
        return _report_base(log, part, name, error)
    damage = Damage(
        topic=part.topic,
        partition=part.partition,
        first_offset=part.first_offset,
        last_offset=part.first_offset + part.rows - 1 if isinstance(part, Batch) else part.last_offset,
        path=part.path,
        what=error.what,
        hot=isinstance(part, Batch),
    )
    with suppress(CatalogError, DiskFull, OSError), log.catalog.write() as connection:
        _mark(connection, name, part, damage, log.clock.now_us())
    return _error(name, damage)


def end(log: Log, mended: Sequence[Damage]) -> None:
    """These parts are right again, or gone: their partitions leave quarantine when nothing else is damaged there."""
    names = {each.topic: _topic_name(log, each.topic) for each in mended}
    with log.catalog.write() as connection:
        for topic, partition in sorted({(each.topic, each.partition) for each in mended}):
            here = [each for each in of(connection, topic) if each.partition == partition]
            left = [each for each in here if each not in mended]
            _store(connection, topic, partition, left)
            for each in here:
                if each in mended:
                    what = f"{each.path} is right again (offsets {each.first_offset} to {each.last_offset})"
                    subject = f"{names[topic]}, partition {partition}"
                    incidents.append(connection, "released", subject, what, log.clock.now_us())


def _mark(connection: Connection, name: str, part: Batch | Segment, damage: Damage, now_us: int) -> None:
    here = [each for each in of(connection, part.topic) if each.partition == part.partition]
    if hit(part, here) is not None or not _is_live(connection, part):
        return
    _store(connection, part.topic, part.partition, [*here, damage])
    incidents.append(connection, "quarantine", f"{name}, partition {part.partition}", str(damage), now_us)


def _is_live(connection: Connection, part: Batch | Segment | Base) -> bool:
    batch, file = tables.batch, tables.file
    if isinstance(part, Batch):
        place = (batch.c.topic == part.topic) & (batch.c.partition == part.partition)
        query = select(batch.c.file).where(place, batch.c.first_offset == part.first_offset)
    else:
        query = select(file.c.id).where(file.c.path == part.path, file.c.removed.is_(None))
    return connection.execute(query).first() is not None


def _report_base(log: Log, part: Base, name: str, error: CorruptFile) -> CorruptFile:
    """A base is made of records: while all of them are there it is given up, and the next read folds them."""
    todo = TODO
    with suppress(CatalogError, DiskFull, OSError), log.catalog.write() as connection:
        if not _is_live(connection, part):
            todo = "It was given up meanwhile; ask again."
        elif _has_all_records(connection, part.topic):
            _give_up(connection, part, log.clock.now_us())
            todo = "It was given up, its records are all there; ask again."
        incidents.append(connection, "quarantine", name, f"{part.path}: {error.what}. {todo}", log.clock.now_us())
    return CorruptFile(
        error.what,
        where=f"{part.path}, the base of {name} at commit {part.commit}",
        todo=todo,
        topic=name,
        path=part.path,
    )


def _give_up(connection: Connection, part: Base, now_us: int) -> None:
    removed = [part.digest]
    chain.append(connection, "base", number=part.commit, time=now_us, producer="maintenance", removed=removed)
    connection.execute(delete(tables.base).where(tables.base.c.file == part.file))
    connection.execute(update(tables.file).where(tables.file.c.id == part.file).values(removed=now_us))


def _has_all_records(connection: Connection, topic_id: int) -> bool:
    """Whether neither retention nor compaction has taken a record away, so that a fold begins at the beginning."""
    segment, file, partition = tables.segment, tables.file, tables.partition
    compacted = select(segment.c.file).join(file, file.c.id == segment.c.file).where(file.c.removed.is_(None))
    compacted = compacted.where(segment.c.topic == topic_id, segment.c.compacted.is_not(None))
    begins = generations.first_offsets(connection)
    here = connection.execute(select(partition).where(partition.c.topic == topic_id)).all()
    whole = all(row.start_offset == begins[row.topic, row.partition] for row in here)
    return whole and connection.execute(compacted).first() is None


def _store(connection: Connection, topic: int, number: int, damaged: Sequence[Damage]) -> None:
    partition = tables.partition
    text = json.dumps([asdict(each) for each in damaged]) if damaged else None
    place = (partition.c.topic == topic) & (partition.c.partition == number)
    connection.execute(update(partition).where(place).values(quarantine=text))


def _parse(topic: int, row: object) -> list[Damage]:
    text: str = row.quarantine  # type: ignore[attr-defined]
    return [Damage(**{**each, "topic": topic}) for each in json.loads(text)]


def _topic_name(log: Log, topic_id: int) -> str:
    with log.catalog.read() as connection:
        return str(connection.execute(select(tables.topic.c.name).where(tables.topic.c.id == topic_id)).scalar_one())


def _error(name: str, damage: Damage) -> CorruptFile:
    where = (
        f"{name}, partition {damage.partition}, offsets {damage.first_offset} to {damage.last_offset}, {damage.path}"
    )
    return CorruptFile(
        damage.what,
        where=where,
        todo=TODO,
        topic=name,
        partition=damage.partition,
        first_offset=damage.first_offset,
        last_offset=damage.last_offset,
        path=damage.path,
    )
