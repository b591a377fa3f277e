"""The encoding of one hot batch: an Arrow IPC stream, checked by xxh3 over exactly its bytes.

A hot file is a sequence of such streams; the catalog knows each one's byte range and check sum, so a reader
fetches only the batches it needs and never trusts a byte it has not checked.
"""

from __future__ import annotations

import pyarrow as pa
import xxhash

from headwater.errors import CorruptFile


def encode(table: pa.Table) -> tuple[memoryview, str]:
    """The stream and its check sum; chunks are combined, so one record batch is one read later."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        for batch in table.combine_chunks().to_batches():
            stream.write_batch(batch)
    buffer = memoryview(sink.getvalue())
    return buffer, digest(buffer)


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
