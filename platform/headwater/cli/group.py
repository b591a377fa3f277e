"""`headwater group`: consumer groups, how far they are, and moving them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli.options import JsonOption, ProjectOption

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

    from headwater.lake import Lake

group = typer.Typer(no_args_is_help=True, help="List consumer groups, see how far they are, move or delete them.")
NameArgument = Annotated[str, typer.Argument(metavar="GROUP", help="A consumer group's name.")]


@group.command("list")
def list_groups(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """List groups with state, members, lag in records and seconds, and what their last commits say."""
    from headwater.lake.status import group_document

    with _lake(project) as lake:
        found = [group_document(each) for each in lake.groups()]
    if as_json:
        typer.echo(json.dumps({"groups": found}, indent=2, ensure_ascii=False))
        return
    from headwater.service.display import console

    console().print(table(found) if found else "no consumer groups")


@group.command("show")
def show(name: NameArgument, project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Show one group by partition: committed and end offset, lag in records and seconds, owner and status."""
    from headwater.client.report import group as one_group
    from headwater.lake.status import group_document

    with _lake(project) as lake:
        found = group_document(one_group(lake.log, name))
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    from rich.table import Table

    from headwater.service.display import console, number

    shown = Table("topic", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("partition", "committed", "end", "lag", "lag s"):
        shown.add_column(column, justify="right")
    shown.add_column("owner")
    shown.add_column("status")
    for each in found["partitions"]:
        figures = (number(each[key]) for key in ("partition", "offset", "end", "lag_rows"))
        shown.add_row(each["topic"], *figures, f"{each['lag_s']:.1f}", each["owner"] or "", each["status"])
    console().print(table([found]))
    console().print(shown)


@group.command("reset")
def reset(
    name: NameArgument,
    to: Annotated[
        str | None,
        typer.Option(metavar="WHERE", help="earliest, latest, or after a position: commit:42, a timestamp."),
    ] = None,
    offset: Annotated[int | None, typer.Option(min=0, help="This offset in each chosen partition.")] = None,
    shift: Annotated[int | None, typer.Option(help="So many records on, or back when negative.")] = None,
    topic: Annotated[str | None, typer.Option(help="Only this topic.", show_default=False)] = None,
    partition: Annotated[
        list[int] | None, typer.Option(help="Only this partition; as often as needed.", show_default=False)
    ] = None,
    execute: Annotated[bool, typer.Option("--execute", help="Do it; without, only show what would be done.")] = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move a group to another place. Shows what would change; `--execute` does it, when the group has no members."""
    from headwater.client import reset as resets

    with _lake(project) as lake:
        plan = resets.plan(lake.log, name, to=to, offset=offset, shift=shift, topic=topic, partitions=partition or None)
        if execute:
            resets.execute(lake.log, name, plan)
    moves = [{**vars(each), "moved": each.new - each.old} for each in plan]
    if as_json:
        typer.echo(json.dumps({"group": name, "executed": execute, "moves": moves}, indent=2, ensure_ascii=False))
        return
    from rich.table import Table

    from headwater.service.display import console

    shown = Table("topic", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("partition", "now", "then", "moved"):
        shown.add_column(column, justify="right")
    for each in moves:
        shown.add_row(each["topic"], *(str(each[key]) for key in ("partition", "old", "new")), f"{each['moved']:+d}")
    console().print(shown)
    if not execute:
        console().print("nothing was changed; add --execute to do it")


@group.command("delete")
def delete(name: NameArgument, project: ProjectOption = None) -> None:
    """Delete a group and its offsets; refused while it has members."""
    from headwater.client.group import forget

    with _lake(project) as lake:
        forget(lake.log, name)
    typer.echo(f"deleted group {name}")


def table(found: list[dict[str, Any]]) -> Table:
    """Groups as a table for a terminal."""
    from rich.table import Table

    from headwater.service.display import number

    shown = Table("group", "state", "status", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("members", "generation", "lag", "lag s"):
        shown.add_column(column, justify="right", no_wrap=True)
    for each in found:
        figures = (number(len(each["members"])), number(each["generation"]), number(each["lag_rows"]))
        shown.add_row(each["name"], each["state"], each["status"], *figures, f"{each['lag_s']:.1f}")
    return shown


def _lake(project: Path | None) -> Lake:
    from headwater.config import load
    from headwater.lake import open_lake

    return open_lake(load(project).lake_dir)
