"""The catalog under load that would take too long to write for real: its rows come by bulk SQL."""

from __future__ import annotations

import sqlite3
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import Report
from benchmarks.log_data import EVENT_COLUMNS, Producer, limits
from headwater.catalog.catalog import FILE
from headwater.catalog.records import MAX_COMMIT
from headwater.lake import open_lake
from headwater.lake.resolve import resolve
from headwater.log import archive, open_log, read
from headwater.schema import Schema

SEGMENTS, QUICK_SEGMENTS = 1_000_000, 100_000
TOPICS = 1_000
NEWEST = 1_000
"""Of the one large topic a reader wants the records of so many newest segments."""
REPEAT, QUICK_REPEAT = 9, 3
GOAL_OPEN_MS = 50.0

COMMITS_PER_S = 50
DAY_COMMITS, QUICK_COMMITS = 86_400 * COMMITS_PER_S, 240_000
ARCHIVED_COMMITS = 20_000
"""Maintenance archives about so often."""
DAY_TOPICS = 10
GOAL_DAY_MB = 200.0

_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT ? UNION ALL SELECT i + 1 FROM n WHERE i < ?) "


def measure_segments(report: Report, folder: Path, quick: bool) -> None:
    """Opening a lake, resolving a query's name and planning its files: one topic of many, and a topic's newest part."""
    segments = QUICK_SEGMENTS if quick else SEGMENTS
    repeat = QUICK_REPEAT if quick else REPEAT
    shared, alone = folder / "shared", folder / "alone"
    _lake(shared, TOPICS, segments)
    _lake(alone, 1, segments)
    many = (shared, f"shop.sales.orders_{TOPICS // 2}", MAX_COMMIT, segments // TOPICS)
    newest = (alone, "shop.sales.orders_1", NEWEST, NEWEST)
    for each in (many, newest):
        _opened(*each)
    seconds = [(_opened(*many), _opened(*newest)) for _ in range(repeat)]
    report.figure("segments_catalog_mb", (shared / FILE).stat().st_size / 1e6)
    for case, values in zip(("one_of_many", "newest_part"), zip(*seconds, strict=True), strict=True):
        report.goal(f"segments_open_{case}_ms", statistics.median(values) * 1000, at_most=GOAL_OPEN_MS)
    with open_log(alone) as log:
        began = time.perf_counter()
        assert len(read.plan(log, log.topic("shop.sales.orders_1"), 0, log.newest_commit()).segments) == segments
        report.figure("segments_plan_all_of_one_s", time.perf_counter() - began)
    report.note(
        f"segments: {segments:,} over {TOPICS:,} topics (a plan of {segments // TOPICS:,}), and as many of one topic "
        f"(a plan of its newest {NEWEST:,}; all of them are planned once, for the figure)"
    )


def _opened(folder: Path, name: str, commits: int, expected: int) -> float:
    """Seconds from nothing to a plan of the last ``commits`` commits of what a query names."""
    began = time.perf_counter()
    with open_lake(folder) as lake:
        (reference,) = resolve(f"SELECT * FROM {name}", lake.topics()).references
        upto = lake.position()
        found = read.plan(lake.log, reference.topic, max(0, upto - commits), upto)
        lake._memory.cursor()  # until DuckDB has started, too
        took = time.perf_counter() - began
        assert len(found.segments) == expected
    return took


def _lake(folder: Path, topics: int, segments: int) -> None:
    """A lake of event topics whose catalog names ``segments`` files that are not there."""
    with open_log(folder, create=True) as log:
        writer = Producer(log)
        with log.transaction(writer.name, writer.epoch) as tx:
            for number in range(1, topics + 1):
                tx.create_topic(f"shop.sales.orders_{number}", "event", Schema.of(EVENT_COLUMNS))
            first = tx.commit().number
    with _bulk(folder) as catalog:
        span = (first + 1, first + segments)
        catalog.execute(
            f"""{_NUMBERS} INSERT INTO "commit" (number, time, producer, rows)
            SELECT i, 1767225600000000 + i, 'bench', 1000 FROM n""",
            span,
        )
        catalog.execute(
            f"""{_NUMBERS} INSERT INTO file (id, path, kind, bytes, digest, created)
            SELECT i + 1000, printf('data/segments/%d-0-%d-%012x.parquet', i % {topics} + 1, i, i), 'segment',
            1000000, printf('%032x', i), 1767225600000000 + i FROM n""",
            span,
        )
        catalog.execute(
            f"""{_NUMBERS} INSERT INTO segment
            (file, topic, partition, schema_version, rows, first_offset, last_offset, first_commit, last_commit)
            SELECT i + 1000, i % {topics} + 1, 0, 1, 1000, i * 1000, i * 1000 + 999, i, i FROM n""",
            span,
        )


def measure_day(report: Report, folder: Path, quick: bool) -> None:
    """A day of commits, every second one a pipeline's step, sealed every 256, archived by the log's own function.

    The segments of ten topics stay as sealing leaves them, none merged: the most that a catalog could have to hold.
    """
    commits = QUICK_COMMITS if quick else DAY_COMMITS
    settings = limits()
    most = largest_wal = 0
    with open_log(folder / "lake", create=True) as log:
        writer = Producer(log)
        with log.transaction(writer.name, writer.epoch) as tx:
            for number in range(1, DAY_TOPICS + 1):
                tx.create_topic(f"shop.sales.orders_{number}", "event", Schema.of(EVENT_COLUMNS))
            newest = tx.commit().number
        spent = 0.0
        while newest < commits:
            _pass(folder / "lake", newest, ARCHIVED_COMMITS, settings.seal_commits)
            newest += ARCHIVED_COMMITS
            began = time.perf_counter()
            archive.archive(log)
            spent += time.perf_counter() - began
            most = max(most, (folder / "lake" / FILE).stat().st_size)
            largest_wal = max(largest_wal, (folder / "lake" / f"{FILE}-wal").stat().st_size)
        report.figure("day_commits", newest)
        report.goal("day_catalog_mb", most / 1e6, at_most=GOAL_DAY_MB)
        report.figure("day_wal_mb", largest_wal / 1e6)
        report.figure("day_archive_s", spent)
        archived = log.folder / "data" / "commits"
        size = sum(file.stat().st_size for file in archived.iterdir()) if archived.is_dir() else 0
        report.figure("day_commit_segments_mb", size / 1e6)
        old = max(1, newest // 2)
        began = time.perf_counter()
        assert log.commit_info(old).number == old
        report.figure("day_archived_commit_ms", (time.perf_counter() - began) * 1000)


def _pass(folder: Path, after: int, count: int, seal_commits: int) -> None:
    """What ``count`` commits leave in the catalog once they are sealed; hot files stay 15 minutes more."""
    span = (after + 1, after + count)
    time_us = f"1767225600000000 + i * {1_000_000 // COMMITS_PER_S}"
    with _bulk(folder) as catalog:
        catalog.execute(
            f"""{_NUMBERS} INSERT INTO "commit" (number, time, producer, position, rows)
            SELECT i, {time_us}, iif(i % 2, 'source:shop', 'pipeline:main'), printf('%X/%08X', i, i * 16), 1000
            FROM n""",
            span,
        )
        (head,) = catalog.execute("SELECT max(seq) FROM entry").fetchone()
        catalog.execute(
            f"""{_NUMBERS} INSERT INTO entry (seq, kind, number, time, producer, position, removed, added, digest)
            SELECT {head} - {after} + i, 'commit', i, {time_us}, iif(i % 2, 'source:shop', 'pipeline:main'),
            printf('%X/%08X', i, i * 16), x'', randomblob(32), randomblob(32) FROM n""",
            span,
        )
        catalog.execute("INSERT OR IGNORE INTO view_set (id, views) VALUES (1, '1,2,3')")
        catalog.execute(
            f"""{_NUMBERS} INSERT INTO step (number, input_commit, publish_commit, instant, view_set)
            SELECT i / 2, i - 1, i, {time_us}, 1 FROM n WHERE i % 2 = 0""",
            span,
        )
        catalog.execute(
            f"""{_NUMBERS} INSERT INTO file (path, kind, bytes, created, removed)
            SELECT printf('data/hot/%032x.arrows', i), 'hot', 60000, {time_us}, {time_us} FROM n""",
            span,
        )
        catalog.execute(
            "DELETE FROM file WHERE kind = 'hot' AND removed < ?",
            (1767225600000000 + (after + count - 900 * COMMITS_PER_S) * (1_000_000 // COMMITS_PER_S),),
        )
        _seals(catalog, after, count, seal_commits)


def _seals(catalog: sqlite3.Connection, after: int, count: int, seal_commits: int) -> None:
    (last,) = catalog.execute("SELECT max(id) FROM file").fetchone()
    numbers = (0, count // seal_commits * DAY_TOPICS - 1)
    topic, seal = f"i % {DAY_TOPICS} + 1", f"({after} + i / {DAY_TOPICS} * {seal_commits})"
    catalog.execute(
        f"""{_NUMBERS} INSERT INTO file (id, path, kind, bytes, digest, created)
        SELECT {last + 1} + i, printf('data/segments/%d-0-%d-%012x.parquet', {topic}, {seal}, i), 'segment', 300000,
        printf('%032x', i), {seal} FROM n""",
        numbers,
    )
    catalog.execute(
        f"""{_NUMBERS} INSERT INTO segment (file, topic, partition, schema_version, rows, first_offset, last_offset,
        first_commit, last_commit, last_time)
        SELECT {last + 1} + i, {topic}, 0, 1, 25600, {seal} * 100, {seal} * 100 + 25599, {seal} + 1,
        {seal} + {seal_commits}, {seal} FROM n""",
        numbers,
    )


@contextmanager
def _bulk(folder: Path) -> Iterator[sqlite3.Connection]:
    """One large transaction on a catalog that nobody else writes."""
    catalog = sqlite3.connect(folder / FILE, isolation_level=None)
    try:
        catalog.execute("PRAGMA synchronous=OFF")
        catalog.execute("BEGIN IMMEDIATE")
        yield catalog
        catalog.execute("COMMIT")
    finally:
        catalog.close()
