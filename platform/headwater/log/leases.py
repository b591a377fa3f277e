"""Leases: what an open reader still reads. Retention keeps it, and files it may open stay on disk, until it ends.

A reader takes its lease before it resolves a position: a file that leaves the catalog afterwards is unlinked only
when no lease is older than that moment. Leases are in the live file (no fsync): after a power cut no reader lives.
A reader that dies stops renewing and ends by itself.
"""

from __future__ import annotations

import os
import threading
import uuid
from types import TracebackType
from typing import TYPE_CHECKING

from headwater.catalog.records import to_datetime

if TYPE_CHECKING:
    from headwater.log.log import Log

LEASE_S = 60.0
"""A lease that is not renewed for so long has ended: its process died or hangs."""
RENEW_S = LEASE_S / 4


class Lease:
    """Held from its making to ``close``; a context manager. ``commit``: the oldest position the reader needs.

    ``expires_s`` bounds its whole life (the setting ``reader_expiry_s``): a reader that forgot itself must not
    keep history for ever.
    """

    def __init__(self, log: Log, commit: int | None = None, *, expires_s: float) -> None:
        self._log = log
        self._name = f"lease:{os.getpid()}:{uuid.uuid4().hex}"
        self._began = log.clock.now_us()
        self._ends = self._began + int(expires_s * 1e6)
        self.commit = log.newest_commit() if commit is None else commit
        self._done = threading.Event()
        self._renew()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()

    def moves_to(self, commit: int) -> None:
        """The reader needs nothing before this commit any more."""
        self.commit = commit
        self._renew()

    def close(self) -> None:
        """End it; a second call does nothing."""
        if not self._done.is_set():
            self._done.set()
            self._thread.join()
            self._log.live.release(self._name)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _renew(self) -> None:
        until = min(self._log.clock.now_us() + int(LEASE_S * 1e6), self._ends)
        self._log.live.hold(self._name, self.commit, self._began, until)

    def _run(self) -> None:
        while not self._done.wait(RENEW_S) and self._log.clock.now_us() < self._ends:
            self._renew()


def oldest_commit(log: Log) -> int | None:
    """The oldest position that any living lease needs; None without leases."""
    return min((commit for commit, _ in log.live.held(log.clock.now_us())), default=None)


def oldest_start(log: Log) -> int | None:
    """When the oldest living lease began, in microseconds since 1970; None without leases."""
    return min((began for _, began in log.live.held(log.clock.now_us())), default=None)


def describe(log: Log) -> list[dict[str, object]]:
    """Every living lease for ``status``: the commit it needs, and since when."""
    return [
        {"commit": commit, "since": to_datetime(began).isoformat()}
        for commit, began in sorted(log.live.held(log.clock.now_us()))
    ]
