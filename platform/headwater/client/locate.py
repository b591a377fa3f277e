"""From how people name a place in a topic to offsets: earliest, latest, or a position."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from headwater import position as positions
from headwater.log import Log, Topic, offsets, scan
from headwater.log.offsets import PartitionState, Place

Where = int | str | datetime
"""``earliest``, ``latest``, or a position (``commit:42``, a timestamp, ...): the records published after it.

An integer is a commit, as in ``at=``; only where a partition is named with it, it is an offset.
"""


def locate(log: Log, topics: Sequence[Topic], where: Where) -> dict[Place, int]:
    """The offset that ``where`` means in every partition of these topics, closed ones included.

    A position means the first record after it: whoever has read the topic ``at`` that position and reads on from
    here has everything once. NotYet, Expired and UsageError as positions raise them.
    """
    with log.catalog.read() as connection:
        states = offsets.states(connection, [topic.id for topic in topics])
    if where == "earliest":
        return {state.place: state.start_offset for state in states}
    if where == "latest":
        return {state.place: state.next_offset for state in states}
    commit = positions.resolve(log, where)
    found: dict[Place, int] = {}
    for topic in topics:
        mine = {state.partition: state for state in states if state.topic == topic.id}
        after = scan.offsets_after(log, topic, {number: state.next_offset for number, state in mine.items()}, commit)
        found |= {(topic.id, number): _inside(mine[number], offset) for number, offset in after.items()}
    return found


def _inside(state: PartitionState, offset: int) -> int:
    return min(max(offset, state.start_offset), state.next_offset)
