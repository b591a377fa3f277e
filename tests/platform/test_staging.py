"""Pieces of long work: durable and unread until a commit adopts them, found again after a crash, gone when let go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from headwater.catalog.records import TopicSettings
from headwater.errors import CorruptFile, DuplicateName
from headwater.log import open_log, recovery, topics
from headwater.log.staging import Staging, kept, release, tables_of
from headwater.log.verify import verify
from headwater.schema import Schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headwater.catalog.records import Topic
    from headwater.log import Log

NAME = "s.public.t"
SCHEMA = Schema.of(id="BIGINT", v="VARCHAR", key=["id"])
OTHER = Schema.of(id="BIGINT", w="DOUBLE", key=["id"])


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with open_log(tmp_path / "lake", create=True) as opened:
        yield opened


def topic(partitions: int = 1) -> Topic:
    return topics.new(NAME, "table", SCHEMA, partitions, "s", "", TopicSettings())


def rows(*ids: int) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "v": [f"v{i}" for i in ids], "_op": ["r"] * len(ids)})


def others(*ids: int) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "w": [i / 2 for i in ids], "_op": ["c"] * len(ids)})


@pytest.mark.parametrize("partitions", [1, 3])
def test_kept_pieces_are_adopted_in_order_before_what_is_appended(log: Log, partitions: int) -> None:
    for number in (1, 0):
        staging = Staging(log)
        staging.append(topic(partitions), rows(*range(number * 100, number * 100 + 100)))
        staging.keep(f"copy:x:{number}", {"number": number})
    assert log.newest_commit() == 0
    assert [piece.facts["number"] for piece in kept(log, "copy:x:")] == [0, 1]
    with log.transaction("s", log.raise_epoch("s")) as tx:
        tx.create_topic(NAME, "table", SCHEMA, partitions=partitions)
        for piece in kept(log, "copy:x:"):
            tx.adopt(piece)
        tx.append(NAME, rows(1000))
        assert tx.rows == 201
        info = tx.commit()
    assert info.rows == 201
    found = log.read_changes(NAME, 0, 1)
    assert sorted(found["id"].to_pylist()) == [*range(200), 1000]
    for partition in range(partitions):
        mine = found.filter(pa.compute.equal(found["_partition"], partition))
        assert mine["id"].to_pylist() == sorted(mine["id"].to_pylist())
        assert mine["_offset"].to_pylist() == list(range(mine.num_rows))
    assert kept(log, "copy:x:") == []
    assert verify(log, deep=True).findings == ()


def test_kept_pieces_outlive_the_process_and_are_no_orphans(log: Log) -> None:
    staging = Staging(log)
    staging.append(topic(), rows(1, 2, 3))
    staging.keep("copy:x:0", {})
    with open_log(log.folder) as again:
        assert recovery.orphans(again, grace_s=-1) == []
        (piece,) = kept(again, "copy:x:")
        assert [table["id"].to_pylist() for table in tables_of(again, piece, topic())] == [[1, 2, 3]]
        assert verify(again, deep=True).findings == ()


def test_a_piece_that_is_let_go_or_kept_again_leaves_no_file(log: Log) -> None:
    for value in (1, 2):
        staging = Staging(log)
        staging.append(topic(), rows(value))
        staging.keep("copy:x:0", {"value": value})
    (piece,) = kept(log, "copy:x:")
    assert piece.facts == {"value": 2}
    with log.catalog.write() as connection:
        release(connection, ["copy:x:0", "copy:x:none"], log.clock.now_us(), published=False)
    assert kept(log, "copy:") == []
    assert recovery.remove_retired(log, grace_s=-1) == 2
    assert log.storage.list("data/hot") == []


def test_a_piece_whose_bytes_changed_is_refused(log: Log) -> None:
    staging = Staging(log)
    staging.append(topic(), rows(1, 2, 3))
    piece = staging.keep("copy:x:0", {})
    path = log.storage.path(piece.files[0][1])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptFile):
        list(tables_of(log, piece, topic()))


def test_a_name_is_taken_anew_in_the_commit_that_drops_it(log: Log) -> None:
    """Rows appended to the one that goes do not reach the one that comes, whatever their shape."""
    epoch = log.raise_epoch("s")
    with log.transaction("s", epoch) as tx:
        tx.create_topic(NAME, "table", SCHEMA)
        tx.append(NAME, rows(1, 2))
        tx.commit()
    with log.transaction("s", epoch) as tx:
        tx.append(NAME, rows(3))
        tx.drop_topic(NAME)
        tx.create_topic(NAME, "table", OTHER)
        tx.append(NAME, others(7, 8))
        tx.commit()
    assert log.read_changes(NAME, 0, 2)["w"].to_pylist() == [3.5, 4.0]
    assert log.topic(NAME, at=1).schema == SCHEMA
    with log.transaction("s", epoch) as tx:
        tx.create_topic(NAME, "table", OTHER)
        with pytest.raises(DuplicateName):
            tx.commit()
    assert verify(log, deep=True).findings == ()


def test_a_topic_is_taken_back_in_the_transaction_that_creates_it(log: Log) -> None:
    with log.transaction("s", log.raise_epoch("s")) as tx:
        tx.create_topic(NAME, "table", SCHEMA, hidden=True)
        tx.append(NAME, rows(1, 2))
        assert tx.uncreate_topic(NAME)
        assert not tx.uncreate_topic(NAME)
        tx.create_topic(NAME, "table", OTHER)
        tx.append(NAME, others(5))
        tx.commit()
    assert log.read_changes(NAME, 0, 1)["w"].to_pylist() == [2.5]
    assert verify(log, deep=True).findings == ()
