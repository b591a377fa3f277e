"""What the server's catalog says of the captured tables, beside what the stream tells: looked at every few seconds.

DDL without DML sends nothing, new tables are in no publication, and a table that lost its replica identity makes the
application's UPDATE fail until it is moved (law 9). Every finding is of one moment, and carries the end of the WAL
after it: what only the stream may order (a new name, a dropped table) takes effect once the stream has passed that.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import psycopg

from headwater import logs
from headwater.config import SourceConfig
from headwater_connectors.postgres import catalog, guard, publication, session, slot, standby
from headwater_connectors.postgres.catalog import TableInfo
from headwater_connectors.postgres.known import Known

ROWS_CHANGED = "rows of this table, captured for inserts only because it has no key, were updated or deleted"

_CHANGED = """
SELECT relid::int8, n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE relid = ANY (%s::int8[]::oid[])
"""
_AGAIN = (
    psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled, psycopg.errors.UndefinedTable,
    psycopg.errors.InvalidSchemaName, psycopg.errors.UndefinedObject, psycopg.errors.DuplicateObject,
)  # fmt: skip
"""Somebody else has just locked, dropped, renamed or published it."""
_log = logs.logger("capture")


@dataclass(kw_only=True)
class Survey:
    """``end``: everything found was committed before this LSN."""

    known: dict[int, Known]
    """The records that it was compared with: one that changed since, by what the stream said, is newer than it."""
    tables: dict[int, TableInfo]
    """What the server has of captured tables, and of those that the project's patterns name."""
    published: set[int]
    end: int
    slot: dict[str, int | str | None] = field(default_factory=dict)
    """``slot.HEALTH``."""
    new: list[TableInfo] = field(default_factory=list)
    incomplete: list[int] = field(default_factory=list)


def look(config: SourceConfig, connection: session.Connection, known: dict[int, Known]) -> Survey:
    """Publications put right as far as locks and privileges allow, and what is to be done in the log.

    Raises SourceUnreachable; a missing privilege is only a warning.
    """
    try:
        wanted = {table.oid: table for table in catalog.tables(connection, config.tables)}
        others = [oid for oid in known if oid not in wanted]
        tables = {**wanted, **{table.oid: table for table in catalog.tables(connection, oids=others)}}
        both = publication.read(connection, config.name)
        _move_without_identity(connection, tables, both)
        main, inserts = publication.read(connection, config.name)
        found = Survey(
            known=dict(known),
            tables=tables,
            published=_rightly_published(tables, main.members, inserts.members),
            end=catalog.current_end(connection),
        )
        with standby.decoding(config, connection) as decoding:
            found.slot = slot.health(decoding, config.name)
        found.slot["slot_warning"] = guard.warning(config, found.slot)
        found.new = [table for oid, table in wanted.items() if oid not in known]
        found.incomplete = _changed_without_identity(connection, known)
    except psycopg.Error as error:
        raise session.translate(error, config.name) from error
    return found


def publish(connection: session.Connection, source: str, tables: list[TableInfo]) -> dict[int, str]:
    """Put tables into the publication that they belong to; of those that may not be put there, why.

    Those that are locked, or changed this moment, are left for the next time. One transaction each: who waits for a
    lock of ours waits for one table.
    """
    both = publication.read(connection, source)
    reasons = {table.oid: _place(connection, both, table) for table in tables}
    return {oid: reason for oid, reason in reasons.items() if reason}


def _move_without_identity(
    connection: session.Connection,
    tables: dict[int, TableInfo],
    both: tuple[publication.Publication, publication.Publication],
) -> None:
    """At once, because the application's statements fail: tables without identity leave the main publication."""
    for oid in both[0].members:
        table = tables.get(oid)
        if table is not None and not table.has_identity:
            _place(connection, both, table)


def _place(
    connection: session.Connection, both: tuple[publication.Publication, publication.Publication], table: TableInfo
) -> str:
    """Why the table cannot be published; empty when it is, or will be tried again."""
    try:
        publication.place(connection, both, table)
    except _AGAIN:
        return ""
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidParameterValue) as error:
        _log.warning("%s cannot be published: %s", table.full_name, error)
        return f"it cannot be published: {str(error).strip()}"
    return ""


def _rightly_published(tables: dict[int, TableInfo], main: frozenset[int], inserts: frozenset[int]) -> set[int]:
    return {oid for oid, table in tables.items() if oid in (main if table.has_identity else inserts)}


def counted(connection: session.Connection, oids: list[int]) -> dict[int, int]:
    """How many rows of these tables the server has counted as updated or deleted; it counts them a second late."""
    return dict(connection.execute(_CHANGED, [oids]).fetchall()) if oids else {}


def _changed_without_identity(connection: session.Connection, known: dict[int, Known]) -> list[int]:
    """Tables whose counter moved since they were copied; a counter of 0 was reset and tells nothing."""
    watched = [oid for oid, each in known.items() if each.kind == "insert_only" and each.route == "topic"]
    return [oid for oid, count in counted(connection, watched).items() if count not in (0, known[oid].counted)]
