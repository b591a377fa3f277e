"""``headwater replay``. Only light imports at the top."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headwater.cli.options import JsonOption, ProjectOption
from headwater_pipelines.cli import Name, opened

if TYPE_CHECKING:
    from headwater_pipelines.replay.replay import Replayed


def replay(
    name: Name,
    project: ProjectOption = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="POSITION", help="Begin with the tables' rows at this position. Default: --to."),
    ] = None,
    stop: Annotated[
        str, typer.Option("--to", metavar="POSITION", help="Take in the changes up to here, and compare here.")
    ] = "latest",
    promote: Annotated[
        bool, typer.Option("--promote", help="Then put it in the live view's place, in one commit.")
    ] = False,
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="FILE", help="Write the rows that were made to this Parquet file.")
    ] = None,
    journal: Annotated[
        Path | None, typer.Option(hidden=True, help="Tell in this file how far it is; `lake.replay` follows it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a view anew beside the live one and compare both. Exit code 1 when they differ and nothing is promoted."""
    from headwater.cli.progress import status_line
    from headwater.config import load
    from headwater.service.maintenance import give_way
    from headwater_pipelines import api
    from headwater_pipelines.replay.follower import journalled

    give_way()  # somebody waits for what the live views do
    with opened(project) as log, status_line() as say, journalled(log, journal) as follower:
        found = api.replay_view(
            log, load(project), name, start, stop, promote=promote, keep=keep, say=say, tell=follower.tell
        )
        follower.found = found
    _show(found, as_json=as_json)
    if not found.comparison.is_same and not found.commit:
        raise typer.Exit(1)


def _show(found: Replayed, *, as_json: bool) -> None:
    import json
    from dataclasses import asdict

    if as_json:
        typer.echo(json.dumps(asdict(found), default=str))
        return
    rate = found.rows / found.seconds if found.seconds else 0
    typer.echo(
        f"view {found.view}, commits {found.start} to {found.stop}: {found.rows:,} records in {found.seconds:.1f} s"
        f" ({rate:,.0f} a second)"
    )
    typer.echo(str(found.comparison))
    for row in found.comparison.sample:
        typer.echo(f"  {json.dumps(row, default=str, ensure_ascii=False)}")
    if found.commit:
        typer.echo(f"promoted at commit {found.commit}")
    elif not found.comparison.is_same:
        typer.echo(f"nothing is changed; `headwater replay {found.view} --promote` puts it in the live view's place")
