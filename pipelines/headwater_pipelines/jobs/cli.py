"""``headwater job ...``: the project's stream jobs. Only light imports at the top."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from headwater.cli.options import JsonOption, ProjectOption
from headwater_pipelines.cli import at_work, opened

Name = Annotated[str, typer.Argument(metavar="JOB", help="The job's name.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="[JOB]...", help="Names of jobs. Default: all.")]

job = typer.Typer(no_args_is_help=True, add_completion=False, help="Run, list, pause, reset and replay stream jobs.")


@job.command("run")
def run(
    names: Names = None,
    project: ProjectOption = None,
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="Stop once everything committed until now is taken in.")
    ] = False,
) -> None:
    """Run the jobs of jobs/*.py. `headwater up` runs this."""
    from headwater_pipelines.jobs import worker

    with at_work(project, ends=until_caught_up) as (loaded, log, stop):
        worker.run(log, loaded, stop, names or (), until_caught_up=until_caught_up)


@job.command("list")
def list_jobs(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Show every job that was ever run: state, what it reads and writes, how far it is."""
    from headwater.lake.status import jobs_of

    with opened(project) as log:
        rows = jobs_of(log)
    if as_json:
        import json

        typer.echo(json.dumps({"jobs": rows}))
    elif not rows:
        typer.echo("no jobs; write one into jobs/ and `headwater job run` it")
    else:
        _table(rows)


@job.command("pause")
def pause(name: Name, project: ProjectOption = None) -> None:
    """Stop a job after the step it is in; its output stays readable."""
    from headwater_pipelines.jobs import api

    with opened(project) as log:
        api.pause_job(log, name)
    typer.echo(f"job {name} paused; `headwater job resume {name}` lets it go on")


@job.command("resume")
def resume(name: Name, project: ProjectOption = None) -> None:
    """Let a paused job go on from where it stands."""
    from headwater_pipelines.jobs import api

    with opened(project) as log:
        api.resume_job(log, name)
    typer.echo(f"job {name} resumed")


@job.command("reset")
def reset(name: Name, project: ProjectOption = None) -> None:
    """Have a job begin anew: output and state are emptied in one commit. It must not run: pause it first."""
    from headwater_pipelines.jobs import api

    with opened(project) as log:
        api.reset_job(log, name)
    typer.echo(f"job {name} begins anew when it is run next")


@job.command("drop")
def drop(name: Name, project: ProjectOption = None) -> None:
    """Forget a job and its state; its output stays as a topic of its own. It must not run: pause it first."""
    from headwater_pipelines.jobs import api

    with opened(project) as log:
        api.drop_job(log, name)
    typer.echo(f"job {name} dropped; its output stays")


@job.command("replay")
def replay(
    name: Name,
    project: ProjectOption = None,
    start: Annotated[str, typer.Option("--from", metavar="POSITION", help="After this input commit.")] = "0",
    stop: Annotated[str, typer.Option("--to", metavar="POSITION", help="Up to this one.")] = "latest",
    as_json: JsonOption = False,
) -> None:
    """Run a job's function again over changes that it has taken in, and compare. Exit code 1 when anything differs."""
    from headwater.config import load
    from headwater_pipelines.jobs import api

    loaded = load(project)
    with opened(project) as log:
        found = api.replay_job(log, loaded, name, start, stop)
    if as_json:
        import json

        differences = [vars(each) for each in found.differences]
        typer.echo(json.dumps({"steps": found.steps, "rows": found.rows, "differences": differences}))
    else:
        for each in found.differences:
            typer.echo(
                f"commit {each.commit}, {each.topic}: {each.missing} records missing, {each.extra} not in the log"
            )
        same = "nothing differs" if not found.differences else f"{len(found.differences)} differences"
        typer.echo(f"{found.steps} steps over {found.rows} rows again: {same}")
    if found.differences:
        raise typer.Exit(1)


def _table(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from headwater.service.display import console, job_note, number

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("job", "state", "reads", "writes", "position", "lag rows", "note"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        place, lag = number(row["input_commit"]), number(row["lag_rows"])
        reads = ", ".join(row["inputs"])
        table.add_row(row["name"], row["state"], reads, row["output"], place, lag, job_note(row))
    console().print(table)
