"""Repartition: another number of partitions in one commit; rows, history and old positions stay what they were."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pyarrow as pa
import pytest
from sqlalchemy import select

from headwater import duck
from headwater.catalog import tables
from headwater.config import Settings
from headwater.errors import NameNotFound, TopicChanged, UsageError
from headwater.lake import open_lake
from headwater.log import Log, base, generations, seal
from headwater.log.repartition import repartition
from headwater.log.rows import CurrentRows
from headwater.log.verify import verify
from headwater.schema import Schema
from headwater.testing.changes import BagHistory, KeyedHistory
from headwater.testing.writer import Writer

TOPIC = "shop.public.t"
LIMITS = replace(Settings(), row_group_rows=16, segment_rows_max=40)
EVENTS = Schema.of({"k": "BIGINT", "n": "BIGINT"}, key=["k"])

Bag = Counter[tuple[Any, ...]]
Move = Callable[[], None]


def events(*keys: int) -> pa.Table:
    return pa.table({"k": list(keys), "n": list(range(len(keys)))})


def write(log: Log, kind: Any, seed: int, commits: int, *, repartitions: bool) -> dict[int, Bag]:
    """A random history in 1 to 5 partitions; the rows at each commit, those of the repartitions included."""
    chance = random.Random(seed)
    history: KeyedHistory | BagHistory = KeyedHistory(seed) if kind == "table" else BagHistory(seed, kind)
    writer = Writer(log)
    truth: dict[int, Bag] = {writer.create(TOPIC, kind, history.schema, 3).number: Counter()}
    for _ in range(commits):
        count = chance.choice([n for n in (1, 2, 4, 5) if n != log.topic(TOPIC).partitions])
        if chance.random() < 0.3 and repartitions:
            truth[repartition(log, TOPIC, count).number] = Counter(history.expected())
        if chance.random() < 0.1:
            seal.seal(log, LIMITS)
        commit = writer.write(TOPIC, history.commit()).number
        truth[commit] = Counter(history.expected())
    return truth


def check_every_commit(log: Log, truth: dict[int, Bag], order: list[int]) -> None:
    """The rows at each commit, in an order that goes on from kept rows and begins anew, over several generations."""
    with duck.connect(timezone=log.timezone) as connection:
        rows = CurrentRows(log, connection, log.topic(TOPIC))
        for commit in order:
            found = Counter(connection.sql(rows.at(log.topic(TOPIC, commit), commit)).fetchall())
            assert found == truth[commit], f"at commit {commit}, read in the order {order}"


def check_rounds(log: Log, kind: str, seed: int, commits: int, reads: int) -> None:
    chance = random.Random(seed)
    truth = write(log, kind, seed, commits, repartitions=True)
    check_every_commit(log, truth, chance.sample(list(truth), k=min(reads, len(truth))))
    check_every_commit(log, truth, [max(truth)])
    for commit in chance.sample(list(truth), k=2):
        base.write(log, log.topic(TOPIC, commit), commit, LIMITS)
    seal.seal(log, LIMITS)
    check_every_commit(log, truth, sorted(chance.sample(list(truth), k=min(reads, len(truth)))))
    assert verify(log, deep=True).findings == ()


@pytest.mark.parametrize("kind", ["table", "multiset", "changelog"])
def test_rows_equal_the_model_at_every_commit(log: Log, seed: int, kind: str) -> None:
    check_rounds(log, kind, seed, commits=14, reads=6)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["table", "multiset", "changelog"])
@pytest.mark.parametrize("round_", range(8))
def test_rows_equal_the_model_through_many_repartitions(log: Log, seed: int, kind: str, round_: int) -> None:
    check_rounds(log, kind, seed + round_, commits=40, reads=60)


@pytest.mark.parametrize("kind", ["table", "multiset"])
def test_history_is_that_of_a_topic_that_was_never_repartitioned(
    make_log: Callable[[], Log], seed: int, kind: Literal["table", "multiset"]
) -> None:
    found = []
    for repartitions in (True, False):
        log = make_log()
        write(log, kind, seed, 25, repartitions=repartitions)
        with open_lake(log.folder) as lake:
            times = (
                ""
                if kind == "multiset"
                else ", row_number() OVER (PARTITION BY a, b ORDER BY _offset), valid_to IS NULL"
            )
            columns = ", ".join(log.topic(TOPIC).schema.names)
            found.append(Counter(lake.sql(f"SELECT {columns}{times} FROM history.t").fetchall()))
            stored = lake.sql("SELECT _commit, _offset FROM history.t EXCEPT SELECT _commit, _offset FROM log.t")
            assert stored.fetchall() == [], "a version names the record that made it"
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["table", "multiset", "insert_only"])
def test_a_truncate_empties_the_closed_partitions_too(log: Log, writer: Writer, kind: Any) -> None:
    writer.create(TOPIC, kind, Schema.of({"n": "BIGINT"}, key=["n"] if kind == "table" else []), partitions=2)

    def change(*rows: tuple[int | None, str]) -> pa.Table:
        table = pa.table({"n": pa.array([n for n, _ in rows], pa.int64()), "_op": [op for _, op in rows]})
        weights = pa.array([0 if op == "t" else 1 for _, op in rows])
        return table.append_column("_weight", weights) if kind == "multiset" else table

    writer.write(TOPIC, change((1, "c"), (2, "c"), (3, "c")))
    repartition(log, TOPIC, 3)
    writer.write(TOPIC, change((4, "c"), (None, "t"), (5, "c")))
    with open_lake(log.folder) as lake:
        assert lake.sql("SELECT n FROM t").fetchall() == [(5,)]
    repartition(log, TOPIC, 1)
    writer.write(TOPIC, change((6, "c")))
    with open_lake(log.folder) as lake:
        assert sorted(lake.sql("SELECT n FROM t").fetchall()) == [(5,), (6,)]
    if kind != "insert_only":
        for commit in (1, log.newest_commit()):  # of the first generation, and of the last: one fold between them
            base.write(log, log.topic(TOPIC, commit), commit, LIMITS)
        assert verify(log, deep=True).findings == ()


def test_a_key_that_changed_takes_its_values_from_a_closed_partition(log: Log, writer: Writer) -> None:
    schema = Schema.of({"k": "BIGINT", "v": "VARCHAR"}, key=["k"])
    writer.create(TOPIC, "table", schema, partitions=2)

    def change(*rows: tuple[int, str | None, str, list[str] | None]) -> pa.Table:
        keys, values, ops, unsent = (list(column) for column in zip(*rows, strict=True))
        more = {"_unchanged": pa.array(unsent, pa.list_(pa.string())), "_lsn": [9] * len(rows), "_seq": [1] * len(rows)}
        return pa.table({"k": keys, "v": pa.array(values, pa.string()), "_op": ops, **more})

    writer.write(TOPIC, change((1, "long", "c", None)))
    for count in (3, 5):
        repartition(log, TOPIC, count)
    writer.write(TOPIC, change((1, None, "d", None), (2, None, "c", ["v"])))
    with open_lake(log.folder) as lake:
        assert lake.sql("FROM t").fetchall() == [(2, "long")]
        assert lake.sql("SELECT k, v FROM history.t ORDER BY k").fetchall() == [(1, "long"), (2, "long")]


def test_offsets_of_a_new_generation_begin_above_all_old_ones(log: Log, writer: Writer) -> None:
    writer.create(TOPIC, "event", EVENTS, partitions=2)
    before = writer.write(TOPIC, events(*range(20))).number
    commit = repartition(log, TOPIC, 3).number
    after = writer.write(TOPIC, events(*range(20))).number
    old, new = log.read_changes(TOPIC, 0, before), log.read_changes(TOPIC, before, after)
    assert set(old["_partition"].to_pylist()) == {0, 1}
    assert set(new["_partition"].to_pylist()) == {2, 3, 4}
    assert min(new["_offset"].to_pylist()) == max(old["_offset"].to_pylist()) + 1
    assert log.topic(TOPIC, before).open_partitions == range(2)
    assert log.topic(TOPIC, commit).open_partitions == log.topic(TOPIC).open_partitions == range(2, 5)
    with log.catalog.read() as connection:
        assert len(set(generations.first_offsets(connection).values())) == 2
    with open_lake(log.folder) as lake:
        topics = {topic["name"]: topic for topic in lake.status()["topics"]}
        assert topics[TOPIC]["records"] == 40
    assert verify(log).records == 40


def test_a_transaction_begun_before_writes_nothing_into_a_closed_partition(log: Log, writer: Writer) -> None:
    writer.create(TOPIC, "event", EVENTS, partitions=2)
    with writer.transaction() as tx:
        tx.append(TOPIC, events(*range(10)))
        repartition(log, TOPIC, 4)
        with pytest.raises(TopicChanged, match="takes no records"):
            tx.commit()
    assert log.read_changes(TOPIC, 0, log.newest_commit()).num_rows == 0
    assert not list((log.folder / "data" / "hot").iterdir()), "nothing is left of it"
    writer.write(TOPIC, events(*range(10)))
    assert set(log.read_changes(TOPIC, 0, log.newest_commit())["_partition"].to_pylist()) <= {2, 3, 4, 5}


def test_nobody_writes_into_what_was_dropped(log: Log, writer: Writer) -> None:
    writer.create(TOPIC, "event", EVENTS)
    other = Writer(log, "producer:other")
    with writer.transaction() as tx:
        tx.append(TOPIC, events(1))
        with other.transaction() as dropping:
            dropping.drop_topic(TOPIC)
            dropping.commit()
        with pytest.raises(TopicChanged):
            tx.commit()


def test_writers_race_with_repartitions_and_lose_nothing(log: Log, seed: int) -> None:
    Writer(log).create(TOPIC, "event", EVENTS, partitions=2)
    wanted, conflicts, done = 40, Counter[str](), threading.Event()

    def produce(name: str) -> None:
        writer = Writer(log, f"producer:{name}")
        for _ in range(wanted):
            while True:
                try:
                    writer.write(TOPIC, events(1, 2, 3))
                    break
                except TopicChanged:
                    conflicts[name] += 1

    threads = [threading.Thread(target=produce, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    chance = random.Random(seed)
    while any(thread.is_alive() for thread in threads) and log.topic(TOPIC).first_partition < 200:
        repartition(log, TOPIC, chance.choice([n for n in range(1, 6) if n != log.topic(TOPIC).partitions]))
    done.set()
    for thread in threads:
        thread.join()
    with log.catalog.read() as connection:
        closed = {row.partition: row.closed for row in connection.execute(select(tables.partition)) if row.closed}
    records = log.read_changes(TOPIC, 0, log.newest_commit()).to_pylist()
    assert Counter(row["k"] for row in records) == {1: 80, 2: 80, 3: 80}
    assert [row for row in records if row["_commit"] > closed.get(row["_partition"], row["_commit"])] == []
    for key in (1, 2, 3):
        places = [(row["_commit"], row["_offset"]) for row in records if row["k"] == key]
        assert [offset for _, offset in sorted(places)] == sorted(offset for _, offset in places)
    assert verify(log).findings == ()


def test_what_makes_no_sense_is_refused(log: Log, writer: Writer) -> None:
    writer.create(TOPIC, "event", EVENTS, partitions=2)
    with pytest.raises(UsageError, match="2 partitions already"):
        repartition(log, TOPIC, 2)
    with pytest.raises(UsageError, match="out of range"):
        repartition(log, TOPIC, 0)
    with pytest.raises(NameNotFound):
        repartition(log, "nothing", 2)
