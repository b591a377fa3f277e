"""Merging, retention and compaction, against what they must not change: rows, offsets, what is held, the chain."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import func, select

from headwater import duck
from headwater.catalog import tables
from headwater.catalog.records import TopicSettings
from headwater.config import Settings
from headwater.errors import Expired
from headwater.log import Log, archive, base, compaction, leases, merge, open_log, retention, seal, tags
from headwater.log.proof import prove
from headwater.log.rows import CurrentRows
from headwater.schema import Schema
from headwater.testing.changes import BagHistory, KeyedHistory
from headwater.testing.writer import Writer

DAY = 86_400
LIMITS = replace(
    Settings(),
    row_group_rows=64,
    time_travel_s=DAY,
    history_s=7 * DAY,
    base_rows_min=10**9,
    compact_dirty_fraction=0.01,
)
EVENTS = Schema.of({"id": "BIGINT", "what": "VARCHAR"}, key=["id"])


class Hand:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.us = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1e6)

    def now_us(self) -> int:
        return self.us

    def pass_(self, seconds: float) -> None:
        self.us += int(seconds * 1e6)


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def aged(tmp_path: Path, clock: Hand) -> Any:
    with open_log(tmp_path / "lake", create=True, clock=clock) as log:
        yield log


def rows(log: Log, topic: str, at: int | None = None) -> Counter[Any]:
    """The topic's rows as a reader that has just come finds them."""
    commit = log.newest_commit() if at is None else at
    with duck.connect() as connection:
        found = log.topic(topic, at)
        return Counter(connection.sql(CurrentRows(log, connection, found).at(found, commit)).fetchall())


def offsets(log: Log, topic: str) -> list[tuple[int, int]]:
    found = log.read_changes(topic, 0, log.newest_commit(), ["_partition", "_offset"])
    return [(row["_partition"], row["_offset"]) for row in found.to_pylist()]


def events(*ids: int, what: str | None = "x") -> pa.Table:
    return pa.table({"id": list(ids), "what": pa.array([what] * len(ids), pa.string())})


# ---- merging


def test_merging_changes_no_record(log: Log) -> None:
    writer = Writer(log)
    writer.create("shop.public.e", "event", EVENTS, partitions=2)
    for number in range(2 * merge.FAN_IN):
        writer.write("shop.public.e", events(*range(number * 10, number * 10 + 10)))
        seal.seal(log, LIMITS)
    before = log.read_changes("shop.public.e", 0, log.newest_commit())
    topic = log.topic("shop.public.e")
    assert len(merge.live(log, topic.id)) == 4 * merge.FAN_IN
    assert merge.merge(log, LIMITS) == 4 * merge.FAN_IN
    assert len(merge.live(log, topic.id)) == 4
    assert log.read_changes("shop.public.e", 0, log.newest_commit()).equals(before)
    assert merge.merge(log, LIMITS) == 0
    assert prove(log).findings == []


def test_segments_of_two_schema_versions_are_not_merged(log: Log) -> None:
    writer = Writer(log)
    writer.create("shop.public.e", "event", Schema.of(id="BIGINT"))
    for version in range(2):
        for number in range(merge.FAN_IN // 2):
            fields = {"id": [number], **({"more": [number]} if version else {})}
            writer.write("shop.public.e", pa.table(fields))
            seal.seal(log, LIMITS)
        if not version:
            with writer.transaction() as tx:
                wider = Schema.of(id="BIGINT", more="BIGINT")
                tx.add_schema("shop.public.e", wider)
                tx.commit()
    assert merge.merge(log, LIMITS) == 0


# ---- retention of history


@pytest.mark.parametrize("kind", ["table", "multiset", "changelog"])
def test_history_goes_and_rows_stay(aged: Log, clock: Hand, seed: int, kind: Any) -> None:
    """A month of changes, sealed and retained as it goes: every position of the last day reads as it read then."""
    history = KeyedHistory(seed) if kind == "table" else BagHistory(seed, kind)
    writer = Writer(aged)
    writer.create("shop.public.t", kind, history.schema)
    then: dict[int, Counter[Any]] = {}
    gone = 0
    for _ in range(60):
        clock.pass_(DAY / 2)
        number = writer.write("shop.public.t", history.commit()).number
        then[number] = Counter(history.expected())
        seal.seal(aged, LIMITS)
        gone += retention.retain(aged, LIMITS)
    assert gone > 20
    newest = aged.newest_commit()
    readable = [number for number in then if number >= newest - 2]
    assert [rows(aged, "t", number) for number in readable] == [then[number] for number in readable]
    with pytest.raises(Expired, match="commit:"):
        rows(aged, "t", 5)
    first = aged.read_changes("shop.public.t", 0, newest, ["_commit"]).column(0)[0].as_py()
    assert aged.commit_info(first).time >= aged.commit_info(newest).time - timedelta(days=7.5)
    assert prove(aged).findings == []


def test_a_tag_keeps_its_position(aged: Log, clock: Hand, seed: int) -> None:
    history = KeyedHistory(seed)
    writer = Writer(aged)
    writer.create("shop.public.t", "table", history.schema, partitions=2)
    for number in range(40):
        clock.pass_(DAY / 2)
        commit = writer.write("shop.public.t", history.commit()).number
        if number == 9:
            tags.create(aged, "close.q3", commit)
            named = Counter(history.expected())
        seal.seal(aged, LIMITS)
        retention.retain(aged, LIMITS)
    assert rows(aged, "t", tags.get(aged, "close.q3").commit) == named
    with pytest.raises(Expired):
        rows(aged, "t", tags.get(aged, "close.q3").commit + 1)
    tags.drop(aged, "close.q3")
    base.write(aged, aged.topic("t"), aged.newest_commit(), LIMITS)
    retention.retain(aged, LIMITS)
    assert rows(aged, "t") == Counter(history.expected())
    with aged.catalog.read() as connection:  # the newest, and the one that the time-travel window starts from
        assert len(connection.execute(select(tables.base)).all()) == 2


def test_a_reader_keeps_what_it_reads_until_its_lease_ends(aged: Log, clock: Hand) -> None:
    writer = Writer(aged)
    writer.create("shop.public.t", "table", EVENTS)
    first = writer.write("shop.public.t", events(1).append_column("_op", pa.array(["c"]))).number
    with leases.Lease(aged, first, expires_s=30 * DAY) as lease:
        for number in range(2, 30):
            clock.pass_(DAY)
            lease.moves_to(first)  # renewed: the hand-moved clock runs faster than its thread
            writer.write("shop.public.t", events(number).append_column("_op", pa.array(["c"])))
            seal.seal(aged, LIMITS)
            retention.retain(aged, LIMITS)
        assert rows(aged, "t", first) == Counter({(1, "x"): 1})
    retention.retain(aged, LIMITS)
    with pytest.raises(Expired):
        rows(aged, "t", first)


def test_a_changed_shape_still_reads_its_older_base(aged: Log, clock: Hand) -> None:
    writer = Writer(aged)
    writer.create("shop.public.t", "table", Schema.of({"id": "BIGINT", "n": "INTEGER"}, key=["id"]))
    for number in range(20):
        clock.pass_(DAY)
        writer.write("shop.public.t", pa.table({"id": [number], "n": pa.array([number], pa.int32()), "_op": ["c"]}))
        seal.seal(aged, LIMITS)
        retention.retain(aged, LIMITS)
    with writer.transaction() as tx:
        tx.add_schema("shop.public.t", Schema.of({"id": "BIGINT", "n": "BIGINT", "new": "VARCHAR"}, key=["id"]))
        tx.commit()
    assert rows(aged, "t") == Counter({(number, number, None): 1 for number in range(20)})


def test_commit_segments_go_with_the_history_they_describe(aged: Log, clock: Hand) -> None:
    writer = create_events(aged, TopicSettings(retention_s=3 * DAY))
    for number in range(30):
        clock.pass_(DAY)
        writer.write("shop.e", events(number))
        seal.seal(aged, LIMITS)
        archive.archive(aged, keep=1, least=5)
        retention.retain(aged, LIMITS)
        assert prove(aged).findings == []
    with aged.catalog.read() as connection:
        first = connection.execute(select(func.min(tables.commit_segment.c.first_commit))).scalar_one()
    assert 16 <= first <= 23  # history is 7 days, and a commit segment has 5 commits or more
    with pytest.raises(Expired):
        aged.commit_info(first - 1)
    assert aged.commit_info(first).number == first


# ---- retention of event topics


def create_events(log: Log, settings: TopicSettings, partitions: int = 1) -> Writer:
    writer = Writer(log)
    with writer.transaction() as tx:
        tx.create_topic("shop.e", "event", EVENTS, partitions=partitions, settings=settings)
        tx.commit()
    return writer


def test_events_go_by_age_from_the_front(aged: Log, clock: Hand) -> None:
    writer = create_events(aged, TopicSettings(retention_s=3 * DAY))
    for number in range(10):
        clock.pass_(DAY)
        writer.write("shop.e", events(number))
        seal.seal(aged, LIMITS)
    retention.retain(aged, LIMITS)
    assert offsets(aged, "shop.e") == [(0, offset) for offset in range(6, 10)]
    with aged.catalog.read() as connection:
        assert connection.execute(select(tables.partition.c.start_offset)).scalar_one() == 6
    writer.write("shop.e", events(99))
    assert offsets(aged, "shop.e")[-1] == (0, 10)


def test_a_future_event_time_holds_nothing_back(aged: Log, clock: Hand) -> None:
    """Retention goes by commit time: one record from the year 2100 must not pin its segment (KAFKA-20609)."""
    writer = create_events(aged, TopicSettings(retention_s=DAY))
    future = pa.array([datetime(2100, 1, 1, tzinfo=UTC)], pa.timestamp("us", tz="UTC"))
    writer.write("shop.e", events(1).append_column("_event_at", future))
    seal.seal(aged, LIMITS)
    clock.pass_(2 * DAY)
    assert retention.retain(aged, LIMITS) == 1


def test_events_go_by_size_down_to_the_limit(aged: Log) -> None:
    writer = create_events(aged, TopicSettings())
    for number in range(10):
        writer.write("shop.e", events(*range(number * 100, number * 100 + 100)))
        seal.seal(aged, LIMITS)
    sizes = [segment.bytes for segment in merge.live(aged, aged.topic("shop.e").id)]
    bounded = TopicSettings(retention_bytes=sum(sizes[4:]) + 1)
    with aged.catalog.write() as connection:
        connection.execute(tables.topic.update().values(settings=bounded.to_json()))
        connection.execute(tables.setting.update().where(tables.setting.c.name == "generation").values(value="9.9"))
    retention.retain(aged, LIMITS)
    assert len(merge.live(aged, aged.topic("shop.e").id)) == 6


def test_what_an_active_group_has_not_read_stays(aged: Log, clock: Hand) -> None:
    writer = create_events(aged, TopicSettings(retention_s=DAY))
    for number in range(5):
        writer.write("shop.e", events(number))
        seal.seal(aged, LIMITS)
    topic = aged.topic("shop.e").id
    group = {"name": "g", "generation": 1, "created": 0, "active": clock.us}
    place = {"group": "g", "topic": topic, "partition": 0, "offset": 2, "time": clock.us, "generation": 1}
    with aged.catalog.write() as connection:
        connection.execute(tables.consumer_group.insert().values(group))
        connection.execute(tables.group_offset.insert().values(place))
    clock.pass_(5 * DAY)
    retention.retain(aged, LIMITS)
    assert [offset for _, offset in offsets(aged, "shop.e")] == [2, 3, 4]
    clock.pass_(5 * DAY)
    retention.retain(aged, LIMITS)
    assert offsets(aged, "shop.e") == []


# ---- compaction


def test_compaction_keeps_each_keys_newest_record_at_its_offset(aged: Log, clock: Hand) -> None:
    writer = create_events(aged, TopicSettings(cleanup="compact", delete_retention_s=2 * DAY), partitions=1)
    for ids in ((1, 2), (1, 3), (2,)):
        writer.write("shop.e", events(*ids))
        seal.seal(aged, LIMITS)
    writer.write("shop.e", events(3, what=None))
    seal.seal(aged, LIMITS)
    topic = aged.topic("shop.e")
    clock.pass_(1)
    assert compaction.compact(aged, topic, aged.newest_commit(), LIMITS) == 3
    found = aged.read_changes("shop.e", 0, aged.newest_commit(), ["_offset", "id", "what"]).to_pylist()
    assert [tuple(row.values()) for row in found] == [(2, 1, "x"), (4, 2, "x"), (5, 3, None)]
    clock.pass_(3 * DAY)
    assert compaction.compact(aged, topic, aged.newest_commit(), LIMITS, force=True) == 1
    assert [offset for _, offset in offsets(aged, "shop.e")] == [2, 4]
    assert compaction.compact(aged, topic, aged.newest_commit(), LIMITS, force=True) == 0
    assert prove(aged).findings == []
    writer.write("shop.e", events(4))
    assert offsets(aged, "shop.e")[-1] == (0, 6)


def test_compaction_leaves_the_newest_records_alone(aged: Log, clock: Hand) -> None:
    writer = create_events(aged, TopicSettings(cleanup="compact", compaction_lag_s=DAY))
    writer.write("shop.e", events(1, 1))
    seal.seal(aged, LIMITS)
    clock.pass_(DAY + 1)
    writer.write("shop.e", events(1, 1))
    seal.seal(aged, LIMITS)
    topic = aged.topic("shop.e")
    assert compaction.compact(aged, topic, aged.newest_commit(), LIMITS) == 1
    assert [offset for _, offset in offsets(aged, "shop.e")] == [1, 2, 3]
    clock.pass_(DAY + 1)
    assert compaction.compact(aged, topic, 0, LIMITS, force=True) == 0  # somebody needs everything
    assert compaction.compact(aged, topic, aged.newest_commit(), LIMITS) == 2


# ---- when a base is worth its file


def test_a_base_is_due_by_what_came_since_the_last(aged: Log, clock: Hand) -> None:
    limits = replace(LIMITS, base_rows_min=10, base_changed_fraction=0.5, base_age_s=DAY)
    writer = Writer(aged)
    writer.create("shop.public.t", "table", EVENTS)
    writer.create("shop.e", "event", EVENTS)

    def due() -> list[str]:
        return [topic.name for topic in base.due(aged, limits)]

    def write(*ids: int) -> None:
        rows = events(*ids)
        writer.write("shop.public.t", rows.append_column("_op", pa.array(["c"] * len(ids))))
        writer.write("shop.e", rows)

    write(*range(10))
    assert due() == []
    write(10)
    assert due() == ["shop.public.t"]
    seal.seal(aged, LIMITS)
    base.write(aged, aged.topic("t"), aged.newest_commit(), limits)
    assert due() == []
    for number in range(11, 22):
        assert due() == []
        write(number)
        seal.seal(aged, LIMITS)
    assert due() == ["shop.public.t"]  # 11 of 11
    base.write(aged, aged.topic("t"), aged.newest_commit(), limits)
    merge.merge(aged, LIMITS)
    assert due() == []
    write(*range(30, 41))
    assert due() == []  # 11 of 22: half, not more
    clock.pass_(2 * DAY)
    assert due() == ["shop.public.t"]
