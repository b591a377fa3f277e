"""Connections for long reads that nobody has to wait for: law 9.

Who has waited a moment for anything that one of these connections holds gets it: the server process is ended, which
reaches it wherever it is (working, sending, or idle in a transaction whose snapshot an index build waits for). Whoever
used it is told by ``Waited`` and tries again.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

from headwater import logs
from headwater.config import SourceConfig
from headwater.errors import HeadwaterError
from headwater_connectors.postgres import session

WAITED_MS = 150
"""Who has waited so long gets it; looking, ending the process and a busy machine take the rest of the 500 ms."""
WATCH_SECONDS = 0.05

# On a standby, who waits is what replays an exclusive lock of the primary's: nobody else may ask for one there, and
# pg_blocking_pids does not know of it.
_WAITING = """
SELECT DISTINCT holder.pid FROM pg_locks w, LATERAL (
    SELECT unnest(pg_blocking_pids(w.pid)) UNION ALL
    SELECT h.pid FROM pg_locks h WHERE pg_is_in_recovery() AND w.mode = 'AccessExclusiveLock'
        AND h.granted AND (h.locktype, h.database, h.relation) = (w.locktype, w.database, w.relation)) AS holder(pid)
WHERE NOT w.granted AND holder.pid = ANY (%(ours)s) AND w.pid <> ALL (%(ours)s)
    AND w.waitstart < clock_timestamp() - %(ms)s * interval '1 millisecond'
"""
_log = logs.logger("copy")


class Waited(Exception):
    """Somebody waited for our lock, or we for theirs; to be tried again."""


class Pool:
    """``connection`` from any thread; ``close`` ends all of them, also those in use."""

    def __init__(self, config: SourceConfig, dsn: str) -> None:
        self._config = config
        self._dsn = dsn
        self._stop = threading.Event()
        self._free: queue.SimpleQueue[session.Connection] = queue.SimpleQueue()
        self._used: dict[int, session.Leash] = {}
        self._ended: set[int] = set()
        self._watcher = threading.Thread(target=self._watch, name=f"watch-{config.name}", daemon=True)
        self._watcher.start()

    @contextmanager
    def connection(self, *, replication: bool = False) -> Iterator[session.Connection]:
        """One of the caller's own. Raises Waited when it was taken away for somebody who waited.

        ``replication``: for replication commands; it ends with the block, and so does what it made.
        """
        connection = self._another(replication)
        pid, leash = connection.info.backend_pid, session.Leash(connection)
        self._used[pid] = leash
        try:
            if self._stop.is_set():  # who closes breaks off only what is in use by then
                leash.break_off()
            yield connection
        except BaseException as error:
            if connection.closed or connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                connection.close()
            if pid in self._ended and isinstance(error, psycopg.OperationalError):
                raise Waited(str(error)) from error
            raise
        finally:
            del self._used[pid]
            self._ended.discard(pid)
            leash.close()
            if replication or self._stop.is_set():
                connection.close()
            elif not connection.closed:
                self._free.put(connection)

    def _another(self, replication: bool) -> session.Connection:
        with suppress(queue.Empty):
            if not replication:
                return self._free.get_nowait()
        return session.connect(self._dsn, self._config.name, replication=replication)

    def close(self) -> None:
        self._stop.set()
        for leash in list(self._used.values()):  # who waits for a silent server would be waited for
            leash.break_off()
        self._watcher.join()
        with suppress(queue.Empty):
            while True:
                self._free.get_nowait().close()

    def _watch(self) -> None:
        connection: session.Connection | None = None
        while not self._stop.wait(WATCH_SECONDS):
            used = list(self._used)
            if not used:
                continue
            try:
                connection = connection or session.connect(self._dsn, self._config.name)
                with session.within(connection, self._config.silence_s):
                    for (pid,) in connection.execute(_WAITING, {"ours": used, "ms": WAITED_MS}).fetchall():
                        self._ended.add(pid)
                        connection.execute("SELECT pg_terminate_backend(%s)", [pid])
            except (psycopg.Error, HeadwaterError) as error:
                _log.warning("cannot look for statements that wait for a copy: %s", error)
                if connection is not None:
                    connection.close()
                connection = None
        if connection is not None:
            connection.close()
