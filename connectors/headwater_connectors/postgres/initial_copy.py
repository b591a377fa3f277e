"""The initial copy: every published table as of the slot's consistent point, in one commit.

The snapshot exported with the slot sees exactly what the stream, which begins at the consistent point, will not
repeat. A crash before the commit leaves a slot without a stored position; it is dropped and the copy begins again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from psycopg import pq, sql

from headwater import record
from headwater.log.transaction import Transaction
from headwater_connectors.postgres.catalog import TableInfo, column_types, log_names, topic_name
from headwater_connectors.postgres.cells import PAD, walk_copy
from headwater_connectors.postgres.columns import ColumnType, TypeInfo
from headwater_connectors.postgres.decoder import raw
from headwater_connectors.postgres.session import Connection, refused
from headwater_connectors.postgres.stream import copy_data, take

BATCH_BYTES = 16 << 20
"""Bytes of rows decoded and appended at a time: memory is a few times this, whatever the table's size."""
_SIGNATURE_BYTES = 19
_TRAILER = b"\xff\xff"
"""No row begins so: these two bytes are its number of columns."""


def copy_tables(
    connection: Connection,
    transaction: Transaction,
    source: str,
    tables: Sequence[TableInfo],
    known: dict[int, TypeInfo],
    snapshot: str,
    point: int,
    progress: Callable[[str, int], None],
) -> int:
    """Append every row of ``tables`` as of ``snapshot``; returns how many. ``progress(table, rows so far)``."""
    total = 0
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))
        for table in tables:
            topic = topic_name(source, table.namespace, table.name)
            for rows in read_table(connection, table, column_types(table, known), source):
                transaction.append(topic, _as_records(rows, table, point))
                total += rows.num_rows
                progress(table.full_name, total)
    return total


def read_table(
    connection: Connection, table: TableInfo, types: Sequence[ColumnType], source: str
) -> Iterator[pa.Table]:
    """A table's rows in bounded pieces: data columns and, where needed, ``_raw``. Runs in the open transaction."""
    names = log_names([column.name for column in table.columns])
    for messages in _messages(connection.pgconn, _copy_sql(connection, table, types), source):
        buffer = np.frombuffer(b"".join((*messages, PAD)), np.uint8)
        ends = np.cumsum(np.fromiter(map(len, messages), np.int64, len(messages)))
        cells = walk_copy(buffer, np.concatenate((np.zeros(1, np.int64), ends[:-1])), len(types))
        columns = [(kind.binary or kind.text)(cell) for kind, cell in zip(types, cells, strict=True)]
        data = dict(zip(names, (column.values for column in columns), strict=True))
        yield pa.table({**data, **raw(names, columns, np.arange(len(messages)))})


def _as_records(rows: pa.Table, table: TableInfo, point: int) -> pa.Table:
    count = rows.num_rows
    rows = rows.append_column(record.OP, pa.array(["r"]).take(pa.array(np.zeros(count, np.int8))))
    if table.kind == "multiset":
        rows = rows.append_column(record.WEIGHT, pa.array(np.ones(count, np.int64)))
    return rows.append_column(record.LSN, pa.array(np.full(count, point, np.int64)))


def _copy_sql(connection: Connection, table: TableInfo, types: Sequence[ColumnType]) -> bytes:
    """COPY BINARY; a type without binary decoder is sent as its exact text inside it.

    format('%s') runs the type's output function, which a cast to text does not always (inet, bpchar, boolean).
    """
    columns = []
    for column, kind in zip(table.columns, types, strict=True):
        name = sql.Identifier(column.name)
        text = sql.SQL("CASE num_nonnulls({0}) WHEN 1 THEN format('%s', {0}) END").format(name)
        columns.append(name if kind.binary else text)
    query = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT (FORMAT binary)").format(
        sql.SQL(", ").join(columns), sql.Identifier(table.namespace, table.name)
    )
    return query.as_bytes(connection)


def _messages(connection: pq.abc.PGconn, command: bytes, source: str) -> Iterator[list[Any]]:
    """The rows of a COPY OUT, one message each, in lists of about BATCH_BYTES; no Python for each."""
    result = connection.exec_(command)
    if result.status != pq.ExecStatus.COPY_OUT:
        raise _failed(result, source)
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
        raise _failed(last, source)


def _failed(result: pq.abc.PGresult, source: str) -> Exception:
    state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    return refused(state, result.error_message.decode(errors="replace"), source)
