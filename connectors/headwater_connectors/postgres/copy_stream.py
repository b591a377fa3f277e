"""The rows of a COPY ... TO STDOUT (FORMAT binary), in large pieces of bytes and the places where rows begin."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import psycopg
from psycopg import pq

from headwater_connectors.postgres.cells import PAD, Int64s
from headwater_connectors.postgres.session import Connection
from headwater_connectors.postgres.stream import copy_data, take

BATCH_BYTES = 16 << 20
"""Bytes of rows decoded and appended at a time: memory is a few times this, whatever the table's size."""
_SIGNATURE_BYTES = 19
_TRAILER = b"\xff\xff"
"""No row begins so: these two bytes are its number of columns."""


def rows_of(connection: Connection, command: bytes) -> Iterator[tuple[bytes, Int64s]]:
    """Run the COPY in the open transaction. Yields padded bytes and the first byte of each row in them.

    Raises the server's refusal as psycopg does. Left before its end, it closes the connection.
    """
    try:
        for messages in _messages(connection.pgconn, command):
            ends = np.cumsum(np.fromiter(map(len, messages), np.int64, len(messages)))
            yield b"".join((*messages, PAD)), np.concatenate((np.zeros(1, np.int64), ends[:-1]))
    except GeneratorExit:
        connection.close()
        raise


def _messages(connection: pq.abc.PGconn, command: bytes) -> Iterator[list[Any]]:
    """The rows, one message each, in lists of about BATCH_BYTES; no Python for each."""
    result = connection.exec_(command)
    if result.status != pq.ExecStatus.COPY_OUT:
        raise _failed(result)
    rows = copy_data(connection, wait=True)
    first = next(rows, b"")[_SIGNATURE_BYTES:]  # the signature comes before, or in front of, the first row
    rows = chain([first] if first else [], rows)
    messages, rows = take(BATCH_BYTES, rows)
    while messages:
        if messages[-1] == _TRAILER:
            messages.pop()
        if messages:
            yield messages
        messages, rows = take(BATCH_BYTES, rows)
    last = connection.get_result()
    while last is not None and last.status == pq.ExecStatus.COMMAND_OK:
        last = connection.get_result()
    if last is not None:
        raise _failed(last)


def _failed(result: pq.abc.PGresult) -> psycopg.Error:
    state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    message = result.error_message.decode(errors="replace")
    try:
        return psycopg.errors.lookup(state)(message)
    except KeyError:
        return psycopg.OperationalError(message)
