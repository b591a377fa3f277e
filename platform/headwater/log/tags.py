"""Tags: positions with a name. Retention keeps what reading them needs, until they expire or are dropped."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Connection, delete, insert, select

from headwater.catalog import tables
from headwater.catalog.records import to_datetime, to_micros
from headwater.errors import DuplicateName, NameNotFound, NotYet, UsageError
from headwater.log.names import near

if TYPE_CHECKING:
    from headwater.log.log import Log

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class Tag:
    """A named commit. ``expires``: when it stops holding records back; None is never."""

    name: str
    commit: int
    created: datetime
    expires: datetime | None
    description: str


def create(log: Log, name: str, commit: int, *, expires: datetime | None = None, description: str = "") -> Tag:
    """Name a commit that can be read (see ``retention.require_readable``).

    DuplicateName, NotYet, or UsageError for a name that cannot stand after ``tag:`` or an end in the past.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a tag", todo="Use letters, digits, dot, dash and underscore.")
    if expires is not None and to_micros(expires) <= log.clock.now_us():
        raise UsageError(f"tag {name} would expire in the past", todo="Give a later time, or none.")
    if not 0 < commit <= log.newest_commit():
        raise NotYet(f"there is no commit {commit}", todo=f"The newest is {log.newest_commit()}.")
    with log.catalog.write() as connection:
        if connection.execute(select(tables.tag.c.name).where(tables.tag.c.name == name)).first() is not None:
            raise DuplicateName(f"tag {name} exists already", todo=f"Drop it first: headwater tag drop {name}.")
        connection.execute(
            insert(tables.tag).values(
                name=name,
                commit=commit,
                created=log.clock.now_us(),
                expires=None if expires is None else to_micros(expires),
                description=description,
            )
        )
    return get(log, name)


def drop(log: Log, name: str) -> None:
    """Forget a name; NameNotFound. What only it held back goes with the next retention."""
    get(log, name)
    with log.catalog.write() as connection:
        connection.execute(delete(tables.tag).where(tables.tag.c.name == name))


def get(log: Log, name: str) -> Tag:
    """The tag of this name; NameNotFound with near names, for an expired one too."""
    found = {tag.name: tag for tag in listed(log)}
    if name not in found:
        raise NameNotFound(f"there is no tag {name}", suggestions=near(name, list(found)))
    return found[name]


def listed(log: Log) -> list[Tag]:
    """Every tag that has not expired, by name."""
    with log.catalog.read() as connection:
        return held(connection, log.clock.now_us())


def held(connection: Connection, now_us: int) -> list[Tag]:
    """The same inside a transaction of the caller's."""
    tag = tables.tag
    query = select(tag).where(tag.c.expires.is_(None) | (tag.c.expires > now_us)).order_by(tag.c.name)
    return [
        Tag(
            name=row.name,
            commit=row.commit,
            created=to_datetime(row.created),
            expires=None if row.expires is None else to_datetime(row.expires),
            description=row.description,
        )
        for row in connection.execute(query)
    ]
