"""``verify`` finds what is wrong in the catalog, each kind of damage injected on its own."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from headwater.config import Settings
from headwater.log import Log, base, seal
from headwater.log.verify import verify
from headwater.schema import Schema
from headwater.testing.changes import BAG, KEYED, BagHistory, KeyedHistory
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


FORGED = {
    "an offset is there twice": (lambda t: duplicate(t, "_offset"), "do not grow"),
    "offsets begin elsewhere": (lambda t: shift(t, "_offset"), "where the catalog has"),
    "records belong elsewhere": (lambda t: shift(t, "_partition"), "another partition"),
    "a commit is another": (lambda t: shift(t, "_commit"), "last commit is"),
    "a record is missing": (lambda t: t.slice(1), "rows were written"),
    "a column has another name": (lambda t: t.rename_columns(["x", *t.column_names[1:]]), "column id"),
    "a column has another type": (lambda t: t.set_column(0, "id", t.column("id").cast(pa.int32())), "is int32"),
    "a field has another id": (lambda t: t, "has field id 7"),
}
"""Files that were written anew, check sum and all: only what they hold tells."""


def duplicate(table: pa.Table, name: str) -> pa.Table:
    place = table.column_names.index(name)
    values = table.column(name).to_pylist()
    return table.set_column(place, table.field(name), pa.array([values[1], *values[1:]], table.field(name).type))


def other_rows(table: pa.Table) -> pa.Table:
    """One row fewer; of no rows (a truncate was the last change), one more."""
    return table.slice(1) if table.num_rows else pa.Table.from_pylist([{}], schema=table.schema)


def shift(table: pa.Table, name: str) -> pa.Table:
    place = table.column_names.index(name)
    shifted = pa.array([value + 1 for value in table.column(name).to_pylist()], table.field(name).type)
    return table.set_column(place, table.field(name), shifted)


def forge(log: Log, kind: str, change: Callable[[pa.Table], pa.Table], field_id: int | None = None) -> None:
    """Write a segment or base anew with other contents, and let the catalog know its size and check sum."""
    with log.catalog.read() as connection:
        query = "SELECT id, path FROM file WHERE kind = ? AND removed IS NULL ORDER BY id LIMIT 1"
        file, name = connection.exec_driver_sql(query, (kind,)).one()
    path = log.storage.path(name)
    table = change(pq.read_table(path))
    if field_id is not None:
        first = table.schema.field(0).with_metadata({"PARQUET:field_id": str(field_id)})
        table = table.cast(table.schema.set(0, first))
    pq.write_table(table, path)
    digest = xxhash.xxh3_128_hexdigest(path.read_bytes())
    inject(log, f"UPDATE file SET bytes = {path.stat().st_size}, digest = '{digest}' WHERE id = {file}")


def test_a_segment_that_holds_something_else_is_found(full: Log) -> None:
    with full.catalog.read() as connection:
        query = "SELECT id, path, bytes, digest FROM file WHERE kind = 'segment' ORDER BY id LIMIT 1"
        file, name, size, digest = connection.exec_driver_sql(query).one()
    whole = full.storage.path(name).read_bytes()
    for kind, (change, words) in FORGED.items():
        forge(full, "segment", change, 7 if "has field id" in words else None)
        assert verify(full).findings == ()
        findings = verify(full, deep=True).findings
        assert any(words in finding.what for finding in findings), (kind, findings)
        full.storage.path(name).write_bytes(whole)
        inject(full, f"UPDATE file SET bytes = {size}, digest = '{digest}' WHERE id = {file}")
    assert verify(full, deep=True).findings == ()


def test_statistics_that_lie_are_found(full: Log) -> None:
    with full.catalog.read() as connection:
        query = "SELECT id, path FROM file WHERE kind = 'segment' ORDER BY id LIMIT 1"
        file, name = connection.exec_driver_sql(query).one()
    path = full.storage.path(name)
    pq.write_table(pq.read_table(path), path, write_statistics=False)
    digest = xxhash.xxh3_128_hexdigest(path.read_bytes())
    inject(full, f"UPDATE file SET bytes = {path.stat().st_size}, digest = '{digest}' WHERE id = {file}")
    assert any("statistics" in finding.what for finding in verify(full, deep=True).findings)


@pytest.mark.parametrize("change", [lambda t: duplicate(t, "id"), lambda t: shift(t, "id")], ids=["twice", "other"])
def test_a_base_that_is_not_the_fold_of_its_records_is_found(full: Log, change: Callable[[pa.Table], pa.Table]) -> None:
    forge(full, "base", change)
    assert any("its records give" in finding.what for finding in verify(full, deep=True).findings)


def test_every_base_is_the_fold_of_all_before_it(log: Log, seed: int) -> None:
    """Keyed rows with values kept from before, key changes and truncates; bags with copies."""
    writer = Writer(log)
    keyed, bag = KeyedHistory(seed), BagHistory(seed, "multiset")
    writer.create(TOPIC, "table", KEYED, partitions=2)
    writer.create("shop.public.bag", "multiset", BAG)
    for number in range(12):
        writer.write(TOPIC, keyed.commit())
        writer.write("shop.public.bag", bag.commit())
        if number % 4 == 3:
            seal.seal(log, Settings())
            for name in (TOPIC, "shop.public.bag"):
                base.write(log, log.topic(name), log.newest_commit(), Settings())
    assert verify(log, deep=True).findings == ()
    forge(log, "base", other_rows)
    assert len(verify(log, deep=True).findings) >= 1


def test_an_index_that_differs_from_its_table_is_found(full: Log) -> None:
    inject(
        full,
        """PRAGMA writable_schema = ON;
        CREATE INDEX half ON producer (epoch) WHERE epoch < 0;
        UPDATE sqlite_master SET sql = 'CREATE INDEX half ON producer (epoch)' WHERE name = 'half';""",
    )
    found = [finding for finding in verify(full, deep=True).findings if "index half" in finding.what]
    assert found
    assert found[0].where == "catalog"


def test_a_commit_that_says_another_count_is_found(full: Log) -> None:
    inject(full, 'UPDATE "commit" SET rows = rows + 1 WHERE number IN (2, 5)')
    found = [finding.what for finding in verify(full, deep=True).findings]
    assert found == [f"commit {number} published 21 records, 20 are stored" for number in (2, 5)]


def test_a_file_that_nobody_names_is_found_when_it_is_old(full: Log) -> None:
    stray = full.storage.path("data/segments/stray.parquet")
    stray.touch()
    assert verify(full, deep=True).findings == (), "its writer may be about to name it"
    os.utime(stray, (1, 1))
    [finding] = verify(full, deep=True).findings
    assert finding.where == "data/segments/stray.parquet"


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
    assert report.findings == ()
    assert (report.commits, report.records) == (5, 80)
    assert report.files == 2 + 1 + 2  # two segments, a base, two hot files
