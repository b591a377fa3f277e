"""What the server's catalog says of the captured tables, beside what the stream tells: looked at every few seconds.

DDL without DML sends nothing, new tables are in no publication, and a table that lost its replica identity makes the
application's UPDATE fail until it is moved (law 9). Every finding is of one moment, and carries the end of the WAL
after it: what only the stream may order (a new name, a dropped table) takes effect once the stream has passed that.
"""

from __future__ import annotations

from contextlib import suppress
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
_REFUSED = (
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.InvalidParameterValue,
    psycopg.errors.SyntaxError,
    psycopg.errors.FeatureNotSupported,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.DatatypeMismatch,
    psycopg.errors.InvalidColumnReference,
    psycopg.errors.InvalidTextRepresentation,
)
"""Not allowed, or no such columns or condition."""
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
    left_out: dict[str, str] = field(default_factory=dict)
    """What the patterns name and cannot be captured: why."""


def look(config: SourceConfig, connection: session.Connection, known: dict[int, Known]) -> Survey:
    """Publications put right as far as locks and privileges allow, and what is to be done in the log.

    Raises SourceUnreachable; a missing privilege is only a warning.
    """
    try:
        wanted = {table.oid: table for table in catalog.tables(connection, config.wanted, config=config)}
        others = [oid for oid in known if oid not in wanted]
        tables = {**wanted, **{table.oid: table for table in catalog.tables(connection, oids=others, config=config)}}
        both = publication.read(connection, config.name)
        publication.publish_generated(connection, both)
        _move_without_identity(connection, tables, both)
        main, inserts = publication.read(connection, config.name)
        found = Survey(
            known=dict(known),
            tables=tables,
            published=_rightly_published(tables, (main, inserts), known),
            end=catalog.current_end(connection),
        )
        with standby.decoding(config, connection) as decoding:
            found.slot = slot.health(decoding, config.name)
        found.slot["slot_warning"] = guard.warning(config, found.slot)
        found.new = [table for oid, table in wanted.items() if oid not in known]
        found.left_out = catalog.left_out(connection, config.wanted)
        found.incomplete = _changed_without_identity(connection, known)
    except psycopg.Error as error:
        raise session.translate(error, config.name) from error
    return found


@dataclass(kw_only=True)
class Published:
    """``refused``: why tables may not be published; ``where``: conditions as the server spells them."""

    refused: dict[int, str] = field(default_factory=dict)
    where: dict[int, str] = field(default_factory=dict)


def publish(connection: session.Connection, source: str, tables: list[TableInfo]) -> Published:
    """Put tables into the publication that they belong to.

    Those that are locked, or changed this moment, are left for the next time. One transaction each: who waits for a
    lock of ours waits for one table.
    """
    both = publication.read(connection, source)
    found = Published()
    for table in tables:
        _place(connection, both, table, found)
    return found


def _move_without_identity(
    connection: session.Connection,
    tables: dict[int, TableInfo],
    both: tuple[publication.Publication, publication.Publication],
) -> None:
    """At once, because the application's statements fail: tables without identity leave the main publication."""
    for oid in both[0].members:
        table = tables.get(oid)
        if table is not None and not table.updates:
            _place(connection, both, table, Published())


def _place(
    connection: session.Connection,
    both: tuple[publication.Publication, publication.Publication],
    table: TableInfo,
    found: Published,
) -> None:
    """Publish the table, unless it is locked; what came of it goes to ``found``."""
    try:
        found.where[table.oid] = publication.place(connection, both, table)
    except _AGAIN:
        return
    except (publication.Unpublishable, *_REFUSED) as error:
        _log.warning("%s cannot be published: %s", table.full_name, error)
        found.refused[table.oid] = f"it cannot be published: {str(error).strip()}"
        with suppress(*_AGAIN, *_REFUSED):  # the application's statements may fail as long as it is
            publication.remove(connection, both, table)


def _rightly_published(
    tables: dict[int, TableInfo],
    both: tuple[publication.Publication, publication.Publication],
    known: dict[int, Known],
) -> set[int]:
    return {oid for oid, table in tables.items() if _is_right(table, both, known.get(oid))}


def _is_right(
    table: TableInfo, both: tuple[publication.Publication, publication.Publication], known: Known | None
) -> bool:
    """A condition is published for the identity that the table had then: with another one it is looked at anew."""
    if table.refused:
        return False
    if not table.where:
        return publication.is_placed(both, table, "")
    if known is None or known.chosen != table.where or not known.published:
        return False
    numbers = {column.name: column.number for column in table.columns}
    same = known.identity == table.identity and (
        known.kind != "table" or known.key == tuple(numbers[name] for name in table.key)
    )
    return same and publication.is_placed(both, table, known.published)


def counted(connection: session.Connection, oids: list[int]) -> dict[int, int]:
    """How many rows of these tables the server has counted as updated or deleted; it counts them a second late."""
    return dict(connection.execute(_CHANGED, [oids]).fetchall()) if oids else {}


def _changed_without_identity(connection: session.Connection, known: dict[int, Known]) -> list[int]:
    """Tables whose counter moved since they were copied; a counter of 0 was reset and tells nothing."""
    watched = [oid for oid, each in known.items() if each.kind == "insert_only" and each.route == "topic"]
    return [oid for oid, count in counted(connection, watched).items() if count not in (0, known[oid].counted)]
