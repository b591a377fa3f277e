"""Retention: what is older than the history that somebody asked for leaves, current rows never.

    segments ──────────────┬───────────────────────▶        removable: older than the history, and no readable
              base B ≤ floor   floor ◀─ time travel ─▶ now  position P has its base before and itself behind it

A keyed topic's rows at P are its newest base at or before P and the records after that base. So a segment may go
when every position that must stay readable (the time-travel window, tags, leases, the pipeline, active groups)
either has its base behind it or lies before it; where a base is missing it is written first. Event topics have no
bases: their oldest segments go, as Kafka's do. Ages are those of commits, never of events, which may lie.

What was removed is remembered as ranges of commits (see ``expired``): what would need it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, delete, func, insert, select, update

from headwater.catalog import tables
from headwater.catalog.records import MAX_COMMIT, Base, Segment, Topic, to_datetime, to_micros
from headwater.config import Settings
from headwater.errors import CorruptFile
from headwater.log import archive, base, chain, dead_letters, expired, jobs, leases, manifest, merge, tags

if TYPE_CHECKING:
    from headwater.log.log import Log


@dataclass(frozen=True, kw_only=True)
class Readable:
    """Positions that must stay readable: everything from ``floor`` on, and each of ``points``."""

    floor: int
    points: tuple[int, ...]


def readable(log: Log, settings: Settings) -> Readable:
    """What time travel, tags, leases, the pipeline and jobs hold now."""
    now = log.clock.now_us()
    newest = log.newest_commit()
    window = log.commit_at_time(to_datetime(now - int(settings.time_travel_s * 1e6)))
    with log.catalog.read() as connection:
        points = {tag.commit for tag in tags.held(connection, now)}
    floors = [window, newest]
    step = log.last_step()
    if step is None and log.views():
        floors.append(0)  # the pipeline has not begun: it will read from the beginning
    elif step is not None and log.views() and to_micros(step.instant) > now - int(settings.reader_expiry_s * 1e6):
        floors.append(step.input_commit)
    floors += jobs.floors(log, now - int(settings.reader_expiry_s * 1e6)).values()
    if (leased := leases.oldest_commit(log)) is not None:
        floors.append(leased)
    floor = min(floors)
    return Readable(floor=floor, points=tuple(sorted(point for point in points if point < floor)))


def retain(log: Log, settings: Settings) -> int:
    """Remove what may go; returns how many files left the catalog. The caller owns ``maintenance``."""
    keep = readable(log, settings)
    removed = 0
    for topic in _every_topic(log):
        if topic.kind in base.KINDS:
            with suppress(CorruptFile):  # it is in quarantine now, and keeps what it has
                removed += _retain_history(log, topic, keep, settings)
        elif topic.kind == "event":
            removed += _retain_records(log, topic, keep, settings)
    cut = log.clock.now_us() - int(max(settings.history_s, settings.time_travel_s) * 1e6)
    return removed + archive.retire(log, keep.floor, cut)


def require_readable(log: Log, commit: int) -> None:
    """Expired when the rows of some table at this commit can no longer be given."""
    for topic in log.topics(commit, hidden=True):
        if topic.kind in base.KINDS:
            found = base.newest(log, topic, commit)
            with log.catalog.read() as connection:
                expired.require_whole(connection, topic, found.commit if found else 0, commit)


# ---- keyed topics and bags: history goes, rows stay


def _retain_history(log: Log, topic: Topic, keep: Readable, settings: Settings) -> int:
    history_s = settings.history_s if topic.settings.retention_s is None else topic.settings.retention_s
    cut = log.clock.now_us() - int(max(history_s, settings.time_travel_s) * 1e6)
    live = merge.live(log, topic.id)
    old = [s for s in live if s.last_time is not None and s.last_time < cut and s.last_commit <= keep.floor]
    if old:
        for place in _positions(topic, keep):
            _ensure_base(log, topic, place, old, settings)
        remove(log, topic, old)
    return len(old) + _retire_bases(log, topic, keep)


def _positions(topic: Topic, keep: Readable) -> list[int]:
    """The positions whose base decides, none before the topic was made or after it was dropped."""
    end = MAX_COMMIT if topic.dropped is None else topic.dropped - 1
    points = [point for point in keep.points if topic.created <= point <= end]
    return [*points, min(keep.floor, end)]


def _ensure_base(log: Log, topic: Topic, place: int, old: Sequence[Segment], settings: Settings) -> None:
    """A reader at ``place`` shall start from a base with none of ``old`` between: one is written where there is."""
    found = base.newest(log, topic, place)
    start = found.commit if found else 0
    if any(segment.first_commit <= place and segment.last_commit > start for segment in old) and start < place:
        base.write(log, topic, place, settings)


def _retire_bases(log: Log, topic: Topic, keep: Readable) -> int:
    """Bases that no readable position starts from go, but for the newest: what everyone reads starts there."""
    table, file = tables.base, tables.file
    query = (
        select(table, file.c.path, file.c.bytes, file.c.digest)
        .join(file, file.c.id == table.c.file)
        .where(table.c.topic == topic.id, file.c.removed.is_(None))
        .order_by(table.c.commit, table.c.file)
    )
    with log.catalog.read() as connection:
        found = [Base(**row._mapping) for row in connection.execute(query)]
    needed = set(found[-1:])
    for position in (*keep.points, keep.floor):
        needed |= set([each for each in found if each.commit <= position][-1:])
    gone = [each for each in found if each not in needed]
    if gone:
        with log.catalog.write() as connection:
            now = log.clock.now_us()
            _record(connection, topic, gone, now)
            files = [each.file for each in gone]
            connection.execute(delete(table).where(table.c.file.in_(files)))
            connection.execute(update(file).where(file.c.id.in_(files)).values(removed=now))
    return len(gone)


# ---- event topics: the oldest records go


def _retain_records(log: Log, topic: Topic, keep: Readable, settings: Settings) -> int:
    rules = topic.settings
    if rules.cleanup == "compact" or (rules.retention_s is None and rules.retention_bytes is None):
        return 0
    leased = leases.oldest_commit(log)
    pinned = leased is not None or any(topic.created <= point for point in keep.points)
    if pinned:  # what is read or named holds every record before it
        return 0
    active_us = log.clock.now_us() - int(settings.reader_expiry_s * 1e6)
    with log.catalog.read() as connection:
        floors = _unread(connection, topic.id, active_us)
    taken = jobs.floors(log, active_us).get(topic.name, MAX_COMMIT)
    live = merge.live(log, topic.id)
    excess = sum(segment.bytes for segment in live) - (rules.retention_bytes or sum(s.bytes for s in live))
    cut = log.clock.now_us() - int(rules.retention_s * 1e6) if rules.retention_s is not None else 0
    gone: list[Segment] = []
    stopped: set[int] = set()
    for segment in sorted(live, key=lambda s: (s.last_commit, s.partition)):
        over = (segment.last_time is not None and segment.last_time < cut) or excess > 0
        unread = segment.last_offset >= floors.get(segment.partition, segment.last_offset + 1)
        unread = unread or segment.last_commit > taken
        if not over or unread or segment.partition in stopped:
            stopped.add(segment.partition)  # only from the front: what is left begins at one offset
            continue
        gone.append(segment)
        excess -= segment.bytes
    remove(log, topic, gone)
    return len(gone)


def _unread(connection: Connection, topic_id: int, since_us: int) -> dict[int, int]:
    """By partition, the first offset that a group which was active since then has not finished."""
    offset, group = tables.group_offset, tables.consumer_group
    query = (
        select(offset.c.partition, func.min(offset.c.offset))
        .join(group, group.c.name == offset.c.group)
        .where(offset.c.topic == topic_id, group.c.active >= since_us)
        .group_by(offset.c.partition)
    )
    return {partition: int(first) for partition, first in connection.execute(query)}


def remove(log: Log, topic: Topic, gone: Sequence[Segment]) -> None:
    """Take segments out of the catalog in one transaction, and remember which commits miss records now."""
    if not gone:
        return
    with log.catalog.write() as connection:
        now = log.clock.now_us()
        _record(connection, topic, gone, now)
        merge.retire(connection, gone, now)
        for partition in {segment.partition for segment in gone}:
            _move_start(connection, topic.id, partition)
        _remember(connection, topic.id, gone)
        if topic.name.endswith(dead_letters.SUFFIX):
            dead_letters.expire(connection, topic, now)
    manifest.refresh(log, topic.id)


def _record(connection: Connection, topic: Topic, gone: Sequence[Segment | Base], now: int) -> None:
    number = connection.execute(select(func.max(tables.commit.c.number))).scalar_one()
    digests = [each.digest for each in gone]
    chain.append(connection, "retain", number=number, time=now, producer=topic.name, removed=digests)


def _move_start(connection: Connection, topic_id: int, partition: int) -> None:
    """The partition begins where its first record is now; at its end when none is left."""
    first = (
        select(func.min(table.c.first_offset)).where(table.c.topic == topic_id, table.c.partition == partition)
        for table in (tables.segment, tables.batch)
    )
    found = [value for query in first if (value := connection.execute(query).scalar_one()) is not None]
    place = (tables.partition.c.topic == topic_id) & (tables.partition.c.partition == partition)
    start = min(found) if found else tables.partition.c.next_offset
    connection.execute(update(tables.partition).where(place).values(start_offset=start))


def _remember(connection: Connection, topic_id: int, gone: Sequence[Segment]) -> None:
    """Join the removed commits to the ranges that are remembered; neighbours become one."""
    table = tables.expired
    known = connection.execute(select(table).where(table.c.topic == topic_id)).all()
    ranges = [(row.first_commit, row.last_commit) for row in known]
    ranges += [(segment.first_commit, segment.last_commit) for segment in gone]
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    connection.execute(delete(table).where(table.c.topic == topic_id))
    rows = [{"topic": topic_id, "first_commit": first, "last_commit": last} for first, last in joined]
    connection.execute(insert(table), rows)


def _every_topic(log: Log) -> list[Topic]:
    """Live topics and dropped ones that still have files, each as it was last."""
    found = {topic.id: topic for topic in log.topics(hidden=True)}
    with log.catalog.read() as connection:
        rows = connection.execute(select(tables.topic.c.id, tables.topic.c.dropped)).all()
        held = {row.topic for row in connection.execute(select(tables.segment.c.topic).distinct())}
    for row in rows:
        if row.id not in found and row.id in held:
            found |= {t.id: t for t in log.topics(row.dropped - 1, hidden=True) if t.id == row.id}
    return list(found.values())
