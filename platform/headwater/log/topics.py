"""Topics in the catalog: reading them as of a commit, creating, altering, dropping, new schema versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import BindParameter, Connection, bindparam, func, select, update

from headwater.catalog import tables
from headwater.catalog.catalog import put_setting
from headwater.catalog.prepared import Prepared
from headwater.catalog.records import Kind, Topic, TopicSettings
from headwater.errors import DuplicateName, SchemaConflict
from headwater.registry import compatibility
from headwater.schema import Schema

GENERATION = "generation"
"""Setting that changes with every change of topics or views, so that readers can keep what they read."""


@dataclass(kw_only=True)
class TopicChanges:
    """What one log transaction does to topics; applied inside its catalog transaction."""

    created: list[Topic] = field(default_factory=list)
    optional: set[str] = field(default_factory=set)
    """Of the created ones, those that may exist already."""
    altered: dict[str, dict[str, str]] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    schemas: dict[str, dict[int, Schema]] = field(default_factory=dict)
    """New versions by topic and number, in order."""

    def __bool__(self) -> bool:
        return bool(self.created or self.altered or self.dropped or self.schemas)


def _existing(*, now: bool) -> tuple[Prepared, Prepared]:
    """Of every topic that exists now, or at commit ``at``: its columns, by name; and the schema in force."""
    topic, version = tables.topic, tables.schema_version
    newest = select(version.c.topic, func.max(version.c.version).label("version")).group_by(version.c.topic)
    query = select(topic).order_by(topic.c.name)
    if now:
        query = query.where(topic.c.dropped.is_(None))
    else:
        at: BindParameter[int] = bindparam("at")
        newest = newest.where(version.c.commit <= at)
        query = query.where(topic.c.created <= at, (topic.c.dropped.is_(None)) | (topic.c.dropped > at))
    found = newest.subquery()
    joined = select(version.c.topic, version.c.version, version.c.body).join(
        found, (found.c.topic == version.c.topic) & (found.c.version == version.c.version)
    )
    return Prepared(query), Prepared(joined)


_NOW, _THEN = _existing(now=True), _existing(now=False)


def read(connection: Connection, at: int | None = None) -> list[Topic]:
    """Every topic that exists at commit ``at`` (None: now), with the schema in force there."""
    topics, versions = _NOW if at is None else _THEN
    place = {} if at is None else {"at": at}
    bodies = {row.topic: (row.version, row.body) for row in versions.all(connection, place)}
    layouts = {} if at is None else _layouts(connection, at)
    found = [topic for topic in topics.records(connection, Topic, place) if topic.id in bodies]
    for topic in found:
        _complete(topic, *bodies[topic.id], layouts.get(topic.id))
    return found


def _complete(topic: Topic, version: int, body: str, layout: tuple[int, int] | None) -> None:
    """From the columns of a topic's row to a Topic, which nobody has seen yet."""
    held = vars(topic)
    if layout is not None:
        held["first_partition"], held["partitions"] = layout
    held["hidden"] = bool(held["hidden"])
    held["settings"] = TopicSettings.from_json(held["settings"])
    held["schema"], held["schema_version"] = Schema.from_json(body), version


def _layouts(connection: Connection, at: int) -> dict[int, tuple[int, int]]:
    """First open partition, and how many there are, of each topic at a commit."""
    partition = tables.partition
    then = (partition.c.created <= at) & (partition.c.closed.is_(None) | (partition.c.closed > at))
    query = select(partition.c.topic, func.min(partition.c.partition), func.count()).where(then)
    rows = connection.execute(query.group_by(partition.c.topic))
    return {topic: (first, count) for topic, first, count in rows}


def schemas(connection: Connection, topic_id: int) -> dict[int, Schema]:
    """Every schema version of a topic."""
    query = select(tables.schema_version).where(tables.schema_version.c.topic == topic_id)
    return {row.version: Schema.from_json(row.body) for row in connection.execute(query)}


def apply(connection: Connection, changes: TopicChanges, commit: int) -> dict[str, int]:
    """Write the changes as of ``commit``; returns the ids of the created topics by name."""
    live = tables.topic.c.dropped.is_(None)
    for name in changes.dropped:  # first: another topic may take the name in the same commit
        mine = tables.partition.c.topic == live_id(connection, name)
        close = update(tables.partition).where(mine, tables.partition.c.closed.is_(None))
        connection.execute(close.values(closed=commit))
        connection.execute(update(tables.topic).where(tables.topic.c.name == name, live).values(dropped=commit))
    ids = {topic.name: _create(connection, topic, commit, topic.name in changes.optional) for topic in changes.created}
    for name, values in changes.altered.items():
        connection.execute(update(tables.topic).where(tables.topic.c.name == name, live).values(**values))
    for name, versions in changes.schemas.items():
        for number, schema in versions.items():
            _add_schema(connection, name, number, schema, commit)
    bump_generation(connection, commit)
    return ids


def bump_generation(connection: Connection, token: int) -> None:
    """Tell every reader that topics or views changed."""
    query = select(tables.setting.c.value).where(tables.setting.c.name == GENERATION)
    value = connection.execute(query).scalar_one_or_none()
    put_setting(connection, GENERATION, f"{int((value or '0').split('.')[0]) + 1}.{token}")


def new(
    name: str,
    kind: Kind,
    schema: Schema,
    partitions: int,
    source: str | None,
    description: str,
    settings: TopicSettings,
) -> Topic:
    """A topic that is not in the catalog yet (id 0)."""
    return Topic(
        id=0,
        name=name,
        kind=kind,
        source=source,
        schema=schema,
        schema_version=1,
        partitions=partitions,
        state="live",
        reason="",
        created=0,
        dropped=None,
        description=description,
        hidden=False,
        settings=settings,
    )


def _create(connection: Connection, topic: Topic, commit: int, if_absent: bool) -> int:
    taken = live_id(connection, topic.name)
    if taken is not None and if_absent:
        return taken
    if taken is not None:
        raise DuplicateName(f"topic {topic.name} exists already")
    values = {
        "name": topic.name,
        "kind": topic.kind,
        "source": topic.source,
        "partitions": topic.partitions,
        "hidden": int(topic.hidden),
        "state": topic.state,
        "reason": topic.reason,
        "description": topic.description,
        "settings": topic.settings.to_json(),
        "owner": topic.owner,
        "criticality": topic.criticality,
        "classification": topic.classification,
        "created": commit,
    }
    inserted = connection.execute(tables.topic.insert().values(**values).returning(tables.topic.c.id)).scalar_one()
    connection.execute(
        tables.schema_version.insert().values(topic=inserted, version=1, commit=commit, body=topic.schema.to_json())
    )
    rows = [{"topic": inserted, "partition": n, "next_offset": 0, "created": commit} for n in topic.open_partitions]
    connection.execute(tables.partition.insert(), rows)
    return int(inserted)


def live_id(connection: Connection, name: str) -> int | None:
    """The id of the topic that has this full name now."""
    topic = tables.topic
    query = select(topic.c.id).where(topic.c.name == name, topic.c.dropped.is_(None))
    return connection.execute(query).scalar_one_or_none()


def _add_schema(connection: Connection, name: str, number: int, schema: Schema, commit: int) -> None:
    """Add version ``number``, checked against what is in force now: no other writer is between check and insert.

    Nothing to do when it is in force already, word for word. SchemaConflict when the newest version is not the one
    it was made from, IncompatibleSchema when the topic's compatibility refuses it.
    """
    topic, version = tables.topic, tables.schema_version
    row = connection.execute(select(topic).where(topic.c.name == name, topic.c.dropped.is_(None))).one()
    versions = schemas(connection, row.id)
    newest = max(versions)
    if versions[newest] == schema:
        return
    if newest != number - 1:
        raise SchemaConflict(
            f"version {newest} was registered meanwhile, and this one was made from version {number - 1}",
            where=name,
            todo="Look at the newest version (`headwater schema show`) and propose again.",
        )
    if is_checked(row.source, row.kind):
        compatibility.require(name, schema, versions, TopicSettings.from_json(row.settings).compatibility)
    connection.execute(version.insert().values(topic=row.id, version=number, commit=commit, body=schema.to_json()))


def is_checked(source: str | None, kind: Kind) -> bool:
    """Whether compatibility holds for a topic: a captured table follows its source, a changelog its view."""
    return source is None and kind not in ("changelog", "transactions", "system")


def by_name(topics: Sequence[Topic]) -> dict[str, Topic]:
    return {topic.name: topic for topic in topics}
