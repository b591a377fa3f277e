"""`headwater sql`: one query, one answer, at one position."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from headwater.cli.options import AtOption, ProjectOption

Form = Literal["table", "csv", "json", "parquet"]
_BY_SUFFIX: dict[str, Form] = {".csv": "csv", ".json": "json", ".parquet": "parquet"}


def sql(
    query: Annotated[str, typer.Argument(help="A SELECT in DuckDB's dialect; - reads it from stdin.")],
    at: AtOption = None,
    form: Annotated[
        Form | None,
        typer.Option(
            "--format",
            help="How to print the answer. Default: a table, or what the name given with -o ends in.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write to a file.", show_default=False)
    ] = None,
    project: ProjectOption = None,
) -> None:
    """Query tables, views, log."TOPIC" and history.TABLE at one consistent position.

    csv and json are exact: decimals and integers of any size keep every digit.
    """
    from headwater.cli.output import write
    from headwater.config import load
    from headwater.lake import open_lake

    text = sys.stdin.read() if query == "-" else query
    chosen: Form = form or _BY_SUFFIX.get(output.suffix if output else "", "table")
    with open_lake(load(project).lake_dir) as lake:
        write(lake.sql(text, at=at), chosen, output, lake.log.timezone)
