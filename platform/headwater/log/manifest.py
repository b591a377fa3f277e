"""A topic's manifest: its live segments by name, for engines that read without the catalog.

A glob would count merged or retired files twice; the manifest is the list as of the newest seal. It is a
convenience written after the fact: the catalog stays the truth.
"""

from __future__ import annotations

import json
from pathlib import Path

from sqlalchemy import select

from headwater.catalog import tables
from headwater.catalog.records import Topic
from headwater.log.log import Log


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
    body = {
        "topic": topic.name,
        "id": topic.id,
        "kind": topic.kind,
        "rows": sum(found["rows"] for found in segments),
        "last_commit": max((found["last_commit"] for found in segments), default=0),
        "segments": segments,
    }
    log.storage.replace(f"manifests/{topic.name}.json", json.dumps(body, indent=1).encode())
