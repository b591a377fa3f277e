"""One log transaction: record batches of any topics, published together with their producer's position.

    append → bytes in new files (invisible) → commit: fsync files and folder → one catalog transaction
                                                       (fence, position, offsets, batches, schema versions, step)

Invariant: what the catalog names is durable, and a reader sees all of a commit or nothing of it. Offsets are
assigned inside the catalog transaction, so several producers write without knowing of each other.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING

import pyarrow as pa
from sqlalchemy import Connection, bindparam, select, update

from headwater.catalog import tables
from headwater.catalog.prepared import Prepared
from headwater.catalog.records import CommitInfo, Kind, Step, Topic, TopicSettings, to_datetime, to_micros
from headwater.errors import Fenced, PositionConflict, SchemaError, TopicChanged
from headwater.log import budget, chain, topics
from headwater.log.staging import Kept, Staged, Staging, release
from headwater.registry import settle
from headwater.schema import Schema

if TYPE_CHECKING:
    from headwater.log.log import Log

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
_VIEW_SET = Prepared(select(tables.view_set.c.id).where(tables.view_set.c.views == bindparam("views_text")))
_INSERT_VIEW_SET = Prepared(tables.view_set.insert().returning(tables.view_set.c.id), ("views",))
_INSERT_STEP = Prepared(tables.step.insert())
_MOVE = Prepared(
    update(tables.producer)
    .where(tables.producer.c.name == bindparam("producer"))
    .values(position=bindparam("new_position"), commit=bindparam("new_commit"))
)


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
        self.principal: str | None = None
        self.client: str | None = None
        self.offsets: dict[tuple[str, int], int] = {}
        self._inside: list[Callable[[Connection, CommitInfo], None]] = []
        self._topics = topics.by_name(log.topics(hidden=True))
        self._changes = topics.TopicChanges()
        self._staging = Staging(log)
        self._adopted: list[Kept] = []
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
        hidden: bool = False,
        if_absent: bool = False,
    ) -> None:
        """The topic exists from this commit on; DuplicateName (at commit) when it exists already.

        With ``if_absent`` one that exists stays as it is, and of two writers that race to create it both succeed:
        for topics whose shape is the program's own. A hidden one is not for readers.
        """
        if if_absent and name in self._topics:
            return
        new = topics.new(name, kind, schema, partitions, source, description, settings or TopicSettings())
        topic = replace(new, owner=owner, criticality=criticality, classification=classification, hidden=hidden)
        self._changes.created.append(topic)
        if if_absent:
            self._changes.optional.add(name)
        self._topics[name] = topic

    def alter_topic(self, name: str, **values: str) -> None:
        """Set ``state``, ``reason`` or ``description`` with this commit."""
        self._changes.altered.setdefault(name, {}).update(values)

    def drop_topic(self, name: str) -> None:
        """The name resolves no more from this commit on; older positions still read it.

        Records appended to it before are forgotten, and so is what it was altered to: nobody could read that, and
        another topic may take the name in this very transaction.
        """
        self._changes.dropped.append(name)
        self._changes.altered.pop(name, None)
        self._changes.schemas.pop(name, None)
        self._forget(name)

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

    def uncreate_topic(self, name: str) -> bool:
        """Take back a topic that this transaction creates, with the records appended to it; whether it does."""
        mine = [topic for topic in self._changes.created if topic.name == name]
        if mine:
            self._changes.created.remove(mine[0])
            self._topics.pop(name)
            self._forget(name)
        return bool(mine)

    def _forget(self, name: str) -> None:
        self._staging.batches = [batch for batch in self._staging.batches if batch.topic != name]

    @property
    def changed(self) -> bool:
        """Whether a commit would publish anything about topics."""
        return bool(self._changes)

    def topic(self, name: str) -> Topic | None:
        """The topic of this full name as this transaction sees it: what it appends is made for that."""
        return self._topics.get(name)

    def topic_like(self, name: str) -> Topic | None:
        """The topic of this full name, upper and lower case being one, as this transaction sees it."""
        folded = name.lower()
        return self._topics.get(name) or next((t for n, t in self._topics.items() if n.lower() == folded), None)

    def count_topics(self, prefix: str) -> int:
        """How many topics there are whose names begin so, as this transaction sees it."""
        return sum(name.startswith(prefix) for name in self._topics)

    def append(self, name: str, table: pa.Table, partition: int | None = None) -> None:
        """Stage rows of one topic. Columns: the topic's own (file types) and any metadata columns of its kind.

        Without ``partition``, a keyed topic of several partitions is split by the key's hash, a keyless one
        row by row in turn; truncate rows (`_op = 't'`) go to every partition.
        SchemaError names the column that does not fit.
        """
        topic = self._topics.get(name)
        if topic is None:
            raise SchemaError(f"topic {name} does not exist")
        self._staging.append(topic, table, partition)

    def adopt(self, piece: Kept) -> None:
        """Publish a kept piece with this commit, before everything appended; it is no piece any more then.

        Its batches name their topic, which must have the schema version they were written with.
        """
        self._adopted.append(piece)

    @property
    def rows(self) -> int:
        """Records that a commit would publish."""
        return self._staging.rows + sum(piece.rows for piece in self._adopted)

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
        self._staging.seal()
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
            self._staging.discard()

    def _is_certain(self, error: BaseException) -> bool:
        return not self._publishing or isinstance(error, Fenced | PositionConflict)

    _publishing = False

    def _publish(self, connection: Connection) -> CommitInfo:
        self._check_producer(connection)
        staged = self._all_staged()
        if staged:
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
            added=[batch.digest for batch in staged],
        )
        info = CommitInfo(
            number=number, time=to_datetime(time), producer=self.producer, position=self.position, rows=self.rows
        )
        for act in self._inside:
            act(connection, info)
        self._insert_batches(connection, staged, number, time)
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

    def _all_staged(self) -> list[Staged]:
        """Adopted batches, then appended ones; ``file`` counts the adopted pieces' files first."""
        staged: list[Staged] = []
        files = 0
        for piece in self._adopted:
            staged += [replace(batch, file=batch.file + files) for batch in piece.batches]
            files += len(piece.files)
        return staged + [replace(batch, file=batch.file + files) if files else batch for batch in self._staging.batches]

    def _named_files(self, connection: Connection, time: int) -> list[int]:
        """The catalog's ids of all files, in the order in which batches count them."""
        ids = [number for piece in self._adopted for number, _, _ in piece.files]
        if self._adopted:
            release(connection, [piece.name for piece in self._adopted], time, published=True)
        for writer in self._staging.files:  # orphans are removed under the same lock: this stays true until COMMIT
            self.log.storage.require(writer.name, writer.length)
            values = {"path": writer.name, "kind": "hot", "bytes": writer.length, "created": time}
            ids.append(_INSERT_FILE.value(connection, values))
        return ids

    def _insert_batches(self, connection: Connection, all_staged: list[Staged], number: int, time: int) -> None:
        if not all_staged:
            return
        files = self._named_files(connection, time)
        by_partition: dict[tuple[int, int], list[Staged]] = defaultdict(list)
        for staged in all_staged:
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


def _batch_row(staged: Staged, topic_id: int, file: int, offset: int, commit: int) -> dict[str, object]:
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
    text = {"views_text": ",".join(str(view) for view in sorted(step.views))}
    found = _VIEW_SET.value(connection, text)
    if found is None:
        found = _INSERT_VIEW_SET.value(connection, {"views": text["views_text"]})
    values = {
        "number": step.number,
        "input_commit": step.input_commit,
        "publish_commit": commit,
        "instant": to_micros(step.instant),
        "view_set": found,
        "watermarks": json.dumps(dict(step.watermarks)) if step.watermarks else None,
    }
    _INSERT_STEP.run(connection, values)


def _with_schema(topic: Topic, schema: Schema) -> Topic:
    return replace(topic, schema=schema, schema_version=topic.schema_version + 1)


def _with_id(topic: Topic, topic_id: int) -> Topic:
    return replace(topic, id=topic_id)
