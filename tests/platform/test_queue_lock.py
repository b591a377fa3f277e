"""The writers' queue and who is stopped in it: passed by while waiting, killed when inside."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
import pytest
from tests.waiting import until

from headwater.catalog import queue_lock
from headwater.catalog.queue_lock import KILL_S, PASS_S, queued
from headwater.testing.forks import FORKS

WAIT_S = 30.0


def enter(path: Path, pipe: Connection) -> None:
    """A writer: tells when it waits and when it is inside, and stays until it is told to go."""
    pipe.send("waits")
    with queued(path):
        pipe.send("inside")
        pipe.recv()


def draw_and_sleep(path: Path, pipe: Connection) -> None:
    """A writer that somebody stops in the middle of drawing its ticket."""
    pipe.send("waits")

    def write_holder(descriptor: int, ticket: int, pid: int) -> None:
        queue_lock._write_holder = written
        os.kill(os.getpid(), signal.SIGSTOP)
        written(descriptor, ticket, pid)

    written, queue_lock._write_holder = queue_lock._write_holder, write_holder
    with queued(path):
        pipe.send("inside")


class Rival:
    """A writer in another process."""

    def __init__(self, path: Path, what: Callable[[Path, Connection], None] = enter) -> None:
        self.pipe, other = FORKS.Pipe()
        self.process: BaseProcess = FORKS.Process(target=what, args=(path, other), daemon=True)
        self.process.start()
        assert self.pipe.recv() == "waits"

    def send(self, kind: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, kind)
        stopped = psutil.Process(self.process.pid).status
        until(lambda: (stopped() == psutil.STATUS_STOPPED) == (kind == signal.SIGSTOP))


def tickets(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[:8], "little")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def test_a_stopped_waiter_is_passed_by_and_enters_when_it_wakes(path: Path) -> None:
    with queued(path):
        rival = Rival(path)
        until(lambda: tickets(path) == 2)
        rival.send(signal.SIGSTOP)
    begin = time.monotonic()
    with queued(path):
        assert time.monotonic() - begin > PASS_S, "it had its turn until it was seen to be stopped"
    rival.send(signal.SIGCONT)
    assert rival.pipe.recv() == "inside"
    rival.pipe.send("go")
    rival.process.join(WAIT_S)
    assert rival.process.exitcode == 0


def test_who_is_stopped_while_drawing_holds_nobody_up(path: Path) -> None:
    rival = Rival(path, draw_and_sleep)
    assert rival.process.pid is not None
    stopped = psutil.Process(rival.process.pid).status
    until(lambda: stopped() == psutil.STATUS_STOPPED)
    begin = time.monotonic()
    for _ in range(20):
        with queued(path):
            pass
    assert time.monotonic() - begin > PASS_S, "it had its turn"
    assert tickets(path) == 1, "nobody else has drawn one"
    rival.send(signal.SIGCONT)
    assert rival.pipe.recv() == "inside"
    rival.process.join(WAIT_S)
    with queued(path):
        assert tickets(path) == 2


def test_who_is_stopped_inside_is_killed(path: Path) -> None:
    rival = Rival(path)
    assert rival.pipe.recv() == "inside"
    rival.send(signal.SIGSTOP)
    begin = time.monotonic()
    with queued(path):
        assert time.monotonic() - begin > KILL_S
    rival.process.join(WAIT_S)
    assert rival.process.exitcode == -signal.SIGKILL


def test_who_is_slow_is_waited_for(path: Path) -> None:
    rival = Rival(path)
    assert rival.pipe.recv() == "inside"
    entered = threading.Event()

    def come() -> None:
        with queued(path):
            entered.set()

    waiting = threading.Thread(target=come)
    waiting.start()
    assert not entered.wait(KILL_S + 0.5)
    rival.pipe.send("go")
    waiting.join(WAIT_S)
    assert entered.is_set()
    rival.process.join(WAIT_S)
    assert rival.process.exitcode == 0
