"""Dagster's SQLite files, with engines and connections that are kept.

    Dagster's own     an engine and a connection for each statement: SQL compiled anew, and a WAL that the last
                      connection which closes writes back, with a sync
    here              an engine for each file, which keeps both

Nor is it asked again and again whether a table is there. An event takes a fifth of the CPU and of the time then
(``benchmarks.events``), and events are most of what a tick of a sensor and a run do. Files, tables and migrations are
Dagster's own: ``storage`` in dagster.yaml may be taken out at any time, or be another.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.schedules.sqlite.sqlite_schedule_storage import SqliteScheduleStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS, create_db_conn_string
from dagster._core.storage.sqlite_storage import (
    DagsterSqliteStorage,
    _event_logs_directory,
    _runs_directory,
    _schedule_directory,
)
from sqlalchemy import create_engine, inspect, make_url
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.event import listen
from sqlalchemy.pool import QueuePool

if TYPE_CHECKING:
    from dagster._serdes import ConfigurableClassData

WAL_PAGES = 100
"""Of 4 KB, after which a WAL is written back."""
FILES_MAX = 8
"""Files whose engines are kept: each run has one, and whoever looks at many runs opens many."""


class Engines:
    """Engines of database files; the one that was used longest ago goes. Thread-safe.

    A file that took another's place is another one: whoever wipes the history does so under other processes.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int], Engine] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def connect(self, url: str) -> Iterator[Connection]:
        """A connection in a transaction of its own."""
        with self._of(url).connect() as connection, connection.begin():
            yield connection

    def _of(self, url: str) -> Engine:
        which = (url, inode(url))
        with self._lock:
            kept = self._kept.pop(which, None)
            if kept is None:
                kept = create_engine(
                    url,
                    poolclass=QueuePool,  # of a file's connections in several threads
                    connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
                )
                listen(kept, "connect", _write_ahead)
            self._kept[which] = kept
            while len(self._kept) > FILES_MAX:
                self._kept.popitem(last=False)[1].dispose()
            return kept

    def dispose(self) -> None:
        """Close what is kept; the last to close a file writes its WAL back."""
        with self._lock:
            while self._kept:
                self._kept.popitem()[1].dispose()


def _write_ahead(connection: sqlite3.Connection, _: object) -> None:
    """How this connection writes; it is in WAL mode, as Dagster's files are.

    A WAL that stays open is as large as it ever was: 4 MB for each run, unless it is written back sooner. And no sync
    for each commit: whatever is killed loses nothing by that, and a machine that loses its power, the last seconds of
    what was reported, never the file. What is true of the lake is in the lake.
    """
    connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
    connection.execute("PRAGMA synchronous = NORMAL")


def inode(url: str) -> int:
    """Of a database's file; 0 while there is none."""
    try:
        return _path(url).stat().st_ino
    except FileNotFoundError:
        return 0


@lru_cache(maxsize=FILES_MAX)
def _path(url: str) -> Path:
    path = make_url(url).database
    assert path is not None
    return Path(path)


_seen: set[tuple[str, int]] = set()
"""Files that this process has found to be up to date."""


class _OneFile:
    """For a storage that has one file, at ``_conn_string``."""

    file: ClassVar[str]

    @classmethod
    def from_local(cls, base_dir: str, inst_data: ConfigurableClassData | None = None) -> Self:
        """Dagster's own reads all its migrations each time, a tenth of a second; once in a process is enough."""
        url = create_db_conn_string(base_dir, cls.file)
        if (url, inode(url)) in _seen:
            return cls(url, inst_data)
        made: Self = super().from_local(base_dir, inst_data)  # type: ignore[misc]  # of the storage beside this
        _seen.add((url, inode(url)))
        return made

    def __init__(self, conn_string: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines = Engines()
        super().__init__(conn_string, inst_data)  # type: ignore[call-arg]  # of the storage that this is mixed into

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        with self._engines.connect(self._conn_string) as connection:  # type: ignore[attr-defined]
            yield connection

    def dispose(self) -> None:
        self._engines.dispose()


class Runs(_OneFile, SqliteRunStorage):
    """What runs there are, their tags and states; daemons' heartbeats."""

    file = "runs"


class Schedules(_OneFile, SqliteScheduleStorage):
    """Sensors and schedules, and their ticks.

    Whether its tables and indexes are there, Dagster's own asks a dozen times a tick; once they are, they stay.
    """

    file = "schedules"

    def __init__(self, conn_string: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._found: set[str] = set()
        super().__init__(conn_string, inst_data)

    def has_instigators_table(self) -> bool:
        return self._has("instigators", super().has_instigators_table)

    def _has_instigators_table(self, conn: Connection) -> bool:
        return self._has("instigators", lambda: super(Schedules, self)._has_instigators_table(conn))

    def has_built_index(self, migration_name: str) -> bool:
        return self._has(migration_name, lambda: super(Schedules, self).has_built_index(migration_name))

    def _has(self, name: str, ask: Callable[[], bool]) -> bool:
        if name not in self._found and ask():
            self._found.add(name)
        return name in self._found


class Events(SqliteEventLogStorage):
    """One file a run, and one that mirrors what is asked across runs."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines = Engines()
        self._tables: set[str] = set()
        super().__init__(base_dir, inst_data)

    def has_table(self, table_name: str) -> bool:
        """Asked for each check that is evaluated, in the middle of a transaction; what is there stays."""
        if table_name not in self._tables:
            with self._engines.connect(self.conn_string_for_shard(INDEX_SHARD_NAME)) as connection:
                if not inspect(connection).has_table(table_name):
                    return False
            self._tables.add(table_name)
        return True

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        url = self.conn_string_for_shard(shard)
        with self._db_lock:
            if shard not in self._initialized_dbs or not inode(url):
                self._begin(shard, url)
            with self._engines.connect(url) as connection:
                yield connection

    def _begin(self, shard: str, url: str) -> None:
        """Make the tables, unless they are there."""
        engine = create_engine(url, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS})
        self._initdb(engine)
        engine.dispose()
        self._initialized_dbs.add(shard)

    def dispose(self) -> None:
        self._engines.dispose()
        super().dispose()


class Storage(DagsterSqliteStorage):
    """``storage: custom`` of dagster.yaml; ``base_dir`` is the instance's folder, where Dagster's own files are."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super(DagsterSqliteStorage, self).__init__()  # type: ignore[no-untyped-call]  # its own opens what these open
        self.base_dir, self._inst_data = base_dir, inst_data
        self._run_storage = Runs.from_local(_runs_directory(base_dir))
        self._event_log_storage = Events(_event_logs_directory(base_dir))
        self._schedule_storage = Schedules.from_local(_schedule_directory(base_dir))

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Storage:
        return cls.from_local(inst_data=inst_data, **config_value)
