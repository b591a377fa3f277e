"""One PostgreSQL for the session, a database for each test, and a source over it that captures on request."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
from tests.connectors import capture_mutations
from tests.waiting import until

import headwater
from headwater.config import OutboxConfig, Settings, SourceConfig, TableConfig
from headwater.log import Log, open_log
from headwater.ownership import holder_pid
from headwater_connectors.postgres import copier, testing
from headwater_connectors.postgres.capture import Capture
from headwater_connectors.postgres.catalog import parse_lsn
from headwater_connectors.postgres.embedded import EmbeddedPostgres
from headwater_connectors.postgres.source import PostgresSource

capture_mutations.MUTATIONS.apply_from_environment()

T = TypeVar("T")


@pytest.fixture(scope="session")
def admin() -> Iterator[str]:
    with testing.server() as dsn:
        yield dsn


@pytest.fixture
def dsn(admin: str) -> Iterator[str]:
    with testing.database(admin) as fresh:
        yield fresh


class Captured:
    """The source ``shop``: a database, a lake, and ``catch_up`` to carry the one into the other."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn = dsn
        self.folder = folder
        self.mode = "auto"
        self.on_gap = "stop"
        self.standby_dsn = ""
        self.copy_from = "primary"
        self.settings = Settings()
        self.tables: tuple[str, ...] = ("public.*",)
        self.table: dict[str, TableConfig] = {}
        self.origin = "any"
        self.ddl_capture = "auto"
        self.messages: dict[str, str] = {}
        self.outbox: dict[str, OutboxConfig] = {}
        self.connection = psycopg.connect(dsn, autocommit=True)
        self.log: Log = open_log(folder, create=True)
        self._lake: headwater.Lake | None = None

    @property
    def source(self) -> SourceConfig:
        return SourceConfig(
            name="shop", dsn=self.dsn, tables=self.tables, mode=self.mode, origin=self.origin, table=self.table,
            messages=self.messages, outbox=self.outbox, on_gap=self.on_gap, standby_dsn=self.standby_dsn,
            ddl_capture=self.ddl_capture, copy_from=self.copy_from,
        )  # fmt: skip

    def run(self, *statements: str) -> None:
        """Each in its own transaction."""
        for statement in statements:
            self.connection.execute(statement.encode())

    def catch_up(self) -> None:
        """A whole capture process's life: start, read to the source's current end, stop."""
        end = parse_lsn(PostgresSource().current_end(self.dsn))
        Capture(self.source, self.settings, self.log, threading.Event()).run(until=end)

    @contextmanager
    def running(self) -> Iterator[Capture]:
        """A capture in a thread for as long as the block lasts."""
        capture = Capture(self.source, self.settings, self.log, threading.Event())
        failed: list[Exception] = []

        def run() -> None:
            try:
                capture.run()
            except Exception as error:  # noqa: BLE001 -- the test fails with whatever it is
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        until(lambda: holder_pid(self.log, "source:shop") is not None or not thread.is_alive(), "capture owns it")
        try:
            yield capture
        finally:
            capture.stop.set()
            thread.join()
        assert not failed, failed

    def until(self, look: Callable[[], T], enough: Callable[[T], bool]) -> T:
        """What ``look`` returns once it is enough."""
        found = list[T]()

        def is_enough() -> bool:
            found[:] = [look()]
            return enough(found[0])

        until(is_enough, lambda: f"enough; it is {found[0]}")
        return found[0]

    def lake(self, query: str, at: int | None = None) -> list[tuple[Any, ...]]:
        self._lake = self._lake or headwater.open(self.folder)
        table = self._lake.sql(query, at=at).arrow()
        return list(zip(*(column.to_pylist() for column in table.columns), strict=True)) if table.num_columns else []

    def source_rows(self, query: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(query.encode()).fetchall()

    def changes(self, table: str) -> list[dict[str, Any]]:
        """Everything in a topic, as dicts."""
        rows = self.log.read_changes(f"shop.public.{table}", 0, self.log.newest_commit())
        return [dict(row) for row in rows.to_pylist()]

    def assert_equal(self, *tables: str, columns: str = "*", where: str = "true") -> None:
        """The lake's tables are the server's, duplicates counted."""
        for table in tables:
            ours = Counter(map(_hashable, self.lake(f"SELECT {columns} FROM {table}")))
            theirs = Counter(map(_hashable, self.source_rows(f"SELECT {columns} FROM {table} WHERE {where}")))
            here, there = (ours - theirs).most_common(3), (theirs - ours).most_common(3)
            assert (here, there) == ([], []), table

    def close(self) -> None:
        self.connection.close()
        if self._lake is not None:
            self._lake.close()
        self.log.close()


def _hashable(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(tuple(value) if isinstance(value, list) else value for value in row)


@pytest.fixture
def shop(dsn: str, tmp_path: Path) -> Iterator[Captured]:
    captured = Captured(dsn, tmp_path / "lake")
    yield captured
    captured.close()


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that the server's own user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="headwater-failover-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def primary(home: Path) -> Iterator[EmbeddedPostgres]:
    """A server of the test's own, for one that has standbys."""
    with EmbeddedPostgres(home / "first", fsync=False) as server:
        yield server


@pytest.fixture
def standby(primary: EmbeddedPostgres, home: Path) -> Iterator[EmbeddedPostgres]:
    """Of the primary as it is now; its copies of slots follow."""
    settings = {"hot_standby_feedback": "on", "sync_replication_slots": "on", "primary_slot_name": "standby"}
    server = EmbeddedPostgres(home / "second", fsync=False, settings=settings)
    server._own_files()
    place = f"host=127.0.0.1 port={primary.port} user=postgres dbname=postgres"
    words = ("-d", place, "-D", str(server.data), "-R", "-C", "-S", "standby", "--checkpoint=fast")
    server._run([str(server.bin / "pg_basebackup"), *words])
    with server:
        yield server


@pytest.fixture
def before_finish(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Have something done once, after the final snapshot was taken and before the stream is waited for."""

    def install(act: Callable[[], None]) -> None:
        original, once = copier.Copier.await_stream, iter([act])

        def wait(self: copier.Copier) -> None:
            for each in once:
                each()
            original(self)

        monkeypatch.setattr(copier.Copier, "await_stream", wait)

    return install
