"""Sealing: hot batches of many commits become one Parquet segment per topic partition.

One catalog transaction swaps them: it names the segments and forgets the batches, so a reader sees each
record exactly once before, during and after. Every hot batch is checked before it is rewritten. Hot files
without batches leave the catalog at once and the disk after the grace period.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
from sqlalchemy import Connection, bindparam, delete, exists, func, insert, select, update

from headwater.catalog import tables
from headwater.catalog.records import Batch, Segment, Topic, TopicSettings, to_datetime
from headwater.config import Settings
from headwater.errors import CorruptFile, FilesExpired
from headwater.log import chain, manifest, quarantine, read
from headwater.log.log import Log
from headwater.log.parquet import ParquetFile, with_ids

_NO_CHOICE = TopicSettings()
_SEALED = (
    (tables.batch.c.topic == bindparam("topic"))
    & (tables.batch.c.partition == bindparam("partition"))
    & tables.batch.c.first_offset.between(bindparam("first_offset"), bindparam("last_offset"))
)
_DIGESTS = select(tables.batch.c.digest).where(_SEALED)
_DELETE = delete(tables.batch).where(_SEALED)


WRITERS = 2
"""Segments of one run written at once: encoding is most of sealing, and a large table is a run of its own."""
PART_ROWS_MIN = 500_000
"""A run is not cut into smaller segments than this to be written faster."""


@dataclass(frozen=True, kw_only=True)
class Hot:
    """How much is waiting to be sealed."""

    commits: int
    bytes: int
    oldest_us: int


def hot(log: Log) -> Hot:
    """What is in the hot tier now; what cannot be sealed because of damage does not count."""
    batch, commit = tables.batch, tables.commit
    query = select(
        func.count(batch.c.commit.distinct()),
        func.coalesce(func.sum(batch.c.byte_length), 0),
        func.min(commit.c.time),
    ).join(commit, commit.c.number == batch.c.commit)
    with log.catalog.read() as connection:
        sound = quarantine.sealable(connection)
        commits, size, oldest = connection.execute(query.where(sound)).one()
    return Hot(commits=commits, bytes=int(size), oldest_us=oldest or log.clock.now_us())


def is_due(log: Log, settings: Settings) -> bool:
    """Whether any of the three limits (commits, bytes, age) is reached, by the lake's or a topic's own measure."""
    waiting = hot(log)
    if waiting.commits >= settings.seal_commits or waiting.bytes >= settings.seal_bytes:
        return True
    age_s = (log.clock.now_us() - waiting.oldest_us) / 1e6
    chosen = {t.id: t.settings for t in log.topics(hidden=True) if t.settings.seal_bytes or t.settings.seal_age_s}
    if not chosen:
        return waiting.commits > 0 and age_s >= settings.seal_age_s
    return any(
        found.bytes >= (own.seal_bytes or settings.seal_bytes)
        or (log.clock.now_us() - found.oldest_us) / 1e6 >= (own.seal_age_s or settings.seal_age_s)
        for topic, found in _hot_by_topic(log).items()
        for own in (chosen.get(topic, _NO_CHOICE),)
    )


def _hot_by_topic(log: Log) -> dict[int, Hot]:
    batch, commit = tables.batch, tables.commit
    query = (
        select(batch.c.topic, func.count(), func.sum(batch.c.byte_length), func.min(commit.c.time))
        .join(commit, commit.c.number == batch.c.commit)
        .group_by(batch.c.topic)
    )
    with log.catalog.read() as connection:
        sound = quarantine.sealable(connection)
        return {
            topic: Hot(commits=many, bytes=int(size), oldest_us=oldest)
            for topic, many, size, oldest in connection.execute(query.where(sound))
        }


def seal(log: Log, settings: Settings, *, tail_s: float = 0.0) -> int:
    """Seal the hot batches of all commits older than ``tail_s`` seconds; returns how many records that were.

    The caller owns ``maintenance``. A damaged batch stays where it is with all behind it, its partition in
    quarantine; the rest is sealed. StorageError and DiskFull leave everything as it was.
    """
    newest = log.newest_commit()
    upto = newest if tail_s == 0 else log.commit_at_time(to_datetime(log.clock.now_us() - int(tail_s * 1e6)))
    sealed = 0
    for topic in _all_topics(log):
        segments = _sealed(log, topic, upto, settings)
        if segments:
            with log.catalog.write() as connection:
                _swap(connection, segments, upto, log.clock.now_us())
            manifest.write(log, topic)
            sealed += sum(segment.rows for segment in segments)
    with log.catalog.write() as connection:
        _retire_hot_files(connection, log.clock.now_us())
    return sealed


def _all_topics(log: Log) -> list[Topic]:
    """Every topic that has hot batches, dropped ones included: their history stays readable."""
    with log.catalog.read() as connection:
        ids = {row[0] for row in connection.execute(select(tables.batch.c.topic).distinct())}
    live = {topic.id: topic for topic in log.topics(hidden=True)}
    dropped = {t.id: t for number in _drop_points(log, ids - set(live)) for t in log.topics(number, hidden=True)}
    return [topic for topic in {**dropped, **live}.values() if topic.id in ids]


def _drop_points(log: Log, ids: set[int]) -> list[int]:
    """A commit at which each of these dropped topics still existed."""
    with log.catalog.read() as connection:
        query = select(tables.topic.c.created).where(tables.topic.c.id.in_(ids))
        return [row[0] for row in connection.execute(query)]


def _sealed(log: Log, topic: Topic, upto: int, settings: Settings) -> list[Segment]:
    """The batches of each partition, up to the first damaged one, as durable files that nothing names yet."""
    known = -1
    while True:
        plan = read.plan(log, topic, 0, upto, skip_damaged=True)
        segments: list[Segment] = []
        try:
            for run in _runs(plan):
                segments += _write(log, topic, run, settings)
        except (CorruptFile, FilesExpired):
            for segment in segments:
                log.storage.remove(segment.path)
            if len(plan.missing) <= known:  # it is in quarantine now, so the next plan is without it
                raise
            known = len(plan.missing)
        else:
            return segments


def _runs(plan: read.Plan) -> Iterator[tuple[read.Plan, list[Batch]]]:
    """Neighbouring hot batches of one partition and schema version, in offset order."""
    run: list[Batch] = []
    damaged = [each for each in plan.missing if each.hot]
    ends = {each.partition: min(d.first_offset for d in damaged if d.partition == each.partition) for each in damaged}
    for batch in plan.batches:
        if batch.first_offset > ends.get(batch.partition, batch.first_offset):
            continue
        if run and (run[-1].partition, run[-1].schema_version, run[-1].first_offset + run[-1].rows) != (
            batch.partition,
            batch.schema_version,
            batch.first_offset,
        ):
            yield read.as_of_version(plan, run[-1].schema_version), run
            run = []
        run.append(batch)
    if run:
        yield read.as_of_version(plan, run[-1].schema_version), run


def _write(log: Log, topic: Topic, run: tuple[read.Plan, list[Batch]], settings: Settings) -> list[Segment]:
    """The run as one or several segment files, durable; several are written side by side."""
    plan, batches = run
    parts = list(_parts(batches, settings.segment_rows_max))
    if len(parts) == 1:
        return [_write_segment(log, topic, plan, parts[0], settings.row_group_rows)]
    with ThreadPoolExecutor(WRITERS, "seal") as pool:
        writing = [pool.submit(_write_segment, log, topic, plan, part, settings.row_group_rows) for part in parts]
    written = [each.result() for each in writing if each.exception() is None]
    if len(written) < len(writing):
        for segment in written:
            log.storage.remove(segment.path)
        raise next(error for each in writing if (error := each.exception()) is not None)
    return written


def _parts(batches: list[Batch], rows_max: int) -> Iterator[list[Batch]]:
    """The run cut into segments: large ones into as many as are written at once, none beyond the limit."""
    rows = sum(batch.rows for batch in batches)
    count = max(1, -(-rows // rows_max), min(WRITERS, rows // PART_ROWS_MIN))
    part: list[Batch] = []
    held = past = ends = 0
    for batch in batches:
        even = rows * (ends + 1) / count  # where the part would end if batches could be cut
        if part and (held + batch.rows > rows_max or past + batch.rows / 2 > even):
            yield part
            part, held, ends = [], 0, ends + 1
        part.append(batch)
        held += batch.rows
        past += batch.rows
    yield part


def _write_segment(log: Log, topic: Topic, plan: read.Plan, part: list[Batch], group: int) -> Segment:
    first, last = part[0], part[-1]
    name = f"data/segments/{topic.id}-{first.partition}-{first.first_offset}-{uuid.uuid4().hex[:12]}.parquet"
    schema: pa.Schema = with_ids(plan.target, plan.topic.schema)
    with ParquetFile(log.storage, name, schema, group) as file:
        for batch in part:
            file.write(read.read_batch(log, plan, batch))
        size, digest = file.finish()
    return Segment(
        file=0,
        path=name,
        topic=topic.id,
        partition=first.partition,
        schema_version=first.schema_version,
        rows=file.rows,
        bytes=size,
        digest=digest,
        first_offset=first.first_offset,
        last_offset=last.first_offset + last.rows - 1,
        first_commit=min(batch.commit for batch in part),
        last_commit=max(batch.commit for batch in part),
    )


def _swap(connection: Connection, segments: list[Segment], upto: int, now_us: int) -> None:
    """The segments take the place of exactly the batches that they were written from."""
    removed = [digest for segment in segments for digest in connection.execute(_DIGESTS, vars(segment)).scalars()]
    added = [segment.digest for segment in segments]
    chain.append(connection, "seal", number=upto, time=now_us, producer="maintenance", removed=removed, added=added)
    add_segments(connection, segments, now_us)
    for segment in segments:
        connection.execute(_DELETE, vars(segment))


def add_segments(connection: Connection, segments: list[Segment], now_us: int) -> None:
    """Name these durable files in the catalog; the caller records the chain's entry."""
    for segment in segments:
        named = {"path": segment.path, "kind": "segment", "bytes": segment.bytes, "digest": segment.digest}
        file = connection.execute(
            insert(tables.file).values(created=now_us, **named).returning(tables.file.c.id)
        ).scalar_one()
        values = {name: value for name, value in vars(segment).items() if name in tables.segment.c}
        if segment.last_time is None:
            values["last_time"] = _time_of(connection, segment.last_commit)
        connection.execute(insert(tables.segment).values(**{**values, "file": file}))


def _time_of(connection: Connection, commit: int) -> int | None:
    return connection.execute(select(tables.commit.c.time).where(tables.commit.c.number == commit)).scalar_one_or_none()


def _retire_hot_files(connection: Connection, now_us: int) -> None:
    """Hot files that no batch refers to any more leave the catalog's live set."""
    used = exists().where(tables.batch.c.file == tables.file.c.id)
    connection.execute(
        update(tables.file)
        .where(tables.file.c.kind == "hot", tables.file.c.removed.is_(None), ~used)
        .values(removed=now_us)
    )
