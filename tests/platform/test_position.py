"""Positions in words, by a clock that is moved by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from headwater.errors import NotYet, UsageError
from headwater.log import Log, open_log
from headwater.position import resolve
from headwater.schema import Schema
from headwater.testing.clock import Hand
from headwater.testing.writer import Writer


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def log(tmp_path: Path, clock: Hand) -> Iterator[Log]:
    with open_log(tmp_path / "lake", create=True, clock=clock) as opened:
        yield opened


def test_a_time_ago_is_the_commit_of_that_time(log: Log, clock: Hand) -> None:
    writer = Writer(log)
    writer.create("app.t", "event", Schema.of({"a": "BIGINT"}))
    numbers = []
    for _ in range(3):
        clock.pass_(60)
        numbers.append(writer.write("app.t", pa.table({"a": [1]})).number)
    clock.pass_(30)
    said = {"0s ago": 2, "29 seconds ago": 2, "30s ago": 2, "31 s ago": 1, "1.5 minutes ago": 1, "2 min ago": 0}
    assert {text: resolve(log, text) for text in said} == {text: numbers[place] for text, place in said.items()}
    with pytest.raises(NotYet, match="no commit at or before 2025-12-31T23:03:30"):
        resolve(log, "1 hour ago")
    with pytest.raises(UsageError, match=r"5 fortnights.* has no unit of time"):
        resolve(log, "5 fortnights ago")
    with pytest.raises(UsageError, match=r"long.* is not a time"):
        resolve(log, "long ago")
