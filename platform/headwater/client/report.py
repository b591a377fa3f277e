"""Where consumer groups stand: offsets, lag in records and seconds, owners, and what their commits say."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import select

from headwater.catalog import tables
from headwater.client.evaluation import Commit, Status, evaluate
from headwater.client.group import scope
from headwater.errors import NameNotFound
from headwater.log import Log, Topic, offsets, scan
from headwater.log.names import near
from headwater.log.offsets import PartitionState, Place

GroupState = Literal["active", "rebalancing", "empty"]
"""rebalancing: a partition waits until its owner lets go. empty: no member's lease runs."""


@dataclass(frozen=True, kw_only=True)
class PartitionReport:
    """One partition of a group. ``lag_s``: age of the first record not finished, by its commit; 0 without one."""

    topic: str
    partition: int
    offset: int
    end: int
    lag_rows: int
    lag_s: float
    owner: str | None
    status: Status
    metadata: str


@dataclass(frozen=True, kw_only=True)
class GroupReport:
    """A group. Its status is the worst of its partitions', its ``lag_s`` the largest."""

    name: str
    state: GroupState
    generation: int
    members: tuple[str, ...]
    partitions: tuple[PartitionReport, ...]

    @property
    def lag_rows(self) -> int:
        return sum(each.lag_rows for each in self.partitions)

    @property
    def lag_s(self) -> float:
        return max((each.lag_s for each in self.partitions), default=0.0)

    @property
    def status(self) -> Status:
        return max((each.status for each in self.partitions), default=Status.OK)


def groups(log: Log) -> list[GroupReport]:
    """Every group by name."""
    with log.catalog.read() as connection:
        names = connection.execute(select(tables.consumer_group.c.name).order_by(tables.consumer_group.c.name))
        found = [str(name) for name in names.scalars()]
    return [group(log, name) for name in found]


def group(log: Log, name: str) -> GroupReport:
    """One group; NameNotFound with near names. A closed partition that is finished is left out."""
    topics = {topic.id: topic for topic in log.topics(hidden=True)}
    alive = log.live.leases(scope(name))
    known, rows = tables.consumer_group, tables.assignment
    with log.catalog.read() as connection:
        generations = {row.name: row.generation for row in connection.execute(select(known.c.name, known.c.generation))}
        if name not in generations:
            raise NameNotFound(f"there is no consumer group {name}", suggestions=near(name, list(generations)))
        stored = {place: row for place, row in offsets.stored(connection, name).items() if place[0] in topics}
        states = {state.place: state for state in offsets.states(connection, {topic for topic, _ in stored})}
        history = offsets.history(connection, name)
        assigned = connection.execute(select(rows).where(rows.c.group == name)).all()
        member = tables.group_member.c
        members = connection.execute(select(member.member).where(member.group == name)).scalars().all()
    owners = {(row.topic, row.partition): row.owner for row in assigned if row.owner in alive}
    unread = _unread_us(log, topics, {place: row.offset for place, row in stored.items()}, states)
    now_us = log.clock.now_us()
    reports = []
    for place, row in sorted(stored.items()):
        state = states[place]
        lag = offsets.lag(state, row.offset)
        if state.closed is not None and lag == 0:
            continue
        unread_s = max(0.0, (now_us - unread[place]) / 1e6) if place in unread else None
        commits = [Commit(time_s=c.time / 1e6, offset=c.offset, lag=c.lag) for c in history.get(place, [])]
        reports.append(
            PartitionReport(
                topic=topics[place[0]].name,
                partition=place[1],
                offset=row.offset,
                end=state.next_offset,
                lag_rows=lag,
                lag_s=round(unread_s or 0.0, 3),
                owner=owners.get(place),
                status=evaluate(commits, lag=lag, unread_s=unread_s, now_s=now_us / 1e6),
                metadata=row.metadata,
            )
        )
    active = tuple(sorted(each for each in members if each in alive))
    waiting = any(row.wanted in alive for row in assigned)
    return GroupReport(
        name=name,
        state="empty" if not active else "rebalancing" if waiting else "active",
        generation=generations[name],
        members=active,
        partitions=tuple(sorted(reports, key=lambda each: (each.topic, each.partition))),
    )


def _unread_us(
    log: Log, topics: dict[int, Topic], done: dict[Place, int], states: dict[Place, PartitionState]
) -> dict[Place, int]:
    """When the first record that is not finished was published, of the partitions that have one."""
    behind: dict[int, dict[int, int]] = defaultdict(dict)
    for place, offset in done.items():
        if offsets.lag(states[place], offset):
            behind[place[0]][place[1]] = offset
    found: dict[Place, int] = {}
    for topic, wanted in behind.items():
        times = scan.commit_times(log, topics[topic], wanted)
        found |= {(topic, partition): time for partition, time in times.items()}
    return found
