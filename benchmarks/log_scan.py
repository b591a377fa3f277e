"""Aggregations over a long event topic: through the lake and straight from its files."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import duckdb

from benchmarks.harness import Report, say
from benchmarks.log_data import BLOCK_ROWS, EVENT_COLUMNS, EVENTS, Producer, alternate, events, ratio, seal_all
from headwater import duck
from headwater.config import Settings
from headwater.lake import open_lake
from headwater.log import Log, open_log, read
from headwater.schema import Field, Schema

ROWS, QUICK_ROWS = 50_000_000, 4_000_000
PARTITIONS = 4
TAIL_COMMITS, TAIL_ROWS = 200, 500
REPEAT, QUICK_REPEAT = 7, 3
GOAL_RATIO = 0.8

QUERIES = {
    "count": "SELECT count(*) FROM {}",
    "one": "SELECT sum(quantity) FROM {}",
    "few": "SELECT status, count(*), sum(amount), avg(discount) FROM {} GROUP BY status",
    "all": f"SELECT {', '.join(f'max({name})' for name in EVENT_COLUMNS)} FROM {{}}",
}
HELD = ("one", "few", "all")
"""A count is answered from the files' footers, so it measures only what a query costs before it reads anything."""


def measure(report: Report, folder: Path, quick: bool) -> None:
    """The same sealed files with nothing else, with another schema version, a hot tail, and positions in the past."""
    rows = QUICK_ROWS if quick else ROWS
    repeat = QUICK_REPEAT if quick else REPEAT
    path = folder / "lake"
    with open_log(path, create=True) as log:
        writer = Producer(log)
        narrow = Schema.of(EVENT_COLUMNS)
        writer.create(EVENTS, "event", narrow, PARTITIONS)
        half = _write(log, writer, 0, rows // 2, narrow)
        _compare(report, path, "one_version", repeat, None, union=False)
        wide = _widened(narrow)
        with log.transaction(writer.name, writer.epoch) as tx:
            tx.add_schema(EVENTS, wide)
            tx.commit()
        _write(log, writer, rows // 2, rows, wide)
        sealed = log.newest_commit()
        _compare(report, path, "two_versions", repeat, None, union=True)
        for commit in range(TAIL_COMMITS):
            writer.write({EVENTS: events(rows + commit * TAIL_ROWS, TAIL_ROWS, wide)}, commit % PARTITIONS)
        _compare(report, path, "hot_tail", repeat, None, union=True)
        _compare(report, path, "at_in_tail", repeat, sealed + TAIL_COMMITS // 2, union=True)
        _compare(report, path, "at_cuts_segments", repeat, sealed - 1, union=True)
        _compare(report, path, "at_old_version", repeat, half, union=True)
    report.figure("scan_rows", rows)
    report.note(
        f"scan: {rows:,} sealed rows in {PARTITIONS} partitions, a tail of {TAIL_COMMITS} commits of {TAIL_ROWS} rows; "
        "DuckDB reads the sealed files of that position, without the tail"
    )


def _write(log: Log, writer: Producer, first: int, end: int, schema: Schema) -> int:
    """Rows [first, end) as large commits to the partitions in turn, sealed; the newest commit."""
    for place, start in enumerate(range(first, end, BLOCK_ROWS)):
        writer.write({EVENTS: events(start, min(BLOCK_ROWS, end - start), schema)}, place % PARTITIONS)
        if place % 8 == 7:
            seal_all(log)
            say(f"scan: {start:,} rows written")
    seal_all(log)
    return log.newest_commit()


def _widened(schema: Schema) -> Schema:
    """A later version: the customer's number is a BIGINT, and orders have a channel."""
    fields = [replace(f, type="BIGINT") if f.name == "customer" else f for f in schema.fields]
    new = Field(id=len(fields) + 1, name="channel", type="VARCHAR", initial_default="web", write_default="web")
    return Schema(fields=(*fields, new), key=schema.key)


def _compare(report: Report, path: Path, case: str, repeat: int, at: int | None, *, union: bool) -> None:
    with open_lake(path) as lake, _plain() as plain:
        commit = lake.log.newest_commit() if at is None else at
        names = [str(lake.log.storage.path(name)) for name in _files(lake.log, commit)]
        listed = ", ".join(f"'{name}'" for name in names)
        source = f"read_parquet([{listed}]{', union_by_name = true' if union else ''})"
        for name, query in QUERIES.items():

            def straight(query: str = query) -> object:
                return plain.sql(query.format(source)).to_arrow_table()

            def through(query: str = query) -> object:
                return lake.sql(query.format(f'"{EVENTS.rpartition(".")[2]}"'), at=at)

            alternate(1, straight=straight, through=through)
            seconds = alternate(repeat, straight=straight, through=through)
            report.figure(f"scan_{case}_{name}_ms", statistics.median(seconds["through"]) * 1000)
            speed = ratio(seconds["straight"], seconds["through"])
            if name in HELD:
                report.goal(f"scan_{case}_{name}_of_duckdb", speed, at_least=GOAL_RATIO)
            else:
                report.figure(f"scan_{case}_{name}_of_duckdb", speed)


def _plain() -> duckdb.DuckDBPyConnection:
    """DuckDB under the settings that a lake gives its own."""
    return duck.connect(memory_limit=f"{Settings().query_memory_bytes_max // 2**20}MiB")


def _files(log: Log, commit: int) -> list[str]:
    return [segment.path for segment in read.plan(log, log.topic(EVENTS, commit), 0, commit).segments]
