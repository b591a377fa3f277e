"""`headwater topic create|alter|drop|repartition`: the topics that people own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli.options import JsonOption, ProjectOption

if TYPE_CHECKING:
    from pathlib import Path

    from headwater.lake import Lake
    from headwater.log import Topic

Name = Annotated[str, typer.Argument(metavar="NAME", help="A topic's full name, or a short one if unique.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A setting, as often as needed: retention=7d, cleanup=compact, owner=web, ... `none`: no limit.",
        show_default=False,
    ),
]


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="One to three parts with dots, as shop.events.clicks.")],
    columns: Annotated[list[str], typer.Argument(metavar="COLUMN:TYPE...", help="Columns with their DuckDB types.")],
    key: Annotated[
        list[str] | None, typer.Option("--key", metavar="COLUMN", help="A column of the key; several in their order.")
    ] = None,
    partitions: Annotated[
        int | None,
        typer.Option(help="How many readers of a group can share it. Default: 4, of a table 1.", show_default=False),
    ] = None,
    table: Annotated[
        bool, typer.Option("--table", help="Each key has one current row; without, each record is.")
    ] = False,
    chosen: SetOption = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a topic for producers, and the project's lake if there is none yet."""
    with _lake(project, create=True) as lake:
        named = dict(_pair(each, ":", "COLUMN:TYPE") for each in columns)
        made = lake.create_topic(
            name,
            named,
            key=key or (),
            partitions=partitions,
            kind="table" if table else "event",
            **dict(_pair(each, "=", "NAME=VALUE") for each in chosen or ()),
        )
        _tell(made, as_json, "created")


def alter(
    name: Name,
    chosen: SetOption = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a topic's settings, description, owner, criticality or classification; the others stay."""
    from headwater.errors import UsageError

    if not chosen:
        raise UsageError("nothing to alter was given", todo="Say it with --set NAME=VALUE.")
    with _lake(project) as lake:
        options: dict[str, Any] = dict(_pair(each, "=", "NAME=VALUE") for each in chosen)
        _tell(lake.alter_topic(name, **options), as_json, "altered")


def drop(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Drop a topic and its dead letter topic. Older positions still read it; refused while views read it."""
    with _lake(project) as lake:
        topic = lake.log.topic(name)
        if not yes:
            typer.confirm(f"Drop topic {topic.name}?", abort=True, err=True)
        lake.drop_topic(topic.name)
        _tell(topic, as_json, "dropped")


def repartition(
    name: Name,
    partitions: Annotated[int, typer.Argument(metavar="N", help="How many partitions new records go to.")],
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let new records go to N new partitions. What is there stays, and every key keeps its order."""
    with _lake(project) as lake:
        lake.repartition(name, partitions)
        _tell(lake.log.topic(name), as_json, "repartitioned")


def _tell(topic: Topic, as_json: bool, what: str) -> None:
    from headwater.log import topic_settings

    document = {
        "name": topic.name,
        "kind": topic.kind,
        "partitions": topic.partitions,
        "first_partition": topic.first_partition,
        "key": list(topic.schema.key),
        "settings": topic_settings.shown(topic.settings),
        **{name: getattr(topic, name) for name in topic_settings.ABOUT},
    }
    typer.echo(json.dumps(document, ensure_ascii=False, indent=2) if as_json else f"{topic.name} {what}")


def _pair(text: str, separator: str, form: str) -> tuple[str, str]:
    from headwater.errors import UsageError

    name, found, value = text.partition(separator)
    if not found or not name.strip() or not value.strip():
        raise UsageError(f"{text!r} is not {form}", todo=f"Write it like {_EXAMPLES[separator]}.")
    return name.strip(), value.strip()


_EXAMPLES = {":": "user:BIGINT", "=": "retention=7d"}


def _lake(project: Path | None, *, create: bool = False) -> Lake:
    from headwater.config import load
    from headwater.lake import Lake
    from headwater.log import open_log

    return Lake(open_log(load(project).lake_dir, create=create))
