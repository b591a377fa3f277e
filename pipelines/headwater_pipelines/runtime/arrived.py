"""Change records of one topic on their way into a step.

Those of an ordinary step are in memory. A commit larger than a step is meant to be stays one step all the same: its
records go in pieces to a temporary table, which DuckDB moves to disk when memory is short, and what cannot be done with
all of them in bounded memory is done slice by slice, a slice being all records of a range of the keys' hashes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import pyarrow as pa

from headwater import record
from headwater.types import quote
from headwater_pipelines.runtime.state import ARRIVED, State

SLICE_ROWS = 500_000
"""About so many rows are worked on at once; a larger number takes longer only where it does not fit into memory."""

ALL = "true"
"""The condition of a slice that is the whole."""


@dataclass(frozen=True, kw_only=True)
class Arrived:
    """``ops``: the kinds of change that occur, none of events. ``is_partial``: some values were not sent again."""

    rows: int
    ops: frozenset[str]
    is_partial: bool
    source: str = ARRIVED
    """What statements read the records from."""
    table: pa.Table | None = None
    """The records, where they are in memory."""

    @classmethod
    def of(cls, table: pa.Table) -> Self:
        ops = table.column(record.OP).unique().to_pylist() if record.OP in table.column_names else ()
        partial = record.UNCHANGED in table.column_names and table.column(record.UNCHANGED).null_count < table.num_rows
        return cls(rows=table.num_rows, ops=frozenset(ops), is_partial=partial, table=table)

    def slices(self, keys: Sequence[str]) -> list[str]:
        """SQL conditions on the key's columns (quoted) that divide the records into slices; ALL for those in memory."""
        return [ALL] if self.table is not None else slices(self.rows, keys)


def slices(rows: int, keys: Sequence[str]) -> list[str]:
    """SQL conditions on the values of keys that divide so many rows into slices."""
    count = -(-rows // SLICE_ROWS)
    if count <= 1 or not keys:
        return [ALL]
    return [f"hash({', '.join(keys)}) % {count} = {part}" for part in range(count)]


def spool(state: State, name: str, pieces: Iterable[pa.Table]) -> Arrived:
    """The records of all pieces in the temporary table ``name``."""
    made = Arrived(rows=0, ops=frozenset(), is_partial=False, source=quote(name))
    for piece in pieces:
        verb = f"INSERT INTO {made.source}" if made.rows else f"CREATE OR REPLACE TEMP TABLE {made.source} AS"
        state.temporary(f"{verb} SELECT * FROM {ARRIVED}", piece)
        each = Arrived.of(piece)
        partial = made.is_partial or each.is_partial
        made = replace(made, rows=made.rows + each.rows, ops=made.ops | each.ops, is_partial=partial)
    return made
