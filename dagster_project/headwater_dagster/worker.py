"""The pipeline's worker as a process: found by its heartbeat, started in a session of its own, recorded.

The worker outlives whoever started it: own session, output to a file, no inherited descriptor. That only one
of them writes is not decided here but by ownership (an OS lock and an epoch in the catalog): starting one too
many is harmless, the second says who holds the pipeline and ends.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from headwater.config import Project
from headwater.errors import PipelineError
from headwater.log import Log

PIPELINE = "pipeline:main"
WORKER = f"{PIPELINE}.worker"
"""Catalog setting: the worker's record as JSON."""
STOPPING = "stopping"
"""Catalog setting that ``demo`` and ``up`` set while they shut everything down: no end of a run means anything."""
HUNG_S = 15.0
"""A worker that has neither beaten nor used the CPU for so long hangs, and is killed."""
START_S = 60.0
"""From starting the process to its first heartbeat: imports and recovery on a busy machine."""
STOP_S = 20.0
"""Between SIGTERM and SIGKILL, as for every component."""
POLL_S = 0.1

_children: dict[int, subprocess.Popen[bytes]] = {}
"""Workers this process started: kept, so that a dead one is reaped."""


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A live worker. ``started`` is the process's start time, so that a reused pid is not taken for it."""

    pid: int
    started: float
    epoch: int
    starter: str
    beat_at: float
    cpu_s: float


def find(log: Log) -> Worker | None:
    """The worker that has beaten and lives; None when there is none.

    One that said that it has stopped is none, though its process may live: a notebook, say, that promoted a view.
    """
    row = log.live.read().get(PIPELINE)
    is_over = row is None or row.stats.get("state") == "stopped"
    process = None if row is None or is_over else _process(row.pid, row.beat_at)
    if row is None or process is None:
        return None
    recorded = record(log)
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return None
    return Worker(
        pid=row.pid,
        started=process.create_time(),
        epoch=log.producer(PIPELINE).epoch,
        starter=recorded.starter if recorded is not None and recorded.pid == row.pid else "",
        beat_at=row.beat_at,
        cpu_s=times.user + times.system,
    )


def ensure(project: Project, log: Log, starter: str) -> tuple[Worker, bool]:
    """The live worker, and whether this call started it. PipelineError with its last output when it will not run."""
    found = find(log)
    if found is not None:
        return found, False
    child = _start(project)
    deadline = time.monotonic() + START_S
    while (found := find(log)) is None:
        if child.poll() is not None and find(log) is None:
            raise _failed(project, f"ended at once with exit code {child.returncode}")
        if time.monotonic() > deadline:
            child.kill()
            raise _failed(project, f"gave no sign of life within {START_S:.0f} s and was killed")
        time.sleep(POLL_S)
    started = found.pid == child.pid
    if started:
        found = replace(found, starter=starter)
        log.set_setting(WORKER, json.dumps(asdict(found)))
    return found, started


def record(log: Log) -> Worker | None:
    """The worker that a run started last, alive or not."""
    text = log.setting(WORKER)
    return None if text is None else Worker(**json.loads(text))


def stop(log: Log) -> bool:
    """End the live worker: SIGTERM, after 20 s SIGKILL; whether there was one. It publishes what it has begun."""
    found = find(log)
    if found is None:
        return False
    process = _process(found.pid, found.beat_at)
    if process is not None:
        process.terminate()
        try:
            process.wait(STOP_S)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait()
    return True


def kill(found: Worker) -> None:
    process = _process(found.pid, found.beat_at)
    if process is not None:
        process.kill()
        process.wait()


def log_path(project: Project) -> Path:
    """Where the worker's output goes."""
    return project.lake_dir / "logs" / "pipeline-main.log"


def _process(pid: int, seen_at: float) -> psutil.Process | None:
    """The process with this pid if it lives and was there at ``seen_at`` (a later one only reuses the number)."""
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        return None
    try:
        process = psutil.Process(pid)
        if process.create_time() > seen_at + 1 or process.status() == psutil.STATUS_ZOMBIE:
            return None
    except psutil.NoSuchProcess:
        return None
    return process


def _start(project: Project) -> subprocess.Popen[bytes]:
    path = log_path(project)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "headwater.cli", "views", "--project", str(project.root)],
            cwd=project.root,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            close_fds=True,
        )
    _children[child.pid] = child
    return child


def _failed(project: Project, how: str) -> PipelineError:
    path = log_path(project)
    last = path.read_text(encoding="utf-8", errors="replace")[-800:].strip()
    return PipelineError(
        f"the pipeline's worker {how}: {last}", where=str(path), todo="Run `headwater views` to see it."
    )
