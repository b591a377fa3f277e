"""What a consumer hands out: records of one partition, as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Records of one partition in offset order. ``first`` and ``last``: the offsets of the first and last one.

    Columns: the topic's own, then its metadata columns, then ``_offset``, ``_partition``, ``_commit`` and
    ``_ingested_at``. Offsets in between may be missing where the topic is compacted.
    """

    topic: str
    partition: int
    first: int
    last: int
    table: pa.Table
    generation: int = 0
    """In which generation of the group the member got the partition; 0 without a group."""

    def arrow(self) -> pa.Table:
        return self.table

    def pl(self) -> pl.DataFrame:
        import polars as pl

        frame = pl.from_arrow(self.table)
        assert isinstance(frame, pl.DataFrame)
        return frame

    def rows(self) -> list[dict[str, Any]]:
        """The records as dicts: for the edges, not for speed."""
        found: list[dict[str, Any]] = self.table.to_pylist()
        return found

    def __len__(self) -> int:
        return int(self.table.num_rows)
