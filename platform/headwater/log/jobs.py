"""Stream jobs in the catalog: what each reads and writes, whether it may run, and how far it is.

A job is a producer ``job:<name>`` whose position is the input commit that its output and state hold. What it is told
and what is told of it is a setting of the same name, so that status and lineage import nobody's code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Literal

from sqlalchemy import Connection, select, update

from headwater.catalog import tables
from headwater.catalog.catalog import put_setting
from headwater.catalog.records import CommitInfo
from headwater.errors import AmbiguousName, NameNotFound
from headwater.log import backlog, names

if TYPE_CHECKING:
    from headwater.log.log import Log

PREFIX = "job:"
COMPONENT = "jobs:main"
"""The process that runs a project's jobs."""
State = Literal["live", "waiting", "failed", "paused"]
"""``waiting``: an input is not there yet, or is being copied again. ``failed``: its file cannot be imported, or no
longer declares it. Both go on by themselves; ``paused`` does not."""


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """One job. ``inputs`` are full names where they resolve; ``state_topic`` is empty for a job without state."""

    name: str
    inputs: tuple[str, ...]
    output: str
    state_topic: str = ""
    state: State = "live"
    reason: str = ""
    description: str = ""
    file: str = ""
    """Of the project's folder, with the line."""
    version: str = ""
    """Of its code: changes with the file."""

    @property
    def producer(self) -> str:
        """The name that it commits and is owned under."""
        return PREFIX + self.name


def read(log: Log) -> list[JobRecord]:
    """Every job that was ever registered and not dropped, by name."""
    with log.catalog.read() as connection:
        return read_in(connection)


def read_in(connection: Connection) -> list[JobRecord]:
    """The same, in the caller's transaction."""
    setting = tables.setting
    query = select(setting.c.value).where(setting.c.name.like(f"{PREFIX}%")).order_by(setting.c.name)
    return [_from_json(text) for text in connection.execute(query).scalars()]


def find(log: Log, name: str) -> JobRecord:
    """The job of this name; NameNotFound with near names."""
    text = log.setting(PREFIX + name)
    if text is None:
        known = [each.name for each in read(log)]
        raise NameNotFound(f"there is no job {name}", suggestions=names.near(name, known))
    return _from_json(text)


def register(log: Log, declared: JobRecord) -> JobRecord:
    """Write down what a job declares; whether it is paused stays as it is. Returns the record."""
    text = log.setting(declared.producer)
    known = None if text is None else _from_json(text)
    record = declared if known is None else replace(declared, state=known.state, reason=known.reason)
    if record != known:
        log.set_setting(record.producer, json.dumps(asdict(record)))
    return record


def set_state(log: Log, name: str, state: State, reason: str = "") -> JobRecord:
    """Tell a job whether it may run, or what became of it. NameNotFound."""
    with log.catalog.write() as connection:
        mine = select(tables.setting.c.value).where(tables.setting.c.name == PREFIX + name)
        text = connection.execute(mine).scalar_one_or_none()
        if text is not None:
            record = replace(_from_json(text), state=state, reason=reason)
            put_setting(connection, record.producer, json.dumps(asdict(record)))
            return record
    return find(log, name)


def forget(log: Log, name: str) -> None:
    """Remove a job's record, and that it ever ran."""
    with log.catalog.write() as connection:
        put_setting(connection, PREFIX + name, None)
        mine = tables.producer.c.name == PREFIX + name
        connection.execute(update(tables.producer).where(mine).values(position=None, confirmed=None, commit=None))


def position(log: Log, name: str) -> int | None:
    """The commit up to which a job has taken in its inputs; None before it began."""
    state = log.producer(PREFIX + name)
    known = [int(each) for each in (state.position, state.confirmed) if each]
    return max(known, default=None)


def forget_confirmed(producer: str, connection: Connection, _: CommitInfo) -> None:
    """Have a job begin anew, inside the commit that forgets its position."""
    mine = tables.producer.c.name == producer
    connection.execute(update(tables.producer).where(mine).values(confirmed=None))


def unseen(log: Log, record: JobRecord, upto: int) -> backlog.Backlog | None:
    """What a job has not taken in of the commits up to ``upto``; None while an input is not there."""
    try:
        inputs = [log.topic(name).id for name in record.inputs]
    except (NameNotFound, AmbiguousName):
        return None
    return backlog.after(log, inputs, position(log, record.name) or 0, upto)


def reached(log: Log, commit: int) -> bool:
    """Whether every job that may run has taken in everything up to ``commit``."""
    running = [record for record in read(log) if record.state in ("live", "waiting")]
    rests = [(record, unseen(log, record, commit)) for record in running]
    return not any(rest and (rest.total or position(log, record.name) is None) for record, rest in rests)


def floors(log: Log, since_us: int) -> dict[str, int]:
    """Of each topic that jobs read, the commit from which on a job that has moved since then still needs it."""
    found: dict[str, int] = {}
    for record in read(log):
        state = log.producer(record.producer)
        place = position(log, record.name)
        if place is None or (state.commit is not None and _time_us(log, state.commit) < since_us):
            continue
        for topic in record.inputs:
            found[topic] = min(place, found.get(topic, place))
    return found


def circle(reads: Mapping[str, Sequence[str]], topic: str) -> list[str]:
    """The topics through which a topic is made of itself, each read by the next one; empty when it is not.

    ``reads``: of every topic that a job or a view writes, those that it is made of.
    """
    paths, seen = [[topic]], {topic}
    while paths:
        path = paths.pop()
        for each in reads.get(path[0], ()):
            if each == topic:
                return [topic, *path]
            if each not in seen:
                seen.add(each)
                paths.append([each, *path])
    return []


def _time_us(log: Log, commit: int) -> int:
    """A commit's time; that of one that was archived is longer ago than anything that is asked."""
    query = select(tables.commit.c.time).where(tables.commit.c.number == commit)
    with log.catalog.read() as connection:
        return int(connection.execute(query).scalar_one_or_none() or 0)


def _from_json(text: str) -> JobRecord:
    known = {field.name for field in fields(JobRecord)}
    held = {name: value for name, value in json.loads(text).items() if name in known}
    return JobRecord(**{**held, "inputs": tuple(held["inputs"])})
