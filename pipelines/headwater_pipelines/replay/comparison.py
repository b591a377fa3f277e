"""Whether a view's rows, made anew, are those that readers see: how many, a checksum of each, and what differs.

Rows are in the types of files, as a changelog has them. Floats that are sums may differ in their last digits, for
DuckDB adds in any order: of rows that differ in nothing else these count as equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from headwater.lake import Lake
from headwater.record import WEIGHT
from headwater.types import quote
from headwater_pipelines.compiler import CompiledView
from headwater_pipelines.replay.build import quoted
from headwater_pipelines.replay.rows import lowered

SAMPLE_ROWS = 10
FLOATS = ("FLOAT", "DOUBLE")
CLOSE = 1e-9
"""Floats are close when they differ by no more than this share of the larger."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """``rows`` with their copies; ``checksum``: the same for the same rows in any order, floats left out."""

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

    def __str__(self) -> str:
        if self.is_same:
            plural = "" if self.replayed.rows == 1 else "s"
            return f"{self.replayed.rows:,} row{plural}, checksum {self.replayed.checksum}: the same as the live view's"
        return (
            f"{self.replayed.rows:,} rows replayed, {self.live.rows:,} live: {self.missing:,} are missing in the live"
            f" view, {self.extra:,} should not be there"
        )


def parted(compiled: CompiledView, parts: int, part: int) -> str:
    """The condition of one of so many parts of a view's rows, by the hash of what identifies them, else of all.

    Floats are left out, for their last digits vary; what has nothing else is one part.
    """
    exact = [name for name, kind in compiled.columns if not any(each in kind for each in FLOATS)]
    hashed = [name for name in compiled.key if name in exact] or exact
    if parts == 1 or not hashed:
        return "" if part == 0 else "WHERE false"
    return f"WHERE hash({', '.join(map(quote, hashed))}) % {parts} = {part}"


def compare(lake: Lake, compiled: CompiledView, made: Path, at: int, where: str = "") -> Comparison:
    """Of a file of rows with weights, and what a reader sees at a commit of the view's rows that ``where`` takes."""
    # By numbers: columns may be called anything, as those are that are added here.
    numbered = {f"c{number}": name for number, (name, _) in enumerate(compiled.columns)}
    names, listed = ", ".join(numbered), ", ".join(f"{quote(name)} AS {short}" for short, name in numbered.items())
    with lake.reading(f"SELECT {lowered(compiled)} FROM {quote(compiled.name)} {where}", at=at) as (cursor, live):
        cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE compared AS SELECT {names}, CAST(sum(one) AS BIGINT) AS _replayed,"
            f" CAST(sum(other) AS BIGINT) AS _live FROM (SELECT {listed}, {WEIGHT} AS one, 0 AS other FROM"
            f" read_parquet('{quoted(made)}') UNION ALL SELECT {listed}, 0, 1 FROM ({live}))"
            f" GROUP BY ALL HAVING sum(one) <> 0 OR sum(other) <> 0"
        )
        kinds = dict(zip(numbered, (kind for _, kind in compiled.columns), strict=True))
        exact = [short for short, kind in kinds.items() if kind not in FLOATS]
        floats = [short for short, kind in kinds.items() if kind in FLOATS]
        row = _one(cursor, f"SELECT {_sums(exact, '_replayed')}, {_sums(exact, '_live')} FROM compared")
        differing = "SELECT *, _replayed - _live AS _more FROM compared WHERE _replayed <> _live"
        cursor.execute(f"CREATE OR REPLACE TEMP TABLE differing AS {differing}")
        if floats:
            _forget_close(cursor, exact, floats)
        missing, extra = _one(
            cursor,
            "SELECT coalesce(sum(greatest(_more, 0)), 0), coalesce(sum(greatest(-_more, 0)), 0) FROM differing",
        )
        sample: pa.Table = cursor.execute(
            f"SELECT * EXCLUDE _more FROM differing ORDER BY ALL LIMIT {SAMPLE_ROWS}"
        ).to_arrow_table()
        return Comparison(
            replayed=_contents(row[:3]),
            live=_contents(row[3:]),
            missing=int(missing),
            extra=int(extra),
            sample=tuple({numbered.get(key, key): value for key, value in each.items()} for each in sample.to_pylist()),
        )


def _forget_close(cursor: duckdb.DuckDBPyConnection, exact: Sequence[str], floats: Sequence[str]) -> None:
    """Take out pairs of rows, one of each side, that are equal but for the last digits of their floats."""
    same = [f"a.{quote(name)} IS NOT DISTINCT FROM b.{quote(name)}" for name in exact]
    for name in floats:
        one, other = f"a.{quote(name)}", f"b.{quote(name)}"
        apart = f"abs({one} - {other}) <= {CLOSE} * greatest(abs({one}), abs({other}))"
        same.append(f"({one} IS NOT DISTINCT FROM {other} OR {apart})")
    pairs = (
        f"SELECT a.rowid AS one, b.rowid AS other FROM differing a JOIN differing b ON {' AND '.join(same)}"
        " WHERE a._more > 0 AND b._more = -a._more"
    )
    # Where several rows are close to one, each is taken for one pair at most.
    once = "QUALIFY row_number() OVER (PARTITION BY one ORDER BY other) = 1"
    once = f"SELECT * FROM ({pairs} {once}) QUALIFY row_number() OVER (PARTITION BY other ORDER BY one) = 1"
    cursor.execute(f"DELETE FROM differing WHERE rowid IN (SELECT unnest([one, other]) FROM ({once}))")


def _one(cursor: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    return tuple(cursor.execute(sql).fetchall()[0])


def _sums(names: Sequence[str], count: str) -> str:
    hashed = f"hash({', '.join(map(quote, names))})" if names else "1"
    return (
        f"coalesce(sum({count}), 0), count(*) FILTER (WHERE {count} <> 0),"
        f" coalesce(sum({hashed}::HUGEINT * {count}), 0)"
    )


def _contents(row: Sequence[Any]) -> Contents:
    return Contents(rows=int(row[0]), distinct=int(row[1]), checksum=f"{int(row[2]) % 2**64:016x}")
