"""Consumer groups in the catalog: who belongs to one, who owns which partition. No process coordinates them.

Any member does what has to be done, in a write transaction: it joins, leaves, or removes a member whose lease
ended, raises the group's generation and computes who should own what. A partition with an owner moves only when
that owner lets go at its next poll, or when its lease ends: until then the row names who is ``wanted``, and
everything else is read on.

    join, leave, lease ended ──▶ rebalance: generation + 1, target ──▶ free partitions: owner at once
                                                                   ──▶ others: wanted ──let_go──▶ owner
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, null, select, update
from sqlalchemy.dialects.sqlite import insert

from headwater.catalog import tables
from headwater.catalog.prepared import Prepared
from headwater.client.assignment import balance
from headwater.errors import NameNotFound, UsageError
from headwater.log import Log, offsets
from headwater.log.names import near
from headwater.log.offsets import PartitionState, Place

_group, _member, _assignment = tables.consumer_group, tables.group_member, tables.assignment

_MEMBERS = Prepared(select(_member.c.member, _member.c.topics).where(_member.c.group == bindparam("of_group")))
_ASSIGNED = Prepared(select(_assignment).where(_assignment.c.group == bindparam("of_group")))
_GROUP = Prepared(select(_group).where(_group.c.name == bindparam("of_group")))
_PUT = Prepared(insert(_assignment).prefix_with("OR REPLACE"))
_DROP = Prepared(
    delete(_assignment).where(
        _assignment.c.group == bindparam("of_group"),
        _assignment.c.topic == bindparam("of_topic"),
        _assignment.c.partition == bindparam("of_partition"),
    )
)
_HAND_OVER = Prepared(
    update(_assignment)
    .where(
        _assignment.c.group == bindparam("of_group"),
        _assignment.c.topic == bindparam("of_topic"),
        _assignment.c.partition == bindparam("of_partition"),
        _assignment.c.owner == bindparam("of_member"),
        _assignment.c.wanted.is_not(None),
    )
    .values(owner=_assignment.c.wanted, wanted=null(), generation=bindparam("new_generation"))
)


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one member sees of its group.

    ``owned``: its partitions, with the generation in which it got each; ``asked``: those of them that it should
    let go; ``stale``: a generation of partitions was finished or opened, so the group has to be rebalanced.
    """

    generation: int
    owned: Mapping[Place, int]
    asked: frozenset[Place]
    members: frozenset[str]
    stale: bool


def scope(group: str) -> str:
    """Under which name the leases of a group's members are in the live file."""
    return f"group:{group}"


def producer_name(group: str) -> str:
    """The producer of commits that hold a member's output and offsets; the ownership of partitions fences it."""
    return f"group:{group}"


def join(log: Log, group: str, member: str, topics: Collection[int], first: Mapping[Place, int], client: str) -> None:
    """Make ``member`` one of the group, whose lease runs already.

    ``first``: where a group begins that has no offsets of a topic yet; they are stored at once, so that nothing
    is skipped whoever reads first. A group that has some begins new partitions at their start.
    """
    now = log.clock.now_us()
    with log.catalog.write() as connection:
        named = {"name": group, "generation": 0, "created": now, "active": now, "settings": "{}"}
        connection.execute(insert(_group).values(**named).on_conflict_do_nothing())
        producer = insert(tables.producer).values(name=producer_name(group), epoch=1)
        connection.execute(producer.on_conflict_do_nothing())
        row = {"group": group, "member": member, "topics": json.dumps(sorted(topics)), "joined": now, "client": client}
        connection.execute(insert(_member).prefix_with("OR REPLACE").values(**row))
        known = {topic for topic, _ in offsets.stored(connection, group)}
        begun = {place: offset for place, offset in first.items() if place[0] not in known}
        offsets.put(connection, group, begun, {}, now)
        rebalance(connection, log, group)


def leave(log: Log, group: str, member: str) -> None:
    """The member is gone and its partitions have new owners; one that is gone already is fine."""
    log.live.end_lease(scope(group), member)
    with log.catalog.write() as connection:
        mine = (_member.c.group == group) & (_member.c.member == member)
        if connection.execute(delete(_member).where(mine)).rowcount:
            rebalance(connection, log, group)


def rebalance(connection: Connection, log: Log, group: str) -> int:
    """Remove members without a lease, give every partition an owner or a wanted one; returns the generation."""
    members = _living(connection, log, group)
    states, done = _states(connection, log, group, {topic for topics in members.values() for topic in topics})
    places = [state.place for state in offsets.readable(states, done)]
    rows = {(row.topic, row.partition): row for row in _ASSIGNED.all(connection, {"of_group": group})}
    holders = {place: row.owner if row.owner in members else row.wanted for place, row in rows.items()}
    target = balance(members, places, holders)
    number = generation(connection, group) + 1
    changed = []
    for place in places:
        row = rows.pop(place, None)
        kept = row is not None and row.owner in members
        changed.append(
            {
                "group": group,
                "topic": place[0],
                "partition": place[1],
                "owner": row.owner if kept and row is not None else target.get(place),
                "generation": row.generation if kept and row is not None else number,
                "wanted": target.get(place) if kept and row is not None and target.get(place) != row.owner else None,
            }
        )
    if changed:
        _PUT.run_many(connection, changed)
    if rows:
        _DROP.run_many(connection, [_key(group, place) for place in rows])
    values = {"generation": number, "active": log.clock.now_us()}
    connection.execute(update(_group).where(_group.c.name == group).values(**values))
    return number


def share(connection: Connection, group: str, member: str) -> Share | None:
    """What a member owns; None when it is no member any more."""
    found = {row.member: row.topics for row in _MEMBERS.all(connection, {"of_group": group})}
    if member not in found:
        return None
    rows = _ASSIGNED.all(connection, {"of_group": group})
    mine = [row for row in rows if row.owner == member]
    topics = {topic for text in found.values() for topic in json.loads(text)}
    done = {place: row.offset for place, row in offsets.stored(connection, group).items()}
    readable = {state.place for state in offsets.readable(offsets.states(connection, topics), done)}
    return Share(
        generation=_GROUP.first(connection, {"of_group": group}).generation,
        owned={(row.topic, row.partition): row.generation for row in mine},
        asked=frozenset((row.topic, row.partition) for row in mine if row.wanted is not None),
        members=frozenset(found),
        stale=readable != {(row.topic, row.partition) for row in rows},
    )


def generation(connection: Connection, group: str) -> int:
    """A number that grows with every change of who owns what; -1 when there is no such group."""
    row = _GROUP.first(connection, {"of_group": group})
    return -1 if row is None else int(row.generation)


def let_go(connection: Connection, group: str, member: str, places: Collection[Place]) -> None:
    """Hand these partitions to who is wanted; the member has finished and stored what it read of them."""
    number = generation(connection, group) + 1
    connection.execute(update(_group).where(_group.c.name == group).values(generation=number))
    values = {"of_member": member, "new_generation": number}
    _HAND_OVER.run_many(connection, [{**_key(group, place), **values} for place in places])


def active_members(connection: Connection, log: Log, group: str) -> list[str]:
    """The members whose lease runs; NameNotFound when there is no such group."""
    if _GROUP.first(connection, {"of_group": group}) is None:
        names = [str(row.name) for row in connection.execute(select(_group.c.name))]
        raise NameNotFound(f"there is no consumer group {group}", suggestions=near(group, names))
    alive = log.live.leases(scope(group))
    return [row.member for row in _MEMBERS.all(connection, {"of_group": group}) if row.member in alive]


def reset(log: Log, group: str, moved: Mapping[Place, int]) -> None:
    """Let the group go on from these offsets. UsageError while it has members: they would not notice."""
    with log.catalog.write() as connection:
        _require_idle(connection, log, group, "reset")
        connection.execute(delete(_member).where(_member.c.group == group))
        connection.execute(delete(_assignment).where(_assignment.c.group == group))
        offsets.put(connection, group, moved, {}, log.clock.now_us(), metadata="reset")
        commits = tables.group_commit
        for topic, partition in moved:  # an operator's move is no rewind of the group's
            here = (commits.c.topic == topic) & (commits.c.partition == partition)
            connection.execute(delete(commits).where(commits.c.group == group, here))


def forget(log: Log, group: str) -> None:
    """Remove a group with its offsets. UsageError while it has members.

    Its producer's name stays: commits name it, and an epoch that was once raised is never forgotten.
    """
    with log.catalog.write() as connection:
        _require_idle(connection, log, group, "deleted")
        for table in (_member, _assignment, tables.group_offset, tables.group_commit):
            connection.execute(delete(table).where(table.c.group == group))
        connection.execute(delete(_group).where(_group.c.name == group))


def _require_idle(connection: Connection, log: Log, group: str, what: str) -> None:
    active = active_members(connection, log, group)
    if active:
        raise UsageError(
            f"group {group} has {len(active)} active members and cannot be {what}",
            where=", ".join(active),
            todo="Stop them first; one that was killed counts until its lease ends.",
        )


def _living(connection: Connection, log: Log, group: str) -> dict[str, set[int]]:
    """Topics by member, of those whose lease runs; the others are removed."""
    alive = log.live.leases(scope(group))
    found = {row.member: row.topics for row in _MEMBERS.all(connection, {"of_group": group})}
    gone = sorted(set(found) - set(alive))
    if gone:
        connection.execute(delete(_member).where(_member.c.group == group, _member.c.member.in_(gone)))
    return {member: set(json.loads(found[member])) for member in found if member in alive}


def _states(
    connection: Connection, log: Log, group: str, topics: Collection[int]
) -> tuple[Sequence[PartitionState], dict[Place, int]]:
    """The partitions of these topics and the group's offsets; partitions that came later begin at their start."""
    states = offsets.states(connection, topics)
    done = {place: row.offset for place, row in offsets.stored(connection, group).items()}
    new = {state.place: state.start_offset for state in states if state.place not in done}
    offsets.put(connection, group, new, {}, log.clock.now_us())
    return states, {**done, **new}


def _key(group: str, place: Place) -> dict[str, object]:
    return {"of_group": group, "of_topic": place[0], "of_partition": place[1]}
