"""What live files hold against what the catalog says they hold: columns, offsets, commits, counts.

Read by row group as numpy columns, so that memory is bounded by one and nothing runs once a record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import select

from headwater import record
from headwater.catalog import tables
from headwater.catalog.records import Base, Batch, Segment
from headwater.errors import CorruptFile
from headwater.log import topics
from headwater.log.parquet import FIELD_ID
from headwater.log.parts import Part
from headwater.schema import Schema
from headwater.storage import hot

if TYPE_CHECKING:
    from headwater.log.log import Log

Wrong = tuple[str, str]
"""What is wrong, and where."""


def check(log: Log, stored: Sequence[Part], broken: Collection[Part]) -> Iterator[Wrong]:
    """Compare every part that is not broken; what left the lake meanwhile is passed over."""
    schemas = _Schemas(log)
    counts: Counter[int] = Counter()
    for part in stored:
        if part in broken:
            continue
        try:
            if isinstance(part, Batch):
                yield from _batch(log, part, counts)
            else:
                yield from _file(log, part, schemas.of(part.topic, part.schema_version), counts)
        except (CorruptFile, pa.ArrowException) as error:  # its bytes were right a moment ago
            if log.storage.path(part.path).exists():
                yield str(error).splitlines()[0], part.path
    yield from _commits(log, stored, broken, counts)


class _Schemas:
    """Schema versions by topic, each topic's read once."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._known: dict[int, dict[int, Schema]] = {}

    def of(self, topic: int, version: int) -> Schema | None:
        if topic not in self._known:
            with self._log.catalog.read() as connection:
                self._known[topic] = topics.schemas(connection, topic)
        return self._known[topic].get(version)


def _batch(log: Log, batch: Batch, counts: Counter[int]) -> Iterator[Wrong]:
    data = log.storage.read(batch.path, batch.byte_offset, batch.byte_length)
    rows = hot.decode(data, batch.digest, batch.path).num_rows
    counts[batch.commit] += rows
    if rows != batch.rows:
        yield f"{batch.rows} records were committed, the batch has {rows}", batch.path


def _file(log: Log, part: Segment | Base, schema: Schema | None, counts: Counter[int]) -> Iterator[Wrong]:
    with pq.ParquetFile(log.storage.path(part.path), page_checksum_verification=True) as file:
        if file.metadata.num_rows != part.rows:
            yield f"{part.rows} rows were written, the file has {file.metadata.num_rows}", part.path
        if schema is None:
            yield f"schema version {part.schema_version} is not in the catalog", part.path
        else:
            yield from ((what, part.path) for what in _columns(file.schema_arrow, schema))
        if isinstance(part, Segment):
            yield from ((what, part.path) for what in _places(file, part, counts))


def _columns(found: pa.Schema, schema: Schema) -> Iterator[str]:
    """The topic's own columns with name, type and field id; files of earlier releases have no field ids."""
    for field, expected in zip(schema.fields, schema.arrow(), strict=True):
        place = found.get_field_index(field.name)
        if place < 0:
            yield f"column {field.name} of its schema version is not in the file"
            continue
        held = found.field(place)
        if held.type != expected.type:
            yield f"column {field.name} is {held.type} in the file, {expected.type} in its schema version"
        number = (held.metadata or {}).get(FIELD_ID)
        if number is not None and int(number) != field.id:
            yield f"column {field.name} has field id {int(number)} in the file, {field.id} in its schema version"


def _places(file: pq.ParquetFile, part: Segment, counts: Counter[int]) -> Iterator[str]:
    """Offsets grow, are inside the span and dense unless compacted; commits grow and are inside; one partition."""
    last_offset, last_commit, first = part.first_offset - 1, part.first_commit, None
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, columns=[record.OFFSET, record.PARTITION, record.COMMIT])
        if table.num_rows == 0:
            continue
        offsets, commits = (table.column(name).to_numpy() for name in (record.OFFSET, record.COMMIT))
        first = int(offsets[0]) if first is None else first
        if (np.diff(offsets, prepend=last_offset) <= 0).any() or (np.diff(commits, prepend=last_commit) < 0).any():
            yield f"offsets or commits do not grow in row group {group}"
        if (table.column(record.PARTITION).to_numpy() != part.partition).any():
            yield f"row group {group} holds records of another partition"
        last_offset, last_commit = int(offsets[-1]), int(commits[-1])
        yield from _statistics(file, group, {record.OFFSET: offsets, record.COMMIT: commits})
        numbers, many = np.unique(commits, return_counts=True)
        counts.update(dict(zip(numbers.tolist(), many.tolist(), strict=True)))
    whole = part.compacted is None
    if last_offset > part.last_offset or (whole and (first, last_offset) != (part.first_offset, part.last_offset)):
        yield f"offsets {first} to {last_offset} where the catalog has {part.first_offset} to {part.last_offset}"
    if last_commit > part.last_commit or (whole and last_commit != part.last_commit):
        yield f"the last commit is {last_commit} where the catalog has {part.last_commit}"


def _statistics(file: pq.ParquetFile, group: int, columns: dict[str, np.ndarray]) -> Iterator[str]:
    """Readers skip row groups by these, so they must be there and true."""
    metadata = file.metadata.row_group(group)
    for leaf in range(metadata.num_columns):
        column = metadata.column(leaf)
        values = columns.get(column.path_in_schema)
        if values is None:
            continue
        said = column.statistics
        if said is None or (said.min, said.max) != (values.min(), values.max()):
            yield f"the statistics of {column.path_in_schema} in row group {group} are not its values"


def _commits(log: Log, stored: Sequence[Part], broken: Collection[Part], counts: Counter[int]) -> Iterator[Wrong]:
    """Each commit has as many records as it says, but for those that retention and compaction took away."""
    commit, expired = tables.commit, tables.expired
    with log.catalog.read() as connection:
        rows = connection.execute(select(commit.c.number, commit.c.rows)).all()
        short = [(row.first_commit, row.last_commit) for row in connection.execute(select(expired))]
    newest = max((last for part in stored for last in [_last(part)]), default=0)
    short += [(s.first_commit, s.last_commit) for s in stored if isinstance(s, Segment) and s.compacted is not None]
    short += [(part.commit, part.commit) for part in broken if isinstance(part, Batch)]
    short += [(part.first_commit, part.last_commit) for part in broken if isinstance(part, Segment)]
    for number, said in rows:
        held = counts[number]
        fewer = any(first <= number <= last for first, last in short) if held < said and number <= newest else False
        if held > said or (held < said and number <= newest and not fewer):
            yield f"commit {number} published {said} records, {held} are stored", "catalog"


def _last(part: Part) -> int:
    return part.commit if isinstance(part, Batch | Base) else part.last_commit
