"""One supervised process: started in a session of its own, restarted with backoff, given up after a limit.

    waiting ──start──▶ running ──exit──▶ waiting (backoff) ──too often──▶ given up
                          │ └── exit 78: cannot be mended by trying ────▶ given up
                          └── asked to stop ──▶ stopped

Its output goes to a file, never a pipe: it lives on undisturbed when this process dies, and the next ``up``
finds it by pid and start time. No state here is durable; the log is.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from headwater import logs
from headwater.config import Settings
from headwater.service.component import EXIT_NOT_RETRYABLE, EXIT_STOPPED, Component

State = Literal["waiting", "running", "given up", "stopped"]


@dataclass(kw_only=True)
class Child:
    """A component and the process that runs it now. Not thread-safe: one loop polls it."""

    component: Component
    folder: Path
    """Working directory of the process: the project."""
    log_path: Path
    settings: Settings
    now: Callable[[], float] = time.monotonic
    state: State = "waiting"
    restarts: int = 0
    errors: int = 0
    last_error: str = ""
    exit_code: int | None = None
    killed: bool = False
    """Whether it had to be killed because it did not stop in time."""
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    """When the process was started, on the monotonic clock."""
    _next_start: float = 0.0
    _failures: deque[float] = field(default_factory=deque)
    _read_to: int = 0
    _rest: bytes = b""

    @property
    def name(self) -> str:
        return self.component.name

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None and self.state == "running" else None

    @property
    def ended(self) -> bool:
        """Whether no process runs and none will be started again."""
        return self.state in ("given up", "stopped")

    def poll(self) -> None:
        """Start it when its time has come; notice that it ended. Never blocks."""
        if self.state == "waiting" and self.now() >= self._next_start:
            self._start()
        elif self.state == "running" and self.process is not None:
            code = self.process.poll()
            if code is not None:
                self._failed(code)

    def ask_to_stop(self) -> None:
        """SIGTERM, or nothing when no process runs."""
        if self.state == "running" and self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        elif self.state != "given up":
            self.state = "stopped"

    def finish(self, deadline: float) -> bool:
        """Whether it has ended after ``ask_to_stop``; past ``deadline`` it is killed."""
        if self.process is None or self.ended:
            return True
        code = self.process.poll()
        if code is None and self.now() >= deadline:
            self.killed = True
            self.process.kill()
            code = self.process.wait()
        if code is None:
            return False
        self.exit_code = code
        self.state = "stopped"
        return True

    def new_lines(self) -> list[dict[str, Any]]:
        """What it has written to its log since the last call, as log lines."""
        try:
            with self.log_path.open("rb") as file:
                file.seek(self._read_to)
                data = file.read()
        except FileNotFoundError:
            return []
        self._read_to += len(data)
        *complete, self._rest = (self._rest + data).split(b"\n")
        lines = [logs.parse(text.decode("utf-8", "replace"), self.name) for text in complete if text.strip()]
        for line in lines:
            if line["level"] in ("error", "fatal"):
                self.errors += 1
                self.last_error = str(line["message"])
        return lines

    def _start(self) -> None:
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self._rotate()
        with self.log_path.open("ab") as output:
            self._read_to = output.tell()
            self.process = subprocess.Popen(
                _resolved(self.component.argv),
                cwd=self.folder,
                env={**os.environ, **self._environment()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.state = "running"
        self.started = self.now()
        self.last_error = ""

    def _environment(self) -> Mapping[str, str]:
        return {logs.COMPONENT_VARIABLE: self.name, "PYTHONUNBUFFERED": "1", **self.component.env}

    def _rotate(self) -> None:
        """One older file is kept; only between two processes, so that no line is lost."""
        if self.log_path.exists() and self.log_path.stat().st_size > self.settings.log_bytes_max:
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        self._rest = b""

    def _failed(self, code: int) -> None:
        """It ended unasked, whatever its exit code: wait and start it again, or give it up."""
        limits = self.settings
        self.exit_code = code
        now = self.now()
        self._failures.append(now)
        while self._failures and now - self._failures[0] > limits.restart_window_s:
            self._failures.popleft()
        if code == EXIT_NOT_RETRYABLE or len(self._failures) > limits.restart_limit:
            self.state = "given up"
            return
        backoff_ms = min(limits.restart_backoff_ms * 2 ** (len(self._failures) - 1), limits.restart_backoff_max_ms)
        self._next_start = now + backoff_ms / 1000
        self.state = "waiting"
        self.restarts += 1

    def describe_exit(self) -> str:
        """How the last process ended, in words."""
        code = self.exit_code
        if code is None:
            return "has not ended"
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return "ended unasked" if code == EXIT_STOPPED else f"failed with exit code {code}"


def _resolved(argv: Any) -> list[str]:
    if argv[0] == "headwater":
        return [sys.executable, "-m", "headwater.cli", *argv[1:]]
    return list(argv)
