"""What ``send`` is told beside the rows, as the metadata columns that it stands for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from headwater import record
from headwater.catalog.records import Topic
from headwater.client.frames import Frame
from headwater.errors import UsageError

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Of one send. ``event_id`` is one text for one row, or one of each row; the others as in ``Producer.send``."""

    event_id: str | Sequence[str | None] | None
    event_at: datetime | Sequence[datetime | None] | None
    headers: Mapping[str, str] | None
    traceparent: str | None

    def on(self, frame: Frame, topic: Topic) -> Frame:
        """The rows with these columns; UsageError when there are not as many, or the rows have them already."""
        more: dict[str, Any] = {}
        if self.event_id is not None:
            ids = [self.event_id] if isinstance(self.event_id, str) else list(self.event_id)
            more[record.EVENT_ID] = _as_many(ids, frame.rows, "event_id")
        if self.event_at is not None:
            one = isinstance(self.event_at, datetime)
            times = [self.event_at] * frame.rows if one else list(self.event_at)  # type: ignore[arg-type]
            more[record.EVENT_AT] = _as_many(times, frame.rows, "event_at")
        headers = dict(self.headers or {})
        if self.traceparent is not None:
            if not _TRACEPARENT.fullmatch(self.traceparent):
                raise UsageError(f"{self.traceparent!r} is no W3C traceparent", todo="It looks like 00-<32>-<16>-01.")
            headers["traceparent"] = self.traceparent
        if headers:
            array = pa.array([headers], record.EXPLICIT[record.HEADERS])
            more[record.HEADERS] = pa.chunked_array([pa.repeat(array[0], frame.rows)])
        twice = sorted(more.keys() & frame.columns.keys())
        if twice:
            raise UsageError(f"{twice[0]} is both a column of the rows and an argument", where=topic.name)
        return frame.with_columns(more) if more else frame


def _as_many(values: list[Any], rows: int, what: str) -> list[Any]:
    if len(values) != rows:
        raise UsageError(f"{len(values)} values of {what} for {rows} rows", todo="Give one for each row.")
    return values
