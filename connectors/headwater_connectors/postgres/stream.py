"""How CopyData messages leave a connection: in blocks of whole messages, never one by one.

Over an unencrypted connection the bytes are read from the socket itself, as many as are there, and the frames
are found in them by arithmetic on the whole block; one libpq call a message costs more than decoding it. libpq
has opened that connection and is idle: it has read nothing ahead. Where libpq holds the keys (TLS, GSS) its own
calls are used. Both give the same blocks.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, islice, takewhile, tee
from operator import itemgetter
from time import sleep
from typing import Any, Protocol

import numpy as np
from psycopg import pq
from psycopg.pq.abc import PGconn, PGresult

from headwater.errors import HeadwaterError, SourceUnreachable
from headwater_connectors.postgres.cells import Bytes, Int64s, read
from headwater_connectors.postgres.session import refused, run_replication

FRAME = 5
"""Bytes in front of each message: 'd' and a length. Only their number matters to whoever gets a block."""
BLOCK_BYTES = 256 << 10
"""Enough to be looked at: a thousand messages cost hardly more than one."""
BLOCK_SECONDS = 0.005
"""... or what has come in pauses of this length together."""
DRY_SECONDS = {socket.AF_UNIX: 0.00015, socket.AF_INET: 0.001, socket.AF_INET6: 0.001}
"""A pause between two reads: the server writes each message by itself, and a reader that wakes for each costs both
sides a switch. Of a unix socket some 270 messages, a millisecond's worth, fill the buffer: pause less."""
DRY_READS = 3
"""So often nothing came: the server has no more for now. Less, and whoever waits wakes between two transactions."""
SEND_SECONDS = 30.0
"""A server that takes no reply for so long is gone."""

_DATA = ord("d")
_NOTHING = np.empty(0, np.int64)
_PASSING = b"NSA"  # notice, parameter status, notification: not meant for us
_ENDS = b"cCZ"  # copy done, command complete, ready


@dataclass(frozen=True)
class Block:
    """Whole messages in stream order, ``FRAME`` bytes in front of each; ``lengths`` count these too."""

    data: bytes
    lengths: Int64s

    def __bool__(self) -> bool:
        return len(self.lengths) > 0


class Stream(Protocol):
    """One running replication command. Used by one thread, which closes it; the connection ends with it."""

    def fileno(self) -> int:
        """Readable when ``read`` has something to do."""
        ...

    @property
    def more(self) -> bool:
        """Whether ``read`` may have something to do although nothing is readable."""
        ...

    def read(self) -> Block:
        """What waits and what comes within a few milliseconds; may be empty. Raises what ended the stream."""
        ...

    def send(self, message: bytes) -> None:
        """A message to the server."""
        ...

    def close(self) -> None: ...


def start(connection: PGconn, command: str, name: str) -> Stream:
    """Run START_REPLICATION; a refusal becomes one of our errors. ``connection`` belongs to the stream from now on."""
    if connection.ssl_in_use or connection.used_gssapi:
        run_replication(connection, command, name)
        return LibpqStream(connection, name)
    stream = SocketStream(connection, name)
    try:
        stream.start(command)
    except OSError as error:
        stream.release()
        raise SourceUnreachable(f"the server did not start the stream: {error}", where=name) from error
    except HeadwaterError:
        stream.release()
        raise
    return stream


class SocketStream:
    """Reads the connection's socket directly; ``more``: behind what was returned stands something other than data."""

    def __init__(self, connection: PGconn, name: str) -> None:
        self._connection = connection
        self._name = name
        self._socket = socket.socket(fileno=os.dup(connection.socket))
        self._fileno = self._socket.fileno()
        self._socket.settimeout(SEND_SECONDS)  # of sends; reads go round it and never wait
        self._buffer = bytearray(2 * BLOCK_BYTES)
        self._held = 0
        self.more = False
        self._closed = False
        self._pause = DRY_SECONDS[self._socket.family]
        self._pauses = int(BLOCK_SECONDS / self._pause)

    def start(self, command: str) -> None:
        self._socket.sendall(_frame(b"Q", command.encode() + b"\0"))
        while True:
            self._socket.recv(1, socket.MSG_PEEK)  # waits for the answer
            self._fill()
            for kind, body in self._rare():
                if kind == b"W":
                    return
                self._end(kind, body)
            self._refuse_closed()

    def fileno(self) -> int:
        return self._fileno

    def read(self) -> Block:
        dry, pauses = 0, self._pauses
        enough = len(self._buffer) - BLOCK_BYTES  # more only while a message larger than a block arrives
        while self._held < enough and dry < DRY_READS and pauses > 0:
            dry = 0 if self._fill() else dry + 1
            pauses -= 1
            sleep(self._pause)
        block, passed = self._cut(), False
        if not block:
            for kind, body in self._rare():
                self._end(kind, body)
                passed = True
            self._refuse_closed()  # only now: the server's last words say why
        # An error behind the messages makes nothing readable: the server that sent it waits for us.
        self.more = self._held > 0 and (passed or (bool(block) and self._buffer[0] != _DATA))
        return block

    def send(self, message: bytes) -> None:
        self._socket.sendall(_frame(b"d", message))

    def close(self) -> None:
        self.release()
        self._connection.finish()

    def release(self) -> None:
        """Give the connection back, which stays open."""
        self._socket.close()

    def _fill(self) -> bool:
        """Read what is there; whether there was anything."""
        try:
            count = os.readv(self._fileno, (memoryview(self._buffer)[self._held :],))
        except BlockingIOError:
            return False
        self._held += count
        self._closed = not count
        return count > 0

    def _refuse_closed(self) -> None:
        if self._closed:
            raise SourceUnreachable("the server closed the replication connection", where=self._name)

    def _cut(self) -> Block:
        """Take the whole messages from the buffer's front."""
        held = np.frombuffer(self._buffer, np.uint8, self._held)
        ends = frame_ends(held, b"wk")
        if not len(ends):
            return Block(b"", _NOTHING)
        data = held[: ends[-1]].tobytes()
        self._drop(len(data))
        return Block(data, np.diff(ends, prepend=0))

    def _rare(self) -> Iterator[tuple[bytes, bytes]]:
        """Frames at the front that are no data: kind and body. Makes room for a message larger than the buffer."""
        while self._held >= FRAME and self._buffer[0] != _DATA:
            end = 1 + int.from_bytes(self._buffer[1:FRAME])
            if end > self._held:
                break
            kind, body = bytes(self._buffer[:1]), bytes(self._buffer[FRAME:end])
            self._drop(end)
            yield kind, body
        if self._held >= FRAME:
            self._make_room(1 + int.from_bytes(self._buffer[1:FRAME]))

    def _make_room(self, size: int) -> None:
        if size + BLOCK_BYTES > len(self._buffer):
            self._buffer.extend(bytes(size + BLOCK_BYTES - len(self._buffer)))

    def _drop(self, count: int) -> None:
        rest = self._buffer[count : self._held]
        if len(self._buffer) > 2 * BLOCK_BYTES and len(rest) < BLOCK_BYTES:
            self._buffer = bytearray(2 * BLOCK_BYTES)
        self._buffer[: len(rest)] = rest
        self._held = len(rest)

    def _end(self, kind: bytes, body: bytes) -> None:
        if kind in _PASSING:
            return
        if kind == b"E":
            fields = {part[:1]: part[1:] for part in body.split(b"\0") if part}
            message = fields.get(b"M", b"").decode(errors="replace")
            raise refused(fields.get(b"C", b"").decode(), message, self._name)
        what = "ended the replication stream" if kind in _ENDS else f"sent a message of unknown kind {kind!r}"
        raise SourceUnreachable(f"the server {what}", where=self._name)


class LibpqStream:
    """Reads through libpq, message by message inside C, for connections that only libpq can read.

    What libpq has read ahead, and what its TLS layer holds decrypted, makes no socket readable: ``more`` says so.
    """

    def __init__(self, connection: PGconn, name: str) -> None:
        self._connection = connection
        self._name = name
        self.more = False

    def fileno(self) -> int:
        return self._connection.socket

    def read(self) -> Block:
        self._connection.consume_input()
        messages, _ = take(BLOCK_BYTES, copy_data(self._connection, wait=False))
        self.more = bool(messages)
        ended = bool(messages) and len(messages[-1]) == 0
        messages = [message for message in messages if len(message)] if ended else messages
        if ended and not messages:
            raise self._end(self._connection.get_result())
        frame = bytes(FRAME)
        lengths = np.fromiter(map(len, messages), np.int64, len(messages)) + FRAME
        return Block(frame.join([b"", *messages]), lengths)

    def send(self, message: bytes) -> None:
        self._connection.put_copy_data(message)
        self._connection.flush()

    def close(self) -> None:
        self._connection.finish()

    def _end(self, result: PGresult | None) -> HeadwaterError:
        if result is None:
            return SourceUnreachable("the server ended the replication stream", where=self._name)
        state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
        return refused(state, result.error_message.decode(errors="replace"), self._name)


def copy_data(connection: PGconn, *, wait: bool) -> Iterator[Any]:
    """The messages of a COPY OUT to its end; without ``wait`` those that are there, and an empty one at the end."""
    last = (-1 if wait else 0, b"")
    return map(itemgetter(1), iter(partial(connection.get_copy_data, 0 if wait else 1), last))


def take(size: int, messages: Iterator[Any]) -> tuple[list[Any], Iterator[Any]]:
    """The first messages, the one included with which they reach ``size`` bytes, and the others. No Python for each."""
    ahead, messages = tee(messages)
    count = len(list(takewhile(size.__gt__, accumulate(map(len, ahead))))) + 1
    return list(islice(messages, count)), messages


def frame_ends(held: Bytes, marks: bytes, second: int | None = None) -> Int64s:
    """Where the whole CopyData frames that follow each other from the front end: exact whatever the messages hold.

    A message's first byte is one of ``marks``, and its second one ``second`` where that is given. Every place that
    looks like a frame is a candidate; the frames are those that the lengths lead to, one from the other. When all
    candidates are frames, which is nearly always, that is one comparison.
    """
    at = np.flatnonzero(held[: max(len(held) - FRAME, 0)] == _DATA)
    if len(held) < 1 << 24:  # a frame that is here whole is shorter, so the first byte of its length is 0
        at = at[held[at + 1] == 0]
    first = held[at + FRAME]
    marked = first == marks[0]
    for mark in marks[1:]:
        marked |= first == mark
    at = at[marked]
    if second is not None:
        at = at[held[np.minimum(at + FRAME + 1, len(held) - 1)] == second]
    if not len(at) or at[0] != 0:
        return _NOTHING
    ends = at + 1 + read(held, "i4", at + 1)
    if not np.array_equal(ends[:-1], at[1:]):
        ends = ends[_reached(at, ends)]
    whole: Int64s = ends[: np.searchsorted(ends, len(held), side="right")]
    return whole


def _reached(at: Int64s, ends: Int64s) -> Int64s:
    """Which candidates the first one leads to: in each round those twice as far away."""
    count = len(at)
    place = np.minimum(np.searchsorted(at, ends), count - 1)
    jump = np.append(np.where(at[place] == ends, place, count), count)
    reached = np.zeros(count + 1, np.bool_)
    reached[0] = True
    for _ in range(count.bit_length()):
        reached[jump[reached]] = True
        jump = jump[jump]
    return np.flatnonzero(reached[:count])


def _frame(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">ci", kind, 4 + len(body)) + body
