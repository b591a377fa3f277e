"""`headwater status`: where everything stands."""

from __future__ import annotations

import typer

from headwater.cli.options import JsonOption, ProjectOption


def status(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Show position, sources, views and topics with their lag. Works whether or not `up` runs."""
    from headwater.config import load
    from headwater.log import open_log
    from headwater.service.status import collect

    found = load(project)
    with open_log(found.lake_dir) as log:
        document = collect(log, found)
    if as_json:
        import json

        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    from headwater.cli.topic import table
    from headwater.service.display import console, render

    shown = console()
    shown.print(render(document))
    shown.print(table(document["topics"]))
