"""Which partition a key belongs to: Kafka's murmur2 over the key's canonical bytes, for whole columns at once.

    partition = (murmur2(bytes) & 0x7fffffff) % partitions

Canonical bytes, the same for every width of a type and fixed for ever (docs/topics.md has test vectors):

    integers          8 bytes big-endian, two's complement     text, JSON       UTF-8
    booleans          1 byte, 0 or 1                           uuid, blob       the bytes
    numbers, times    UTF-8 of the text below                  NULL             nothing
    struct            as a key of several columns              list             as a key of its elements

A key of several columns is each column's bytes behind their length (4 bytes, big-endian). Texts: a decimal with all
digits of its scale, ``0.00`` without a sign; a float as briefly as tells it apart (``0.1``, ``1e+300``), negative zero
as zero; ``2024-02-29``; ``01:02:03.000004``; ``2024-02-29 01:02:03.000004``, with ``Z`` behind it for a time with zone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_M = np.uint32(0x5BD1E995)
_SEED = np.uint32(0x9747B28C)
_POSITIVE = np.uint32(0x7FFFFFFF)

BLOCK_ROWS = 1 << 15
"""Keys hashed at a time: what a step of the hash reads and writes stays in the processor's cache."""

_PAD = bytes(3)
"""Behind the keys' bytes, so that four can be read at every one of them."""


def partition_of(keys: Sequence[pa.ChunkedArray], partitions: int) -> npt.NDArray[np.int32]:
    """The partition of every row; ``keys`` are the key columns in key order."""
    return ((hashes(keys) & _POSITIVE) % np.uint32(partitions)).astype(np.int32)


def hashes(keys: Sequence[pa.ChunkedArray]) -> npt.NDArray[np.uint32]:
    """murmur2 of every row's key."""
    columns = [_one_array(column) for column in keys]
    if len(columns) == 1 and pa.types.is_integer(columns[0].type) and not columns[0].null_count:
        return _blocks(_integers(columns[0]).view("<u4").reshape(-1, 2))
    return murmur2(*_spans(_canonical(columns[0]) if len(columns) == 1 else _framed(columns)))


def murmur2(
    data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint32]:
    """murmur2 (seed 0x9747b28c) of ``data[start : start + length]`` for every row."""
    result = np.empty(len(starts), dtype=np.uint32)
    padded = np.frombuffer(data.tobytes() + _PAD, dtype=np.uint8)
    words = np.ndarray((len(data),), "<u4", padded, strides=(1,))  # the four bytes from each place on
    for begin in range(0, len(starts), BLOCK_ROWS):
        block = slice(begin, begin + BLOCK_ROWS)
        longest_first = np.argsort(-lengths[block], kind="stable")
        found = _hash(padded, words, starts[block][longest_first], lengths[block][longest_first])
        result[block.start + longest_first] = found
    return result


def _hash(
    data: npt.NDArray[np.uint8],
    words: npt.NDArray[np.uint32],
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
) -> npt.NDArray[np.uint32]:
    """The hash of rows in falling order of length, so that those with another word are always the first ones."""
    h = _SEED ^ lengths.astype(np.uint32)
    whole, rest = lengths // 4, lengths % 4
    for place in range(int(whole[0])):
        count = np.searchsorted(-whole, -place)  # rows with more than ``place`` words
        _mix(h[:count], words[starts[:count] + 4 * place])
    for place in range(3):
        rows = np.flatnonzero(rest > place)
        h[rows] ^= data[starts[rows] + 4 * whole[rows] + place].astype(np.uint32) << np.uint32(8 * place)
    h[rest > 0] *= _M
    return _finish(h)


def _blocks(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """The hash of rows that are all the same number of words."""
    result = np.empty(len(words), dtype=np.uint32)
    for begin in range(0, len(words), BLOCK_ROWS):
        block = words[begin : begin + BLOCK_ROWS]
        h = np.full(len(block), _SEED ^ np.uint32(4 * words.shape[1]), dtype=np.uint32)
        for place in range(words.shape[1]):
            _mix(h, block[:, place].copy())
        result[begin : begin + BLOCK_ROWS] = _finish(h)
    return result


def _mix(h: npt.NDArray[np.uint32], k: npt.NDArray[np.uint32]) -> None:
    k *= _M
    k ^= k >> np.uint32(24)
    k *= _M
    h *= _M
    h ^= k


def _finish(h: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    h ^= h >> np.uint32(13)
    h *= _M
    h ^= h >> np.uint32(15)
    return h


def _one_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # of an extension type
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    return array.storage if isinstance(array, pa.ExtensionArray) else array


def _framed(columns: Sequence[pa.Array]) -> pa.Array:
    """Each column's bytes behind their length, one after the other."""
    parts: list[pa.Array] = []
    for column in columns:
        value = _canonical(column)
        parts += [_lengths(value), value]
    return pc.binary_join_element_wise(*parts, pa.scalar(b"", pa.large_binary()))


def _lengths(value: pa.Array) -> pa.Array:
    sizes = pc.binary_length(value).to_numpy(zero_copy_only=False).astype(">u4")
    return _fixed(sizes, 4).cast(pa.large_binary())


def _canonical(array: pa.Array) -> pa.Array:
    """One key column as bytes, NULL as none."""
    kind = array.type
    if pa.types.is_integer(kind):
        found = _fixed(_integers(array.fill_null(0)), 8)
    elif pa.types.is_boolean(kind):
        found = _fixed(array.fill_null(False).cast(pa.uint8()).to_numpy(), 1)
    elif pa.types.is_struct(kind):
        found = _framed([_one_array(child) for child in array.flatten()])
    elif pa.types.is_list(kind):
        value = _canonical(_one_array(array.flatten()))
        framed = pc.binary_join_element_wise(_lengths(value), value, pa.scalar(b"", pa.large_binary()))
        sizes = array.value_lengths().fill_null(0).to_numpy()
        offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32))
        found = pc.binary_join(pa.ListArray.from_arrays(offsets, framed), pa.scalar(b"", pa.large_binary()))
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        found = array
    else:
        positive = pc.add(array, pa.scalar(0.0, kind)) if pa.types.is_floating(kind) else array  # -0.0 + 0.0 is 0.0
        found = positive.cast(pa.string())
    found = found.cast(pa.large_binary())
    if not array.null_count:
        return found
    return pc.if_else(array.is_null(), pa.scalar(b"", pa.large_binary()), found)


def _integers(array: pa.Array) -> npt.NDArray[np.int64]:
    """Integers of any width, signed or not, as big-endian 64-bit words."""
    values = array.to_numpy(zero_copy_only=False)
    wide = values.astype(np.uint64).view(np.int64) if values.dtype.kind == "u" else values.astype(np.int64)
    big: npt.NDArray[np.int64] = wide.astype(">i8")
    return big


def _fixed(values: npt.NDArray[np.generic], width: int) -> pa.Array:
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(values), [None, pa.py_buffer(values)])


def _spans(
    array: pa.LargeBinaryArray,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """An array's bytes, and where each value begins and how long it is."""
    _, offset_buffer, data_buffer = array.buffers()
    ends = np.frombuffer(offset_buffer, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(data_buffer, dtype=np.uint8) if data_buffer is not None else np.empty(0, dtype=np.uint8)
    return data, ends[:-1], np.diff(ends)
