"""`headwater backup` and `headwater restore`: the lake at one position, to another place and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from headwater.cli.options import JsonOption, ProjectOption
from headwater.cli.progress import bytes_bar

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="The backup's folder, on another disk at best.")]


def backup(
    target: FolderArgument,
    damaged: Annotated[
        bool, typer.Option("--damaged", help="Take damaged files along as they are instead of stopping.")
    ] = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Back up the log at its present position. Files that DIR holds from earlier are not copied again.

    Runs beside everything else. A backup that is stopped half way leaves the one before it whole.
    """
    from headwater.config import load
    from headwater.log import open_log
    from headwater.log.backup import backup as make

    with open_log(load(project).lake_dir) as log, bytes_bar("backing up") as progress:
        done = make(log, target, damaged=damaged, on_progress=progress)
    made = done.manifest
    facts = {
        "position": made.position,
        "files": len(made.files),
        "bytes": made.bytes,
        "copied_bytes": done.copied,
        "damaged": list(made.damaged),
    }
    if as_json:
        typer.echo(json.dumps({"backup": str(target), **facts}, indent=2))
        return
    typer.echo(
        f"backed up commit {made.position}: {len(made.files):,} files, {made.bytes:,} bytes,"
        f" {done.copied:,} of them new"
    )
    for path in made.damaged:
        typer.echo(f"damaged: {path}")


def restore(
    source: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="The backup's folder.", show_default=False)
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", metavar="PROJECT", help="The project to restore into. Default: this one.", show_default=False
        ),
    ] = None,
    accept_older: Annotated[
        bool,
        typer.Option("--accept-older", help="No backup: go on from the older catalog that was copied into the lake."),
    ] = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a project's log from a backup; its folder must be empty. Every byte is checked.

    The copy is another incarnation: owners and pipeline state of the old one are refused, views are filled anew.
    """
    from headwater.config import load
    from headwater.errors import UsageError
    from headwater.log import restore as work

    lake = load(to or project).lake_dir
    if accept_older == (source is not None):
        raise UsageError("give a backup's folder or --accept-older", todo="`headwater restore --help` tells more.")
    if source is None:
        facts = {"lake": str(lake), "position": work.accept_older(lake)}
        said = f"goes on from commit {facts['position']}; run `headwater verify` to see what is missing"
    else:
        with bytes_bar("restoring") as progress:
            made = work.restore(source, lake, on_progress=progress)
        facts = {"lake": str(lake), "position": made.position, "files": len(made.files), "bytes": made.bytes}
        said = f"restored commit {made.position} of {made.time}: {len(made.files):,} files, {made.bytes:,} bytes"
    typer.echo(json.dumps(facts, indent=2) if as_json else said)
