"""What retention has removed, as ranges of commits: an answer that would need it is refused, never given short."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, func, select

from headwater.catalog import tables
from headwater.catalog.records import Topic
from headwater.errors import Expired

_GONE = (
    select(tables.expired.c.last_commit)
    .where(tables.expired.c.topic == bindparam("topic"))
    .where(tables.expired.c.last_commit > bindparam("after"), tables.expired.c.first_commit <= bindparam("upto"))
    .limit(1)
)


def require_whole(connection: Connection, topic: Topic, after: int, upto: int) -> None:
    """Expired when retention has removed records of commits in (after, upto]; names the next position that reads."""
    if connection.execute(_GONE, {"topic": topic.id, "after": after, "upto": upto}).first() is None:
        return
    oldest = select(func.min(tables.base.c.commit)).join(tables.file, tables.file.c.id == tables.base.c.file)
    behind = connection.execute(
        oldest.where(tables.base.c.topic == topic.id, tables.base.c.commit > upto, tables.file.c.removed.is_(None))
    ).scalar_one_or_none()
    nearest = f"The next position that can be read is commit:{behind}." if behind else "Read a later position."
    raise Expired(f"{topic.name} at commit {upto} is beyond what is kept", todo=nearest)
