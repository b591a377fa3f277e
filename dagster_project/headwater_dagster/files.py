"""Where in a project's folder a view or job is written, so that its page can link there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headwater.config import Project
from headwater.log import View


@dataclass(frozen=True, kw_only=True)
class Place:
    """A file that is there, and a line of it from 1."""

    path: Path
    line: int


def of_views(project: Project, views: Sequence[View]) -> dict[str, Place]:
    """By view's name, the file of views/ whose text has its SQL word for word; else the one that bears its name."""
    texts = {path: _text(path) for path in sorted(project.views_dir.glob("*.sql"))}
    found: dict[str, Place] = {}
    for view in views:
        own = project.views_dir / f"{view.name}.sql"
        holding = [path for path, text in texts.items() if view.sql in text]
        if own in texts and (own in holding or not holding):
            holding = [own]
        if holding:
            found[view.name] = Place(path=holding[0], line=1)
    return found


def of_job(project: Project, written: str) -> Place | None:
    """The place that a job's record names as ``jobs/shop.py:7``; None when the file is gone."""
    name, _, line = written.rpartition(":")
    path = project.root / name
    return Place(path=path, line=int(line)) if line.isdigit() and path.is_file() else None


def _text(path: Path) -> str:
    """Nothing of a file that cannot be read: it is only linked to."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
