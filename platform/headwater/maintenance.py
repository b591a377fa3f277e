"""One round of housekeeping: seal, write bases, remove what is no longer needed. Never on the write path."""

from __future__ import annotations

from headwater.config import Settings
from headwater.errors import OwnedElsewhere
from headwater.log import base, recovery, seal
from headwater.log.log import Log
from headwater.ownership import own

OWNER = "maintenance"
TAIL_S = 3.0
"""Commits younger than this stay hot: the pipeline and watching readers take them next, and hot is quicker."""


def run_once(log: Log, settings: Settings, *, force: bool = False) -> dict[str, int]:
    """Do what is due (with ``force``, seal whatever is hot); returns counts of what was done.

    ``sealed`` records, ``bases`` written, ``removed`` files. Nothing is done, and all counts are 0, while
    another process is at it; with ``force`` this waits for it.
    """
    done = {"sealed": 0, "bases": 0, "removed": 0}
    wants_seal = (seal.hot(log).commits > 0) if force else seal.is_due(log, settings)
    due = base.due(log, settings)
    if not (wants_seal or due):
        return done
    try:
        with own(log, OWNER, wait=force):
            if wants_seal:
                done["sealed"] = seal.seal(log, settings, tail_s=0.0 if force else TAIL_S)
            for topic in due:
                base.write(log, topic, log.newest_commit(), settings)
                done["bases"] += 1
            done["removed"] = recovery.remove_retired(log, settings.file_grace_s)
    except OwnedElsewhere:
        return done
    return done


def start(log: Log) -> dict[str, int]:
    """What a starting process cleans up first: orphans of writers that died."""
    return {"orphans": recovery.remove_orphans(log)}
