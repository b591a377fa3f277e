"""What people ask of a source's capture: written to the catalog by a command, done by whoever owns the source."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, delete, select

from headwater.catalog import tables
from headwater.catalog.catalog import put_setting
from headwater.errors import NameNotFound
from headwater.log import Log
from headwater.log.names import near
from headwater_connectors.postgres.known import load


def ask_copy(log: Log, source: str, table: str) -> None:
    """Have a captured table (``namespace.table``) copied again; a table that was left is captured again.

    Readers keep its rows meanwhile, as ``reshaping``; only differences are appended. NameNotFound with near names.
    """
    names = sorted(known.full_name for known in load(log, source).values())
    if table not in names:
        raise NameNotFound(f"source {source} captures no table {table}", suggestions=near(table, names))
    with log.catalog.write() as connection:
        put_setting(connection, f"{_prefix(source)}{table}", "copy")


def asked(log: Log, source: str) -> set[str]:
    """Tables of which a copy was asked for and has not begun."""
    setting = tables.setting
    query = select(setting.c.name).where(setting.c.name.startswith(_prefix(source), autoescape=True))
    with log.catalog.read() as connection:
        return {row.name.removeprefix(_prefix(source)) for row in connection.execute(query)}


def done(connection: Connection, source: str, names: Iterable[str]) -> None:
    """Forget requests, in the transaction that begins what they ask for."""
    wanted = [f"{_prefix(source)}{name}" for name in names]
    connection.execute(delete(tables.setting).where(tables.setting.c.name.in_(wanted)))


def ask_repair(log: Log, source: str) -> None:
    """Have a new slot made and every table compared with the server, by the capture that runs or starts next."""
    log.set_setting(_repair(source), "repair")


def repair_asked(log: Log, source: str) -> bool:
    return log.setting(_repair(source)) is not None


def repair_done(connection: Connection, source: str) -> None:
    """Forget that a repair was asked for, in the transaction that begins it."""
    put_setting(connection, _repair(source), None)


def _repair(source: str) -> str:
    return f"source:{source}:repair"


def _prefix(source: str) -> str:
    return f"source:{source}:copy:"
