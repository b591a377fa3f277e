"""Logical messages: what applications say in their transactions, found and sorted by prefix, a whole batch at a time.

    M, flags, LSN, prefix\\0, length, content

Those of a prefix that the project file names are events; ours are read elsewhere; the others are only counted.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.config import PREFIX_BYTES_MAX
from headwater_connectors.postgres.batch import MESSAGE, Batch, Context
from headwater_connectors.postgres.cells import Bytes, Cells, Int64s, read
from headwater_connectors.postgres.events import Arrived

_PREFIX = 10
"""Bytes of a message before its prefix."""
_OURS = b"headwater."
NAMES_MAX = 100
"""Prefixes that are counted by name; what others send is counted as one."""
OTHERS = "others"


class Ignored:
    """How many messages nobody asked for, by prefix, since the process started."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def add(self, prefixes: pa.Array) -> None:
        """Count messages of these prefixes (bytes), ours excepted."""
        for found in pc.value_counts(prefixes).to_pylist():
            if not found["values"].startswith(_OURS):
                name = found["values"].decode(errors="backslashreplace")
                name = name if name in self.counts or len(self.counts) < NAMES_MAX else OTHERS
                self.counts[name] = self.counts.get(name, 0) + found["counts"]

    def __str__(self) -> str:
        """``audit: 12, cache: 3``"""
        return ", ".join(f"{name}: {count:,}" for name, count in self.counts.items())


def prefixes(buffer: Bytes, at: Int64s, end: Int64s) -> pa.Array:
    """The prefixes of messages whose type bytes are ``at``, as bytes; a longer one is cut where none is looked for."""
    texts = Cells(buffer, at + _PREFIX, np.minimum(end - at - _PREFIX, PREFIX_BYTES_MAX + 1)).bytes()
    lengths = pc.find_substring(texts, pattern=b"\0").to_numpy(zero_copy_only=False).astype(np.int64)
    lengths = np.where(lengths < 0, PREFIX_BYTES_MAX + 1, lengths)
    return Cells(buffer, at + _PREFIX, lengths).bytes()


def arrived(
    batch: Batch, kinds: Bytes, context: Context, topics: Mapping[str, str], ignored: Ignored
) -> Arrived | None:
    """The batch's messages that have a topic, in stream order; the others are counted."""
    places = np.flatnonzero(kinds == MESSAGE)
    if not len(places):
        return None
    at = batch.start[places]
    found = prefixes(batch.buffer, at, batch.end[places])
    known = pa.array([prefix.encode() for prefix in topics], pa.binary())
    which = pc.index_in(found, known)
    mine = which.is_valid().to_numpy(zero_copy_only=False)
    ignored.add(found.filter(which.is_null()))
    if not mine.any():
        return None
    found, places, at = found.filter(pa.array(mine)), places[mine], at[mine]
    content = at + _PREFIX + pc.binary_length(found).to_numpy(zero_copy_only=False) + 1
    payload = Cells(batch.buffer, content + 4, read(batch.buffer, "u4", content).astype(np.int64)).bytes()
    nothing = pa.nulls(len(at), pa.string())
    return Arrived(
        topic=pa.array(list(topics.values()), pa.string()).take(which.drop_null()),
        key=nothing,
        type=found.cast(pa.string()),
        id=nothing,
        payload=payload,
        metadata=context.metadata(places),
        keyed=False,
        home="",
        prefix="",
    )
