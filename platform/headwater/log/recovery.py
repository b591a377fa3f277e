"""Files that no catalog transaction ever named, and files that left the catalog long enough ago.

Both are removed after a grace period: the first because their writer may still be about to name them, the
second because a reader that resolved its position earlier may still open them.
"""

from __future__ import annotations

from sqlalchemy import delete, select

from headwater.catalog import tables
from headwater.config import MIB
from headwater.errors import CorruptFile
from headwater.log import leases, parts, quarantine
from headwater.log.log import Log

ORPHAN_GRACE_S = 3600.0
"""Longer than the longest transaction is open: a spooled source transaction may take many minutes."""

CHECK_BYTES_MAX = 256 * MIB
"""Hot bytes read at a start: about a second, and more than sealing lets pile up."""

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


def check_hot(log: Log, budget_bytes: int = CHECK_BYTES_MAX) -> int:
    """After a start: are the hot files whole? Returns how many damaged batches are in quarantine now.

    Sizes are compared always, bytes of the newest batches up to the budget: they were written last, and what a
    power cut tore is among them. Every later read and sealing check the rest.
    """
    with log.catalog.read() as connection:
        sizes = dict(parts.hot_files(connection))
        batches = parts.batches(connection)
    short = {path for path, size in sizes.items() if not log.storage.holds(path, size)}
    damaged, read = 0, 0
    for batch in reversed(batches):
        if batch.path not in short:
            if read >= budget_bytes:
                continue
            read += batch.byte_length
        error = parts.check(log, batch)
        if error is not None:
            damaged += isinstance(quarantine.report(log, batch, error), CorruptFile)
    return damaged


def remove_orphans(log: Log, grace_s: float = ORPHAN_GRACE_S) -> int:
    """Unlink data files that the catalog does not know and that are older than the grace; returns how many.

    At most ``REMOVED_AT_ONCE`` of them, and as the one writer: a file that a commit is about to name is named
    before or gone before, never gone after.
    """
    old = orphans(log, grace_s)[:REMOVED_AT_ONCE]
    if not old:
        return 0
    with log.catalog.write() as connection:
        named = set(connection.execute(select(tables.file.c.path).where(tables.file.c.path.in_(old))).scalars())
        for name in set(old) - named:
            log.storage.remove(name)
    return len(old) - len(named)


def orphans(log: Log, grace_s: float = ORPHAN_GRACE_S) -> list[str]:
    """Data files that the catalog does not know and that are older than the grace."""
    cut = log.clock.now_us() / 1e6 - grace_s
    old = [name for name in log.storage.list("data") if log.storage.modified_s(name) < cut]
    with log.catalog.read() as connection:
        known = {row.path for row in connection.execute(select(tables.file.c.path))}
    return [name for name in old if name not in known]
