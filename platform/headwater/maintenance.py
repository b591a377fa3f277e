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


def run_once(log: Log, settings: Settings, *, force: bool = False) -> dict[str, int]:
    """Do what is due (with ``force``, seal whatever is hot); returns counts of what was done.

    ``sealed`` records, ``merged`` segments, ``bases`` written, ``removed`` files. Nothing is done, and all counts
    are 0, while another process is at it; with ``force`` this waits for it.
    """
    done = {"sealed": 0, "merged": 0, "bases": 0, "removed": 0}
    wants_seal = (seal.hot(log).commits > 0) if force else seal.is_due(log, settings)
    due = base.due(log, settings)
    if not (wants_seal or due):
        return done
    try:
        with own(log, OWNER, wait=force):
            if wants_seal:
                done["sealed"] = seal.seal(log, settings, tail_s=0.0 if force else TAIL_S)
                done["merged"] = merge.merge(log, settings, settings.merge_passes_max)
            for topic in due:
                with suppress(CorruptFile):  # its partition is in quarantine now
                    base.write(log, topic, log.newest_commit(), settings)
                    done["bases"] += 1
            done["removed"] = recovery.remove_retired(log, settings.file_grace_s)
            witness.write(log.catalog)
    except OwnedElsewhere:
        return done
    return done


def housekeep(log: Log, settings: Settings, *, wait: bool = False) -> dict[str, int]:
    """What falls due in minutes and hours: history beyond its time, superseded records, old commits, the budget.

    ``retained``: files that left the catalog, ``compacted``: records that went, ``archived``: commits moved,
    ``bytes``: of all data files. Nothing is done while another process is at it, unless ``wait``.
    """
    done = {"retained": 0, "compacted": 0, "archived": 0, "bytes": 0}
    try:
        with own(log, OWNER, wait=wait):
            done["compacted"] = compact(log, settings)
            done["retained"] = retention.retain(log, settings)
            done["archived"] = archive.archive(log)
            done["bytes"] = budget.measure(log, settings)
            chain_witness.tell(log, settings.chain_witness)
            recovery.remove_retired(log, settings.file_grace_s)
            patrol.check_some(log, interval_s=settings.check_interval_s)
    except OwnedElsewhere:
        return done
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
