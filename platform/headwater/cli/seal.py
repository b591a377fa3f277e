"""`headwater seal` and `headwater maintain`: hot batches to Parquet segments, once or for as long as asked."""

from __future__ import annotations

import json

import typer

from headwater.cli.options import JsonOption, ProjectOption


def seal(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Write the hot tier into Parquet segments now. `up` does it by itself; waits for it when it is at it."""
    from headwater.config import load
    from headwater.log import open_log
    from headwater.maintenance import run_once

    found = load(project)
    with open_log(found.lake_dir) as log:
        done = run_once(log, found.settings, force=True)
        position = log.newest_commit()
    if as_json:
        typer.echo(json.dumps({"position": position, **done}))
        return
    typer.echo(
        f"sealed {done['sealed']:,} records, wrote {done['bases']:,} bases,"
        f" removed {done['removed']:,} files, at commit {position}"
    )


def maintain(project: ProjectOption = None) -> None:
    """Seal, write bases and remove what is no longer needed, until stopped; `headwater up` runs it for you."""
    from headwater.config import load
    from headwater.service.maintenance import run

    run(load(project))
