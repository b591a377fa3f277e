"""The receiving thread: reads the replication stream, answers the server, never waits for the log.

It owns its libpq connection alone. What it reads waits in a queue bounded in bytes; when that is full it stops
reading (TCP then holds the server back) but goes on answering, so a slow disk never costs the session.
The flush position it reports is what ``acknowledge`` was given, nothing else: law 3.
"""

from __future__ import annotations

import os
import select
import struct
import threading
import time
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import Any

import psycopg
from psycopg import pq
from psycopg.pq.abc import PGconn

from headwater import failpoint
from headwater.errors import HeadwaterError, SourceUnreachable
from headwater_connectors.postgres.session import refused
from headwater_connectors.postgres.transactions import KEEPALIVE, Chunk, Idle, received

QUEUE_BYTES_MAX = 32 << 20
"""Received and not yet taken; as much as a full commit, so reading goes on while one is written."""
MESSAGES_MAX = 8192
"""Messages moved to the queue at a time."""
STATUS_SECONDS = 1.0
"""The longest silence towards the server; wal_sender_timeout is a minute by default."""
PACK_MESSAGES = 1024
"""Packed when there are so many: few enough that their memory is used again while it is warm."""
READ_BYTES = 8192
"""A read that brings less has emptied the socket; libpq asks for at least as much."""
DRY_SECONDS = 0.0002
"""A pause once the socket is dry: the server writes each message by itself, and a reader that wakes for each
costs both sides a switch. Nearly doubles the rate on two cores; longer, and the socket's buffer fills."""
_NOT_YET = (0, b"")
_data_of = itemgetter(1)
_POSTGRES_EPOCH = 946_684_800


class Receiver(threading.Thread):
    """Start it with a connection on which START_REPLICATION has succeeded; it is finished by this thread."""

    def __init__(self, connection: PGconn, name: str, acknowledged: int) -> None:
        super().__init__(name=f"receive-{name}", daemon=True)
        self._connection = connection
        self._name = name
        self._chunks: list[Chunk | Idle] = []
        self._messages: list[Any] = []  # the newest, not packed yet
        self._arrived = threading.Condition()
        self._queued = 0
        self._wanted = 1
        self._answer = self._stopping = False
        self._error: HeadwaterError | None = None
        self._acknowledged = self._reported = acknowledged
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._replied = 0.0
        self.received = acknowledged
        """LSN up to which the stream was read."""
        self.server = acknowledged
        """The server's end of WAL when it last said something."""
        self.heard = time.monotonic()

    def take(self, timeout: float, enough: int = 1) -> list[Chunk | Idle]:
        """Everything that waits, at once; waits up to ``timeout`` seconds for ``enough`` bytes or a keepalive.

        Raises the stream's error once nothing is left to take.
        """
        with self._arrived:
            self._wanted = enough
            if self._queued < enough and self._error is None:
                self._arrived.wait(timeout)
            self._pack()
            chunks, self._chunks = self._chunks, []
            was_full = self._queued >= QUEUE_BYTES_MAX
            self._queued = 0
            if not chunks and self._error is not None:
                raise self._error
        if was_full:
            self._nudge()
        return chunks

    def acknowledge(self, lsn: int) -> None:
        """Tell the server that everything before ``lsn`` is durable here. Never goes back."""
        if lsn > self._acknowledged:
            self._acknowledged = lsn
            self._nudge()

    def close(self) -> None:
        """Report what is acknowledged, end the session, end the thread."""
        self._stopping = True
        self._nudge()
        self.join()

    def run(self) -> None:
        try:
            self._receive()
        except psycopg.OperationalError as error:
            self._fail(SourceUnreachable(f"the replication stream broke: {str(error).strip()}", where=self._name))
        except HeadwaterError as error:
            self._fail(error)
        finally:
            self._connection.finish()
            for descriptor in (self._wake, self._waker):
                os.close(descriptor)

    def _receive(self) -> None:
        everything, only_wake = select.poll(), select.poll()
        everything.register(self._connection.socket, select.POLLIN)
        everything.register(self._wake, select.POLLIN)
        only_wake.register(self._wake, select.POLLIN)
        while not self._stopping:
            full = self._queued >= QUEUE_BYTES_MAX
            ready = (only_wake if full else everything).poll(STATUS_SECONDS * 1000)
            for descriptor, _ in ready:
                if descriptor == self._wake:
                    os.read(self._wake, 4096)
            if len(ready) > 1 or (ready and ready[0][0] != self._wake):
                self._read()
            due = time.monotonic() - self._replied >= STATUS_SECONDS
            if due or self._answer or self._acknowledged != self._reported:
                self._reply()
            if ready:
                time.sleep(DRY_SECONDS)
        self._reply()

    def _read(self) -> None:
        """Read until the socket is dry or the queue is full. No Python statement runs per message."""
        next_message = partial(self._connection.get_copy_data, 1)
        while self._queued < QUEUE_BYTES_MAX:
            self._connection.consume_input()
            messages = list(islice(map(_data_of, iter(next_message, _NOT_YET)), MESSAGES_MAX))
            ended = bool(messages) and len(messages[-1]) == 0
            size = self._offer([message for message in messages if len(message)] if ended else messages)
            if ended:
                raise self._end_of_stream()
            if size < READ_BYTES:
                return

    def _offer(self, messages: list[Any]) -> int:
        """Queue the messages; returns their bytes."""
        if not messages:
            return 0
        sizes = list(map(len, messages))
        size = sum(sizes)
        idle = KEEPALIVE.size in sizes
        self._note(messages, idle)
        with self._arrived:
            self._messages += messages
            self._queued += size
            if len(self._messages) >= PACK_MESSAGES:
                self._pack()
            if self._queued >= self._wanted or idle:
                self._arrived.notify()
        return size

    def _pack(self) -> None:
        self._chunks.extend(received(self._messages))
        self._messages = []

    def _note(self, messages: list[Any], idle: bool) -> None:
        """Where the stream stands, and whether the server wants an answer."""
        self.heard = time.monotonic()
        for message in [each for each in messages if len(each) == KEEPALIVE.size] if idle else ():
            end, _, wanted = KEEPALIVE.unpack(message)
            self.received = self.server = max(end, self.received)
            self._answer |= bool(wanted)
        if len(messages[-1]) != KEEPALIVE.size:
            start, end = struct.unpack_from(">QQ", messages[-1], 1)
            self.received, self.server = max(start, self.received), max(end, self.server)

    def _reply(self) -> None:
        """A standby status update: received, durable, durable."""
        durable = self._acknowledged
        new = durable != self._reported
        if new:
            failpoint.hit("source.acknowledge:before")
        now = int((time.time() - _POSTGRES_EPOCH) * 1e6)
        status = struct.pack(">cQQQqB", b"r", max(self.received, durable), durable, durable, now, 0)
        self._connection.put_copy_data(status)
        self._connection.flush()
        self._replied, self._reported, self._answer = time.monotonic(), durable, False
        if new:
            failpoint.hit("source.acknowledge:after")

    def _end_of_stream(self) -> HeadwaterError:
        result = self._connection.get_result()
        if result is None:
            return SourceUnreachable("the server ended the replication stream", where=self._name)
        state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
        return refused(state, result.error_message.decode(errors="replace"), self._name)

    def _fail(self, error: HeadwaterError) -> None:
        with self._arrived:
            self._error = error
            self._arrived.notify()

    def _nudge(self) -> None:
        try:
            os.write(self._waker, b"!")
        except (BlockingIOError, OSError):
            return  # already awake, or already gone
