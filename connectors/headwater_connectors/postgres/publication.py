"""The two publications of a source: explicit lists, so that no statement of the application ever fails.

``headwater_<source>`` holds tables with a replica identity, ``headwater_<source>_inserts`` (insert and truncate
only) those without: a table without identity in the first would make its UPDATE and DELETE fail. Both are created,
empty if need be, before the slot and never dropped while it lives: the server looks them up as of the position it
decodes, and one that did not exist there fails for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from headwater_connectors.postgres.catalog import TableInfo
from headwater_connectors.postgres.session import Connection

_PUBLISH = {False: "insert, update, delete, truncate", True: "insert, truncate"}


@dataclass(frozen=True, kw_only=True)
class Publication:
    """One of the two; ``members`` are table oids."""

    name: str
    inserts_only: bool
    exists: bool
    members: frozenset[int]


def names(source: str) -> tuple[str, str]:
    return f"headwater_{source}", f"headwater_{source}_inserts"


def read(connection: Connection, source: str) -> tuple[Publication, Publication]:
    """The main publication and the one for inserts."""
    main, inserts = (
        _read(connection, name, name.endswith("_inserts") and place == 1) for place, name in enumerate(names(source))
    )
    return main, inserts


def create_sql(source: str, tables: Sequence[TableInfo]) -> list[str]:
    """The statements that make both publications for these tables."""
    statements = []
    for name, inserts_only in zip(names(source), (False, True), strict=True):
        listed = [_table(table) for table in tables if table.has_identity is not inserts_only]
        for_tables = sql.SQL(" FOR TABLE {}").format(sql.SQL(", ").join(listed)) if listed else sql.SQL("")
        statement = sql.SQL("CREATE PUBLICATION {}{} WITH (publish = {}, publish_via_partition_root = true)").format(
            sql.Identifier(name), for_tables, sql.Literal(_PUBLISH[inserts_only])
        )
        statements.append(statement.as_string(None))
    return statements


def create(connection: Connection, source: str) -> None:
    """Make what is missing of the two, without tables. Only before the slot exists."""
    for each, statement in zip(read(connection, source), create_sql(source, []), strict=True):
        if not each.exists:
            connection.execute(statement.encode())


def place(connection: Connection, both: tuple[Publication, Publication], table: TableInfo) -> None:
    """Have the table in the publication of its kind and not in the other, in one transaction, which locks it briefly.

    Raises LockNotAvailable (try again later) and InsufficientPrivilege.
    """
    right, wrong = both if table.has_identity else (both[1], both[0])
    if table.oid in right.members and table.oid not in wrong.members:
        return
    with connection.transaction():
        if table.oid in wrong.members:
            _alter(connection, wrong.name, "DROP", table)
        if table.oid not in right.members:
            _alter(connection, right.name, "ADD", table)


def remove(connection: Connection, both: tuple[Publication, Publication], table: TableInfo) -> None:
    """Publish the table no more."""
    with connection.transaction():
        for each in both:
            if table.oid in each.members:
                _alter(connection, each.name, "DROP", table)


def drop(connection: Connection, source: str) -> None:
    """Remove both; only after the slot is gone."""
    for name in names(source):
        connection.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(name)))


def _read(connection: Connection, name: str, inserts_only: bool) -> Publication:
    row = connection.execute("SELECT oid FROM pg_publication WHERE pubname = %s", [name]).fetchone()
    members = connection.execute(
        "SELECT prrelid::int8 FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE pubname = %s",
        [name],
    )
    found = frozenset(member[0] for member in members)
    return Publication(name=name, inserts_only=inserts_only, exists=row is not None, members=found)


def _alter(connection: Connection, name: str, verb: str, table: TableInfo) -> None:
    statement = sql.SQL("ALTER PUBLICATION {} {} TABLE {}")
    connection.execute(statement.format(sql.Identifier(name), sql.SQL(verb), _table(table)))


def _table(table: TableInfo) -> sql.Composable:
    return sql.Identifier(table.namespace, table.name)
