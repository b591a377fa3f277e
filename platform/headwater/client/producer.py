"""The producer: rows in, batched by a thread of its own, every batch one durable commit that exists once.

    with lake.producer() as producer:
        producer.send("orders", [{"id": 1, "total": 12.5}])

A send is checked at once and refused as a whole; what was accepted is committed in order, a send never split over two
commits. Leaving the block commits what is left.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from headwater import logs, record
from headwater.catalog.records import Topic
from headwater.client import door, frames
from headwater.client.buffer import Buffer, OnFull, Parcel, Send
from headwater.client.delivery import Delivery, Receipt
from headwater.client.publish import Publisher
from headwater.client.sequence import open_identity
from headwater.config import Settings
from headwater.errors import BufferFull, HeadwaterError, NotDelivered, UsageError
from headwater.log import Log, Transaction, offsets

if TYPE_CHECKING:
    from headwater.client.consumer import Consumer

Durability = Literal["fsync", "relaxed"]
OnError = Literal["raise", "dead_letter"]

LINGER_MS = 5.0
"""How long a batch waits for more: about what its commit takes. Whoever waits for a result ends it."""

BUFFER_BYTES = 64 << 20
"""Accepted and not committed; two full commits, so that callers fill one while the other is written."""

BLOCK_S = 30.0
"""How long a full buffer holds a caller up before BufferFull: longer than any commit on a disk that works."""

RELAXED_AGE_MS = 1_000.0
"""A relaxed producer accepts nothing while its oldest uncommitted row is older: what can be lost is a second's."""

EXIT_S = 10.0
"""What a producer that nobody closed gets to commit when the interpreter ends."""

FAILURES_MAX = 100
"""Failed deliveries that nobody has looked at and ``flush`` can raise; more are only counted."""

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_open: weakref.WeakSet[Producer] = weakref.WeakSet()


@dataclass(frozen=True, kw_only=True)
class Counters:
    """What a producer has done since it was opened. ``commit_ms_p50`` and ``p99``: of its last 1,000 commits."""

    sends: int
    commits: int
    rows: int
    duplicates: int
    dead_letters: int
    repeated: int
    failed: int
    commit_ms_p50: float
    commit_ms_p99: float


class Producer:
    """Made by ``Lake.producer``. Thread-safe; a context manager. One batch is on its way at a time, in order.

    ``durability="fsync"`` acknowledges a batch once it is durable and visible. ``"relaxed"`` acknowledges on
    acceptance: if the process dies, at most ``buffer_bytes`` of rows are lost, none of them accepted more than
    ``RELAXED_AGE_MS`` after the oldest of them, and always the newest ones, never a gap. Files and catalog are
    written the same either way.
    """

    def __init__(
        self,
        log: Log,
        id: str | None = None,  # noqa: A002 -- what people write
        *,
        linger_ms: float = LINGER_MS,
        buffer_bytes: int = BUFFER_BYTES,
        on_full: OnFull = "block",
        block_s: float = BLOCK_S,
        durability: Durability = "fsync",
        on_error: OnError = "raise",
        principal: str | None = None,
    ) -> None:
        _require("on_full", on_full, ("block", "raise"))
        _require("durability", durability, ("fsync", "relaxed"))
        _require("on_error", on_error, ("raise", "dead_letter"))
        self.log = log
        self.durability = durability
        self.on_error = on_error
        self._named = id is not None
        client = f"pid {os.getpid()}"
        self._publisher = Publisher(log, open_identity(log, id), principal=principal, client=client)
        age_s = RELAXED_AGE_MS / 1000 if durability == "relaxed" else float("inf")
        self._buffer = Buffer(
            bytes_max=buffer_bytes, linger_s=linger_ms / 1000, on_full=on_full, block_s=block_s, age_max_s=age_s
        )
        self._numbered: bool | None = None
        self._zone = log.timezone
        self._topics: tuple[int, dict[str, Topic]] = (-1, {})
        self._order = threading.Lock()
        self._failed: list[Delivery] = []
        self._failures = 0
        self._sends = 0
        self._times: list[float] = []
        self._commits = 0
        self._closed = False
        self._sender = threading.Thread(target=self._run, name=f"headwater {self.name}", daemon=True)
        self._sender.start()
        _open.add(self)

    @property
    def name(self) -> str:
        """What commits are signed with."""
        return self._publisher.identity.name

    @property
    def next_sequence(self) -> int:
        """The number of the next batch: one more than the last that the log holds of this producer."""
        return self._publisher.next

    def send(
        self,
        topic: str,
        rows: Any,
        *,
        event_id: str | Sequence[str | None] | None = None,
        event_at: datetime | Sequence[datetime | None] | None = None,
        headers: Mapping[str, str] | None = None,
        traceparent: str | None = None,
        expect_offset: int | Mapping[int, int] | None = None,
        schema_version: int | None = None,
        sequence: int | None = None,
    ) -> Delivery:
        """Accept rows of one topic: a dict, dicts, or an Arrow, Polars or pandas table. Returns when they are queued.

        Args:
            topic: full name, or a short one when it is unique.
            rows: columns by name; ``_event_id``, ``_event_at`` and ``_headers`` (a map of texts) may be among them.
                A column that is left out has its default, or NULL where it may.
            event_id: of each row (of the one row, as a text): the topic's ``dedupe`` window drops what came before.
            event_at: when it happened: of each row, or one instant for all.
            headers: for every row of this send. ``traceparent`` (W3C) is put among them.
            expect_offset: the offset each partition must end at; else OffsetConflict, and nothing is written.
            schema_version: that the rows were made for; columns renamed since are found.
            sequence: this batch's number, by a named producer: 0, 1, 2, ... A batch that is sent again, after a
                restart of the process too, is recognised (``Receipt.repeated``) and not written a second time.

        Raises:
            InvalidRecords: with row and field; nothing of the batch is accepted. With on_error="dead_letter" those
                rows go to ``<topic>.dlq`` in the commit of the others.
            BufferFull: there is no room, at once or after ``block_s``.
            Fenced, ProducerConflict, CatalogError: this producer can go on no more; open another.
            NameNotFound, AmbiguousName, UsageError: the topic, or the call itself.
        """
        expect = self._expected(topic, expect_offset)
        self._require_open()
        self._require_sequence(sequence)
        given = _Given(event_id=event_id, event_at=event_at, headers=headers, traceparent=traceparent)
        send = self._checked(topic, rows, given, schema_version, expect)
        if not send.table.num_rows and send.letters is None:
            send.delivery.succeed(Receipt(commit=None, rows=0))
            return send.delivery
        self._buffer.reserve(send.bytes)
        self._queue(Parcel(sends=[send], alone=bool(expect) or sequence is not None, sequence=sequence))
        return send.delivery

    @contextlib.contextmanager
    def transaction(self, *, timeout_s: float = 60.0) -> Iterator[ProducerTransaction]:
        """A block whose sends, to any topics, become visible in one commit at its end, or not at all.

        Nothing is visible when the block raises, calls ``abort``, takes longer than ``timeout_s`` (NotDelivered),
        or the process dies; a commit that fails raises at the end of the block. Its rows are held in the buffer.
        """
        self._require_open()
        self._require_sequence(None)
        tx = ProducerTransaction(self, time.monotonic() + timeout_s)
        try:
            yield tx
        except BaseException:
            tx.abort()
            raise
        tx.commit()

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything accepted so far is committed.

        Raises the first failure that nobody has seen yet: a Delivery that failed and whose result was not asked
        for. NotDelivered after ``timeout`` seconds.
        """
        if not self._buffer.drain(timeout):
            raise NotDelivered(
                f"not everything was committed within {timeout:g} s", todo="It is on its way; flush again."
            )
        unseen = [delivery for delivery in self._failed if not delivery.seen]
        self._failed.clear()
        for delivery in unseen:
            delivery.seen = True
        if unseen and (error := unseen[0].error()) is not None:
            raise error

    def close(self, timeout: float | None = None) -> None:
        """Commit what is left and end; raises as ``flush`` does. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        _open.discard(self)
        self._buffer.close()
        self._sender.join(timeout)
        if self._sender.is_alive():
            raise NotDelivered(f"not everything was committed within {timeout:g} s", held=self._buffer.held)
        self.flush()

    def counters(self) -> Counters:
        """What it did so far, and how long its commits took."""
        times = sorted(self._times)
        done = self._publisher.published
        return Counters(
            sends=self._sends,
            commits=self._commits,
            rows=done.rows,
            duplicates=done.duplicates,
            dead_letters=done.dead_letters,
            repeated=done.repeated,
            failed=self._failures,
            commit_ms_p50=times[len(times) // 2] * 1000 if times else 0.0,
            commit_ms_p99=times[len(times) * 99 // 100] * 1000 if times else 0.0,
        )

    def __enter__(self) -> Producer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close()
        except HeadwaterError as failure:  # the block's own error is the one to see
            error.add_note(f"and the producer could not commit what it had accepted: {failure}")

    # ---- accepting

    def _checked(
        self, name: str, rows: Any, given: _Given, schema_version: int | None, expect: Mapping[int, int]
    ) -> Send:
        topic = self._topic(name)
        door.require_producible(topic)
        frame = given.on(frames.of(rows, topic.schema), topic)
        if schema_version is not None and schema_version != topic.schema_version:
            frame = door.at_version(frame, topic, self.log.schemas(topic), schema_version)
        checked = door.check(frame, topic, self._zone)
        letters = None
        if self.on_error == "raise":
            checked.refuse()
        elif len(checked.bad):
            letters = checked.letters()
        acknowledged = None
        if self.durability == "relaxed":
            acknowledged = Receipt(commit=None, rows=frame.rows - len(checked.bad), dead_letters=len(checked.bad))
        delivery = Delivery(self._buffer.hurry, acknowledged)
        return Send(topic=topic, table=checked.good(), delivery=delivery, letters=letters, expect=expect)

    def _topic(self, name: str) -> Topic:
        """The topic as of the newest commit: nothing changes a topic without one."""
        newest = self.log.newest_commit()
        at, known = self._topics
        if at != newest:
            self._topics = (newest, known := {})
        if name not in known:
            known[name] = self.log.topic(name)
        return known[name]

    def _expected(self, name: str, expect: int | Mapping[int, int] | None) -> Mapping[int, int]:
        if expect is None:
            return {}
        if isinstance(expect, Mapping):
            return dict(expect)
        topic = self._topic(name)
        if topic.partitions != 1:
            raise UsageError(
                f"topic {topic.name} has {topic.partitions} partitions",
                todo="Say which of them: expect_offset={partition: offset}.",
            )
        return {topic.first_partition: expect}

    def _require_open(self) -> None:
        if self._closed:
            raise UsageError(f"{self.name} is closed", todo="Open another producer.")
        if self._publisher.broken is not None:
            raise self._publisher.broken

    def _require_sequence(self, sequence: int | None) -> None:
        """The caller numbers all batches or none; only a name outlives the process that numbers them."""
        if sequence is not None and not self._named:
            raise UsageError("batch numbers need a producer with a name", todo='Open it with producer("my-load").')
        numbered = sequence is not None
        if self._numbered is not None and self._numbered != numbered:
            raise UsageError("a producer's batches are numbered all by the caller, or none", where=self.name)
        self._numbered = numbered

    def _queue(self, parcel: Parcel) -> None:
        with self._order:
            self._sends += len(parcel.sends)
            self._buffer.put(parcel)

    # ---- sending

    def _run(self) -> None:
        limits = Settings()
        while parcels := self._buffer.take(rows_max=limits.commit_rows_max, bytes_max=limits.commit_bytes_max):
            begun = time.perf_counter()
            try:
                self._publisher.publish(parcels)
            finally:
                self._commits += 1
                self._times = [*self._times[-999:], time.perf_counter() - begun]
                self._note_failures(parcels)
                self._buffer.done()

    def _note_failures(self, parcels: Sequence[Parcel]) -> None:
        for send in (send for parcel in parcels for send in parcel.sends):
            if send.delivery.error() is not None:
                self._failures += 1
                if len(self._failed) < FAILURES_MAX:
                    self._failed.append(send.delivery)


class ProducerTransaction:
    """Sends that become visible together; made by ``Producer.transaction``. Not thread-safe."""

    def __init__(self, producer: Producer, deadline: float) -> None:
        self._producer = producer
        self._parcel = Parcel(sends=[], alone=True, deadline=deadline)
        self._reserved = 0
        self._after: list[Callable[[], None]] = []
        self._undo: list[Callable[[], None]] = []
        self._ended = False
        self.commit_number: int | None = None
        """The commit that published it, once the block is left."""

    def send(
        self,
        topic: str,
        rows: Any,
        *,
        event_id: str | Sequence[str | None] | None = None,
        event_at: datetime | Sequence[datetime | None] | None = None,
        headers: Mapping[str, str] | None = None,
        traceparent: str | None = None,
        expect_offset: int | Mapping[int, int] | None = None,
        schema_version: int | None = None,
    ) -> Delivery:
        """As ``Producer.send``; the delivery is done once the transaction is."""
        self._require_running()
        producer = self._producer
        given = _Given(event_id=event_id, event_at=event_at, headers=headers, traceparent=traceparent)
        expect = producer._expected(topic, expect_offset)
        send = producer._checked(topic, rows, given, schema_version, expect)
        send.delivery = Delivery(producer._buffer.hurry)  # never acknowledged before the commit
        if self._reserved + send.bytes > producer._buffer.bytes_max:
            raise BufferFull(
                f"the transaction holds more than the buffer's {producer._buffer.bytes_max:,} bytes",
                todo="Commit less at once, or open the producer with a larger buffer_bytes.",
            )
        producer._buffer.reserve(send.bytes)
        self._reserved += send.bytes
        self._parcel.sends.append(send)
        return send.delivery

    def commit_offsets(self, consumer: Consumer, metadata: str = "") -> None:
        """Store in the same commit that the consumer's group has finished what was handed out so far.

        That is read-process-write exactly once. When the transaction does not commit, the consumer goes back to what
        its group has stored. A member that lost a partition makes the commit raise FencedMember.
        """
        self._require_running()
        progress = consumer.progress(metadata)
        self._parcel.staged.append(lambda tx: offsets.stage(tx, progress))
        self._after.append(lambda: consumer._stored(progress))
        self._undo.append(consumer.rewind)

    def stage(self, act: Callable[[Transaction], None]) -> None:
        """Have ``act`` add to the log transaction of this commit; it may be called again when the commit is retried."""
        self._require_running()
        self._parcel.staged.append(act)

    def abort(self) -> None:
        """Nothing of it becomes visible; later sends of the block are refused."""
        if self._ended:
            return
        self._ended = True
        self._producer._buffer.release(self._reserved)
        error = NotDelivered("the transaction was aborted", where=self._producer.name)
        for send in self._parcel.sends:
            send.delivery.seen = True
            send.delivery.fail(error)
        for undo in self._undo:
            undo()

    def commit(self) -> None:
        """Publish now; leaving the block does it as well. Raises what the commit failed with, nothing being visible."""
        if self._ended:
            return
        assert self._parcel.deadline is not None
        if time.monotonic() > self._parcel.deadline:
            self.abort()
            raise NotDelivered("the transaction ran out of time, and nothing of it is visible", todo="Begin it again.")
        if not any(send.table.num_rows or send.letters is not None for send in self._parcel.sends) and not (
            self._parcel.staged
        ):
            self.abort()
            return
        self._ended = True
        marker = self._marker()
        self._producer._queue(self._parcel)
        try:
            self.commit_number = marker.result().commit
        except BaseException:
            for send in self._parcel.sends:
                send.delivery.seen = True
            for undo in self._undo:
                undo()
            raise
        for after in self._after:
            after()

    def _marker(self) -> Delivery:
        """The delivery that stands for all of them: they have one fate."""
        if not self._parcel.sends:
            raise UsageError(
                "a producer's transaction commits offsets with records", todo="Use Consumer.commit without any."
            )
        return self._parcel.sends[-1].delivery

    def _require_running(self) -> None:
        if self._ended:
            raise UsageError("the transaction has ended", where=self._producer.name)


@dataclass(frozen=True, kw_only=True)
class _Given:
    """What ``send`` is told beside the rows, as the metadata columns that it stands for."""

    event_id: str | Sequence[str | None] | None
    event_at: datetime | Sequence[datetime | None] | None
    headers: Mapping[str, str] | None
    traceparent: str | None

    def on(self, frame: frames.Frame, topic: Topic) -> frames.Frame:
        more: dict[str, Any] = {}
        if self.event_id is not None:
            ids = [self.event_id] if isinstance(self.event_id, str) else list(self.event_id)
            more[record.EVENT_ID] = _as_many(ids, frame.rows, "event_id")
        if self.event_at is not None:
            one = isinstance(self.event_at, datetime)
            times = [self.event_at] * frame.rows if one else list(self.event_at)  # type: ignore[arg-type]
            more[record.EVENT_AT] = _as_many(times, frame.rows, "event_at")
        headers = dict(self.headers or {})
        if self.traceparent is not None:
            if not _TRACEPARENT.fullmatch(self.traceparent):
                raise UsageError(f"{self.traceparent!r} is no W3C traceparent", todo="It looks like 00-<32>-<16>-01.")
            headers["traceparent"] = self.traceparent
        if headers:
            array = pa.array([headers], record.EXPLICIT[record.HEADERS])
            more[record.HEADERS] = pa.chunked_array([pa.repeat(array[0], frame.rows)])
        twice = sorted(more.keys() & frame.columns.keys())
        if twice:
            raise UsageError(f"{twice[0]} is both a column of the rows and an argument", where=topic.name)
        return frame.with_columns(more) if more else frame


def _as_many(values: list[Any], rows: int, what: str) -> list[Any]:
    if len(values) != rows:
        raise UsageError(f"{len(values)} values of {what} for {rows} rows", todo="Give one for each row.")
    return values


def _require(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UsageError(f"{name}={value!r} is not known", todo=f"Use {' or '.join(map(repr, known))}.")


@atexit.register
def _close_all() -> None:
    """Producers that nobody closed commit what they hold; what they could not is said, not lost in silence."""
    deadline = time.monotonic() + EXIT_S
    for producer in list(_open):
        try:
            producer.close(max(0.0, deadline - time.monotonic()))
        except HeadwaterError as error:
            logs.logger().error(f"{producer.name} was not closed, and lost what it held: {error}")
