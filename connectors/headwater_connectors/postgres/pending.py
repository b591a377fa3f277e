"""What happened to a table while it was copied: its changes in the hidden topic, and which of them the copy holds.

chunks' snapshots ≤ ... ≤ S      K: keys touched by what S sees and a chunk may not: read again under S
changes that S does not see      the tail: appended after the copied rows, in stream order
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from headwater import duck, record
from headwater.catalog.records import Topic
from headwater.config import MIB
from headwater.log import Log, read
from headwater.types import lift_sql, quote
from headwater_connectors.postgres.literal import quoted_sql, text_sql
from headwater_connectors.postgres.snapshot import Seen, Snapshot

MEMORY_BYTES_MAX = 256 * MIB
"""DuckDB's memory limit for what is worked out beside a copy; beyond it, it spills."""
KEYS_AT_ONCE = 2_000
"""Keys read again by one statement: a few milliseconds of an index's work."""
BATCH_ROWS = 100_000


def untouched(log: Log, topic: Topic, upto: int) -> bool:
    """Whether nothing happened to the table, as to most: then what was copied is the table."""
    return read.plan(log, topic, 0, upto).rows == 0


class Pending:
    """The hidden topic's records of commits up to ``upto``, on a DuckDB of its own."""

    def __init__(self, log: Log, topic: Topic, upto: int, connection: duckdb.DuckDBPyConnection) -> None:
        self.topic = topic
        self.connection = connection
        self._records = read.relation_sql(log, connection, read.plan(log, topic, 0, upto), "pending_hot")

    def touch_all(self, final: Seen) -> None:
        """Make the table ``again`` of every key that a transaction touched which S sees."""
        self.touch(final, [Snapshot(0, 0, ())])

    def touch(self, final: Seen, chunks: Sequence[Snapshot]) -> int:
        """Make the table ``again`` of K: keys that have to be read again; returns how many.

        It may hold some too many: what the oldest chunk might not see counts for all of them.
        """
        keys = ", ".join(quote(name) for name in self.topic.schema.key)
        nothing = all(chunk == final for chunk in chunks)
        oldest = min((chunk.xmin for chunk in chunks), default=0)
        seen = "false" if nothing else f"_xid >= {oldest} AND {final.sees_sql()}"
        self.connection.execute(
            f"CREATE OR REPLACE TABLE again AS SELECT DISTINCT {keys} FROM ({self._records})"
            f" WHERE _op <> 't' AND {seen}"
        )
        return self._count("SELECT count(*) FROM again")

    @property
    def again_is_readable(self) -> bool:
        """Whether each key in ``again`` can be written as a value: an odd one is NULL in its column."""
        missing = " OR ".join(f"{quote(name)} IS NULL" for name in self.topic.schema.key)
        return self._count(f"SELECT count(*) FROM again WHERE {missing}") == 0

    def again(self) -> Iterator[str]:
        """K as rows of SQL literals, some thousand keys at a time."""
        schema = self.topic.schema
        fields = [schema.field(name) for name in schema.key]
        texts = [
            quoted_sql(text_sql(lift_sql(field.name, field.type), field.type, field.source_type)) for field in fields
        ]
        row = "'(' || " + " || ', ' || ".join(texts) + " || ')'"
        rows = self.connection.execute(
            f"SELECT string_agg(row, ', ') FROM (SELECT {row} AS row, row_number() OVER () // {KEYS_AT_ONCE} AS part"
            " FROM again) GROUP BY part"
        )
        while (found := rows.fetchone()) is not None:
            yield found[0]

    def without_again(self, rows: pa.Table) -> pa.Table:
        """Copied rows less those whose key is in ``again``; the same table when there is none of them."""
        self.connection.register("copied", rows)
        try:
            same = " AND ".join(f"c.{quote(name)} = a.{quote(name)}" for name in self.topic.schema.key)
            found = self._count(f"SELECT count(*) FROM copied c SEMI JOIN again a ON {same}")
            if not found:
                return rows
            kept = self.connection.sql(f"SELECT c.* FROM copied c ANTI JOIN again a ON {same}").to_arrow_table()
        finally:
            self.connection.unregister("copied")
        return kept.cast(rows.schema)

    def tail(self, final: Seen) -> Iterator[pa.Table]:
        """The changes that the copied rows do not hold, in stream order, as they would be appended."""
        names = ", ".join(quote(name) for name in appended(self.topic).names)
        query = f"SELECT {names} FROM ({self._records}) WHERE NOT {final.sees_sql()} ORDER BY _offset"
        for batch in self.connection.sql(query).to_arrow_reader(BATCH_ROWS):
            yield pa.Table.from_batches([batch]).cast(appended(self.topic))

    def _count(self, query: str) -> int:
        [(count,)] = self.connection.execute(query).fetchall()
        return int(count)


def appended(topic: Topic) -> pa.Schema:
    """The columns of what is appended to a topic: its own and the explicit metadata."""
    data = topic.schema.arrow()
    return pa.schema([*data, *record.metadata_schema(topic.kind, data)])


@contextmanager
def workbench(spill: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB that works in bounded memory, with Arrow types as files hold them."""
    limit = f"{MEMORY_BYTES_MAX // MIB}MiB"
    with duck.connect(memory_limit=limit, temp_directory=spill, threads=1, for_files=True) as connection:
        yield connection
