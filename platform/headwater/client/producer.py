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
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from headwater import logs
from headwater.catalog.records import Topic
from headwater.client import door, frames
from headwater.client.beside import Beside
from headwater.client.buffer import Buffer, OnFull, Parcel, Send
from headwater.client.delivery import Delivery, Receipt
from headwater.client.publish import Publisher
from headwater.client.sequence import open_identity
from headwater.client.transaction import ProducerTransaction
from headwater.config import Settings
from headwater.errors import HeadwaterError, NotDelivered, UsageError
from headwater.log import Log

if TYPE_CHECKING:
    pass

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
        given = Beside(event_id=event_id, event_at=event_at, headers=headers, traceparent=traceparent)
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
        self, name: str, rows: Any, given: Beside, schema_version: int | None, expect: Mapping[int, int]
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
        """The topic as it is now."""
        return self.log.topic(name)

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
