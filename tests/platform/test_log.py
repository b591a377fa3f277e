"""Commits: dense offsets, one writer at a time and many, fencing, what a failed transaction leaves behind."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from headwater.catalog.queue_lock import queued
from headwater.errors import (
    AmbiguousName,
    CatalogError,
    DuplicateName,
    Fenced,
    NameNotFound,
    NotYet,
    PositionConflict,
    SchemaError,
)
from headwater.lake import open_lake
from headwater.log import Log, open_log, staging
from headwater.log.verify import verify
from headwater.schema import Field, Schema
from headwater.testing.forks import FORKS
from headwater.testing.writer import Writer

TOPIC = "shop.public.t"
SCHEMA = Schema.of({"id": "BIGINT", "name": "VARCHAR"}, key=["id"])


def rows(*ids: int, op: str = "c", name: str = "x") -> pa.Table:
    return pa.table(
        {"id": pa.array(ids, pa.int64()), "name": [name] * len(ids), "_op": [op] * len(ids)},
        schema=pa.schema([("id", pa.int64()), ("name", pa.string()), ("_op", pa.string())]),
    )


def hot_files(log: Log) -> list[str]:
    return log.storage.list("data/hot")


def test_offsets_are_dense_in_every_partition_and_order_is_kept(log: Log, writer: Writer) -> None:
    writer.create(TOPIC, "table", SCHEMA, partitions=4)
    for first in range(0, 400, 40):
        writer.write(TOPIC, rows(*range(first, first + 40)))
    found = log.read_changes(TOPIC, 0, log.newest_commit()).to_pylist()
    for partition in range(4):
        mine = [record for record in found if record["_partition"] == partition]
        assert [record["_offset"] for record in mine] == list(range(len(mine)))
        assert [record["id"] for record in mine] == sorted(record["id"] for record in mine)
        assert len(mine) > 50
    assert verify(log, deep=True).findings == ()


def test_a_key_always_goes_to_the_same_partition(log: Log, writer: Writer) -> None:
    writer.create(TOPIC, "table", SCHEMA, partitions=4)
    for _ in range(3):
        writer.write(TOPIC, rows(*range(50)))
    found = log.read_changes(TOPIC, 0, log.newest_commit(), ["id", "_partition"]).to_pylist()
    assert len({(record["id"], record["_partition"]) for record in found}) == 50


def test_read_changes_gives_exactly_the_commits_asked_for(log: Log, writer: Writer) -> None:
    writer.create(TOPIC, "table", SCHEMA)
    numbers = [writer.write(TOPIC, rows(i)).number for i in range(5)]
    found = log.read_changes(TOPIC, numbers[1], numbers[3]).to_pylist()
    assert [(record["id"], record["_commit"]) for record in found] == [(2, numbers[2]), (3, numbers[3])]
    assert log.read_changes(TOPIC, numbers[4], numbers[4]).num_rows == 0


def test_commit_times_grow_when_the_clock_goes_back(tmp_path: Path) -> None:
    class Backwards:
        us = 1_800_000_000_000_000

        def now_us(self) -> int:
            self.us -= 1_000_000
            return self.us

    with open_log(tmp_path / "lake", create=True, clock=Backwards()) as log:
        writer = Writer(log)
        infos = [writer.create(f"{TOPIC}{n}", "table", SCHEMA) for n in range(4)]
        times = [info.time for info in infos]
        assert times == sorted(set(times))
        assert verify(log).findings == ()


def write_many(folder: Path, producer: str, topic: str, commits: int) -> None:
    """A process of its own; module level, so that a forked process finds it."""
    with open_log(folder) as log:
        writer = Writer(log, producer)
        for number in range(commits):
            writer.write(topic, rows(number, name=producer), position=str(number))


def test_several_processes_write_one_topic_densely(log: Log, writer: Writer) -> None:
    writer.create(TOPIC, "table", Schema.of({"id": "BIGINT", "name": "VARCHAR"}, key=["id", "name"]), partitions=2)
    processes = [
        FORKS.Process(target=write_many, args=(log.folder, f"source:{name}", TOPIC, 40), daemon=True) for name in "abc"
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    found = log.read_changes(TOPIC, 0, log.newest_commit()).to_pylist()
    assert Counter(record["name"] for record in found) == {f"source:{name}": 40 for name in "abc"}
    assert log.newest_commit() == 1 + 120
    assert verify(log, deep=True).findings == ()


def tickets(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[:8], "little")


def test_the_queue_lock_lets_in_one_at_a_time_in_order_of_arrival(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    entered: list[int] = []
    inside = threading.Semaphore(1)

    def come(me: int) -> None:
        with queued(path):
            assert inside.acquire(blocking=False), "two are inside"
            entered.append(me)
            inside.release()

    threads = [threading.Thread(target=come, args=(me,)) for me in range(8)]
    with queued(path):
        for waiting, thread in enumerate(threads, start=2):
            thread.start()
            deadline = time.monotonic() + 30
            while tickets(path) < waiting and time.monotonic() < deadline:
                os.sched_yield()
        assert entered == []
    for thread in threads:
        thread.join(30)
    assert entered == list(range(8))


def test_an_older_epoch_is_fenced_and_publishes_nothing(log: Log, writer: Writer) -> None:
    writer.create(TOPIC, "table", SCHEMA)
    with log.transaction(writer.producer, writer.epoch, None) as tx:
        tx.append(TOPIC, rows(1))
        successor = Writer(log)
        with pytest.raises(Fenced, match="this one must stop"):
            tx.commit()
    assert hot_files(log) == []
    assert log.newest_commit() == 1
    assert successor.write(TOPIC, rows(2)).number == 2


def test_a_writer_nobody_knows_is_fenced(log: Log) -> None:
    with pytest.raises(Fenced), log.transaction("source:nobody", 1) as tx:
        tx.commit()


def test_an_unexpected_position_is_a_conflict_and_publishes_nothing(log: Log, writer: Writer) -> None:
    writer.create(TOPIC, "table", SCHEMA)
    writer.write(TOPIC, rows(1), position="0/10")
    with log.transaction(writer.producer, writer.epoch, "0/8") as tx:
        tx.append(TOPIC, rows(2))
        tx.position = "0/18"
        with pytest.raises(PositionConflict, match="0/10"):
            tx.commit()
    assert log.producer(writer.producer).position == "0/10"
    assert len(hot_files(log)) == 1
    assert log.newest_commit() == 2


def test_a_discarded_transaction_leaves_no_file_and_no_commit(log: Log, writer: Writer) -> None:
    writer.create(TOPIC, "table", SCHEMA)
    with writer.transaction() as tx:
        tx.append(TOPIC, rows(*range(1000)))
        tx.create_topic("shop.public.other", "table", SCHEMA)
    with writer.transaction() as tx:
        tx.append(TOPIC, rows(1))
        with pytest.raises(SchemaError, match="colour"):
            tx.append(TOPIC, rows(1).append_column("colour", [["red"]]))
    assert hot_files(log) == []
    assert log.newest_commit() == 1
    assert [topic.name for topic in log.topics()] == [TOPIC]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (rows(1).drop_columns(["name"]), "'name' is missing"),
        (rows(1).set_column(0, "id", [["one"]]), "'id' holds string"),
        (rows(1).append_column("_weight", [[1]]), "'_weight' is not in"),
    ],
)
def test_rows_that_do_not_fit_are_refused_by_column(log: Log, writer: Writer, table: pa.Table, message: str) -> None:
    writer.create(TOPIC, "table", SCHEMA)
    with pytest.raises(SchemaError, match=message):
        writer.write(TOPIC, table)
    assert log.newest_commit() == 1


def test_a_large_transaction_is_one_commit_of_several_files(
    log: Log, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "FILE_BYTES_MAX", 4096)
    writer.create(TOPIC, "table", SCHEMA)
    with writer.transaction() as tx:
        for first in range(0, 2000, 100):
            tx.append(TOPIC, rows(*range(first, first + 100)))
        assert log.newest_commit() == 1
        info = tx.commit()
    assert len(hot_files(log)) > 5
    assert (info.number, info.rows) == (2, 2000)
    assert log.read_changes(TOPIC, 1, 2)["id"].to_pylist() == list(range(2000))
    with open_lake(log.folder) as lake:
        assert lake.sql("SELECT count(*) FROM t", at=1).scalar() == 0
        assert lake.sql("SELECT count(*) FROM t").scalar() == 2000
    assert verify(log, deep=True).findings == ()


def test_all_topics_of_a_commit_appear_together(log: Log, writer: Writer) -> None:
    with writer.transaction() as tx:
        for name in ("shop.public.a", "shop.public.b"):
            tx.create_topic(name, "table", SCHEMA)
            tx.append(name, rows(1))
        number = tx.commit().number
    assert log.topics(at=number - 1) == []
    with open_lake(log.folder) as lake:
        assert lake.sql("SELECT count(*) FROM a JOIN b USING (id)", at=number).scalar() == 1


def evolved(name: str, kind: str, default: str | None) -> Schema:
    """(id, name) with ``name`` renamed and moved first, ``id`` of another type, and a new column."""
    return Schema(
        fields=(
            Field(id=2, name=name, type="VARCHAR"),
            Field(id=1, name="id", type=kind),
            Field(id=3, name="name", type="INTEGER", initial_default=default),
        ),
        key=("id",),
    )


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("default", ["7", None])
def test_older_rows_are_mapped_by_field_id(log: Log, writer: Writer, sealed: bool, default: str | None) -> None:
    from headwater.config import Settings
    from headwater.log import seal

    narrow = Schema.of({"id": "INTEGER", "name": "VARCHAR"}, key=["id"])
    writer.create(TOPIC, "table", narrow)
    before = writer.write(TOPIC, rows(1, 2, name="old")).number
    with writer.transaction() as tx:
        tx.add_schema(TOPIC, evolved("title", "BIGINT", default))
        new = {"title": ["new"], "id": [2**40], "name": pa.array([5], pa.int32()), "_op": ["c"]}
        tx.append(TOPIC, pa.table(new))
        tx.commit()
    if sealed:
        seal.seal(log, Settings())
    filled = None if default is None else 7
    with open_lake(log.folder) as lake:
        assert lake.describe("t").names == ("title", "id", "name")
        found = lake.sql("SELECT * FROM t ORDER BY id")
        assert found.fetchall() == [("old", 1, filled), ("old", 2, filled), ("new", 2**40, 5)]
        assert found.types == ["VARCHAR", "BIGINT", "INTEGER"]
        old = lake.sql("SELECT * FROM t ORDER BY id", at=before)
        assert (old.columns, old.fetchall()) == (["id", "name"], [(1, "old"), (2, "old")])
        assert lake.sql("SELECT * FROM t ORDER BY id").fetchall() == found.fetchall()
    assert log.read_changes(TOPIC, 0, log.newest_commit())["title"].to_pylist() == ["old", "old", "new"]
    assert verify(log, deep=True).findings == ()


def test_a_dropped_topic_is_read_at_the_positions_at_which_it_existed(log: Log, writer: Writer) -> None:
    writer.create(TOPIC, "table", SCHEMA)
    first = writer.write(TOPIC, rows(1, name="first life")).number
    with writer.transaction() as tx:
        tx.drop_topic(TOPIC)
        dropped = tx.commit().number
    other = Schema.of({"id": "BIGINT", "price": "DOUBLE"}, key=["id"])
    writer.create(TOPIC, "table", other)
    second = writer.write(TOPIC, pa.table({"id": [9], "price": [1.5], "_op": ["c"]})).number
    with open_lake(log.folder) as lake:
        assert lake.sql("SELECT * FROM t").fetchall() == [(9, 1.5)]
        assert lake.sql("SELECT * FROM t", at=first).fetchall() == [(1, "first life")]
        with pytest.raises(NameNotFound):
            lake.sql("SELECT * FROM t", at=dropped)
        assert lake.sql("SELECT * FROM t", at=second).fetchall() == [(9, 1.5)]
    assert verify(log, deep=True).findings == ()


def test_names_resolve_when_unique_and_say_so_when_not(log: Log, writer: Writer) -> None:
    for name in ("shop.public.orders", "shop.archive.orders", "shop.public.items"):
        writer.create(name, "table", SCHEMA)
    assert log.topic("items").name == "shop.public.items"
    assert log.topic("public.orders").name == "shop.public.orders"
    with pytest.raises(AmbiguousName) as ambiguous:
        log.topic("orders")
    assert ambiguous.value.candidates == ("shop.archive.orders", "shop.public.orders")
    with pytest.raises(NameNotFound, match=r"Did you mean shop\.public\.items"):
        log.topic("itms")
    with pytest.raises(DuplicateName):
        writer.create("shop.public.items", "table", SCHEMA)


def test_waiting_ends_with_the_next_commit_of_another_process(log: Log, writer: Writer) -> None:
    writer.create(TOPIC, "table", SCHEMA)
    assert log.wait(after=1, timeout=0.01) == 1
    process = FORKS.Process(target=write_many, args=(log.folder, "source:b", TOPIC, 1), daemon=True)
    process.start()
    assert log.wait(after=1, timeout=60) == 2
    process.join(60)


def test_confirmed_positions_need_no_commit(log: Log, writer: Writer) -> None:
    writer.create(TOPIC, "table", SCHEMA)
    log.set_confirmed(writer.producer, "0/99")
    state = log.producer(writer.producer)
    assert (state.confirmed, state.position, log.newest_commit()) == ("0/99", None, 1)


def test_a_lake_that_is_not_there_is_said_so(tmp_path: Path, log: Log) -> None:
    with pytest.raises(CatalogError, match="there is no lake here"):
        open_log(tmp_path / "nowhere")
    with pytest.raises(NotYet):
        log.commit_info(1)
