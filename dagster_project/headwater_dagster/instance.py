"""The Dagster instance of a project: its dagster.yaml, its processes, their environment. No Dagster imported.

Everything listens on 127.0.0.1: Dagster's pages have no login.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from headwater.config import Project

FOLDER = "dagster"
PORT = 3000
MODULE = "headwater_dagster.definitions"
FILE = "dagster.yaml"

# Sensors in threads: one that is slow must not delay the rest. One lease at a time. Without
# free_slots_after_run_end_seconds a cancelled run would hold its slot for ever.
TEMPLATE = """\
# Written by headwater. Delete it to get the newest form; change it freely, it is never overwritten.
telemetry:
  enabled: false
sensors:
  use_threads: true
  num_workers: 4
run_monitoring:
  enabled: true
  start_timeout_seconds: 180
  cancel_timeout_seconds: 60
  poll_interval_seconds: 10
  free_slots_after_run_end_seconds: 60
concurrency:
  runs:
    max_concurrent_runs: 6
    tag_concurrency_limits:
      - key: stream.lease
        value:
          applyLimitPerUniqueValue: true
        limit: 1
  pools:
    granularity: run
    default_limit: 1
retention:
  schedule:
    purge_after_days: {skipped: 1, success: 7, failure: 30}
  sensor:
    purge_after_days: {skipped: 1, success: 7, failure: 30}
  auto_materialize:
    purge_after_days: {skipped: 1, success: 7, failure: 30}
"""


def write_instance(folder: Path) -> Path:
    """Make ``folder`` a DAGSTER_HOME; an existing dagster.yaml is kept. Returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    if not path.exists():
        path.write_text(TEMPLATE, encoding="utf-8")
    return path


def home(project: Project) -> Path:
    return project.root / FOLDER


def environment(project: Project) -> dict[str, str]:
    """What the processes need in their environment, besides what is there."""
    return {"DAGSTER_HOME": str(home(project)), "HEADWATER_PROJECT": str(project.root)}


def processes(project: Project, *, port: int = PORT) -> list[list[str]]:
    """Write the project's instance; the command lines of webserver and daemon, in the order to start them.

    Run them with ``environment(project)``; stop the daemon first.
    """
    write_instance(home(project))
    webserver = ["-m", "dagster_webserver", "--host", "127.0.0.1", "--port", str(port), "--module-name", MODULE]
    daemon = ["-m", "dagster._daemon", "run", "--module-name", MODULE]
    return [[sys.executable, *webserver], [sys.executable, *daemon]]


def create_databases(project: Project) -> None:
    """Make the instance's databases. Webserver and daemon would race to do so; the loser dies of it."""
    create = [sys.executable, "-c", "import dagster; dagster.DagsterInstance.get().dispose()"]
    subprocess.run(create, env={**os.environ, **environment(project)}, check=True, capture_output=True)
