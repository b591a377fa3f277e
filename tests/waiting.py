"""Waiting for what a test needs: never for a time, and a wait that ends badly says what did not come."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

WAIT_SECONDS = 60.0
"""Far beyond what anything takes, so that only a hang fails."""
PAUSE_SECONDS = 0.02


def until(holds: Callable[[], object], what: str | Callable[[], str] = "", seconds: float = WAIT_SECONDS) -> None:
    """Return once ``holds`` says so. AssertionError with ``what``, asked for then if it is a function."""
    end, pause = time.monotonic() + seconds, threading.Event()
    while not holds():
        if time.monotonic() > end:
            said = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {seconds:g} s: {said or 'what was waited for'}")
        pause.wait(PAUSE_SECONDS)
