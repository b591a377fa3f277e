"""Proving that the log is whole: the catalog agrees with itself, every named file is there, every byte is right.

    quick   commits and offsets without a gap, files present with their size, quarantined parts read again
    deep    also every byte of every live file, what segments hold against what the catalog says of them,
            bases against the records they are made of, files that nobody names

What is damaged is put in quarantine, and what is right again leaves it (a process that may not write reports only).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, func, select

from headwater.catalog import tables
from headwater.catalog.records import Base
from headwater.errors import CatalogError, CorruptFile, DiskFull, StorageError
from headwater.log import contents, generations, parts, quarantine, recovery, refold
from headwater.log.parts import Part

if TYPE_CHECKING:
    from headwater.log.log import Log

Progress = Callable[[int, int], None]
"""Called with the bytes that are done and the bytes in all."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that is wrong: what, and where."""

    what: str
    where: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was looked at, and what was found. ``released``: parts that were damaged and are right again."""

    findings: tuple[Finding, ...]
    commits: int
    files: int
    records: int
    bytes: int
    released: int = 0


def verify(log: Log, *, deep: bool = False, on_progress: Progress | None = None) -> Report:
    """Check the catalog against itself and the disk; ``deep`` reads every byte of every live file.

    Never raises for a defect of the data: each is a Finding. Memory is bounded by the catalog's rows, one row
    group, and DuckDB's limit; what leaves the lake meanwhile is no defect.
    """
    with log.catalog.read() as connection:
        findings = [*_dense_commits(connection), *_dense_offsets(connection), *_named_files(connection)]
        files = connection.execute(select(tables.file).where(tables.file.c.removed.is_(None))).all()
        commits, records = _counts(connection)
        stored: list[Part] = [*parts.batches(connection), *parts.segments(connection), *parts.bases(connection)]
        damaged = quarantine.everything(connection)
        findings += _sqlite(connection) if deep else []
    for file in files:
        findings += _guarded(file.path, _check_size(log, file.path, file.bytes))
    small = {finding.where for finding in findings}
    broken, bad = _check_bytes(log, [p for p in stored if deep or _is_in(p, damaged)], on_progress)
    findings += [finding for finding in bad if finding.where not in small]
    released = _release(log, damaged, broken)
    if deep:
        findings += _archives(log, files)
        findings += [Finding(what=what, where=where) for what, where in contents.check(log, stored, broken)]
        findings += [Finding(what=what, where=where) for what, where in refold.check(log, broken)]
        findings += _strays(log)
    size = sum(file.bytes for file in files)
    return Report(
        findings=tuple(findings), commits=commits, files=len(files), records=records, bytes=size, released=released
    )


def _counts(connection: Connection) -> tuple[int, int]:
    """Commits and records that the lake ever took in; archived commits are dense up to the first kept one."""
    newest = connection.execute(select(func.max(tables.commit.c.number))).scalar_one_or_none() or 0
    begins = generations.first_offsets(connection)
    partitions = connection.execute(select(tables.partition)).all()
    return newest, sum(row.next_offset - begins[row.topic, row.partition] for row in partitions)


# ---- the catalog


def _sqlite(connection: Connection) -> Iterator[Finding]:
    """What SQLite itself sees: pages, and every index against its table; an index alone can change an answer."""
    for (text,) in connection.exec_driver_sql("PRAGMA integrity_check"):
        if text != "ok":
            yield Finding(what=f"SQLite finds: {text}", where="catalog")


def _dense_commits(connection: Connection) -> Iterator[Finding]:
    commit, archive = tables.commit, tables.commit_segment
    last = connection.execute(select(archive.c.last_commit, archive.c.last_time).order_by(archive.c.last_commit.desc()))
    row = last.first()
    expected, last_time = (1, 0) if row is None else (row.last_commit + 1, row.last_time)
    for row in connection.execute(select(commit.c.number, commit.c.time).order_by(commit.c.number)):
        if row.number != expected:
            yield Finding(what=f"commits {expected} to {row.number - 1} are missing", where="catalog")
        if row.time <= last_time:
            yield Finding(what=f"commit {row.number} is not later than the one before", where="catalog")
        expected, last_time = row.number + 1, row.time


def _dense_offsets(connection: Connection) -> Iterator[Finding]:
    """Batches and segments cover their partition from its start to its end; only compaction leaves records out."""
    spans: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for row in connection.execute(select(tables.batch)):
        spans.setdefault((row.topic, row.partition), []).append((row.first_offset, row.first_offset + row.rows))
    live = select(tables.segment).join(tables.file, tables.file.c.id == tables.segment.c.file)
    for row in connection.execute(live.where(tables.file.c.removed.is_(None))):
        spans.setdefault((row.topic, row.partition), []).append((row.first_offset, row.last_offset + 1))
        span = row.last_offset - row.first_offset + 1
        if row.rows > span or (row.rows < span and row.compacted is None):
            yield Finding(what=f"a segment of {span} offsets holds {row.rows} records", where=_place(row))
    for row in connection.execute(select(tables.partition)):
        expected = row.start_offset
        for first, end in sorted(spans.get((row.topic, row.partition), [])):
            if first != expected:
                yield Finding(what=f"offset {expected} expected, {first} found", where=_place(row))
            expected = end
        if expected != row.next_offset:
            yield Finding(
                what=f"records end at offset {expected}, the catalog says {row.next_offset}",
                where=_place(row),
            )


def _named_files(connection: Connection) -> Iterator[Finding]:
    """Batches, segments and bases whose file the catalog does not know, or has given up."""
    live = select(tables.file.c.id).where(tables.file.c.removed.is_(None))
    for table in (tables.batch, tables.segment, tables.base):
        lost = select(table.c.file, table.c.topic).where(table.c.file.not_in(live)).distinct()
        for row in connection.execute(lost):
            yield Finding(what=f"a {table.name} has no file {row.file}", where=f"topic {row.topic}")


def _place(row: Any) -> str:
    return f"topic {row.topic}, partition {row.partition}"


# ---- the bytes


def _check_size(log: Log, path: str, expected: int) -> Iterator[Finding]:
    found = log.storage.size(path)
    if found != expected:
        yield Finding(what=f"{expected} bytes were committed, the file has {found}", where=path)


def _guarded(where: str, check: Iterator[Finding]) -> list[Finding]:
    """A defect that stops a check is a finding like the others."""
    try:
        return list(check)
    except StorageError as error:
        return [Finding(what=error.what, where=where)]


def _check_bytes(log: Log, chosen: Sequence[Part], on_progress: Progress | None) -> tuple[set[Part], list[Finding]]:
    """The parts that are damaged, each in quarantine now."""
    broken: set[Part] = set()
    findings = []
    done, total = 0, sum(parts.size(part) for part in chosen)
    for part in chosen:
        error = parts.check(log, part)
        if error is not None:
            said = quarantine.report(log, part, error)
            if isinstance(said, CorruptFile):  # else it has left the lake since
                findings.append(Finding(what=error.what, where=part.path))
            broken.add(part)
        done += parts.size(part)
        if on_progress is not None:
            on_progress(done, total)
    return broken, findings


def _is_in(part: Part, damaged: Sequence[quarantine.Damage]) -> bool:
    return not isinstance(part, Base) and quarantine.hit(part, damaged) is not None


def _release(log: Log, damaged: Sequence[quarantine.Damage], broken: set[Part]) -> int:
    """End the quarantine of what was read and is right, and of what has left the lake."""
    still = [part for part in broken if not isinstance(part, Base)]
    mended = [each for each in damaged if not any(quarantine.hit(part, [each]) for part in still)]
    if not mended:
        return 0
    with suppress(CatalogError, DiskFull, OSError):
        quarantine.end(log, mended)
        return len(mended)
    return 0


def _archives(log: Log, files: Sequence[Any]) -> Iterator[Finding]:
    """Live files of other kinds: commit segments."""
    for file in files:
        if file.kind not in ("hot", "segment", "base") and file.digest:
            yield from _guarded(file.path, _check_digest(log, file))


def _check_digest(log: Log, file: Any) -> Iterator[Finding]:
    log.storage.check(file.path, file.bytes, file.digest)
    yield from ()


def _strays(log: Log) -> Iterator[Finding]:
    """Files that nothing names, old enough that no transaction can be about to."""
    for name in recovery.orphans(log):
        yield Finding(
            what="no part of the catalog names this file; the next start of maintenance removes it", where=name
        )
