"""What a project declares and its lake holds at this moment: the source of truth of every asset.

Read once when Dagster loads the code location, without network: a source is named from headwater.toml, never
asked. A lake that does not exist yet is an empty one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from headwater.catalog.catalog import FILE
from headwater.config import Project, SourceConfig, load
from headwater.log import Log, Topic, View, jobs, open_log
from headwater.log.jobs import JobRecord

VIEWS_NAMESPACE = "views"
JOBS_NAMESPACE = "jobs"
PROJECT_VARIABLE = "HEADWATER_PROJECT"


@dataclass(frozen=True, kw_only=True)
class SourceData:
    """A declared source."""

    source: SourceConfig


@dataclass(frozen=True, kw_only=True)
class TopicData:
    """A topic that a source feeds; ``source`` is None once headwater.toml no longer declares it."""

    topic: Topic
    source: SourceConfig | None


@dataclass(frozen=True, kw_only=True)
class ViewData:
    """A view; ``changelog`` is None until its first step is published."""

    view: View
    changelog: Topic | None
    topics: tuple[Topic, ...]
    """What its SQL may name."""
    views: tuple[str, ...]
    outputs: Mapping[str, str] = field(default_factory=dict)
    """Of the topics that jobs write, the job's name."""


@dataclass(frozen=True, kw_only=True)
class JobData:
    """A stream job; ``output`` is None until its first step is published. The rest as in ``ViewData``."""

    job: JobRecord
    output: Topic | None
    topics: tuple[Topic, ...]
    views: tuple[str, ...]
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Inventory:
    sources: tuple[SourceData, ...]
    topics: tuple[TopicData, ...]
    views: tuple[ViewData, ...]
    jobs: tuple[JobData, ...] = ()
    since: datetime | None = None
    """The time of the lake's first commit."""


def project_from_environment() -> Project:
    """The project of HEADWATER_PROJECT, else the nearest headwater.toml. Raises ConfigError."""
    return load(os.environ.get(PROJECT_VARIABLE) or None)


def lake_exists(lake_dir: Path) -> bool:
    return (lake_dir / FILE).is_file()


def take(project: Project) -> Inventory:
    """Read the project's lake, if there is one."""
    sources = tuple(SourceData(source=each) for each in project.sources.values())
    if not lake_exists(project.lake_dir):
        return Inventory(sources=sources, topics=(), views=())
    with open_log(project.lake_dir) as log:
        return _read(project, log, sources)


def _read(project: Project, log: Log, sources: tuple[SourceData, ...]) -> Inventory:
    by_name = {topic.name: topic for topic in log.topics()}
    captured = tuple(topic for topic in by_name.values() if topic.source)
    views, records = log.views(), jobs.read(log)
    names = tuple(view.name for view in views)
    outputs = {record.output: record.name for record in records}
    known = (*captured, *(topic for name, topic in by_name.items() if name in outputs))
    first = log.commits(limit=1)
    return Inventory(
        sources=sources,
        since=first[0].time if first else None,
        topics=tuple(TopicData(topic=topic, source=project.sources.get(topic.source or "")) for topic in captured),
        views=tuple(
            ViewData(
                view=view,
                changelog=by_name.get(f"{VIEWS_NAMESPACE}.{view.name}"),
                topics=known,
                views=names,
                outputs=outputs,
            )
            for view in views
        ),
        jobs=tuple(
            JobData(job=each, output=by_name.get(each.output), topics=known, views=names, outputs=outputs)
            for each in records
        ),
    )
