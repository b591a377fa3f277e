"""How far consumer groups are: offsets in the catalog, stored only for who owns the partition.

A group's progress is stored in one catalog transaction, alone or with the records that its member produced
(``stage``): that is what makes read-process-write exactly once.

    assignment (owner, generation) ──checked──▶ group_offset (first record not finished)
                                              ▶ group_commit (the last commits, for the group's evaluation)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.dialects.sqlite import insert

from headwater.catalog import tables
from headwater.catalog.prepared import Prepared
from headwater.catalog.records import to_micros
from headwater.errors import FencedMember

if TYPE_CHECKING:
    from headwater.log.transaction import Transaction

Place = tuple[int, int]
"""A partition: the topic's id and the partition's number."""

WINDOW = 10
"""Commits of a partition that are kept for its evaluation (Burrow's window)."""
DISTANCE_US = 1_000_000
"""A commit sooner than this after the one before takes its place in the window: else it would span no time."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a member of a group has finished; ``offsets``: of each partition, the first record not finished.

    ``generations``: in which generation the member got each partition. One that it lost and got again is
    another ownership: what it read before is not its to commit.
    """

    group: str
    member: str
    offsets: Mapping[Place, int]
    generations: Mapping[Place, int]
    metadata: str = ""


@dataclass(frozen=True, kw_only=True)
class PartitionState:
    """Where a partition begins and ends, and the commit that closed it."""

    topic: int
    partition: int
    start_offset: int
    next_offset: int
    closed: int | None

    @property
    def place(self) -> Place:
        return self.topic, self.partition


_OWNED = Prepared(
    select(tables.assignment.c.topic, tables.assignment.c.partition, tables.assignment.c.generation).where(
        tables.assignment.c.group == bindparam("of_group"), tables.assignment.c.owner == bindparam("of_member")
    )
)
_STATES = Prepared(
    select(
        tables.partition.c.topic,
        tables.partition.c.partition,
        tables.partition.c.start_offset,
        tables.partition.c.next_offset,
        tables.partition.c.closed,
    )
    .where(tables.partition.c.topic == bindparam("of_topic"))
    .order_by(tables.partition.c.partition)
)
_OFFSETS = Prepared(select(tables.group_offset).where(tables.group_offset.c.group == bindparam("of_group")))
_HISTORY = Prepared(
    select(tables.group_commit)
    .where(tables.group_commit.c.group == bindparam("of_group"))
    .order_by(tables.group_commit.c.topic, tables.group_commit.c.partition, tables.group_commit.c.time)
)
_PUT_OFFSET = Prepared(insert(tables.group_offset).prefix_with("OR REPLACE"))
_PUT_COMMIT = Prepared(insert(tables.group_commit))
_CUT_COMMIT = Prepared(
    tables.group_commit.delete().where(
        tables.group_commit.c.group == bindparam("of_group"),
        tables.group_commit.c.topic == bindparam("of_topic"),
        tables.group_commit.c.partition == bindparam("of_partition"),
        tables.group_commit.c.time == bindparam("of_time"),
    )
)
_ACTIVE = Prepared(
    update(tables.consumer_group)
    .where(tables.consumer_group.c.name == bindparam("of_group"))
    .values(active=bindparam("now"))
)


def store(connection: Connection, progress: Progress, now_us: int) -> None:
    """Move the group on, inside the caller's write transaction.

    FencedMember when the member does not own one of the partitions in the generation it names: then the
    caller must let the whole transaction go.
    """
    owned = {
        (row.topic, row.partition): row.generation
        for row in _OWNED.all(connection, {"of_group": progress.group, "of_member": progress.member})
    }
    for place in progress.offsets:
        if owned.get(place) != progress.generations.get(place, -1):
            raise FencedMember(
                f"member {progress.member} of group {progress.group} no longer owns partition {place[1]}",
                where=f"topic {place[0]}",
                todo="Nothing of this commit was stored; poll again to rejoin the group.",
                group=progress.group,
                member=progress.member,
            )
    put(connection, progress.group, progress.offsets, progress.generations, now_us, metadata=progress.metadata)
    _record(connection, progress.group, progress.offsets, now_us)
    _ACTIVE.run(connection, {"of_group": progress.group, "now": now_us})


def stage(tx: Transaction, progress: Progress) -> None:
    """Store the progress in the commit that publishes ``tx``, or nowhere; ``tx.commit`` raises FencedMember."""
    tx.inside(lambda connection, info: store(connection, progress, to_micros(info.time)))


def put(
    connection: Connection,
    group: str,
    offsets: Mapping[Place, int],
    generations: Mapping[Place, int],
    now_us: int,
    *,
    metadata: str = "",
) -> None:
    """Write offsets without asking who owns the partitions: for a group's first offsets, and for a reset."""
    rows = [
        {
            "group": group,
            "topic": topic,
            "partition": partition,
            "offset": offset,
            "metadata": metadata,
            "time": now_us,
            "generation": generations.get((topic, partition), 0),
        }
        for (topic, partition), offset in offsets.items()
    ]
    if rows:
        _PUT_OFFSET.run_many(connection, rows)


def _record(connection: Connection, group: str, offsets: Mapping[Place, int], now_us: int) -> None:
    """Remember these commits with the lag that each had, the newest ``WINDOW`` of a partition."""
    ends = {state.place: state for state in states(connection, {topic for topic, _ in offsets})}
    known = history(connection, group)
    added, cut = [], []
    for place, offset in offsets.items():
        before = known.get(place, [])
        topic, partition = place
        key = {"of_group": group, "of_topic": topic, "of_partition": partition}
        time = max(now_us, before[-1].time + 1) if before else now_us
        if len(before) > 1 and before[-1].time - before[-2].time < DISTANCE_US:
            cut.append({**key, "of_time": before.pop().time})
        cut += [{**key, "of_time": each.time} for each in before[: max(0, len(before) - WINDOW + 1)]]
        row = {"group": group, "topic": topic, "partition": partition, "time": time, "offset": offset}
        added.append({**row, "lag": lag(ends[place], offset) if place in ends else 0})
    if cut:
        _CUT_COMMIT.run_many(connection, cut)
    if added:
        _PUT_COMMIT.run_many(connection, added)


def lag(state: PartitionState, offset: int) -> int:
    """Records from ``offset`` to the partition's end; those that retention removed are no longer behind."""
    return max(0, state.next_offset - max(offset, state.start_offset))


def states(connection: Connection, topics: Iterable[int]) -> list[PartitionState]:
    """Every partition of these topics, closed ones included, in their order."""
    return [
        state for topic in sorted(topics) for state in _STATES.records(connection, PartitionState, {"of_topic": topic})
    ]


def stored(connection: Connection, group: str) -> dict[Place, Any]:
    """A group's rows of ``group_offset`` by partition."""
    return {(row.topic, row.partition): row for row in _OFFSETS.all(connection, {"of_group": group})}


def history(connection: Connection, group: str) -> dict[Place, list[Any]]:
    """A group's last commits by partition, oldest first."""
    found: dict[Place, list[Any]] = defaultdict(list)
    for row in _HISTORY.all(connection, {"of_group": group}):
        found[row.topic, row.partition].append(row)
    return found


def readable(found: Iterable[PartitionState], offsets: Mapping[Place, int]) -> list[PartitionState]:
    """Of each topic, the partitions of the oldest generation that is not finished.

    A repartition closes one generation and opens the next, whose records come later for every key: so the
    older is read to its end first. The open generation is never finished.
    """
    by_topic: dict[int, dict[int | None, list[PartitionState]]] = defaultdict(lambda: defaultdict(list))
    for state in found:
        by_topic[state.topic][state.closed].append(state)
    chosen: list[PartitionState] = []
    for generations in by_topic.values():
        closed = sorted(number for number in generations if number is not None)
        for number in [*closed, None]:
            group = generations.get(number, [])
            if number is None or any(offsets.get(s.place, s.start_offset) < s.next_offset for s in group):
                chosen += group
                break
    return chosen


def group_floor(connection: Connection, topic_id: int, active_after_us: int) -> dict[int, int]:
    """The lowest offset of each partition that a group still needs, for retention.

    Groups that neither committed nor joined since ``active_after_us`` hold nothing back. A partition without
    an entry is held by no group.
    """
    offset, group = tables.group_offset, tables.consumer_group
    query = (
        select(offset.c.partition, offset.c.offset)
        .join(group, group.c.name == offset.c.group)
        .where(offset.c.topic == topic_id, group.c.active >= active_after_us)
    )
    floor: dict[int, int] = {}
    for partition, place in connection.execute(query):
        floor[partition] = min(place, floor.get(partition, place))
    return floor
