"""How far the copy of a table is, as the status says it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field


@dataclass
class Progress:
    """Of one table's copy; ``pages`` of ``all_pages`` are read."""

    table: str
    rows: int = 0
    pages: int = 0
    all_pages: int = 0
    phase: str = "waiting"
    server: str = ""
    """Which one is read, and why, where there are two."""
    began: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __str__(self) -> str:
        """``public.orders: reading 45 %, 1,234,567 rows, 12 s left, from the standby``"""
        return f"{self.table}: {self._said()}{self.server and f', from {self.server}'}"

    def _said(self) -> str:
        if self.phase not in ("reading", "comparing") or not self.pages:
            return self.phase
        share = min(1.0, self.pages / max(1, self.all_pages))
        left = (time.monotonic() - self.began) * (1 - share) / share
        return f"{self.phase} {share:.0%}, {self.rows:,} rows, {left:.0f} s left"

    def begin(self, phase: str) -> None:
        """Of going over the whole table."""
        self.phase, self.began, self.rows, self.pages = phase, time.monotonic(), 0, 0

    def add(self, rows: int, pages: int) -> None:
        with self.lock:
            self.rows += rows
            self.pages += pages
