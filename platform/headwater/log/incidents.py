"""What happened that a person should know of: quarantines, refused writes, expired pins, restores.

Incidents are rows of the catalog, so that they survive the process that met them; ``status`` shows the newest.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Connection, delete, func, insert, select

from headwater.catalog import tables
from headwater.catalog.records import to_datetime

if TYPE_CHECKING:
    from headwater.log.log import Log

KEPT = 1_000
"""The newest stay: months of an ordinary life, and a bound on what a failure that repeats can write."""


@dataclass(frozen=True, kw_only=True)
class Incident:
    """``kind``: a stable word; ``subject``: the topic, partition, reader or file that it is about."""

    id: int
    time: datetime
    kind: str
    subject: str
    what: str


def append(connection: Connection, kind: str, subject: str, what: str, now_us: int) -> None:
    """Record one, inside the caller's write transaction; the oldest beyond ``KEPT`` goes."""
    incident = tables.incident
    connection.execute(insert(incident).values(time=now_us, kind=kind, subject=subject, what=what))
    newest = select(func.max(incident.c.id)).scalar_subquery()
    connection.execute(delete(incident).where(incident.c.id <= newest - KEPT))


def newest(log: Log, limit: int = 20) -> list[Incident]:
    """The newest incidents, newest first."""
    query = select(tables.incident).order_by(tables.incident.c.id.desc()).limit(limit)
    with log.catalog.read() as connection:
        return [
            Incident(id=row.id, time=to_datetime(row.time), kind=row.kind, subject=row.subject, what=row.what)
            for row in connection.execute(query)
        ]
