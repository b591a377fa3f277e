"""Bringing stream jobs up to the present for a run: one that a process runs is waited for, any other is run.

Jobs stay in processes of their own: a run only starts one that ends by itself, or looks on. No Dagster in here.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from headwater.config import Project
from headwater.errors import PipelineError
from headwater.lake.status import jobs_of
from headwater.log import Log, jobs
from headwater.ownership import holder_pid
from headwater_dagster.lease import SECONDS, Account, account_of

POLL_S = 0.2


def catch_up(project: Project, log: Log, names: Sequence[str], say: Callable[[str], None]) -> list[Account]:
    """Return once these jobs have taken in what is committed now; PipelineError when one is paused, or is slow."""
    before, target = _by_name(log), log.newest_commit()
    deadline = time.monotonic() + SECONDS
    while waiting := [name for name in names if _lacks(log, name, target)]:
        idle = [name for name in waiting if holder_pid(log, jobs.PREFIX + name) is None]
        if idle:
            say(f"running {', '.join(idle)}")
            _run(project, idle)
        if time.monotonic() > deadline:
            raise PipelineError(f"not within {SECONDS:.0f} s: {', '.join(waiting)}", todo="See `headwater job list`.")
        time.sleep(POLL_S)
    after = _by_name(log)
    return [account_of(before.get(name, {}), after[name]) for name in names]


def _by_name(log: Log) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in jobs_of(log)}


def _lacks(log: Log, name: str, target: int) -> bool:
    record = jobs.find(log, name)
    if record.state in ("paused", "failed"):
        raise PipelineError(f"job {name} is {record.state}: {record.reason}", todo=f"`headwater job resume {name}`")
    rest = jobs.unseen(log, record, target)
    return rest is None or jobs.position(log, name) is None or rest.total > 0


def _run(project: Project, names: Sequence[str]) -> None:
    command = [sys.executable, "-m", "headwater.cli", "job", "run", *names, "--until-caught-up"]
    done = subprocess.run(
        [*command, "--project", str(project.root)],
        cwd=project.root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if done.returncode:
        raise PipelineError(f"the jobs ended with exit code {done.returncode}: {done.stderr[-800:].strip()}")
