"""Records of a commit range: hot batches and sealed segments as one relation, mapped by field id.

A plan is taken in one catalog transaction, so it is consistent; files it names are not unlinked before the
grace period is over. Every hot batch is checked against its committed check sum on each read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pyarrow as pa
from sqlalchemy import bindparam, select

from headwater import duck, record, types
from headwater.catalog import tables
from headwater.catalog.records import Base, Batch, Segment, Topic
from headwater.log import topics
from headwater.schema import Field, Schema
from headwater.storage import hot

if TYPE_CHECKING:
    from headwater.log.log import Log


# Built once: every step and every read asks them, and building costs more than asking.
_HOT = (
    select(tables.batch, tables.file.c.path, tables.commit.c.time)
    .join(tables.file, tables.file.c.id == tables.batch.c.file)
    .join(tables.commit, tables.commit.c.number == tables.batch.c.commit)
    .where(tables.batch.c.topic == bindparam("topic"))
    .where(tables.batch.c.commit > bindparam("after"), tables.batch.c.commit <= bindparam("upto"))
    .order_by(tables.batch.c.partition, tables.batch.c.first_offset)
)
_SEALED = (
    select(tables.segment, tables.file.c.path, tables.file.c.bytes, tables.file.c.digest)
    .join(tables.file, tables.file.c.id == tables.segment.c.file)
    .where(tables.segment.c.topic == bindparam("topic"), tables.file.c.removed.is_(None))
    .where(tables.segment.c.last_commit > bindparam("after"), tables.segment.c.first_commit <= bindparam("upto"))
    .order_by(tables.segment.c.partition, tables.segment.c.first_offset)
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to read for one topic and commit range, in partition and offset order."""

    topic: Topic
    after: int
    upto: int
    batches: tuple[Batch, ...]
    segments: tuple[Segment, ...]
    schemas: dict[int, Schema]

    @property
    def rows(self) -> int:
        """Records in the plan's batches and segments; segments may hold some outside the range."""
        return sum(batch.rows for batch in self.batches) + sum(segment.rows for segment in self.segments)

    @cached_property
    def target(self) -> pa.Schema:
        """The columns of the result: the topic's own, its metadata columns, the implicit ones."""
        data = self.topic.schema.arrow()
        explicit = record.metadata_schema(self.topic.kind, data)
        return pa.schema([*data, *explicit, *record.IMPLICIT.items()])


def plan(log: Log, topic: Topic, after: int, upto: int) -> Plan:
    """Batches and segments that hold records of commits in (after, upto]."""
    place = {"topic": topic.id, "after": after, "upto": upto}
    with log.catalog.read() as connection:
        batches = tuple(Batch(**row._mapping) for row in connection.execute(_HOT, place))
        segments = tuple(Segment(**row._mapping) for row in connection.execute(_SEALED, place))
        versions = {part.schema_version for part in batches} | {part.schema_version for part in segments}
        schemas = topics.schemas(connection, topic.id) if versions - {topic.schema_version} else {}
    schemas[topic.schema_version] = topic.schema
    return Plan(topic=topic, after=after, upto=upto, batches=batches, segments=segments, schemas=schemas)


def changes(log: Log, topic: Topic, after: int, upto: int, columns: Sequence[str] | None = None) -> pa.Table:
    """See ``Log.read_changes``."""
    found = plan(log, topic, after, upto)
    wanted = found.target if columns is None else pa.schema([found.target.field(name) for name in columns])
    if not found.segments:
        return hot_table(log, found).select(wanted.names)
    with blaming(log, found.segments), duck.connect(for_files=True) as connection:
        select_list = ", ".join(types.quote(name) for name in wanted.names)
        sql = relation_sql(log, connection, found)
        rows = connection.sql(f"SELECT {select_list} FROM ({sql}) ORDER BY _partition, _offset").to_arrow_table()
    return rows.cast(wanted)


def hot_table(log: Log, found: Plan) -> pa.Table:
    """The hot batches of a plan as one table with the plan's target columns."""
    parts = [read_batch(log, found, batch) for batch in found.batches]
    return pa.concat_tables(parts) if parts else record.empty(found.target)


def relation_sql(log: Log, connection: duckdb.DuckDBPyConnection, found: Plan, name: str = "hot_rows") -> str:
    """SQL over ``connection`` that yields the plan's records (file types); segments are scanned in place.

    Registers the hot batches under ``name``; the caller chooses a name that is free on its connection.
    """
    sql, hot_rows = scan_sql(log, found, name)
    connection.register(name, hot_rows)
    return sql


def scan_sql(log: Log, found: Plan, name: str) -> tuple[str, pa.Table]:
    """The same SQL, and the hot records that it expects under ``name``."""
    columns = ", ".join(types.quote(field.name) for field in found.target)
    parts = [f"SELECT {columns} FROM {types.quote(name)}"]
    by_version: dict[int, list[Segment]] = defaultdict(list)
    for segment in found.segments:
        by_version[segment.schema_version].append(segment)
    for version, segments in by_version.items():
        paths = ", ".join(_literal(str(log.storage.path(segment.path))) for segment in segments)
        mapped = ", ".join(_segment_column(field, found, version) for field in found.target)
        parts.append(
            f"SELECT {mapped} FROM read_parquet([{paths}]) WHERE _commit > {found.after} AND _commit <= {found.upto}"
        )
    return " UNION ALL ".join(parts), hot_table(log, found)


def _segment_column(field: pa.Field, found: Plan, version: int) -> str:
    """One target column out of a segment of an older schema version, by field id."""
    name = types.quote(field.name)
    if version == found.topic.schema_version:
        return name
    if field.name == record.BEFORE:
        return f"NULL AS {name}"  # its struct has the older columns
    if field.name in record.METADATA:
        return name
    new = found.topic.schema.field(field.name)
    old = _by_id(found.schemas[version], new.id)
    target = f"CAST({{}} AS {types.file_sql(new.type)}) AS {name}"
    if old is not None:
        return target.format(types.quote(old.name))
    return target.format("NULL" if new.initial_default is None else _literal(new.initial_default))


@contextmanager
def blaming(log: Log, files: Sequence[Segment | Base]) -> Iterator[None]:
    """What DuckDB says about a damaged file, as CorruptFile that names it; its other errors pass."""
    try:
        yield
    except duckdb.Error:
        for file in files:
            log.storage.check(file.path, file.bytes, file.digest)
        raise


def as_of_version(found: Plan, version: int) -> Plan:
    """The plan with the columns of an older schema version as its target."""
    topic = replace(found.topic, schema=found.schemas[version], schema_version=version)
    return replace(found, topic=topic)


def read_batch(log: Log, found: Plan, batch: Batch) -> pa.Table:
    """One hot batch with the plan's target columns; CorruptFile when its bytes are not the committed ones."""
    data = log.storage.read(batch.path, batch.byte_offset, batch.byte_length)
    table = hot.decode(data, batch.digest, f"{found.topic.name}, commit {batch.commit}, {batch.path}")
    if batch.schema_version != found.topic.schema_version:
        table = _to_schema(table, found.schemas[batch.schema_version], found.topic.schema)
    rows = table.num_rows
    for column, values in (
        (record.OFFSET, pa.array(np.arange(batch.first_offset, batch.first_offset + rows))),
        (record.PARTITION, pa.repeat(pa.scalar(batch.partition, pa.int32()), rows)),
        (record.COMMIT, pa.repeat(pa.scalar(batch.commit, pa.int64()), rows)),
        (record.INGESTED_AT, pa.repeat(pa.scalar(batch.time, record.IMPLICIT[record.INGESTED_AT]), rows)),
    ):
        table = table.append_column(column, values)
    return record.fill(table, found.target)


def _to_schema(table: pa.Table, old: Schema, new: Schema) -> pa.Table:
    """A batch written under an older schema, with the columns of the new one; ``_before`` keeps what fits."""
    columns = {name: table.column(name) for name in table.column_names if name in record.METADATA}
    columns.pop(record.BEFORE, None)
    for field in new.fields:
        target = types.arrow_type(field.type)
        source = _by_id(old, field.id)
        if source is not None:
            columns[field.name] = table.column(source.name).cast(target)
        elif field.initial_default is None:
            columns[field.name] = pa.nulls(table.num_rows, target)
        else:
            columns[field.name] = pa.repeat(pa.scalar(field.initial_default).cast(target), table.num_rows)
    return pa.table(columns)


def _by_id(schema: Schema, field_id: int) -> Field | None:
    return next((field for field in schema.fields if field.id == field_id), None)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
