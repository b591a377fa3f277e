"""What people ask of a source's capture: written to the catalog by a command, done by whoever owns the source."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, delete, select

from headwater.catalog import tables
from headwater.catalog.catalog import put_setting
from headwater.errors import NameNotFound, UsageError
from headwater.log import Log
from headwater.log.names import near
from headwater_connectors.postgres import selection
from headwater_connectors.postgres.known import Known, load


def ask_copy(log: Log, source: str, table: str, where: str = "") -> None:
    """Have a captured table (``namespace.table``) copied again; a table that was left is captured again.

    Readers keep its rows meanwhile, as ``reshaping``; only differences are appended. ``where``: only rows that this
    condition selects are compared. NameNotFound with near names; UsageError about the condition.
    """
    found = {known.full_name: known for known in load(log, source).values()}
    if table not in found:
        raise NameNotFound(f"source {source} captures no table {table}", suggestions=near(table, sorted(found)))
    if where:
        selection.of(found[table], where)
        if not can_select(found[table]):
            raise UsageError(
                f"only a table with a key, that is captured, can be compared in part; {table} is not",
                todo="Leave the condition out.",
            )
    with log.catalog.write() as connection:
        put_setting(connection, f"{_prefix(source)}{table}", f"where {where}" if where else "copy")


def can_select(known: Known) -> bool:
    return known.kind == "table" and known.route == "topic"


def asked(log: Log, source: str) -> dict[str, str]:
    """Tables of which a copy was asked for and has not begun, with the condition on their rows."""
    setting = tables.setting
    query = select(setting.c.name, setting.c.value).where(setting.c.name.startswith(_prefix(source), autoescape=True))
    with log.catalog.read() as connection:
        found = connection.execute(query).all()
    return {row.name.removeprefix(_prefix(source)): row.value.removeprefix("copy")[6:] for row in found}


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
