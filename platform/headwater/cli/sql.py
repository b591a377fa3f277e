"""`headwater sql`: one query, one answer, at one position."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from headwater.cli.options import EXIT_INTERRUPTED, AtOption, ProjectOption

if TYPE_CHECKING:
    from headwater.lake import Result

Form = Literal["table", "csv", "json", "parquet"]
LOOK_S = 0.1
"""While a query runs: once Polars is imported, a wait without an end no longer hears of Ctrl-C."""
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
        result = _until_control_c(lambda: lake.sql(text, at=at))
        write(result, chosen, output, lake.log.timezone)
        for notice in result.notices if chosen != "table" or output else ():
            typer.echo(notice, err=True)


def _until_control_c(query: Callable[[], Result]) -> Result:
    """The answer of ``query``; Ctrl-C ends the process at once.

    DuckDB computes outside the interpreter, where no signal handler runs; so it computes in a thread, and
    this one waits where Ctrl-C reaches it. Reading holds nothing that an immediate exit could damage.
    """
    answer: Future[Result] = Future()

    def run() -> None:
        try:
            answer.set_result(query())
        except BaseException as error:  # noqa: BLE001 -- handed to the waiting thread, which raises it
            answer.set_exception(error)

    Thread(target=run, name="query", daemon=True).start()
    try:
        while not answer.done():
            wait([answer], LOOK_S)
        return answer.result()
    except KeyboardInterrupt:
        os._exit(EXIT_INTERRUPTED)
