"""Proving that the log is whole: offsets dense, every named file there, every byte the committed one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq
from sqlalchemy import Connection, select

from headwater.catalog import tables
from headwater.errors import StorageError
from headwater.log import generations
from headwater.log.log import Log
from headwater.storage import hot

_PARQUET = (tables.segment, tables.base)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that is wrong: what, and where."""

    what: str
    where: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was looked at, and what was found."""

    findings: tuple[Finding, ...]
    commits: int
    files: int
    records: int
    bytes: int


def verify(log: Log, *, deep: bool = False) -> Report:
    """Check the catalog against itself and the disk; ``deep`` reads every byte of every live file.

    Never raises for a defect of the data: each is a Finding.
    """
    with log.catalog.read() as connection:
        findings = [*_dense_commits(connection), *_dense_offsets(connection), *_named_files(connection)]
        files = connection.execute(select(tables.file).where(tables.file.c.removed.is_(None))).all()
        commits = len(connection.execute(select(tables.commit.c.number)).all())
        begins = generations.first_offsets(connection)
        partitions = connection.execute(select(tables.partition)).all()
        records = sum(row.next_offset - begins[row.topic, row.partition] for row in partitions)
        batches = connection.execute(
            select(tables.batch, tables.file.c.path).join(tables.file, tables.file.c.id == tables.batch.c.file)
        ).all()
        written = {row.file: row.rows for kind in _PARQUET for row in connection.execute(select(kind))}
    size = 0
    for file in files:
        size += file.bytes
        findings += _guarded(file.path, _check_size(log, file.path, file.bytes))
    if deep:
        for batch in batches:
            findings += _guarded(batch.path, _check_batch(log, batch))
        for file in files:
            if file.digest:
                findings += _guarded(file.path, _check_digest(log, file.path, file.bytes, file.digest))
            if file.id in written:
                findings += _guarded(file.path, _check_rows(log, file.path, written[file.id]))
    return Report(findings=tuple(findings), commits=commits, files=len(files), records=records, bytes=size)


def _guarded(where: str, check: Iterator[Finding]) -> list[Finding]:
    """A defect that stops a check is a finding like the others."""
    try:
        return list(check)
    except StorageError as error:
        return [Finding(what=error.what, where=where)]
    except (OSError, ValueError) as error:  # pyarrow's errors about a broken file are ValueErrors
        return [Finding(what=str(error).splitlines()[0], where=where)]


def _dense_commits(connection: Connection) -> Iterator[Finding]:
    expected, last_time = 1, 0
    commit = tables.commit
    for row in connection.execute(select(commit.c.number, commit.c.time).order_by(commit.c.number)):
        if row.number != expected:
            yield Finding(what=f"commits {expected} to {row.number - 1} are missing", where="catalog")
        if row.time <= last_time:
            yield Finding(what=f"commit {row.number} is not later than the one before", where="catalog")
        expected, last_time = row.number + 1, row.time


def _dense_offsets(connection: Connection) -> Iterator[Finding]:
    spans: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for row in connection.execute(select(tables.batch)):
        spans.setdefault((row.topic, row.partition), []).append((row.first_offset, row.rows))
    live = select(tables.segment).join(tables.file, tables.file.c.id == tables.segment.c.file)
    for row in connection.execute(live.where(tables.file.c.removed.is_(None))):
        spans.setdefault((row.topic, row.partition), []).append((row.first_offset, row.rows))
    for row in connection.execute(select(tables.partition)):
        expected = row.start_offset
        for first, rows in sorted(spans.get((row.topic, row.partition), [])):
            if first != expected:
                yield Finding(what=f"offset {expected} expected, {first} found", where=_place(row))
            expected = first + rows
        if expected != row.next_offset:
            yield Finding(
                what=f"records end at offset {expected}, the catalog says {row.next_offset}",
                where=_place(row),
            )


def _named_files(connection: Connection) -> Iterator[Finding]:
    """Batches, segments and bases whose file the catalog does not know, or has given up."""
    live = select(tables.file.c.id).where(tables.file.c.removed.is_(None))
    for table in (tables.batch, *_PARQUET):
        lost = select(table.c.file, table.c.topic).where(table.c.file.not_in(live)).distinct()
        for row in connection.execute(lost):
            yield Finding(what=f"a {table.name} has no file {row.file}", where=f"topic {row.topic}")


def _place(row: Any) -> str:
    return f"topic {row.topic}, partition {row.partition}"


def _check_size(log: Log, path: str, expected: int) -> Iterator[Finding]:
    found = log.storage.size(path)
    if found != expected:
        yield Finding(what=f"{expected} bytes were committed, the file has {found}", where=path)


def _check_batch(log: Log, batch: Any) -> Iterator[Finding]:
    data = log.storage.read(batch.path, batch.byte_offset, batch.byte_length)
    rows = hot.decode(data, batch.digest, batch.path).num_rows
    if rows != batch.rows:
        yield Finding(what=f"{batch.rows} records were committed, the batch has {rows}", where=batch.path)


def _check_digest(log: Log, path: str, size: int, expected: str) -> Iterator[Finding]:
    log.storage.check(path, size, expected)
    yield from ()


def _check_rows(log: Log, path: str, expected: int) -> Iterator[Finding]:
    rows = pq.read_metadata(log.storage.path(path)).num_rows
    if rows != expected:
        yield Finding(what=f"{expected} rows were written, the file has {rows}", where=path)
