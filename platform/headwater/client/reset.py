"""Moving a group to another place in its topics: planned first, then done in one catalog transaction."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from headwater.client import group as groups
from headwater.client.locate import Where, locate
from headwater.errors import UsageError
from headwater.log import Log, offsets
from headwater.log.offsets import PartitionState, Place


@dataclass(frozen=True, kw_only=True)
class Move:
    """One partition: the first offset not finished, as it is and as it would be."""

    topic: str
    partition: int
    old: int
    new: int


def plan(
    log: Log,
    group: str,
    *,
    to: Where | None = None,
    offset: int | None = None,
    shift: int | None = None,
    topic: str | None = None,
    partitions: Collection[int] | None = None,
) -> list[Move]:
    """What a reset would do, exactly one of ``to``, ``offset`` and ``shift`` given; changes nothing.

    Offsets outside of what a partition holds become its first or next one. NameNotFound, and UsageError when
    nothing is chosen.
    """
    if sum(each is not None for each in (to, offset, shift)) != 1:
        raise UsageError("a reset goes to one place", todo="Give one of --to, --offset and --shift.")
    topics = {each.id: each for each in log.topics(hidden=True)}
    only = None if topic is None else log.topic(topic).id
    with log.catalog.read() as connection:
        groups.active_members(connection, log, group)  # there is such a group
        stored = {place: row.offset for place, row in offsets.stored(connection, group).items() if place[0] in topics}
        states = {state.place: state for state in offsets.states(connection, {number for number, _ in stored})}
    chosen = {
        place: old
        for place, old in stored.items()
        if only in (None, place[0]) and (partitions is None or place[1] in partitions)
    }
    if not chosen:
        raise UsageError(f"group {group} has no such partition", todo="Look at it with `headwater group show`.")
    found = locate(log, [topics[number] for number in {number for number, _ in chosen}], to) if to is not None else {}
    return [
        Move(
            topic=topics[place[0]].name,
            partition=place[1],
            old=old,
            new=_new(states[place], old, found.get(place), offset, shift),
        )
        for place, old in sorted(chosen.items())
    ]


def _new(state: PartitionState, old: int, found: int | None, offset: int | None, shift: int | None) -> int:
    wanted = found if found is not None else offset if offset is not None else old + (shift or 0)
    return min(max(wanted, state.start_offset), state.next_offset)


def execute(log: Log, group: str, moves: Sequence[Move]) -> None:
    """Do it; UsageError while the group has members, and then nothing was changed."""
    names = {topic.name: topic.id for topic in log.topics(hidden=True)}
    moved: dict[Place, int] = {(names[each.topic], each.partition): each.new for each in moves}
    groups.reset(log, group, moved)
