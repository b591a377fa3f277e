"""What each of several processes costs while they run side by side: CPU seconds, memory over time."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import psutil

from benchmarks.harness import family, own_mb

SAMPLE_S = 2.0


class Costs:
    """Samples processes by role while the block runs; a role is a process with, if it says so, all below it.

    ``pids``: role -> pid. ``whole``: the roles that count with their descendants.
    """

    def __init__(self, pids: Mapping[str, int], whole: frozenset[str] = frozenset()) -> None:
        self._pids, self._whole = dict(pids), whole
        self._cpu: dict[tuple[str, int, float], tuple[float, float]] = {}
        self.memory: dict[str, list[tuple[float, float]]] = {role: [] for role in pids}
        """Of each role: (monotonic seconds, its own MB of 10^6 bytes, see ``own_mb``)."""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="costs")

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

    def cpu_s(self, role: str) -> float:
        """User plus system time that a role spent since the block began."""
        return sum(last - first for (name, _, _), (first, last) in self._cpu.items() if name == role)

    def _run(self) -> None:
        while not self._done.wait(SAMPLE_S):
            self._sample()

    def _sample(self, *, first: bool = False) -> None:
        for role, pid in self._pids.items():
            now, held = time.monotonic(), 0.0
            for process in family([pid]):
                if process.pid != pid and role not in self._whole:
                    continue
                try:
                    with process.oneshot():
                        times, key = process.cpu_times(), (role, process.pid, process.create_time())
                    held += own_mb(process.pid)
                except psutil.Error:  # ended meanwhile
                    continue
                spent = times.user + times.system
                self._cpu[key] = (self._cpu.get(key, (spent if first else 0.0, spent))[0], spent)
            if held:
                self.memory[role].append((now, held))


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the line through the points that fits best, per unit of the first coordinate; 0 for fewer than two."""
    if len(points) < 2:
        return 0.0
    middle = sum(x for x, _ in points) / len(points)
    spread = sum((x - middle) ** 2 for x, _ in points)
    return sum((x - middle) * y for x, y in points) / spread if spread else 0.0
