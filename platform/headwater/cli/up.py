"""`headwater up`: run the project."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Literal

import typer

from headwater.cli.options import ProjectOption


def up(
    project: ProjectOption = None,
    until_caught_up: Annotated[
        bool,
        typer.Option(
            "--until-caught-up",
            help="Stop, with exit code 0, once everything the sources hold now is in the log and the views.",
        ),
    ] = False,
    standby: Annotated[
        bool,
        typer.Option("--standby", help="Wait while another `up` runs, and take over when it ends or hangs."),
    ] = False,
    log_format: Annotated[
        Literal["text", "json"] | None,
        typer.Option("--log-format", help="Log lines as text or JSON, without the live status.", show_default=False),
    ] = None,
) -> None:
    """Run the project: capture, views, sealing, /healthz and /metrics, until Ctrl-C or SIGTERM.

    In a terminal it shows a live status; otherwise, or with --log-format, plain log lines on stderr.
    """
    from headwater.config import load
    from headwater.logs import FORMAT_VARIABLE
    from headwater.service.up import Lines, run

    found = load(project)
    form = log_format or os.environ.get(FORMAT_VARIABLE)
    options = {"until_caught_up": until_caught_up, "standby": standby}
    if form is None and sys.stderr.isatty():
        from rich.console import Console

        from headwater.service.display import LiveDisplay

        with LiveDisplay(Console(stderr=True)) as display:
            raise typer.Exit(run(found, display, **options))
    raise typer.Exit(run(found, Lines(form or "text"), **options))
