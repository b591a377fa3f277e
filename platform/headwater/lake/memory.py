"""The DuckDB of one lake: it keeps current rows between queries, and every thread has a cursor on it."""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import duckdb

from headwater import duck
from headwater.catalog.records import Topic
from headwater.client.producer import Producer
from headwater.config import MIB, Settings
from headwater.errors import UsageError
from headwater.lake.attended import Attendant
from headwater.log import Log
from headwater.log.rows import CurrentRows
from headwater.schema import Schema
from headwater.types import quote

QUESTIONS_BETWEEN_SWEEPS = 1_000
SWEPT_BYTES_MAX = 64 * MIB
"""More than that in DuckDB's memory is not swept: its rows would go to the disk, and what is swept is little beside."""


class Memory:
    """What all pinned faces of one lake share. Thread-safe; ``lock`` is held by whoever uses ``rows``."""

    def __init__(self, log: Log) -> None:
        self.lock = threading.RLock()
        self.attendant = Attendant()
        self._closed = False
        self.producers: weakref.WeakSet[Producer] = weakref.WeakSet()
        self._log = log
        self._spill = tempfile.mkdtemp(prefix="headwater-")
        weakref.finalize(self, shutil.rmtree, self._spill, ignore_errors=True)  # a lake nobody closed, too
        self._questions = 0
        self.begin()

    def begin(self) -> None:
        """Begin with nothing in it, in a thread: it takes as long as all the rest of opening a lake."""
        self._limit = f"{Settings().query_memory_bytes_max // MIB}MiB"
        opener = ThreadPoolExecutor(1, "headwater duckdb")
        self._opened = opener.submit(
            duck.connect, timezone=self._log.timezone, memory_limit=self._limit, temp_directory=self._spill
        )
        opener.shutdown(wait=False)
        self._rows: dict[int, CurrentRows] = {}
        self._local = threading.local()

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The connection that keeps rows; ``lock`` is held while it works."""
        return self._opened.result()

    def rows(self, topic: Topic) -> CurrentRows:
        """The kept rows of a topic."""
        return self._rows.setdefault(topic.id, CurrentRows(self._log, self.connection, topic))

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """This thread's cursor: a connection of its own to the same memory. UsageError once the lake is closed."""
        if self._closed:
            raise UsageError("the lake is closed", todo="Open it again: headwater.open(...).")
        if not hasattr(self._local, "cursor"):
            cursor = self.connection.cursor()
            duck.pin(cursor, self._log.timezone)
            _count(cursor)
            self._local.cursor, self._local.defined = cursor, {}
        self._questions += 1
        if self._questions % QUESTIONS_BETWEEN_SWEEPS == 0:
            self._sweep()
        found: duckdb.DuckDBPyConnection = self._local.cursor
        return found

    def _sweep(self) -> None:
        """Have DuckDB drop its notes of blocks that are gone: 1 to 7 KB a question that joins or sorts.

        They stand in the queue of blocks to evict, which DuckDB looks through when it needs room (and from 32,768
        of them on): so it is told to make more room than there can be. It looks, and refuses the limit.
        """
        with self.connection.cursor() as own:
            used = own.execute("SELECT sum(memory_usage_bytes) FROM duckdb_memory()").fetchall()[0][0]
            if used > SWEPT_BYTES_MAX:
                return
            with suppress(duckdb.OutOfMemoryException):
                own.execute("SET memory_limit = '1B'")
            own.execute(f"SET memory_limit = '{self._limit}'")

    def define(self, name: str, body: str, schema: Schema) -> None:
        """Make a name of this thread's cursor stand for a SELECT with these columns; free when it already does."""
        cursor, defined = self.cursor(), self._local.defined
        if defined.get(name) != (body, schema):
            defined.pop(name, None)
            cursor.execute(f"CREATE OR REPLACE TEMP VIEW {quote(name)} AS {body}")
            defined[name] = (body, schema)

    def close(self) -> None:
        self._closed = True
        self.attendant.close()
        self.connection.close()


def _count(cursor: duckdb.DuckDBPyConnection) -> None:
    """Have DuckDB count how far a statement is, and print nothing: ``attended`` shows it."""
    cursor.execute("SET enable_progress_bar = true")
    cursor.execute("SET enable_progress_bar_print = false")
