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
from collections import deque
from typing import Any

import psycopg
from psycopg import pq
from psycopg.pq.abc import PGconn

from headwater import failpoint
from headwater.errors import HeadwaterError, SourceUnreachable
from headwater_connectors.postgres.session import refused
from headwater_connectors.postgres.transactions import Chunk, Idle

QUEUE_BYTES_MAX = 32 << 20
"""Received and not yet taken; as much as a full commit, so reading goes on while one is written."""
CHUNK_MESSAGES_MAX = 8192
STATUS_SECONDS = 1.0
"""The longest silence towards the server; wal_sender_timeout is a minute by default."""
_KEEPALIVE_BYTES = 18
_POSTGRES_EPOCH = 946_684_800


class Receiver(threading.Thread):
    """Start it with a connection on which START_REPLICATION has succeeded; it is finished by this thread."""

    def __init__(self, connection: PGconn, name: str, acknowledged: int) -> None:
        super().__init__(name=f"receive-{name}", daemon=True)
        self._connection = connection
        self._name = name
        self._queue: deque[Chunk | Idle] = deque()
        self._arrived = threading.Condition()
        self._queued = 0
        self._stopping = False
        self._error: HeadwaterError | None = None
        self._acknowledged = self._reported = acknowledged
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._replied = 0.0
        self.received = acknowledged
        """LSN up to which the stream was read."""
        self.server = acknowledged
        """The server's end of WAL when it last said something."""
        self.heard = time.monotonic()

    def take(self, timeout: float) -> list[Chunk | Idle]:
        """Everything that waits, at once; waits up to ``timeout`` seconds for something. Raises the stream's error
        once nothing is left to take."""
        with self._arrived:
            if not self._queue and self._error is None:
                self._arrived.wait(timeout)
            chunks = list(self._queue)
            self._queue.clear()
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
            if self._acknowledged != self._reported or time.monotonic() - self._replied >= STATUS_SECONDS:
                self._reply()
        self._reply()

    def _read(self) -> None:
        """Read until the socket is dry or the queue is full."""
        get, more = self._connection.get_copy_data, self._connection.consume_input
        readable = select.poll()
        readable.register(self._connection.socket, select.POLLIN)
        messages: list[Any] = []
        while True:
            more()
            size, data = get(1)
            while size > _KEEPALIVE_BYTES:
                messages.append(data)
                size, data = get(1)
            if size == _KEEPALIVE_BYTES:
                self._put(messages)
                messages = []
                self._keepalive(bytes(data))
            elif size < 0:
                self._put(messages)
                raise self._end_of_stream()
            if len(messages) >= CHUNK_MESSAGES_MAX:
                self._put(messages)
                messages = []
            if self._queued >= QUEUE_BYTES_MAX or (size == 0 and not readable.poll(0)):
                self._put(messages)
                return

    def _put(self, messages: list[Any]) -> None:
        if not messages:
            return
        start, end = struct.unpack_from(">QQ", messages[-1], 1)
        self.received, self.server = max(start, self.received), max(end, self.server)
        self._offer(Chunk.of(messages))

    def _keepalive(self, data: bytes) -> None:
        end, _, wanted = struct.unpack(">QqB", data[1:])
        self.received, self.server = max(end, self.received), max(end, self.server)
        self._offer(Idle(end))
        if wanted:
            self._reply()

    def _offer(self, chunk: Chunk | Idle) -> None:
        self.heard = time.monotonic()
        with self._arrived:
            self._queue.append(chunk)
            self._queued += chunk.size
            self._arrived.notify()

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
        self._replied, self._reported = time.monotonic(), durable
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
