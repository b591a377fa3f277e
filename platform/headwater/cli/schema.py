"""`headwater schema`: schema versions of topics, what changed, and whether a new one would be accepted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from headwater.cli.options import JsonOption, ProjectOption

if TYPE_CHECKING:
    from headwater.log import Log
    from headwater.log.subjects import Answer, Version
    from headwater.registry import Change, Proposal
    from headwater.schema import Schema

schema = typer.Typer(no_args_is_help=True, help="Schema versions of topics: list, compare, check, register, exchange.")
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A topic's full name, or a short one if unique.")]
FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="Avro (.avsc), JSON Schema, or headwater's own JSON; `-` reads stdin.")
]
RenameOption = Annotated[
    list[str] | None,
    typer.Option(
        "--rename", metavar="OLD=NEW", help="This column was called OLD; as often as needed.", show_default=False
    ),
]
VersionOption = Annotated[
    int | None,
    typer.Option("--version", metavar="N", help="A version's number. Default: the newest.", show_default=False),
]


@schema.command("list")
def list_subjects(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One topic: all of its versions.")] = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """List topics with their newest schema version and compatibility; with a NAME, all versions of that one."""
    from headwater.log import subjects

    with _log(project) as log:
        topics = log.topics() if name is None else [log.topic(name)]
        found = []
        for topic in topics:
            known = subjects.versions(log, topic)
            listed = known[-1:] if name is None else known
            found += [
                {"name": topic.name, "compatibility": subjects.mode(topic), **_version(each, fields=False)}
                for each in listed
            ]
    if as_json:
        _print({"schemas": found})
        return
    _table(("topic", "version", "compatibility", "fields", "commit", "since"), [
        (each["name"], each["version"], each["compatibility"] or "its source's", each["columns"], each["commit"],
         each["time"]) for each in found
    ])  # fmt: skip


@schema.command("show")
def show(
    name: NameArgument, number: VersionOption = None, project: ProjectOption = None, as_json: JsonOption = False
) -> None:
    """Show one version: fields with id, type, nullability and default, key, commit and time."""
    from headwater.log import subjects
    from headwater.registry.diff import default_text

    with _log(project) as log:
        topic = log.topic(name)
        version = _chosen(log, topic, number)
        document = {"name": topic.name, "compatibility": subjects.mode(topic), **_version(version, fields=True)}
    if as_json:
        _print(document)
        return
    typer.echo(
        f"{topic.name} version {version.number}, since commit {version.commit} ({version.time:%Y-%m-%d %H:%M:%S})"
    )
    _table(("id", "column", "type", "nullable", "default", "key"), [
        (field.id, field.name, field.declared_type, "yes" if field.nullable else "no", default_text(field),
         "key" if field.name in version.schema.key else "") for field in version.schema.fields
    ])  # fmt: skip


@schema.command("diff")
def diff(
    name: NameArgument,
    old: Annotated[
        int | None, typer.Argument(metavar="[FROM]", help="Default: the one before TO.", show_default=False)
    ] = None,
    new: Annotated[int | None, typer.Argument(metavar="[TO]", help="Default: the newest.", show_default=False)] = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what changed between two versions, field by field."""
    from headwater import registry

    with _log(project) as log:
        topic = log.topic(name)
        later = _chosen(log, topic, new)
        earlier = _chosen(log, topic, max(later.number - 1, 1) if old is None else old)
    changes = registry.diff(earlier.schema, later.schema)
    if as_json:
        _print(
            {"name": topic.name, "from": earlier.number, "to": later.number, "changes": [_change(c) for c in changes]}
        )
        return
    typer.echo(f"{topic.name}: version {earlier.number} to {later.number}")
    _show_changes(changes)


@schema.command("check")
def check(
    name: NameArgument,
    file: FileArgument,
    renames: RenameOption = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a schema would be accepted as the next version; changes nothing. Exit code 1 when it would not."""
    from headwater.log import subjects

    with _log(project) as log:
        answer = subjects.propose(log, log.topic(name), _proposal(file, renames))
    _answer(answer, as_json)
    if answer.violations:
        raise typer.Exit(1)


@schema.command("register")
def register(
    name: NameArgument,
    file: FileArgument,
    renames: RenameOption = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a schema the topic's next version. What is in force already is no new one."""
    from headwater.log import subjects

    with _log(project) as log:
        topic = log.topic(name)
        version = subjects.register(log, topic, _proposal(file, renames))
    new = version.number > topic.schema_version
    if as_json:
        _print({"name": topic.name, "registered": new, **_version(version, fields=True)})
    else:
        typer.echo(
            f"{topic.name} version {version.number} "
            + (f"since commit {version.commit}" if new else "is in force already")
        )


@schema.command("export")
def export(
    name: NameArgument,
    form: Annotated[
        Literal["headwater", "avro", "json-schema"], typer.Option("--format", help="The form.")
    ] = "headwater",
    number: VersionOption = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,  # noqa: ARG001 -- every form is JSON
) -> None:
    """Print a version as Avro, JSON Schema, or headwater's own JSON, with field ids."""
    from headwater.registry import avro, document, json_schema

    with _log(project) as log:
        topic = log.topic(name)
        found = _chosen(log, topic, number)
        earlier: dict[int, Schema] = {n: each for n, each in log.schemas(topic).items() if n < found.number}
    if form == "avro":
        _print(avro.export(found.schema, topic.name, earlier))
    else:
        _print(json_schema.export(found.schema, topic.name) if form == "json-schema" else document.export(found.schema))


@schema.command("import")
def import_schema(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new topic's full name, as shop.events.clicks.")],
    file: FileArgument,
    key: Annotated[
        list[str] | None, typer.Option("--key", metavar="COLUMN", help="A column of the key; several in their order.")
    ] = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a topic whose first version is the schema of a file."""
    from dataclasses import replace

    from headwater.log import administration, subjects
    from headwater.registry import assign

    proposal = _proposal(file, None)
    chosen = tuple(key) if key else proposal.key or ()
    fresh = tuple(replace(field, id=0) for field in proposal.fields)
    first = assign(replace(proposal, fields=fresh, key=chosen), {})
    with _log(project, create=True) as log:
        topic = administration.create(log, name, first)
        version = subjects.versions(log, topic)[-1]
    if as_json:
        _print({"name": topic.name, "registered": True, **_version(version, fields=True)})
    else:
        typer.echo(f"{topic.name} created with {len(first.fields)} columns")


def _log(project: Path | None, *, create: bool = False) -> Log:
    from headwater.config import load
    from headwater.log import open_log

    return open_log(load(project).lake_dir, create=create)


def _chosen(log: Log, topic: Any, number: int | None) -> Version:
    from headwater.log import subjects

    return subjects.version(log, topic, topic.schema_version if number is None else number)


def _proposal(file: Path, renames: list[str] | None) -> Proposal:
    from headwater.errors import UsageError
    from headwater.registry import document

    named: dict[str, str] = {}
    for each in renames or ():
        old, equals, new = each.partition("=")
        if not (old and equals and new):
            raise UsageError(f"--rename {each} is no pair", todo="Write --rename OLD=NEW.")
        named[new] = old
    return document.with_renames(document.load(file), named)


def _answer(answer: Answer, as_json: bool) -> None:
    from headwater.registry.compatibility import summary

    if as_json:
        _print({
            "name": answer.topic.name,
            "compatibility": answer.mode,
            "accepted": not answer.violations,
            "changes": [_change(change) for change in answer.changes],
            "violations": summary(answer.violations),
        })  # fmt: skip
        return
    _show_changes(answer.changes)
    for violation in answer.violations:
        typer.echo(f"refused by {violation}")
    if not answer.violations:
        typer.echo(f"accepted by {answer.mode}" if answer.changes else "in force already")


def _show_changes(changes: Any) -> None:
    for change in changes:
        typer.echo(f"  {change}")


def _change(change: Change) -> dict[str, str]:
    return {"kind": change.kind, "field": change.field, "before": change.before, "after": change.after}


def _version(version: Version, *, fields: bool) -> dict[str, Any]:
    from headwater.registry import document

    shown: dict[str, Any] = {
        "version": version.number,
        "commit": version.commit,
        "time": version.time.isoformat(),
        "columns": len(version.schema.fields),
    }
    return shown | document.export(version.schema) if fields else shown


def _print(document: dict[str, Any]) -> None:
    typer.echo(json.dumps(document, ensure_ascii=False, indent=2))


def _table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    from rich.table import Table

    from headwater.service.display import console

    shown = Table(*header, box=None, padding=(0, 2, 0, 0), header_style="dim")
    for row in rows:
        shown.add_row(*(str(each) for each in row))
    console().print(shown)
