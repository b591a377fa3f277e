"""The catalog's seam: short read transactions, and one write transaction at a time.

SQLite in WAL mode with ``synchronous=FULL``: a commit that returned survives a power cut. Writers queue on a
fair lock first and then ``BEGIN IMMEDIATE``, so SQLITE_BUSY cannot come between. Reads never wait for them.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, bindparam, create_engine, event, exc, select

from headwater import failpoint
from headwater.catalog import migrations, presence, tables
from headwater.catalog.prepared import Prepared, driver
from headwater.catalog.queue_lock import queued
from headwater.errors import CatalogError, DiskFull, HeadwaterError
from headwater.failpoint import hit

FILE = "catalog.sqlite"
LOCK = "run/catalog.lock"
BEGIN_WRITE = "BEGIN IMMEDIATE"
"""Who begins so is the only writer from the first statement on."""

_SETTING = Prepared(select(tables.setting.c.value).where(tables.setting.c.name == bindparam("setting")))
_FULL = ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")
"""No room for a page, or for the index of SQLite's log, which whoever opens the catalog first has to make."""


class Catalog:
    """One lake's catalog. Thread-safe: every transaction has a connection of its own from the pool."""

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        self.folder = folder
        path = folder / FILE
        if not create and not path.exists():
            todo = "Run `headwater up` in the project, or give the folder of another one."
            raise CatalogError("there is no lake here", where=str(folder), todo=todo)
        self._engine = _engine(path)
        self._lock = folder / LOCK
        self._presence = presence.Presence(folder / presence.FILE)
        self._settled = not self._presence.settles
        with suppress(DiskFull):  # it can be read; the first writer tries again
            self._settle()
        self._presence.settled()
        if create:
            with self.write() as connection:
                migrations.apply(connection)
        with self.read() as connection:
            migrations.require_current(connection, str(path))

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return self.folder / FILE

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent read transaction; keep it to milliseconds (an open one keeps the WAL from shrinking)."""
        with as_catalog_error(self.path), self._engine.connect() as connection:
            driver(connection).execute("BEGIN")
            try:
                yield connection
            finally:
                driver(connection).execute("ROLLBACK")

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """The one write transaction; commits when the block ends, rolls back when it raises.

        When this returns, the transaction is durable. When it raises from COMMIT itself the outcome is
        unknown to the caller, who re-reads its producer's position.
        """
        with as_catalog_error(self.path), queued(self._lock), self._engine.connect() as connection:
            self._settle()
            driver(connection).execute(BEGIN_WRITE)
            try:
                yield connection
                hit("catalog.commit:before")
                driver(connection).execute("COMMIT")
            except BaseException:
                # COMMIT may have failed half way; SQLite answers "no transaction" when it did go through.
                with suppress(sqlite3.OperationalError):
                    driver(connection).execute("ROLLBACK")
                raise
            hit("catalog.commit:after")

    def setting(self, name: str) -> str | None:
        with self.read() as connection:
            value = _SETTING.value(connection, {"setting": name})
        return None if value is None else str(value)

    def set_setting(self, name: str, value: str | None) -> None:
        """Store a text under a name; None removes it."""
        with self.write() as connection:
            put_setting(connection, name, value)

    def close(self) -> None:
        self._engine.dispose()
        self._presence.close()

    def _settle(self) -> None:
        """Bring what SQLite's log holds into the file, and begin the log anew: see ``presence``."""
        if self._settled:
            return
        with as_catalog_error(self.path), self._engine.connect() as connection:
            busy, _, _ = driver(connection).execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            todo = "Another program reads the file; end it, then try again."
            raise CatalogError("the catalog's log could not be settled", where=str(self.path), todo=todo)
        self._settled = True


def put_setting(connection: Connection, name: str, value: str | None) -> None:
    """The same inside a transaction of the caller's."""
    connection.execute(tables.setting.delete().where(tables.setting.c.name == name))
    if value is not None:
        connection.execute(tables.setting.insert().values(name=name, value=value))


def new_incarnation() -> str:
    """A name for this copy of the lake; a restored copy gets another one, which fences the old state."""
    return uuid.uuid4().hex


def _engine(path: Path) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),  # a URL text would end at a question mark in the path
        isolation_level="AUTOCOMMIT",  # we say BEGIN and COMMIT ourselves
        connect_args={"timeout": 30, "check_same_thread": False},
        pool_reset_on_return=None,  # every block ends its transaction itself
        pool_size=8,
        max_overflow=24,
    )

    @event.listens_for(engine, "connect")
    def _pragmas(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA wal_autocheckpoint=2000")
        if failpoint.is_planned():
            connection.set_trace_callback(_passing)

    return engine


def _passing(statement: str) -> None:
    """Every statement that writes is a crash point: SQLite tells of it as it begins to run."""
    if not statement.startswith(("SELECT", "BEGIN", "COMMIT", "ROLLBACK", "PRAGMA", "--")):
        words = statement.split(None, 3)
        hit(f"catalog.{words[0].lower()}.{words[2 if words[1] in ('INTO', 'FROM') else 1].lower()}:before")


@contextmanager
def as_catalog_error(path: Path) -> Iterator[None]:
    """SQLite's errors about the file at ``path`` as ours, with what to do."""
    try:
        yield
    except HeadwaterError:
        raise
    except (exc.DBAPIError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, exc.DBAPIError) else error
        if getattr(cause, "sqlite_errorname", "") in _FULL:
            todo = "Free space on this file system; headwater goes on from the last commit by itself."
            raise DiskFull("the disk is full", where=str(path), todo=todo) from error
        todo = (
            "Nothing was published, unless COMMIT itself failed: then the producer's position tells. "
            "Check the disk and the folder's permissions."
        )
        raise CatalogError(f"the catalog refused: {cause}", where=str(path), todo=todo) from error
