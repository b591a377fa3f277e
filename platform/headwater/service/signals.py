"""SIGTERM and SIGINT as a wish, not a blow: work in hand is finished, nothing is cut in the middle."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from headwater.errors import HeadwaterError

CUT_SHORT = "stopped before it had caught up"


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """The event is set by the first SIGTERM or SIGINT in the block. For the main thread."""
    stop = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {each: signal.signal(each, ask) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_not_cut_short(stop: threading.Event) -> None:
    """For a run that should have ended by itself: HeadwaterError when a signal ended it, so its caller can tell."""
    if stop.is_set():
        raise HeadwaterError(CUT_SHORT, todo="The next run goes on from here.")
