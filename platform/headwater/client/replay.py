"""Reading a stretch of a topic again, apart from every group: at a bounded rate, to a stop, with progress."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Unpack

from headwater.client.batch import Batch
from headwater.client.consumer import Consumer
from headwater.client.options import ReadOptions
from headwater.log import Log


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a replay is. ``total`` counts offsets: where compaction left gaps, fewer records come."""

    done: int
    total: int
    seconds: float

    @property
    def fraction(self) -> float:
        return 1.0 if self.total == 0 else self.done / self.total


class Replay:
    """An iterator of batches over [start, stop). ``progress`` may be asked at any time; a context manager.

    ``stop`` is resolved once, at the beginning, so a replay ends although the topic grows.
    """

    def __init__(self, log: Log, topics: str | Sequence[str], **options: Unpack[ReadOptions]) -> None:
        options.setdefault("stop", "latest")
        self._consumer = Consumer(log, topics, **options)
        self._total = self._consumer.remaining()
        self._begin = time.monotonic()

    def __iter__(self) -> Iterator[Batch]:
        yield from self._consumer

    @property
    def progress(self) -> Progress:
        left = self._consumer.remaining()
        return Progress(done=self._total - left, total=self._total, seconds=time.monotonic() - self._begin)

    def close(self) -> None:
        self._consumer.close()

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
