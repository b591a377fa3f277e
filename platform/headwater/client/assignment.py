"""Who of a group reads which partition: as even as the subscriptions allow, moving as little as possible."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from headwater.log.offsets import Place


def balance(
    members: Mapping[str, Collection[int]], places: Collection[Place], owners: Mapping[Place, str | None]
) -> dict[Place, str]:
    """A member for every partition that any of them subscribes to.

    Members may differ by their topics. A partition stays with its owner unless another member that may have it
    has at least two fewer; so the counts of members with the same topics differ by one at most, and each
    partition is moved no further than that asks. The same input gives the same answer in every process.

    Args:
        members: topic ids by member.
        places: the partitions to give out.
        owners: who has them now; names that are no members any more are ignored.
    """
    able = {place: [name for name in sorted(members) if place[0] in members[name]] for place in sorted(places)}
    held: dict[str, list[Place]] = {name: [] for name in sorted(members)}
    free = []
    for place, names in able.items():
        owner = owners.get(place)
        if owner in names:
            held[owner].append(place)
        elif names:
            free.append(place)
    for place in free:
        held[min(able[place], key=lambda name: len(held[name]))].append(place)
    while (move := _move(held, able)) is not None:
        place, giver, taker = move
        held[giver].remove(place)
        held[taker].append(place)
    return {place: name for name, owned in held.items() for place in owned}


def _move(held: Mapping[str, list[Place]], able: Mapping[Place, list[str]]) -> tuple[Place, str, str] | None:
    """A partition whose move makes the counts more even. Each lowers the sum of their squares, so they end."""
    for giver in sorted(held, key=lambda name: -len(held[name])):
        for place in reversed(held[giver]):
            taker = min(able[place], key=lambda name: len(held[name]))
            if len(held[taker]) + 1 < len(held[giver]):
                return place, giver, taker
    return None
