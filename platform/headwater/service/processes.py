"""Processes that others have started: found while their parent lives, waited for, and killed in the end."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Sequence
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


def in_sessions(leaders: Container[int]) -> list[psutil.Process]:
    """Processes of the sessions that these have begun, whether they and their parents live or not."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError):
            if os.getsid(process.pid) in leaders:
                found.append(process)
    return found


def end_processes(processes: Sequence[psutil.Process], timeout: float) -> None:
    """Wait for processes to end; those that do not within ``timeout`` seconds are killed."""
    _, left = psutil.wait_procs(processes, timeout)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout)
