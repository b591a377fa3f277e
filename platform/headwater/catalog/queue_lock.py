"""A fair lock between processes: writers enter in the order in which they came.

``flock`` wakes all waiters and lets them race, and SQLite's busy handler polls, so one of five writers can
starve for seconds. Here each comer draws a ticket n, holds byte n of the lock file, and waits for a shared
lock on all bytes below n. The kernel drops a dead process's bytes, so a crash anywhere leaves nothing behind.
Open-file-description locks belong to the descriptor: threads of one process exclude each other as well.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_COUNTER = 1 << 62
"""Byte whose lock guards the ticket counter; far above any ticket."""


@contextmanager
def queued(path: Path) -> Iterator[None]:
    """Hold the lock at ``path`` for the block; waits without limit, in order of arrival."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _lock(descriptor, fcntl.F_WRLCK, _COUNTER, 1)
        ticket = int.from_bytes(os.pread(descriptor, 8, 0).ljust(8, b"\0"), "little")
        os.pwrite(descriptor, (ticket + 1).to_bytes(8, "little"), 0)
        _lock(descriptor, fcntl.F_WRLCK, ticket + 1, 1)
        _lock(descriptor, fcntl.F_UNLCK, _COUNTER, 1)
        _lock(descriptor, fcntl.F_RDLCK, 0, ticket + 1)
        yield
    finally:
        os.close(descriptor)  # drops every lock of this descriptor


def _lock(descriptor: int, kind: int, start: int, length: int) -> None:
    request = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLKW, request)
