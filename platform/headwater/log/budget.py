"""Room on the disk: writing stops while there is still some, so that reading, sealing and the catalog go on.

Two bounds: the file system's low water (checked whenever a transaction begins a file) and the project's own budget
of bytes (measured by maintenance, and told to every writer through the catalog). Readers and retention are what
make room again; what pins history is named in the refusal.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sqlalchemy import Connection, func, select

from headwater.catalog import tables
from headwater.catalog.catalog import put_setting
from headwater.catalog.prepared import Prepared
from headwater.config import MIB, Settings
from headwater.errors import DiskLow
from headwater.log import incidents, leases, tags

if TYPE_CHECKING:
    from headwater.log.log import Log

LOW_WATER_BYTES = 256 * MIB
"""Free space below which writes are refused: what sealing the hot tier and the catalog's own WAL may still need."""
LOW_WATER_FRACTION = 0.02
"""... on a small file system this part of it, if that is less."""
RESUME_FRACTION = 0.95
"""A refusal by budget ends below this part of it: writes must not be refused and accepted by turns."""

SETTING = "writes_refused"
_REFUSED = Prepared(select(tables.setting.c.value).where(tables.setting.c.name == SETTING))
_TODO = "Free space, shorten retention, or drop what holds history back (`headwater status` names it); writing resumes."


def require_water(log: Log) -> None:
    """DiskLow when the lake's file system is below its low water."""
    found = os.statvfs(log.folder)
    free = found.f_bavail * found.f_frsize
    low = min(LOW_WATER_BYTES, int(LOW_WATER_FRACTION * found.f_blocks * found.f_frsize))
    if free < low:
        raise DiskLow(
            f"only {free / MIB:,.0f} MiB are free, writes are refused below {low / MIB:,.0f}",
            where=str(log.folder),
            todo=_TODO,
        )


def require_budget(connection: Connection, where: str) -> None:
    """DiskLow when maintenance found the lake above its budget; inside the writer's catalog transaction."""
    row = _REFUSED.first(connection)
    if row is not None:
        raise DiskLow(row.value, where=where, todo=_TODO)


def measure(log: Log, settings: Settings) -> int:
    """The bytes of all data files, retired ones included; refuses or allows writes by the budget.

    The caller owns ``maintenance``. A change of mind is an incident.
    """
    file = tables.file
    with log.catalog.read() as connection:
        used = int(connection.execute(select(func.coalesce(func.sum(file.c.bytes), 0))).scalar_one())
        refused = _REFUSED.first(connection) is not None
    limit = settings.disk_bytes_max
    full = limit > 0 and used >= (limit * RESUME_FRACTION if refused else limit)
    if full == refused:
        return used
    holders = _holders(log) if full else ""
    reason = f"the lake holds {used / MIB:,.0f} MiB of a budget of {limit / MIB:,.0f}{holders}"
    with log.catalog.write() as connection:
        put_setting(connection, SETTING, reason if full else None)
        what = reason if full else f"writes are accepted again: {used / MIB:,.0f} MiB of {limit / MIB:,.0f}"
        kind = "writes_refused" if full else "writes_accepted"
        incidents.append(connection, kind, "disk", what, log.clock.now_us())
    return used


def _holders(log: Log) -> str:
    """What keeps history beyond its time, for the person who has to make room."""
    held = [f"tag {tag.name}" for tag in tags.listed(log)]
    held += [f"a reader at commit {lease['commit']}" for lease in leases.describe(log)]
    return f", history is held by {', '.join(held[:5])}" if held else ""
