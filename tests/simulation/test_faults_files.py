"""Data files cut short, flipped, stale, swapped, gone or too many: found, named, never served; neighbours go on."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headwater.config import Settings
from headwater.errors import CorruptFile, StorageError
from headwater.lake import Lake, open_lake
from headwater.log import base, open_log, recovery, seal
from headwater.log.verify import verify
from headwater.schema import Schema
from headwater.storage import Storage, hot
from headwater.testing.shim import Server
from headwater.testing.writer import Writer

TOPIC, OTHER = "shop.public.t", "shop.public.other"
SCHEMA = Schema.of({"id": "BIGINT", "name": "VARCHAR"}, key=["id"])
SEALED, ALL = 40, 60
"""Rows of each topic: the first are sealed, the rest are hot."""


def rows(first: int, count: int) -> pa.Table:
    ids = list(range(first, first + count))
    return pa.table({"id": pa.array(ids, pa.int64()), "name": [f"name {n}" for n in ids], "_op": ["c"] * count})


@pytest.fixture(scope="module")
def whole(module_arena: Path) -> Path:
    """A lake with everything: sealed, hot and compacted records of two topics, one with two partitions."""
    folder = module_arena / "lake"
    with open_log(folder, create=True) as log:
        writer = Writer(log)
        writer.create(TOPIC, "table", SCHEMA, partitions=2)
        writer.create(OTHER, "table", SCHEMA)
        for name in (TOPIC, OTHER):
            writer.write(name, rows(0, SEALED))
        seal.seal(log, Settings())
        base.write(log, log.topic(TOPIC), log.newest_commit(), Settings())
        for name in (TOPIC, OTHER):
            writer.write(name, rows(SEALED, ALL - SEALED))
    return folder


@pytest.fixture
def lake(whole: Path, arena: Path) -> Path:
    """A copy of it, to be damaged."""
    shutil.copytree(whole, arena / "lake")
    return arena / "lake"


def file_of(folder: Path, kind: str, topic: str = TOPIC) -> Path:
    """The newest file of a kind that holds records of a topic."""
    table = {"hot": "batch", "segment": "segment", "base": "base"}[kind]
    with open_log(folder) as log, log.catalog.read() as connection:
        query = f"SELECT f.path FROM file f JOIN {table} x ON x.file = f.id WHERE x.topic = ? ORDER BY f.id DESC"
        return folder / str(connection.exec_driver_sql(query, (log.topic(topic).id,)).scalars().all()[0])


def flipped(path: Path, place: int, bit: int) -> Iterator[None]:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)
    yield


def counted(lake: Lake, name: str) -> int:
    return int(lake.sql(f"SELECT count(*) FROM {name}").scalar())


def found(folder: Path) -> set[str]:
    """Where ``verify --deep`` finds something."""
    with open_log(folder) as log:
        return {finding.where for finding in verify(log, deep=True).findings}


def assert_named(folder: Path, path: Path) -> None:
    """The check names the file; no read serves what is in it; the other topic and new commits go on."""
    name = path.relative_to(folder).as_posix()
    assert any(name in where for where in found(folder)), name
    with open_lake(folder) as lake:
        assert counted(lake, "other") == ALL
        if "/bases/" not in name:  # a damaged base costs nothing: the rows are folded without it
            with pytest.raises(CorruptFile):
                lake.sql(f'SELECT * FROM log."{TOPIC}"')
    with open_log(folder) as log:
        Writer(log).write(OTHER, rows(ALL, 1))


# ---- torn tails


def test_a_hot_batch_cut_at_any_byte_is_refused(lake: Path) -> None:
    path = file_of(lake, "hot")
    data = path.read_bytes()
    with open_log(lake) as log, log.catalog.read() as connection:
        query = "SELECT byte_offset, byte_length, batch.digest FROM batch JOIN file f ON f.id = file WHERE f.path = ?"
        batches = connection.exec_driver_sql(query, (path.relative_to(lake).as_posix(),)).all()
    storage = Storage(lake)
    offset, length, digest = max(batches)
    assert offset + length == len(data)
    for kept in range(len(data) - 1, offset - 1, -1):
        os.truncate(path, kept)
        with pytest.raises(CorruptFile, match="cut short"):
            hot.decode(storage.read(path.relative_to(lake).as_posix(), offset, length), digest, "here")


@pytest.mark.parametrize("kind", ["segment", "base"])
def test_a_parquet_file_cut_at_any_byte_is_refused(lake: Path, seed: int, kind: str) -> None:
    path = file_of(lake, kind)
    name, data = path.relative_to(lake).as_posix(), path.read_bytes()
    with open_log(lake) as log, log.catalog.read() as connection:
        digest = connection.exec_driver_sql("SELECT digest FROM file WHERE path = ?", (name,)).scalar_one()
    for kept in range(len(data)):
        os.truncate(path, kept) if kept else path.write_bytes(b"")
        with pytest.raises(CorruptFile):
            Storage(lake).check(name, len(data), digest)
        path.write_bytes(data)
    os.truncate(path, random.Random(seed).randrange(len(data)))
    assert_named(lake, path)


def test_the_torn_file_of_a_commit_that_never_was_harms_nobody(lake: Path, seed: int) -> None:
    """An orphan of any length beside the acknowledged ones: nobody reads it, and it goes when its time has come."""
    data = file_of(lake, "hot").read_bytes()
    orphan = lake / "data" / "hot" / "0123456789abcdef.arrows"
    orphan.write_bytes(data[: random.Random(seed).randrange(len(data))])
    with open_log(lake) as log:
        assert not verify(log, deep=True).findings
        assert recovery.remove_orphans(log) == 0
        os.utime(orphan, (0, 0))
        assert recovery.remove_orphans(log) == 1
        assert not verify(log, deep=True).findings
    assert not orphan.exists()


# ---- flipped bits


def regions(path: Path) -> dict[str, tuple[int, int]]:
    """The parts of a Parquet file as byte ranges, read off its own footer."""
    size = path.stat().st_size
    column = pq.read_metadata(path).row_group(0).column(0)
    start = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
    footer = int.from_bytes(path.read_bytes()[-8:-4], "little")
    return {
        "first magic": (0, 4),
        "page header": (start, start + 12),
        "page data": (start + 40, start + column.total_compressed_size),
        "footer": (size - 8 - footer, size - 8),
        "footer length": (size - 8, size - 4),
        "last magic": (size - 4, size),
    }


@pytest.mark.parametrize("region", ["first magic", "page header", "page data", "footer", "footer length", "last magic"])
@pytest.mark.parametrize("kind", ["segment", "base"])
def test_a_flipped_bit_in_any_part_of_a_parquet_file_is_found(lake: Path, seed: int, kind: str, region: str) -> None:
    path, chance = file_of(lake, kind), random.Random(seed)
    place = chance.randrange(*regions(path)[region])
    damage = flipped(path, place, chance.randrange(8))
    next(damage)
    assert_named(lake, path)


def test_a_flipped_bit_anywhere_in_a_hot_file_is_refused(whole: Path, arena: Path) -> None:
    """Message header, body, padding, on an ordinary read; the other topic answers each time."""
    size = file_of(whole, "hot").stat().st_size
    for number, place in enumerate(range(0, size, max(1, size // 6))):
        folder = arena / str(number)
        shutil.copytree(whole, folder)
        next(flipped(file_of(folder, "hot"), place, number % 8))
        with open_lake(folder) as lake:
            with pytest.raises(CorruptFile):
                lake.sql("SELECT * FROM t")
            assert counted(lake, "other") == ALL


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["segment", "base"])
def test_a_flip_of_any_byte_of_a_parquet_file_is_found(lake: Path, kind: str) -> None:
    path = file_of(lake, kind)
    name, data = path.relative_to(lake).as_posix(), path.read_bytes()
    with open_log(lake) as log, log.catalog.read() as connection:
        digest = connection.exec_driver_sql("SELECT digest FROM file WHERE path = ?", (name,)).scalar_one()
    for place in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(CorruptFile):
                Storage(lake).check(name, len(data), digest)


# ---- missing, stale, swapped


def gone(path: Path, _other: Path) -> None:
    path.unlink()


def another(path: Path, other: Path) -> None:
    """The right name, the content of another file that is whole in itself."""
    shutil.copyfile(other, path)


def empty(path: Path, _other: Path) -> None:
    path.write_bytes(b"")


def longer(path: Path, _other: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


@pytest.mark.parametrize("damage", [gone, another, empty, longer])
@pytest.mark.parametrize("kind", ["hot", "segment", "base"])
def test_a_file_that_is_not_the_committed_one_is_named(
    lake: Path, kind: str, damage: Callable[[Path, Path], None]
) -> None:
    path = file_of(lake, kind)
    other = file_of(lake, kind if kind != "base" else "segment", OTHER)
    damage(path, other)
    name = path.relative_to(lake).as_posix()
    assert any(name in where for where in found(lake)), name
    with open_lake(lake) as opened:
        assert counted(opened, "other") == ALL


def test_a_stale_copy_of_a_file_is_refused(lake: Path) -> None:
    """A partition's older segment restored under the newer one's name: whole, checked once, and not the one."""
    with open_log(lake) as log:
        old = file_of(lake, "segment")
        seal.seal(log, Settings())
        new = file_of(lake, "segment")
    assert old != new
    shutil.copyfile(old, new)
    assert_named(lake, new)


def no_magic(path: Path, _other: Path) -> None:
    next(flipped(path, path.stat().st_size - 1, 0))


@pytest.mark.parametrize("damage", [gone, empty, no_magic])
def test_an_ordinary_read_names_the_file_it_cannot_read(lake: Path, damage: Callable[[Path, Path], None]) -> None:
    """Before any check has seen it."""
    path = file_of(lake, "segment")
    damage(path, path)
    with open_lake(lake) as opened:
        with pytest.raises(CorruptFile, match=path.name):
            opened.sql(f'SELECT * FROM log."{TOPIC}"')
        assert counted(opened, "other") == ALL


def test_a_name_is_used_once(tmp_path: Path) -> None:
    """A writer that takes a name of the past gets an error, not the other one's file."""
    storage = Storage(tmp_path)
    with storage.create("a") as file:
        file.write(b"first")
        file.seal()
    with pytest.raises(StorageError, match="used before"):
        storage.create("a")


# ---- reading fails

READS = {"EIO": "read", "EMFILE": "open", "EACCES": "open"}


def read_both(folder: str, kind: str, action: str) -> list[str]:
    """In a process under the shim: what reading the broken topic says, and the other one; then once more, mended."""
    from headwater.testing import shim

    path = file_of(Path(folder), kind)
    said = []
    shim.rules(f"{READS[action]}:{path}:{action}:1:0")
    for mended in (False, True):
        if mended:
            shim.rules()
        for name in (TOPIC, OTHER):
            with open_lake(Path(folder)) as lake:
                try:
                    said.append(str(lake.sql(f'SELECT count(DISTINCT id) FROM log."{name}"').scalar()))
                except StorageError as error:
                    said.append(f"{type(error).__name__} {path.name in str(error)}")
    return said


@pytest.mark.parametrize(
    ("kind", "action"), [("hot", "EIO"), ("segment", "EIO"), ("hot", "EMFILE"), ("segment", "EACCES")]
)
def test_one_file_that_cannot_be_read_stops_its_topic_only(shimmed: Server, lake: Path, kind: str, action: str) -> None:
    """And only as long as it cannot be read: nothing is put in quarantine for want of a file descriptor."""
    exit_code, said = shimmed.run(f"{__file__}:read_both", {"folder": lake, "kind": kind, "action": action}, root=lake)
    assert exit_code == 0
    assert said[1:] == [str(ALL)] * 3, said
    assert said[0].endswith("True"), said
