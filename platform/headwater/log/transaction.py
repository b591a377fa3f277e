"""One log transaction: record batches of any topics, published together with their producer's position.

    append → bytes in new files (invisible) → commit: fsync files and folder → one catalog transaction
                                                       (fence, position, offsets, batches, schema versions, step)

Invariant: what the catalog names is durable, and a reader sees all of a commit or nothing of it. Offsets are
assigned inside the catalog transaction, so several producers write without knowing of each other.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection, bindparam, select, update

from headwater import record
from headwater.catalog import tables
from headwater.catalog.prepared import Prepared
from headwater.catalog.records import CommitInfo, Kind, Step, Topic, TopicSettings, to_datetime, to_micros
from headwater.errors import Fenced, PositionConflict, SchemaError, TopicChanged
from headwater.log import budget, chain, evolve, topics
from headwater.log.partitioner import partition_of
from headwater.registry import settle
from headwater.schema import Schema
from headwater.storage import FileWriter, hot

if TYPE_CHECKING:
    from headwater.log.log import Log

FILE_BYTES_MAX = 64 * 1024 * 1024
"""A hot file is closed at this size; one commit may reference several. Bounds what one read maps."""


# Built once: they run in every commit, while other writers wait.
_NEWEST = Prepared(
    select(tables.commit.c.number, tables.commit.c.time).order_by(tables.commit.c.number.desc()).limit(1)
)
_PRODUCER = Prepared(select(tables.producer).where(tables.producer.c.name == bindparam("producer")))
_TAKE = Prepared(
    update(tables.partition)
    .where(tables.partition.c.topic == bindparam("in_topic"), tables.partition.c.partition == bindparam("in_partition"))
    .where(tables.partition.c.closed.is_(None))
    .values(next_offset=tables.partition.c.next_offset + bindparam("count"))
    .returning(tables.partition.c.next_offset)
)
_INSERT_FILE = Prepared(tables.file.insert().returning(tables.file.c.id), ("path", "kind", "bytes", "created"))
_INSERT_BATCH = Prepared(tables.batch.insert())
_INSERT_COMMIT = Prepared(
    tables.commit.insert(), ("number", "time", "producer", "position", "rows", "principal", "client")
)
_MOVE = Prepared(
    update(tables.producer)
    .where(tables.producer.c.name == bindparam("producer"))
    .values(position=bindparam("new_position"), commit=bindparam("new_commit"))
)


@dataclass(kw_only=True)
class _Staged:
    """A batch whose bytes are written and whose offsets are not known yet."""

    topic: str
    partition: int
    rows: int
    file: int
    byte_offset: int
    byte_length: int
    digest: str
    schema_version: int


class Transaction:
    """Build with ``Log.transaction``. Use as a block: leaving it without ``commit`` discards everything.

    ``append`` keeps the order of rows within a topic partition. Not thread-safe. ``principal`` and ``client`` say
    who publishes, for the commit's row; ``offsets`` holds each topic partition's first new offset after ``commit``.
    """

    def __init__(self, log: Log, producer: str, epoch: int, expected_position: str | None) -> None:
        self.log = log
        self.producer = producer
        self.epoch = epoch
        self.expected_position = expected_position
        self.position: str | None = expected_position
        self.rows = 0
        self.principal: str | None = None
        self.client: str | None = None
        self.offsets: dict[tuple[str, int], int] = {}
        self._inside: list[Callable[[Connection, CommitInfo], None]] = []
        self._topics = topics.by_name(log.topics(hidden=True))
        self._changes = topics.TopicChanges()
        self._staged: list[_Staged] = []
        self._files: list[FileWriter] = []
        self._step: Step | None = None
        self._committed = False

    def create_topic(
        self,
        name: str,
        kind: Kind,
        schema: Schema,
        *,
        partitions: int = 1,
        source: str | None = None,
        description: str = "",
        settings: TopicSettings | None = None,
        owner: str | None = None,
        criticality: str | None = None,
        classification: str | None = None,
        if_absent: bool = False,
    ) -> None:
        """The topic exists from this commit on; DuplicateName (at commit) when it exists already.

        With ``if_absent`` one that exists stays as it is, and of two writers that race to create it both succeed:
        for topics whose shape is the program's own.
        """
        if if_absent and name in self._topics:
            return
        new = topics.new(name, kind, schema, partitions, source, description, settings or TopicSettings())
        topic = replace(new, owner=owner, criticality=criticality, classification=classification)
        self._changes.created.append(topic)
        if if_absent:
            self._changes.optional.add(name)
        self._topics[name] = topic

    def alter_topic(self, name: str, **values: str) -> None:
        """Set ``state``, ``reason`` or ``description`` with this commit."""
        self._changes.altered.setdefault(name, {}).update(values)

    def drop_topic(self, name: str) -> None:
        """The name resolves no more from this commit on; older positions still read it."""
        self._changes.dropped.append(name)

    def add_schema(self, name: str, schema: Schema) -> None:
        """A new schema version from this commit on; what is appended after this call has that shape.

        The version in force, given again, is no new one. ``commit`` raises SchemaConflict when another version
        came between, and IncompatibleSchema when the topic's compatibility refuses this one.
        """
        topic = self._topics[name]
        if topics.is_checked(topic.source, topic.kind) and topic.id:
            schema = settle(schema, self.log.schemas(topic) | self._changes.schemas.get(name, {}))
        if schema == topic.schema:
            return
        self._topics[name] = _with_schema(topic, schema)
        self._changes.schemas.setdefault(name, {})[topic.schema_version + 1] = schema

    @property
    def changed(self) -> bool:
        """Whether a commit would publish anything about topics."""
        return bool(self._changes)

    def topic(self, name: str) -> Topic | None:
        """The topic of this full name as this transaction sees it: what it appends is made for that."""
        return self._topics.get(name)

    def append(self, name: str, table: pa.Table, partition: int | None = None) -> None:
        """Stage rows of one topic. Columns: the topic's own (file types) and any metadata columns of its kind.

        Without ``partition``, a keyed topic of several partitions is split by the key's hash, a keyless one
        row by row in turn; truncate rows (`_op = 't'`) go to every partition.
        SchemaError names the column that does not fit.
        """
        if table.num_rows == 0:
            return
        topic = self._topics.get(name)
        if topic is None:
            raise SchemaError(f"topic {name} does not exist")
        conformed = evolve.incoming(table, topic.schema, topic.kind, name)
        if partition is not None or topic.partitions == 1:
            self._stage(topic, topic.first_partition if partition is None else partition, conformed)
            return
        for number, part in _split(conformed, topic):
            self._stage(topic, topic.first_partition + number, part)

    def record_step(self, step: Step) -> None:
        """Publish a pipeline step with this commit."""
        self._step = step

    def inside(self, act: Callable[[Connection, CommitInfo], None]) -> None:
        """Have ``act`` called in the catalog transaction, after the fence and before any record gets an offset.

        What it writes becomes visible with this commit; what it raises leaves nothing of the commit. Other
        writers wait meanwhile, so it takes milliseconds.
        """
        self._inside.append(act)

    def commit(self) -> CommitInfo:
        """Make everything durable, then visible, and return the commit.

        Fenced when a newer epoch of this producer exists, PositionConflict when its stored position is not
        the expected one, TopicChanged when a topic was dropped or repartitioned since the transaction began;
        DiskFull and StorageError from the disk. In all these cases nothing is visible.
        After any other error the outcome is unknown: read ``Log.producer`` again.
        """
        for writer in self._files:
            if writer.open:
                writer.seal()
        with self.log.catalog.write() as connection:
            info = self._publish(connection)
        self._committed = True
        self.log.published(info.number)
        return info

    @property
    def in_doubt(self) -> bool:
        """Whether COMMIT was asked for and has not answered: the records may be there or not."""
        return self._publishing and not self._committed

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # When COMMIT itself failed the files may be named: an orphan is cheaper than a missing file.
        if not self._committed and (error is None or self._is_certain(error)):
            for writer in self._files:
                writer.discard()

    def _is_certain(self, error: BaseException) -> bool:
        return not self._publishing or isinstance(error, Fenced | PositionConflict)

    _publishing = False

    def _stage(self, topic: Topic, partition: int, table: pa.Table) -> None:
        data, digest = hot.encode(table)
        writer = self._writer()
        start = writer.write(data)
        self._staged.append(
            _Staged(
                topic=topic.name,
                partition=partition,
                rows=table.num_rows,
                file=len(self._files) - 1,
                byte_offset=start,
                byte_length=data.nbytes,
                digest=digest,
                schema_version=topic.schema_version,
            )
        )
        self.rows += table.num_rows

    def _writer(self) -> FileWriter:
        if not self._files or self._files[-1].length >= FILE_BYTES_MAX:
            budget.require_water(self.log)
            if self._files:
                self._files[-1].seal()
            self._files.append(self.log.storage.create(f"data/hot/{uuid.uuid4().hex}.arrows"))
        return self._files[-1]

    def _publish(self, connection: Connection) -> CommitInfo:
        self._check_producer(connection)
        if self._staged:
            budget.require_budget(connection, str(self.log.folder))
        number, time = _next_commit(connection, self.log.clock.now_us())
        if self._changes:
            ids = topics.apply(connection, self._changes, number)
            self._topics.update({n: _with_id(self._topics[n], i) for n, i in ids.items()})
        chain.append(
            connection,
            "commit",
            number=number,
            time=time,
            producer=self.producer,
            position=self.position,
            added=[staged.digest for staged in self._staged],
        )
        info = CommitInfo(
            number=number, time=to_datetime(time), producer=self.producer, position=self.position, rows=self.rows
        )
        for act in self._inside:
            act(connection, info)
        self._insert_batches(connection, number, time)
        if self._step is not None:
            _insert_step(connection, self._step, number)
        moved = {"producer": self.producer, "new_position": self.position, "new_commit": number}
        _MOVE.run(connection, moved)
        values = {"number": number, "time": time, "producer": self.producer, "position": self.position}
        who = {"principal": self.principal, "client": self.client}
        _INSERT_COMMIT.run(connection, {**values, **who, "rows": self.rows})
        self._publishing = True
        return info

    def _check_producer(self, connection: Connection) -> None:
        row = _PRODUCER.first(connection, {"producer": self.producer})
        if row is None or row.epoch != self.epoch:
            found = None if row is None else row.epoch
            raise Fenced(
                f"{self.producer} has epoch {found} now, this writer has {self.epoch}",
                todo="Another process took over; this one must stop.",
            )
        if row.position != self.expected_position:
            raise PositionConflict(
                f"{self.producer} stands at {row.position}, this writer expected {self.expected_position}",
                todo="Read the stored position again and rebuild the batch from there.",
                stored=row.position,
            )

    def _insert_batches(self, connection: Connection, number: int, time: int) -> None:
        if not self._staged:
            return
        for writer in self._files:  # orphans are removed under the same lock, so this stays true until COMMIT
            self.log.storage.require(writer.name, writer.length)
        files = [
            _INSERT_FILE.value(
                connection, {"path": writer.name, "kind": "hot", "bytes": writer.length, "created": time}
            )
            for writer in self._files
        ]
        by_partition: dict[tuple[int, int], list[_Staged]] = defaultdict(list)
        for staged in self._staged:
            by_partition[self._topics[staged.topic].id, staged.partition].append(staged)
        rows = []
        for (topic_id, partition), batches in by_partition.items():
            place = f"{batches[0].topic}, partition {partition}"
            offset = _take_offsets(connection, topic_id, partition, sum(staged.rows for staged in batches), place)
            self.offsets[batches[0].topic, partition] = offset
            for staged in batches:
                rows.append(_batch_row(staged, topic_id, files[staged.file], offset, number))
                offset += staged.rows
        _INSERT_BATCH.run_many(connection, rows)


def _batch_row(staged: _Staged, topic_id: int, file: int, offset: int, commit: int) -> dict[str, object]:
    return {
        "topic": topic_id,
        "partition": staged.partition,
        "first_offset": offset,
        "commit": commit,
        "rows": staged.rows,
        "file": file,
        "byte_offset": staged.byte_offset,
        "byte_length": staged.byte_length,
        "digest": staged.digest,
        "schema_version": staged.schema_version,
    }


def _take_offsets(connection: Connection, topic_id: int, partition: int, count: int, where: str) -> int:
    """Reserve ``count`` offsets of an open partition; returns the first. TopicChanged when it is not open."""
    place = {"in_topic": topic_id, "in_partition": partition, "count": count}
    end = _TAKE.value(connection, place)
    if end is None:
        raise TopicChanged(
            "the partition takes no records: its topic was dropped or repartitioned, or never had it",
            where=where,
            todo="Nothing was written; build the transaction again.",
        )
    return int(end) - count


def _next_commit(connection: Connection, now_us: int) -> tuple[int, int]:
    """Number and time of the next commit: times grow even when the clock does not."""
    row = _NEWEST.first(connection)
    return (1, now_us) if row is None else (row.number + 1, max(row.time + 1, now_us))


def _insert_step(connection: Connection, step: Step, commit: int) -> None:
    text = ",".join(str(view) for view in sorted(step.views))
    found = connection.execute(select(tables.view_set.c.id).where(tables.view_set.c.views == text)).scalar_one_or_none()
    if found is None:
        insert = tables.view_set.insert().values(views=text).returning(tables.view_set.c.id)
        found = connection.execute(insert).scalar_one()
    connection.execute(
        tables.step.insert().values(
            number=step.number,
            input_commit=step.input_commit,
            publish_commit=commit,
            instant=to_micros(step.instant),
            view_set=found,
        )
    )


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


def _with_schema(topic: Topic, schema: Schema) -> Topic:
    return replace(topic, schema=schema, schema_version=topic.schema_version + 1)


def _with_id(topic: Topic, topic_id: int) -> Topic:
    return replace(topic, id=topic_id)
