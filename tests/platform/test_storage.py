"""The disk says no, or lies: full, failing, cut short, flipped, gone. Nothing half is ever published."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from headwater.config import Settings
from headwater.errors import CorruptFile, DiskFull, StorageError
from headwater.lake import open_lake
from headwater.log import Log, base, open_log, seal
from headwater.log.verify import verify
from headwater.schema import Schema
from headwater.storage import Storage, hot
from headwater.testing.faults import Call, FaultyStorage
from headwater.testing.writer import Writer

TOPIC, OTHER = "shop.public.t", "shop.public.other"
SCHEMA = Schema.of({"id": "BIGINT", "name": "VARCHAR"}, key=["id"])


def rows(first: int, count: int = 10, width: int = 1) -> pa.Table:
    ids = list(range(first, first + count))
    names = [os.urandom(width).hex() for _ in ids]
    return pa.table({"id": pa.array(ids, pa.int64()), "name": names, "_op": ["c"] * count})


def two_topics(log: Log) -> Writer:
    writer = Writer(log)
    for name in (TOPIC, OTHER):
        writer.create(name, "table", SCHEMA)
        writer.write(name, rows(0))
    return writer


def count(log: Log, name: str) -> int:
    with open_lake(log.folder) as lake:
        return int(lake.sql(f"SELECT count(*) FROM {name.rpartition('.')[2]}").scalar())


def test_a_file_name_is_never_used_twice(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    with storage.create("a") as file:
        file.write(b"1")
        file.seal()
    with pytest.raises(StorageError, match="used before"):
        storage.create("a")
    assert storage.read("a", 0, 1) == b"1"


def test_a_file_that_was_not_sealed_leaves_nothing(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    with storage.create("a") as file:
        file.write(b"1")
    assert not storage.path("a").exists()


@pytest.mark.parametrize("call", ["write", "fsync", "fsync_folder", "create"])
@pytest.mark.parametrize("full", [True, False])
def test_a_failing_call_publishes_nothing_and_the_next_try_does(log: Log, call: Call, full: bool) -> None:
    writer = two_topics(log)
    before, position = log.newest_commit(), log.producer(writer.producer).position
    faulty = log.storage = FaultyStorage(log.folder)
    faulty.fail(call, full=full)
    with pytest.raises(DiskFull if full else StorageError) as raised:
        writer.write(TOPIC, rows(100), position="9")
    assert raised.value.todo
    assert isinstance(raised.value, DiskFull) == full
    assert (log.newest_commit(), log.producer(writer.producer).position) == (before, position)
    assert count(log, TOPIC) == 10
    assert faulty.failed == 1
    writer.write(TOPIC, rows(100), position="9")
    assert count(log, TOPIC) == 20
    assert verify(log, deep=True).findings == ()
    assert len(log.storage.list("data/hot")) == 3, "the abandoned file is still there"


@pytest.mark.parametrize("call", ["write", "fsync", "fsync_folder", "create"])
@pytest.mark.parametrize("work", ["seal", "base"])
def test_failing_maintenance_leaves_everything_as_it_was(log: Log, call: Call, work: str) -> None:
    writer = two_topics(log)
    faulty = log.storage = FaultyStorage(log.folder)
    faulty.fail(call, full=True)

    def maintain() -> int:
        if work == "seal":
            return seal.seal(log, Settings())
        return base.write(log, log.topic(TOPIC), log.newest_commit(), Settings())

    with pytest.raises(DiskFull):
        maintain()
    assert count(log, TOPIC) == count(log, OTHER) == 10
    writer.write(TOPIC, rows(100))
    assert maintain() > 0
    assert (count(log, TOPIC), count(log, OTHER)) == (20, 10)
    assert verify(log, deep=True).findings == ()


@pytest.mark.parametrize("name", ["with space", "gl[ob]", "st*r", "wh?t", "it's", "ß%20#"])
def test_a_lake_lives_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    with open_log(tmp_path / name / "lake", create=True) as log:
        two_topics(log)
        seal.seal(log, Settings())
        base.write(log, log.topic(TOPIC), log.newest_commit(), Settings())
        assert (count(log, TOPIC), count(log, OTHER)) == (10, 10)
        assert log.folder == tmp_path / name / "lake"
        assert (log.folder / "catalog.sqlite").exists()


def fill_up(writer: Writer) -> int:
    """Commit until the disk is full; how many commits there were."""
    for done in range(1000):
        try:
            writer.write(TOPIC, rows(1000 + 100 * done, 100, 500))
        except DiskFull as full:
            if "Free space" not in full.todo:
                raise
            return done
    pytest.fail("the disk never filled up")


def test_a_full_tmpfs_is_said_so_and_writing_goes_on_when_there_is_space(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this container may not mount")
    try:
        ballast = folder / "ballast"
        ballast.write_bytes(bytes(1_500_000))
        with open_log(folder / "lake", create=True) as log:
            writer = two_topics(log)
            written = 10 + 100 * fill_up(writer)
            assert written > 10
            assert count(log, TOPIC) == written
            ballast.unlink()
            writer.write(TOPIC, rows(0))
            writer.write(OTHER, rows(50))
            assert (count(log, TOPIC), count(log, OTHER)) == (written, 20)
            assert verify(log, deep=True).findings == ()
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def truncate(path: Path, _place: int) -> None:
    os.truncate(path, path.stat().st_size - 1)


def remove(path: Path, _place: int) -> None:
    path.unlink()


Damage = Callable[[Path, int], None]


def file_of(log: Log, name: str, kind: str) -> Path:
    with log.catalog.read() as connection:
        table = {"hot": "batch", "segment": "segment", "base": "base"}[kind]
        query = f"SELECT f.path FROM file f JOIN {table} x ON x.file = f.id WHERE x.topic = ? ORDER BY f.id DESC"
        path = connection.exec_driver_sql(query, (log.topic(name).id,)).scalars().first()
    assert path is not None
    return log.storage.path(path)


@pytest.mark.parametrize("damage", [flip, truncate, remove])
def test_a_damaged_hot_file_is_refused_on_reading_and_others_stay_readable(log: Log, damage: Damage) -> None:
    two_topics(log)
    path = file_of(log, TOPIC, "hot")
    size = path.stat().st_size
    places = [0, size // 3, size // 2, size - 1] if damage is flip else [0]
    whole = path.read_bytes()
    for place in places:
        path.write_bytes(whole)
        damage(path, place)
        with open_lake(log.folder) as lake:
            with pytest.raises(CorruptFile, match="backup"):
                lake.sql("SELECT * FROM t")
            assert lake.sql("SELECT count(*) FROM other").scalar() == 10
        assert [f.where for f in verify(log, deep=True).findings] == [path.relative_to(log.folder).as_posix()]
        path.write_bytes(whole)
        assert verify(log).findings == ()


def test_every_single_flipped_byte_of_a_hot_file_is_seen(log: Log) -> None:
    two_topics(log)
    path = file_of(log, TOPIC, "hot")
    whole = path.read_bytes()
    with log.catalog.read() as connection:
        query = "SELECT digest FROM batch WHERE topic = ?"
        digest = connection.exec_driver_sql(query, (log.topic(TOPIC).id,)).scalar_one()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x80
        with pytest.raises(CorruptFile):
            hot.decode(bytes(damaged), digest, "here")


@pytest.mark.parametrize("damage", [flip, truncate, remove])
@pytest.mark.parametrize("kind", ["segment", "base"])
def test_verify_finds_a_damaged_segment_or_base_and_others_stay_readable(log: Log, damage: Damage, kind: str) -> None:
    two_topics(log)
    seal.seal(log, Settings())
    base.write(log, log.topic(TOPIC), log.newest_commit(), Settings())
    assert verify(log, deep=True).findings == ()
    path = file_of(log, TOPIC, kind)
    whole = path.read_bytes()
    places = [0, len(whole) // 2, len(whole) - 1] if damage is flip and kind == "segment" else [0]
    for place in places:
        path.write_bytes(whole)
        assert verify(log).findings == ()
        damage(path, place)
        assert bool(verify(log).findings) == (damage is not flip), "the quick check sees sizes"
        found = {finding.where for finding in verify(log, deep=True).findings}
        assert found == {path.relative_to(log.folder).as_posix()}
        assert count(log, OTHER) == 10


QUERIES = ["SELECT * FROM t ORDER BY id", 'SELECT * FROM log."shop.public.t" ORDER BY id']


@pytest.mark.parametrize("damage", [truncate, remove])
@pytest.mark.parametrize("query", QUERIES)
def test_a_segment_that_is_short_or_gone_is_refused_by_name(log: Log, damage: Damage, query: str) -> None:
    two_topics(log)
    seal.seal(log, Settings())
    path = file_of(log, TOPIC, "segment")
    damage(path, 0)
    with open_lake(log.folder) as lake:
        for _ in range(2):
            with pytest.raises(CorruptFile) as raised:
                lake.sql(query)
            assert path.name in raised.value.where
        assert lake.sql("SELECT count(*) FROM other").scalar() == 10


@pytest.mark.parametrize("query", [QUERIES[0], pytest.param(QUERIES[1], marks=pytest.mark.long)])
def test_what_a_flipped_byte_in_a_segment_breaks_is_named(log: Log, query: str) -> None:
    """Segments are not checked on every read (verify does): what DuckDB cannot read must still name the file."""
    two_topics(log)
    seal.seal(log, Settings())
    path = file_of(log, TOPIC, "segment")
    whole = path.read_bytes()
    errors = []
    for place in range(0, len(whole), 199):
        path.write_bytes(whole)
        assert verify(log).findings == ()
        flip(path, place)
        with open_lake(log.folder) as lake, lake.at(log.newest_commit()) as then:
            try:
                then.sql(query)
            except CorruptFile as error:
                errors.append(error)
            for each in (lake, then):  # they share the memory that such a file may take down
                assert each.sql("SELECT count(*) FROM other").scalar() == 10
    assert errors
    assert {error.facts["path"] for error in errors} == {path.relative_to(log.folder).as_posix()}


def test_sealing_leaves_a_damaged_batch_hot(log: Log) -> None:
    two_topics(log)
    flip(file_of(log, TOPIC, "hot"), 200)
    assert seal.seal(log, Settings()) == 10, "the other topic's"
    with open_lake(log.folder) as lake, pytest.raises(CorruptFile):
        lake.sql("SELECT * FROM t")
