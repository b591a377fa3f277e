"""Work of DuckDB's that a person can end by an interrupt, and that says how far it is when it takes long.

Python hands an interrupt to the main thread between two of its instructions: in the middle of a change of what the
lake's memory keeps, or in DuckDB, which turns it into errors of many kinds or does not look at all. So the work of the
main thread is done by another one, which no interrupt meets; the main thread waits, and passes an interrupt on to the
connection that is at work.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager, suppress
from typing import TypeVar

import duckdb

from headwater import progress

T = TypeVar("T")

_LOOK_S = 0.1
"""Between two looks at how far the work is."""
_AGAIN_S = 0.02
"""Between two interrupts: one that comes between two statements is lost."""


class Attention:
    """Which connection is at work, so that an interrupt meets it and no other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at_work: duckdb.DuckDBPyConnection | None = None

    @contextmanager
    def on(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """``connection`` is at work in the block."""
        self._turn(connection)
        try:
            yield
        finally:
            self._turn(None)

    def interrupt(self) -> None:
        """End the statement that runs; nothing when none does."""
        with self._lock:
            if self._at_work is not None:
                self._at_work.interrupt()

    def share(self) -> float:
        """How far the statement is (0..1), as far as DuckDB knows."""
        with self._lock:
            return 0.0 if self._at_work is None else max(0.0, self._at_work.query_progress()) / 100

    def _turn(self, connection: duckdb.DuckDBPyConnection | None) -> None:
        with self._lock:
            self._at_work = connection


class Attendant:
    """The thread that works for the main thread; begun when it is first needed. Closed with what it works on."""

    def __init__(self) -> None:
        self._thread: futures.ThreadPoolExecutor | None = None

    def run(self, work: Callable[[Attention], T]) -> T:
        """What ``work`` returns or raises. After a KeyboardInterrupt it has ended, and its connections can be used."""
        attention = Attention()
        if threading.current_thread() is not threading.main_thread():
            return work(attention)
        if self._thread is None:
            self._thread = futures.ThreadPoolExecutor(1, "headwater query")
        done = self._thread.submit(work, attention)
        try:
            with progress.bar("query") as bar:
                while not futures.wait([done], _LOOK_S).done:
                    bar.to(attention.share())
        except BaseException:
            _end(attention, done)
            raise
        return done.result()

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None  # who asks a closed lake hears so from what is closed


def _end(attention: Attention, done: futures.Future[T]) -> None:
    """Interrupt until it has ended; whoever is impatient meanwhile waits, for the connections are still in use."""
    while not done.done():
        with suppress(KeyboardInterrupt):
            attention.interrupt()
            futures.wait([done], _AGAIN_S)
