"""The one source of wall-clock time, so that a test can set it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def now_us(self) -> int:
        """Microseconds since 1970-01-01 UTC."""


class SystemClock:
    """The machine's clock. It may step backwards; whoever needs order adds it (``commit`` times do)."""

    def now_us(self) -> int:
        return time.time_ns() // 1000
