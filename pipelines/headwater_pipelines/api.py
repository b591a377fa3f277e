"""Views for programs and notebooks: create, drop, explain, where they come from, a project's files.

Heavy imports are inside the functions: command line and notebook load this module at start.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwater.catalog.records import View
    from headwater.config import Project
    from headwater.log import Log
    from headwater_pipelines.compiler.explain import Explain


def create_view(lake_or_log: Any, sql: str, *, name: str = "") -> View:
    """Check a definition and register it; the pipeline worker fills it.

    ``sql`` is CREATE MATERIALIZED VIEW ... AS SELECT ..., or a bare SELECT with ``name``. Nothing is created
    when it is refused: SqlSyntax, UnsupportedSql, UnknownColumn, NameNotFound, DuplicateName.
    """
    from headwater_pipelines.compiler import compile_view, parse
    from headwater_pipelines.compiler.explain import require_incremental
    from headwater_pipelines.runtime import registry

    log = _log(lake_or_log)
    definition = parse(sql, name=name)
    compiled = compile_view(definition, registry.relations(log))
    require_incremental(compiled)
    return log.create_view(definition.name, definition.query, dict(definition.options))


def drop_view(lake_or_log: Any, name: str) -> None:
    """End a view. Refused (UsageError) while other views read it; older positions stay readable."""
    from headwater.errors import UsageError

    log = _log(lake_or_log)
    view = log.view(name)
    readers = [reader for reader, reads in lineage(log).items() if f"views.{view.name}" in reads]
    if readers:
        raise UsageError(f"view {name} is read by {', '.join(readers)}", todo=f"Drop {readers[0]} first.")
    log.drop_view(name)


def pause_view(lake_or_log: Any, name: str, reason: str = "paused by hand") -> None:
    """Stop maintaining a view; what it has published stays readable."""
    log = _log(lake_or_log)
    log.set_view(log.view(name).name, state="paused", reason=reason)


def resume_view(lake_or_log: Any, name: str) -> None:
    """Maintain a paused or failed view again: it is rebuilt, and its changelog receives the difference."""
    log = _log(lake_or_log)
    log.set_view(log.view(name).name, state="creating", reason="")


PAUSED_BY = "pipeline:main.paused_by"
"""Catalog setting: who paused the whole pipeline; absent while it may run."""


def paused_by(lake_or_log: Any) -> str | None:
    """Who paused the whole pipeline; None while it may run."""
    setting: str | None = _log(lake_or_log).setting(PAUSED_BY)
    return setting


def pause_pipeline(lake_or_log: Any, by: str = "by hand") -> None:
    """Stop all views where they stand, until ``resume_pipeline``; nothing is rebuilt after it."""
    _log(lake_or_log).set_setting(PAUSED_BY, by)


def resume_pipeline(lake_or_log: Any) -> None:
    """Let the pipeline go on from where it stands; views paused by name stay paused."""
    _log(lake_or_log).set_setting(PAUSED_BY, None)


def explain(lake_or_log: Any, sql: str, *, name: str = "") -> Explain:
    """How a definition, or the existing view of that name, is maintained: node by node. Creates nothing."""
    from headwater_pipelines.compiler import compile_view, parse
    from headwater_pipelines.compiler.explain import explain as explained
    from headwater_pipelines.runtime import registry

    log = _log(lake_or_log)
    known = {view.name: view for view in log.views()}
    if sql.strip() in known:
        name = sql.strip()
        sql = known[name].sql
    return explained(compile_view(parse(sql, name=name or "view"), registry.relations(log)))


def lineage(lake_or_log: Any) -> dict[str, list[str]]:
    """View name → full names of the topics and views that its definition reads."""
    from headwater_pipelines.runtime import registry

    log = _log(lake_or_log)
    views = log.views()
    compiled, _ = registry.compile_all(log, views)
    return {view.name: list(compiled[view.id].reads) if view.id in compiled else [] for view in views}


def column_lineage(lake_or_log: Any) -> dict[str, dict[str, list[str]]]:
    """View name → topic's full name → the columns of it that the view reads, through other views as well."""
    from headwater_pipelines.runtime import registry

    log = _log(lake_or_log)
    compiled, _ = registry.compile_all(log, log.views())
    return {view.name: {base.name: sorted(names) for base, names in view.used.items()} for view in compiled.values()}


def sync_project_views(project: Project, log: Log) -> list[str]:
    """Register the views of ``<project>/views/*.sql`` that the lake lacks; returns what it did, a line each.

    A file whose tables do not exist yet (nothing is captured so far) is registered all the same: the worker
    builds it when they appear. A file that differs from the view of its name is reported, not applied.
    """
    from headwater.errors import NameNotFound
    from headwater_pipelines.compiler import read_file
    from headwater_pipelines.compiler.explain import require_incremental
    from headwater_pipelines.compiler.view import compile_view
    from headwater_pipelines.runtime import registry

    done, waiting = [], sorted(Path(project.views_dir).glob("*.sql"))
    progress = True
    while waiting and progress:
        progress, later = False, []
        for path in waiting:
            definition = read_file(path)
            known = {view.name: view for view in log.views()}.get(definition.name)
            if known is not None:
                if known.sql != definition.query:
                    done.append(f"{path.name}: differs from view {known.name}; drop the view to apply it")
                continue
            try:
                require_incremental(compile_view(definition, registry.relations(log)))
            except NameNotFound:
                later.append(path)
                continue
            log.create_view(definition.name, definition.query, dict(definition.options))
            done.append(f"{path.name}: view {definition.name} created")
            progress = True
        waiting = later
    for path in waiting:
        definition = read_file(path)
        log.create_view(definition.name, definition.query, dict(definition.options))
        done.append(f"{path.name}: view {definition.name} waits for its tables")
    return done


def _log(lake_or_log: Any) -> Log:
    log: Log = getattr(lake_or_log, "log", lake_or_log)
    return log
