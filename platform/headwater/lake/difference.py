"""What rows a query's answer gained and lost between two positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from headwater import duck
from headwater.config import MIB, Settings
from headwater.errors import UsageError
from headwater.lake.result import Asked, Result, Rows
from headwater.record import WEIGHT
from headwater.types import quote

if TYPE_CHECKING:
    from headwater.lake.lake import Lake
    from headwater.position import Position


def difference(lake: Lake, query: str, since: Position, until: Position) -> Result:
    """See ``Lake.diff``."""
    before, after = lake.sql(query, at=since), lake.sql(query, at=until)
    if (before.columns, before.types) != (after.columns, after.types):
        raise UsageError(
            f"the answer has other columns at commit {before.position} than at commit {after.position}",
            todo="Name the columns that both have, with their types, in the query.",
        )
    limit = f"{Settings().query_memory_bytes_max // MIB}MiB"
    with duck.connect(timezone=lake.log.timezone, memory_limit=limit) as own:
        own.register("before", before.arrow())
        own.register("after", after.arrow())
        columns = ", ".join(quote(name) for name in before.columns)
        both = f"SELECT *, 1::BIGINT AS {WEIGHT} FROM after UNION ALL SELECT *, -1::BIGINT FROM before"
        found = own.sql(
            f"SELECT sum({WEIGHT})::BIGINT AS {WEIGHT}, {columns} FROM ({both}) GROUP BY {columns}"
            f" HAVING sum({WEIGHT}) <> 0 ORDER BY {columns}, {WEIGHT}"
        )
        table, types = found.to_arrow_table(), [str(kind) for kind in found.types]
    rows = Rows(table, table.num_rows)
    told = _notices(table, before, after)
    return Result(lake, Asked(), rows, types, after.position, after.input_position, notices=told)


def _notices(table: pa.Table, before: Result, after: Result) -> list[str]:
    weights = table.column(WEIGHT).to_pylist()
    came, went = sum(each for each in weights if each > 0), -sum(each for each in weights if each < 0)
    return [f"{came:,} came and {went:,} went from commit {before.position:,} to commit {after.position:,}"]
