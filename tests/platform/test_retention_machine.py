"""Any order of writing, sealing, merging, retaining, archiving, naming and waiting, against a dict of what was true.

A position either reads as it read when it was newest, or is refused; never anything else. What the time-travel
window, a tag or a lease holds is never refused.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from headwater import duck
from headwater.catalog.records import Topic, TopicSettings
from headwater.config import Settings
from headwater.errors import Expired
from headwater.log import Log, archive, base, compaction, leases, merge, open_log, retention, seal, tags
from headwater.log.proof import prove
from headwater.log.rows import CurrentRows
from headwater.schema import Schema
from headwater.testing.changes import KeyedHistory
from headwater.testing.writer import Writer

DAY = 86_400
LIMITS = replace(Settings(), row_group_rows=16, time_travel_s=DAY, history_s=3 * DAY, compact_dirty_fraction=0.01)
EVENTS = Schema.of({"id": "BIGINT", "what": "VARCHAR"}, key=["id"])
QUICK = settings(max_examples=2, stateful_step_count=25, deadline=None)
THOROUGH = settings(max_examples=200, stateful_step_count=60, deadline=None)


class Hand:
    """A clock that stands still until it is moved."""

    us = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1e6)

    def now_us(self) -> int:
        return self.us


class LogMachine(RuleBasedStateMachine):
    """What both machines do: a lake in a folder of its own, a hand-moved clock, the housekeeping of the log."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.clock = Hand()
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="headwater-")))
        self.log: Log = self.stack.enter_context(open_log(folder / "lake", create=True, clock=self.clock))
        self.writer = Writer(self.log)

    @rule(hours=st.integers(1, 60))
    def time_passes(self, hours: int) -> None:
        self.clock.us += hours * 3_600_000_000

    @rule()
    def seals(self) -> None:
        seal.seal(self.log, LIMITS)

    @rule()
    def merges(self) -> None:
        merge.merge(self.log, LIMITS)

    @rule()
    def archives(self) -> None:
        archive.archive(self.log, keep=2, least=2)

    @rule()
    def retains(self) -> None:
        retention.retain(self.log, LIMITS)

    def teardown(self) -> None:
        assert prove(self.log).findings == []
        self.stack.close()


class TableMachine(LogMachine):
    """A keyed table: current rows for ever, positions while they are held."""

    @initialize(seed=st.integers(0, 2**32))
    def begins(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.history = KeyedHistory(seed)
        self.writer.create("shop.public.t", "table", self.history.schema, partitions=2)
        self.true: dict[int, Counter[Any]] = {}
        self.times: dict[int, int] = {}
        self.named: dict[str, int] = {}
        self.leases: list[leases.Lease] = []
        self.memory = self.stack.enter_context(duck.connect())
        self.reader = CurrentRows(self.log, self.memory, self.log.topic("t"))
        self.writes()

    @rule()
    def writes(self) -> None:
        number = self.writer.write("shop.public.t", self.history.commit()).number
        self.true[number] = Counter(self.history.expected())
        self.times[number] = self.clock.us

    @rule()
    def writes_a_base(self) -> None:
        base.write(self.log, self.log.topic("t"), max(self.true), LIMITS)

    @rule()
    def names(self) -> None:
        name = f"tag{len(self.true)}.{self.chance.random()}"
        self.named[name] = max(self.true)
        tags.create(self.log, name, max(self.true))

    @rule()
    def forgets_a_name(self) -> None:
        if self.named:
            name = self.chance.choice(sorted(self.named))
            tags.drop(self.log, name)
            del self.named[name]

    @rule()
    def holds(self) -> None:
        lease = leases.Lease(self.log, max(self.true), expires_s=10_000 * DAY)
        self.leases.append(lease)
        self.stack.callback(lease.close)

    @rule()
    def lets_go(self) -> None:
        if self.leases:
            self.leases.pop(0).close()

    @rule()
    def leases_are_renewed(self) -> None:
        for lease in self.leases:
            lease.moves_to(lease.commit)

    @invariant()
    def an_open_reader_sees_the_newest_rows(self) -> None:
        if hasattr(self, "true"):
            found = self.reader.at(self.log.topic("t"), max(self.true))
            assert Counter(self.memory.sql(found).fetchall()) == self.true[max(self.true)]

    @rule()
    def a_new_reader_sees_the_newest_rows(self) -> None:
        assert self.rows(max(self.true)) == self.true[max(self.true)]

    @rule()
    def an_older_position_reads_as_it_was_or_is_refused(self) -> None:
        number = self.chance.choice(sorted(self.true))
        held = number in self.named.values() or self.clock.us - self.times[number] < DAY * 1_000_000
        try:
            assert self.rows(number) == self.true[number]
        except Expired:
            assert not held

    def rows(self, commit: int) -> Counter[Any]:
        topic: Topic = self.log.topic("t")
        with duck.connect() as connection:
            return Counter(connection.sql(CurrentRows(self.log, connection, topic).at(topic, commit)).fetchall())


class CompactionMachine(LogMachine):
    """A compacted event topic: each key's newest record stays, no offset changes, tombstones are seen in time."""

    @initialize(partitions=st.integers(1, 2))
    def begins(self, partitions: int) -> None:
        rules = TopicSettings(cleanup="compact", delete_retention_s=2 * DAY)
        with self.writer.transaction() as tx:
            tx.create_topic("shop.e", "event", EVENTS, partitions=partitions, settings=rules)
            tx.commit()
        self.written = 0
        self.newest: dict[int, str | None] = {}
        self.dead: dict[int, int] = {}
        self.seen: dict[tuple[int, int], tuple[int, str | None]] = {}

    @rule(keys=st.lists(st.integers(0, 5), min_size=1, max_size=6), dead=st.booleans())
    def writes(self, keys: list[int], dead: bool) -> None:
        values = [None if dead else f"{key}.{self.written + place}" for place, key in enumerate(keys)]
        self.writer.write("shop.e", pa.table({"id": keys, "what": pa.array(values, pa.string())}))
        self.written += len(keys)
        for key, value in zip(keys, values, strict=True):
            self.newest[key] = value
            self.dead[key] = self.clock.us

    @rule()
    def compacts(self) -> None:
        keep = retention.readable(self.log, LIMITS).floor
        compaction.compact(self.log, self.log.topic("shop.e"), keep, LIMITS, force=True)

    @invariant()
    def each_keys_newest_record_is_there(self) -> None:
        if not hasattr(self, "newest"):
            return
        columns = ["_partition", "_offset", "id", "what"]
        found = self.log.read_changes("shop.e", 0, self.log.newest_commit(), columns).to_pylist()
        places = [(row["_partition"], row["_offset"]) for row in found]
        assert places == sorted(set(places))
        for place, row in zip(places, found, strict=True):
            assert self.seen.setdefault(place, (row["id"], row["what"])) == (row["id"], row["what"])
        last = {row["id"]: row["what"] for row in found}
        fresh = self.clock.us - 2 * DAY * 1_000_000
        expected = {key: value for key, value in self.newest.items() if value is not None or self.dead[key] > fresh}
        assert expected.items() <= last.items()
        assert {key: value for key, value in last.items() if value is not None}.items() <= self.newest.items()


TestTable = TableMachine.TestCase
TestTable.settings = QUICK
TestCompaction = CompactionMachine.TestCase
TestCompaction.settings = QUICK


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("machine", [TableMachine, CompactionMachine])
def test_many_histories(machine: type[LogMachine]) -> None:
    run_state_machine_as_test(machine, settings=THOROUGH)
