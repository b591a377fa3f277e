"""Copies tables beside the stream: threads, and connections that nobody has to wait for.

Belongs to one session of the capture. What a copy has read so far is kept in the log, so the next session's copier
goes on from there.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import psycopg

from headwater import logs
from headwater.catalog.records import Topic
from headwater.config import SourceConfig
from headwater.errors import HeadwaterError
from headwater.log import Log
from headwater_connectors.postgres import catalog, session, slot, standby
from headwater_connectors.postgres.chunks import TableMoved
from headwater_connectors.postgres.copying import Copied, Copying, Stopped
from headwater_connectors.postgres.known import Known
from headwater_connectors.postgres.pool import Pool, Waited
from headwater_connectors.postgres.progress import Progress
from headwater_connectors.postgres.snapshot import Point

TABLES_AT_ONCE = 4
"""Small tables are mostly round trips: four of them hide each other's."""
READERS = 2
"""Chunks read at once: each is a server process and a decoder."""
STREAM_SECONDS = 0.005

_log = logs.logger("copy")

Outcome = tuple[Known, Copied | TableMoved | HeadwaterError]


class Copier:
    """``start`` copies; ``outcomes`` says what became of them; ``reached`` tells how far the stream is committed."""

    def __init__(self, config: SourceConfig, log: Log) -> None:
        self.config = config
        self.source = config.name
        self.log = log
        self.readers = ThreadPoolExecutor(READERS, "read")
        self._tables = ThreadPoolExecutor(TABLES_AT_ONCE, "copy")
        self._running: dict[int, Copying] = {}
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._position = 0
        self.awaited = 0
        """The LSN that a copy waits for, or has waited for."""
        self._pool = Pool(config, config.dsn)
        self._standby = Pool(config, config.standby_dsn) if config.copy_from == "standby" else None
        self._slots = threading.Lock()

    # ---- for the capture

    def start(self, known: Known, pending: Topic, shown: Topic | None) -> None:
        copying = Copying(self, known, pending, shown)
        self._running[known.oid] = copying
        self._tables.submit(self._run, copying)

    def outcomes(self) -> Iterator[Outcome]:
        """What ended since the last call."""
        while True:
            try:
                known, outcome = self._outcomes.get_nowait()
            except queue.Empty:
                return
            if known.oid in self._running and self._running[known.oid].known.copy == known.copy:
                del self._running[known.oid]
            yield known, outcome

    def reached(self, position: int) -> None:
        """Everything that the server wrote before this LSN is committed."""
        self._position = position

    def copies(self, copy: str) -> bool:
        """Whether the copy of this id runs, or ended and was not asked about yet."""
        return any(copying.known.copy == copy for copying in self._running.values())

    @property
    def idle(self) -> bool:
        """Whether nothing is being copied, and no outcome waits."""
        return not self._running

    def progress(self) -> list[Progress]:
        return [copying.progress for copying in list(self._running.values())]

    def close(self) -> None:
        self._stop.set()
        self._pool.close()
        if self._standby is not None:
            self._standby.close()
        self._tables.shutdown(cancel_futures=True)
        self.readers.shutdown(cancel_futures=True)

    # ---- for the copies

    def partitions(self, known: Known) -> int:
        return self.config.table_config(known.full_name).partitions

    @contextmanager
    def connection(self, *, standby: bool = False) -> Iterator[session.Connection]:
        """A connection of the caller's own (see ``pool``). Raises Waited, and Stopped once the copier is closed."""
        self.check()
        pool = self._standby if standby and self._standby is not None else self._pool
        with pool.connection() as connection:
            yield connection

    @contextmanager
    def slot(self, standby_connection: session.Connection) -> Iterator[tuple[Point, str]]:
        """A snapshot of the standby that can be used within the block: what it sees, and its exported name.

        Only a slot's says what it sees: the standby does not know which transactions run. One slot at a time. Raises
        Waited when none could be made now.
        """
        assert self._standby is not None
        try:
            standby.check_feedback(self.config, standby_connection)
            with self._slots, self.connection() as primary, self._standby.connection(replication=True) as replication:
                with standby.helped(self.config, primary, standby_connection):
                    found = slot.temporary(replication)
                yield found
        except (psycopg.Error, HeadwaterError) as error:
            self.check()
            raise Waited(f"no snapshot of the standby: {error}") from error

    def await_stream(self) -> None:
        """Until everything that the server has written by now is committed in the log."""
        with self.connection() as connection:
            end = catalog.current_end(connection)
            with suppress(psycopg.Error):  # only to have the end sent at once; a standby cannot
                connection.execute("SELECT pg_logical_emit_message(false, 'headwater.heartbeat', '')")
        self.awaited = max(self.awaited, end)
        while self._position < end:
            self.pause(STREAM_SECONDS)

    def pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopped

    def check(self) -> None:
        if self._stop.is_set():
            raise Stopped

    # ---- threads

    def _run(self, copying: Copying) -> None:
        outcome: Copied | TableMoved | HeadwaterError
        try:
            began = time.monotonic()
            outcome = copying.run()
            took = time.monotonic() - began
            _log.info("copied %s: %d rows in %.1f s", copying.known.full_name, copying.progress.rows, took)
        except Stopped:
            return
        except TableMoved as moved:
            outcome = moved
        except psycopg.Error as error:
            outcome = session.translate(error, self.source)
        except HeadwaterError as error:
            outcome = error
        except Exception as error:  # noqa: BLE001 -- of one table, which says so; the others go on
            if self._stop.is_set():  # a pool that is shut down takes no more
                return
            _log.exception("the copy of %s failed", copying.known.full_name)
            outcome = HeadwaterError(f"{type(error).__name__}: {error}", where=copying.known.full_name)
        self._outcomes.put((copying.known, outcome))
