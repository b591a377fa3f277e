"""Webserver and daemon of a project in the foreground, until somebody stops them. No Dagster imported.

    start   databases ─▶ code server, webserver, daemon ─▶ runs, in the code server
    stop    `stopping` mark ─▶ runs end, leases report ─▶ daemon and code server ─▶ webserver ─▶ what they left

The views' worker is none of theirs to stop: it goes on, and so does what captures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from headwater import logs
from headwater.config import Project
from headwater.errors import UsageError
from headwater.log import Log, open_log
from headwater.ownership import own
from headwater.service import status
from headwater.service.processes import end_processes, in_sessions
from headwater.service.signals import stop_signals
from headwater.service.supervisor import POLL_S, Supervisor, alive
from headwater_dagster import demo, instance
from headwater_dagster.worker import STOPPING

OWNER = "dagster"
RECORD = "dagster.json"
RUNS = "run:"
"""How the heartbeats of runs begin (see ``beats``, which imports Dagster)."""
RUNS_S = 10.0
"""What runs get to end: leases see the mark within a second, and report."""

Say = Callable[[str], None]


def run(project: Project, port: int | None, say: Say) -> int:
    """Run until SIGINT or SIGTERM; the exit code: 1 when webserver or daemon were given up.

    What an earlier one left because it was killed is ended first. Raises OwnedElsewhere while another one runs for
    this project, and UsageError when ``port`` is taken.
    """
    chosen = instance.free(port or instance.PORT)
    if port is not None and chosen != port:
        raise UsageError(f"port {port} is taken by another program", todo="Choose another one with --port.")
    with open_log(project.lake_dir, create=True) as log, own(log, OWNER), stop_signals() as stop:
        log.set_setting(STOPPING, None)
        components = demo.components(project, chosen)
        supervisor = Supervisor(project, components, lambda line: _complain(line, say), RECORD)
        left = {process.pid for _, process in alive(project.lake_dir / "run" / RECORD)}
        supervisor.stop_orphans()
        end_processes(in_sessions(left), RUNS_S)
        (url,) = (each.url for each in components if each.url)
        say(f"Dagster's pages: {url} (in a few seconds); Ctrl-C ends them")
        sessions: set[int] = set()
        try:
            while not stop.wait(POLL_S) and not supervisor.failed:
                supervisor.poll()
                sessions.update(child.pid for child in supervisor.children if child.pid is not None)
        finally:
            _end(log, supervisor, sessions)
        for child in supervisor.failed:
            say(f"{child.name} was given up: {child.last_error or child.describe_exit()}; its log is {child.log_path}")
        return 1 if supervisor.failed else 0


def _end(log: Log, supervisor: Supervisor, sessions: set[int]) -> None:
    """The order of the module's head; every wait has its limit.

    Each component began a session. What it has started is in it, but for the worker, which has one of its own.
    """
    log.set_setting(STOPPING, OWNER)
    deadline = time.monotonic() + RUNS_S
    while _runs(log) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    supervisor.stop()
    end_processes(in_sessions(sessions), RUNS_S)
    log.set_setting(STOPPING, None)


def _runs(log: Log) -> bool:
    rows = [row for name, row in log.live.read().items() if name.startswith(RUNS)]
    return any(status.fresh(row) and row.stats.get("state") != "ended" for row in rows)


def _complain(line: Mapping[str, Any], say: Say) -> None:
    """What goes wrong is said here; everything is in the log files."""
    if line["level"] in ("warn", "error", "fatal"):
        say(logs.render(line, "text"))
