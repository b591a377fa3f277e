"""What a project declares and its lake holds at this moment: the source of truth of every asset.

Read once when Dagster loads the code location, without network: a source is named from headwater.toml, never
asked. A lake that does not exist yet is an empty one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from headwater.catalog.catalog import FILE
from headwater.config import Project, SourceConfig, load
from headwater.log import Log, Topic, View, dead_letters, jobs, open_log
from headwater.log.jobs import JobRecord
from headwater.schema import Schema
from headwater_dagster import compiled, files

VIEWS_NAMESPACE = "views"
JOBS_NAMESPACE = "jobs"
PRODUCED = ("event", "table")
"""What kinds of topics producers write."""
PROJECT_VARIABLE = "HEADWATER_PROJECT"
REPORT_SLACK_S = 60.0
"""A report may be so late: one materialization a minute, whoever makes it."""


@dataclass(frozen=True, kw_only=True)
class SourceData:
    """A declared source."""

    source: SourceConfig


@dataclass(frozen=True, kw_only=True)
class TopicData:
    """A topic that a source feeds, or producers (``topic.source`` is None); ``source`` is None, too, once
    headwater.toml no longer declares it."""

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
    schemas: Mapping[str, Schema] = field(default_factory=dict)
    """Of every view whose columns are known, by its name; its own among them."""
    reads: tuple[str, ...] | None = None
    """Full names of what it reads, where the compiler was asked."""
    place: files.Place | None = None
    """Where in the project it is written."""
    fresh_s: float | None = None
    """Seconds within which it must have moved, where that is asked for."""


@dataclass(frozen=True, kw_only=True)
class JobData:
    """A stream job; ``output`` is None until its first step is published. The rest as in ``ViewData``."""

    job: JobRecord
    output: Topic | None
    topics: tuple[Topic, ...]
    views: tuple[str, ...]
    outputs: Mapping[str, str] = field(default_factory=dict)
    place: files.Place | None = None


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
    views, records = log.views(), jobs.read(log)
    outputs = {record.output: record.name for record in records}
    written = tuple(topic for topic in by_name.values() if topic.source or _is_produced(topic, project, outputs))
    first = log.commits(limit=1)
    shared: dict[str, Any] = {
        "topics": (*written, *(topic for name, topic in by_name.items() if name in outputs)),
        "views": tuple(view.name for view in views),
        "outputs": outputs,
    }
    return Inventory(
        sources=sources,
        since=first[0].time if first else None,
        topics=tuple(TopicData(topic=topic, source=project.sources.get(topic.source or "")) for topic in written),
        views=tuple(_views(project, log, views, by_name, shared)),
        jobs=tuple(
            JobData(job=each, output=by_name.get(each.output), place=files.of_job(project, each.file), **shared)
            for each in records
        ),
    )


def _is_produced(topic: Topic, project: Project, outputs: Mapping[str, str]) -> bool:
    """Programs write it, and views may read it; its name is not that of a source, which is an asset itself."""
    aside = topic.name.startswith(f"{VIEWS_NAMESPACE}.") or topic.name.endswith(dead_letters.SUFFIX)
    return topic.kind in PRODUCED and not aside and topic.name not in {*outputs, *project.sources}


def _views(
    project: Project, log: Log, views: Sequence[View], by_name: Mapping[str, Topic], shared: Mapping[str, Any]
) -> Iterator[ViewData]:
    changelogs = {view.name: by_name.get(f"{VIEWS_NAMESPACE}.{view.name}") for view in views}
    schemas = {name: topic.schema for name, topic in changelogs.items() if topic is not None}
    asked = compiled.ask(log, views, known=schemas)
    schemas |= {name: Schema.of(dict(each.columns)) for name, each in asked.items() if name not in schemas}
    written = files.of_views(project, views)
    for view in views:
        yield ViewData(
            view=view,
            changelog=changelogs[view.name],
            schemas=schemas,
            reads=asked[view.name].reads if view.name in asked else None,
            place=written.get(view.name),
            fresh_s=_fresh_s(project, view.name),
            **shared,
        )


def _fresh_s(project: Project, view: str) -> float | None:
    """What is promised of a view, but no less than what lies between two reports of one that moves all the time."""
    slo = project.slo(f"{VIEWS_NAMESPACE}.{view}")
    return max(slo.moved_within_s, slo.report_every_s + REPORT_SLACK_S) if slo.moved_within_s else None
