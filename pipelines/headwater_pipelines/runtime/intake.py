"""What the log holds for the pipeline: whole source commits, up to a target of rows per step or one larger commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import bindparam, select, union

from headwater import record
from headwater.catalog import tables
from headwater.catalog.prepared import Prepared
from headwater.catalog.records import Base as StoredBase
from headwater.errors import Expired, PipelineError
from headwater.log import Log, base, expired, repartition
from headwater.types import lift_sql, quote
from headwater_pipelines.compiler.plan import WEIGHT, Base
from headwater_pipelines.runtime import watermark
from headwater_pipelines.runtime.arrived import Arrived, spool
from headwater_pipelines.runtime.bases import Store
from headwater_pipelines.runtime.publish import PRODUCER
from headwater_pipelines.runtime.state import State

PIECE_ROWS = 100_000
"""Records of a commit that is larger than a step is meant to be go to disk in pieces of about so many."""

# Built once: every step asks it.
_CHANGED = Prepared(
    union(
        select(tables.batch.c.topic).where(
            tables.batch.c.commit > bindparam("after"), tables.batch.c.commit <= bindparam("upto")
        ),
        select(tables.segment.c.topic).where(
            tables.segment.c.last_commit > bindparam("after"), tables.segment.c.first_commit <= bindparam("upto")
        ),
    )
)


class RawValue(PipelineError):
    """Records hold a value that the type of a column in use cannot hold; ``topic`` is the base's full name."""


@dataclass(frozen=True)
class Range:
    """Commits in (after, upto]; ``rows`` of source commits among them, 0 when there is nothing to consume."""

    after: int
    upto: int
    rows: int
    commits: int


def next_range(log: Log, after: int, newest: int, rows_target: int) -> Range:
    """The next whole commits, of at most so many rows if there is more than one.

    ``upto`` is a source commit, unless only publish commits were found.
    """
    upto, rows, commits, seen = after, 0, 0, after
    for info in log.commits(after, newest, limit=10_000):
        seen = info.number
        if info.producer == PRODUCER:
            continue
        if info.producer == repartition.PRODUCER and commits:
            break  # what a step reads of a topic belongs to one generation of its partitions
        if commits and rows + info.rows > rows_target:
            break
        upto, rows, commits = info.number, rows + info.rows, commits + 1
    return Range(after, upto if commits else seen, rows, commits)


def changed_topics(log: Log, after: int, upto: int) -> set[int]:
    """Ids of the topics that have records in (after, upto]."""
    with log.catalog.read() as connection:
        return {row.topic for row in _CHANGED.all(connection, {"after": after, "upto": upto})}


def read(log: Log, state: State, stores: Iterable[Store], found: Range, rows_target: int) -> dict[Base, Arrived]:
    """The change records of every stored topic that changed in the range; RawValue names what cannot be held.

    Those of a range of more than ``rows_target`` rows are in temporary tables of the state.
    """
    changed = changed_topics(log, found.after, found.upto)
    return {store.base: _read(log, state, store, found, rows_target) for store in stores if store.base.topic in changed}


def relations(stores: Sequence[Store]) -> set[str]:
    """The stored relations that ``load`` makes of these."""
    found = {table for store in stores for table in store.tables}
    timed = stores[0].base.event_time
    return found | {timed.table, watermark.held(timed)} if timed else found


def load(
    log: Log,
    state: State,
    stores: Sequence[Store],
    upto: int,
    rows_target: int,
    loaded: Callable[[int], None] | None = None,
) -> None:
    """Fill new stored copies, one or all that a watermark follows from, with the topics' rows at ``upto``.

    ``loaded`` hears of every part, how many records it had.
    """
    timed = stores[0].base.event_time
    if timed is None:
        _load(log, state, stores[0], upto, rows_target, loaded)
        return
    watermark.create(state, timed)
    starts = {store: _start(log, state, store, upto) for store in stores}
    watermark.begin(state, timed, stores)
    known = max(starts.values())
    spans = [(part, True) for part in _parts(log, min(starts.values()), known, rows_target)]
    for part, is_past in [*spans, *((part, False) for part in _parts(log, known, upto, rows_target))]:
        changes = {
            store: _read(log, state, store, replace(part, after=max(part.after, starts[store])), rows_target)
            for store in stores
            if starts[store] < part.upto
        }
        arrived = {store: records for store, records in changes.items() if records.rows}
        if arrived:
            watermark.advance(state, timed, arrived, admit=is_past)
        for store, records in arrived.items():
            store.load(state, records)
        for table in relations(stores):
            state.relations[table].settle()
        if loaded:
            loaded(sum(records.rows for records in arrived.values()))
    for table in relations(stores):
        state.relations[table].compact()


def _start(log: Log, state: State, store: Store, upto: int) -> int:
    """Create a stored copy with an event time, and say from where on the log has to be read.

    From the beginning, for what came late is known only from the order in which it came. Where retention has removed
    some of that the newest base is loaded, and all of it, and of what others had until then, counts as in time.
    """
    topic = log.topic(store.base.name)
    store.create(state)
    try:
        with log.catalog.read() as connection:
            expired.require_whole(connection, topic, 0, upto)
    except Expired:
        found = base.newest(log, topic, upto)
        if found is not None:
            _load_base(log, state, store, found)
            return found.commit
    return 0


def _load_base(log: Log, state: State, store: Store, found: StoredBase) -> None:
    lifted = [lift_sql(field.name, field.type) for field in store.schema.fields]
    weight = base.COUNT if store.base.is_bag else "1::BIGINT"
    names = ", ".join(f"{sql} AS {quote(name)}" for name, sql in zip(store.schema.names, lifted, strict=True))
    rows = base.relation_sql(log, log.topic(store.base.name), found)
    state.relations[store.base.table].fill(f"SELECT {names}, {weight} AS {WEIGHT} FROM ({rows})")


def _load(
    log: Log, state: State, store: Store, upto: int, rows_target: int, loaded: Callable[[int], None] | None
) -> None:
    """The topic's newest base, then changes in bounded parts."""
    topic = log.topic(store.base.name)
    found = base.newest(log, topic, upto) if store.base.kind != "history" else None
    store.create(state)
    relation = state.relations[store.base.table]
    start = 0
    if found is not None and store.schema.names:
        _load_base(log, state, store, found)
        start = found.commit
        if loaded:
            loaded(found.rows)
    for part in _parts(log, start, upto, rows_target):
        changes = _read(log, state, store, part, rows_target)
        store.load(state, changes)
        relation.settle()
        if loaded:
            loaded(changes.rows)
    relation.compact()


def _parts(log: Log, after: int, upto: int, rows_target: int) -> Iterator[Range]:
    while after < upto:
        part = next_range(log, after, upto, rows_target)
        end = part.upto if part.upto > after else upto
        yield Range(after, end, part.rows, part.commits)
        after = end


def _read(log: Log, state: State, store: Store, found: Range, rows_target: int) -> Arrived:
    raw = [record.RAW] if store.base.kind != "event" else []
    names = [*store.reads, *raw]
    if found.rows <= rows_target:
        return Arrived.of(_checked(store, log.read_changes(store.base.name, found.after, found.upto, names)))
    pieces = log.read_pieces(store.base.name, found.after, found.upto, names, PIECE_ROWS)
    return spool(state, f"arrived_{store.base.table}", (_checked(store, piece) for piece in pieces))


def _checked(store: Store, changes: pa.Table) -> pa.Table:
    """Records that have no value which a used column cannot hold."""
    if record.RAW not in changes.column_names:
        return changes
    if changes.column(record.RAW).null_count < changes.num_rows:
        _refuse_raw(store, changes.column(record.RAW))
    return changes.drop_columns([record.RAW])


def _refuse_raw(store: Store, column: pa.ChunkedArray) -> None:
    entries = pc.drop_null(column).combine_chunks()
    chunks = entries.chunks if isinstance(entries, pa.ChunkedArray) else [entries]
    names = {name for chunk in chunks for name in chunk.keys.unique().to_pylist()} & set(store.schema.names)
    if names:
        what = f"{store.base.name} has values that column {sorted(names)[0]} cannot hold in any SQL type"
        raise RawValue(what, todo="Mend the value at the source, then `headwater resume`.", topic=store.base.name)
