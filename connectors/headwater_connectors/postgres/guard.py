"""Keeps the WAL that the server holds for a source's slot within the project's budget, whatever becomes of its capture.

A capture that stands still, or is gone, is what fills the server's disk, so it cannot be what prevents it: where
``wal_drop_bytes`` is set, ``headwater up`` runs this as a process of its own. Pausing would free nothing; what frees
WAL is to drop the slot, and that costs a comparison of the tables at the next start (``repair``).
"""

from __future__ import annotations

import threading

import psycopg

from headwater import logs
from headwater.config import SourceConfig
from headwater.errors import HeadwaterError, SlotInUse
from headwater.log import Log
from headwater_connectors.postgres import gap, session, slot

PERIOD_SECONDS = 5.0
"""A server writes a few hundred MB in this time; the limit should leave the disk that much."""
DROP_TRIES = 10
"""A capture that is alive takes its slot again a moment after its session was ended."""
_log = logs.logger("guard")


def warning(config: SourceConfig, health: slot.Health) -> str:
    """What somebody should look at before the disk fills or the slot is lost; empty when nothing is."""
    retained, status = health.get("retained_wal_bytes"), health.get("wal_status")
    if health.get("invalidation_reason") or status == "lost":
        return f"the server has invalidated the slot ({health.get('invalidation_reason') or status})"
    if status == "unreserved":
        return "the server may remove WAL that the slot needs with its next checkpoint"
    if isinstance(retained, int) and config.wal_warn_bytes and retained > config.wal_warn_bytes:
        return f"the server keeps {_size(retained)} of WAL for the slot, more than {_size(config.wal_warn_bytes)}"
    return ""


class Guard:
    """Of one source; needs nothing of its capture."""

    def __init__(self, config: SourceConfig, log: Log) -> None:
        self.config = config
        self.log = log
        self._warned = ""

    def run(self, stop: threading.Event) -> None:
        """Look every few seconds until ``stop``; a server that cannot be reached is looked for again."""
        while not stop.is_set():
            try:
                self.look()
            except HeadwaterError as error:
                _log.warning("%s", error)
            stop.wait(PERIOD_SECONDS)

    def look(self) -> bool:
        """Report how much WAL is kept, and drop the slot when that is too much; whether it was dropped."""
        try:
            with session.connect(self.config.decoding_dsn, self.config.name) as connection:
                health = slot.health(connection, self.config.name)
                said = warning(self.config, health)
                self.log.live.beat(f"guard:{self.config.name}", **health, slot_warning=said)
                if said and said != self._warned:
                    _log.warning("%s", said)
                self._warned = said
                return self._within(connection, health)
        except psycopg.Error as error:
            raise session.translate(error, self.config.name) from error

    def _within(self, connection: session.Connection, health: slot.Health) -> bool:
        retained, limit = health.get("retained_wal_bytes"), self.config.wal_drop_bytes
        if not limit or not isinstance(retained, int) or retained <= limit:
            return False
        reason = f"it kept {_size(retained)} of WAL, more than wal_drop_bytes ({_size(limit)})"
        gap.remember_dropped(self.log, self.config.name, reason)
        for _ in range(DROP_TRIES):
            try:
                slot.drop(connection, self.config.name)
            except (SlotInUse, psycopg.errors.ObjectInUse):
                slot.end_reader(connection, self.config.name)
            else:
                _log.error("dropped the replication slot of %s: %s", self.config.name, reason)
                return True
        raise SlotInUse(f"the slot could not be dropped though {reason}", where=f"source {self.config.name}")


def _size(count: int) -> str:
    return f"{count / (1 << 20):,.0f} MiB"
