"""A fair lock between processes: writers enter in the order in which they came.

``flock`` wakes all waiters and lets them race, and SQLite's busy handler polls, so one of five writers can
starve for seconds. Here each comer draws a ticket n, holds byte n of the lock file, and waits until no byte
below n is held. The kernel drops a dead process's bytes, so a crash anywhere leaves nothing behind.
Open-file-description locks belong to the descriptor: threads of one process exclude each other as well.

A process that somebody stopped (SIGSTOP, Ctrl-Z) would hold up every writer of the lake for as long as it
sleeps, capture included. One that only waits is passed by: it enters when it wakes, and SQLite's own lock
keeps it apart from the others. One that was stopped inside is killed, which the log survives like any crash.
One that was stopped in the microseconds of drawing its ticket cannot be told from the file: until it wakes the
others go without tickets, and SQLite's lock alone keeps them apart.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from headwater.storage.local import named_errors

PASS_S = 0.1
"""After a wait as long as this, who is stopped is passed by: longer than nearly every transaction."""
KILL_S = 1.0
"""... and after this one, who is stopped inside is killed: far shorter than any lease."""
_LOOK_S = 0.0003, 0.002
"""Between two looks while waiting, at first and at most: a fraction of what a transaction takes."""
_COUNTER = 1 << 62
"""Byte whose lock guards the ticket counter; far above any ticket."""
_SLOTS = 4096
"""Who holds a ticket is written at its number modulo this; so many never wait at once."""
_LOCK = "hhqqi4x"
_ASLEEP_MAX = 1000
_asleep: set[tuple[Path, int]] = set()
"""Tickets this process has passed by: the next transaction looks at them at once. One that wakes is taken out."""
_undrawn: set[Path] = set()
"""Files whose counter was held for too long when this process last came: the next one does not wait for it."""


@contextmanager
def queued(path: Path) -> Iterator[None]:
    """Hold the lock at ``path`` for the block; waits without limit, in order of arrival, apart from who was stopped.

    DiskFull when the file has no room for who comes, StorageError when it cannot be opened.
    """
    with named_errors(str(path)):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        with named_errors(str(path)):
            ticket = _draw(descriptor, path)
            if ticket is not None:
                _wait(descriptor, path, ticket)
                _write_holder(descriptor, ticket, -os.getpid())
        yield
    finally:
        os.close(descriptor)  # drops every lock of this descriptor


def _draw(descriptor: int, path: Path) -> int | None:
    """The next ticket, and its byte is held; None when somebody has been drawing theirs for too long."""
    end = time.monotonic() + (0 if path in _undrawn else PASS_S)
    while not _try_lock(descriptor, _COUNTER):
        if time.monotonic() >= end:
            _undrawn.add(path)
            return None
        time.sleep(_LOOK_S[0] / 4)
    _undrawn.discard(path)
    ticket = int.from_bytes(os.pread(descriptor, 8, 0).ljust(8, b"\0"), "little")
    os.pwrite(descriptor, (ticket + 1).to_bytes(8, "little"), 0)
    _write_holder(descriptor, ticket, os.getpid())
    held = _try_lock(descriptor, ticket + 1)  # not when the file was emptied, and its tickets began anew
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _request(fcntl.F_UNLCK, _COUNTER, 1))
    return ticket if held else None


def _wait(descriptor: int, path: Path, ticket: int) -> None:
    """Until nobody who came before is there, apart from those who are stopped."""
    begin = time.monotonic()
    if len(_asleep) > _ASLEEP_MAX:  # their holders were killed: nobody takes them out
        _asleep.clear()
    look_at = begin + PASS_S
    passed: set[int] = set()
    while (found := _before(descriptor, ticket, passed)) is not None:
        now = time.monotonic()
        if now > look_at or (path, found) in _asleep:
            look_at = now + PASS_S / 4
            _asleep.discard((path, found))
            if _is_stopped(descriptor, path, found, kill=now - begin > KILL_S):
                passed.add(found)
                _asleep.add((path, found))
                continue
        time.sleep(min(_LOOK_S[1], max(_LOOK_S[0], (now - begin) / 4)))


def _before(descriptor: int, ticket: int, passed: set[int]) -> int | None:
    """A ticket below this one that is held, apart from those passed by."""
    start = 0
    for end in [*sorted(number + 1 for number in passed), ticket + 1]:
        if end > start:
            answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _request(fcntl.F_WRLCK, start, end - start))
            kind, _, at, _, _ = struct.unpack(_LOCK, answer)
            if kind != fcntl.F_UNLCK:
                return int(at) - 1
        start = end + 1
    return None


def _is_stopped(descriptor: int, path: Path, ticket: int, *, kill: bool) -> bool:
    """Whether the holder of a ticket is stopped outside the lock; one inside may be killed."""
    import psutil

    holder = struct.unpack("<q", os.pread(descriptor, 8, _slot(ticket)).ljust(8, b"\0"))[0]
    with suppress(psutil.Error, OSError):  # gone meanwhile, or not ours to look at: then it is waited for
        process = psutil.Process(abs(holder))
        known = process.status() == psutil.STATUS_STOPPED and any(
            Path(file.path) == path.resolve() for file in process.open_files()
        )
        if known and holder < 0 and kill:
            process.send_signal(signal.SIGKILL)
        return known and holder > 0
    return False


def _write_holder(descriptor: int, ticket: int, pid: int) -> None:
    os.pwrite(descriptor, struct.pack("<q", pid), _slot(ticket))


def _slot(ticket: int) -> int:
    return 8 + 8 * (ticket % _SLOTS)


def _try_lock(descriptor: int, start: int) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _request(fcntl.F_WRLCK, start, 1))
    except (BlockingIOError, PermissionError):  # POSIX leaves the choice between the two
        return False
    return True


def _request(kind: int, start: int, length: int) -> bytes:
    return struct.pack(_LOCK, kind, os.SEEK_SET, start, length, 0)
