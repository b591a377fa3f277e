"""What a view's changelog receives when it is built from many rows."""

from __future__ import annotations

import pyarrow as pa

from headwater.record import WEIGHT
from headwater_pipelines.runtime.difference import combined


def part(*rows: tuple[str | None, float, int]) -> pa.Table:
    schema = pa.schema([("s", pa.string()), ("f", pa.float64()), (WEIGHT, pa.int64())])
    return pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema=schema)


def test_equal_rows_of_a_part_are_one_where_that_is_worth_it() -> None:
    many = part(*[(None, 0.0, 1)] * 5, *[("a", 0.0, 2), ("a", -0.0, 1)] * 5)
    few = part(("a", 1.0, 1), ("b", 1.0, 1), ("b", 1.0, 1))
    first, second = combined([many, few], ["s", "f"])
    assert sorted(map(str, first.to_pylist())) == sorted(
        str({"s": s, "f": f, WEIGHT: w}) for s, f, w in ((None, 0.0, 5), ("a", 0.0, 10), ("a", -0.0, 5))
    )
    assert first.schema == many.schema
    assert second.num_rows == 3 or sum(second.column(WEIGHT).to_pylist()) == 3
    assert list(combined([few, many], ["s", "f"])) == [few, many]


def test_rows_that_cannot_be_compared_are_left_as_they_are() -> None:
    lists = pa.table({"l": pa.array([[1], [1], [1]]), WEIGHT: pa.array([1, 1, 1], pa.int64())})
    assert list(combined([lists, lists], ["l"])) == [lists, lists]
