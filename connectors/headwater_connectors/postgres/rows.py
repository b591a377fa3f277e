"""The changes of one relation in a batch: from the places of its messages to an Arrow table."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headwater import record
from headwater.errors import SourceError
from headwater_connectors.postgres.batch import DELETE, INSERT, UPDATE, Batch, Context
from headwater_connectors.postgres.cells import Bools, Bytes, Cells, Int64s
from headwater_connectors.postgres.columns import Column
from headwater_connectors.postgres.printing import TextNeeded
from headwater_connectors.postgres.relation import Target
from headwater_connectors.postgres.walk import UNCHANGED, walk_tuples

_KEY, _OLD, _NEW = b"KON"
_BINARY = ord("b")
_OPS = pa.array(["c", "u", "d"])
_CREATE, _CHANGE, _DELETE = 0, 1, 2


class TableUnreadable(SourceError):
    """So many rows of one table cannot be decoded that it is not rows that are wrong. Carries ``oid``."""


@dataclass(frozen=True)
class Letter:
    """A row that could not be decoded: its bytes as the server sent them, why, and where it stood (as text).

    ``format``: ``pgoutput``, a message of the stream, or ``copy``, a row of COPY BINARY.
    """

    oid: int
    format: str
    message: bytes
    error_class: str
    error: str
    facts: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "message": b64encode(self.message).decode()}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Letter:
        return cls(**{**found, "message": b64decode(found["message"])})


class Rows:
    """The changes of one relation in a batch: every tuple sent, old and new, in stream order.

    An update that sends its old tuple has two: its old one, then its new one.
    """

    def __init__(self, batch: Batch, kinds: Bytes, target: Target, places: Int64s) -> None:
        self._target = target
        self._buffer = batch.buffer
        widths = [kind.width for kind in target.types]
        kind = kinds[places]
        marker = batch.buffer[batch.start[places] + 5]
        at = batch.start[places] + 6
        two = (kind == UPDATE) & (marker != _NEW)
        self._place, self._kind, self._marker = places, kind, marker
        self._is_old = kind == DELETE
        self._second: Int64s = np.empty(0, np.int64)
        if two.any():
            at = self._with_old(two, at, widths)
        self._cells, self._sent, _ = walk_tuples(batch.buffer, at, widths)

    def _with_old(self, two: Bools, at: Int64s, widths: list[int]) -> Int64s:
        """Insert the old tuples; returns the positions of all tuples."""
        ends = walk_tuples(self._buffer, at[two], widths)[2]
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

    def table(self, context: Context) -> pa.Table:
        target = self._target
        if target.kind != "table":
            self._refuse_without_old()
        unchanged = [self._fill_from_old(number) for number in range(len(self._cells))]
        columns = [self._decode(number) for number in range(len(self._cells))]
        if target.kind == "table":
            refuse_odd_keys(columns[number] for number in target.key)
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
        if cells.empty:
            return kind.nulls(len(cells))
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
            raise TableUnreadable(
                f"table {self._target.relation.full_name} sends updates that do not carry the old row,"
                " but it was captured without a key",
                where=self._target.topic,
                todo=f"Set ALTER TABLE {self._target.relation.full_name} REPLICA IDENTITY FULL again.",
                oid=self._target.relation.oid,
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


def refuse_odd_keys(columns: Iterable[Column]) -> None:
    """Rows whose key no value of the log's type holds would all be one row. ValueError."""
    odd = next((column.odd_text[0] for column in columns if len(column.odd)), None)
    if odd is not None:
        raise ValueError(f"the key {odd} has no value in the log's type, so the row could not be told from others")


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
    nothing = pa.array(counts == 0)  # NULL, not an empty map
    return {record.RAW: pa.MapArray.from_arrays(pa.array(offsets), keys_ordered, values, mask=nothing)}


def _lists(values: pa.Array, counts: npt.NDArray[Any]) -> pa.ListArray:
    """Lists of these sizes, NULL where empty."""
    offsets = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(counts == 0))


def truncate(target: Target, context: Context, place: int) -> pa.Table:
    nulls = {name: pa.nulls(1) for name in target.names}
    weight = {record.WEIGHT: pa.array([0], pa.int64())} if target.kind == "multiset" else {}
    return pa.table({**nulls, record.OP: pa.array(["t"]), **weight, **context.metadata(np.array([place]))})
