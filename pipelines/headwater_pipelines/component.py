"""What ``headwater up`` runs for views: the one pipeline worker. Light imports only."""

from __future__ import annotations

from headwater.config import Project
from headwater.service.component import Component


def components(project: Project) -> list[Component]:  # noqa: ARG001 -- every project has one pipeline
    return [Component(name="pipeline:main", argv=["headwater", "views"], stage=1)]
