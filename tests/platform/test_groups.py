"""Groups: a stateful test against a simple model, what their commits say, resets, metrics, replays."""

from __future__ import annotations

import json
import tempfile
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import select, update

from headwater.catalog import tables
from headwater.cli.main import main
from headwater.client import consumer, evaluation, reset
from headwater.client.assignment import balance
from headwater.client.consumer import Consumer
from headwater.client.evaluation import Commit, Status
from headwater.client.group import forget, scope
from headwater.client.report import group, groups
from headwater.errors import FencedMember, NameNotFound, UsageError
from headwater.lake import Lake
from headwater.log import Log, offsets, open_log
from headwater.log.offsets import WINDOW
from headwater.schema import Schema
from headwater.service.http import StatusCollector
from headwater.testing.writer import Writer

TOPIC = "shop.public.orders"
PARTITIONS = 5
FAR_S = 3600.0


def fill(log: Log, count: int, partitions: int = PARTITIONS) -> Writer:
    writer = Writer(log)
    writer.create(TOPIC, "event", Schema.of(id="BIGINT"), partitions=partitions)
    if count:
        writer.write(TOPIC, pa.table({"id": range(count)}))
    return writer


# ---- against a model


class GroupMachine(RuleBasedStateMachine):
    """Members that join, leave, expire, read, commit and seek in any order; the model knows what may be stored.

    The model: who is alive, what each was handed and in which generation, and the offsets that commits moved.
    """

    def __init__(self) -> None:
        super().__init__()
        # Every poll looks at the catalog: what happens must follow from the steps, not from how fast they were.
        self.patched = pytest.MonkeyPatch()
        self.patched.setattr(consumer, "LOOK_S", -1.0)
        self.patched.setattr(consumer, "WAIT_S", -1.0)
        self.folder = tempfile.TemporaryDirectory()
        self.log = open_log(Path(self.folder.name) / "lake", create=True)
        self.writer = fill(self.log, 100)
        self.topic = self.log.topic(TOPIC)
        self.came = 0
        self.members: list[Consumer] = []
        self.gone: set[int] = set()
        self.stored = dict.fromkeys(range(PARTITIONS), 0)
        self.generation = 0
        self.seen: dict[int, set[int]] = {number: set() for number in range(PARTITIONS)}
        self.written = 100

    def teardown(self) -> None:
        try:
            while len(self.members) < 2:
                self.join()
            for _ in range(3):
                for member in self.members:
                    member.poll()
                    member.rewind()
            self.gone.clear()
            self.write(40)
            self.pause(self.members[0])
            self.settle()
        finally:
            self.patched.undo()
            self.log.close()
            self.folder.cleanup()

    @precondition(lambda self: len(self.members) < 4)
    @rule()
    def come(self) -> None:
        self.join()

    def join(self) -> None:
        self.came += 1  # names in order: who gets what is the same in every run of the same steps
        name = f"m{self.came:03}"
        member = Consumer(self.log, TOPIC, "etl", batch_rows=7, auto_commit=False, lease_s=FAR_S, client=name)
        member.poll()
        member.rewind()
        self.members.append(member)

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        member = self.pick(data)
        self.members.remove(member)
        self.gone.discard(id(member))
        member.close()

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        """The lease ends while the process is paused, and somebody sees it."""
        member = self.pick(data)
        self.log.live.end_lease(scope("etl"), self.name(member))
        others = [each for each in self.members if each is not member and id(each) not in self.gone]
        self.gone.add(id(member))
        if others:
            others[0]._member.lapsed = True  # type: ignore[union-attr]
            others[0]._refresh()

    @precondition(lambda self: len(self.members) > 1)
    @rule(data=st.data())
    def pause_over_a_lease(self, data: st.DataObject) -> None:
        self.pause(self.pick(data))

    def pause(self, member: Consumer) -> None:
        """A member reads, sleeps until others have its partitions, and commits what it had read."""
        if self.removed(member):
            return
        before = member.poll()
        if before is not None:
            self.seen[before.partition] |= set(range(before.first, before.last + 1))
        had_read = member.progress().offsets
        others = [each for each in self.members if each is not member and not self.removed(each)]
        if had_read and others:
            self.log.live.end_lease(scope("etl"), self.name(member))
            self.gone.add(id(member))
            others[0]._member.lapsed = True  # type: ignore[union-attr]
            others[0]._refresh()
            with pytest.raises(FencedMember):
                member.commit()

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        member = self.pick(data)
        removed = self.removed(member)
        batch = member.poll()
        if removed:
            self.gone.discard(id(member))
        if batch is not None:
            assert batch.first >= self.stored[batch.partition], "nothing that is finished is handed out again"
            self.seen[batch.partition] |= set(range(batch.first, batch.last + 1))

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        member = self.pick(data)
        moved = {number: offset for (_, number), offset in member.progress().offsets.items()}
        if moved and self.removed(member):
            with pytest.raises(FencedMember):
                member.commit()
        else:
            member.commit()
            self.stored |= moved

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def seek(self, data: st.DataObject) -> None:
        member, place = self.pick(data), data.draw(st.integers(0, PARTITIONS - 1))
        owned = member.assignment()
        if owned and not self.removed(member):
            name, number = owned[place % len(owned)]
            member.seek(name, number, self.stored[number])

    @rule(count=st.integers(1, 30))
    def produce(self, count: int) -> None:
        self.write(count)

    def write(self, count: int) -> None:
        self.writer.write(TOPIC, pa.table({"id": range(self.written, self.written + count)}))
        self.written += count

    @invariant()
    def generations_grow(self) -> None:
        with self.log.catalog.read() as connection:
            found = connection.execute(select(tables.consumer_group.c.generation)).scalar_one_or_none() or 0
        assert found >= self.generation
        self.generation = found

    @invariant()
    def only_commits_of_owners_are_stored(self) -> None:
        with self.log.catalog.read() as connection:
            stored = offsets.stored(connection, "etl")
        assert all(stored[self.topic.id, number].offset == offset for number, offset in self.stored.items() if stored)

    @invariant()
    def one_owner_at_a_time(self) -> None:
        owners = [place for member in self.members if not self.removed(member) for place in member.assignment()]
        assert len(owners) == len(set(owners))

    def settle(self) -> None:
        """When nobody comes or goes any more, every partition has an owner, evenly, and all is read."""
        if not self.members:
            self.join()
        for _ in range(2 * len(self.members) + 2):
            for member in self.members:
                while (batch := member.poll()) is not None:
                    self.seen[batch.partition] |= set(range(batch.first, batch.last + 1))
                member.commit()
        counts = [len(member.assignment()) for member in self.members]
        assert sum(counts) == PARTITIONS
        assert max(counts) - min(counts) <= 1
        found = group(self.log, "etl")
        assert found.lag_rows == 0
        assert sum(len(offsets) for offsets in self.seen.values()) == self.written

    def removed(self, member: Consumer) -> bool:
        with self.log.catalog.read() as connection:
            names = connection.execute(select(tables.group_member.c.member)).scalars().all()
        return self.name(member) not in names

    def name(self, member: Consumer) -> str:
        assert member._member is not None
        return member._member.name

    def pick(self, data: st.DataObject) -> Consumer:
        return self.members[data.draw(st.integers(0, len(self.members) - 1))]


TestGroups = GroupMachine.TestCase
TestGroups.settings = settings(max_examples=4, stateful_step_count=20)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_groups_for_longer() -> None:
    run_state_machine_as_test(GroupMachine, settings=settings(max_examples=60, stateful_step_count=50))


@pytest.mark.parametrize("members", [1, 2, 3, 5, 8])
def test_assignment_is_even_and_moves_as_little_as_possible(members: int) -> None:
    places = [(1, number) for number in range(16)]
    names = {f"m{n}": {1} for n in range(members)}
    first = balance(names, places, {})
    counts = [list(first.values()).count(name) for name in names]
    assert max(counts) - min(counts) <= 1
    assert balance(names, places, first) == first
    more = balance({**names, "new": {1}}, places, first)
    moved = [place for place in places if more[place] != first[place]]
    assert len(moved) == 16 // (members + 1)
    assert {more[place] for place in moved} <= {"new"}


def test_members_of_different_topics_get_only_theirs() -> None:
    places = [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0)]
    found = balance({"a": {1, 2}, "b": {2}}, places, {})
    assert {place: found.get(place) for place in places} == {
        (1, 0): "a",
        (1, 1): "a",
        (2, 0): "b",
        (2, 1): "b",
        (3, 0): None,
    }


# ---- what commits say


def window(*pairs: tuple[int, int]) -> list[Commit]:
    return [Commit(time_s=float(second), offset=offset, lag=lag) for second, (offset, lag) in enumerate(pairs)]


@pytest.mark.parametrize(
    ("expected", "commits", "lag", "unread_s", "now_s"),
    [
        (Status.OK, [], 50, 900.0, 10.0),
        (Status.OK, window((0, 9), (0, 9), (0, 9)), 0, None, 900.0),
        (Status.OK, window((0, 9), (5, 4), (9, 5)), 5, 90.0, 3.0),
        (Status.OK, window((0, 9), (9, 0), (9, 7)), 7, 90.0, 3.0),
        (Status.OK, window((0, 9), (9, 0), (9, 7)), 7, 30.0, 900.0),
        (Status.WARN, window((0, 5), (1, 6), (2, 6), (3, 8)), 8, 90.0, 4.0),
        (Status.STALL, window((3, 5), (3, 6), (3, 9)), 9, 90.0, 3.0),
        (Status.STOP, window((0, 9), (5, 4), (9, 5)), 5, 90.0, 4.5),
        (Status.STOP, window((0, 9), (9, 0), (9, 7)), 7, 90.0, 900.0),
        (Status.STOP, window((4, 9)), 5, 90.0, 1.0),
        (Status.REWIND, window((0, 9), (9, 2), (4, 7)), 7, 90.0, 3.0),
        (Status.OK, window((0, 9), (9, 2), (4, 7), (10, 1)), 1, 90.0, 3.5),
        (Status.OK, window((4, 9)), 5, 90.0, 0.0),
    ],
)
def test_burrows_rules(expected: Status, commits: list[Commit], lag: int, unread_s: float | None, now_s: float) -> None:
    assert evaluation.evaluate(commits, lag=lag, unread_s=unread_s, now_s=now_s) is expected


def test_a_groups_window_is_bounded_and_spans_time(log: Log) -> None:
    fill(log, 400, partitions=1)
    found = Consumer(log, TOPIC, "etl", batch_rows=10, auto_commit=False, lease_s=FAR_S)
    for _ in range(30):
        found.poll()
        found.commit()
    with log.catalog.read() as connection:
        assert len(offsets.history(connection, "etl")[log.topic(TOPIC).id, 0]) == 2, "commits at once are one"
    for n in range(2 * WINDOW):
        with log.catalog.write() as connection:  # as if they had been made a minute apart
            commit = tables.group_commit
            connection.execute(update(commit).values(time=commit.c.time - 60_000_000))
        found.commit(metadata=f"{n}")
    with log.catalog.read() as connection:
        kept = offsets.history(connection, "etl")[log.topic(TOPIC).id, 0]
    assert len(kept) == WINDOW
    assert kept[-1].time - kept[0].time > 60_000_000 * (WINDOW - 2)
    reported = group(log, "etl").partitions[0]
    assert (reported.lag_rows, reported.status, reported.metadata) == (100, Status.STALL, f"{2 * WINDOW - 1}")
    found.close()


# ---- reports, resets, metrics


def advance(log: Log, name: str = "etl") -> None:
    """A group that has read the first 40 of 100 records."""
    with Consumer(log, TOPIC, name, batch_rows=8, auto_commit=False, lease_s=FAR_S) as found:
        for _ in range(PARTITIONS):
            found.poll()
        found.commit()


def test_a_report_says_lag_owner_and_state(log: Log) -> None:
    fill(log, 100)
    advance(log)
    found = group(log, "etl")
    assert (found.state, found.lag_rows, found.members) == ("empty", 60, ())
    assert 0 < found.lag_s < 60
    with Consumer(log, TOPIC, "etl", lease_s=FAR_S) as one, Consumer(log, TOPIC, "etl", lease_s=FAR_S) as two:
        while one.poll() is not None:
            pass
        two.poll()
        assert group(log, "etl").state == "rebalancing"
        one.poll()
        assert group(log, "etl").state == "active"
        two.poll()
        assert {each.owner for each in group(log, "etl").partitions} == set(group(log, "etl").members)
    with pytest.raises(NameNotFound, match="Did you mean etl"):
        group(log, "elt")


@pytest.mark.parametrize("sealed", [False, True])
def test_the_lag_in_seconds_is_the_age_of_the_first_unread_record(log: Log, sealed: bool) -> None:
    from dataclasses import replace

    from headwater.config import Settings
    from headwater.log import seal

    writer = fill(log, 0, partitions=1)
    times = [writer.write(TOPIC, pa.table({"id": range(10)})).time for _ in range(3)]
    if sealed:
        seal.seal(log, replace(Settings(), row_group_rows=4))
    with Consumer(log, TOPIC, "etl", batch_rows=15, auto_commit=False, lease_s=FAR_S) as found:
        found.poll()
        found.commit()
    now = log.clock.now_us() / 1e6
    assert group(log, "etl").lag_s == pytest.approx(now - times[1].timestamp(), abs=2.0)
    assert group(log, "etl").lag_s > (times[2] - times[1]).total_seconds()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"to": "earliest"}, [0] * 5),
        ({"to": "latest"}, [20] * 5),
        ({"offset": 3}, [3] * 5),
        ({"offset": 900}, [20] * 5),
        ({"shift": -3}, [5] * 5),
        ({"shift": 900}, [20] * 5),
        ({"to": "commit:1"}, [0] * 5),
        ({"to": "commit:2"}, [20] * 5),
    ],
)
def test_a_reset_is_planned_first(log: Log, options: dict[str, object], expected: list[int]) -> None:
    fill(log, 100)
    advance(log)
    moves = reset.plan(log, "etl", **options)  # type: ignore[arg-type]
    assert [move.new for move in moves] == expected
    assert {move.old for move in moves} == {8}
    assert group(log, "etl").lag_rows == 60, "a plan changes nothing"
    reset.execute(log, "etl", moves)
    assert [each.offset for each in group(log, "etl").partitions] == expected
    with Consumer(log, TOPIC, "etl", lease_s=FAR_S) as found:
        count = 0
        while (batch := found.poll()) is not None:
            count += len(batch)
    assert count == 100 - sum(expected)


def test_a_group_with_members_is_neither_reset_nor_deleted(log: Log) -> None:
    fill(log, 100)
    advance(log)
    plan = reset.plan(log, "etl", to="earliest", topic="orders", partitions=[1])
    with Consumer(log, TOPIC, "etl", lease_s=FAR_S) as found:
        found.poll()
        with pytest.raises(UsageError, match="active members"):
            reset.execute(log, "etl", plan)
        with pytest.raises(UsageError, match="active members"):
            forget(log, "etl")
        found.rewind()
    reset.execute(log, "etl", plan)
    assert [each.offset for each in group(log, "etl").partitions if each.partition == 1] == [0]
    forget(log, "etl")
    assert groups(log) == []
    with pytest.raises(UsageError, match="one place"):
        reset.plan(log, "etl", to="latest", offset=1)


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "headwater.toml").write_text('[project]\nname = "shop"\n')
    with open_log(tmp_path / "lake", create=True) as log:
        fill(log, 100)
        advance(log)

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["group", *arguments, "--project", str(tmp_path)])
        assert ended.value.code == 0, capsys.readouterr()
        return capsys.readouterr().out

    listed = json.loads(run("list", "--json"))["groups"]
    assert [(each["name"], each["lag_rows"], each["status"]) for each in listed] == [("etl", 60, "OK")]
    shown = json.loads(run("show", "etl", "--json"))
    assert [each["offset"] for each in shown["partitions"]] == [8] * 5
    assert "etl" in run("list")
    assert "committed" in run("show", "etl")
    dry = json.loads(run("reset", "etl", "--to", "earliest", "--json"))
    assert (dry["executed"], {move["moved"] for move in dry["moves"]}) == (False, {-8})
    assert json.loads(run("show", "etl", "--json"))["lag_rows"] == 60
    assert "add --execute" in run("reset", "etl", "--shift", "1")
    run("reset", "etl", "--to", "earliest", "--execute")
    assert json.loads(run("show", "etl", "--json"))["lag_rows"] == 100
    run("delete", "etl")
    assert json.loads(run("list", "--json")) == {"groups": []}


def test_metrics_are_named_as_in_kafka_exporter(log: Log) -> None:
    fill(log, 100)
    advance(log)
    lake = Lake(log)
    document = {**lake.status(), "components": [], "input_position": None}
    assert document["groups"][0]["lag_rows"] == 60
    registry = CollectorRegistry()
    registry.register(StatusCollector(lambda: {"components": []}, lambda: document))
    text = generate_latest(registry).decode()
    for line in (
        f'kafka_topic_partitions{{topic="{TOPIC}"}} 5.0',
        f'kafka_topic_partition_current_offset{{partition="2",topic="{TOPIC}"}} 20.0',
        f'kafka_topic_partition_oldest_offset{{partition="2",topic="{TOPIC}"}} 0.0',
        f'kafka_consumergroup_current_offset{{consumergroup="etl",partition="2",topic="{TOPIC}"}} 8.0',
        f'kafka_consumergroup_current_offset_sum{{consumergroup="etl",topic="{TOPIC}"}} 40.0',
        f'kafka_consumergroup_lag{{consumergroup="etl",partition="2",topic="{TOPIC}"}} 12.0',
        f'kafka_consumergroup_lag_sum{{consumergroup="etl",topic="{TOPIC}"}} 60.0',
        'kafka_consumergroup_members{consumergroup="etl"} 0.0',
        'headwater_consumergroup_status{consumergroup="etl"} 0.0',
    ):
        assert line in text, line


def test_a_replay_ends_where_the_topic_was_and_says_how_far_it_is(log: Log) -> None:
    writer = fill(log, 100)
    lake = Lake(log)
    with lake.replay_topic("orders", batch_rows=10) as replay:
        writer.write(TOPIC, pa.table({"id": range(100, 200)}))
        done = [replay.progress.done]
        for batch in replay:
            done.append(done[-1] + len(batch))
            assert replay.progress.done == done[-1]
        assert replay.progress.fraction == 1.0
        assert replay.progress.total == 100
    assert lake.groups() == []
    first = lake.time_of(2)
    assert sum(map(len, lake.replay_topic(TOPIC, start=first))) == 100
    assert sum(map(len, lake.replay_topic(TOPIC, start=first - timedelta(microseconds=1), stop="commit:2"))) == 100
