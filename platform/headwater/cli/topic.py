"""`headwater topic`: the named logs of a lake."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli.options import JsonOption, ProjectOption

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.table import Table

    from headwater.log import Log, Topic

topic = typer.Typer(no_args_is_help=True, help="List, describe and follow topics, the named logs of the lake.")
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A topic's full name, or a short one if unique.")]
TAIL_COMMITS = 1_000
"""`tail -n` looks back at most this many commits at a time: bounded memory on a long history."""


@topic.command("list")
def list_topics(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """List topics with kind, partitions, records and how much of them is sealed."""
    found = _topics(project)
    if as_json:
        typer.echo(json.dumps({"topics": found}, indent=2, ensure_ascii=False))
        return
    from headwater.service.display import console

    console().print(table(found))


@topic.command("show")
def show(name: NameArgument, project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Show one topic: its columns with their types, key, partitions and records."""
    with _log(project) as log:
        found = log.topic(name)
    counts = next(each for each in _topics(project) if each["name"] == found.name)
    document = {**counts, "key": list(found.schema.key), "schema_version": found.schema_version}
    document["columns"] = [
        {"name": each.name, "type": each.type, "nullable": each.nullable, "source_type": each.source_type}
        for each in found.schema.fields
    ]
    if as_json:
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    from rich.table import Table

    from headwater.service.display import console

    columns = Table("column", "type", "nullable", "source type", "key", box=None, header_style="dim")
    for each in document["columns"]:
        in_key = "key" if each["name"] in found.schema.key else ""
        columns.add_row(each["name"], each["type"], "yes" if each["nullable"] else "no", each["source_type"], in_key)
    shown = console()
    shown.print(table([counts]))
    shown.print(columns)


@topic.command("tail")
def tail(
    name: NameArgument,
    count: Annotated[int, typer.Option("-n", min=0, help="Begin with the newest N records.")] = 10,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with new records until Ctrl-C.")] = False,
    timeout_s: Annotated[
        float | None, typer.Option("--for", metavar="SECONDS", help="With -f: stop after so long.", show_default=False)
    ] = None,
    project: ProjectOption = None,
) -> None:
    """Print records as JSON lines, oldest first: the data columns and _op, _commit, _offset and so on."""
    from headwater.cli.output import json_lines

    with _log(project) as log:
        found = log.topic(name)
        upto = log.newest_commit()
        for rows in _newest(log, found, upto, count):
            json_lines(rows, found.schema, log.timezone)
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while follow and (end is None or time.monotonic() < end):
            wait_s = 1.0 if end is None else min(1.0, max(0.0, end - time.monotonic()))
            newest = log.wait(upto, wait_s)
            if newest > upto:
                json_lines(log.read_changes(found.name, upto, newest), found.schema, log.timezone)
                upto = newest


def table(found: list[dict[str, Any]]) -> Table:
    """Topics as a table for a terminal."""
    from rich.table import Table

    from headwater.service.display import number

    shown = Table("topic", "kind", "state", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("partitions", "records", "sealed", "bytes"):
        shown.add_column(column, justify="right", no_wrap=True)
    for each in found:
        figures = (each["partitions"], each["records"], each["sealed"], each["sealed_bytes"])
        shown.add_row(each["name"], each["kind"], each["state"], *(number(figure) for figure in figures))
    return shown


def _log(project: Path | None) -> Log:
    from headwater.config import load
    from headwater.log import open_log

    return open_log(load(project).lake_dir)


def _topics(project: Path | None) -> list[dict[str, Any]]:
    from headwater.config import load
    from headwater.service.status import collect

    with _log(project) as log:
        found: list[dict[str, Any]] = collect(log, load(project))["topics"]
    return found


def _newest(log: Log, found: Topic, upto: int, count: int) -> Iterator[pa.Table]:
    """The newest ``count`` records in commit order, reading back only as far as needed."""
    import pyarrow as pa

    kept: list[pa.Table] = []
    missing, end = count, upto
    while missing > 0 and end > 0:
        start = max(0, end - TAIL_COMMITS)
        rows = log.read_changes(found.name, start, end).sort_by(
            [("_commit", "ascending"), ("_partition", "ascending"), ("_offset", "ascending")]
        )
        # take, not slice: DuckDB refuses a struct column that begins in the middle of its buffers
        kept.insert(0, rows.take(pa.array(range(max(0, rows.num_rows - missing), rows.num_rows))))
        missing -= kept[0].num_rows
        end = start
    yield from kept
