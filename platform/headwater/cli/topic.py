"""`headwater topic`: the named logs of a lake."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli.options import JsonOption, ProjectOption
from headwater.cli.produce import produce
from headwater.cli.topic_admin import alter, create, drop, repartition

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.table import Table

    from headwater.log import Log, Topic

topic = typer.Typer(no_args_is_help=True, help="Create, describe, fill and follow topics, the named logs of the lake.")
for command in (create, alter, drop, repartition, produce):
    topic.command(command.__name__)(command)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A topic's full name, or a short one if unique.")]
TAIL_COMMITS = 1_000
"""`tail -n` looks back at most this many commits at a time: bounded memory on a long history."""


@topic.command("list")
def list_topics(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """List topics with kind, partitions, records, how much of them is sealed, open dead letters and settings."""
    found = _topics(project)
    if as_json:
        typer.echo(json.dumps({"topics": found}, indent=2, ensure_ascii=False))
        return
    from headwater.service.display import console

    console().print(table(found))


@topic.command("show")
def show(
    name: NameArgument,
    hot_keys: Annotated[int, typer.Option(min=1, max=1000, help="How many of the most frequent keys to name.")] = 5,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one topic: columns, key and settings, size and rate, the load of each partition, and hot keys."""
    from headwater.log import profile

    with _log(project) as log:
        found = log.topic(name)
        loads = profile.partitions(log, found)
        hot, looked = profile.hot_keys(log, found, hot_keys)
        rate = profile.rows_per_s(log, found)
    counts = next(each for each in _topics(project) if each["name"] == found.name)
    document = {**counts, "key": list(found.schema.key), "schema_version": found.schema_version}
    document |= {name: getattr(found, name) for name in ("description", "criticality", "classification")}
    document |= {"bytes": sum(load.bytes for load in loads), "rows_per_s": rate, "skew": profile.skew(loads)}
    document["loads"] = [vars(load) for load in loads]
    document["hot_keys"] = [{**vars(each), "key": [_plain(value) for value in each.key]} for each in hot]
    document["hot_keys_of"] = looked
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
    for each in _loads(document):
        shown.print(each)


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
    for column in ("partitions", "records", "sealed", "bytes", "dead"):
        shown.add_column(column, justify="right", no_wrap=True)
    shown.add_column("settings")
    for each in found:
        figures = (each["partitions"], each["records"], each["sealed"], each["sealed_bytes"])
        dead = each["dead_letters"]["open"]
        settings = ", ".join(f"{name}={value}" for name, value in each["settings"].items())
        numbers = [number(figure) for figure in figures]
        shown.add_row(each["name"], each["kind"], each["state"], *numbers, number(dead) if dead else "", settings)
    return shown


def _plain(value: Any) -> Any:
    """A part of a key as JSON holds it: text for what it has no exact form for."""
    exact = isinstance(value, str | bool | None) or (isinstance(value, int) and abs(value) <= 1 << 53)
    return value if exact else value.hex() if isinstance(value, bytes) else str(value)


def _loads(document: dict[str, Any]) -> Iterator[Any]:
    """Rate and skew, the partitions' loads, and the hot keys, for a terminal."""
    from rich.table import Table

    from headwater.service.display import number

    loads = document["loads"]
    yield f"{number(document['rows_per_s'])} rows/s, skew {document['skew']:.2f} (largest partition / mean)"
    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("partition", "records", "bytes", "share"):
        shown.add_column(column, justify="right")
    for each in loads:
        closed = "" if each["is_open"] else " (closed)"
        share = f"{each['share']:.1%}"
        shown.add_row(f"{each['partition']}{closed}", number(each["records"]), number(each["bytes"]), share)
    yield shown
    if document["hot_keys"]:
        keys = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for column in (", ".join(document["key"]), "records", "share"):
            keys.add_column(column, justify="left" if column not in ("records", "share") else "right")
        for each in document["hot_keys"]:
            text = ", ".join("NULL" if value is None else str(value) for value in each["key"])
            keys.add_row(text, number(each["records"]), f"{each['share']:.1%}")
        yield f"most frequent keys of the newest {number(document['hot_keys_of'])} records"
        yield keys


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
