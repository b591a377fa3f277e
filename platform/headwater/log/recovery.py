"""Files that no catalog transaction ever named, and files that left the catalog long enough ago.

Both are removed after a grace period: the first because their writer may still be about to name them, the
second because a reader that resolved its position earlier may still open them.
"""

from __future__ import annotations

from sqlalchemy import delete, select

from headwater.catalog import tables
from headwater.log import leases
from headwater.log.log import Log

ORPHAN_GRACE_S = 3600.0
"""Longer than the longest transaction is open: a spooled source transaction may take many minutes."""

REMOVED_AT_ONCE = 1_000
"""Files of one catalog transaction: other writers wait for it."""


def remove_retired(log: Log, grace_s: float) -> int:
    """Unlink files that left the catalog more than ``grace_s`` seconds ago and before every open reader came.

    Returns how many.
    """
    cut = log.clock.now_us() - int(grace_s * 1e6)
    if (began := leases.oldest_start(log)) is not None:
        cut = min(cut, began)
    old = select(tables.file.c.id, tables.file.c.path).where(tables.file.c.removed < cut)
    with log.catalog.read() as connection:
        found = connection.execute(old).all()
    for start in range(0, len(found), REMOVED_AT_ONCE):
        part = found[start : start + REMOVED_AT_ONCE]
        for row in part:
            log.storage.remove(row.path)
        with log.catalog.write() as connection:
            connection.execute(delete(tables.file).where(tables.file.c.id.in_([row.id for row in part])))
    return len(found)


def remove_orphans(log: Log, grace_s: float = ORPHAN_GRACE_S) -> int:
    """Unlink data files that the catalog does not know and that are older than the grace; returns how many."""
    with log.catalog.read() as connection:
        known = {row.path for row in connection.execute(select(tables.file.c.path))}
    cut = log.clock.now_us() / 1e6 - grace_s
    orphans = [name for name in log.storage.list("data") if name not in known]
    orphans = [name for name in orphans if log.storage.modified_s(name) < cut]
    for name in orphans:
        log.storage.remove(name)
    return len(orphans)
