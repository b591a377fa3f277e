"""Threads that work beside the steps."""

from __future__ import annotations

import os
import threading
from contextlib import suppress

NICENESS = 15
"""Somebody waits for the steps, and for nothing else here. Linux has a niceness for each thread."""


def give_way() -> None:
    """Leave the cores to the live worker from now on; called by the thread that this is meant for."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
