"""The encoding of one hot batch: an Arrow IPC stream, checked by xxh3 over exactly its bytes.

A hot file is a sequence of such streams; the catalog knows each one's byte range and check sum, so a reader
fetches only the batches it needs and never trusts a byte it has not checked.
"""

from __future__ import annotations

import pyarrow as pa
import xxhash

from headwater.errors import CorruptFile

LARGE_ROWS = 8_192
"""Chunks of so many rows stay as they are, and are written to a buffer of the right size: one that grows, and joined
chunks, are copied once more (100,000 rows: 1.2 ms instead of 4.2). With fewer rows it costs more than it saves."""


def encode(table: pa.Table) -> tuple[memoryview, str]:
    """The stream and its check sum; small chunks are combined, so that a read is of few record batches later."""
    if table.num_rows < LARGE_ROWS:
        sink = pa.BufferOutputStream()
        _write(sink, table.schema, table.combine_chunks().to_batches())
        buffer = sink.getvalue()
    else:
        chunks = max((column.num_chunks for column in table.columns), default=1)
        batches = (table if table.num_rows >= LARGE_ROWS * chunks else table.combine_chunks()).to_batches()
        size = pa.MockOutputStream()
        _write(size, table.schema, batches)
        buffer = pa.allocate_buffer(size.size())
        _write(pa.FixedSizeBufferWriter(buffer), table.schema, batches)
    written = memoryview(buffer)
    return written, digest(written)


def _write(sink: pa.NativeFile, schema: pa.Schema, batches: list[pa.RecordBatch]) -> None:
    with pa.ipc.new_stream(sink, schema) as stream:
        for batch in batches:
            stream.write_batch(batch)


def decode(data: bytes, expected: str, where: str) -> pa.Table:
    """The batch; CorruptFile when its bytes are not the committed ones."""
    check(data, expected, where)
    return pa.ipc.open_stream(pa.py_buffer(data)).read_all()


def check(data: bytes, expected: str, where: str) -> None:
    """CorruptFile unless these are the committed bytes."""
    found = digest(data)
    if found != expected:
        raise CorruptFile(
            f"a stored batch has changed since it was committed (check sum {found}, committed {expected})",
            where=where,
            todo="Restore the file from a backup, then run `headwater verify`.",
        )


def digest(data: bytes | memoryview) -> str:
    """xxh3-128 in hexadecimal."""
    return xxhash.xxh3_128_hexdigest(data)
