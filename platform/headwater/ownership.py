"""Who runs a source or the pipeline: an OS lock for "now", an epoch in the catalog for "still".

The lock is dropped by the kernel when its holder dies, so a successor takes over at once, after kill -9 too.
The epoch, raised on every acquisition and checked in every commit, fences a holder that lost the lock without
noticing. The descriptor is close-on-exec and owners never fork without exec: a forked child keeps the lock.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from headwater.errors import OwnedElsewhere
from headwater.log.log import Log
from headwater.storage.local import named_errors

HEARTBEAT_MAX_S = 15.0
"""An owner that holds the lock but has not beaten for so long hangs; a waiting successor kills it."""
RETRY_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Proof of ownership: pass ``epoch`` to every transaction."""

    name: str
    epoch: int


@contextmanager
def own(log: Log, name: str, *, wait: bool = False) -> Iterator[Owner]:
    """Own ``name`` for the block.

    OwnedElsewhere, naming the holder, when another live process has it. With ``wait`` the call blocks until
    it is free, and kills (SIGKILL; pid and start time are compared) a holder whose heartbeat is older than
    15 s.
    """
    descriptor = os.open(_path(log.folder, name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        while not _try_lock(descriptor):
            holder = _holder(descriptor)
            if not wait:
                raise _owned(name, holder)
            _kill_if_hung(log, name, holder)
            time.sleep(RETRY_S)
        me = psutil.Process()
        with named_errors(name):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"pid": me.pid, "started": me.create_time()}).encode(), 0)
        try:
            yield Owner(name=name, epoch=log.raise_epoch(name))
        finally:
            os.ftruncate(descriptor, 0)  # still ours: nobody reads an owner that is gone
    finally:
        os.close(descriptor)


def holder_pid(log: Log, name: str) -> int | None:
    """The process that owns ``name`` now, by what it wrote down; None when that process is gone.

    Takes no lock: a look must not stand in the way of an owner that is just starting.
    """
    path = _path(log.folder, name)
    found: dict[str, float] = json.loads(path.read_text() or "{}") if path.exists() else {}
    try:
        alive = bool(found) and abs(psutil.Process(int(found["pid"])).create_time() - found["started"]) < 1
    except psutil.NoSuchProcess:
        alive = False
    return int(found["pid"]) if alive else None


def _path(folder: Path, name: str) -> Path:
    return folder / "run" / f"{name.replace(':', '-')}.lock"


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        return False
    return True


def _holder(descriptor: int) -> dict[str, float]:
    text = os.pread(descriptor, 4096, 0)
    found: dict[str, float] = json.loads(text) if text else {}
    return found


def _owned(name: str, holder: dict[str, float]) -> OwnedElsewhere:
    pid = int(holder.get("pid", 0))
    return OwnedElsewhere(
        f"{name} is already running as process {pid}",
        todo=f"Stop it first (kill {pid}), or use the one that runs.",
        pid=pid,
    )


def _kill_if_hung(log: Log, name: str, holder: dict[str, float]) -> None:
    row = log.live.read().get(name)
    if row is None or row.pid != holder.get("pid") or time.time() - row.beat_at < HEARTBEAT_MAX_S:
        return
    try:
        process = psutil.Process(row.pid)
        if abs(process.create_time() - holder["started"]) < 1:
            process.kill()
    except psutil.NoSuchProcess:
        return
