"""``verify`` finds what is wrong in the catalog, each kind of damage injected on its own."""

from __future__ import annotations

import sqlite3

import pyarrow as pa
import pytest

from headwater.config import Settings
from headwater.log import Log, base, seal
from headwater.log.verify import verify
from headwater.schema import Schema
from headwater.testing.writer import Writer

TOPIC = "shop.public.t"
SCHEMA = Schema.of({"id": "BIGINT"}, key=["id"])


@pytest.fixture
def full(log: Log, writer: Writer) -> Log:
    """A lake with two commits sealed, a base, and two commits hot, in two partitions."""
    writer.create(TOPIC, "table", SCHEMA, partitions=2)
    for first in range(4):
        ids = list(range(first * 20, first * 20 + 20))
        writer.write(TOPIC, pa.table({"id": ids, "_op": ["c"] * 20}))
        if first == 1:
            seal.seal(log, Settings())
            base.write(log, log.topic(TOPIC), log.newest_commit(), Settings())
    assert verify(log, deep=True).findings == ()
    return log


DAMAGE = {
    "a commit is missing": ('DELETE FROM "commit" WHERE number = 3', "commits 3 to 3 are missing"),
    "time goes back": ('UPDATE "commit" SET time = 1 WHERE number = 4', "commit 4 is not later"),
    "a batch is missing": ('DELETE FROM batch WHERE "commit" = 4 AND partition = 0', "expected, "),
    "the last batch is missing": ('DELETE FROM batch WHERE "commit" = 5', "the catalog says"),
    "a segment is missing": ("DELETE FROM segment WHERE partition = 1", "offset 0 expected"),
    "offsets overlap": ("UPDATE batch SET first_offset = first_offset - 1", "expected, "),
    "too few offsets were given": ("UPDATE partition SET next_offset = next_offset - 1", "the catalog says"),
    "a hot file is unknown": ("DELETE FROM file WHERE kind = 'hot' AND removed IS NULL", "no file"),
    "a segment's file is unknown": ("DELETE FROM file WHERE kind = 'segment'", "expected, "),
    "a base's file is unknown": ("DELETE FROM file WHERE kind = 'base'", "no file"),
    "a file's size is wrong": ("UPDATE file SET bytes = bytes + 1 WHERE kind = 'base'", "bytes were committed"),
    "a path is wrong": ("UPDATE file SET path = 'data/hot/none' WHERE kind = 'base'", "missing"),
}

DEEP = {
    "a batch's digest is wrong": ("UPDATE batch SET digest = '00'", "changed since"),
    "a batch's rows are wrong": (
        'UPDATE batch SET rows = rows + 1 WHERE "commit" = 5; UPDATE partition SET next_offset = next_offset + 1',
        "records were committed",
    ),
    "a batch's bytes are elsewhere": ("UPDATE batch SET byte_length = byte_length - 1", "changed since"),
    "a segment's digest is wrong": ("UPDATE file SET digest = '00' WHERE kind = 'segment'", "has changed since"),
    "a base's digest is wrong": ("UPDATE file SET digest = '00' WHERE kind = 'base'", "has changed since"),
    "a base's rows are wrong": ("UPDATE base SET rows = rows + 1", "rows were written"),
}


def inject(log: Log, statements: str) -> None:
    connection = sqlite3.connect(log.folder / "catalog.sqlite")
    try:
        connection.executescript(statements)
    finally:
        connection.close()


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_to_the_catalog_is_found(full: Log, kind: str) -> None:
    statement, words = DAMAGE[kind]
    inject(full, statement)
    findings = verify(full).findings
    assert any(words in finding.what for finding in findings), findings


@pytest.mark.parametrize("kind", DEEP)
def test_damage_that_only_reading_shows_is_found_by_the_deep_check(full: Log, kind: str) -> None:
    statement, words = DEEP[kind]
    inject(full, statement)
    assert verify(full).findings == ()
    findings = verify(full, deep=True).findings
    assert any(words in finding.what for finding in findings), findings


def test_the_report_counts_what_was_looked_at(full: Log) -> None:
    report = verify(full, deep=True)
    assert (report.commits, report.records) == (5, 80)
    assert report.files == 2 + 1 + 2  # two segments, a base, two hot files
