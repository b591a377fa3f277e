"""The receiving thread: reads the replication stream, answers the server, never waits for the log.

It owns its stream alone. What it reads waits in a queue bounded in bytes; when that is full it stops
reading (TCP then holds the server back) but goes on answering, so a slow disk never costs the session.
The flush position it reports is what ``acknowledge`` was given, nothing else: law 3.
"""

from __future__ import annotations

import os
import select
import struct
import threading
import time

import psycopg

from headwater import failpoint
from headwater.errors import HeadwaterError, SourceUnreachable
from headwater_connectors.postgres.stream import FRAME, Block, Stream
from headwater_connectors.postgres.transactions import XLOG_DATA, Chunk, Idle, received

QUEUE_BYTES_MAX = 32 << 20
"""Received and not yet taken; as much as a full commit, so reading goes on while one is written."""
STATUS_SECONDS = 1.0
"""The longest silence towards the server; wal_sender_timeout is a minute by default."""
_POSTGRES_EPOCH = 946_684_800


class ServerSilent(SourceUnreachable):
    """The connection stands and nothing comes through it, not even answers."""


class Receiver(threading.Thread):
    """Start it with a running stream; it is closed by this thread."""

    def __init__(self, stream: Stream, name: str, acknowledged: int, silence_s: float = 60.0) -> None:
        super().__init__(name=f"receive-{name}", daemon=True)
        self._stream = stream
        self._name = name
        self._silence_s = silence_s
        self._chunks: list[Chunk | Idle] = []
        self._arrived = threading.Condition()
        self._queued = 0
        self._wanted = 1
        self._answer = self._stopping = self._asks = False
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

    def ask(self) -> None:
        """Have the server say at once how far it has sent, instead of with the next status."""
        self._asks = True
        self._nudge()

    def close(self) -> None:
        """Report what is acknowledged, end the session, end the thread. Once, by whoever else uses this object."""
        self._stopping = True
        self._nudge()
        self.join()
        # Only here: a number that this thread closed would soon be another file's, and the next nudge written into it.
        for descriptor in (self._wake, self._waker):
            os.close(descriptor)

    def run(self) -> None:
        try:
            self._receive()
        except (psycopg.OperationalError, OSError) as error:
            self._fail(SourceUnreachable(f"the replication stream broke: {str(error).strip()}", where=self._name))
        except HeadwaterError as error:
            self._fail(error)
        finally:
            self._stream.close()

    def _receive(self) -> None:
        everything, only_wake = select.poll(), select.poll()
        everything.register(self._stream, select.POLLIN)
        everything.register(self._wake, select.POLLIN)
        only_wake.register(self._wake, select.POLLIN)
        while not self._stopping:
            full = self._queued >= QUEUE_BYTES_MAX
            more = self._stream.more and not full
            ready = (only_wake if full else everything).poll(0 if more else STATUS_SECONDS * 1000)
            for descriptor, _ in ready:
                if descriptor == self._wake:
                    os.read(self._wake, 4096)
            if more or len(ready) > 1 or (ready and ready[0][0] != self._wake):
                self._offer(self._stream.read())
            self._listen(full=full)
            due = time.monotonic() - self._replied >= STATUS_SECONDS
            if due or self._answer or self._asks or self._acknowledged != self._reported:
                self._reply()
        self._reply()

    def _listen(self, *, full: bool) -> None:
        """Ask a server that has been silent for long; give it up when it does not answer. Silent, where we listen."""
        if full:
            self.heard = time.monotonic()
        silent = time.monotonic() - self.heard
        if silent > self._silence_s:
            raise ServerSilent(f"the server has said nothing for {silent:.0f} s", where=self._name)
        if silent > self._silence_s / 4 and time.monotonic() - self._replied >= STATUS_SECONDS:
            self._asks = True

    def _offer(self, block: Block) -> None:
        """Queue what was read and note where the stream stands."""
        if not block:
            return
        chunks = list(received(block))
        self.heard = time.monotonic()
        idle = [each for each in chunks if isinstance(each, Idle)]
        for each in idle:
            self.received = self.server = max(each.end_lsn, self.received)
            self._answer |= each.answer
        if isinstance(chunks[-1], Chunk):
            last = len(block.data) - int(block.lengths[-1]) + FRAME
            _, start, end, _ = XLOG_DATA.unpack_from(block.data, last)
            self.received, self.server = max(start, self.received), max(end, self.server)
        with self._arrived:
            self._chunks += chunks
            self._queued += len(block.data)
            if self._queued >= self._wanted or idle:
                self._arrived.notify()

    def _reply(self) -> None:
        """A standby status update: received, durable, durable."""
        durable = self._acknowledged
        new = durable != self._reported
        if new:
            failpoint.hit("source.acknowledge:before")
        now = int((time.time() - _POSTGRES_EPOCH) * 1e6)
        asks, self._asks = self._asks, False
        status = struct.pack(">cQQQqB", b"r", max(self.received, durable), durable, durable, now, asks)
        self._stream.send(status)
        self._replied, self._reported, self._answer = time.monotonic(), durable, False
        if new:
            failpoint.hit("source.acknowledge:after")

    def _fail(self, error: HeadwaterError) -> None:
        with self._arrived:
            self._error = error
            self._arrived.notify()

    def _nudge(self) -> None:
        try:
            os.write(self._waker, b"!")
        except BlockingIOError:
            return  # already awake
