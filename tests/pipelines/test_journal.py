"""The outbox: what a step has to publish, kept in the state until it is published."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from headwater_pipelines.runtime.journal import COMPRESSED_BYTES, PAST_ROWS_MAX, Journal, Progress
from headwater_pipelines.runtime.state import FILE, State

PROGRESS = Progress(
    incarnation="x",
    epoch=1,
    number=1,
    input_commit=1,
    instant=pa.scalar(0, pa.timestamp("us", "UTC")).as_py(),
    views=frozenset(),
)


def test_the_outbox_gives_back_what_it_took_and_is_small_where_that_is_much(tmp_path: Path) -> None:
    rows = COMPRESSED_BYTES // 16
    large = pa.table({"text": pa.array(["a row as many others"] * rows), "_weight": pa.array(range(rows), pa.int64())})
    small = large.slice(0, 3).combine_chunks()
    state = State(tmp_path / FILE, timezone="UTC", threads=1)
    journal = Journal(state)
    journal.create(PROGRESS)
    journal.write(replace(PROGRESS, number=2), [(2, small), (1, large), (1, small)])
    found = list(journal.outbox(2))
    assert [(view, table.num_rows) for view, table in found] == [(1, rows), (1, 3), (2, 3)]
    assert found[0][1].equals(large)
    assert found[1][1].equals(small)
    size = state.row("SELECT max(octet_length(body)) FROM steps")
    assert size is not None
    assert size[0] < large.nbytes // 4
    assert journal.read() == replace(PROGRESS, number=2)
    state.close()


def test_steps_that_are_over_are_removed_when_they_are_many(tmp_path: Path) -> None:
    state = State(tmp_path / FILE, timezone="UTC", threads=1)
    journal = Journal(state)
    journal.create(PROGRESS)
    table = pa.table({"_weight": pa.array([1], pa.int64())})
    most = 0
    for number in range(2, PAST_ROWS_MAX):
        step = replace(PROGRESS, number=number, watermarks={3: number}, spilled=number % 2 == 0)
        journal.forget()
        journal.write(step, [(7, table)])
        assert journal.read() == step
        assert [view for view, _ in journal.outbox(number)] == [7]
        most = max(most, (state.row("SELECT count(*) FROM steps") or (0,))[0])
    assert 2 < most <= PAST_ROWS_MAX + 2
    state.close()
