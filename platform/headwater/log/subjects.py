"""The schema registry of a log: every topic is a subject, its schema versions are published by commits.

propose → check (changes nothing) → register (checked again, inside the catalog transaction)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.dialects.sqlite import insert

from headwater.catalog import tables
from headwater.catalog.records import Compatibility, Topic
from headwater.errors import NameNotFound, SchemaError
from headwater.log import topics
from headwater.registry import Change, Proposal, Violation, assign, check, diff
from headwater.schema import Schema

if TYPE_CHECKING:
    from headwater.log.log import Log

PRODUCER = "registry"
"""Who publishes a version that comes without records; many processes may, since it has no position."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """A schema version and the commit from which it is in force."""

    number: int
    commit: int
    time: datetime
    schema: Schema


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What would become of a proposal. ``violations`` empty: it is accepted. No ``changes``: it is in force already."""

    topic: Topic
    mode: Compatibility
    schema: Schema
    changes: tuple[Change, ...]
    violations: tuple[Violation, ...]


def versions(log: Log, topic: Topic) -> list[Version]:
    """Every version, oldest first."""
    query = select(tables.schema_version).where(tables.schema_version.c.topic == topic.id)
    with log.catalog.read() as connection:
        rows = connection.execute(query.order_by(tables.schema_version.c.version)).all()
    return [_version(log, row) for row in rows]


def mode(topic: Topic) -> Compatibility | None:
    """The compatibility that new versions are held to; None where the topic's source or view decides."""
    return topic.settings.compatibility if topics.is_checked(topic.source, topic.kind) else None


def version(log: Log, topic: Topic, number: int) -> Version:
    """The version of this number; NameNotFound when there is none."""
    table = tables.schema_version
    query = select(table).where(table.c.topic == topic.id, table.c.version == number)
    with log.catalog.read() as connection:
        row = connection.execute(query).one_or_none()
    if row is None:
        raise NameNotFound(f"{topic.name} has no schema version {number}", todo=f"It has 1 to {topic.schema_version}.")
    return _version(log, row)


def propose(log: Log, topic: Topic, proposal: Proposal) -> Answer:
    """What would become of ``proposal`` now; nothing is changed.

    UsageError when it contradicts itself, SchemaError for a topic whose source or view decides.
    """
    if not topics.is_checked(topic.source, topic.kind):
        owner = f"source {topic.source}" if topic.source else "its view"
        raise SchemaError(
            f"the schema of {topic.name} follows {owner}", todo="Change it there; the topic takes it over."
        )
    known: dict[int, Schema] = log.schemas(topic)
    kept = topic.settings.compatibility
    schema = assign(proposal, known, replaces=kept == "NONE")
    same = schema == known[max(known)]
    return Answer(
        topic=topic,
        mode=kept,
        schema=schema,
        changes=() if same else tuple(diff(known[max(known)], schema)),
        violations=() if same else tuple(check(schema, known, kept)),
    )


def register(log: Log, topic: Topic, proposal: Proposal) -> Version:
    """Make ``proposal`` the topic's schema; what is in force already is no new version.

    IncompatibleSchema when the topic's compatibility refuses it, SchemaConflict when another version was
    registered at the same time, and what ``propose`` raises.
    """
    schema = propose(log, topic, proposal).schema
    with log.transaction(PRODUCER, _epoch(log)) as tx:
        tx.add_schema(topic.name, schema)
        if tx.changed:
            tx.commit()
    now = log.topic(topic.name)
    return version(log, now, now.schema_version)


def _version(log: Log, row: Any) -> Version:
    return Version(
        number=row.version,
        commit=row.commit,
        time=log.commit_info(row.commit).time,
        schema=Schema.from_json(row.body),
    )


def _epoch(log: Log) -> int:
    """The one epoch of all who register: nobody fences anybody."""
    if (known := log.producer(PRODUCER).epoch) > 0:
        return known
    with log.catalog.write() as connection:
        connection.execute(insert(tables.producer).values(name=PRODUCER, epoch=1).on_conflict_do_nothing())
    return log.producer(PRODUCER).epoch
