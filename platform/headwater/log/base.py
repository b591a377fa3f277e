"""Bases: the compacted rows of a topic at a commit, so that a reader does not start from the beginning.

A base is one Parquet file, sorted by key, in file types; multisets and changelogs carry ``_n``, the number of
copies. It holds exactly what a fold of all earlier records gives, with values kept from older records filled
in, so any base and the records after it give the same rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from headwater import types
from headwater.catalog import tables
from headwater.catalog.records import Base, Topic

if TYPE_CHECKING:
    from headwater.log.log import Log

COUNT = "_n"


def newest(log: Log, topic: Topic, upto: int) -> Base | None:
    """The newest base of this topic's current schema version at or before a commit."""
    base, file = tables.base, tables.file
    query = (
        select(base, file.c.path, file.c.bytes, file.c.digest)
        .join(file, file.c.id == base.c.file)
        .where(base.c.topic == topic.id, base.c.commit <= upto, file.c.removed.is_(None))
        .where(base.c.schema_version == topic.schema_version)
        .order_by(base.c.commit.desc())
        .limit(1)
    )
    with log.catalog.read() as connection:
        row = connection.execute(query).one_or_none()
    return None if row is None else Base(**row._mapping)


def relation_sql(log: Log, topic: Topic, found: Base | None) -> str:
    """SQL of the base's rows in file types; without a base, no rows with the right columns."""
    if found is not None:
        path = str(log.storage.path(found.path)).replace("'", "''")
        return f"SELECT * FROM read_parquet('{path}')"
    columns = [f"NULL::{types.file_sql(f.type)} AS {types.quote(f.name)}" for f in topic.schema.fields]
    if topic.kind != "table":
        columns.append(f"NULL::BIGINT AS {COUNT}")
    return f"SELECT {', '.join(columns)} WHERE false"
