"""Creating, altering and dropping the topics that people own, one commit each.

Captured topics and changelogs are made by their source and pipeline; of those only the settings and what is said
about them can be altered here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

from sqlalchemy import Connection, func, select, update

from headwater import record, types
from headwater.catalog import tables
from headwater.catalog.records import CommitInfo, Topic
from headwater.config import REFUSED_SOURCE_NAMES
from headwater.errors import DuplicateName, NameNotFound, UsageError
from headwater.log import dead_letters, names, subjects, topic_settings, topics
from headwater.log.repartition import check_count
from headwater.log.system import transaction
from headwater.log.topic_settings import Value
from headwater.registry.proposal import NEW, Proposal, refuse_structs
from headwater.schema import Schema

if TYPE_CHECKING:
    from headwater.log.log import Log

PRODUCER: Final = "system:topics"
EVENT_PARTITIONS: Final = 4
"""Of an event topic that says nothing: as many readers of a group can share it."""

TEXT_MAX: Final = 2_000
"""Characters of a description, owner, criticality or classification: every reader keeps them in memory."""

NAME_MAX: Final = 249
"""Characters of a topic's name; with what is put behind it, it is the name of files."""

REFUSED: Final = REFUSED_SOURCE_NAMES | {"headwater"}
"""First parts of a name that mean something else in a query."""

_PART = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def create(
    log: Log,
    name: str,
    columns: Mapping[str, str] | Schema,
    *,
    key: Sequence[str] = (),
    partitions: int | None = None,
    kind: Literal["event", "table"] = "event",
    **options: Value,
) -> Topic:
    """Create a topic for producers.

    Args:
        log: where.
        name: one to three parts with dots between, such as ``shop.events.clicks``.
        columns: name to DuckDB type, or a schema.
        key: columns that say which record replaces which, and in which partition it stands.
        partitions: 4 for an event topic and 1 for a table when left out.
        kind: event: its records are its rows. table: each key has a current row; a key is needed.
        options: description, owner, criticality, classification, and settings (see ``topic_settings``).

    Raises UsageError for what makes no sense, DuplicateName when the name is taken (upper and lower case are one).
    """
    check_name(name)
    schema = check_schema(columns, key, name)
    if kind == "table" and not schema.key:
        raise UsageError(
            "a table needs a key", where=name, todo="Name its columns with key=, or make it an event topic."
        )
    count = (1 if kind == "table" else EVENT_PARTITIONS) if partitions is None else partitions
    check_count(count, name)
    said, settings = _split(options, name)
    chosen = topic_settings.parse(settings)
    topic_settings.check(chosen, kind, schema, name)
    with transaction(log, PRODUCER) as tx:
        tx.inside(lambda connection, info: _refuse_taken(connection, name, info.number))
        tx.create_topic(
            name,
            kind,
            schema,
            partitions=count,
            settings=chosen,
            description=said.get("description", ""),
            owner=said.get("owner"),
            criticality=said.get("criticality"),
            classification=said.get("classification"),
        )
        tx.commit()
    return log.topic(name)


def alter(log: Log, name: str, **options: Value) -> Topic:
    """Change what is said about a topic, and its settings; those not named stay as they are.

    The number of partitions is not a setting: see ``repartition``. The schema has ``headwater schema``.
    """
    if "partitions" in options:
        todo = f"Use `headwater topic repartition {name} N`: it keeps every record and its order."
        raise UsageError("the number of partitions is not altered", where=name, todo=todo)
    topic = log.topic(name)
    said, settings = _split(options, topic.name)

    def apply(connection: Connection, info: CommitInfo) -> None:
        found = next((t for t in topics.read(connection) if t.id == topic.id), None)
        if found is None:
            raise NameNotFound(f"topic {topic.name} was dropped meanwhile")
        changed = topic_settings.parse(settings, found.settings)
        topic_settings.check(changed, found.kind, found.schema, found.name)
        values = {**said, "settings": changed.to_json()}
        connection.execute(update(tables.topic).where(tables.topic.c.id == topic.id).values(**values))
        topics.bump_generation(connection, info.number)

    with transaction(log, PRODUCER) as tx:
        tx.inside(apply)
        tx.commit()
    return log.topic(topic.name)


def drop(log: Log, name: str, readers: Callable[[Connection, Topic], Sequence[str]]) -> Topic:
    """Drop a topic and its dead letter topic; older positions still read them.

    UsageError for one that a source or view writes, that ``readers`` (views and jobs, by name) read, or that has open
    dead letters. Nobody can begin to read it between this check and the drop.
    """
    topic = log.topic(name)
    if topic.source is not None or topic.kind not in ("event", "table"):
        writer = f"source {topic.source}" if topic.source else "headwater itself"
        todo = "Take the table out of the source's tables, or drop the view."
        raise UsageError(f"{topic.name} is written by {writer}", todo=todo)
    dlq = dead_letters.name_of(topic.name)

    def check(connection: Connection, _: CommitInfo) -> None:
        reading = readers(connection, topic)
        if reading:
            raise UsageError(
                f"{topic.name} is read by {', '.join(reading)}", todo="Drop or replace what reads it first."
            )
        letter = tables.dead_letter
        mine = (letter.c.topic == topic.id) | (letter.c.dlq == topic.id)
        count = connection.execute(select(func.count()).where(mine, letter.c.state == "open")).scalar_one()
        if count:
            todo = (
                f"Redrive or discard them first: `headwater dlq show {topic.name.removesuffix(dead_letters.SUFFIX)}`."
            )
            raise UsageError(f"{topic.name} has {count:,} open dead letters", todo=todo)

    with transaction(log, PRODUCER) as tx:
        tx.inside(check)
        tx.drop_topic(topic.name)
        if dlq in {each.name for each in log.topics(hidden=True)}:
            tx.drop_topic(dlq)
        tx.commit()
    return topic


def check_name(name: str) -> None:
    """UsageError unless a topic of a person's own can be called so."""
    parts = name.split(".")
    if len(name) > NAME_MAX or len(parts) > 3 or not all(_PART.fullmatch(part) for part in parts):
        raise UsageError(
            f"{name!r} is no topic name",
            todo=f"Use one to three parts with dots between, of letters, digits, _ and -, up to {NAME_MAX} in all.",
        )
    if parts[0].lower() in REFUSED or name.lower().endswith(dead_letters.SUFFIX):
        taken = dead_letters.SUFFIX if name.lower().endswith(dead_letters.SUFFIX) else parts[0]
        raise UsageError(
            f"a topic cannot be called {name!r}: {taken} means something else", todo="Choose another name."
        )


def evolve(log: Log, name: str, columns: Mapping[str, str] | Schema, renames: Mapping[str, str]) -> subjects.Version:
    """See ``Lake.register_schema``. Of a mapping, columns that the topic has keep what is declared of them."""
    topic = log.topic(name)
    schema = columns if isinstance(columns, Schema) else Schema.of(dict(columns), key=topic.schema.key)
    proposal = Proposal.of(schema)
    if not isinstance(columns, Schema):
        known = {field.name: field for field in topic.schema.fields}
        fields = [
            replace(known[old], id=NEW, name=field.name, type=field.type, write_type="")
            if (old := renames.get(field.name, field.name)) in known
            else replace(field, null_default=True)
            for field in proposal.fields
        ]
        proposal = replace(proposal, fields=tuple(fields))
    return subjects.register(log, topic, replace(proposal, renames=renames))


def check_schema(columns: Mapping[str, str] | Schema, key: Sequence[str], where: str) -> Schema:
    """The columns as a schema; UsageError says which column or type makes no sense."""
    if isinstance(columns, Schema):
        schema = columns
    else:
        for name, text in columns.items():
            _check_type(name, text, where)
        for name in key:
            if name not in columns:
                near = names.near(name, list(columns))
                todo = f"Did you mean {near[0]}?" if near else f"Columns: {', '.join(columns)}."
                raise UsageError(f"there is no column {name!r} to be the key", where=where, todo=todo)
        schema = Schema.of(dict(columns), key=key)
    refuse_structs(schema.fields)
    folded = [name.lower() for name in schema.names]
    wrong = [n for n in schema.names if n.lower() in record.METADATA or folded.count(n.lower()) > 1 or not n]
    if wrong or not folded:
        what = f"column {wrong[0]!r} is a name that is taken" if wrong else "a topic needs a column"
        raise UsageError(
            what, where=where, todo="Names differ in more than upper and lower case, and from _op and such."
        )
    return schema


def _split(options: Mapping[str, Value], where: str) -> tuple[dict[str, str], dict[str, Value]]:
    """What is said about a topic, and its settings."""
    said: dict[str, str] = {}
    for name in topic_settings.ABOUT:
        text = options.get(name, "")
        if not isinstance(text, str) or len(text) > TEXT_MAX:
            raise UsageError(f"{name} is no text of at most {TEXT_MAX} characters", where=where, todo="Say it shorter.")
        if name in options:
            said[name] = text
    return said, {name: value for name, value in options.items() if name not in said}


def _check_type(name: str, text: str, where: str) -> None:
    try:
        types.arrow_type(text)
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"column {name!r} has a type {text!r} that a topic cannot hold",
            where=where,
            todo="See the table of types in docs/topics.md.",
        ) from error


def _refuse_taken(connection: Connection, name: str, commit: int) -> None:
    topic = tables.topic
    others = select(topic.c.name).where(topic.c.dropped.is_(None), func.lower(topic.c.name) == name.lower())
    taken = connection.execute(others.where(topic.c.created != commit)).scalar()
    if taken is not None:
        raise DuplicateName(f"topic {taken} exists already", todo="Choose another name, or use that one.")
