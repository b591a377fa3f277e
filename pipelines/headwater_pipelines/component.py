"""What ``headwater up`` runs: the one pipeline worker, and the project's jobs if any. Light imports only."""

from __future__ import annotations

import os
from collections.abc import Mapping

from headwater.config import Project
from headwater.service.component import Component

ALLOCATOR = "GLIBC_TUNABLES"
_TUNED = (
    "glibc.malloc.tcache_count=2000:glibc.malloc.trim_threshold=134217728:glibc.malloc.mmap_threshold=33554432"
    ":glibc.malloc.arena_max=2"
)
"""A step is some fifty small statements, and planning each allocates and frees thousands of small objects: glibc keeps
seven of a size at hand for a thread, and gives memory back that the next statement asks for. With these a step of ten
views took 95.6 ms of CPU instead of 108.7 (means of three). At most 128 MiB stay with the process for it. Two arenas
are enough where one thread does nearly everything; with sixteen each that came by kept some 12 MB. Other allocators do
not look at it."""


def components(project: Project) -> list[Component]:
    views = Component(name="pipeline:main", argv=["headwater", "views"], stage=1, env=environment(os.environ))
    jobs = [Component(name="jobs:main", argv=["headwater", "job", "run"], stage=1)] if project.job_files() else []
    return [views, *jobs]


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """What the worker needs beside the environment it gets; what a person has chosen stays."""
    return {} if ALLOCATOR in given else {ALLOCATOR: _TUNED}
