"""Dagster's part of ``headwater demo``: webserver and daemon of the project's instance, on loopback."""

from __future__ import annotations

import socket

from headwater.config import Project
from headwater.service.component import Component
from headwater_dagster.instance import PORT, environment, processes

RUNNERS, PAGES = 1, 4
"""Stages: what starts runs stops before what writes, pages stay open until the end."""


def components(project: Project) -> list[Component]:
    """The webserver on its usual port, or on a free one when that is taken, and the daemon."""
    port = _free(PORT)
    webserver, daemon = processes(project, port=port)
    env = environment(project)
    return [
        Component(name="dagster", argv=webserver, stage=PAGES, env=env, url=f"http://127.0.0.1:{port}"),
        Component(name="dagster-daemon", argv=daemon, stage=RUNNERS, env=env),
    ]


def _free(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise AssertionError("a system that has no free port at all")
