"""Commits, steps and chain entries that have left the catalog, as Parquet: commit segments.

    catalog: the newest commits          commit segments: everything older, one catalog row each

A catalog that kept every commit would grow by gigabytes a week at 50 commits a second. What is archived is
still found by number, time, producer's position and step, at the price of reading a file; it lives as long
as the history that it describes. The chain's digests are not stored: they are recomputed, and the row of the
segment holds the root after its last entry.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, select, update

from headwater.catalog import tables
from headwater.catalog.catalog import put_setting
from headwater.catalog.prepared import Prepared
from headwater.catalog.records import MAX_COMMIT, CommitInfo, Step, to_datetime
from headwater.errors import StorageError
from headwater.log import chain
from headwater.log.parquet import ParquetFile

if TYPE_CHECKING:
    from headwater.log.log import Log

_OLDEST = Prepared(select(func.min(tables.commit.c.number)))
KEEP_COMMITS = 20_000
"""The newest commits stay in the catalog: what readers, steps and producers ask for nearly always."""
ARCHIVE_COMMITS = 100_000
"""At most so many go into one file: bounds the memory of a pass, and what one look-up reads."""
ARCHIVE_COMMITS_MIN = 20_000
"""Fewer are not worth a file."""
ROW_GROUP_ROWS = 20_000

SCHEMA = pa.schema(
    [
        ("seq", pa.int64()),
        ("kind", pa.string()),
        ("number", pa.int64()),
        ("time", pa.int64()),
        ("producer", pa.string()),
        ("position", pa.string()),
        ("removed", pa.binary()),
        ("added", pa.binary()),
        ("rows", pa.int64()),
        ("principal", pa.string()),
        ("client", pa.string()),
        ("step", pa.int64()),
        ("input_commit", pa.int64()),
        ("instant", pa.int64()),
        ("views", pa.string()),
        ("watermarks", pa.string()),
    ]
)
"""One row for each chain entry; ``rows`` and what follows only where it is a commit, ``step`` on only with one."""


def archive(log: Log, keep: int = KEEP_COMMITS, least: int = ARCHIVE_COMMITS_MIN) -> int:
    """Move the oldest commits to commit segments until fewer than ``keep + least`` are left; returns how many moved.

    Commits whose batches are still hot stay, and the newest one: it gives the next its number. The caller owns
    ``maintenance``.
    """
    moved, keep = 0, max(keep, 1)
    while (span := _span(log, keep, least)) is not None:
        moved += _archive(log, *span)
    return moved


def retire(log: Log, floor: int, cut_us: int) -> int:
    """Let commit segments go that describe nothing that is kept; returns how many.

    Such a segment ends before ``floor``, before the first commit of every live batch, segment and base, and before
    the time ``cut_us``. The chain then begins with the root after them, and with a checkpoint of what is live.
    """
    segment, file = tables.commit_segment, tables.file
    with log.catalog.read() as connection:
        first = [floor, *_first_kept(connection)]
        query = select(segment, file.c.digest).join(file, file.c.id == segment.c.file)
        query = query.where(segment.c.last_commit < min(first), segment.c.last_time < cut_us)
        gone = connection.execute(query.order_by(segment.c.first_seq)).all()
    if not gone:
        return 0
    with log.catalog.write() as connection:
        now = log.clock.now_us()
        about = {"number": gone[-1].last_commit, "time": now, "producer": "maintenance"}
        chain.append(connection, "retain", removed=[row.digest for row in gone], **about)
        files = [row.file for row in gone]
        connection.execute(delete(segment).where(segment.c.file.in_(files)))
        connection.execute(update(file).where(file.c.id.in_(files)).values(removed=now))
        put_setting(connection, chain.START, f"{gone[-1].last_seq}:{gone[-1].root.hex()}")
        chain.append(connection, "checkpoint", added=chain.live_digests(connection), **about)
    return len(gone)


def _first_kept(connection: Connection) -> list[int]:
    """The first commit of what is live, where there is any."""
    batch, segment, base, file = tables.batch, tables.segment, tables.base, tables.file
    live = file.c.removed.is_(None)
    queries = (
        select(func.min(batch.c.commit)),
        select(func.min(segment.c.first_commit)).join(file, file.c.id == segment.c.file).where(live),
        select(func.min(base.c.commit)).join(file, file.c.id == base.c.file).where(live),
        select(func.min(tables.tag.c.commit)),
    )
    return [int(found) for query in queries if (found := connection.execute(query).scalar_one()) is not None]


def _span(log: Log, keep: int, least: int) -> tuple[int, int] | None:
    """First and last commit of the next commit segment; None when there is nothing to do."""
    commit, batch = tables.commit, tables.batch
    with log.catalog.read() as connection:
        first, last = connection.execute(select(func.min(commit.c.number), func.max(commit.c.number))).one()
        hot = connection.execute(select(func.min(batch.c.commit))).scalar_one_or_none()
        complete = connection.execute(
            select(func.min(tables.entry.c.number)).where(tables.entry.c.kind == "commit")
        ).scalar_one_or_none()
    if first is None or complete is None:
        return None
    upto = min(last - keep, (hot or MAX_COMMIT) - 1)
    if upto - first + 1 < least:
        return None
    return first, min(upto, first + ARCHIVE_COMMITS - 1)


def _archive(log: Log, first: int, last: int) -> int:
    name = f"data/commits/{first}-{last}-{uuid.uuid4().hex[:12]}.parquet"
    log.storage.make_folder("data/commits")
    with log.catalog.read() as connection:
        rows = _rows(connection, last)
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    with ParquetFile(log.storage, name, SCHEMA, ROW_GROUP_ROWS) as file:
        file.write(table)
        size, digest = file.finish()
    commits = [row for row in rows if row["kind"] == "commit"]
    steps = [row["step"] for row in commits if row["step"] is not None]
    with log.catalog.write() as connection:
        now = log.clock.now_us()
        entry = tables.entry
        end = select(entry.c.digest).where(entry.c.seq == rows[-1]["seq"])
        root = connection.execute(end).scalar_one_or_none() or chain.GENESIS
        chain.append(connection, "archive", number=last, time=now, producer="maintenance", added=[digest])
        found = connection.execute(
            insert(tables.file)
            .values(path=name, kind="commits", bytes=size, digest=digest, created=now)
            .returning(tables.file.c.id)
        ).scalar_one()
        connection.execute(
            insert(tables.commit_segment).values(
                file=found,
                first_seq=rows[0]["seq"],
                last_seq=rows[-1]["seq"],
                first_commit=first,
                last_commit=last,
                first_time=commits[0]["time"] if commits else 0,
                last_time=commits[-1]["time"] if commits else 0,
                first_step=min(steps, default=None),
                last_step=max(steps, default=None),
                root=root,
            )
        )
        connection.execute(delete(tables.commit).where(tables.commit.c.number <= last))
        connection.execute(delete(entry).where(entry.c.seq <= rows[-1]["seq"]))
        step = tables.step
        newest = select(func.max(step.c.number)).scalar_subquery()  # it stays: every reader of a view asks for it
        connection.execute(delete(step).where(step.c.publish_commit <= last, step.c.number < newest))
    return last - first + 1


def _rows(connection: Connection, last: int) -> list[dict[str, Any]]:
    """Every entry up to the one of commit ``last``, with what the catalog knows of it; in the chain's order.

    Commits older than the chain (a lake of an earlier release) come first, as entries of sequence 0.
    """
    entry, commit, step, views = tables.entry, tables.commit, tables.step, tables.view_set
    about = (
        commit.c.rows,
        commit.c.principal,
        commit.c.client,
        step.c.number.label("step"),
        step.c.input_commit,
        step.c.instant,
        views.c.views,
        step.c.watermarks,
    )
    found = commit.join(step, step.c.publish_commit == commit.c.number, isouter=True).join(
        views, views.c.id == step.c.view_set, isouter=True
    )
    end = select(entry.c.seq).where(entry.c.kind == "commit", entry.c.number == last).scalar_subquery()
    chained = (
        select(entry, *about)
        .select_from(entry.join(found, (entry.c.kind == "commit") & (entry.c.number == commit.c.number), isouter=True))
        .where(entry.c.seq <= end)
        .order_by(entry.c.seq)
    )
    known = select(entry.c.number).where(entry.c.kind == "commit")
    older = (
        select(commit.c.number, commit.c.time, commit.c.producer, commit.c.position, *about)
        .select_from(found)
        .where(commit.c.number <= last, commit.c.number.not_in(known))
        .order_by(commit.c.number)
    )
    bare = {"seq": 0, "kind": "commit", "removed": b"", "added": b""}
    rows = [{**bare, **row._mapping} for row in connection.execute(older)]
    return rows + [_plain(row) for row in connection.execute(chained)]


def _plain(row: Row[Any]) -> dict[str, Any]:
    values = dict(row._mapping)
    del values["digest"]  # recomputed by whoever verifies
    return values


# ---- reading what was archived


def _are_commits() -> pc.Expression:
    """Made when it is needed: pyarrow imports pandas for its first scalar."""
    return pc.field("kind") == "commit"


def oldest_kept(connection: Connection) -> int:
    """The first commit that the catalog still holds; older ones are in commit segments."""
    return int(_OLDEST.value(connection) or 0)


def commits(log: Log, after: int, upto: int, limit: int) -> list[CommitInfo]:
    """Archived commits in (after, upto], oldest first, at most ``limit``."""
    segment = tables.commit_segment
    paths = _paths(log, (segment.c.last_commit > after) & (segment.c.first_commit <= upto))
    number = pc.field("number")
    return [_info(row) for row in _read(log, paths, _are_commits() & (number > after) & (number <= upto), limit=limit)]


def commit_at_time(log: Log, micros: int) -> int:
    """The newest archived commit at or before a time; 0 when there is none."""
    paths = _paths(log, tables.commit_segment.c.first_time <= micros)[-1:]
    rows = _read(log, paths, _are_commits() & (pc.field("time") <= micros), newest=True)
    return int(rows[0]["number"]) if rows else 0


def positions(log: Log, producer: str) -> Iterator[list[tuple[int, str | None]]]:
    """The archived commits of a producer with their positions, oldest first: one list a file, newest file first."""
    for path in reversed(_paths(log, tables.commit_segment.c.last_commit > 0)):
        rows = _read(log, [path], _are_commits() & (pc.field("producer") == producer))
        yield [(row["number"], row["position"]) for row in rows]


def steps(log: Log, after: int, upto: int) -> list[Step]:
    """Archived steps with a number in (after, upto], oldest first."""
    segment = tables.commit_segment
    paths = _paths(log, (segment.c.last_step > after) & (segment.c.first_step <= upto))
    step = pc.field("step")
    return [_step(row) for row in _read(log, paths, (step > after) & (step <= upto))]


def last_step(log: Log, at: int, views: frozenset[int] = frozenset()) -> Step | None:
    """The newest archived step published at or before commit ``at`` that refreshed all of ``views``."""
    segment = tables.commit_segment
    wanted = {str(view) for view in views}
    for path in reversed(_paths(log, (segment.c.first_commit <= at) & segment.c.first_step.is_not(None))):
        for row in reversed(_read(log, [path], pc.field("step").is_valid() & (pc.field("number") <= at))):
            if wanted <= set(row["views"].split(",")):
                return _step(row)
    return None


def _paths(log: Log, condition: ColumnElement[bool]) -> list[str]:
    """Files of the commit segments that meet a condition, oldest first."""
    segment, file = tables.commit_segment, tables.file
    query = select(file.c.path).join(segment, segment.c.file == file.c.id).where(condition)
    with log.catalog.read() as connection:
        return [str(row.path) for row in connection.execute(query.order_by(segment.c.first_commit))]


def _read(
    log: Log, paths: list[str], where: pc.Expression, limit: int | None = None, *, newest: bool = False
) -> list[dict[str, Any]]:
    """Rows of these files in the order of commits, or the newest one alone; a damaged file is named by CorruptFile."""
    if not paths:
        return []
    try:
        parts = [pq.read_table(log.storage.path(path), filters=where) for path in paths]
        found = pa.concat_tables(parts)
        rows: list[dict[str, Any]] = (found.slice(max(0, found.num_rows - 1)) if newest else found[:limit]).to_pylist()
    except (pa.ArrowException, OSError) as error:
        with log.catalog.read() as connection:
            named = connection.execute(select(tables.file).where(tables.file.c.path.in_(paths))).all()
        for file in named:
            log.storage.check(file.path, file.bytes, file.digest)
        raise StorageError(str(error).splitlines()[0], where=", ".join(paths)) from error
    return rows


def _info(row: dict[str, Any]) -> CommitInfo:
    return CommitInfo(
        number=row["number"],
        time=to_datetime(row["time"]),
        producer=row["producer"],
        position=row["position"],
        rows=row["rows"],
    )


def _step(row: dict[str, Any]) -> Step:
    return Step(
        number=row["step"],
        input_commit=row["input_commit"],
        publish_commit=row["number"],
        instant=to_datetime(row["instant"]),
        views=frozenset(int(part) for part in row["views"].split(",") if part),
        watermarks=Step.watermarks_of(row["watermarks"]),
    )
