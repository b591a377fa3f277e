"""Positions as people write them: ``latest``, ``commit:42`` or 42, ``lsn:0/16B3748``, ``tag:NAME``, a timestamp.

A position names a commit. A timestamp means the newest commit at or before it, an LSN the newest commit that
holds no source transaction beyond it, so the answer at a position never changes. ``5 minutes ago`` is a timestamp
once it is resolved.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from headwater.catalog.records import to_datetime
from headwater.errors import NotYet, UsageError
from headwater.log import Log, tags, topic_settings

_AGO = " ago"

Position = int | str | datetime | None
"""What ``at=`` takes; None and ``latest`` are the newest commit."""


def resolve(log: Log, at: Position) -> int:
    """The commit that ``at`` means.

    NotYet beyond the newest one, NameNotFound for an unknown tag, UsageError for an unreadable text.
    """
    if at is None or at == "latest":
        return log.newest_commit()
    if isinstance(at, datetime):
        return _at_time(log, at)
    text = str(at).strip()
    if text.startswith("lsn:"):
        return _at_lsn(log, text)
    if text.startswith("tag:"):
        return tags.get(log, text.removeprefix("tag:")).commit
    number = text.removeprefix("commit:")
    if number.isdigit():
        return _existing(log, int(number))
    return _at_time(log, _moment(log, text))


def parse_lsn(text: str) -> int:
    """``X/Y`` as a number; UsageError when it is not one."""
    high, slash, low = text.partition("/")
    try:
        return (int(high, 16) << 32) | int(low, 16) if slash else int("")
    except ValueError as error:
        raise UsageError(f"{text!r} is not an LSN", todo="Write it like 0/16B3748.") from error


def _existing(log: Log, number: int) -> int:
    newest = log.newest_commit()
    if number > newest:
        raise NotYet(f"there is no commit {number} yet", todo=f"The newest is commit:{newest}.")
    return number


def _moment(log: Log, text: str) -> datetime:
    if text.endswith(_AGO):
        ago = topic_settings.seconds("the position", text.removesuffix(_AGO))
        return to_datetime(log.clock.now_us()) - timedelta(seconds=ago)
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        todo = (
            'Write latest, commit:42, lsn:0/16B3748, tag:NAME, "5 minutes ago",'
            " or a timestamp like 2026-11-23 10:00:00+00."
        )
        raise UsageError(f"{text!r} is not a position", todo=todo) from error


def _at_time(log: Log, moment: datetime) -> int:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=ZoneInfo(log.timezone))
    found = log.commit_at_time(moment.astimezone(UTC))
    if found == 0:
        raise NotYet(f"the lake has no commit at or before {moment.isoformat()}", todo="Choose a later time.")
    return found


def _at_lsn(log: Log, text: str) -> int:
    source, _, lsn = text.removeprefix("lsn:").rpartition(":")
    sources = sorted({topic.source for topic in log.topics(hidden=True) if topic.source})
    if not source and len(sources) != 1:
        raise UsageError(
            f"{text} does not say which source",
            todo=f"Write lsn:SOURCE:X/Y with one of {', '.join(sources)}.",
        )
    wanted = parse_lsn(lsn)
    found = log.newest_commit_where(f"source:{source or sources[0]}", lambda position: parse_lsn(position) <= wanted)
    if found == 0:
        raise NotYet(f"no commit stands at or before {text}", todo="Choose a later LSN.")
    return found
