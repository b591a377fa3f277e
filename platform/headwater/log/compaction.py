"""Compaction of an event topic: of each key's records only the newest stays. Offsets never change or move.

    k1@0 k2@1 k1@2 k3@3 k2(NULL)@4   ──compact──▶   k1@2 k3@3 k2(NULL)@4   ──later──▶   k1@2 k3@3

A record whose columns outside the key are all NULL is a tombstone: it says that its key is gone, and goes itself
once it is older than ``delete_retention_s``, so that a reader less far behind sees it. Tables and changelogs need
none of this: their bases hold the newest rows, and retention removes what is behind them.

A pass takes a partition's segments from the beginning, up to a number of records, and finds each key's newest
offset in DuckDB (which spills); the offsets that stay are one sorted array of 8 bytes each, and the records are
copied some at a time. The newest records, and everything that somebody reads or named, are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from headwater import duck, record
from headwater.catalog.records import Segment, Topic, to_datetime
from headwater.config import MIB, Settings
from headwater.errors import CorruptFile
from headwater.log import merge, quarantine, read
from headwater.log.parquet import ParquetFile
from headwater.types import quote

if TYPE_CHECKING:
    from headwater.log.log import Log

Offsets = npt.NDArray[np.int64]


def compact(log: Log, topic: Topic, upto: int, settings: Settings, *, force: bool = False) -> int:
    """Compact what is due of a topic's records of commits up to ``upto``; returns how many records went.

    ``upto`` is the newest commit that nobody needs whole (see ``retention.readable``). Partitions with too few
    new records are skipped unless ``force``. The caller owns ``maintenance``.
    """
    if not topic.schema.key or topic.settings.cleanup == "delete":
        return 0
    aged = log.commit_at_time(to_datetime(log.clock.now_us() - int(topic.settings.compaction_lag_s * 1e6)))
    live = [s for s in merge.live(log, topic.id) if s.last_commit <= min(upto, aged)]
    gone = 0
    left_alone = quarantine.partitions(log)
    for partition in sorted({segment.partition for segment in live}):
        mine = _pass([s for s in live if s.partition == partition], settings.compact_rows_max)
        if (topic.id, partition) not in left_alone and (force or _is_due(mine, settings.compact_dirty_fraction)):
            with suppress(CorruptFile):  # it is in quarantine now; the other partitions are compacted
                gone += _compact(log, topic, mine, settings)
    return gone


def _pass(segments: Sequence[Segment], rows_max: int) -> list[Segment]:
    """The segments of one pass: from the partition's beginning, at least one."""
    taken: list[Segment] = []
    for segment in segments:
        if taken and sum(s.rows for s in taken) + segment.rows > rows_max:
            break
        taken.append(segment)
    return taken


def _is_due(segments: Sequence[Segment], dirty_fraction: float) -> bool:
    rows = sum(segment.rows for segment in segments)
    dirty = sum(segment.rows for segment in segments if segment.compacted is None)
    return rows > 0 and dirty >= dirty_fraction * rows


def _compact(log: Log, topic: Topic, segments: Sequence[Segment], settings: Settings) -> int:
    """One pass over one partition: write what stays, swap, report what went."""
    read.check_files(log, segments)
    kept = _kept(log, topic, segments, settings)
    old = sum(segment.rows for segment in segments)
    if len(kept) == old and all(segment.compacted is not None for segment in segments):
        return 0
    newest = log.newest_commit()
    new = [_write(log, group, kept, newest, settings) for group in _groups(segments)]
    merge.replace(log, segments, new, "compact")
    return old - len(kept)


def _kept(log: Log, topic: Topic, segments: Sequence[Segment], settings: Settings) -> Offsets:
    """The offsets that stay, ascending: each key's newest, but for tombstones that were seen long enough."""
    plan = read.Plan(
        topic=topic,
        after=0,
        upto=max(segment.last_commit for segment in segments),
        batches=(),
        segments=tuple(segments),
        schemas={**log.schemas(topic), topic.schema_version: topic.schema},
    )
    source, _ = read.scan_sql(log, plan, "hot_rows")
    keys = ", ".join(quote(name) for name in topic.schema.key)
    others = [quote(name) for name in topic.schema.names if name not in topic.schema.key]
    void = " AND ".join(f"{name} IS NULL" for name in others) or "false"
    cut = to_datetime(log.clock.now_us() - int(topic.settings.delete_retention_s * 1e6))
    sql = (
        f"SELECT max({record.OFFSET}) AS place,"
        f" arg_max({void} AND {record.INGESTED_AT} < $cut, {record.OFFSET}) AS gone"
        f" FROM ({source}) GROUP BY {keys}"
    )
    limit = f"{settings.maintenance_memory_bytes_max // MIB}MiB"
    spill = log.storage.path("state/spill")  # DuckDB makes it, and removes what it spills
    with duck.connect(timezone=log.timezone, memory_limit=limit, temp_directory=spill, for_files=True) as connection:
        offsets = connection.sql(f"SELECT place FROM ({sql}) WHERE NOT gone ORDER BY place", params={"cut": cut})
        batches = [batch.column(0).to_numpy() for batch in offsets.to_arrow_reader(merge.READ_ROWS)]
    return np.concatenate(batches).astype(np.int64) if batches else np.empty(0, dtype=np.int64)


def _groups(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Neighbours of one schema version: each group becomes one segment."""
    group: list[Segment] = []
    for segment in segments:
        if group and segment.schema_version != group[0].schema_version:
            yield group
            group = []
        group.append(segment)
    yield group


def _write(log: Log, group: Sequence[Segment], kept: Offsets, newest: int, settings: Settings) -> Segment:
    """The records of the group that stay, as one durable segment that covers the same offsets."""
    name = merge.new_name(group[0])
    schema = pq.read_schema(log.storage.path(group[0].path))
    with ParquetFile(log.storage, name, schema, settings.row_group_rows) as file:
        for table in merge.records(log, group):
            stays = _among(table.column(record.OFFSET), kept)
            file.write(table.filter(pa.array(stays)))
        size, digest = file.finish()
    return merge.merged(group, path=name, rows=file.rows, size=size, digest=digest, compacted=newest)


def _among(offsets: pa.ChunkedArray, kept: Offsets) -> npt.NDArray[np.bool_]:
    """Whether each offset is in the sorted ``kept``."""
    wanted = offsets.to_numpy()
    places = np.searchsorted(kept, wanted)
    inside = places < len(kept)
    found = np.zeros(len(wanted), dtype=np.bool_)
    found[inside] = kept[places[inside]] == wanted[inside]
    return found
