"""What processes cost while they run: CPU seconds, the highest resident memory, and memory of their own over time."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

SAMPLE_S, SAMPLES_QUICK = 0.5, 20
"""Between two samples; the first ones follow each other ten times as quickly, for commands that are soon over. What is
read is cumulative, or changes slowly, so more samples would only cost what is measured its cores."""


class Sampler:
    """Samples processes by role while the block runs; they need not be our own children.

    ``pids``: role -> pid. ``whole``: the roles that count with all processes below them.
    """

    def __init__(self, pids: Mapping[str, int], whole: Collection[str] = ()) -> None:
        self._pids, self._whole = dict(pids), frozenset(whole)
        self._spent: dict[tuple[str, int, float], tuple[float, float]] = {}
        self._peaks: dict[tuple[str, int, float], int] = {}
        self.memory: dict[str, list[tuple[float, float]]] = {role: [] for role in pids}
        """Of each role: (monotonic seconds, its own MB of 10^6 bytes, see ``own_mb``)."""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="sampler")

    def __enter__(self) -> Self:
        self._sample(first=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self._sample()

    def _run(self) -> None:
        for number in itertools.count():
            if self._done.wait(SAMPLE_S / 10 if number < SAMPLES_QUICK else SAMPLE_S):
                return
            self._sample()

    def _sample(self, *, first: bool = False) -> None:
        for role, pid in self._pids.items():
            now, held = time.monotonic(), 0.0
            for process in _family(pid) if role in self._whole else _alone(pid):
                try:
                    with process.oneshot():
                        times, key = process.cpu_times(), (role, process.pid, process.create_time())
                        self._peaks[key] = max(self._peaks.get(key, 0), _resident_peak(process))
                    held += own_mb(process.pid)
                except psutil.Error:  # ended meanwhile
                    continue
                spent = times.user + times.system
                # A process that started within the block has spent all of its time in it.
                self._spent[key] = (self._spent.get(key, (spent if first else 0.0, spent))[0], spent)
            if held:
                self.memory[role].append((now, held))


class Costs(Sampler):
    """What each of several processes costs."""

    def cpu_s(self, role: str) -> float:
        """User plus system time that a role spent since the block began."""
        return sum(last - first for (name, _, _), (first, last) in self._spent.items() if name == role)


class Meter(Sampler):
    """What one process costs, with all below it.

    Peak memory is the sum over processes of each one's own highest resident size (VmHWM), an upper bound of the
    highest sum; a page shared by two of them counts twice. ``ru_maxrss`` is not used: a child inherits its parent's
    over fork and exec.
    """

    def __init__(self, pid: int) -> None:
        super().__init__({"": pid}, whole=[""])

    @property
    def cpu_s(self) -> float:
        """User plus system time spent since the block began."""
        return sum(last - first for first, last in self._spent.values())

    @property
    def peak_mb(self) -> float:
        """In units of 10^6 bytes."""
        return sum(self._peaks.values()) / 1e6


def _alone(pid: int) -> list[psutil.Process]:
    try:
        return [psutil.Process(pid)]
    except psutil.NoSuchProcess:
        return []


def _family(pid: int) -> list[psutil.Process]:
    roots = _alone(pid)
    try:
        return [*roots, *(each for root in roots for each in root.children(recursive=True))]
    except psutil.NoSuchProcess:
        return roots


def _resident_peak(process: psutil.Process) -> int:
    try:
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:  # gone meanwhile, or a system without /proc
        pass
    return int(process.memory_info().rss)


def own_mb(pid: int) -> float:
    """The memory that is a process's own (10^6 bytes). NoSuchProcess when it has ended.

    Not the pages of files that it has mapped: those are the system's to take back at any time, and what is stored
    grows with its data. A system without /proc does not tell them apart: then they count.
    """
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return float(psutil.Process(pid).memory_info().rss / 1e6)
    try:
        lines = status.read_text().splitlines()
    except OSError as error:
        raise psutil.NoSuchProcess(pid) from error
    return sum(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the line through the points that fits best, per unit of the first coordinate; 0 for fewer than two."""
    if len(points) < 2:
        return 0.0
    middle = sum(x for x, _ in points) / len(points)
    spread = sum((x - middle) ** 2 for x, _ in points)
    return sum((x - middle) * y for x, y in points) / spread if spread else 0.0
