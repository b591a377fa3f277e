"""Whether a project is another one for Dagster: what a stamp of it says. No Dagster in here.

Figures, states and positions are not part of it: they are reported, definitions are loaded.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from headwater.config import Project
from headwater.log import Log, jobs


def stamp(project: Project, log: Log | None) -> str:
    """Another text whenever other assets, checks or descriptions would be loaded. Reads the catalog for a millisecond.

    ``log`` is None while there is no lake.
    """
    said: list[object] = [_written(project.file)]
    if log is not None:
        topics = [topic for topic in log.topics() if not topic.hidden]
        said += [
            (t.name, t.schema_version, t.partitions, t.source, t.description, t.owner, t.criticality, t.classification)
            for t in topics
        ]
        said += [(view.id, view.name, view.sql, sorted(view.options.items())) for view in log.views()]
        said += [(j.name, j.inputs, j.output, j.description, j.file, j.version) for j in jobs.read(log)]
        said += [log.newest_commit() > 0]  # not by `commits`: the oldest are in the archive, which takes an engine
    return hashlib.sha256(repr(said).encode()).hexdigest()


def _written(path: Path) -> int:
    """When the file was changed; 0 once it is gone."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
