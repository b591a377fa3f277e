"""A mark that capture leaves on the server, anew at each start and every hour: a restored copy has an older one.

System identifier, timeline and the end of the WAL do not tell a copy of the server's files, started again without
recovery, once it has written more than we had read. The mark is the comment of our publication: committed there, and
then remembered here. Both are kept until the new one is there for certain.
"""

from __future__ import annotations

import uuid

import psycopg
from psycopg import sql

from headwater import logs
from headwater.log import Log
from headwater_connectors.postgres import publication
from headwater_connectors.postgres.session import Connection

PERIOD_SECONDS = 3600.0
"""A copy made longer ago than this is told from its original."""
_TEXT = "Of headwater, which knows a restored server by it: "
_log = logs.logger("capture")


def _setting(source: str) -> str:
    return f"source:{source}:mark"


def forget(log: Log, source: str) -> None:
    log.set_setting(_setting(source), None)


def is_older(log: Log, source: str, connection: Connection) -> bool:
    """Whether the server has another mark than the one that was left there last."""
    known = log.setting(_setting(source))
    return known is not None and _read(connection, source) not in known.split(",")


def leave(log: Log, source: str, connection: Connection) -> None:
    """Leave a new mark. Does nothing where the publication belongs to somebody else."""
    before, new = _read(connection, source), uuid.uuid4().hex
    log.set_setting(_setting(source), f"{before},{new}")
    statement = sql.SQL("COMMENT ON PUBLICATION {} IS {}")
    try:
        with connection.transaction():
            connection.execute("SET LOCAL synchronous_commit = 'local'")  # it must survive the server's crash
            name = sql.Identifier(publication.names(source)[0])
            connection.execute(statement.format(name, sql.Literal(_TEXT + new)))
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.LockNotAvailable) as error:
        _log.debug("no mark is left: %s", error)
        new = before
    log.set_setting(_setting(source), new or None)


def _read(connection: Connection, source: str) -> str:
    query = "SELECT obj_description(oid, 'pg_publication') FROM pg_publication WHERE pubname = %s"
    row = connection.execute(query, [publication.names(source)[0]]).fetchone()
    return (row[0] or "").removeprefix(_TEXT) if row else ""
