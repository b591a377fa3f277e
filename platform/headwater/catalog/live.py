"""Heartbeats, leases and display figures: who runs, since when, how fast. Never a source of truth.

A second SQLite file with ``synchronous=OFF``: it may be lost or torn by a power cut, and is then made anew.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenacity import retry, retry_if_exception, stop_after_delay, wait_random

from headwater.catalog.catalog import as_catalog_error
from headwater.clock import Clock

FILE = "live.sqlite"
_TORN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
"""What a power cut leaves. Anything else, a lock above all, is no reason to remove a file that others write."""
Stat = int | float | str | bool | None

LEASE_KEPT_S = 86_400.0
"""A lease that ended so long ago is forgotten: bounds the table, whatever died without a word."""


@dataclass(frozen=True, kw_only=True)
class LiveRow:
    """A component's last beat. ``started`` and ``beat_at`` are seconds since 1970."""

    component: str
    pid: int
    started: float
    beat_at: float
    stats: Mapping[str, Stat]


class Live:
    """The live file; writing is cheap (no fsync) and throttled by nobody: callers beat a few times a second."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._path = folder / FILE
        self._clock = clock
        self._local = threading.local()
        self._started = time.time()

    def beat(self, component: str, **stats: Stat) -> None:
        """Replace the component's row; figures not given are kept from the last beat of the same process."""
        pid = os.getpid()
        with self._using() as connection:
            connection.execute("BEGIN IMMEDIATE")
            row = connection.execute("SELECT pid, stats FROM live WHERE component = ?", (component,)).fetchone()
            kept: dict[str, Stat] = json.loads(row[1]) if row and row[0] == pid else {}
            connection.execute(
                "INSERT OR REPLACE INTO live VALUES (?, ?, ?, ?, ?)",
                (component, pid, self._started, self._clock.now_us() / 1e6, json.dumps({**kept, **stats})),
            )

    def read(self) -> dict[str, LiveRow]:
        """The newest row of every component that ever beat."""
        with self._using() as connection:
            rows = connection.execute("SELECT component, pid, started, beat_at, stats FROM live").fetchall()
        return {
            name: LiveRow(component=name, pid=pid, started=started, beat_at=beat_at, stats=json.loads(stats))
            for name, pid, started, beat_at, stats in rows
        }

    def stored(self, component: str) -> dict[str, Any]:
        """What a pipeline says that it stores, by table: ``rows``, ``bytes``, ``ms`` of the last step, ``views``."""
        row = self.read().get(component)
        return dict(json.loads(str(row.stats.get("stored") or "{}"))) if row else {}

    def hold(self, name: str, commit: int, began_us: int, until_us: int) -> None:
        """Make or renew what a reader holds (see ``log.leases``)."""
        with self._using() as connection:
            connection.execute("INSERT OR REPLACE INTO reader VALUES (?, ?, ?, ?)", (name, commit, began_us, until_us))

    def release(self, name: str) -> None:
        """End it; one that is gone is fine."""
        with self._using() as connection:
            connection.execute("DELETE FROM reader WHERE name = ?", (name,))

    def held(self, now_us: int) -> list[tuple[int, int]]:
        """Commit and beginning of all that readers hold; what has run out is removed."""
        with self._using() as connection:
            connection.execute("DELETE FROM reader WHERE until <= ?", (now_us,))
            return connection.execute("SELECT commit_number, began FROM reader").fetchall()

    def forget(self, component: str) -> None:
        """Remove a component that is gone for good."""
        with self._using() as connection:
            connection.execute("DELETE FROM live WHERE component = ?", (component,))

    # ---- leases: what is held as long as its holder says so

    def renew(self, scope: str, name: str, seconds: float) -> None:
        """Hold ``name`` in ``scope`` for so long from now.

        Times are the machine's monotonic clock, which no step of the wall clock moves; one that was left by
        an earlier boot is told by an end that lies further ahead than its length.
        """
        with self._using() as connection:
            connection.execute("BEGIN IMMEDIATE")
            now = time.monotonic()  # inside: none that is stored already began later, but those of an earlier boot
            outside = (now - LEASE_KEPT_S, now)
            connection.execute("DELETE FROM lease WHERE ends < ? OR ends - seconds > ?", outside)
            # Afterwards: by rounding, its own end less its length may lie a hair after now.
            row = (scope, name, now + seconds, seconds)
            connection.execute("INSERT OR REPLACE INTO lease VALUES (?, ?, ?, ?)", row)

    def leases(self, scope: str) -> dict[str, float]:
        """The names held in ``scope``, with the seconds that each has left."""
        with self._using() as connection:
            rows = connection.execute("SELECT name, ends, seconds FROM lease WHERE scope = ?", (scope,)).fetchall()
        now = time.monotonic()  # afterwards: see renew
        return {name: ends - now for name, ends, seconds in rows if now < ends <= now + seconds}

    def end_lease(self, scope: str, name: str) -> None:
        """Let go at once."""
        with self._using() as connection:
            connection.execute("DELETE FROM lease WHERE scope = ? AND name = ?", (scope, name))

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection, in a transaction once it writes. CatalogError, DiskFull when there is no room."""
        with as_catalog_error(self._path), self._connection() as connection:
            yield connection

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            try:
                connection = _open(self._path)
            except sqlite3.DatabaseError as error:
                if _primary(error) not in _TORN:
                    raise
                for name in (FILE, f"{FILE}-wal", f"{FILE}-shm"):  # it holds nothing that matters
                    self._path.with_name(name).unlink(missing_ok=True)
                connection = _open(self._path)
            self._local.connection = connection
        return connection


def _primary(error: BaseException) -> int:
    """SQLite's code without what extends it (busy in recovery is busy); 0 when the error is none of SQLite's."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


@retry(
    retry=retry_if_exception(lambda error: _primary(error) == sqlite3.SQLITE_BUSY),
    stop=stop_after_delay(5),
    wait=wait_random(0.001, 0.02),
    reraise=True,
)
def _open(path: Path) -> sqlite3.Connection:
    """Who opens a new file at the same time as others may find it locked, whatever its timeout: hence the retry."""
    connection = sqlite3.connect(path, timeout=5, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS live"
        " (component TEXT PRIMARY KEY, pid INTEGER, started REAL, beat_at REAL, stats TEXT) WITHOUT ROWID"
    )
    connection.execute(
        "CREATE TABLE IF NOT EXISTS reader"
        " (name TEXT PRIMARY KEY, commit_number INTEGER, began INTEGER, until INTEGER) WITHOUT ROWID"
    )
    connection.execute(
        "CREATE TABLE IF NOT EXISTS lease"
        " (scope TEXT, name TEXT, ends REAL, seconds REAL, PRIMARY KEY (scope, name)) WITHOUT ROWID"
    )
    return connection
