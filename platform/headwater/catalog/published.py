"""Copies of the catalog for readers that may not write: SQLite in WAL mode refuses them, and a file copy tears.

publish   catalog.sqlite ──SQLite's backup API──▶ published/catalog-N.sqlite (new name, fsync)
                                                 published/current.json     (pointer, replaced last)
read      current.json ──▶ the newest copy, opened immutable; followed when the pointer changes
"""

from __future__ import annotations

import json
import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import Connection, QueuePool, create_engine

from headwater.catalog import migrations
from headwater.catalog.catalog import FILE, Catalog, as_catalog_error
from headwater.catalog.live import Live, LiveRow, Stat
from headwater.errors import CatalogError
from headwater.storage.local import put_durably

FOLDER = "published"
POINTER = f"{FOLDER}/current.json"
KEPT = 2
"""Copies on disk: the newest, and the one that a reader may be about to open."""


def copy(folder: Path, target: Path) -> None:
    """One consistent copy of the lake's catalog as a single durable file, whatever is written meanwhile.

    One step of SQLite's backup API is one read transaction; writers go on.
    """
    source = sqlite3.connect(folder / FILE, timeout=30)
    try:
        made = sqlite3.connect(target)
        try:
            source.backup(made, pages=-1)
            made.execute("PRAGMA journal_mode=DELETE")  # a single file, whole without a log beside it
        finally:
            made.close()
    finally:
        source.close()
    descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(folder: Path, commit: int) -> None:
    """Make a new copy and point readers to it; older ones beyond ``KEPT`` go."""
    place = folder / FOLDER
    place.mkdir(exist_ok=True)
    name = f"catalog-{commit}-{uuid.uuid4().hex[:8]}.sqlite"
    with as_catalog_error(folder / FILE):
        copy(folder, place / name)
    put_durably(folder / POINTER, json.dumps({"file": name, "commit": commit}).encode())
    copies = sorted(place.glob("catalog-*"), key=lambda path: path.stat().st_mtime_ns)
    for path in copies[:-KEPT]:
        if path.name != name:
            path.unlink(missing_ok=True)


class PublishedCatalog(Catalog):
    """The newest published copy, for reading only. Thread-safe like the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen = (0, 0)
        self._path = folder / FOLDER
        self._follow()
        with self.read() as connection:
            migrations.require_current(connection, str(folder / POINTER))

    @property
    def path(self) -> Path:
        self._follow()
        return self._path

    @contextmanager
    def read(self) -> Iterator[Connection]:
        self._follow()
        with super().read() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        todo = "Open it as a user who may write the lake's folder."
        raise CatalogError("this lake is open for reading only", where=str(self.folder), todo=todo)
        yield  # type: ignore[unreachable]  # what makes it a context manager

    def _follow(self) -> None:
        """Take the copy that the pointer names, if that is another one than before."""
        pointer = self.folder / POINTER
        try:
            status = pointer.stat()
            if (status.st_ino, status.st_mtime_ns) == self._seen:
                return
            name: str = json.loads(pointer.read_text(encoding="utf-8"))["file"]
        except (OSError, ValueError) as error:
            todo = "Run `headwater up` or `headwater maintain` for it; they publish one every few seconds."
            raise CatalogError("there is no published catalog to read", where=str(pointer), todo=todo) from error
        before = getattr(self, "_engine", None)
        path = self._path = (self.folder / FOLDER / name).resolve()
        self._engine = create_engine(
            "sqlite://",
            creator=lambda: sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False),
            poolclass=QueuePool,
            isolation_level="AUTOCOMMIT",
            pool_reset_on_return=None,
            pool_size=8,
            max_overflow=24,
        )
        self._seen = (status.st_ino, status.st_mtime_ns)
        if before is not None:
            with suppress(sqlite3.Error):
                before.dispose()

    def close(self) -> None:
        self._engine.dispose()


class SilentLive(Live):
    """Heartbeats and leases of a process that may not write: it has none, and sees none."""

    def beat(self, component: str, **stats: Stat) -> None: ...

    def read(self) -> dict[str, LiveRow]:
        return {}

    def hold(self, name: str, commit: int, began_us: int, until_us: int) -> None: ...

    def release(self, name: str) -> None: ...

    def held(self, now_us: int) -> list[tuple[int, int]]:  # noqa: ARG002 -- there are none
        return []

    def renew(self, scope: str, name: str, seconds: float) -> None: ...

    def leases(self, scope: str) -> dict[str, float]:  # noqa: ARG002 -- there are none
        return {}
