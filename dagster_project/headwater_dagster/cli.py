"""`headwater dagster`: the project's own Dagster. Only light imports at the top: the command line's help loads this."""

from __future__ import annotations

from typing import Annotated

import typer

from headwater.cli.options import ProjectOption
from headwater_dagster.instance import PORT


def dagster(
    project: ProjectOption = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65_535,
            help=f"The pages' port. Default: {PORT}, or a free one if it is taken.",
            show_default=False,
        ),
    ] = None,
    only_write: Annotated[
        bool, typer.Option("--only-write", help="Write dagster.yaml and workspace.yaml, and start nothing.")
    ] = False,
) -> None:
    """Run Dagster's pages and daemon for the project, on 127.0.0.1, until Ctrl-C. The views go on without them.

    Its dagster.yaml and workspace.yaml are in the project's folder dagster/; they are made if they are not there.
    """
    from headwater.config import load
    from headwater_dagster import instance

    found = load(project)
    if only_write:
        folder = instance.write_instance(instance.home(found)).parent
        typer.echo(f"dagster.yaml and workspace.yaml are in {folder}; Dagster's commands find the project by")
        for variable, value in instance.environment(found).items():
            typer.echo(f"export {variable}={value}")
        return
    from headwater_dagster.pages import run

    raise typer.Exit(run(found, port, typer.echo))
