"""Generations of a topic's partitions: a repartition closes the open ones for good and opens others after them.

    partitions 0 1 2 3   │ repartition │   4 5 6 7 8 9 10 11
    offsets    0 .. 9    │ (a commit)  │   10 ..

Offsets of a generation begin above every offset of the earlier ones, so ``_offset`` still orders the records of a
key, and a record's partition and offset keep their meaning. A repartition is a commit of its own, so a commit's
records belong to one generation. A truncate stands in every partition that was open then, and empties the closed
ones as well: what reads records of several generations reads them as ``linear_sql`` puts them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, func, select

from headwater.catalog import tables
from headwater.catalog.prepared import Prepared
from headwater.record import COMMIT, OFFSET, OP, PARTITION

if TYPE_CHECKING:
    from headwater.log.read import Plan

STORED_OFFSET: Final = "_stored_offset"
"""In a linear relation: the record's own offset."""


def spans(plan: Plan) -> bool:
    """Whether a plan may hold records of more than one generation, whichever one its topic was read at."""
    places = [each.partition for each in plan.batches] + [each.partition for each in plan.segments]
    return any(place not in plan.topic.open_partitions for place in places)


def linear_sql(source: str) -> str:
    """SQL of the same records as if one partition held them all: ``_partition`` 0, ``_offset`` a new, dense order.

    Records of a commit stand behind those of earlier ones, and each before or after a truncate as it does in its own
    partition; records of one key keep their order. ``source`` has ``_op``, ``_commit``, ``_partition``, ``_offset``.
    """
    cuts = f"count(*) FILTER ({OP} = 't') OVER (PARTITION BY {PARTITION}, {COMMIT} ORDER BY {OFFSET})"
    order = f"row_number() OVER (ORDER BY {COMMIT}, _cuts, {OP} <> 't', {PARTITION}, {OFFSET})"
    return (
        f"SELECT * EXCLUDE (_cuts) REPLACE ({order} AS {OFFSET}, 0::INTEGER AS {PARTITION})"
        f" FROM (SELECT *, {OFFSET} AS {STORED_OFFSET}, {cuts} AS _cuts FROM ({source}))"
    )


_new, _old = tables.partition, tables.partition.alias()
_BEGINS = Prepared(
    select(_new.c.topic, _new.c.partition, func.coalesce(func.max(_old.c.next_offset), 0).label("begin"))
    .join_from(_new, _old, (_old.c.topic == _new.c.topic) & (_old.c.closed <= _new.c.created), isouter=True)
    .group_by(_new.c.topic, _new.c.partition)
)


def first_offsets(connection: Connection) -> dict[tuple[int, int], int]:
    """Where the offsets of each partition began, by topic id and partition: 0 in a topic's first generation."""
    return {(topic, partition): int(first) for topic, partition, first in _BEGINS.all(connection)}
