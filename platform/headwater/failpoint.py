"""Named crash points at every seam: storage, catalog, pipeline state, acknowledgement.

Nothing happens unless ``HEADWATER_FAILPOINTS`` is set when the process starts:
``record:FILE`` appends each name that is passed to FILE, so the list of crash points is read off a real
run and never kept by hand; ``kill:N`` kills this process (SIGKILL) at the N-th hit; ``kill:NAME:K`` at the
K-th hit of NAME; ``hold:FOLDER`` lets whoever hits NAME wait as long as FOLDER has a file NAME, into which it writes
its pid, a line each. Crash tests run the real commands with this variable.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

LOOK_S = 0.02
"""Between two looks of who is held."""


class _Plan:
    """What the environment asked for; counts hits under a lock (hits come from several threads)."""

    def __init__(self, text: str) -> None:
        self.lock = threading.Lock()
        self.seen = 0
        self.of_name = 0
        mode, _, rest = text.partition(":")
        name, _, nth = rest.rpartition(":")
        self.record = os.open(rest, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) if mode == "record" else -1
        self.name = name if mode == "kill" else ""
        self.nth = int(nth) if mode == "kill" else 0
        self.hold = Path(rest) if mode == "hold" else None

    def hit(self, name: str) -> None:
        if self.hold is not None:
            _wait(self.hold / name)
            return
        with self.lock:
            if self.record >= 0:
                os.write(self.record, f"{name}\n".encode())
                return
            self.seen += 1
            self.of_name += name == self.name
            if (self.of_name if self.name else self.seen) == self.nth and self.name in ("", name):
                os.kill(os.getpid(), signal.SIGKILL)


def _wait(file: Path) -> None:
    """Until nobody wants that who passes here is held. Not under the lock: others may pass other points."""
    try:
        place = os.open(file, os.O_WRONLY | os.O_APPEND)
    except FileNotFoundError:
        return
    with os.fdopen(place, "w") as out:
        out.write(f"{os.getpid()}\n")
    while file.exists():
        time.sleep(LOOK_S)


_plan = _Plan(os.environ["HEADWATER_FAILPOINTS"]) if os.environ.get("HEADWATER_FAILPOINTS") else None


def follow(text: str) -> None:
    """Follow this plan from now on, as if the environment had held it; nothing for an empty text."""
    global _plan
    _plan = _Plan(text) if text else None


def is_planned() -> bool:
    """Whether anybody follows the crash points of this process."""
    return _plan is not None


def hit(name: str) -> None:
    """Pass the crash point ``name``; free of cost unless a plan is set."""
    if _plan is not None:
        _plan.hit(name)
