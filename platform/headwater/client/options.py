"""What ``Lake.consumer`` takes beside topics and group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

from headwater.client.locate import Where


class ReadOptions(TypedDict, total=False):
    """Of any reading.

    start: where to begin without offsets: "earliest", "latest", or after a position (``commit:42``, a time).
    stop: end at "latest" (as it is now) or at a position. A consumer's default: wait for more.
    batch_rows: records in a batch, at most.
    columns: only these columns, and ``_offset``.
    rate: records a second, at most.
    """

    start: Where
    stop: Where | None
    batch_rows: int
    columns: Sequence[str] | None
    rate: float | None


class ConsumerOptions(ReadOptions, total=False):
    """Of a consumer.

    auto_commit: store what is finished once a second and on ``close``; default True.
    on_expired: when retention has removed what comes next, go on at the "earliest" record, or "error": Expired.
    lease_s: a member that is silent for so long loses its partitions to the others.
    max_poll_s: ... and one that has not polled for so long.
    """

    auto_commit: bool
    on_expired: Literal["earliest", "error"]
    lease_s: float
    max_poll_s: float
