"""Sends of one producer that become visible together, or never."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from headwater.client.beside import Beside
from headwater.client.buffer import Parcel
from headwater.client.delivery import Delivery
from headwater.errors import BufferFull, NotDelivered, UsageError
from headwater.log import Transaction, offsets

if TYPE_CHECKING:
    from headwater.client.consumer import Consumer
    from headwater.client.producer import Producer


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
        given = Beside(event_id=event_id, event_at=event_at, headers=headers, traceparent=traceparent)
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
