"""pgoutput messages to Arrow tables, a whole batch at a time.

    messages ─join─▶ one buffer ─▶ per relation: tuple positions ─walk─▶ cells per column ─decode─▶ table

Python runs once per column, per relation and per rare message (Relation, Truncate), never once per row.
A row's ``_lsn`` is its transaction's commit LSN and ``_seq`` its place in the transaction from 1, so
(``_lsn``, ``_seq``) orders all changes of a source; rows of one table keep the stream's order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headwater import record
from headwater.errors import ShapeChanged, SourceError
from headwater.schema import Schema
from headwater_connectors.postgres.cells import PAD, UNCHANGED, Bools, Bytes, Cells, Int64s, read, walk_tuples
from headwater_connectors.postgres.columns import Column
from headwater_connectors.postgres.relation import Relation, Target
from headwater_connectors.postgres.temporal import MICROS_2000
from headwater_connectors.postgres.transactions import HEADER, XLOG_DATA, Chunk

BEGIN, COMMIT, INSERT, UPDATE, DELETE, TRUNCATE, RELATION = b"BCIUDTR"
_KEY, _OLD, _NEW = b"KON"
_BINARY = ord("b")
_OPS = pa.array(["c", "u", "d"])
_CREATE, _CHANGE, _DELETE = 0, 1, 2

Resolve = Callable[[Relation], Target | None]
"""Called when a relation is announced in a shape not seen before; None means: its changes are not wanted."""


class TextNeeded(SourceError):
    """A binary session sent a type without binary decoder: a column added since the session began."""


@dataclass(frozen=True)
class Batch:
    """Raw messages, headers included, in one padded buffer; ``start`` are the messages' type bytes."""

    buffer: Bytes
    start: Int64s
    end: Int64s

    @classmethod
    def of(cls, chunks: Sequence[Chunk]) -> Batch:
        buffer = np.concatenate([np.frombuffer(data, np.uint8) for data in (*(chunk.data for chunk in chunks), PAD)])
        ends = np.cumsum(np.concatenate([chunk.lengths for chunk in chunks]))
        starts = np.concatenate((np.zeros(1, np.int64), ends[:-1])) + HEADER
        return cls(buffer, starts, ends)

    def message(self, place: int) -> bytes:
        return self.buffer[self.start[place] : self.end[place]].tobytes()


@dataclass
class _Open:
    """A source transaction whose begin is in an earlier batch than its commit."""

    lsn: int
    begin_lsn: int
    xid: int
    committed_at: int
    changes: int


TRANSACTIONS = Schema.of(
    {
        "xid": "BIGINT",
        "begin_lsn": "BIGINT",
        "commit_lsn": "BIGINT",
        "committed_at": "TIMESTAMP WITH TIME ZONE",
        "rows": "BIGINT",
    }
)
"""``<source>.transactions``: one row per source transaction that changed a captured table."""


class Decoder:
    """Stateful over one replication session: relations announced so far, and a transaction still open."""

    def __init__(self, transactions_topic: str, resolve: Resolve) -> None:
        self._transactions_topic = transactions_topic
        self._resolve = resolve
        self._targets: dict[int, Target | None] = {}
        self._relations: dict[int, Relation] = {}
        self._open: _Open | None = None
        self.position = 0
        """End LSN of the last whole transaction decoded."""
        self.committed_at = 0
        """When the source committed it, in microseconds since 1970."""

    def decode(self, chunks: Sequence[Chunk]) -> Iterator[tuple[str, pa.Table]]:
        """(topic, rows) in an order to append in: rows of one topic in stream order, transactions last.

        Lazy: ``resolve`` is called between the pieces, exactly where a shape changes in the stream.
        """
        if not chunks:
            return
        batch = Batch.of(chunks)
        kinds = batch.buffer[batch.start]
        context = _Context.of(batch, kinds, self._open)
        low = 0
        for place in np.flatnonzero((kinds == RELATION) | (kinds == TRUNCATE)).tolist():
            relation = Relation.parse(batch.message(place)) if kinds[place] == RELATION else None
            if relation is not None and self._relations.get(relation.oid) == relation:
                continue
            yield from self._rows(batch, kinds, context, low, place)
            low = place + 1
            if relation is None:
                yield from self._truncates(batch, context, place)
            else:
                self._relations[relation.oid] = relation
                self._targets[relation.oid] = self._resolve(relation)
        yield from self._rows(batch, kinds, context, low, len(kinds))
        transactions = context.transactions(kinds)
        if transactions.num_rows:
            yield self._transactions_topic, transactions
        if context.position:
            self.position = context.position
            self.committed_at = int(context.committed_at[context.transaction[np.flatnonzero(kinds == COMMIT)[-1]]])
        self._open = context.still_open(kinds)

    def _rows(
        self, batch: Batch, kinds: Bytes, context: _Context, low: int, high: int
    ) -> Iterator[tuple[str, pa.Table]]:
        part = kinds[low:high]
        places = low + np.flatnonzero((part == INSERT) | (part == UPDATE) | (part == DELETE))
        if not len(places):
            return
        oids = read(batch.buffer, "u4", batch.start[places] + 1)
        for oid in np.unique(oids).tolist():
            target = self._targets[oid]
            if target is not None:
                yield target.topic, _Rows(batch, kinds, target, places[oids == oid]).table(context)

    def _truncates(self, batch: Batch, context: _Context, place: int) -> Iterator[tuple[str, pa.Table]]:
        message = batch.message(place)
        for at in range(6, len(message), 4):
            target = self._targets[int.from_bytes(message[at : at + 4])]
            if target is not None:
                yield target.topic, _truncate(target, context, place)


@dataclass(frozen=True)
class _Context:
    """Per message: which transaction, and how many changes came before; per transaction: its begin's fields.

    Transaction 0 is the one left open by the batch before.
    """

    transaction: Int64s
    running: Int64s
    lsn: Int64s
    begin_lsn: Int64s
    xid: Int64s
    committed_at: Int64s
    before: Int64s
    position: int

    @classmethod
    def of(cls, batch: Batch, kinds: Bytes, left: _Open | None) -> _Context:
        begins = kinds == BEGIN
        change = (kinds == INSERT) | (kinds == UPDATE) | (kinds == DELETE) | (kinds == TRUNCATE)
        running = np.cumsum(change)
        at = batch.start[begins]
        left = left or _Open(0, 0, 0, 0, 0)
        commits = np.flatnonzero(kinds == COMMIT)
        end_lsn = int(read(batch.buffer, "i8", batch.start[commits[-1:]] + 10)[0]) if len(commits) else 0
        return cls(
            np.cumsum(begins),
            running,
            _after(left.lsn, read(batch.buffer, "i8", at + 1)),
            _after(left.begin_lsn, read(batch.buffer, "i8", at - XLOG_DATA.size + 1)),
            _after(left.xid, read(batch.buffer, "u4", at + 17)),
            _after(left.committed_at, read(batch.buffer, "i8", at + 9) + MICROS_2000),
            _after(-left.changes, running[begins]),
            end_lsn,
        )

    def metadata(self, places: Int64s) -> dict[str, pa.Array]:
        of = self.transaction[places]
        return {
            record.COMMITTED_AT: _utc(self.committed_at[of]),
            record.LSN: pa.array(self.lsn[of]),
            record.XID: pa.array(self.xid[of]),
            record.SEQ: pa.array(self.running[places] - self.before[of]),
        }

    def transactions(self, kinds: Bytes) -> pa.Table:
        """One row per transaction that commits in the batch (schema: ``TRANSACTIONS``)."""
        places = np.flatnonzero(kinds == COMMIT)
        of = self.transaction[places]
        return pa.table(
            {
                "xid": pa.array(self.xid[of]),
                "begin_lsn": pa.array(self.begin_lsn[of]),
                "commit_lsn": pa.array(self.lsn[of]),
                "committed_at": _utc(self.committed_at[of]),
                "rows": pa.array(self.running[places] - self.before[of]),
            }
        )

    def still_open(self, kinds: Bytes) -> _Open | None:
        ends = np.flatnonzero((kinds == BEGIN) | (kinds == COMMIT))
        last = self.transaction[-1]
        if (len(ends) and kinds[ends[-1]] == COMMIT) or (not len(ends) and self.lsn[0] == 0):
            return None
        changes = int(self.running[-1] - self.before[last])
        fields = (self.lsn, self.begin_lsn, self.xid, self.committed_at)
        lsn, begin_lsn, xid, committed_at = (int(field[last]) for field in fields)
        return _Open(lsn, begin_lsn, xid, committed_at, changes)


class _Rows:
    """The changes of one relation in a batch: every tuple sent, old and new, in stream order.

    An update that sends its old tuple has two: its old one, then its new one.
    """

    def __init__(self, batch: Batch, kinds: Bytes, target: Target, places: Int64s) -> None:
        self._target = target
        self._buffer = batch.buffer
        columns = len(target.relation.columns)
        kind = kinds[places]
        marker = batch.buffer[batch.start[places] + 5]
        at = batch.start[places] + 6
        two = (kind == UPDATE) & (marker != _NEW)
        self._place, self._kind, self._marker = places, kind, marker
        self._is_old = kind == DELETE
        self._second: Int64s = np.empty(0, np.int64)
        if two.any():
            at = self._with_old(two, at, columns)
        self._cells, self._sent, _ = walk_tuples(batch.buffer, at, columns)

    def _with_old(self, two: Bools, at: Int64s, columns: int) -> Int64s:
        """Insert the old tuples; returns the positions of all tuples."""
        ends = walk_tuples(self._buffer, at[two], columns)[2]
        copies = 1 + two
        first = np.cumsum(copies) - copies
        self._second = first[two] + 1
        row = np.repeat(np.arange(len(at)), copies)
        self._place, self._kind, self._marker = self._place[row], self._kind[row], self._marker[row]
        self._is_old = self._is_old[row]
        self._is_old[self._second - 1] = True
        at = at[row]
        at[self._second] = ends + 1
        return at

    def table(self, context: _Context) -> pa.Table:
        target = self._target
        if target.kind != "table":
            self._refuse_without_old()
        unchanged = [self._fill_from_old(number) for number in range(len(self._cells))]
        columns = [self._decode(number) for number in range(len(self._cells))]
        kept, op = self._operations()
        rows = None if len(kept) == len(self._place) else pa.array(kept)
        arrays = [column.values if rows is None else column.values.take(rows) for column in columns]
        named = dict(zip(target.names, arrays, strict=True))
        if target.kind == "multiset":
            named[record.WEIGHT] = pa.array(np.where(self._is_old[kept], -1, 1).astype(np.int64))
        else:
            named[record.OP] = _OPS.take(pa.array(op[kept]))
        named |= context.metadata(self._place[kept])
        named |= self._before(columns, kept) | self._unchanged(unchanged, kept) | raw(target.names, columns, kept)
        return pa.table(named)

    def _decode(self, number: int) -> Column:
        kind, cells = self._target.types[number], self._cells[number]
        if not (self._sent[number] == _BINARY).any():
            return kind.text(cells)
        if kind.binary is None:
            raise TextNeeded(
                f"column {self._target.names[number]} has a type that is read as text only",
                where=self._target.topic,
                todo='Set mode = "text" for this source.',
            )
        return kind.binary(cells)

    def _refuse_without_old(self) -> None:
        """A keyless table's old rows must come whole: without them a multiset would silently drift."""
        changed = (self._kind == UPDATE) | (self._kind == DELETE)
        whole = (self._marker == _OLD) if self._target.kind == "multiset" else np.zeros(len(changed), np.bool_)
        if (changed & ~whole).any():
            raise ShapeChanged(
                f"table {self._target.relation.full_name} sends updates that do not carry the old row,"
                " but it was captured without a key",
                where=self._target.topic,
                todo=f"Set ALTER TABLE {self._target.relation.full_name} REPLICA IDENTITY FULL again,"
                " or drop the source and capture it anew.",
            )

    def _fill_from_old(self, number: int) -> Bools | None:
        """Give unchanged values of new tuples their old tuple's; which tuples still lack the value, if any."""
        sent = self._sent[number]
        lacks: Bools = sent == UNCHANGED
        if not lacks.any():
            return None
        second = self._second[lacks[self._second]]
        whole = self._marker[second] == _OLD
        second = second[whole | (number in self._target.key)]
        if len(second):
            cells, old = self._cells[number], second - 1
            assert cells.valid is not None  # an unchanged value is not a sent one
            start, length, valid = cells.start.copy(), cells.length.copy(), cells.valid.copy()
            start[second], length[second], valid[second] = start[old], length[old], valid[old]
            self._cells[number] = Cells(cells.buffer, start, length, valid)
            lacks[second] = False
        return lacks if lacks.any() else None

    def _operations(self) -> tuple[Int64s, npt.NDArray[np.int8]]:
        """Which tuples become rows, and the operation of each tuple."""
        op = np.where(self._kind == INSERT, _CREATE, _CHANGE).astype(np.int8)
        op[self._is_old] = _DELETE
        if not len(self._second):
            return np.arange(len(op)), op
        keep = np.ones(len(op), np.bool_)
        if self._target.kind == "table":
            moved = self._key_changed()
            keep[self._second - 1] = moved
            op[self._second[moved]] = _CREATE
        return np.flatnonzero(keep), op

    def _key_changed(self) -> Bools:
        changed = np.zeros(len(self._second), np.bool_)
        for number in self._target.key:
            new, old = (self._cells[number].take(rows).bytes() for rows in (self._second, self._second - 1))
            changed |= pc.not_equal(new, old).to_numpy(zero_copy_only=False)
        return changed

    def _before(self, columns: list[Column], kept: Int64s) -> dict[str, pa.Array]:
        """Old values, where the whole old row was sent and the row is not a multiset's."""
        if self._target.kind != "table":
            return {}
        source = np.full(len(self._place), -1)
        whole = self._marker == _OLD
        deleted = whole & self._is_old
        source[deleted] = np.flatnonzero(deleted)
        changed = self._second[whole[self._second]]
        source[changed] = changed - 1
        source[changed[np.isin(changed - 1, kept)]] = -1  # a moved row is a create, its old row a delete
        source = source[kept]
        if (source < 0).all():
            return {}
        take = pa.array(np.maximum(source, 0))
        arrays = [column.values.take(take) for column in columns]
        names = list(self._target.names)
        return {record.BEFORE: pa.StructArray.from_arrays(arrays, names, mask=pa.array(source < 0))}

    def _unchanged(self, unchanged: list[Bools | None], kept: Int64s) -> dict[str, pa.Array]:
        lacking = [(name, mask) for name, mask in zip(self._target.names, unchanged, strict=True) if mask is not None]
        if not lacking:
            return {}
        grid = np.stack([mask[kept] for _, mask in lacking], axis=1)
        names = pa.array([name for name, _ in lacking]).take(pa.array(np.nonzero(grid)[1]))
        return {record.UNCHANGED: _lists(names, grid.sum(axis=1))}


def raw(names: Sequence[str], columns: list[Column], kept: Int64s) -> dict[str, pa.Array]:
    """``_raw`` of the rows ``kept``: exact texts of values that no column type holds, if there are any."""
    odd = [(name, column) for name, column in zip(names, columns, strict=True) if len(column.odd)]
    if not odd:
        return {}
    rows = np.concatenate([column.odd for _, column in odd])
    keys = np.repeat([name for name, _ in odd], [len(column.odd) for _, column in odd])
    texts = pa.concat_arrays([column.odd_text for _, column in odd])
    place = np.searchsorted(kept, rows)
    found = np.flatnonzero(kept[np.minimum(place, len(kept) - 1)] == rows)
    if not len(found):
        return {}
    order = found[np.argsort(place[found], kind="stable")]
    counts = np.bincount(place[order], minlength=len(kept))
    offsets = np.concatenate((np.zeros(1, np.int32), np.cumsum(counts))).astype(np.int32)
    keys_ordered = pa.array(keys[order].tolist(), pa.string())
    values = texts.take(pa.array(order))
    return {record.RAW: pa.MapArray.from_arrays(pa.array(offsets), keys_ordered, values)}


def _lists(values: pa.Array, counts: npt.NDArray[Any]) -> pa.ListArray:
    """Lists of these sizes, NULL where empty."""
    offsets = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(counts == 0))


def _truncate(target: Target, context: _Context, place: int) -> pa.Table:
    nulls = {name: pa.nulls(1) for name in target.names}
    weight = {record.WEIGHT: pa.array([0], pa.int64())} if target.kind == "multiset" else {}
    return pa.table({**nulls, record.OP: pa.array(["t"]), **weight, **context.metadata(np.array([place]))})


def _after(first: int, rest: npt.NDArray[Any]) -> Int64s:
    return np.concatenate((np.array([first], np.int64), rest.astype(np.int64)))


def _utc(micros: Int64s) -> pa.Array:
    return pa.array(micros).view(pa.timestamp("us", tz="UTC"))
