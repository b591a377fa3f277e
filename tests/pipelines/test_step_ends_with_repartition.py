"""A step reads one generation of a topic's partitions: a truncate of the new one empties what it read of the old."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from headwater.log import open_log
from headwater.log.repartition import repartition
from headwater.schema import Schema
from headwater.testing.writer import Writer
from headwater_pipelines.runtime.intake import next_range


def test_a_range_ends_before_a_repartition(tmp_path: Path) -> None:
    with open_log(tmp_path / "lake", create=True) as log:
        writer = Writer(log)
        writer.create("shop.public.t", "table", Schema.of({"n": "BIGINT"}, key=["n"]), partitions=2)
        row = pa.table({"n": [1], "_op": ["c"]})
        before = [writer.write("shop.public.t", row).number for _ in range(3)][-1]
        closed = repartition(log, "shop.public.t", 4).number
        after = writer.write("shop.public.t", row).number
        first = next_range(log, 0, log.newest_commit(), 1_000)
        assert (first.upto, first.rows) == (before, 3)
        second = next_range(log, first.upto, log.newest_commit(), 1_000)
        assert (second.after, second.upto, second.rows) == (closed - 1, after, 1)
