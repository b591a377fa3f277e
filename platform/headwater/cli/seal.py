"""`headwater seal`, `retain`, `compact` and `maintain`: the housekeeping of the log, once or for as long as asked."""

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
        f"sealed {done['sealed']:,} records, merged {done['merged']:,} segments, wrote {done['bases']:,} bases,"
        f" removed {done['removed']:,} files, at commit {position}"
    )


def retain(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Remove history beyond its time now. Current rows, tags and what is being read stay; `up` does it by itself."""
    from headwater.config import load
    from headwater.log import open_log
    from headwater.maintenance import housekeep

    found = load(project)
    with open_log(found.lake_dir) as log:
        done = housekeep(log, found.settings, wait=True)
    if as_json:
        typer.echo(json.dumps(done))
        return
    typer.echo(
        f"{done['retained']:,} files left the log, {done['compacted']:,} superseded records went,"
        f" {done['archived']:,} commits archived, {done['bytes']:,} bytes of data files"
    )


def compact(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Of each key in topics with cleanup = compact, keep only the newest record, now and whatever has changed."""
    from headwater import maintenance
    from headwater.config import load
    from headwater.log import open_log
    from headwater.ownership import own

    found = load(project)
    with open_log(found.lake_dir) as log, own(log, maintenance.OWNER, wait=True):
        gone = maintenance.compact(log, found.settings, force=True)
    typer.echo(json.dumps({"compacted": gone}) if as_json else f"{gone:,} superseded records went")


def maintain(project: ProjectOption = None) -> None:
    """Seal, merge, write bases and remove what is no longer needed, until stopped; `headwater up` runs it for you."""
    from headwater.config import load
    from headwater.service.maintenance import run

    run(load(project))
