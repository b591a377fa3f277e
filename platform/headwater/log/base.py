"""Bases: the compacted rows of a topic at a commit, so that a reader does not start from the beginning.

A base is one Parquet file, sorted by key, in file types; multisets and changelogs carry ``_n``, the number of
copies. It holds exactly what a fold of all earlier records gives, with values kept from older records filled
in, so any base and the records after it give the same rows.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
from sqlalchemy import Row, Select, bindparam, func, insert, select

from headwater import duck, types
from headwater.catalog import tables
from headwater.catalog.records import Base, Topic
from headwater.config import Settings
from headwater.log import chain, quarantine, read
from headwater.log.parquet import ParquetFile, with_ids

if TYPE_CHECKING:
    from headwater.log.log import Log

COUNT = "_n"

SLICE_ROWS = 1_000_000
"""A base is sorted about so many rows at a time: a sort of all of them ran out of memory at 10 M, spilling or not."""

SAMPLED = 100_000
"""Values that say where the slices begin; enough for slices of a hundred million rows to be even."""

# Built once: every read of a table with a large base asks it.
_NEWEST = (
    select(tables.base, tables.file.c.path, tables.file.c.bytes, tables.file.c.digest)
    .join(tables.file, tables.file.c.id == tables.base.c.file)
    .where(tables.base.c.topic == bindparam("topic"), tables.base.c.commit <= bindparam("upto"))
    .where(tables.base.c.schema_version <= bindparam("schema_version"), tables.file.c.removed.is_(None))
    .order_by(tables.base.c.commit.desc())
    .limit(1)
)


def newest(log: Log, topic: Topic, upto: int) -> Base | None:
    """The newest base of this topic's current or an earlier schema version at or before a commit."""
    place = {"topic": topic.id, "upto": upto, "schema_version": topic.schema_version}
    with log.catalog.read() as connection:
        row = connection.execute(_NEWEST, place).one_or_none()
    return None if row is None else Base(**row._mapping)


def relation_sql(log: Log, topic: Topic, found: Base | None) -> str:
    """SQL of the base's rows in file types, mapped by field id; without a base, no rows with the right columns."""
    if found is not None:
        path = str(log.storage.path(found.path)).replace("'", "''")
        if found.schema_version == topic.schema_version:
            return f"SELECT * FROM read_parquet('{path}')"
        mapped = ", ".join(read.mapped_columns(log, topic, found.schema_version))
        return f"SELECT {mapped}{'' if topic.kind == 'table' else f', {COUNT}'} FROM read_parquet('{path}')"
    columns = [f"NULL::{types.file_sql(f.type)} AS {types.quote(f.name)}" for f in topic.schema.fields]
    if topic.kind != "table":
        columns.append(f"NULL::BIGINT AS {COUNT}")
    return f"SELECT {', '.join(columns)} WHERE false"


def write(log: Log, topic: Topic, commit: int, settings: Settings) -> int:
    """Write and publish a base of ``topic`` as it is at ``commit``; returns its rows. The caller owns ``maintenance``.

    It stands at the commit of the newest record, from which on it is right: a view reads tables at positions between.
    Rows are folded in a DuckDB of its own (spills beyond its memory limit) and streamed to the file.
    """
    limit = f"{settings.maintenance_memory_bytes_max // 2**20}MiB"
    spill = log.storage.path("state/spill")
    commit = read.newest(log, [(topic, commit)])[0] or commit
    shutil.rmtree(spill, ignore_errors=True)  # of a process that was killed
    with duck.connect(timezone=log.timezone, memory_limit=limit, temp_directory=spill, for_files=True) as own:
        from headwater.log.rows import CurrentRows  # it reads bases, so it comes after this module

        current = CurrentRows(log, own, topic)
        fields = topic.schema.fields
        lowered = ", ".join(f"{types.lower_sql(f.name, f.type)} AS {types.quote(f.name)}" for f in fields)
        if topic.kind == "table":
            kept = current.at(topic, commit)
        else:  # each row once, however often it came
            names = ", ".join(types.quote(name) for name in topic.schema.names)
            counted = current.counted_at(topic, commit)
            kept = f"SELECT {names}, sum({COUNT})::BIGINT AS {COUNT} FROM {counted} GROUP BY ALL"
        weight = "" if topic.kind == "table" else f", {COUNT}"
        key = [types.quote(name) for name in topic.schema.key or topic.schema.names]
        target = pa.schema([*topic.schema.arrow(), *([] if topic.kind == "table" else [(COUNT, pa.int64())])])
        name = f"data/bases/{topic.id}-{commit}-{uuid.uuid4().hex[:12]}.parquet"
        with ParquetFile(log.storage, name, with_ids(target, topic.schema), settings.row_group_rows) as file:
            for part in _slices(own, kept, key[0]):
                rows = own.sql(f"SELECT {lowered}{weight} FROM ({part}) ORDER BY {', '.join(key)}")
                for batch in rows.to_arrow_reader(settings.row_group_rows):
                    file.write(pa.Table.from_batches([batch]).cast(target))
            size, digest = file.finish()
    with log.catalog.write() as connection:
        now = log.clock.now_us()
        chain.append(connection, "base", number=commit, time=now, producer="maintenance", added=[digest])
        found = connection.execute(
            insert(tables.file)
            .values(path=name, kind="base", bytes=size, digest=digest, created=now)
            .returning(tables.file.c.id)
        ).scalar_one()
        values = {"file": found, "topic": topic.id, "commit": commit, "rows": file.rows}
        connection.execute(insert(tables.base).values(schema_version=topic.schema_version, **values))
    return file.rows


def _slices(own: duckdb.DuckDBPyConnection, kept: str, column: str) -> Iterator[str]:
    """SQL of the rows by ascending ranges of ``column``, about ``SLICE_ROWS`` each; to be run before the next.

    The ranges are cut by a sample. Variables hold their ends, in whatever type the column has.
    """
    ((rows,),) = own.execute(f"SELECT count(*) FROM ({kept})").fetchall()
    sample = f"SELECT {column} AS k FROM ({kept}) USING SAMPLE {SAMPLED} ROWS (reservoir, 1)"
    parts = f"SELECT k, ntile({rows} // {SLICE_ROWS} + 1) OVER (ORDER BY k) AS part FROM ({sample}) WHERE k IS NOT NULL"
    own.execute(
        "CREATE OR REPLACE TEMP TABLE bounds AS"
        f" SELECT DISTINCT min(k) AS k FROM ({parts}) WHERE part > 1 GROUP BY part"
    )
    ((cuts,),) = own.execute("SELECT count(*) FROM bounds").fetchall()
    for place in range(cuts + 1):
        own.execute("SET VARIABLE low = getvariable('high')" if place else "RESET VARIABLE low")
        own.execute(f"SET VARIABLE high = (SELECT k FROM bounds ORDER BY k LIMIT 1 OFFSET {place})")
        above = f"{column} >= getvariable('low')" if place else "true"
        below = f"{column} < getvariable('high')" if place < cuts else "true"
        nulls = "" if place < cuts else f" OR {column} IS NULL"
        yield f"SELECT * FROM ({kept}) WHERE ({above} AND {below}){nulls}"


def due(log: Log, settings: Settings) -> list[Topic]:
    """Topics with enough records since their last base to be worth a new one; none with damaged records."""
    damaged = {topic for topic, _ in quarantine.partitions(log)}
    with log.catalog.read() as connection:
        changed = {row.id: row for row in connection.execute(_CHANGED)}
    now = log.clock.now_us()
    return [
        topic
        for topic in log.topics(hidden=True)
        if topic.id in changed and topic.id not in damaged and _is_due(changed[topic.id], now, settings)
    ]


KINDS = ("table", "multiset", "changelog")


def _changes_since_bases() -> Select[Any]:
    """Every keyed topic and bag with its newest base, and the records that came since.

    Of a segment that the base cuts, because it was merged later, the share that its commits after the base have.
    """
    topic, base, file, batch, segment = tables.topic, tables.base, tables.file, tables.batch, tables.segment
    newest = (
        select(base.c.topic, func.max(base.c.commit).label("commit"))
        .join(file, file.c.id == base.c.file)
        .where(file.c.removed.is_(None))
        .group_by(base.c.topic)
        .cte("newest")
    )
    after = func.coalesce(newest.c.commit, 0)
    span = segment.c.last_commit - segment.c.first_commit + 1
    share = segment.c.rows * func.min(segment.c.last_commit - after, span) // span
    hot = select(func.sum(batch.c.rows)).where(batch.c.topic == topic.c.id, batch.c.commit > after)
    sealed = select(func.sum(share)).where(segment.c.topic == topic.c.id, segment.c.last_commit > after)
    rows = select(func.max(base.c.rows)).where(base.c.topic == topic.c.id, base.c.commit == newest.c.commit)
    born = select(tables.commit.c.time).where(tables.commit.c.number == newest.c.commit)
    return (
        select(
            topic.c.id,
            after.label("after"),
            func.coalesce(rows.scalar_subquery(), 0).label("rows"),
            func.coalesce(born.scalar_subquery(), 0).label("born"),
            (func.coalesce(hot.scalar_subquery(), 0) + func.coalesce(sealed.scalar_subquery(), 0)).label("changed"),
        )
        .select_from(topic.join(newest, newest.c.topic == topic.c.id, isouter=True))
        .where(topic.c.kind.in_(KINDS), topic.c.dropped.is_(None))
    )


_CHANGED = _changes_since_bases()


def _is_due(found: Row[Any], now_us: int, settings: Settings) -> bool:
    old = (now_us - found.born) / 1e6 >= settings.base_age_s and found.changed > settings.base_rows_min
    many = found.changed > max(settings.base_rows_min, settings.base_changed_fraction * found.rows)
    return bool(many or (found.after > 0 and old))
