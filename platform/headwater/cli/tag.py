"""`headwater tag`: positions with a name, which retention respects."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from headwater.cli.options import AtOption, JsonOption, ProjectOption

tag = typer.Typer(no_args_is_help=True, help="Name positions; `--at tag:NAME` reads them for as long as the tag lives.")
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, dot, dash and underscore.")]


@tag.command("create")
def create(
    name: NameArgument,
    at: AtOption = None,
    days: Annotated[
        float | None,
        typer.Option("--days", min=0.0, help="Expires after so many days. Default: never.", show_default=False),
    ] = None,
    description: Annotated[str, typer.Option("--description", help="What it is for.", show_default=False)] = "",
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Name a position, the newest unless --at says another. What reading it needs is kept until it is dropped."""
    from headwater.config import load
    from headwater.lake import open_lake

    expires = None if days is None else datetime.now(UTC) + timedelta(days=days)
    with open_lake(load(project).root) as lake:
        made = _document(lake.tag(name, at, expires=expires, description=description))
    typer.echo(json.dumps(made) if as_json else f"tag:{made['name']} is commit:{made['commit']}")


@tag.command("list")
def list_tags(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """List tags with their commit, when they were made and when they expire."""
    from headwater.config import load
    from headwater.lake import open_lake

    with open_lake(load(project).root) as lake:
        found = [_document(each) for each in lake.tags()]
    if as_json:
        typer.echo(json.dumps({"tags": found}, indent=2, ensure_ascii=False))
        return
    from rich.table import Table

    from headwater.service.display import console

    shown = Table("tag", "commit", "created", "expires", "description", box=None, header_style="dim")
    for each in found:
        shown.add_row(
            each["name"], str(each["commit"]), each["created"], each["expires"] or "never", each["description"]
        )
    console().print(shown)


@tag.command("drop")
def drop(name: NameArgument, project: ProjectOption = None) -> None:
    """Forget a tag. What only it kept goes with the next retention."""
    from headwater.config import load
    from headwater.lake import open_lake

    with open_lake(load(project).root) as lake:
        lake.drop_tag(name)


def _document(found: Any) -> dict[str, Any]:
    return {
        "name": found.name,
        "commit": found.commit,
        "created": found.created.isoformat(timespec="seconds"),
        "expires": found.expires.isoformat(timespec="seconds") if found.expires else None,
        "description": found.description,
    }
