"""Bases against the records they are made of: folded again from the beginning, or from the base before.

The fold runs in a DuckDB of its own, which spills beyond its memory limit; rows are compared as bags, both ways.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Collection, Iterator
from itertools import groupby
from typing import TYPE_CHECKING

import duckdb

from headwater import duck
from headwater.catalog.records import Base, Topic
from headwater.config import MIB, Settings
from headwater.errors import CorruptFile, Expired, FilesExpired
from headwater.log import base, parts
from headwater.log.parts import Part
from headwater.log.rows import CurrentRows
from headwater.types import lift_sql, quote

if TYPE_CHECKING:
    from headwater.log.log import Log


class _Folded(CurrentRows):
    """Rows that are always the fold: a later base is never taken in the place of records."""

    copied_bytes_max = sys.maxsize


def check(log: Log, broken: Collection[Part]) -> Iterator[tuple[str, str]]:
    """What is wrong, and where; a topic with damaged records is passed over, for those are findings already."""
    with log.catalog.read() as connection:
        found = [each for each in parts.bases(connection) if each not in broken]
    for _, group in groupby(found, key=lambda each: (each.topic, each.schema_version)):
        bases = list(group)
        try:
            yield from _check_topic(log, bases)
        except (CorruptFile, FilesExpired):
            continue
        except duckdb.Error as error:  # files with other columns than the catalog says, for example
            yield f"its records cannot be folded: {str(error).splitlines()[0]}", bases[0].path


def _check_topic(log: Log, bases: list[Base]) -> Iterator[tuple[str, str]]:
    """The bases of one topic and schema version, in the order of their commits."""
    limit = f"{Settings().maintenance_memory_bytes_max // MIB}MiB"
    with (
        tempfile.TemporaryDirectory(prefix="headwater-") as spill,
        duck.connect(timezone=log.timezone, memory_limit=limit, temp_directory=spill) as own,
    ):
        topic = _topic_at(log, bases[0])
        if topic is None:
            yield "no topic existed when this base was written, says the catalog", bases[0].path
            return
        rows = _Folded(log, own, topic)
        rows.at(topic, 0)
        for place, each in enumerate(bases):
            try:
                folded = _rows_sql(rows, topic, each)
            except Expired:  # the records before it have gone, rightly: it is the beginning now
                if place == 0:
                    rows = _Folded(log, own, topic)
                    rows.at(topic, each.commit)
                continue
            more, fewer = _differences(own, folded, _base_sql(log, topic, each))
            if more or fewer:
                what = f"the base lacks {more} rows that its records give, and has {fewer} that they do not"
                yield what, each.path


def _topic_at(log: Log, found: Base) -> Topic | None:
    return next((topic for topic in log.topics(found.commit, hidden=True) if topic.id == found.topic), None)


def _rows_sql(rows: CurrentRows, topic: Topic, found: Base) -> str:
    if topic.kind == "table":
        return rows.at(topic, found.commit)
    names = ", ".join(quote(name) for name in topic.schema.names)
    counted = rows.counted_at(topic, found.commit)
    return f"SELECT {names}, sum({base.COUNT})::BIGINT AS {base.COUNT} FROM {counted} GROUP BY ALL"


def _base_sql(log: Log, topic: Topic, found: Base) -> str:
    lifted = [f"{lift_sql(field.name, field.type)} AS {quote(field.name)}" for field in topic.schema.fields]
    if topic.kind != "table":
        lifted.append(base.COUNT)
    return f"SELECT {', '.join(lifted)} FROM ({base.relation_sql(log, topic, found)})"


def _differences(own: duckdb.DuckDBPyConnection, one: str, other: str) -> tuple[int, int]:
    """How many rows ``one`` has more than ``other``, and the other way round."""
    sql = "SELECT count(*) FROM (({}) EXCEPT ALL ({}))"
    more, fewer = (own.execute(sql.format(*pair)).fetchall()[0][0] for pair in ((one, other), (other, one)))
    return int(more), int(fewer)
