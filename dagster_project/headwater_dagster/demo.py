"""Dagster's part of ``headwater demo``: the webserver, the daemon that launches the leases, the server
that they run in. No Dagster imported."""

from __future__ import annotations

from headwater.config import Project
from headwater.service.component import Component
from headwater_dagster import instance

RUNNERS = 1
"""Stage: what starts runs stops before what they write to."""
PAGES = 4
"""Stage: pages stay open until the end, and so does the server in which runs end by themselves."""


def components(project: Project, port: int | None = None) -> list[Component]:
    """Code server, webserver and daemon on the project's own instance, on loopback; ``port`` None: one that is free."""
    port = port or instance.free(instance.PORT)
    code, webserver, daemon = instance.processes(project, port=port)
    env = instance.environment(project)
    instance.create_databases(project)
    return [
        Component(name="dagster-code", argv=code, stage=PAGES, env=env),
        Component(name="dagster", argv=webserver, stage=PAGES, env=env, url=f"http://127.0.0.1:{port}"),
        Component(name="dagster-daemon", argv=daemon, stage=RUNNERS, env=env),
    ]
