"""What ``headwater up`` runs: the one pipeline worker, and the project's jobs if any. Light imports only."""

from __future__ import annotations

from headwater.config import Project
from headwater.service.component import Component


def components(project: Project) -> list[Component]:
    views = Component(name="pipeline:main", argv=["headwater", "views"], stage=1)
    declares_jobs = any(project.jobs_dir.glob("*.py"))
    jobs = [Component(name="jobs:main", argv=["headwater", "job", "run"], stage=1)] if declares_jobs else []
    return [views, *jobs]
