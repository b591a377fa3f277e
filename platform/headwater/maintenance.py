"""Rounds of housekeeping, never on the write path: seal, merge, write bases; more seldom retain, compact, archive."""

from __future__ import annotations

import time
from contextlib import suppress

from headwater.catalog import published
from headwater.config import Settings
from headwater.errors import CorruptFile, OwnedElsewhere
from headwater.log import (
    archive,
    base,
    budget,
    chain_witness,
    compaction,
    merge,
    patrol,
    recovery,
    retention,
    seal,
    witness,
)
from headwater.log.log import Log
from headwater.ownership import own

OWNER = "maintenance"
PUBLISH_S = 10.0
"""How stale a reader may be that may not write the folder."""
PUBLISH_SHARE = 0.02
"""... and more when copying the catalog would take a larger share of the time than this."""
TAIL_S = 3.0
"""Commits younger than this stay hot: the pipeline and watching readers take them next, and hot is quicker."""
SEALING = ("sealed", "merged", "bases", "removed")
RETAINING = ("retained", "archived", "bytes")


def run_once(log: Log, settings: Settings, *, force: bool = False) -> dict[str, int]:
    """Do what is due (with ``force``, seal whatever is hot); returns counts as ``seal_due`` gives them.

    Nothing is done, and all counts are 0, while another process is at it; with ``force`` this waits for it.
    """
    if _wants_seal(log, settings, force=force) or base.due(log, settings):
        with suppress(OwnedElsewhere), own(log, OWNER, wait=force):
            return seal_due(log, settings, force=force)
    return dict.fromkeys(SEALING, 0)


def seal_due(log: Log, settings: Settings, *, force: bool = False) -> dict[str, int]:
    """Seal and merge when it is due (``force``: whatever is hot), write the bases that are due, unlink retired files.

    Returns ``sealed`` records, ``merged`` segments, ``bases`` written, ``removed`` files. The caller owns
    ``maintenance``.
    """
    done = dict.fromkeys(SEALING, 0)
    if _wants_seal(log, settings, force=force):
        done["sealed"] = seal.seal(log, settings, tail_s=0.0 if force else TAIL_S)
        done["merged"] = merge.merge(log, settings, settings.merge_passes_max)
    for topic in base.due(log, settings):
        with suppress(CorruptFile):  # its partition is in quarantine now
            base.write(log, topic, log.newest_commit(), settings)
            done["bases"] += 1
    done["removed"] = recovery.remove_retired(log, settings.file_grace_s)
    witness.write(log.catalog)
    return done


def _wants_seal(log: Log, settings: Settings, *, force: bool) -> bool:
    return (seal.hot(log).commits > 0) if force else seal.is_due(log, settings)


def housekeep(log: Log, settings: Settings, *, wait: bool = False) -> dict[str, int]:
    """What falls due in minutes and hours: superseded records, history beyond its time, old commits, the budget.

    ``compacted``: records that went; the others as ``retain`` has them. Nothing is done while another process is at
    it, unless ``wait``.
    """
    with suppress(OwnedElsewhere), own(log, OWNER, wait=wait):
        return {"compacted": compact(log, settings), **retain(log, settings)}
    return dict.fromkeys(("compacted", *RETAINING), 0)


def retain(log: Log, settings: Settings) -> dict[str, int]:
    """Remove history beyond its time, archive old commits, measure the budget, read some files again.

    ``retained``: files that left the catalog, ``archived``: commits moved, ``bytes``: of all data files. The caller
    owns ``maintenance``.
    """
    done = dict.fromkeys(RETAINING, 0)
    done["retained"] = retention.retain(log, settings)
    done["archived"] = archive.archive(log)
    done["bytes"] = budget.measure(log, settings)
    chain_witness.tell(log, settings.chain_witness)
    recovery.remove_retired(log, settings.file_grace_s)
    patrol.check_some(log, interval_s=settings.check_interval_s)
    return done


def compact(log: Log, settings: Settings, *, force: bool = False) -> int:
    """Compact every topic that asks for it; returns how many records went. The caller owns ``maintenance``."""
    upto = retention.readable(log, settings).floor
    return sum(compaction.compact(log, topic, upto, settings, force=force) for topic in log.topics(hidden=True))


class Publisher:
    """Publishes the catalog for readers that may not write: when it changed, every ``PUBLISH_S`` at most."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._version = -1
        self._next = 0.0

    def publish(self, *, now: bool = False) -> bool:
        """Whether a new copy was made. ``now``: files were rewritten, so do not wait."""
        began = time.monotonic()
        version = self._log.catalog_version()
        if version == self._version or (began < self._next and not now):
            return False
        published.publish(self._log.folder, self._log.newest_commit())
        self._version = version
        ended = time.monotonic()
        self._next = ended + max(PUBLISH_S, (ended - began) / PUBLISH_SHARE)
        return True


def start(log: Log) -> dict[str, int]:
    """What a starting process does first: hot files are checked, orphans of writers that died removed."""
    return {"damaged": recovery.check_hot(log), "orphans": recovery.remove_orphans(log)}
