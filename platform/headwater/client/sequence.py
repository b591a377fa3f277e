"""Producers by name: their epoch, and the number of the last batch, so that a repeated batch is told from a new one.

Both stand in the producer's catalog row and change in the transaction that publishes the batch. A batch number is
used once: repeated with the same content it is a duplicate, with another content a conflict.

A producer without a name of its own has a random one, forgotten after ``NAMELESS_KEPT_S``; a named one is forgotten
after ``NAMED_KEPT_S`` without a batch. A name that was forgotten begins anew at batch 0, with an epoch above all that
were ever forgotten: who still holds the old one is fenced, and his repeated batch can never become a second copy.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import xxhash
from sqlalchemy import Connection, and_, bindparam, delete, func, or_, select, update
from sqlalchemy.dialects.sqlite import insert

from headwater.catalog import tables
from headwater.catalog.catalog import put_setting
from headwater.catalog.prepared import Prepared
from headwater.catalog.records import to_micros
from headwater.errors import ProducerConflict, UsageError
from headwater.log import CommitInfo, Log

NAMELESS_KEPT_S = 86_400
"""A producer without a name and without a batch for a day is gone: nobody can open it again anyway."""

NAMED_KEPT_S = 30 * 86_400
"""A load is taken up again within days; a month covers a holiday. Bounds the rows that names leave behind."""

PREFIX = "producer:"
_NAMELESS = f"{PREFIX}~"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}")
_FLOOR = "producer_epoch_floor"
"""Setting: the highest epoch of any producer that was forgotten."""

_STANDING = Prepared(select(tables.producer).where(tables.producer.c.name == bindparam("producer")))
_RECORD = Prepared(
    update(tables.producer)
    .where(tables.producer.c.name == bindparam("producer"))
    .values(
        sequence=bindparam("number"),
        batch_rows=bindparam("holds"),
        batch_digest=bindparam("check"),
        seen=bindparam("now"),
    )
)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who produces: every commit is fenced by ``epoch``. ``stored`` is the last batch's number, None for none."""

    name: str
    epoch: int
    stored: int | None
    nameless: bool


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What is stored of a batch beside its records."""

    sequence: int
    rows: int
    digest: str


class Repeated(Exception):
    """This very batch is in the log already, since ``commit``; not an error, so it never leaves the client."""

    def __init__(self, commit: int) -> None:
        super().__init__(commit)
        self.commit = commit


def open_identity(log: Log, name: str | None) -> Identity:
    """Take a name over (every earlier holder is fenced), or a random one; forgets who has long been silent."""
    if name is not None and not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a producer", todo="Use up to 128 letters, digits and _ . : / -")
    full = f"{PREFIX}{name}" if name is not None else f"{_NAMELESS}{uuid.uuid4().hex}"
    producer, now = tables.producer, log.clock.now_us()
    with log.catalog.write() as connection:
        floor = _forget(connection, now)
        taken = insert(producer).values(name=full, epoch=floor + 1, seen=now)
        upsert = taken.on_conflict_do_update(
            index_elements=["name"], set_={"epoch": producer.c.epoch + 1, "seen": now}
        ).returning(producer.c.epoch, producer.c.sequence)
        row = connection.execute(upsert).one()
    return Identity(name=full, epoch=row.epoch, stored=row.sequence, nameless=name is None)


def record(connection: Connection, info: CommitInfo, batch: Batch) -> None:
    """Store the batch's number with its commit; inside the catalog transaction, where the epoch was checked.

    Repeated when this batch is stored already, ProducerConflict when its number belongs to another one or is not
    the next.
    """
    row = _STANDING.first(connection, {"producer": info.producer})
    if row.sequence == batch.sequence:
        if (row.batch_rows, row.batch_digest) == (batch.rows, batch.digest):
            raise Repeated(row.commit)
        raise _conflict(info.producer, batch, row.sequence, f"holds {row.batch_rows:,} other rows")
    expected = 0 if row.sequence is None else row.sequence + 1
    if batch.sequence != expected:
        raise _conflict(info.producer, batch, row.sequence, f"is not the next one, {expected}")
    values = {"number": batch.sequence, "holds": batch.rows, "check": batch.digest, "now": to_micros(info.time)}
    _RECORD.run(connection, {"producer": info.producer, **values})


def digest_of(contents: Iterable[tuple[str, pa.Table]]) -> str:
    """xxh3-128 of tables by topic, whatever they were cut into in memory: equal values taken anew have equal bytes."""
    found = xxhash.xxh3_128()
    for topic, table in contents:
        found.update(topic.encode())
        ordered = table.select(sorted(table.column_names))
        with pa.ipc.new_stream(pa.PythonFile(_Hashing(found), "w"), ordered.schema) as stream:
            stream.write_table(ordered.take(pa.array(np.arange(table.num_rows))).combine_chunks())
    return found.hexdigest()


class _Hashing:
    """A file that only hashes what is written to it."""

    closed = False

    def __init__(self, found: xxhash.xxh3_128) -> None:
        self._found = found

    def write(self, data: bytes) -> int:
        self._found.update(data)
        return len(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def _conflict(producer: str, batch: Batch, stored: int | None, why: str) -> ProducerConflict:
    if stored is None:
        why += "; the log has no batch of this producer (none came, or its record has expired)"
    return ProducerConflict(
        f"batch {batch.sequence} of {producer} {why}",
        stored=stored,
        todo=f"Go on with batch {0 if stored is None else stored + 1}, or under another id.",
    )


def _forget(connection: Connection, now: int) -> int:
    """Remove the rows of producers that were silent for too long; the floor of epochs after it."""
    producer = tables.producer
    old = or_(
        and_(producer.c.name.startswith(_NAMELESS, autoescape=True), producer.c.seen < now - NAMELESS_KEPT_S * 10**6),
        and_(producer.c.name.startswith(PREFIX, autoescape=True), producer.c.seen < now - NAMED_KEPT_S * 10**6),
    )
    text = connection.execute(select(tables.setting.c.value).where(tables.setting.c.name == _FLOOR)).scalar()
    floor = int(text or 0)
    highest: int | None = connection.execute(select(func.max(producer.c.epoch)).where(old)).scalar()
    if highest is None:
        return floor
    connection.execute(delete(producer).where(old))
    if highest > floor:
        put_setting(connection, _FLOOR, str(highest))
    return max(highest, floor)
