"""Processes that others have started: found while their parent lives, waited for, and killed in the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

import psutil


def descendants(pids: Iterable[int | None]) -> list[psutil.Process]:
    """What these processes have started, and what that has. None and processes that are gone have nothing."""
    found: list[psutil.Process] = []
    for pid in pids:
        if pid is not None:
            with suppress(psutil.NoSuchProcess):
                found += psutil.Process(pid).children(recursive=True)
    return found


def end_processes(processes: Sequence[psutil.Process], timeout: float) -> None:
    """Wait for processes to end; those that do not within ``timeout`` seconds are killed."""
    _, left = psutil.wait_procs(processes, timeout)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout)
