"""The commands of this package: ``headwater view ...``, ``views``, ``pause``, ``resume``.

Only light imports at the top: the command line's help loads this module.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli.options import JsonOption, ProjectOption

if TYPE_CHECKING:
    from threading import Event

    from headwater.config import Project
    from headwater.log import Log

File = Annotated[str, typer.Argument(metavar="FILE", help="A .sql file with the definition, or - for standard input.")]
Name = Annotated[str, typer.Argument(metavar="VIEW", help="The view's name.")]

OptionalName = Annotated[str | None, typer.Argument(metavar="[VIEW]", help="A view's name. Default: all.")]

EXCERPT_LINES = 3

view = typer.Typer(no_args_is_help=True, add_completion=False, help="Create, drop, list and explain views.")


@view.command("create")
def create(file: File, project: ProjectOption = None) -> None:
    """Check a definition and register it. The running pipeline fills it; nothing is created when it is refused."""
    from headwater_pipelines import api

    sql, name = _read(file)
    with opened(project) as log, _quoting(sql):
        made = api.create_view(log, sql, name=name)
    typer.echo(f"view {made.name} created; `headwater views` or `headwater up` fills and maintains it")


@view.command("replace")
def replace(file: File, project: ProjectOption = None) -> None:
    """Put another definition in a view's place. The running pipeline builds it beside the old one and switches."""
    from headwater_pipelines import api

    sql, name = _read(file)
    with opened(project) as log, _quoting(sql):
        made = api.replace_view(log, sql, name=name)
    if made.replaces is None:
        typer.echo(f"view {made.name} has this definition")
    else:
        typer.echo(f"view {made.name} is replaced when the new definition is built; `headwater view list` shows it")


@view.command("rename")
def rename(
    name: Name,
    to: Annotated[str, typer.Argument(metavar="NAME", help="Its new name.")],
    project: ProjectOption = None,
) -> None:
    """Give a view another name, with the pipeline's next step. Older positions know it by the old one."""
    from headwater_pipelines import api

    with opened(project) as log:
        api.rename_view(log, name, to)
    typer.echo(f"view {name} becomes {to} with the pipeline's next step")


@view.command("refresh")
def refresh(name: Name, project: ProjectOption = None) -> None:
    """Bring a view up to date that is refreshed by hand or from time to time. The running pipeline does it."""
    from headwater_pipelines import api

    with opened(project) as log:
        api.refresh_view(log, name)
    typer.echo(f"view {name} is refreshed with the pipeline's next step")


@view.command("drop")
def drop(
    name: Name,
    project: ProjectOption = None,
    cascade: Annotated[bool, typer.Option("--cascade", help="Drop the views that read it, too.")] = False,
) -> None:
    """End a view. Its history stays readable at older positions. Refused while other views read it."""
    from headwater_pipelines import api

    with opened(project) as log:
        for each in api.drop_view(log, name, cascade=cascade):
            typer.echo(f"view {each} dropped")


@view.command("list")
def list_views(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Show every view: state, columns read, reason when it is not live."""
    from headwater_pipelines import api

    with opened(project) as log:
        lineage = api.lineage(log)
        new = {v.replaces: {"name": v.name, "state": v.state, "reason": v.reason} for v in log.replacements()}
        rows = [
            {"name": v.name, "state": v.state, "reads": lineage[v.name], "reason": v.reason, "sql": v.sql}
            | {"refresh": v.refresh, "replacement": new.get(v.id)}
            for v in log.views()
        ]
    if as_json:
        import json

        typer.echo(json.dumps({"views": rows}))
    elif not rows:
        typer.echo("no views; `headwater view create FILE` makes one")
    else:
        _table(rows)


@view.command("explain")
def explain(file: File, project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Show how a definition would be maintained, node by node. FILE may be an existing view's name."""
    from headwater_pipelines import api

    with opened(project) as log:
        existing = any(each.name == file for each in log.views())
        sql, name = (file, "") if existing else _read(file)
        with _quoting(sql):
            plan = api.explain(log, sql, name=name)
    if as_json:
        import json

        typer.echo(json.dumps(plan.to_dict()))
    else:
        typer.echo(str(plan))


def views(
    project: ProjectOption = None,
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="Stop once everything committed until now is in the views.")
    ] = False,
) -> None:
    """Maintain all views. `headwater up` runs this."""
    from headwater_pipelines.runtime import worker

    with at_work(project, ends=until_caught_up) as (loaded, log, stop):
        worker.run(log, loaded.settings, stop, until_caught_up=until_caught_up)


def pause(name: OptionalName = None, project: ProjectOption = None) -> None:
    """Stop maintaining a view, or all of them; what is published stays readable."""
    from headwater_pipelines import api

    with opened(project) as log:
        if name is None:
            api.pause_pipeline(log)
        else:
            api.pause_view(log, name)
    typer.echo(f"view {name} paused; `headwater resume {name}` rebuilds it" if name else "all views paused")


def resume(name: OptionalName = None, project: ProjectOption = None) -> None:
    """Maintain a paused or failed view again: it is rebuilt. Without a name, end the pause of all views."""
    from headwater_pipelines import api

    with opened(project) as log:
        if name is None:
            api.resume_pipeline(log)
        else:
            api.resume_view(log, name)
    typer.echo(f"view {name} resumed" if name else "all views go on where they stood")


@contextmanager
def opened(project: Path | None) -> Iterator[Log]:
    """The log of a project's lake, for one command."""
    from headwater.config import load
    from headwater.log import open_log

    with open_log(load(project).lake_dir, create=True) as log:
        yield log


@contextmanager
def at_work(project: Path | None, *, ends: bool) -> Iterator[tuple[Project, Log, Event]]:
    """A project, its log and the wish to stop, for a worker; one that ``ends`` by itself tells when it was ended."""
    from headwater.config import load
    from headwater.log import open_log
    from headwater.service.signals import check_not_cut_short, stop_signals

    loaded = load(project)
    with stop_signals() as stop, open_log(loaded.lake_dir, create=True) as log:
        yield loaded, log, stop
        if ends:
            check_not_cut_short(stop)


def _read(file: str) -> tuple[str, str]:
    """The definition and, for a file with a bare SELECT, the view's name."""
    from headwater.errors import UsageError

    if file == "-":
        return sys.stdin.read(), ""
    path = Path(file)
    try:
        return path.read_text(encoding="utf-8"), path.stem
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {file}: {error}", todo="Give a .sql file, or - for standard input.") from error


@contextmanager
def _quoting(sql: str) -> Iterator[None]:
    """Show the line that an SQL error is about, with a caret, before the error's own paragraph."""
    from headwater.errors import SqlError

    try:
        yield
    except SqlError as error:
        place = _place(error)
        lines = sql.splitlines()
        if place and 0 < place[0] <= len(lines):
            line, column = place
            for number in range(max(1, line - EXCERPT_LINES + 1), line + 1):
                typer.echo(f"{number:>4} | {lines[number - 1]}", err=True)
            typer.echo(" " * (column + 6) + "^", err=True)
        raise


def _place(error: Any) -> tuple[int, int] | None:
    """Line and column of an error, from its facts or its text."""
    import re

    if getattr(error, "line", 0):
        return int(error.line), int(error.column)
    found = re.search(r"line (\d+), column (\d+)", error.where)
    return (int(found[1]), int(found[2])) if found else None


def _table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("view", "state", "reads", "reason"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(row["name"], row["state"], ", ".join(row["reads"]), row["reason"])
        if new := row["replacement"]:
            table.add_row(f"→ {new['name']}", new["state"], "", new["reason"])
    Console().print(table)
