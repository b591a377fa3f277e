"""Versions of the catalog's tables; each version is one function that brings the previous one forward."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from headwater.catalog import tables
from headwater.errors import CatalogError


def _version_1(connection: Connection) -> None:
    tables.metadata.create_all(connection)


VERSIONS: tuple[Callable[[Connection], None], ...] = (_version_1,)


def apply(connection: Connection) -> None:
    """Bring the catalog to the newest version, inside the caller's transaction."""
    for number in range(_current(connection), len(VERSIONS)):
        VERSIONS[number](connection)
        connection.exec_driver_sql(f"PRAGMA user_version={number + 1}")


def require_current(connection: Connection, where: str) -> None:
    """CatalogError unless the catalog has exactly this program's version."""
    found = _current(connection)
    if found != len(VERSIONS):
        newer = found > len(VERSIONS)
        todo = "Install the newer headwater." if newer else "Run `headwater up` once to bring it forward."
        raise CatalogError(f"the catalog has version {found}, this program {len(VERSIONS)}", where=where, todo=todo)


def _current(connection: Connection) -> int:
    return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
