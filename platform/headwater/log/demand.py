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
EARLY_S = 0.006
"""So much before it is looked for a commit should be there: steps do not take equally long."""
_WORD = 8


class Demand:
    """The time (nanoseconds of the machine's monotonic clock) at which somebody last asked; 0 when nobody has."""

    def __init__(self, folder: Path) -> None:
        path = folder / FILE
        with named_errors(str(path)):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._close = weakref.finalize(self, os.close, self._descriptor)

    def ask(self) -> None:
        """Ask for what there is."""
        self._write(0, time.monotonic_ns())

    @property
    def asked(self) -> int:
        return self._read(0)

    def answered(self, took_s: float) -> None:
        """From when somebody asks it takes so long until there is a commit: whoever follows asks that much earlier."""
        self._write(_WORD, int(took_s * 1e9))

    @property
    def took_s(self) -> float:
        """How long the last commit took, in seconds; 0 when nobody has said."""
        return self._read(_WORD) / 1e9

    def _write(self, place: int, number: int) -> None:
        with suppress(OSError):  # a full disk; what is not asked for comes later
            os.pwrite(self._descriptor, number.to_bytes(_WORD, "little"), place)

    def _read(self, place: int) -> int:
        return int.from_bytes(os.pread(self._descriptor, _WORD, place), "little")

    def close(self) -> None:
        self._close()


class Follower(Demand):
    """Asks for the next commit while it still works on the last: it is there at the next look, and not much earlier,
    for what is committed in the source meanwhile would have to wait for the one after.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._began = self._left_s = 0.0
        """When (monotonic) the end of the work began, 0 before; how long it took from there to the look last time."""
        self._has_asked = False

    def ends(self) -> None:
        """The end of the work has begun, at the same place each time; called often from there on."""
        now = time.monotonic()
        if not self._began:
            self._began, self._has_asked = now, False
        if not self._has_asked and self._began + self._left_s - now <= self.took_s + EARLY_S:
            self._has_asked = True
            self.ask()

    def waits(self) -> None:
        """There was nothing: asks, unless it has asked already and the answer is on its way."""
        if not self._has_asked:
            self.ask()
        self._has_asked = False

    def looks(self) -> None:
        """The work is done, and the next commit is looked for."""
        if self._began:
            self._left_s, self._began = time.monotonic() - self._began, 0.0
