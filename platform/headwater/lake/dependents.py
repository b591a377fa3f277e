"""Who reads a topic: what a drop has to ask."""

from __future__ import annotations

import re

from sqlalchemy import Connection

from headwater.catalog.records import Topic
from headwater.errors import HeadwaterError, SqlSyntax
from headwater.lake.resolve import resolve
from headwater.log import dead_letters, jobs, topics, views


def reading(connection: Connection, topic: Topic) -> list[str]:
    """Names of the views whose query reads ``topic``, and of jobs.

    A query that only the view compiler can parse (``SESSION(clicks, at, INTERVAL 5 MINUTES, visitor)``) is taken to
    read every topic whose name is a word in it.
    """
    known = [*(each for each in topics.read(connection) if each.id != topic.id), topic]
    found = [view.name for view in views.read(connection) if _reads(view.sql, topic, known)]
    return found + [f"job {record.name}" for record in jobs.read_in(connection) if topic.name in record.inputs]


def _reads(query: str, topic: Topic, known: list[Topic]) -> bool:
    try:
        return any(reference.topic.id == topic.id for reference in resolve(query, known).references)
    except SqlSyntax:
        last = topic.name.removesuffix(dead_letters.SUFFIX).rpartition(".")[2]
        return re.search(rf"(?<!\w){re.escape(last)}(?!\w)", query, re.IGNORECASE) is not None
    except HeadwaterError:  # it names something that is gone already
        return False
