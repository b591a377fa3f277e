"""A topic's manifest: its live segments by name, for engines that read without the catalog.

A glob would count merged or retired files twice; the manifest is the list as of the newest change of segments. It
is a convenience written after the fact: the catalog stays the truth. docs/files.md tells how to read by it.
"""

from __future__ import annotations

import json
from pathlib import Path

from sqlalchemy import select

from headwater.catalog import tables
from headwater.catalog.records import Topic
from headwater.log import topics
from headwater.log.log import Log

FORMAT = 1
"""Of the manifest; raised when a field changes its meaning, never when one is added."""


def path(log: Log, topic: Topic) -> Path:
    """Where the manifest of a topic lies."""
    return log.storage.path(f"manifests/{topic.name}.json")


def refresh(log: Log, topic_id: int) -> None:
    """The same by a topic's id; its history outlives the topic's end, and so does its manifest."""
    with log.catalog.read() as connection:
        created = connection.execute(select(tables.topic.c.created).where(tables.topic.c.id == topic_id)).scalar_one()
    write(log, next(topic for topic in log.topics(created, hidden=True) if topic.id == topic_id))


def write(log: Log, topic: Topic) -> None:
    """Replace the topic's manifest with its live segments now."""
    segment, file = tables.segment, tables.file
    query = (
        select(segment, file.c.path, file.c.bytes)
        .join(file, file.c.id == segment.c.file)
        .where(segment.c.topic == topic.id, file.c.removed.is_(None))
        .order_by(segment.c.partition, segment.c.first_offset)
    )
    with log.catalog.read() as connection:
        segments = [dict(row._mapping) for row in connection.execute(query)]
        schemas = topics.schemas(connection, topic.id)
    body = {
        "format": FORMAT,
        "topic": topic.name,
        "id": topic.id,
        "kind": topic.kind,
        "key": list(topic.schema.key),
        "rows": sum(found["rows"] for found in segments),
        "last_commit": max((found["last_commit"] for found in segments), default=0),
        "schemas": {
            str(version): [{"id": field.id, "name": field.name, "type": field.type} for field in schema.fields]
            for version, schema in sorted(schemas.items())
        },
        "segments": segments,
    }
    log.storage.replace(f"manifests/{topic.name}.json", json.dumps(body, indent=1).encode())
