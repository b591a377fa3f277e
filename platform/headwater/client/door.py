"""The door of a topic: what a producer's rows must be to enter, checked by columns, told by row and field.

    frame ──▶ columns of the topic's types ──▶ faults (field, rows, reason) ──▶ refused, or to the dead letters

Nothing of a refused batch enters. The row counts from where the caller counts (``Frame.first``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headwater import default, record
from headwater.catalog.records import Topic
from headwater.client.columns import Rows, file_type
from headwater.client.convert import convert
from headwater.client.frames import Frame
from headwater.client.text import MARK
from headwater.errors import InvalidRecords, UsageError
from headwater.schema import Field, Schema

NAMED_MAX = 10
"""Violations that an error names; it counts the rest."""

VALUE_MAX = 80
"""Characters of a value that a violation shows."""

METADATA = {
    "event": {record.EVENT_AT: "TIMESTAMP WITH TIME ZONE", record.EVENT_ID: "VARCHAR", record.HEADERS: "MAP"},
    "table": {record.OP: "VARCHAR"},
}
"""Metadata columns that a producer may give, by kind of topic; other kinds take no produced records."""

_OPS = ("c", "u", "d")


@dataclass(frozen=True, kw_only=True)
class Violation:
    """Why a row may not enter; ``value`` is how it printed, or empty."""

    row: int
    field: str
    reason: str
    value: str = ""
    unit: str = "row"

    def __str__(self) -> str:
        shown = f": {self.value}" if self.value else ""
        return f"{self.unit} {self.row}, {self.field}{shown} {self.reason}"


@dataclass(frozen=True, kw_only=True)
class _Fault:
    field: str
    rows: Rows
    reason: str


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A batch at the door: ``table`` has all its rows, and NULL where a value did not fit."""

    topic: Topic
    frame: Frame
    table: pa.Table
    faults: Sequence[_Fault]

    @cached_property
    def bad(self) -> Rows:
        """The rows that may not enter, ascending."""
        return (
            np.unique(np.concatenate([fault.rows for fault in self.faults])) if self.faults else np.empty(0, np.int64)
        )

    def good(self) -> pa.Table:
        """The rows that may."""
        if not len(self.bad) and not len(self.frame.skipped):
            return self.table
        keep = np.ones(self.table.num_rows, dtype=bool)
        keep[self.bad] = keep[self.frame.skipped] = False
        return self.table.filter(pa.array(keep))

    def refuse(self) -> None:
        """InvalidRecords when any row may not enter; nothing otherwise."""
        if not self.faults:
            return
        named = self._violations(NAMED_MAX)
        count = sum(len(fault.rows) for fault in self.faults)
        rest = f", and {count - len(named):,} more" if count > len(named) else ""
        raise InvalidRecords(
            f"{len(self.bad):,} of {self.table.num_rows:,} rows do not fit the topic: "
            + "; ".join(map(str, named))
            + rest,
            violations=named,
            count=count,
            where=self.topic.name,
            todo='None of the batch was written; mend the rows, or send with on_error="dead_letter".',
        )

    def letters(self) -> pa.Table:
        """The bad rows as dead letters, one each, with the first reason and field (see ``log.dead_letters``)."""
        found = {violation.row - self.frame.first: violation for violation in reversed(self._violations(None))}
        chosen = [found[int(row)] for row in self.bad]
        originals = self.frame.originals(self.bad)
        columns: dict[str, Any] = {
            "original": pa.array([data for data, _ in originals], pa.binary()),
            "format": [form for _, form in originals],
            "error_class": pa.repeat("InvalidRecords", len(chosen)),
            "error_message": [str(violation) for violation in chosen],
            "error_field": [violation.field for violation in chosen],
            "schema_version": pa.repeat(pa.scalar(self.topic.schema_version, pa.int32()), len(chosen)),
        }
        if record.HEADERS in self.table.column_names:
            columns["headers"] = self.table.column(record.HEADERS).take(pa.array(self.bad))
        return pa.table(columns)

    def _violations(self, most: int | None) -> list[Violation]:
        pairs = [(int(row), fault) for fault in self.faults for row in fault.rows[:most]]
        pairs.sort(key=lambda pair: (pair[0], pair[1].field))
        return [
            Violation(
                row=row + self.frame.first,
                field=fault.field,
                reason=fault.reason,
                value=self._shown(fault.field, row),
                unit=self.frame.unit,
            )
            for row, fault in pairs[:most]
        ]

    def _shown(self, name: str, row: int) -> str:
        given: Any = self.frame.columns.get(name)
        if given is None:
            return ""
        try:
            value = given[row] if isinstance(given, list) else getattr(given, "column", given)[row].as_py()
        except (UnicodeError, ValueError, OverflowError):  # what is wrong with the value is that it has no form
            return "the value"
        if isinstance(value, bytes) and not isinstance(given, list):
            value = value.decode(errors="backslashreplace")
        text = "" if value is None else repr(value).replace(repr(MARK)[1:-1], "")
        return text if len(text) <= VALUE_MAX else text[: VALUE_MAX - 1] + "…"


def require_producible(topic: Topic) -> None:
    """UsageError for a topic that something else writes."""
    if topic.kind in METADATA and topic.source is None and not topic.name.endswith(".dlq"):
        return
    writer = f"source {topic.source}" if topic.source else "headwater itself"
    todo = "Produce to a topic of your own: `headwater topic create`."
    raise UsageError(f"topic {topic.name} is written by {writer}, not by producers", todo=todo)


def check(frame: Frame, topic: Topic, zone: str) -> Checked:
    """Convert every column and look for what may not enter. ``zone`` is that of naive times."""
    faults: list[_Fault] = []
    columns: dict[str, pa.Array] = {}
    kinds = {field.name: field.declared_type for field in topic.schema.fields} | METADATA[topic.kind]
    for name, given in frame.columns.items():
        if name not in kinds:
            faults.append(_Fault(field=name, rows=frame.holding(name), reason="is no column of the topic"))
            continue
        columns[name], bad = convert(given, kinds[name], zone)
        if len(bad):
            kind = "a map of texts" if kinds[name] == "MAP" else kinds[name]
            faults.append(_Fault(field=name, rows=bad, reason=f"does not fit {kind}"))
    missing = [field for field in topic.schema.fields if field.name not in columns and not field.optional]
    for field in missing:
        columns[field.name] = pa.nulls(frame.rows, file_type(field.declared_type))
    table = default.fill(pa.table(columns), topic.schema)
    if topic.kind == "table" and record.OP not in columns:
        table = table.append_column(record.OP, pa.repeat("c", frame.rows))
    faults += _empty(table, topic, faults)
    faults += _too_large(table, topic.settings.record_bytes_max)
    whole = [_Fault(field=field, rows=rows, reason=reason) for field, rows, reason in frame.broken]
    if whole or len(frame.skipped):  # no use in looking for columns there
        told = np.unique(np.concatenate([frame.skipped, *(fault.rows for fault in whole)]))
        faults = [replace(fault, rows=np.setdiff1d(fault.rows, told)) for fault in faults]
    found = [fault for fault in (*whole, *faults) if len(fault.rows)]
    return Checked(topic=topic, frame=frame, table=table, faults=found)


def at_version(frame: Frame, topic: Topic, versions: dict[int, Schema], version: int) -> Frame:
    """A frame made for an older schema version, under the names that its columns have now.

    InvalidRecords when there is no such version, or the topic no longer has one of its columns.
    """
    if version not in versions:
        todo = f"It has the versions {min(versions)} to {max(versions)}."
        raise InvalidRecords(f"there is no schema version {version}", where=topic.name, todo=todo)
    now = {field.name: topic.schema.by_id(field.id) for field in versions[version].fields}
    renamed = {name: field.name for name in frame.columns if (field := now.get(name)) is not None}
    return replace(frame, columns={renamed.get(name, name): given for name, given in frame.columns.items()})


def _empty(table: pa.Table, topic: Topic, before: Sequence[_Fault]) -> list[_Fault]:
    """NULL where there must be none; a value that did not fit is NULL too, and told already."""
    told = {fault.field: fault.rows for fault in before}
    faults = []
    removal: npt.NDArray[np.bool_] | None = None
    columns = dict(zip(table.column_names, table.columns, strict=True))
    for field in topic.schema.fields:
        column = columns[field.name]
        in_key = field.name in topic.schema.key
        if not column.null_count or (field.nullable and not in_key):
            continue
        removal = _removals(table, topic) if removal is None else removal
        rows = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False) & (in_key | ~removal))
        rows = np.setdiff1d(rows, told.get(field.name, []))
        faults.append(_Fault(field=field.name, rows=rows, reason=_why_empty(field, in_key)))
    if topic.kind == "table":
        known = pc.is_in(table.column(record.OP), value_set=pa.array(_OPS)).to_numpy(zero_copy_only=False)
        faults.append(_Fault(field=record.OP, rows=np.flatnonzero(~known), reason=f"is not one of {', '.join(_OPS)}"))
    return faults


def _why_empty(field: Field, in_key: bool) -> str:
    return "is missing in the key" if in_key else f"is missing, and required ({field.declared_type})"


def _removals(table: pa.Table, topic: Topic) -> npt.NDArray[np.bool_]:
    """Rows that say a key is gone: they need no value outside the key."""
    others = [name for name in topic.schema.names if name not in topic.schema.key]
    if topic.kind == "table":
        gone = pc.equal(table.column(record.OP), "d").fill_null(False)
        return np.asarray(gone.to_numpy(zero_copy_only=False), dtype=bool)
    found = np.full(table.num_rows, bool(topic.schema.key) and topic.settings.cleanup != "delete")
    for name in others if found.any() else []:
        found &= table.column(name).is_null().to_numpy(zero_copy_only=False)
    return found


def _too_large(table: pa.Table, most: int) -> list[_Fault]:
    if table.get_total_buffer_size() <= most or table.nbytes <= most:  # the first is quick, and too much for a slice
        return []
    sizes = np.zeros(table.num_rows, dtype=np.int64)
    largest = np.zeros(table.num_rows, dtype=np.int64)
    field = np.zeros(table.num_rows, dtype=np.int64)
    for place, column in enumerate(table.columns):
        size = _sizes(column.combine_chunks())
        sizes += size
        field[size > largest] = place
        largest = np.maximum(largest, size)
    rows = np.flatnonzero(sizes > most)
    reason = f"makes the record larger than {most:,} bytes (record_bytes_max)"
    names = table.column_names
    return [_Fault(field=names[n], rows=rows[field[rows] == n], reason=reason) for n in np.unique(field[rows])]


def _sizes(array: Any) -> npt.NDArray[np.int64]:
    """Bytes of each row of one column, nested ones included."""
    if isinstance(array, pa.ChunkedArray):
        parts = [_sizes(chunk) for chunk in array.chunks]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)
    if isinstance(array, pa.ExtensionArray):
        return _sizes(array.storage)
    kind = array.type
    if pa.types.is_struct(kind):
        return np.asarray(np.sum([_sizes(child) for child in array.flatten()], axis=0), dtype=np.int64)
    if pa.types.is_map(kind):
        array = array.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)])))
        kind = array.type
    if pa.types.is_list(kind):
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        ends = np.concatenate([[0], np.cumsum(_sizes(array.flatten()))])
        stops = np.cumsum(lengths)
        return np.asarray(ends[stops] - ends[stops - lengths], dtype=np.int64)
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return np.asarray(pc.fill_null(pc.binary_length(array), 0).to_numpy(zero_copy_only=False), dtype=np.int64)
    return np.full(len(array), max(1, kind.bit_width // 8), dtype=np.int64)
