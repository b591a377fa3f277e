"""Whether two makings of a view's rows are the same: how many, a checksum of each, and the rows that differ.

Rows are in the types of files, as a changelog has them, each once with how often it stands. Equal means equal, to the
last digit of a float.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headwater.record import WEIGHT
from headwater.types import quote
from headwater_pipelines.runtime.state import State

SAMPLE_ROWS = 10
_TABLE = "compared"


@dataclass(frozen=True, kw_only=True)
class Contents:
    """``rows`` with their copies; ``checksum``: the same for the same rows in any order."""

    rows: int
    distinct: int
    checksum: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Of ``missing`` rows the replay has more, of ``extra`` ones the live view. ``sample``: some, with both counts."""

    replayed: Contents
    live: Contents
    missing: int
    extra: int
    sample: tuple[dict[str, Any], ...]

    @property
    def is_same(self) -> bool:
        return not self.missing and not self.extra


def compare(state: State, columns: Sequence[str], replayed: str, live: str) -> Comparison:
    """Of two SELECTs over a state's connection with these columns and the log's weight."""
    names = ", ".join(map(quote, columns))
    both = f"SELECT {names}, {WEIGHT} AS one, 0 AS other FROM ({replayed}) UNION ALL"
    both += f" SELECT {names}, 0, {WEIGHT} FROM ({live})"
    state.temporary(
        f"CREATE OR REPLACE TEMP TABLE {_TABLE} AS SELECT {names}, CAST(sum(one) AS BIGINT) AS _one,"
        f" CAST(sum(other) AS BIGINT) AS _other FROM ({both}) GROUP BY ALL HAVING sum(one) <> 0 OR sum(other) <> 0"
    )
    row = state.row(
        f"SELECT {_sums(names, '_one')}, {_sums(names, '_other')}, coalesce(sum(greatest(_one - _other, 0)), 0),"
        f" coalesce(sum(greatest(_other - _one, 0)), 0) FROM {_TABLE}"
    )
    assert row is not None
    differing = state.query(
        f"SELECT {names}, _one AS _replayed, _other AS _live FROM {_TABLE} WHERE _one <> _other"
        f" ORDER BY ALL LIMIT {SAMPLE_ROWS}"
    )
    state.drop_temporary()
    return Comparison(
        replayed=_contents(row[0:3]),
        live=_contents(row[3:6]),
        missing=int(row[6]),
        extra=int(row[7]),
        sample=tuple(differing.to_pylist()),
    )


def _sums(names: str, count: str) -> str:
    return (
        f"coalesce(sum({count}), 0), count(*) FILTER (WHERE {count} <> 0),"
        f" coalesce(sum(hash({names})::HUGEINT * {count}), 0)"
    )


def _contents(row: Sequence[Any]) -> Contents:
    return Contents(rows=int(row[0]), distinct=int(row[1]), checksum=f"{int(row[2]) % 2**64:016x}")
