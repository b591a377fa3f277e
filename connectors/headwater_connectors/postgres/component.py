"""What ``headwater up`` runs for PostgreSQL: one capture process per source. Light imports only."""

from __future__ import annotations

from headwater.config import Project
from headwater.service.component import Component


def components(project: Project) -> list[Component]:
    return [
        Component(name=f"source:{name}", argv=["headwater", "capture", name])
        for name, source in project.sources.items()
        if source.kind == "postgres"
    ]
