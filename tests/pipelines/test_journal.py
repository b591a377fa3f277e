"""The outbox: what a step has to publish, kept in the state until it is published."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from headwater_pipelines.runtime.journal import COMPRESSED_BYTES, Journal, Progress
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
    journal.add_outbox([(2, 0, small), (1, 1, small), (1, 0, large)])
    found = list(journal.outbox())
    assert [(view, table.num_rows) for view, table in found] == [(1, rows), (1, 3), (2, 3)]
    assert found[0][1].equals(large)
    assert found[1][1].equals(small)
    size = state.row("SELECT max(octet_length(body)) FROM outbox")
    assert size is not None
    assert size[0] < large.nbytes // 4
    journal.clear_outbox()
    assert list(journal.outbox()) == []
    state.close()
