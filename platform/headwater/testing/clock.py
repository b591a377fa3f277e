"""A clock for tests in which time is what they say."""

from __future__ import annotations

from datetime import UTC, datetime

START = datetime(2026, 1, 1, tzinfo=UTC)


class Hand:
    """Stands still, from ``START`` on, until it is moved; ``us``: microseconds since 1970."""

    def __init__(self) -> None:
        self.us = int(START.timestamp() * 1e6)

    def now_us(self) -> int:
        return self.us

    def pass_(self, seconds: float) -> None:
        self.us += int(seconds * 1e6)
