"""Whether a project has reached what its sources held at a given moment: ``up --until-caught-up``.

The end of every source is read once, at the start. Caught up means: each source's durable position has
reached its end, and views and jobs have taken in all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, Protocol

from headwater.config import Project, SourceConfig
from headwater.errors import ConfigError, PipelineError
from headwater.log import Log, jobs
from headwater.position import parse_lsn
from headwater.service.status import PIPELINE, SOURCE_PREFIX, fresh

SOURCE_GROUP = "headwater.source"


class Finding(Protocol):
    """Something the server lacks. ``sql`` mends it, where a statement can; ``fatal``: capture cannot work."""

    @property
    def what(self) -> str: ...

    @property
    def sql(self) -> str: ...

    @property
    def fatal(self) -> bool: ...


class SourceKind(Protocol):
    """What this package asks of a kind of source (entry-point group ``headwater.source``)."""

    def current_end(self, dsn: str) -> str:
        """The position that everything committed until now lies before, as text."""

    def describe(self, dsn: str) -> list[dict[str, Any]]:
        """Tables: table, rows (estimate), bytes, key (column names), identity."""

    def check(self, dsn: str) -> Sequence[Finding]:
        """What the server lacks, with the SQL that mends it."""

    def verify(
        self, source: SourceConfig, log: Log, on_table: Callable[[str], None], only: Collection[str] = ()
    ) -> Sequence[Any]:
        """Every captured table, or ``only`` those ("namespace.table"), compared with the source at one position.

        Dataclasses with at least ``table``, ``rows``, ``differences``, ``changing`` (rows left out), ``examples`` and
        ``skipped`` (why it was not compared).
        """


def source_kind(kind: str) -> SourceKind:
    """The object for a ``kind`` in headwater.toml. Raises ConfigError listing the installed kinds."""
    found = {each.name: each for each in entry_points(group=SOURCE_GROUP)}
    if kind not in found:
        raise ConfigError(f"no source of kind {kind!r}", todo=f"Installed kinds: {', '.join(sorted(found))}.")
    loaded = found[kind].load()
    made: SourceKind = loaded() if isinstance(loaded, type) else loaded
    return made


def ends(project: Project) -> dict[str, str]:
    """The current end of every declared source. Raises SourceUnreachable."""
    return {name: source_kind(each.kind).current_end(require_dsn(each)) for name, each in project.sources.items()}


def reached(log: Log, name: str, end: str) -> bool:
    """Whether the log durably holds everything of the source before ``end``."""
    state = log.producer(SOURCE_PREFIX + name)
    durable = [parse_lsn(each) for each in (state.position, state.confirmed) if each]
    return max(durable, default=-1) >= parse_lsn(end) and _copied(log, name)


def _copied(log: Log, name: str) -> bool:
    """Whether every table of the source has appeared, as far as its capture knows."""
    if any(topic.hidden and topic.source == name for topic in log.topics(hidden=True)):
        return False
    row = log.live.read().get(SOURCE_PREFIX + name)
    return row is None or row.stats.get("copying", 0) == 0


def views_reached(log: Log, commit: int) -> bool:
    """Whether every live view has seen all input up to ``commit``; one with another refresh, what it was to see."""
    views = log.views()
    if any(each.state in ("creating", "waiting") for each in views):
        return False
    if not any(each.state == "live" and each.refresh == "continuous" for each in views):
        return True
    step = log.last_step()
    consumed = step.input_commit if step else 0
    return not any(each.producer != PIPELINE for each in log.commits(consumed, commit))


class CaughtUp:
    """Poll it: sources first, then views and jobs up to the commit at which the last source arrived.

    A job may read what a view or another job has made of that: as often as there are jobs, what they wrote counts.
    ``consumers``: components that must have begun, or nobody knows what they will do.
    """

    def __init__(self, log: Log, targets: Mapping[str, str], consumers: Collection[str] = ()) -> None:
        self._log = log
        self._targets = targets
        self._consumers = consumers
        self._commit: int | None = None
        self._rounds = 0
        self.reached = False
        self._stopped_before = self._stopped()

    def poll(self) -> bool:
        """Raises PipelineError when the pipeline as a whole is paused: waiting would not end."""
        if self._commit is None:
            if not all(reached(self._log, name, end) for name, end in self._targets.items()):
                return False
            self._commit = self._log.newest_commit()
        while self._have_begun() and views_reached(self._log, self._commit) and self._jobs_reached(self._commit):
            newest = self._log.newest_commit()
            self._rounds += 1
            self.reached = newest == self._commit or self._rounds > len(jobs.read(self._log))
            if self.reached:
                return True
            self._commit = newest
        worker = self._log.live.read().get(PIPELINE)
        if worker is not None and fresh(worker) and worker.stats.get("state") == "paused":
            raise PipelineError("the pipeline is paused, so the views stay behind", todo="Run `headwater resume`.")
        return False

    def _jobs_reached(self, commit: int) -> bool:
        """Where a project declares no job any more, nobody runs those that it had."""
        return jobs.COMPONENT not in self._consumers or jobs.reached(self._log, commit)

    def _have_begun(self) -> bool:
        live = self._log.live.read()
        return all(name in live and fresh(live[name]) for name in self._consumers)

    def left_behind(self) -> dict[str, str]:
        """Views and jobs that stopped since the start, with the reason, and jobs that wait for an input.

        Those paused before were meant to be.
        """
        waiting = {f"job {each.name} waits": each.reason for each in jobs.read(self._log) if each.state == "waiting"}
        stopped = {name: reason for name, reason in self._stopped().items() if name not in self._stopped_before}
        return stopped | (waiting if jobs.COMPONENT in self._consumers else {})

    def _stopped(self) -> dict[str, str]:
        views = {
            f"view {each.name} stopped": each.reason for each in self._log.views() if each.state in ("paused", "failed")
        }
        return views | {
            f"job {each.name} stopped": each.reason for each in jobs.read(self._log) if each.state == "paused"
        }


def require_dsn(source: SourceConfig) -> str:
    if not source.dsn:
        raise ConfigError(
            f"source {source.name} has no dsn",
            todo=f"Set HEADWATER_SOURCE_{source.name.upper()}_DSN, or dsn under [source.{source.name}].",
        )
    return source.dsn
