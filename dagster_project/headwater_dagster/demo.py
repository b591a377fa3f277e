"""Dagster's part of ``headwater demo``: the webserver, and the daemon that launches the leases. No Dagster imported."""

from __future__ import annotations

import socket

from headwater.config import Project
from headwater.service.component import Component
from headwater_dagster import instance

RUNNERS = 1
"""Stage: what starts runs stops before what they write to."""
PAGES = 4
"""Stage: pages stay open until the end."""


def components(project: Project) -> list[Component]:
    """Webserver and daemon on the project's own instance, on loopback."""
    port = free(instance.PORT)
    webserver, daemon = instance.processes(project, port=port)
    env = instance.environment(project)
    instance.create_databases(project)
    return [
        Component(name="dagster", argv=webserver, stage=PAGES, env=env, url=f"http://127.0.0.1:{port}"),
        Component(name="dagster-daemon", argv=daemon, stage=RUNNERS, env=env),
    ]


def free(wanted: int) -> int:
    """``wanted`` when nothing listens there, else a port that the system picks."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")
