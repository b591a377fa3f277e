"""The Dagster instance of a project: its files, its processes, their environment. No Dagster imported.

Everything listens on 127.0.0.1: Dagster's pages have no login.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from headwater.config import Project

FOLDER = "dagster"
HOST = "127.0.0.1"
PORT = 3000
MODULE = "headwater_dagster.definitions"
FILE = "dagster.yaml"
WORKSPACE = "workspace.yaml"
"""For Dagster's own commands: loads the definitions wherever it is used."""
SERVED = "served.yaml"
"""The workspace of the processes that headwater starts: asks their code server."""
LOCATION = "headwater"
"""What Dagster calls the definitions."""

# The storage is Dagster's SQLite, with connections that are kept. Sensors one after the other, in a thread of their
# own: two at once make each other slower, as both ask one process; with slow ones of your own, more. One lease at a
# time. Without free_slots_after_run_end_seconds a cancelled run would hold its slot for ever. nux is a dialog that asks
# newcomers for their address.
INSTANCE_TEXT = """\
# Written by headwater. Delete it to get the newest form; change it freely, it is never overwritten.
storage:
  custom:
    module: headwater_dagster.storage
    class: Storage
    config:
      base_dir: {env: DAGSTER_HOME}
telemetry:
  enabled: false
nux:
  enabled: false
sensors:
  use_threads: true
  num_workers: 1
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


WORKSPACE_TEXT = f"""\
# Written by headwater; change it freely, it is never overwritten. HEADWATER_PROJECT names the project, or else the
# folder that Dagster is started in.
load_from:
  - python_module:
      module_name: {MODULE}
      location_name: {LOCATION}
"""


def write_instance(folder: Path) -> Path:
    """Make ``folder`` a DAGSTER_HOME with a workspace; what is there is kept. Returns its dagster.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in ((FILE, INSTANCE_TEXT), (WORKSPACE, WORKSPACE_TEXT)):
        if not (folder / name).exists():
            (folder / name).write_text(text, encoding="utf-8")
    return folder / FILE


def home(project: Project) -> Path:
    return project.root / FOLDER


def environment(project: Project) -> dict[str, str]:
    """What the processes need in their environment, besides what is there."""
    return {"DAGSTER_HOME": str(home(project)), "HEADWATER_PROJECT": str(project.root)}


def processes(project: Project, *, port: int = PORT, code_port: int | None = None) -> list[list[str]]:
    """Write the project's instance; the command lines of code server, webserver and daemon, in the order to start them.

    Run them with ``environment(project)``; stop the daemon first. The definitions live in the code server, on
    ``code_port`` (None: a free one), and both others ask it: left to themselves each would load them in a process of
    its own, and the daemon in a new one every minute, whose first ticks take seconds. The code
    server follows the project (see ``server``).
    """
    write_instance(home(project))
    serving = code_port or free(0)
    workspace = _write_workspace(home(project), serving)
    code = ["-m", "headwater_dagster.server", "--port", str(serving)]
    webserver = ["-m", "dagster_webserver", "--host", HOST, "--port", str(port), "--workspace", str(workspace)]
    daemon = ["-m", "dagster._daemon", "run", "--workspace", str(workspace)]
    return [[sys.executable, *each] for each in (code, webserver, daemon)]


def free(wanted: int) -> int:
    """``wanted`` when nothing listens there, else a port that the system picks."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError(f"no free port on {HOST}")


def _write_workspace(folder: Path, port: int) -> Path:
    """Where the definitions are; written anew each time, for the port is another."""
    path = folder / SERVED
    path.write_text(
        f"# Written by headwater at each start.\nload_from:\n  - grpc_server:\n      host: {HOST}\n"
        f"      port: {port}\n      location_name: {LOCATION}\n",
        encoding="utf-8",
    )
    return path


def create_databases(project: Project) -> None:
    """Make the instance's databases. Webserver and daemon would race to do so; the loser dies of it."""
    create = [sys.executable, "-c", "import dagster; dagster.DagsterInstance.get().dispose()"]
    subprocess.run(create, env={**os.environ, **environment(project)}, check=True, capture_output=True)
