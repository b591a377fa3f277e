"""Connections to the server, with everything pinned that values' texts depend on, and errors in our words."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import ConnStatus, PollingStatus
from psycopg.pq.abc import PGconn, PGresult

from headwater.config import mask
from headwater.errors import (
    ConfigError,
    HeadwaterError,
    PublicationMissing,
    SlotInUse,
    SourceError,
    SourceNotReady,
    SourceUnreachable,
)
from headwater_connectors.postgres.printing import TextNeeded

CONNECT_SECONDS = 10
Connection = psycopg.Connection[tuple[Any, ...]]

_PINNED = {
    "datestyle": "ISO",
    "intervalstyle": "iso_8601",
    "timezone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "row_security": "off",
}
"""Texts of values must not depend on the role's or the server's settings; nor may those end a long copy. Rows that a
policy hides from the role are an error, never missing."""
_LOCK_TIMEOUT = "200ms"
"""No statement of an ordinary session waits longer for a lock, with others queueing behind it (law 9)."""


def connect(dsn: str, name: str, *, replication: bool = False) -> Connection:
    """An ordinary session in autocommit. Raises SourceUnreachable, SourceNotReady, ConfigError.

    ``replication``: one for replication commands, without parameters.
    """
    more = {"replication": "database"} if replication else {}
    try:
        return psycopg.connect(_conninfo(dsn, name, **more), autocommit=True)
    except psycopg.OperationalError as error:
        raise _unreachable(dsn, str(error)) from error


def promises_no_encoding(connection: Connection) -> bool:
    """Whether the database is in SQL_ASCII: its texts are any bytes, and only whoever reads them checks them.

    Asked for UTF8, the server would end the stream at the first text that is none, again and again.
    """
    return connection.info.parameter_status("server_encoding") == "SQL_ASCII"


_AGAIN = ("53300", "53400", "57P01", "57P02", "57P03", "08006", "55P03", "57014", "40P01", "40001")
"""Too many connections, the server goes or comes, a lock that was not to be had, a standby that replays on: the next
session may do better."""


class Leash:
    """A hold on a connection's socket for another thread than the one that uses it, to end what waits on it.

    It has a descriptor of its own: the connection's number, looked up from outside, may be another file's by then, and
    closing any descriptor of SQLite's files drops the locks that the whole process has on them. Thread-safe.
    """

    def __init__(self, connection: Connection) -> None:
        self._lock = threading.Lock()
        self._link: socket.socket | None = socket.socket(fileno=os.dup(connection.fileno()))

    def break_off(self) -> None:
        """End the connection: who waits on it gets an OperationalError. Never waits."""
        with self._lock, suppress(OSError):
            if self._link is not None:
                self._link.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            if self._link is not None:
                self._link.close()
            self._link = None


@contextmanager
def within(connection: Connection, seconds: float) -> Iterator[None]:
    """Break the connection off when the block takes longer: a silent server would be waited for without end."""
    leash = Leash(connection)
    timer = threading.Timer(seconds, leash.break_off)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        leash.close()


def connect_replication(dsn: str, name: str, *, application: str = "", as_bytes: bool = False) -> PGconn:
    """A logical replication session at the libpq level, for its receiving thread alone.

    ``application``: how it is known to the server. ``as_bytes``: texts come as the database has them, not as UTF-8.
    """
    more = {"client_encoding": "SQL_ASCII" if as_bytes else "UTF8"}
    if application:
        more["application_name"] = application
    connection = _connected(_conninfo(dsn, name, replication="database", **more))
    if connection.status != ConnStatus.OK:
        message = connection.error_message.decode(errors="replace") or "timeout expired"
        connection.finish()
        raise _unreachable(dsn, message)
    return connection


def _connected(conninfo: str) -> PGconn:
    """Connect as libpq does, but with other threads running meanwhile: libpq's own call holds Python's lock.

    One that did not succeed within CONNECT_SECONDS has a status other than OK, and maybe no message.
    """
    connection, until = pq.PGconn.connect_start(conninfo.encode()), time.monotonic() + CONNECT_SECONDS
    events = {PollingStatus.READING: select.POLLIN, PollingStatus.WRITING: select.POLLOUT}
    while connection.status != ConnStatus.BAD and (wanted := events.get(PollingStatus(connection.connect_poll()))):
        ready = select.poll()
        ready.register(connection.socket, wanted)
        if not ready.poll(max(0.0, until - time.monotonic()) * 1000):
            break
    return connection


def run_replication(connection: PGconn, command: str, name: str) -> PGresult:
    """Run a replication command; a refusal becomes one of our errors (see ``refused``)."""
    result = connection.exec_(command.encode())
    if result.status in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK, pq.ExecStatus.COPY_BOTH):
        return result
    state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    raise refused(state, result.error_message.decode(errors="replace"), name)


def refused(sqlstate: str, message: str, name: str) -> HeadwaterError:
    """The error for a statement or replication command that the server refused."""
    text = _first_line(message)
    where = f"source {name}"
    if sqlstate == "55006":
        return SlotInUse(
            f"the replication slot is in use: {text}",
            where=where,
            todo="Stop the other process; a dead one is noticed by the server within wal_sender_timeout.",
        )
    if sqlstate == "42704" and "publication" in text:
        return PublicationMissing(
            f"a publication is missing at the position to read from: {text}",
            where=where,
            todo=f"It must exist before the slot does: run `headwater source repair {name}`. A capture that"
            " `headwater up` runs then goes on by itself; start any other one again.",
        )
    if sqlstate == "42501":
        return SourceNotReady(
            f"the server denied it: {text}",
            where=where,
            todo=f"Run `headwater source check {name}` for the SQL that grants it.",
        )
    if sqlstate == "42883" and "binary output function" in text:
        return TextNeeded(
            f"a value came that the server cannot send in binary form: {text}",
            where=where,
            todo='Set mode = "auto" or "text" for this source.',
        )
    if sqlstate == "55000" and "wal_level" in text:
        return SourceNotReady(
            f"the server does not write logical WAL: {text}",
            where=where,
            todo="Run ALTER SYSTEM SET wal_level = 'logical' and restart the server.",
        )
    again = sqlstate in _AGAIN or not sqlstate
    return SourceUnreachable(f"the server ended the session: {text}", where=where) if again else SourceError(
        f"the server refused: {text} [{sqlstate}]", where=where, todo=f"Run `headwater source check {name}`."
    )  # fmt: skip


def translate(error: psycopg.Error, name: str) -> HeadwaterError:
    """A psycopg error from the middle of a session as one of ours."""
    if not error.sqlstate and not isinstance(error, psycopg.OperationalError):
        return SourceError(f"{type(error).__name__}: {error}", where=f"source {name}")  # ours, not the server's
    return refused(error.sqlstate or "", str(error), name)


def _conninfo(dsn: str, name: str, **more: str) -> str:
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        raise ConfigError(
            f"the dsn of source {name} cannot be read: {mask(str(error)).strip()}",
            todo="Write postgresql://user@host:5432/database.",
        ) from error
    locks = {} if "replication" in more else {"lock_timeout": _LOCK_TIMEOUT}  # a slot waits for open transactions
    pinned = " ".join(f"-c {key}={value}" for key, value in {**_PINNED, **locks}.items())
    options = f"{given.get('options') or ''} {pinned}".strip()
    defaults = {
        "connect_timeout": str(CONNECT_SECONDS), "keepalives_idle": "10", "keepalives_interval": "5",
        "keepalives_count": "3", "tcp_user_timeout": "30000",
    }  # fmt: skip
    forced = {"application_name": f"headwater:{name}", "client_encoding": "UTF8", "options": options}
    return make_conninfo(dsn, **{**defaults, **{k: v for k, v in given.items() if k in defaults}, **forced, **more})


_LEFT_OUT = ("password authentication failed", "no password supplied", "no pg_hba.conf entry", "does not exist")


def _unreachable(dsn: str, message: str) -> HeadwaterError:
    text = _first_line(message)
    given = conninfo_to_dict(dsn)
    place = f"{given.get('host') or 'local socket'}:{given.get('port') or 5432}/{given.get('dbname') or ''}"
    place = f"service {given['service']}" if "service" in given else place
    if "certificate" in text and "no pg_hba.conf entry" not in text:
        return SourceNotReady(
            f"the server cannot be trusted: {text}",
            where=place,
            todo="Check sslrootcert, and that host is a name in the server's certificate.",
        )
    if any(words in text for words in _LEFT_OUT):
        return SourceNotReady(
            f"the server does not let us in: {text}", where=place, todo="Check the dsn's user, password and database."
        )
    if ("replication" in text or "WAL sender" in text) and ("permission denied" in text or "must be" in text):
        user = given.get("user") or "the user"
        return SourceNotReady(
            f"the role has no replication privilege: {text}", where=place, todo=f'Run ALTER ROLE "{user}" REPLICATION.'
        )
    return SourceUnreachable(
        f"the server cannot be reached: {text}", where=place, todo="Check host, port and that it runs."
    )


def _first_line(message: str) -> str:
    lines = [line.strip() for line in mask(message).strip().splitlines() if line.strip()]
    return lines[0].removeprefix("ERROR:").removeprefix("FATAL:").strip() if lines else "no message"
