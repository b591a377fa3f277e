"""Writing a Parquet file through the storage seam: checked pages, zstd, statistics, digest of the whole file."""

from __future__ import annotations

from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from headwater import record
from headwater.schema import Schema
from headwater.storage import FileWriter, Storage

FIELD_ID = b"PARQUET:field_id"
"""Where pyarrow keeps a column's field id: what other engines follow a renamed column by."""

SAMPLE_ROWS = 8_192
UNIQUE_FRACTION = 0.95
"""A column of whose sample more than this is different is written without a dictionary. One of 250,000 unique values is
built, found too large and thrown away: 0.3 of 0.74 µs a row of a table with three such columns. Fewer than some eighty
thousand different values are worth it still."""

PAGE_BYTES = 1024 * 1024
"""A page is closed once it is found to be larger; the writer looks after each ``_rows_at_once``."""
ROWS_AT_ONCE_MAX = 65_536
"""Columns are encoded so many rows at a time (a million rows of 10 columns and their metadata: 0.53 s in steps of
1,024, which is the writer's own choice, 0.51 of 16,384, 0.45 of 65,536)."""

_WRITE_BYTES = 1024 * 1024
"""Pages of small columns are a few hundred bytes each: written together they cost one call."""


def with_ids(schema: pa.Schema, of: Schema) -> pa.Schema:
    """The columns with their field ids: those of the topic's own, and the fixed ones of metadata columns."""
    known = {field.name: field.id for field in of.fields}
    ids = {**record.FIELD_IDS, **known}
    fields = [field.with_metadata({FIELD_ID: str(ids[field.name]).encode()}) for field in schema]
    return pa.schema(fields)


class ParquetFile:
    """One new file; ``finish`` makes it durable. Leaving the block without it removes the file.

    Rows are collected to row groups of ``row_group_rows``; memory is bounded by one of them.
    """

    def __init__(self, storage: Storage, name: str, schema: pa.Schema, row_group_rows: int) -> None:
        self.name = name
        self.rows = 0
        self._row_group_rows = row_group_rows
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self._schema = schema
        self._sink = _Sink(storage.create(name))
        self._writer: pq.ParquetWriter | None = None

    def write(self, table: pa.Table) -> None:
        self._pending.append(table)
        self._pending_rows += table.num_rows
        self.rows += table.num_rows
        if self._pending_rows >= self._row_group_rows:
            self._flush()

    def finish(self) -> tuple[int, str]:
        """Durable from here on; returns size in bytes and digest."""
        self._flush()
        (self._writer or self._begun(record.empty(self._schema))).close()
        self._sink.drain()
        self._sink.writer.seal()
        return self._sink.writer.length, self._sink.digest.hexdigest()

    def __enter__(self) -> ParquetFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sink.writer.open:
            self._sink.writer.discard()
            self._sink.discarded = True

    def _flush(self) -> None:
        if self._pending:
            joined = pa.concat_tables(self._pending)
            writer = self._writer or self._begun(joined)
            writer.write_table(joined, row_group_size=self._row_group_rows)
        self._pending, self._pending_rows = [], 0

    def _begun(self, first: pa.Table) -> pq.ParquetWriter:
        """The writer, which has to know before its first row group which columns repeat themselves."""
        self._writer = pq.ParquetWriter(
            pa.PythonFile(self._sink, mode="w"),
            self._schema,
            compression="zstd",
            use_dictionary=repeated(first) if first.num_rows >= SAMPLE_ROWS else True,
            write_page_checksum=True,
            data_page_size=PAGE_BYTES,
            write_batch_size=_rows_at_once(first),
        )
        return self._writer


class _Sink:
    """What pyarrow writes to: a sequential file that keeps its digest, in calls of a useful size."""

    closed = False
    discarded = False
    """The file is gone; pyarrow still writes a footer when it is collected."""

    def __init__(self, writer: FileWriter) -> None:
        self.writer = writer
        self.digest = xxhash.xxh3_128()
        self._pending = bytearray()

    def write(self, data: bytes) -> int:
        if not self.discarded:
            self._pending += data
            if len(self._pending) >= _WRITE_BYTES:
                self.drain()
        return len(data)

    def drain(self) -> None:
        """Hand everything to the file."""
        self.digest.update(self._pending)
        self.writer.write(self._pending)
        self._pending = bytearray()

    def tell(self) -> int:
        return self.writer.length + len(self._pending)

    def flush(self) -> None:
        """pyarrow asks for it after every page; only ``drain`` at the end matters."""

    def close(self) -> None:
        self.closed = True


def _rows_at_once(table: pa.Table) -> int:
    """As many as a page of the widest column has, of rows like these."""
    widest: int = max((column.nbytes for column in table.columns), default=0) // max(table.num_rows, 1)
    return max(1_024, min(ROWS_AT_ONCE_MAX, PAGE_BYTES // max(widest, 1)))


def repeated(table: pa.Table) -> list[str]:
    """Paths of the columns for which a dictionary pays, by a sample of rows all over the table; nested ones always."""
    rows = pa.array(np.linspace(0, table.num_rows - 1, SAMPLE_ROWS).astype(np.int64))
    paths: list[str] = []
    for field in table.schema:
        if pa.types.is_nested(field.type) or isinstance(field.type, pa.BaseExtensionType):
            paths += _leaves(field.name, field.type)
            continue
        different = pc.count_distinct(table.column(field.name).take(rows), mode="all").as_py()
        if different <= UNIQUE_FRACTION * SAMPLE_ROWS:
            paths.append(field.name)
    return paths


def _leaves(path: str, kind: pa.DataType) -> list[str]:
    """The Parquet columns below a nested one."""
    if isinstance(kind, pa.BaseExtensionType):
        return _leaves(path, kind.storage_type)
    if pa.types.is_map(kind):
        return [*_leaves(f"{path}.key_value.key", kind.key_type), *_leaves(f"{path}.key_value.value", kind.item_type)]
    if pa.types.is_list(kind):
        return _leaves(f"{path}.list.element", kind.value_type)
    if pa.types.is_struct(kind):
        return [leaf for child in kind for leaf in _leaves(f"{path}.{child.name}", child.type)]
    return [path]
