"""Records of a commit range: hot batches and sealed segments as one relation, mapped by field id.

A plan is taken in one catalog transaction, so it is consistent; files it names are not unlinked before the
grace period is over. Every hot batch is checked against its committed check sum on each read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pyarrow as pa
from sqlalchemy import Connection, bindparam, func, select

from headwater import duck, record, types
from headwater.catalog import tables
from headwater.catalog.prepared import Prepared
from headwater.catalog.records import Base, Batch, Segment, Topic
from headwater.errors import CorruptFile
from headwater.log import evolve, expired, quarantine, topics
from headwater.schema import Schema
from headwater.storage import hot

if TYPE_CHECKING:
    from headwater.log.log import Log


# Built once: every step and every read asks them, and building costs more than asking.
_HOT = Prepared(
    select(tables.batch, tables.file.c.path, tables.commit.c.time)
    .join(tables.file, tables.file.c.id == tables.batch.c.file)
    .join(tables.commit, tables.commit.c.number == tables.batch.c.commit)
    .where(tables.batch.c.topic == bindparam("topic"))
    .where(tables.batch.c.commit > bindparam("after"), tables.batch.c.commit <= bindparam("upto"))
    .order_by(tables.batch.c.partition, tables.batch.c.first_offset)
)
_SEALED = Prepared(
    select(tables.segment, tables.file.c.path, tables.file.c.bytes, tables.file.c.digest)
    .join(tables.file, tables.file.c.id == tables.segment.c.file)
    .where(tables.segment.c.topic == bindparam("topic"), tables.file.c.removed.is_(None))
    .where(tables.segment.c.last_commit > bindparam("after"), tables.segment.c.first_commit <= bindparam("upto"))
    .order_by(tables.segment.c.partition, tables.segment.c.first_offset)
)

_NEWEST_HOT = Prepared(
    select(func.max(tables.batch.c.commit))
    .where(tables.batch.c.topic == bindparam("topic"))
    .where(tables.batch.c.commit <= bindparam("upto"))
)
_NEWEST_SEALED = Prepared(
    select(func.max(tables.segment.c.last_commit))
    .where(tables.segment.c.topic == bindparam("topic"))
    .where(tables.segment.c.first_commit <= bindparam("upto"))
)

SMALL_ROWS = 8_192
"""Hot batches of fewer rows on average are copied into one: DuckDB scans a few large chunks much faster."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to read for one topic and commit range, in partition and offset order."""

    topic: Topic
    after: int
    upto: int
    batches: tuple[Batch, ...]
    segments: tuple[Segment, ...]
    schemas: dict[int, Schema]
    missing: tuple[quarantine.Damage, ...] = ()
    """What was left out because it is damaged, for those who asked for that; in a scan, what stops it."""

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


def plan(log: Log, topic: Topic, after: int, upto: int, *, whole: bool = False, skip_damaged: bool = False) -> Plan:
    """Batches and segments that hold records of commits in (after, upto].

    With ``whole``, Expired when retention has removed some of them; else what is left.
    CorruptFile when one of them is known to be damaged; with ``skip_damaged`` it is left out and in ``missing``.
    """
    place = {"topic": topic.id, "after": after, "upto": upto}
    with log.catalog.read() as connection:
        if whole:
            expired.require_whole(connection, topic, after, upto)
        batches = tuple(_HOT.records(connection, Batch, place))
        segments = tuple(_SEALED.records(connection, Segment, place))
        damaged = quarantine.of(connection, topic.id)
        versions = {part.schema_version for part in batches} | {part.schema_version for part in segments}
        schemas = topics.schemas(connection, topic.id) if versions - {topic.schema_version} else {}
    schemas[topic.schema_version] = topic.schema
    found = Plan(topic=topic, after=after, upto=upto, batches=batches, segments=segments, schemas=schemas)
    if not damaged:
        return found
    if not skip_damaged:
        quarantine.refuse(topic.name, (*segments, *batches), damaged)
    return _without(found, damaged)


def newest(log: Log, places: Iterable[tuple[Topic, int]]) -> tuple[int, ...]:
    """Of each topic and commit, a number that stays the same as long as no later commit has records of the topic."""
    with log.catalog.read() as connection:
        return tuple(_newest(connection, {"topic": topic.id, "upto": upto}) for topic, upto in places)


def _newest(connection: Connection, place: Mapping[str, int]) -> int:
    sealed = min(_NEWEST_SEALED.value(connection, place) or 0, place["upto"])  # it may hold later ones as well
    return max(sealed, _NEWEST_HOT.value(connection, place) or 0)


def _without(found: Plan, damaged: Sequence[quarantine.Damage]) -> Plan:
    parts: tuple[Batch | Segment, ...] = (*found.segments, *found.batches)
    return replace(
        found,
        batches=tuple(part for part in found.batches if quarantine.hit(part, damaged) is None),
        segments=tuple(part for part in found.segments if quarantine.hit(part, damaged) is None),
        missing=tuple(each for part in parts if (each := quarantine.hit(part, damaged)) is not None),
    )


def newest_first(found: Plan) -> Plan:
    """The plan with its newest segments first: a query for the newest few then knows early what is too old to read."""
    return replace(found, segments=tuple(sorted(found.segments, key=lambda each: each.last_commit, reverse=True)))


def parts(found: Plan, rows_target: int) -> Iterator[Plan]:
    """The plan as plans of whole commits, oldest first, of about so many sealed records; none when it is empty.

    A cut stands where a segment ends, so a part may hold more; hot records, bounded by sealing, are in the last.
    """
    after, rows = found.after, 0
    ends = sorted((segment.last_commit, segment.rows) for segment in found.segments)
    for end, count in ends:
        rows += count
        if rows >= rows_target and after < end < found.upto:
            yield _between(found, after, end)
            after, rows = end, 0
    rest = _between(found, after, found.upto)
    if rest.batches or rest.segments:
        yield rest


def _between(found: Plan, after: int, upto: int) -> Plan:
    return replace(
        found,
        after=after,
        upto=upto,
        batches=tuple(batch for batch in found.batches if after < batch.commit <= upto),
        segments=tuple(each for each in found.segments if each.last_commit > after and each.first_commit <= upto),
    )


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


def pieces(log: Log, topic: Topic, after: int, upto: int, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
    """The records of commits in (after, upto] in pieces of about so many, sealed ones in no order.

    Memory is bounded by a piece and one hot batch. CorruptFile as ``changes``.
    """
    found = plan(log, topic, after, upto)
    wanted = pa.schema([found.target.field(name) for name in columns])
    if found.segments:
        sql, _ = scan_sql(log, replace(found, batches=()), "none")
        with blaming(log, found.segments), duck.connect(for_files=True) as connection:
            select_list = ", ".join(types.quote(name) for name in wanted.names)
            for batch in connection.sql(f"SELECT {select_list} FROM ({sql})").to_arrow_reader(rows):
                yield pa.Table.from_batches([batch]).cast(wanted)
    first = 0
    for place in range(1, len(found.batches) + 1):
        part = found.batches[first:place]
        if place == len(found.batches) or sum(each.rows for each in part) >= rows:
            yield hot_table(log, replace(found, batches=part)).select(wanted.names)
            first = place


def hot_table(log: Log, found: Plan) -> pa.Table:
    """The hot batches of a plan as one table with the plan's target columns.

    Batches of one shape are joined before anything is done to their rows: a full hot tier has hundreds of them.
    """
    stored = [(batch, _checked(log, found.topic, batch)) for batch in found.batches]
    runs = groupby(stored, key=lambda pair: (pair[0].schema_version, pair[1].column_names))
    parts = [_shaped(found, *zip(*run, strict=True)) for _, run in runs]
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
    # DuckDB counts a union by its first column: the one that costs least to read.
    fields = sorted(found.target, key=lambda field: field.name != record.PARTITION)
    columns = ", ".join(types.quote(field.name) for field in fields)
    parts = [f"SELECT {columns} FROM {types.quote(name)}"] if found.batches or not found.segments else []
    groups: dict[tuple[int, bool], list[Segment]] = defaultdict(list)
    for segment in found.segments:
        whole = segment.first_commit > found.after and segment.last_commit <= found.upto
        groups[segment.schema_version, whole].append(segment)
    for (version, whole), segments in groups.items():
        paths = ", ".join(_literal(str(log.storage.path(segment.path))) for segment in segments)
        mapped = ", ".join(_segment_column(field, found, version) for field in fields)
        # A predicate would read one more column of every row, so it is for segments that the range cuts.
        cut = "" if whole else f" WHERE _commit > {found.after} AND _commit <= {found.upto}"
        parts.append(f"SELECT {mapped} FROM read_parquet([{paths}]){cut}")
    ordered = ", ".join(types.quote(field.name) for field in found.target)
    return f"SELECT {ordered} FROM ({' UNION ALL '.join(parts)})", hot_table(log, found)


def mapped_columns(log: Log, topic: Topic, version: int) -> list[str]:
    """The topic's own columns as SQL over a file of an earlier schema version."""
    schemas = {**log.schemas(topic), topic.schema_version: topic.schema}
    found = Plan(topic=topic, after=0, upto=0, batches=(), segments=(), schemas=schemas)
    return [_segment_column(field, found, version) for field in topic.schema.arrow()]


def _segment_column(field: pa.Field, found: Plan, version: int) -> str:
    """One target column out of a segment of an older schema version, by field id."""
    name = types.quote(field.name)
    if version == found.topic.schema_version:
        return name
    sql = evolve.column_sql(field.name, found.schemas[version], found.topic.schema)
    return sql if sql == name else f"{sql} AS {name}"


@contextmanager
def blaming(log: Log, files: Sequence[Segment | Base]) -> Iterator[None]:
    """What DuckDB says about a damaged file, as CorruptFile that names it; its other errors pass."""
    try:
        yield
    except duckdb.Error:
        check_files(log, files)
        raise


def check_files(log: Log, files: Iterable[Segment | Base]) -> None:
    """Read these files whole; CorruptFile, and quarantine, for the first that is not the committed one."""
    for file in files:
        try:
            log.storage.check(file.path, file.bytes, file.digest)
        except CorruptFile as error:
            raise quarantine.report(log, file, error) from error


def as_of_version(found: Plan, version: int) -> Plan:
    """The plan with the columns of an older schema version as its target."""
    topic = replace(found.topic, schema=found.schemas[version], schema_version=version)
    return replace(found, topic=topic)


def _checked(log: Log, topic: Topic, batch: Batch) -> pa.Table:
    try:
        data = log.storage.read(batch.path, batch.byte_offset, batch.byte_length)
        return hot.decode(data, batch.digest, f"{topic.name}, commit {batch.commit}, {batch.path}")
    except CorruptFile as error:
        raise quarantine.report(log, batch, error) from error


def read_batch(log: Log, found: Plan, batch: Batch) -> pa.Table:
    """One hot batch with the plan's target columns; CorruptFile when its bytes are not the committed ones."""
    return _shaped(found, [batch], [_checked(log, found.topic, batch)])


def _shaped(found: Plan, batches: Sequence[Batch], stored: Sequence[pa.Table]) -> pa.Table:
    """Stored batches of one schema version and the same columns, as one table with the plan's target columns."""
    counts = np.array([table.num_rows for table in stored])
    table = pa.concat_tables(stored)
    if len(stored) > 1 and counts.mean() < SMALL_ROWS:
        table = table.combine_chunks()
    if batches[0].schema_version != found.topic.schema_version:
        table = evolve.to_schema(table, found.schemas[batches[0].schema_version], found.topic.schema, found.topic.kind)
    begins = np.array([batch.first_offset for batch in batches]) - (np.cumsum(counts) - counts)
    implicit = {
        record.OFFSET: np.repeat(begins, counts) + np.arange(counts.sum()),
        record.PARTITION: np.repeat([batch.partition for batch in batches], counts),
        record.COMMIT: np.repeat([batch.commit for batch in batches], counts),
        record.INGESTED_AT: np.repeat([batch.time for batch in batches], counts),
    }
    for name, values in implicit.items():
        table = table.append_column(name, pa.array(values).cast(record.IMPLICIT[name]))
    return record.fill(table, found.target)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
