"""Which partition a key belongs to: Kafka's murmur2 over the key's canonical bytes, for whole columns at once.

Canonical bytes, the same for every width of a type: integers as 8 bytes big-endian, booleans one byte, text
as UTF-8, uuid as its 16 bytes, everything else as UTF-8 of its text; NULL is empty. A key of several columns
is each column's bytes behind a 4-byte big-endian length. ``partition = (murmur2(bytes) & 0x7fffffff) % n``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_M = np.uint32(0x5BD1E995)
_SEED = 0x9747B28C


def partition_of(keys: Sequence[pa.ChunkedArray], partitions: int) -> npt.NDArray[np.int32]:
    """The partition of every row; ``keys`` are the key columns in key order."""
    data, starts, lengths = _canonical(keys)
    hashes = murmur2(data, starts, lengths)
    return ((hashes & np.uint32(0x7FFFFFFF)) % np.uint32(partitions)).astype(np.int32)


def murmur2(
    data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint32]:
    """murmur2 (seed 0x9747b28c) of ``data[start : start + length]`` for every row, by groups of equal length."""
    result = np.empty(len(starts), dtype=np.uint32)
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        block = data[starts[rows][:, None] + np.arange(length)]
        result[rows] = _murmur2_block(block.astype(np.uint8), int(length))
    return result


def _murmur2_block(block: npt.NDArray[np.uint8], length: int) -> npt.NDArray[np.uint32]:
    with np.errstate(over="ignore"):
        h = np.full(len(block), np.uint32(_SEED) ^ np.uint32(length), dtype=np.uint32)
        whole = length // 4
        words = np.ascontiguousarray(block[:, : whole * 4]).view("<u4").reshape(len(block), whole)
        for place in range(whole):
            k = words[:, place] * _M
            k ^= k >> np.uint32(24)
            h = (h * _M) ^ (k * _M)
        for place in range(length % 4 - 1, -1, -1):
            h ^= block[:, whole * 4 + place].astype(np.uint32) << np.uint32(8 * place)
        if length % 4:
            h *= _M
        h ^= h >> np.uint32(13)
        h *= _M
        h ^= h >> np.uint32(15)
    return h


def _canonical(
    keys: Sequence[pa.ChunkedArray],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    columns = [_column_bytes(column) for column in keys]
    if len(columns) > 1:
        framed: list[pa.Array] = []
        for column in columns:
            sizes = pc.binary_length(column).to_numpy(zero_copy_only=False).astype(">u4")
            framed += [pa.FixedSizeBinaryArray.from_buffers(pa.binary(4), len(sizes), [None, pa.py_buffer(sizes)])]
            framed += [column]
        joined = pc.binary_join_element_wise(
            *[part.cast(pa.large_binary()) for part in framed], pa.scalar(b"", pa.large_binary())
        )
    else:
        joined = columns[0].cast(pa.large_binary())
    return _offsets(joined)


def _column_bytes(column: pa.ChunkedArray) -> pa.Array:
    """One key column as binary, NULL as empty."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    if pa.types.is_integer(array.type):
        values = array.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False).astype(">i8")
        binary = pa.FixedSizeBinaryArray.from_buffers(pa.binary(8), len(values), [None, pa.py_buffer(values)])
    elif pa.types.is_boolean(array.type):
        values = array.fill_null(False).cast(pa.uint8()).to_numpy(zero_copy_only=False)
        binary = pa.FixedSizeBinaryArray.from_buffers(pa.binary(1), len(values), [None, pa.py_buffer(values)])
    elif isinstance(array, pa.ExtensionArray):
        return array.storage.cast(pa.binary()).fill_null(b"")
    elif pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        return array.cast(pa.binary()).fill_null(b"")
    else:
        return array.cast(pa.string()).cast(pa.binary()).fill_null(b"")
    filled = binary.cast(pa.binary())
    return pc.if_else(array.is_null(), pa.scalar(b"", pa.binary()), filled) if array.null_count else filled


def _offsets(
    array: pa.LargeBinaryArray,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    _, offset_buffer, data_buffer = array.buffers()
    ends = np.frombuffer(offset_buffer, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(data_buffer, dtype=np.uint8) if data_buffer is not None else np.empty(0, dtype=np.uint8)
    return data, ends[:-1], np.diff(ends)
