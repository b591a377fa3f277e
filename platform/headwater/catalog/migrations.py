"""Versions of the catalog's tables: a new catalog is made whole, an older one brought forward step by step."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, select, update
from sqlalchemy.schema import CreateColumn

from headwater.catalog import tables
from headwater.errors import CatalogError


def _version_2(connection: Connection) -> None:
    """The whole log: settings, generations, chain, archive, groups, dead letters."""
    for table, columns in {
        tables.topic: ("settings", "first_partition"),
        tables.partition: ("start_offset", "created", "closed", "quarantine"),
        tables.segment: ("last_time", "compacted"),
        tables.producer: ("sequence", "batch_rows", "batch_digest", "seen"),
    }.items():
        for name in columns:
            definition = CreateColumn(table.c[name]).compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {definition}")
    tables.metadata.create_all(connection)
    for index in tables.segment.indexes:
        index.create(connection, checkfirst=True)
    topic, partition, segment, commit = tables.topic, tables.partition, tables.segment, tables.commit
    born = select(topic.c.created).where(topic.c.id == partition.c.topic).scalar_subquery()
    connection.execute(update(partition).values(created=born))
    last = select(commit.c.time).where(commit.c.number == segment.c.last_commit).scalar_subquery()
    connection.execute(update(segment).values(last_time=last))


def _version_3(connection: Connection) -> None:
    """Views that replace others."""
    definition = CreateColumn(tables.view.c.replaces).compile(dialect=connection.dialect)
    connection.exec_driver_sql(f"ALTER TABLE {tables.view.name} ADD COLUMN {definition}")


def _version_4(connection: Connection) -> None:
    """An index of dead letters by cause."""
    for index in tables.dead_letter.indexes:
        index.create(connection, checkfirst=True)


BROUGHT: tuple[Callable[[Connection], None], ...] = (_version_2, _version_3, _version_4)
"""What brings a catalog of version n forward to n + 1, from version 1 on; a new catalog is made whole at once."""

VERSION = len(BROUGHT) + 1


def apply(connection: Connection) -> None:
    """Bring the catalog to the newest version, inside the caller's transaction."""
    found = _current(connection)
    if found == 0:
        tables.metadata.create_all(connection)
        found = VERSION
    for bring in BROUGHT[found - 1 :]:
        bring(connection)
    connection.exec_driver_sql(f"PRAGMA user_version={max(found, VERSION)}")


def require_current(connection: Connection, where: str) -> None:
    """CatalogError unless the catalog has exactly this program's version."""
    found = _current(connection)
    if found != VERSION:
        newer = found > VERSION
        todo = "Install the newer headwater." if newer else "Run `headwater up` once to bring it forward."
        raise CatalogError(f"the catalog has version {found}, this program {VERSION}", where=where, todo=todo)


def _current(connection: Connection) -> int:
    return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
