"""Repartition: a topic goes on in another number of partitions, in one commit that moves no record.

The open partitions are closed for good and new ones opened behind them (see ``generations``). Positions before the
commit read the old layout. A writer that staged records for a partition that is closed meanwhile gets TopicChanged
and builds its transaction again; a consumer group reads the new partitions when it has finished the closed ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, func, insert, select, update

from headwater.catalog import tables
from headwater.catalog.records import CommitInfo
from headwater.config import PARTITIONS_MAX
from headwater.errors import UsageError
from headwater.log import topics
from headwater.log.system import transaction

if TYPE_CHECKING:
    from headwater.log.log import Log

PRODUCER: Final = "system:repartition"
"""The producer of commits that are a repartition and nothing else: a reader of a range may end there."""


def repartition(log: Log, name: str, partitions: int) -> CommitInfo:
    """Give a topic ``partitions`` open partitions; the records that it has stay where they are.

    Raises NameNotFound, and UsageError for a number that is out of range or the one it has.
    """
    topic = log.topic(name)
    check_count(partitions, topic.name)
    with transaction(log, PRODUCER) as tx:
        tx.inside(lambda connection, info: _apply(connection, topic.name, partitions, info.number))
        return tx.commit()


def check_count(partitions: int, where: str) -> None:
    """UsageError unless a topic can have so many partitions."""
    if not 1 <= partitions <= PARTITIONS_MAX:
        todo = f"Use 1 to {PARTITIONS_MAX}: each is a file per seal."
        raise UsageError(f"{partitions} partitions are out of range", where=where, todo=todo)


def _apply(connection: Connection, name: str, partitions: int, commit: int) -> None:
    topic, partition = tables.topic, tables.partition
    found = connection.execute(select(topic).where(topic.c.name == name, topic.c.dropped.is_(None))).one_or_none()
    if found is None or found.partitions == partitions:
        what = "it was dropped meanwhile" if found is None else f"it has {partitions} partitions already"
        raise UsageError(what, where=name, todo="Look at it with `headwater topic show`.")
    mine = partition.c.topic == found.id
    connection.execute(update(partition).where(mine, partition.c.closed.is_(None)).values(closed=commit))
    ends = select(func.max(partition.c.partition), func.max(partition.c.next_offset)).where(mine)
    last, offset = connection.execute(ends).one()
    begin = {"topic": found.id, "next_offset": offset, "start_offset": offset, "created": commit}
    opened = [{**begin, "partition": number} for number in range(last + 1, last + 1 + partitions)]
    connection.execute(insert(partition), opened)
    changed = update(topic).where(topic.c.id == found.id)
    connection.execute(changed.values(partitions=partitions, first_partition=last + 1))
    topics.bump_generation(connection, commit)
