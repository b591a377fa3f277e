"""The rows of a COPY ... TO STDOUT (FORMAT binary), in large pieces of bytes and the places where rows begin.

Read from the socket itself where nothing encrypts it: libpq makes an object of every row, which takes three times as
long as everything else that is done to it (3.0 of 4.1 µs a row of ten columns).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import psycopg
from psycopg import pq

from headwater_connectors.postgres.cells import PAD, Int64s
from headwater_connectors.postgres.session import Connection
from headwater_connectors.postgres.stream import FRAME, copy_data, frame_ends, take

BATCH_BYTES = 2 << 20
"""Bytes of rows decoded at a time: so few stay in the processor's caches from one column to the next (two million rows
in pieces of 8, 4 and 2 MB: 3.1, 2.7 and 2.6 s)."""
SILENCE_SECONDS = 60.0
"""A server that says nothing for so long in the middle of a COPY is taken for gone."""
_SIGNATURE_BYTES = 19
_TRAILER = b"\xff\xff"
"""No row begins so: these two bytes are its number of columns."""
_READY = b"Z\0\0\0\5"


def rows_of(connection: Connection, command: bytes, columns: int) -> Iterator[tuple[bytes, Int64s]]:
    """Run the COPY of so many columns in the open transaction. Yields padded bytes and each row's first byte in them.

    Raises the server's refusal as psycopg does. Left before its end, it closes the connection.
    """
    plain = not (connection.pgconn.ssl_in_use or connection.pgconn.used_gssapi)
    try:
        yield from _from_socket(connection, command, columns) if plain else _from_libpq(connection, command)
    except GeneratorExit:
        connection.close()
        raise
    except OSError as error:
        connection.close()
        raise psycopg.OperationalError(f"the server broke off a COPY: {error}") from error


def row_at(data: bytes, start: int) -> bytes:
    """The bytes of one row, from its number of columns to its last value."""
    end = start + 2
    for _ in range(int.from_bytes(data[start:end])):
        end += 4 + max(0, int.from_bytes(data[end : end + 4], signed=True))
    return data[start:end]


def _from_socket(connection: Connection, command: bytes, columns: int) -> Iterator[tuple[bytes, Int64s]]:
    with socket.socket(fileno=os.dup(connection.pgconn.socket)) as link:
        link.settimeout(SILENCE_SECONDS)
        link.sendall(b"Q" + struct.pack(">i", len(command) + 5) + command + b"\0")
        copy = _Copy(link, columns)
        while not copy.ended:
            copy.receive()
            yield from copy.rows()
    if copy.refusal is not None:
        raise copy.refusal


class _Copy:
    """What the server sends for one COPY, in one buffer: frames are taken from its front."""

    def __init__(self, link: socket.socket, columns: int) -> None:
        self._link = link
        self._marks = columns.to_bytes(2)  # a row begins with its number of columns
        self._buffer = bytearray(BATCH_BYTES + (1 << 16))
        self._held = 0
        self._signed = False
        self.ended = False
        self.refusal: psycopg.Error | None = None

    def receive(self) -> None:
        """Until the buffer is full, or what it ends with looks like the end."""
        while self._held < BATCH_BYTES or not self._whole():
            if self._held == len(self._buffer):
                self._buffer.extend(bytes(len(self._buffer)))  # a row larger than the buffer
            count = self._link.recv_into(memoryview(self._buffer)[self._held :])
            if not count:
                raise ConnectionError("it closed the connection")
            self._held += count
            if self._buffer[self._held - 6 : self._held - 1] == _READY:
                return

    def rows(self) -> Iterator[tuple[bytes, Int64s]]:
        """The whole rows that are here; other frames between them are passed."""
        while self._whole():
            if self._signed:
                ends = frame_ends(np.frombuffer(self._buffer, np.uint8, self._held), self._marks[:1], self._marks[1])
                if len(ends):
                    data = b"".join((memoryview(self._buffer)[: int(ends[-1])], PAD))  # one copy
                    self._drop(int(ends[-1]))
                    yield data, np.concatenate((np.zeros(1, np.int64), ends[:-1])) + FRAME
                    continue
            kind, body = self._frame()
            if kind == b"d" and not self._signed:  # the signature comes before, or in front of, the first row
                self._signed = True
                if body[_SIGNATURE_BYTES:] not in (b"", _TRAILER):
                    yield body[_SIGNATURE_BYTES:] + PAD, np.zeros(1, np.int64)
            self.ended |= kind == b"Z"
            if kind == b"E":
                fields = {part[:1]: part[1:].decode(errors="replace") for part in body.split(b"\0") if part}
                self.refusal = _error(fields.get(b"C", ""), fields.get(b"M", ""))

    def _whole(self) -> bool:
        """Whether the frame at the front is all here."""
        return self._held > FRAME and 1 + int.from_bytes(self._buffer[1:FRAME]) <= self._held

    def _frame(self) -> tuple[bytes, bytes]:
        end = 1 + int.from_bytes(self._buffer[1:FRAME])
        kind, body = bytes(self._buffer[:1]), bytes(memoryview(self._buffer)[FRAME:end])
        self._drop(end)
        return kind, body

    def _drop(self, count: int) -> None:
        rest = self._buffer[count : self._held]
        self._buffer[: len(rest)] = rest
        self._held = len(rest)


def _from_libpq(connection: Connection, command: bytes) -> Iterator[tuple[bytes, Int64s]]:
    for messages in _messages(connection.pgconn, command):
        ends = np.cumsum(np.fromiter(map(len, messages), np.int64, len(messages)))
        yield b"".join((*messages, PAD)), np.concatenate((np.zeros(1, np.int64), ends[:-1]))


def _messages(connection: pq.abc.PGconn, command: bytes) -> Iterator[list[Any]]:
    """The rows, one message each, in lists of about BATCH_BYTES; no Python for each."""
    result: pq.abc.PGresult | None = connection.exec_(command)
    assert result is not None
    if result.status != pq.ExecStatus.COPY_OUT:
        raise _failed(result)
    rows = copy_data(connection, wait=True)
    first = next(rows, b"")[_SIGNATURE_BYTES:]
    rows = chain([first] if first else [], rows)
    messages, rows = take(BATCH_BYTES, rows)
    while messages:
        if messages[-1] == _TRAILER:
            messages.pop()
        if messages:
            yield messages
        messages, rows = take(BATCH_BYTES, rows)
    refused = None
    while (result := connection.get_result()) is not None:  # to the end: the next statement needs the connection idle
        refused = refused if result.status == pq.ExecStatus.COMMAND_OK else result
    if refused is not None:
        raise _failed(refused)


def _failed(result: pq.abc.PGresult) -> psycopg.Error:
    state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    return _error(state, result.error_message.decode(errors="replace"))


def _error(state: str, message: str) -> psycopg.Error:
    try:
        return psycopg.errors.lookup(state)(message)
    except KeyError:
        return psycopg.OperationalError(message)
