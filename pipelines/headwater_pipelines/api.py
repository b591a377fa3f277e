"""Views for programs and notebooks: create, replace, rename, drop, explain, where they come from, a project's files.

Heavy imports are inside the functions: command line and notebook load this module at start.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.errors import about

if TYPE_CHECKING:
    from headwater.catalog.records import View
    from headwater.config import Project
    from headwater.log import Log
    from headwater.position import Position
    from headwater.schema import Schema
    from headwater_pipelines.compiler import CompiledView
    from headwater_pipelines.compiler.definition import Definition
    from headwater_pipelines.compiler.explain import Explain
    from headwater_pipelines.replay.comparison import Comparison
    from headwater_pipelines.replay.replay import Replayed


def create_view(lake_or_log: Any, sql: str, *, name: str = "") -> View:
    """Check a definition and register it; the pipeline worker fills it.

    ``sql`` is CREATE MATERIALIZED VIEW ... AS SELECT ..., or a bare SELECT with ``name``. Nothing is created
    when it is refused: SqlSyntax, UnsupportedSql, UnknownColumn, NameNotFound, DuplicateName.
    """
    from headwater_pipelines.compiler import compile_view, parse
    from headwater_pipelines.compiler.explain import require_incremental
    from headwater_pipelines.runtime import registry

    log = _log(lake_or_log)
    with about(sql):
        definition = parse(sql, name=name)
        compiled = compile_view(definition, registry.relations(log))
        require_incremental(compiled)
    return log.create_view(definition.name, definition.query, dict(definition.options))


def replace_view(lake_or_log: Any, sql: str, *, name: str = "") -> View:
    """Put another definition with the same columns in a view's place; the pipeline worker builds it beside the old one.

    The old one is maintained and read until the switch, one commit, in which the changelog receives the difference:
    views that read it, consumers and watchers stay right. Returns the definition that waits for it; the view when
    nothing differs but what is said about it, or nothing was published before. Refused like ``create_view``;
    SchemaError when the columns differ.
    """
    from dataclasses import replace

    from headwater_pipelines.compiler import parse
    from headwater_pipelines.compiler.explain import require_incremental
    from headwater_pipelines.runtime import registry

    log = _log(lake_or_log)
    with about(sql):
        definition = parse(sql, name=name)
    old = log.view(definition.name)
    views = log.views()
    before, _ = registry.compile_all(log, views)
    _require_no_cycle(log, definition, old, before)
    new = replace(old, id=-1, sql=definition.query, options=dict(definition.options), replaces=old.id)
    after, errors = registry.compile_all(log, [new if view is old else view for view in views])
    readers = _readers(before, old.name)
    for broken in (-1, *(view.id for view in views if view.name in readers and view.id in before)):
        if broken in errors:
            with about(sql):
                raise errors[broken]
        require_incremental(after[broken])
    if old.topic is None:  # nothing of it is published: there is nothing to keep
        log.drop_view(old.name)
        return log.create_view(new.name, new.sql, dict(new.options))
    _require_columns(old.name, log.topic(old.topic).schema, after[-1], readers)
    if (old.sql, _rules(old)) == (new.sql, _rules(new)) and not log.replacements():
        return log.describe_view(old, dict(new.options))
    return log.replace_view(old, old.name, new.sql, dict(new.options))


def rename_view(lake_or_log: Any, name: str, to: str) -> View:
    """Give a view another name, with the pipeline's next step; older positions know it by the old one.

    Its changelog begins anew under the new name, with all rows. UsageError while other views read it; DuplicateName.
    """
    from headwater.errors import UsageError
    from headwater.types import quote
    from headwater_pipelines.compiler import parse

    log = _log(lake_or_log)
    view = log.view(name)
    readers = dependents(log, name)
    if readers:
        raise UsageError(
            f"view {name} is read by {', '.join(readers)}, whose SQL names it",
            todo=f"Create {to} beside it, replace the views that read {name}, then drop {name}.",
        )
    to = parse(f"CREATE MATERIALIZED VIEW {quote(to)} AS SELECT 1").name
    return log.replace_view(view, to, view.sql, dict(view.options))


def drop_view(lake_or_log: Any, name: str, *, cascade: bool = False) -> list[str]:
    """End a view; older positions stay readable. Returns what was dropped.

    Refused (UsageError) while other views read it; with ``cascade`` they are dropped before it.
    """
    from headwater.errors import UsageError

    log = _log(lake_or_log)
    view = log.view(name)
    readers = dependents(log, name)
    if readers and not cascade:
        raise UsageError(
            f"view {name} is read by {', '.join(readers)}",
            todo=f"Drop {readers[0]} first, or all of them: --cascade, in Python cascade=True.",
        )
    for each in (*readers, view.name):
        log.drop_view(each)
    return [*readers, view.name]


def dependents(lake_or_log: Any, name: str) -> list[str]:
    """Views that read a view, directly or through others, in an order in which they can be dropped."""
    from headwater_pipelines.runtime import registry

    log = _log(lake_or_log)
    return _readers(registry.compile_all(log, log.views())[0], name)


def pause_view(lake_or_log: Any, name: str, reason: str = "paused by hand") -> None:
    """Stop maintaining a view; what it has published stays readable."""
    log = _log(lake_or_log)
    log.set_view(log.view(name).name, state="paused", reason=reason)


def resume_view(lake_or_log: Any, name: str) -> None:
    """Maintain a paused or failed view again: it is rebuilt, and its changelog receives the difference."""
    log = _log(lake_or_log)
    log.set_view(log.view(name).name, state="creating", reason="")


def refresh_view(lake_or_log: Any, name: str) -> None:
    """Have the pipeline bring a view with ``refresh = 'manual'`` or ``'every ...'`` up to date now."""
    from headwater.errors import UsageError

    log = _log(lake_or_log)
    view = log.view(name)
    if view.refresh == "continuous":
        raise UsageError(f"view {name} is brought up to date by every step", todo="`headwater status` shows its lag.")
    if view.state == "paused":
        raise UsageError(f"view {name} is paused: {view.reason}", todo=f"`headwater resume {name}` refreshes it, too.")
    log.set_view(view, state="creating", reason="")


def replay_view(
    lake_or_log: Any,
    project: Project,
    name: str,
    start: Position = None,
    stop: Position = None,
    *,
    promote: bool = False,
    keep: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
    tell: Callable[[str, int], None] = lambda *_: None,
) -> Replayed:
    """Make a view anew beside the live one and compare: the tables' rows at ``start``, plus the changes up to ``stop``.

    Positions are those of ``at=``; compared is with what a reader sees at ``stop``. Without ``start`` it is made from
    the tables' rows there. Nothing of the live view changes.
    With ``promote`` the pipeline then puts it in the live view's place, in one commit that holds the difference; it is
    run here if nobody runs it. ``keep`` is a Parquet file for the rows that were made. ``say`` hears of progress, a
    line each time; ``tell`` of the phase (making, comparing, promoting) and the records read so far.

    NameNotFound, UsageError for an empty range, NotYet where the view had not published yet, Expired beyond retention
    (it names the oldest position), PipelineError where it cannot be promoted.
    """
    from headwater import position
    from headwater_pipelines.replay import audit, replay

    log = _log(lake_or_log)
    after, began = None if start is None else position.resolve(log, start), time.time()
    plan = replay.plan(log, name, after, position.resolve(log, stop))
    say(plan.text)
    found = replay.replay(log, plan, project.settings, say, promote=promote, keep=keep, tell=tell)
    if not found.commit and plan.step == log.newest_common_step(frozenset({plan.view.id}), log.newest_commit()):
        audit.keep(log, plan, found.comparison, began)
    return found


def plan_replay(lake_or_log: Any, name: str, start: Position = None, stop: Position = None) -> dict[str, int]:
    """What ``replay_view`` would read: ``after`` and ``upto`` (input commits), ``rows``, ``files``, ``bytes``; about.

    Raises as ``replay_view``.
    """
    from headwater import position
    from headwater_pipelines.replay import replay

    log = _log(lake_or_log)
    after = None if start is None else position.resolve(log, start)
    plan = replay.plan(log, name, after, position.resolve(log, stop))
    files = replay.files(log, plan)
    return {
        "after": plan.start,
        "upto": plan.stop,
        "rows": plan.rows,
        "files": len(files),
        "bytes": sum(files.values()),
    }


def compare_view(lake_or_log: Any, project: Project, name: str) -> Comparison:
    """Compare all rows of a view, as readers see them, with those of its query over the same tables.

    The answer is kept: ``headwater status --json`` and the view's check in Dagster have it. Nothing of the view
    changes. NameNotFound; NotYet where it has published nothing.
    """
    from headwater_pipelines.replay import audit

    return audit.audit(_log(lake_or_log), project.settings, name)


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
    from headwater_pipelines.compiler.explain import Cost
    from headwater_pipelines.compiler.explain import explain as explained
    from headwater_pipelines.runtime import registry

    log = _log(lake_or_log)
    known = {view.name: view for view in log.views()}
    there = known.get(sql.strip())
    with about(sql):
        definition = registry.definition(there) if there else parse(sql, name=name or "view")
    costs = (
        {t: Cost(each["rows"], each["ms"], each["whole"]) for t, each in log.live.stored("pipeline:main").items()}
        if there
        else {}
    )
    with about(sql):
        return explained(compile_view(definition, registry.relations(log)), costs)


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
    found: dict[str, dict[str, list[str]]] = {}
    for view in compiled.values():
        columns = found.setdefault(view.name, {})
        for base, names in view.used.items():
            columns[base.name] = sorted({*columns.get(base.name, ()), *names})
    return found


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
                    done.append(f"{path.name}: differs from view {known.name}; `headwater view replace` applies it")
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


def _rules(view: View) -> dict[str, Any]:
    """A view's options without those that only say something about it."""
    from headwater_pipelines.compiler.definition import SAID

    return {name: value for name, value in view.options.items() if name not in SAID}


def _readers(compiled: Mapping[int, CompiledView], name: str) -> list[str]:
    """Names of the views that read ``name``, directly or through others, each before those that it reads."""
    found: list[str] = []
    reached = {f"views.{name}"}
    # Those that others read were compiled before them.
    for view in compiled.values():
        if reached & set(view.reads):
            reached.add(f"views.{view.name}")
            found.insert(0, view.name)
    return found


def _require_no_cycle(log: Log, definition: Definition, old: View, compiled: Mapping[int, CompiledView]) -> None:
    from headwater.errors import UsageError
    from headwater_pipelines.compiler import compile_view
    from headwater_pipelines.runtime import registry

    reads = set(compile_view(definition, registry.relations(log)).reads)
    if f"views.{old.name}" in reads:
        raise UsageError(f"view {old.name} would read itself", todo="Name what it should read instead.")
    circle = [each for each in _readers(compiled, old.name) if f"views.{each}" in reads]
    if circle:
        raise UsageError(
            f"view {old.name} would read {circle[0]}, which reads {old.name}", todo="Name what it should read instead."
        )


def _require_columns(name: str, had: Schema, compiled: CompiledView, readers: Sequence[str]) -> None:
    """SchemaError that says which columns differ, and what would have to be dropped."""
    from headwater.errors import SchemaError

    old, new = {field.name: field.type for field in had.fields}, dict(compiled.columns)
    found = [f"{each} is missing" for each in old if each not in new]
    found += [f"{each} is new" for each in new if each not in old]
    found += [
        f"{each} is {old[each]} and would be {new[each]}" for each in old if new.get(each, old[each]) != old[each]
    ]
    if not found and list(old) != list(new):
        found = [f"they stand in the order {', '.join(new)} instead of {', '.join(old)}"]
    if found:
        drop = f"headwater view drop {name}{' --cascade' if readers else ''}"
        also = f" (which drops {', '.join(readers)}, too)" if readers else ""
        raise SchemaError(
            f"view {name} keeps its columns when it is replaced: {'; '.join(found)}",
            todo=f"Name and cast them as they were, or `{drop}`{also} and create it anew.",
        )


def _log(lake_or_log: Any) -> Log:
    log: Log = getattr(lake_or_log, "log", lake_or_log)
    return log
