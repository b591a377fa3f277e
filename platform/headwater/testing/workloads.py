"""Every workload that the crash, power and soak tests run, by name: who adds one has it swept like the others."""

from __future__ import annotations

from pathlib import Path

from headwater import failpoint
from headwater.testing import keeping, workload
from headwater.testing.workload import Workload

WORKLOADS: dict[str, Workload] = {"capture": workload.CAPTURE, "keep": keeping.KEEPING}


def run(name: str, folder: str, acknowledged: str, seed: int, again: bool = False, plan: str = "") -> None:
    """A workload by name; what the tests' child processes are told to do."""
    if plan:
        failpoint.follow(plan)
    WORKLOADS[name].run(Path(folder), Path(acknowledged), seed, again)
