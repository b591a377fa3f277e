"""A real server for tests, of this package and others: embedded, or the one HEADWATER_TEST_DSN names.

``HEADWATER_TEST_DSN`` must belong to a role that may create databases and replicate, on a server with
wal_level = logical; each test gets a database of its own there, dropped with its slots afterwards.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from headwater_connectors.postgres.embedded import EmbeddedPostgres

VARIABLE = "HEADWATER_TEST_DSN"
SETTINGS = {
    "max_replication_slots": "50",
    "max_wal_senders": "50",
    "max_connections": "200",
    "max_prepared_transactions": "10",
}
"""What the tests need of a server, beside wal_level = logical."""


@contextmanager
def server() -> Iterator[str]:
    """A server's administrative connection string; the embedded one runs without fsync and ends with the block."""
    given = os.environ.get(VARIABLE)
    if given:
        yield given
        return
    with EmbeddedPostgres(fsync=False, settings=SETTINGS) as embedded:
        yield embedded.dsn()


@contextmanager
def database(admin: str) -> Iterator[str]:
    """The connection string of a fresh database, gone with its slots after the block."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield _with_database(admin, name)
    finally:
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            connection.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                " WHERE database = %s AND NOT active",
                [name],
            )
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _with_database(dsn: str, name: str) -> str:
    return make_conninfo(dsn, dbname=name)
