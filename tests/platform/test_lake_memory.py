"""What a lake's DuckDB keeps stays the same however many questions are asked."""

from __future__ import annotations

import ctypes

import pyarrow as pa
import pytest

from headwater.lake import Lake, memory, open_lake
from headwater.log import Log
from headwater.schema import Schema
from headwater.testing.writer import Writer

JOINED = "SELECT count(*) FROM t WHERE a IN (SELECT range * {step} FROM range(20))"
"""A hash join leaves 16 blocks behind, 2.8 KB of notes."""


class MallInfo(ctypes.Structure):
    """glibc's ``struct mallinfo2``."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


def allocated() -> int:
    """Bytes that are allocated, not free for the next who asks: in all arenas of malloc, and by maps of their own."""
    ask = ctypes.CDLL("libc.so.6").mallinfo2
    ask.restype = MallInfo
    info = ask()
    return int(info.uordblks + info.hblkhd)


def ask(lake: Lake, times: int) -> None:
    for step in range(times):
        lake.sql(JOINED.format(step=step + 1)).fetchall()


@pytest.fixture
def filled(log: Log, writer: Writer) -> Log:
    writer.create("app.public.t", "table", Schema.of({"a": "BIGINT", "b": "VARCHAR"}, key=["a"]))
    writer.write("app.public.t", pa.table({"a": range(5_000), "b": ["x"] * 5_000, "_op": ["c"] * 5_000}))
    return log


def test_questions_leave_nothing_behind(filled: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "QUESTIONS_BETWEEN_SWEEPS", 50)
    with open_lake(filled.folder) as lake:
        ask(lake, 200)
        before = allocated()
        ask(lake, 600)
        assert allocated() - before < 600 * 1_000


def test_a_sweep_changes_neither_rows_nor_the_limit(filled: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = "SELECT current_setting('memory_limit')"
    with open_lake(filled.folder) as lake:
        before = lake.sql(limit).fetchall()
        monkeypatch.setattr(memory, "QUESTIONS_BETWEEN_SWEEPS", 1)
        assert lake.sql("SELECT count(*), sum(a), min(b) FROM t").fetchall() == [(5_000, 12_497_500, "x")]
        assert lake.sql(limit).fetchall() == before
