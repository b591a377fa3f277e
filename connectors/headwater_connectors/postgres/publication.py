"""The two publications of a source: explicit lists, so that no statement of the application ever fails.

``headwater_<source>`` holds tables with a replica identity, ``headwater_<source>_inserts`` (insert and truncate
only) those without: a table without identity in the first would make its UPDATE and DELETE fail. Both are created,
empty if need be, before the slot and never dropped while it lives: the server looks them up as of the position it
decodes, and one that did not exist there fails for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg import sql

from headwater_connectors.postgres.catalog import STORED_VERSION, TableInfo
from headwater_connectors.postgres.session import Connection

_STORED = "publish_generated_columns = stored"
_CHOSEN = "coalesce(r.prattrs::int2[], '{}'), coalesce(pg_get_expr(r.prqual, r.prrelid), '')"
_USED = """
SELECT a.attname FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
    JOIN pg_depend d ON d.classid = 'pg_publication_rel'::regclass AND d.objid = r.oid
        AND d.refclassid = 'pg_class'::regclass AND d.refobjid = r.prrelid
    JOIN pg_attribute a ON a.attrelid = r.prrelid AND a.attnum = d.refobjsubid
WHERE p.pubname = %s AND r.prrelid = %s::int8::oid AND d.refobjsubid > 0
"""
_PUBLISH = {False: "insert, update, delete, truncate", True: "insert, truncate"}


@dataclass(frozen=True, kw_only=True)
class Publication:
    """One of the two; ``members`` by table oid. ``generated``: whether stored generated columns are published."""

    name: str
    inserts_only: bool
    exists: bool
    members: Mapping[int, Member]
    generated: bool


@dataclass(frozen=True)
class Member:
    """What of a table is published: columns by number (empty: all), and a condition as the server spells it."""

    columns: frozenset[int]
    where: str


class Unpublishable(Exception):
    """The table cannot be published as the project says: the application's statements would fail."""


def names(source: str) -> tuple[str, str]:
    return f"headwater_{source}", f"headwater_{source}_inserts"


def read(connection: Connection, source: str) -> tuple[Publication, Publication]:
    """The main publication and the one for inserts."""
    main, inserts = (
        _read(connection, name, name.endswith("_inserts") and place == 1) for place, name in enumerate(names(source))
    )
    return main, inserts


def create_sql(source: str, tables: Sequence[TableInfo], version: int) -> list[str]:
    """The statements that make both publications for these tables."""
    statements = []
    for name, inserts_only in zip(names(source), (False, True), strict=True):
        listed = [_member(table) for table in tables if table.updates is not inserts_only]
        for_tables = sql.SQL(" FOR TABLE {}").format(sql.SQL(", ").join(listed)) if listed else sql.SQL("")
        statement = sql.SQL("CREATE PUBLICATION {}{} WITH (publish = {}, publish_via_partition_root = true{})").format(
            sql.Identifier(name),
            for_tables,
            sql.Literal(_PUBLISH[inserts_only]),
            sql.SQL(f", {_STORED}" if version >= STORED_VERSION else ""),
        )
        statements.append(statement.as_string(None))
    return statements


def create(connection: Connection, source: str) -> None:
    """Make what is missing of the two, without tables. Only before the slot exists."""
    for each, statement in zip(
        read(connection, source), create_sql(source, [], connection.info.server_version), strict=True
    ):
        if not each.exists:
            connection.execute(statement.encode())


def publish_generated(connection: Connection, both: tuple[Publication, Publication]) -> None:
    """Have stored generated columns published, by publications of an earlier release too."""
    for each in both if connection.info.server_version >= STORED_VERSION else ():
        if each.exists and not each.generated:
            statement = sql.SQL("ALTER PUBLICATION {} SET ({})").format(sql.Identifier(each.name), sql.SQL(_STORED))
            connection.execute(statement)


def is_placed(both: tuple[Publication, Publication], table: TableInfo, where: str) -> bool:
    """Whether the table is published as it should be; ``where``: its condition as the server spells it."""
    right, wrong = both if table.updates else (both[1], both[0])
    listed = frozenset(column.number for column in table.columns) if table.listed else frozenset()
    return right.members.get(table.oid) == Member(listed, where) and table.oid not in wrong.members


def place(connection: Connection, both: tuple[Publication, Publication], table: TableInfo) -> str:
    """Have the table in the publication of its kind and not in the other, in one transaction, which locks it briefly.

    Returns its condition as the server spells it. Raises LockNotAvailable (try again later), InsufficientPrivilege,
    and Unpublishable.
    """
    right = both[0] if table.updates else both[1]
    if table.refused:
        raise Unpublishable(table.refused)
    if not table.where and is_placed(both, table, ""):
        return ""
    with connection.transaction():
        for each in both:
            if table.oid in each.members:
                _alter(connection, each.name, "DROP", _table(table))
        if table.where and table.updates:
            _check_filter(connection, right.name, table)
        _alter(connection, right.name, "ADD", _member(table))
        return _read(connection, right.name, right.inserts_only).members[table.oid].where if table.where else ""


def _check_filter(connection: Connection, name: str, table: TableInfo) -> None:
    """A condition on columns outside of the replica identity would make the application's UPDATE and DELETE fail.

    The columns that it is about are what the server notes as needed by it; nobody sees this before the commit.
    """
    _alter(connection, name, "ADD", _table(table) + _condition(table))
    used = connection.execute(_USED, [name, table.oid]).fetchall()
    _alter(connection, name, "DROP", _table(table))
    others = [] if table.identity == "f" else [column for (column,) in used if column not in table.key]
    if others:
        raise Unpublishable(
            f"`where` uses {others[0]}, which is not part of the key, so the application's UPDATE would fail;"
            " use columns of the key only, or set REPLICA IDENTITY FULL"
        )


def remove(connection: Connection, both: tuple[Publication, Publication], table: TableInfo) -> None:
    """Publish the table no more."""
    with connection.transaction():
        for each in both:
            if table.oid in each.members:
                _alter(connection, each.name, "DROP", _table(table))


def drop(connection: Connection, source: str) -> None:
    """Remove both; only after the slot is gone."""
    for name in names(source):
        connection.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(name)))


def _read(connection: Connection, name: str, inserts_only: bool) -> Publication:
    row = connection.execute("SELECT to_jsonb(p) FROM pg_publication p WHERE pubname = %s", [name]).fetchone()
    chosen = _CHOSEN if connection.info.server_version >= 150_000 else "'{}'::int2[], ''"
    members = connection.execute(
        f"SELECT prrelid::int8, {chosen} FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid"
        " WHERE pubname = %s".encode(),
        [name],
    )
    found = {oid: Member(frozenset(columns), where) for oid, columns, where in members}
    generated = row is not None and row[0].get("pubgencols") == "s"
    return Publication(name=name, inserts_only=inserts_only, exists=row is not None, members=found, generated=generated)


def _alter(connection: Connection, name: str, verb: str, member: sql.Composable) -> None:
    statement = sql.SQL("ALTER PUBLICATION {} {} TABLE {}")
    connection.execute(statement.format(sql.Identifier(name), sql.SQL(verb), member))


def _member(table: TableInfo) -> sql.Composable:
    """The table with the columns and the condition that the project chose."""
    if not table.listed:
        return _table(table) + _condition(table)
    columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in table.columns)
    return sql.SQL("{} ({}){}").format(_table(table), columns, _condition(table))


def _condition(table: TableInfo) -> sql.Composable:
    return sql.SQL(" WHERE ({})").format(sql.SQL(table.where)) if table.where else sql.SQL("")


def _table(table: TableInfo) -> sql.Composed:
    """The table without those that inherit from it: each is a table of its own, with an identity of its own or none."""
    partitioned = not any(part.oid == table.oid for part in table.parts)
    return sql.SQL("{}{}").format(sql.SQL("" if partitioned else "ONLY "), sql.Identifier(table.namespace, table.name))
