"""Notices that a project's views/*.sql, jobs/*.py or headwater.toml changed, by looking at names, sizes and times."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from headwater.config import Project

LOOK_S = 1.0
"""How often the folder is looked at; a person who saves a file does not wait for it."""
Stamp = tuple[tuple[str, int, int], ...]


class ProjectWatcher:
    """Poll it; it says which part changed since the last time, at most once a second."""

    def __init__(self, project: Project, now: Callable[[], float] = time.monotonic) -> None:
        self._project = project
        self._now = now
        self._next = 0.0
        self._views = self._view_files()
        self._jobs = project.job_files()
        self._file = _stamp([project.file])

    def views_changed(self) -> bool:
        """Whether a view file was added, changed or removed."""
        seen, self._views = self._views, self._view_files()
        return seen != self._views

    def jobs_changed(self) -> bool:
        """Whether a file of jobs was added or removed; what runs them sees by itself what changed in one."""
        seen, self._jobs = self._jobs, self._project.job_files()
        return seen != self._jobs

    def project_changed(self) -> bool:
        """Whether headwater.toml is another one than at the last look."""
        seen, self._file = self._file, _stamp([self._project.file])
        return seen != self._file

    def due(self) -> bool:
        """Whether it is time to look again."""
        if self._now() < self._next:
            return False
        self._next = self._now() + LOOK_S
        return True

    def _view_files(self) -> Stamp:
        return _stamp(sorted(self._project.views_dir.glob("*.sql")))


def _stamp(paths: list[Path]) -> Stamp:
    stamps = []
    for path in paths:
        try:
            facts = path.stat()
        except FileNotFoundError:
            continue
        stamps.append((path.name, facts.st_size, facts.st_mtime_ns))
    return tuple(stamps)
