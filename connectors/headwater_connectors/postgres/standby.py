"""Decoding on a standby: its walsender does the work, and nearly everything else stays with the primary.

The slot is the standby's. Publications can be made only on the primary, and only its snapshots say which transactions
run, so tables are looked at there, and copied, too, unless the project says otherwise; the stream is the same WAL, a
moment later. Rows that are read on the standby are read under the snapshot of a slot (see ``copying``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from headwater import logs
from headwater.config import SourceConfig
from headwater.errors import HeadwaterError, SourceNotReady, SourceUnreachable
from headwater_connectors.postgres import session
from headwater_connectors.postgres.session import Connection

OLDEST_VERSION = 160_000
"""Standbys decode from this server version on."""
REPLAY_SECONDS_MAX = 60.0
"""How long a standby may be behind when its slot is made."""
LOG_SECONDS = 0.5
_log = logs.logger("capture")


@contextmanager
def decoding(config: SourceConfig, connection: Connection) -> Iterator[Connection]:
    """A session where the slot is: ``connection``, or one to the standby. Raises SourceNotReady."""
    if not config.standby_dsn:
        yield connection
        return
    with session.connect(config.standby_dsn, config.name) as standby:
        _check(config, connection, standby)
        yield standby


def _check(config: SourceConfig, primary: Connection, standby: Connection) -> None:
    """That the one is a standby of the other."""
    query = "SELECT pg_is_in_recovery(), (SELECT system_identifier FROM pg_control_system())"
    here, there = primary.execute(query).fetchone(), standby.execute(query).fetchone()
    assert here is not None
    assert there is not None
    wrong = ""
    if standby.info.server_version < OLDEST_VERSION:
        wrong = "standby_dsn leads to a server older than PostgreSQL 16, whose standbys do not decode"
    elif not there[0]:
        wrong = "standby_dsn leads to a server that is no standby"
    elif here[0]:
        wrong = "dsn leads to a standby; publications are made, and tables copied, on the primary"
    elif here[1] != there[1]:
        wrong = "standby_dsn leads to a standby of another server than dsn"
    if wrong:
        raise SourceNotReady(wrong, where=f"source {config.name}", todo="Mend dsn and standby_dsn of the source.")


@contextmanager
def helped(config: SourceConfig, primary: Connection, standby: Connection) -> Iterator[None]:
    """While a slot is made: a standby makes one only once its primary has said which transactions run.

    It has replayed then what the primary had written before, publications and the last commits included. Does nothing
    where the slot is the primary's.
    """
    if not config.standby_dsn:
        yield
        return
    stop = threading.Event()
    logging = threading.Thread(target=_say, args=(config, stop), name=f"standby-{config.name}", daemon=True)
    logging.start()  # at once: it writes, and the end of the WAL is one that a standby reaches
    try:
        _await_replay(config, primary, standby)
        yield
    finally:
        stop.set()
        logging.join()


def check_feedback(config: SourceConfig, standby: Connection) -> None:
    """That rows a snapshot of the standby sees are not vacuumed on the primary. Raises SourceNotReady."""
    if standby.execute("SHOW hot_standby_feedback").fetchone() != ("on",):
        raise SourceNotReady(
            "hot_standby_feedback is off on the standby, so rows that a copy reads may be vacuumed meanwhile",
            where=f"source {config.name}",
            todo="Set hot_standby_feedback = on there.",
        )


def _await_replay(config: SourceConfig, primary: Connection, standby: Connection) -> None:
    end = primary.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
    until = time.monotonic() + REPLAY_SECONDS_MAX
    while standby.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", end).fetchone() != (True,):
        if time.monotonic() > until:
            raise SourceUnreachable(
                f"the standby is more than {REPLAY_SECONDS_MAX:.0f} s behind", where=f"source {config.name}"
            )
        time.sleep(0.05)


def _say(config: SourceConfig, stop: threading.Event) -> None:
    """Have the primary say again and again which transactions run."""
    try:
        with session.connect(config.dsn, config.name) as connection:
            while not stop.is_set():
                connection.execute("SELECT pg_log_standby_snapshot()")
                stop.wait(LOG_SECONDS)
    except psycopg.errors.InsufficientPrivilege:
        _log.warning(
            "the slot on the standby is made once the primary logs a snapshot by itself; to speed it up:"
            " GRANT EXECUTE ON FUNCTION pg_log_standby_snapshot() TO the role, on the primary"
        )
    except (psycopg.Error, HeadwaterError) as error:
        _log.warning("cannot have the primary log a snapshot: %s", error)
