"""The record layout: names of the metadata columns that accompany a topic's own columns.

An appended table may leave out any metadata column it has no value for; it reads back as NULL. The four
implicit columns are never appended: they follow from where a row was committed and are always readable.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

OP: Final = "_op"
"""``c`` create, ``u`` update, ``d`` delete, ``r`` initial copy, ``t`` truncate (in every partition)."""
WEIGHT: Final = "_weight"
"""Changelogs and multisets: how many copies of the row this change adds (+) or removes (-)."""
COMMITTED_AT: Final = "_committed_at"
EVENT_AT: Final = "_event_at"
EVENT_ID: Final = "_event_id"
LSN: Final = "_lsn"
XID: Final = "_xid"
SEQ: Final = "_seq"
"""Order of the change inside its source transaction."""
BEFORE: Final = "_before"
"""Struct of the old values that the source sent; NULL where it sent none."""
UNCHANGED: Final = "_unchanged"
"""Columns whose value the source did not send because it did not change (TOAST): never a made-up NULL."""
RAW: Final = "_raw"
"""Column name to exact text, for values that the column's type cannot hold."""
HEADERS: Final = "_headers"

OFFSET: Final = "_offset"
PARTITION: Final = "_partition"
COMMIT: Final = "_commit"
INGESTED_AT: Final = "_ingested_at"

_UTC_US = pa.timestamp("us", tz="UTC")

EXPLICIT: Final[dict[str, pa.DataType]] = {
    OP: pa.string(),
    WEIGHT: pa.int64(),
    COMMITTED_AT: _UTC_US,
    EVENT_AT: _UTC_US,
    EVENT_ID: pa.string(),
    LSN: pa.int64(),
    XID: pa.int64(),
    SEQ: pa.int64(),
    UNCHANGED: pa.list_(pa.string()),
    RAW: pa.map_(pa.string(), pa.string()),
    HEADERS: pa.map_(pa.string(), pa.string()),
}
"""Metadata columns that a producer appends, with their type; ``_before`` is a struct of the topic's columns."""

IMPLICIT: Final[dict[str, pa.DataType]] = {
    OFFSET: pa.int64(),
    PARTITION: pa.int32(),
    COMMIT: pa.int64(),
    INGESTED_AT: _UTC_US,
}

METADATA: Final = frozenset(EXPLICIT) | frozenset(IMPLICIT) | {BEFORE}
