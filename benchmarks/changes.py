"""Change records as they come from the log, out of the rows that they bring."""

from __future__ import annotations

import pyarrow as pa

from headwater import record


def as_changes(rows: pa.Table, op: str) -> pa.Table:
    """The rows with the metadata of one commit's records, all of the same kind of change."""
    count = rows.num_rows
    meta = {
        record.OP: pa.array([op] * count),
        record.WEIGHT: pa.array([1] * count, pa.int64()),
        record.OFFSET: pa.array(range(count), pa.int64()),
        record.PARTITION: pa.array([0] * count, pa.int32()),
        record.UNCHANGED: pa.nulls(count, pa.list_(pa.string())),
        record.LSN: pa.nulls(count, pa.int64()),
        record.SEQ: pa.nulls(count, pa.int64()),
        record.COMMIT: pa.array([1] * count, pa.int64()),
    }
    return pa.table({**dict(zip(rows.column_names, rows.columns, strict=True)), **meta})
