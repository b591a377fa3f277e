"""One commit of a producer: what was accepted since the last, each topic's rows as one table.

parcels ──▶ per topic: concat ──▶ dedupe ──▶ split by partition ──▶ log transaction ──▶ receipts
                                                │ inside it: batch number, expected offsets, event ids
     after an unknown outcome the same batch is tried again, and recognised when it was there ◀──┘
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sqlalchemy import Connection, bindparam, select

from headwater import record
from headwater.catalog import tables
from headwater.catalog.prepared import Prepared
from headwater.catalog.records import Topic
from headwater.client import door, events, frames, sequence
from headwater.client.buffer import Parcel, Send
from headwater.client.delivery import Receipt
from headwater.errors import (
    CatalogError,
    Fenced,
    FencedMember,
    HeadwaterError,
    NotDelivered,
    OffsetConflict,
    PositionConflict,
    ProducerError,
    TopicChanged,
)
from headwater.failpoint import hit
from headwater.log import CommitInfo, Log, Transaction, dead_letters
from headwater.log.partitioner import partition_of

ATTEMPTS = 5
"""Tries of one batch while the catalog refuses it or its outcome is unknown."""

BACKOFF_S = 0.05
"""Before the second try; twice as long before each further one, 0.75 s in all."""

_NEXT = Prepared(
    select(tables.partition.c.next_offset).where(
        tables.partition.c.topic == bindparam("in_topic"),
        tables.partition.c.partition == bindparam("in_partition"),
        tables.partition.c.closed.is_(None),
    )
)


@dataclass(kw_only=True)
class _Part:
    """One topic's rows of a commit. ``counts``: rows of each send (line) in each partition (column)."""

    topic: Topic
    sends: list[Send]
    tables: dict[int, pa.Table]
    counts: npt.NDArray[np.int64]
    dropped: npt.NDArray[np.int64]
    turn: int
    """Of a keyless topic: which partition is next once this is committed."""
    hashes: events.Hashes | None = None

    def rows(self) -> dict[int, int]:
        """New records by partition."""
        return {partition: table.num_rows for partition, table in self.tables.items()}


@dataclass(kw_only=True)
class Published:
    """What the sender counts."""

    rows: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    repeated: int = 0


@dataclass(kw_only=True)
class _State:
    windows: dict[int, events.Window] = field(default_factory=dict)
    turns: dict[int, int] = field(default_factory=dict)


class Publisher:
    """Not thread-safe: the sending thread has it. After ``broken`` is set nothing more may be published."""

    def __init__(self, log: Log, identity: sequence.Identity, *, principal: str | None, client: str) -> None:
        self.log = log
        self.identity = identity
        self.next = 0 if identity.stored is None else identity.stored + 1
        self.broken: HeadwaterError | None = None
        self.published = Published()
        self._principal = principal
        self._client = client
        self._state = _State()

    def publish(self, parcels: Sequence[Parcel]) -> None:
        """Commit these parcels as one batch and settle every delivery, one way or the other."""
        sends = [send for parcel in parcels for send in parcel.sends]
        try:
            if self.broken is not None:
                raise self.broken
            batch = self._number(parcels, sends)
            self._attempt(parcels, sends, batch)
        except HeadwaterError as error:
            self._fail(sends, error)
        except Exception as error:  # noqa: BLE001 -- the sending thread must not die with callers waiting for it
            self.broken = ProducerError(f"a defect in headwater ended the producer: {type(error).__name__}: {error}")
            self.broken.__cause__ = error
            self._fail(sends, self.broken)

    def _fail(self, sends: Sequence[Send], error: HeadwaterError) -> None:
        for send in sends:
            if not send.delivery.settled:
                send.delivery.fail(error)

    def _attempt(self, parcels: Sequence[Parcel], sends: Sequence[Send], batch: sequence.Batch) -> None:
        """Try until the outcome is known. Sets ``broken`` when it stays unknown, or another producer took over."""
        failures = 0
        doubtful: list[_Part] | None = None
        while True:
            tx = self.log.transaction(self.identity.name, self.identity.epoch)
            try:
                parts = [self._part(topic, mine) for topic, mine in self._by_topic(tx, sends)]
                info = self._once(tx, parcels, parts, batch)
                self.next = batch.sequence + 1
                for part in parts:
                    self._settle(part, info, tx.offsets)
                return
            except events.Moved:
                continue
            except sequence.Repeated as repeated:
                self.next = batch.sequence + 1
                self._settle_repeated(sends, doubtful, repeated.commit)
                return
            except FencedMember:  # the consumer's offsets, not this producer
                raise
            except (Fenced, PositionConflict) as error:
                if doubtful is None and self._reopen():
                    batch = replace(batch, sequence=self.next)
                    continue
                self.broken = error
                raise
            except (HeadwaterError, OSError) as error:
                if tx.in_doubt and doubtful is None:
                    doubtful = parts
                failures += 1
                if doubtful is None and type(error) is not CatalogError and not isinstance(error, TopicChanged):
                    raise
                if failures == ATTEMPTS:
                    raise self._given_up(error, doubtful is not None) from error
                time.sleep(BACKOFF_S * 2 ** (failures - 1))

    def _once(
        self, tx: Transaction, parcels: Sequence[Parcel], parts: Sequence[_Part], batch: sequence.Batch
    ) -> CommitInfo:
        with tx:
            tx.principal, tx.client = self._principal, self._client
            tx.inside(lambda connection, info: sequence.record(connection, info, batch))
            for part in parts:
                self._stage(tx, part)
            for topic, letters in _letters(parts):
                dead_letters.append(tx, topic, letters)
            for parcel in parcels:
                for stage in parcel.staged:
                    stage(tx)
                if parcel.deadline is not None:
                    tx.inside(_before(parcel.deadline))
            hit("producer.commit:before")
            info = tx.commit()
        hit("producer.commit:after")
        return info

    # ---- rows of one topic

    def _by_topic(self, tx: Transaction, sends: Sequence[Send]) -> Iterator[tuple[Topic, list[Send]]]:
        """Sends with rows by topic as it is now; one whose topic has changed passes the door again."""
        grouped: dict[str, list[Send]] = {}
        for send in sends:
            grouped.setdefault(send.topic.name, []).append(send)
        for name, mine in grouped.items():
            topic = tx.topic(name) or self.log.topic(name)
            for send in mine:
                if (topic.id, topic.schema_version) != (send.topic.id, send.topic.schema_version):
                    send.table = self._again(send, topic)
            yield topic, mine

    def _again(self, send: Send, topic: Topic) -> pa.Table:
        door.require_producible(topic)
        old = self.log.schemas(send.topic) if topic.id == send.topic.id else {}
        frame = frames.of_table(send.table)
        if old:
            frame = door.at_version(frame, topic, old, send.topic.schema_version)
        checked = door.check(frame, topic, self.log.timezone)
        checked.refuse()
        return checked.table

    def _part(self, topic: Topic, sends: list[Send]) -> _Part:
        joined = [send.table for send in sends]
        table = joined[0] if len(joined) == 1 else pa.concat_tables(joined, promote_options="default")
        owner = np.repeat(np.arange(len(sends)), [each.num_rows for each in joined])
        dropped = np.zeros(len(sends), dtype=np.int64)
        hashes = None
        if topic.settings.dedupe_s is not None and record.EVENT_ID in table.column_names:
            window = self._window(topic)
            window.advance()
            keep, hashes = window.fresh(table.column(record.EVENT_ID))
            dropped = np.bincount(owner[~keep], minlength=len(sends))
            table, owner = table.filter(pa.array(keep)), owner[keep]
        turn = self._state.turns.get(topic.id, 0)
        if topic.partitions == 1:
            parts = {topic.first_partition: table}
            counts = np.bincount(owner, minlength=len(sends)).reshape(-1, 1)
        else:
            parts, counts = _split(topic, table, owner, len(sends), turn)
            turn = (turn + table.num_rows) % topic.partitions
        return _Part(topic=topic, sends=sends, tables=parts, counts=counts, dropped=dropped, turn=turn, hashes=hashes)

    def _window(self, topic: Topic) -> events.Window:
        window = self._state.windows.get(topic.id)
        if window is None or window.topic.settings != topic.settings:
            window = self._state.windows[topic.id] = events.Window(self.log, topic)
        return window

    def _stage(self, tx: Transaction, part: _Part) -> None:
        for partition, table in part.tables.items():
            tx.append(part.topic.name, table, partition=partition)
        for send in part.sends:
            for partition, offset in send.expect.items():
                tx.inside(_expecting(part.topic, partition, offset))
        if part.hashes is not None:
            window, hashes = self._window(part.topic), part.hashes
            tx.inside(lambda connection, info: window.settle(connection, info, hashes))

    # ---- what becomes of it

    def _settle(
        self, part: _Part, info: CommitInfo, offsets: Mapping[tuple[str, int], int], *, repeated: bool = False
    ) -> None:
        self._state.turns[part.topic.id] = part.turn
        if part.hashes is not None and not repeated:
            self._window(part.topic).published(info, part.hashes, part.rows())
        partitions = part.topic.open_partitions
        ends = {partition: offsets[part.topic.name, partition] for partition, rows in part.rows().items() if rows}
        for send, counts, dropped in zip(part.sends, part.counts.tolist(), part.dropped.tolist(), strict=True):
            found = {}
            for partition, count in zip(partitions, counts, strict=True):
                if count:
                    found[partition] = range(ends[partition], ends[partition] + count)
                    ends[partition] += count
            letters = 0 if send.letters is None else send.letters.num_rows
            rows = sum(counts)
            self.published.rows += rows
            self.published.duplicates += dropped
            self.published.dead_letters += letters
            send.delivery.succeed(
                Receipt(
                    commit=info.number,
                    rows=rows,
                    offsets=found,
                    duplicates=dropped,
                    dead_letters=letters,
                    repeated=repeated,
                )
            )

    def _settle_repeated(self, sends: Sequence[Send], doubtful: Sequence[_Part] | None, commit: int) -> None:
        """The batch is there, from an attempt of ours whose outcome was unknown or from before a restart."""
        self.published.repeated += len(sends)
        found = {send.topic.name: self._places(send.topic.name, commit) for send in sends}
        if doubtful is not None:
            first = {(name, at): offsets.start for name, places in found.items() for at, offsets in places.items()}
            info = self.log.commit_info(commit)
            for part in doubtful:
                self._settle(part, info, first, repeated=True)
            return
        for send in sends:  # one, because a batch that the caller numbers is one send
            places = found[send.topic.name]
            rows = sum(map(len, places.values()))
            letters = 0 if send.letters is None else send.letters.num_rows
            dropped = send.table.num_rows - rows
            send.delivery.succeed(
                Receipt(
                    commit=commit, rows=rows, offsets=places, duplicates=dropped, dead_letters=letters, repeated=True
                )
            )

    def _places(self, topic: str, commit: int) -> dict[int, range]:
        """The offsets of one commit's records by partition, read back from the log."""
        rows = self.log.read_changes(topic, commit - 1, commit, [record.PARTITION, record.OFFSET])
        grouped = rows.group_by(record.PARTITION).aggregate([(record.OFFSET, "min"), (record.OFFSET, "max")])
        names = (record.PARTITION, f"{record.OFFSET}_min", f"{record.OFFSET}_max")
        partitions, first, last = (grouped.column(name).to_pylist() for name in names)
        return {partition: range(a, b + 1) for partition, a, b in zip(partitions, first, last, strict=True)}

    def _number(self, parcels: Sequence[Parcel], sends: Sequence[Send]) -> sequence.Batch:
        given = parcels[0].sequence
        rows = sum(send.table.num_rows for send in sends)
        if given is None:
            return sequence.Batch(sequence=self.next, rows=rows, digest=uuid.uuid4().hex)
        return sequence.Batch(sequence=given, rows=rows, digest=sequence.digest_of(_contents(sends)))

    def _reopen(self) -> bool:
        """A producer without a name whose row was forgotten takes another name: nobody else ever had its own."""
        if not self.identity.nameless or self.log.producer(self.identity.name).epoch:
            return False
        self.identity = sequence.open_identity(self.log, None)
        self.next = 0
        return True

    def _given_up(self, error: Exception, doubt: bool) -> HeadwaterError:
        said = "its outcome is unknown" if doubt else "nothing of it is in the log"
        failure = CatalogError(
            f"the batch was tried {ATTEMPTS} times, and {said}: {error}",
            todo="Open the producer again under its name; the log knows whether its last batch is there.",
        )
        if doubt:
            self.broken = failure
        return failure


def _split(
    topic: Topic, table: pa.Table, owner: npt.NDArray[np.int64], sends: int, turn: int
) -> tuple[dict[int, pa.Table], npt.NDArray[np.int64]]:
    """By the key's hash, or in turn without a key; rows keep their order inside a partition."""
    many = topic.partitions
    if topic.schema.key:
        target = partition_of([table.column(name) for name in topic.schema.key], many)
    else:
        target = (np.arange(turn, turn + table.num_rows) % many).astype(np.int32)
    counts = np.bincount(owner * many + target, minlength=sends * many).reshape(sends, many)
    ordered = table.take(pa.array(np.argsort(target, kind="stable")))
    rows = counts.sum(axis=0)
    ends = np.cumsum(rows)
    return {topic.first_partition + n: ordered.slice(int(ends[n] - rows[n]), int(rows[n])) for n in range(many)}, counts


def _letters(parts: Sequence[_Part]) -> Iterator[tuple[str, pa.Table]]:
    for part in parts:
        letters = [send.letters for send in part.sends if send.letters is not None]
        if letters:
            yield part.topic.name, pa.concat_tables(letters, promote_options="default")


def _contents(sends: Sequence[Send]) -> Iterator[tuple[str, pa.Table]]:
    """What a batch is recognised by: its rows, and the bytes of those that were refused."""
    for send in sends:
        yield send.topic.name, send.table
        if send.letters is not None:
            yield send.topic.name, send.letters.select(["original"])


def _expecting(topic: Topic, partition: int, offset: int) -> Callable[[Connection, CommitInfo], None]:
    def act(connection: Connection, _: CommitInfo) -> None:
        place = {"in_topic": topic.id, "in_partition": partition}
        row = _NEXT.first(connection, place)
        actual = -1 if row is None else int(row.next_offset)
        if actual != offset:
            now = f"ends at offset {actual}, not at {offset}" if row else "takes no records (any more)"
            raise OffsetConflict(
                f"partition {partition} {now}",
                partition=partition,
                expected=offset,
                actual=actual,
                where=topic.name,
                todo="Someone else wrote to it; read what came, then decide again.",
            )

    return act


def _before(deadline: float) -> Callable[[Connection, CommitInfo], None]:
    def act(_: Connection, __: CommitInfo) -> None:
        if time.monotonic() > deadline:
            raise NotDelivered("the transaction ran out of time, and nothing of it is visible", todo="Begin it again.")

    return act
