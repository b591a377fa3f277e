"""Who has a catalog open: whoever comes first after all had gone settles what the last left in SQLite's log.

A transaction whose COMMIT failed in fsync stands in that log all the same, and Linux takes its bytes for written:
they are read until the power goes, and then everything behind them is lost with them. SQLite overwrites it as long as
anyone has the catalog open, and trusts it after that.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
import weakref
from contextlib import suppress
from pathlib import Path

from headwater.storage.local import named_errors

FILE = "run/catalog.open"


WAIT_S = 1.0
"""For who is first; one that takes longer may be stopped, and then whoever comes settles as well."""


class Presence:
    """Held as long as a catalog is open; the kernel ends it with the process.

    ``settles``: nobody else had it open, or who came first is not done in time. ``settled`` lets the others in.
    """

    def __init__(self, path: Path) -> None:
        with named_errors(str(path)):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._descriptor = descriptor
        self._close = weakref.finalize(self, os.close, descriptor)
        self.settles = self._lock(fcntl.F_WRLCK)
        until = time.monotonic() + WAIT_S
        while not self.settles and not self._lock(fcntl.F_RDLCK):
            time.sleep(0.005)
            self.settles = time.monotonic() > until

    def settled(self) -> None:
        self._lock(fcntl.F_RDLCK)

    def close(self) -> None:
        self._close()

    def _lock(self, kind: int) -> bool:
        """Whether this process has it now, of this kind."""
        with suppress(BlockingIOError):
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 1, 0))
            return True
        return False
