"""What a transaction of the server sees: snapshots as ``pg_current_snapshot()`` prints them, for many xids at once.

Visibility, never LSNs, decides what a copied row holds already: a commit can be streamed before any snapshot sees it
(a synchronous standby is waited for between the two). Transaction ids here are xid8, with their epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import psycopg

from headwater_connectors.postgres.session import Connection

Xids = npt.NDArray[np.int64]


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

    def sees_sql(self, xid: str) -> str:
        """The same as a DuckDB condition on the column ``xid``."""
        running = f" AND {xid} NOT IN ({', '.join(map(str, self.running))})" if self.running else ""
        return f"({xid} < {self.xmax}{running})"

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
def exported(connection: Connection) -> Iterator[tuple[Snapshot, str]]:
    """A new snapshot and its exported name, held by a transaction that touches no table.

    Once it had to be let go, who reads under it gets SnapshotLost; the end of the block is no matter then.
    """
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    row = connection.execute("SELECT pg_current_snapshot()::text, pg_export_snapshot()").fetchone()
    assert row is not None
    yield Snapshot.parse(row[0]), row[1]
    with suppress(psycopg.OperationalError):
        connection.execute("COMMIT")
