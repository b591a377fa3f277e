"""Somebody is ready for the next commit: whoever gathers rows for one need not wait for more of them.

A pipeline that takes in a commit is busy with it for a while. What is committed meanwhile waits, and what is committed
just after it looked waits longest; so it says when it is about to look again. A hint, and no more: it is not durable,
nobody waits for an answer, and without it rows are committed once they have lingered.
"""

from __future__ import annotations

import os
import time
import weakref
from contextlib import suppress
from pathlib import Path

from headwater.storage.local import named_errors

FILE = "run/demand"


class Demand:
    """The time (nanoseconds of the machine's monotonic clock) at which somebody last asked; 0 when nobody has."""

    def __init__(self, folder: Path) -> None:
        path = folder / FILE
        with named_errors(str(path)):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._close = weakref.finalize(self, os.close, self._descriptor)

    def ask(self) -> None:
        """Ask for what there is."""
        with suppress(OSError):  # a full disk; what is not asked for comes later
            os.pwrite(self._descriptor, time.monotonic_ns().to_bytes(8, "little"), 0)

    @property
    def asked(self) -> int:
        return int.from_bytes(os.pread(self._descriptor, 8, 0), "little")

    def close(self) -> None:
        self._close()
