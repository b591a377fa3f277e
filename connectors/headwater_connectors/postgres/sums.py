"""Check sums of a table's rows by buckets of their keys, on both sides: which keys may differ, without sending a row.

Which bucket a key is in, and what a row adds to its bucket's sum, is md5 of texts (``canonical``). Counts and sums of
parts of a table add up, so the server works them out chunk by chunk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
from psycopg import sql

from headwater.schema import Schema
from headwater_connectors.postgres.canonical import SEPARATOR, lake_sql, server_sql
from headwater_connectors.postgres.catalog import TableInfo

BUCKET_ROWS = 100
BUCKETS_MIN, BUCKETS_MAX = 256, 65_536
"""So that few rows are read for one that differs, and the sums of a chunk are fewer than its rows."""

BySum = dict[int, tuple[int, int]]
"""Count of rows and sum, by bucket."""
_Texts = list[tuple[sql.Composable, str]]


def buckets_for(rows: int) -> int:
    """How many buckets a table of about so many rows is divided into."""
    return min(max(rows // BUCKET_ROWS, BUCKETS_MIN), BUCKETS_MAX)


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Of ``table`` as its topic's ``schema`` has it; ``keys`` are columns of the schema.

    ``odd``: a value that the log's type cannot hold is summed as its text, and so is never equal; else as NULL, which
    is what the lake has of it.
    """

    table: TableInfo
    schema: Schema
    keys: tuple[str, ...]
    buckets: int = BUCKETS_MIN
    odd: bool = False

    @property
    def summable(self) -> bool:
        """Whether every column has a common text; if not, there is one bucket, 0, and no sum."""
        return self._texts() is not None

    def here(self, connection: duckdb.DuckDBPyConnection, rows: str) -> BySum:
        """Of the lake's rows, an SQL relation with DuckDB's types."""
        texts = ", ".join(f"coalesce({here}, chr(30))" for _, here in self._texts() or [])
        summed = f"CAST('0x' || substr(md5(concat_ws('{SEPARATOR}', {texts})), 1, 15) AS BIGINT)"
        query = f"SELECT {self.bucket_here()}, count(*), sum({summed}) FROM {rows} GROUP BY 1"
        return {bucket: (count, int(total)) for bucket, count, total in connection.execute(query).fetchall()}

    def there(self, place: sql.Composable) -> sql.Composed:
        """The server's query for the same of ``place`` (FROM and WHERE); ``added`` takes what it answers."""
        texts = sql.SQL(", ").join(sql.SQL("coalesce({}, chr(30))").format(there) for there, _ in self._texts() or [])
        query = "SELECT {}, count(*), sum(('x' || substr(md5(concat_ws({}, {})), 1, 15))::bit(60)::int8) {} GROUP BY 1"
        return sql.SQL(query).format(self.bucket_there(), sql.Literal(SEPARATOR), texts, place)

    def bucket_here(self) -> str:
        texts = self._key_texts()
        if texts is None:
            return "0"
        parts = ", ".join(f"coalesce({here}, '')" for _, here in texts)
        hashed = f"CAST('0x' || substr(md5(concat_ws('{SEPARATOR}', {parts})), 1, 6) AS INTEGER)"
        return f"({hashed} % {self.buckets})"

    def bucket_there(self) -> sql.Composable:
        texts = self._key_texts()
        if texts is None:
            return sql.SQL("0")
        parts = sql.SQL(", ").join(sql.SQL("coalesce({}, '')").format(there) for there, _ in texts)
        hashed = sql.SQL("('x' || substr(md5(concat_ws({}, {})), 1, 6))::bit(24)::int % {}")
        return hashed.format(sql.Literal(SEPARATOR), parts, sql.Literal(self.buckets))

    def among(self, buckets: Sequence[int]) -> sql.Composable:
        """The server's condition that a row is in one of the buckets; all rows are when there are no sums."""
        if not self.summable:
            return sql.SQL("true")
        return sql.SQL("{} = ANY ({})").format(self.bucket_there(), sql.Literal(list(buckets)))

    def _texts(self) -> _Texts | None:
        """The two expressions of each column; None when a column has none."""
        columns = zip(self.table.columns, self.schema.fields, strict=True)
        pairs = [
            (server_sql(column.name, field.type, field.source_type, self.odd), lake_sql(field.name, field.type))
            for column, field in columns
        ]
        found = [(there, here) for there, here in pairs if there is not None]
        return found if len(found) == len(pairs) else None

    def _key_texts(self) -> _Texts | None:
        texts = self._texts()
        places = [self.schema.names.index(key) for key in self.keys]
        return None if texts is None else [texts[place] for place in places]


def added(rows: Iterable[tuple[Any, ...]]) -> BySum:
    """The sums of a table from those of its parts: bucket, count, sum."""
    counts: Counter[int] = Counter()
    totals: Counter[int] = Counter()
    for bucket, count, total in rows:
        counts[bucket] += count
        totals[bucket] += int(total)
    return {bucket: (count, totals[bucket]) for bucket, count in counts.items()}


def differing(ours: BySum, theirs: BySum) -> list[int]:
    """Buckets whose count or sum is not the same."""
    return sorted(bucket for bucket in {*ours, *theirs} if ours.get(bucket) != theirs.get(bucket))
