"""Every workload that the crash, power and soak tests run, by name: who adds one has it swept like the others."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from headwater import failpoint
from headwater.testing import keeping, workload
from headwater.testing.workload import Workload

WORKLOADS: dict[str, Workload] = {"capture": workload.CAPTURE, "keep": keeping.KEEPING}

SHORT = "capture"
"""The shortest of them: cut off at every single call."""


def swept(name: str, points: Sequence[int], seed: int, *, many: int) -> Sequence[int]:
    """Where a workload is cut off: everywhere in the short one, at ``many`` points of a longer one, in order."""
    if name == SHORT or len(points) <= many:
        return points
    return sorted(random.Random(seed).sample(points, k=many))


def run(name: str, folder: str, acknowledged: str, seed: int, again: bool = False, plan: str = "") -> None:
    """A workload by name; what the tests' child processes are told to do."""
    if plan:
        failpoint.follow(plan)
    WORKLOADS[name].run(Path(folder), Path(acknowledged), seed, again)
