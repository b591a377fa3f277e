"""What a transaction of the server sees: snapshots as ``pg_current_snapshot()`` prints them, for many xids at once.

Visibility, never LSNs, decides what a copied row holds already: a commit can be streamed before any snapshot sees it
(a synchronous standby is waited for between the two). Transaction ids here are xid8, with their epoch. The exception
is a slot's snapshot: it is made of what was decoded, so a place in the WAL is what it sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg import sql

from headwater import record
from headwater_connectors.postgres.session import Connection

Xids = npt.NDArray[np.int64]


class SnapshotLost(Exception):
    """The exported snapshot to read under is gone: who held it had to give way."""


class Seen(Protocol):
    """What somebody sees of the transactions that were captured, all of them committed by now."""

    def sees_sql(self) -> str:
        """The DuckDB condition that a captured record's transaction is among them."""
        ...


@dataclass(frozen=True)
class Point:
    """What a slot's snapshot sees: the commits whose records begin before its consistent point ``lsn``."""

    lsn: int

    def sees_sql(self) -> str:
        return f"({record.LSN} < {self.lsn})"


@dataclass(frozen=True)
class Snapshot:
    """``xmin:xmax:running``: transactions before ``xmin`` have ended, those from ``xmax`` on have not begun."""

    xmin: int
    xmax: int
    running: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        low, high, running = text.split(":")
        return cls(int(low), int(high), tuple(int(each) for each in running.split(",") if each))

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, self.running))}"

    def sees(self, xids: Xids) -> npt.NDArray[np.bool_]:
        """Which of these transactions, all of them committed by now, the snapshot sees."""
        seen: npt.NDArray[np.bool_] = xids < self.xmax
        return seen & ~np.isin(xids, np.array(self.running, np.int64))

    def sees_sql(self) -> str:
        """The same as a DuckDB condition on a captured record."""
        running = f" AND {record.XID} NOT IN ({', '.join(map(str, self.running))})" if self.running else ""
        return f"({record.XID} < {self.xmax}{running})"

    def ended_since(self, now: Snapshot) -> bool:
        """Whether every transaction that ran in this snapshot has ended in the later one ``now``."""
        return all(xid < now.xmin or (xid < now.xmax and xid not in now.running) for xid in self.running)


def widen(xids: Xids, near: int) -> Xids:
    """32-bit ids as xid8: of those with the same low half, the ones nearest to the xid8 ``near``."""
    half = 1 << 31
    wide = xids + (near & ~0xFFFF_FFFF)
    wide = np.where(wide > near + half, wide - (1 << 32), wide)
    return np.where(wide <= near - half, wide + (1 << 32), wide)


@contextmanager
def exported(connection: Connection, under: str | None = None) -> Iterator[tuple[Snapshot, str]]:
    """A new snapshot and its exported name, held by a transaction that touches no table.

    Once it had to be let go, who reads under it gets SnapshotLost; the end of the block is no matter then.
    ``under``: an exported one that is to be held on, instead of a new one.
    """
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    if under is not None:
        use(connection, under)
    row = connection.execute("SELECT pg_current_snapshot()::text, pg_export_snapshot()").fetchone()
    assert row is not None
    yield Snapshot.parse(row[0]), row[1]
    with suppress(psycopg.OperationalError):
        connection.execute("COMMIT")


def use(connection: Connection, snapshot: str) -> None:
    """Have the open transaction see what an exported snapshot sees. Raises SnapshotLost."""
    try:
        connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))
    except _LOST as error:
        raise SnapshotLost(str(error)) from error


_LOST = (
    psycopg.errors.UndefinedObject, psycopg.errors.InvalidParameterValue,
    psycopg.errors.ObjectNotInPrerequisiteState,
)  # fmt: skip
"""No such file, by version, or its process has just ended."""
