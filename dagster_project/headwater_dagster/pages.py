"""Webserver and daemon of a project in the foreground, until somebody stops them. No Dagster imported.

    start   databases ─▶ code server, webserver, daemon ─▶ runs, in the code server
    stop    `stopping` mark ─▶ leases report and end ─▶ daemon and code server ─▶ webserver ─▶ what is left of runs

The views' worker is none of theirs to stop: it goes on, and so does what captures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import psutil

from headwater import logs
from headwater.config import Project
from headwater.errors import UsageError
from headwater.log import Log, open_log
from headwater.ownership import own
from headwater.service import status
from headwater.service.processes import descendants, end_processes
from headwater.service.signals import stop_signals
from headwater.service.supervisor import POLL_S, Supervisor
from headwater_dagster import demo, instance
from headwater_dagster.lease import LEASE
from headwater_dagster.worker import STOPPING

OWNER = "dagster"
RECORD = "dagster.json"
RUNS_S = 10.0
"""What leases get to report and end once the mark is set; they look every second."""

Say = Callable[[str], None]


def run(project: Project, port: int | None, say: Say) -> int:
    """Run until SIGINT or SIGTERM; the exit code: 1 when webserver or daemon were given up.

    Raises OwnedElsewhere while another one runs for this project, and UsageError when ``port`` is taken.
    """
    chosen = instance.free(port or instance.PORT)
    if port is not None and chosen != port:
        raise UsageError(f"port {port} is taken by another program", todo="Choose another one with --port.")
    with open_log(project.lake_dir, create=True) as log, own(log, OWNER), stop_signals() as stop:
        log.set_setting(STOPPING, None)
        components = demo.components(project, chosen)
        supervisor = Supervisor(project, components, lambda line: _complain(line, say), RECORD)
        supervisor.stop_orphans()
        (url,) = (each.url for each in components if each.url)
        say(f"Dagster's pages: {url} (in a few seconds); Ctrl-C ends them")
        try:
            while not stop.wait(POLL_S) and not supervisor.failed:
                supervisor.poll()
        finally:
            _end(log, supervisor)
        for child in supervisor.failed:
            say(f"{child.name} was given up: {child.last_error or child.describe_exit()}; its log is {child.log_path}")
        return 1 if supervisor.failed else 0


def _end(log: Log, supervisor: Supervisor) -> None:
    """The order of the module's head; every wait has its limit."""
    log.set_setting(STOPPING, OWNER)
    deadline = time.monotonic() + RUNS_S
    while _leased(log) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    family = _family(log, supervisor)
    supervisor.stop()
    end_processes(family, RUNS_S)
    log.set_setting(STOPPING, None)


def _family(log: Log, supervisor: Supervisor) -> list[psutil.Process]:
    """Code servers and runs, which their parents would leave behind; the worker is not one of them."""
    worker = log.live.read().get(status.PIPELINE)
    found = descendants(child.pid for child in supervisor.children)
    return [each for each in found if worker is None or each.pid != worker.pid]


def _leased(log: Log) -> bool:
    row = log.live.read().get(LEASE)
    return row is not None and status.fresh(row) and row.stats.get("state") != "ended"


def _complain(line: Mapping[str, Any], say: Say) -> None:
    """What goes wrong is said here; everything is in the log files."""
    if line["level"] in ("warn", "error", "fatal"):
        say(logs.render(line, "text"))
