"""Rows that changed their key: values that the source did not send come from the row under the old key.

A key change is a delete of the old key and a create of the new one with the same ``_lsn`` and ``_seq``, at worst
in two partitions. A create that lists columns in ``_unchanged`` is such a move, and the delete beside it marks
the place in the old key's history at which those columns have to be read. Moves are rare, so a range without any
costs one look; in a range with some, only the records of their old keys are read again. A moved row may be moved
again: each round completes the moves whose old row is known, and earlier ones never wait for later ones.
"""

from __future__ import annotations

import duckdb

from headwater.errors import SchemaError
from headwater.record import LSN, OFFSET, OP, PARTITION, SEQ, UNCHANGED
from headwater.schema import Schema
from headwater.types import quote

_OFFSET_MAX = 2**63 - 1


def exist_sql(source: str) -> str:
    """SQL with one BOOLEAN: whether the changes hold a move that lacks values."""
    return f"SELECT count(*) > 0 FROM ({source}) WHERE {_IS_MOVE}"


def complete(
    connection: duckdb.DuckDBPyConnection, schema: Schema, source: str, prior: str, name: str = "moves"
) -> str:
    """SQL of the same changes in which every move holds all its values.

    Args:
        connection: keeps temporary tables that begin with ``name``; the SQL reads one of them.
        schema: of the keyed topic; columns of ``source`` beyond it and ``_op``, ``_lsn``, ``_seq``,
            ``_unchanged``, ``_partition``, ``_offset`` are kept.
        source: whole commits' changes, data columns as DuckDB types.
        prior: the table's rows before the first of them, the schema's columns in the same types.

    Raises SchemaError for a move without the delete that belongs to it.
    """
    return _Completion(connection, schema, source, prior, name).run()


_IS_MOVE = f"{OP} = 'c' AND len({UNCHANGED}) > 0"


class _Completion:
    """``pending``: moves that lack values, with their old key and its place; ``past``: records of old keys."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, schema: Schema, source: str, prior: str, name: str
    ) -> None:
        self.connection = connection
        self.schema = schema
        self.source = source
        self.prior = prior
        self.pending, self.past, self.filled = (quote(f"{name}_{part}") for part in ("pending", "past", "filled"))
        self.old = {key: quote(f"{name}_old_{place}") for place, key in enumerate(schema.key)}

    def run(self) -> str:
        self._find()
        left = self._count(self.pending)
        while left:
            self._round()
            before, left = left, self._count(self.pending)
            if left == before:
                raise SchemaError("rows that changed their key wait for each other", todo="Please report this.")
        return (
            f"SELECT * FROM ({self.source}) ANTI JOIN {self.filled} USING ({PARTITION}, {OFFSET})"
            f" UNION ALL BY NAME SELECT * FROM {self.filled}"
        )

    def _find(self) -> None:
        old = ", ".join(f"d.{quote(key)} AS {column}" for key, column in self.old.items())
        self._make(
            self.pending,
            f"SELECT c.*, {old}, d.{PARTITION} AS old_partition, d.{OFFSET} AS old_offset"
            f" FROM (SELECT * FROM ({self.source}) WHERE {_IS_MOVE}) c"
            f" LEFT JOIN (SELECT * FROM ({self.source}) WHERE {OP} = 'd') d USING ({LSN}, {SEQ})",
        )
        lost = f"SELECT min({OFFSET}) FROM {self.pending} WHERE old_offset IS NULL"
        (offset,) = self.connection.execute(lost).fetchall()[0]
        if offset is not None:
            raise SchemaError(
                f"the record at offset {offset} changed its key but its old key was not recorded",
                todo="Each must come with a delete of the old key that has the same _lsn and _seq.",
            )
        self._make(
            self.past,
            f"SELECT * FROM ({self.source}) p WHERE {OP} = 't'"
            f" OR EXISTS (FROM {self.pending} m WHERE {self._same_key('p')})",
        )
        self._make(self.filled, f"SELECT * FROM ({self.source}) LIMIT 0")

    def _round(self) -> None:
        """Complete the moves whose old row does not itself wait for a move."""
        self.connection.execute(f"INSERT INTO {self.filled} BY NAME {self._filled_sql()}")
        self._make(self.past, self._refreshed_past())
        place = f"m.{PARTITION} = f.{PARTITION} AND m.{OFFSET} = f.{OFFSET}"
        self.connection.execute(f"DELETE FROM {self.pending} m USING {self.filled} f WHERE {place}")

    def _refreshed_past(self) -> str:
        return (
            f"SELECT * FROM {self.past} ANTI JOIN {self.filled} USING ({PARTITION}, {OFFSET}) UNION ALL BY NAME"
            f" SELECT * FROM {self.filled} SEMI JOIN {self.past} USING ({PARTITION}, {OFFSET})"
        )

    def _filled_sql(self) -> str:
        """The ready moves with every value: the newest that was sent, of the move, its past, or the prior row."""
        names = self.schema.names
        columns = ", ".join(f"{{0}}.{quote(name)}" for name in names)
        place = f"m.{PARTITION}, m.{OFFSET}"
        values = ", ".join(self._newest(name) for name in names)
        return f"""WITH bounds AS (
  SELECT {place}, max(p.{OFFSET}) FILTER (p.{OP} IN ('c', 'r', 'd', 't')) AS made_at FROM {self.pending} m
  LEFT JOIN {self.past} p ON p.{PARTITION} = m.old_partition AND p.{OFFSET} < m.old_offset
    AND (p.{OP} = 't' OR {self._same_key("p")}) GROUP BY ALL),
ready AS (
  SELECT m.*, b.made_at FROM {self.pending} m JOIN bounds b USING ({PARTITION}, {OFFSET})
  WHERE NOT EXISTS (FROM {self.pending} w WHERE w.{PARTITION} = m.old_partition AND w.{OFFSET} = b.made_at)),
candidates AS (
  SELECT {place}, {columns.format("m")}, m.{UNCHANGED} AS lacks, {_OFFSET_MAX} AS age FROM ready m
  UNION ALL SELECT {place}, {columns.format("p")}, p.{UNCHANGED}, p.{OFFSET} FROM ready m JOIN {self.past} p
    ON p.{PARTITION} = m.old_partition AND p.{OFFSET} < m.old_offset AND p.{OFFSET} >= coalesce(m.made_at, 0)
    AND p.{OP} NOT IN ('d', 't') AND {self._same_key("p")}
  UNION ALL SELECT {place}, {columns.format("p")}, NULL, -1 FROM ready m JOIN ({self.prior}) p
    ON m.made_at IS NULL AND {self._same_key("p")}),
found AS (SELECT {PARTITION}, {OFFSET}, {values} FROM candidates GROUP BY {PARTITION}, {OFFSET})
SELECT s.* REPLACE ({", ".join(f"found.{quote(name)} AS {quote(name)}" for name in names)},
  NULL::VARCHAR[] AS {UNCHANGED})
FROM (SELECT * EXCLUDE ({", ".join(self.old.values())}, old_partition, old_offset, made_at) FROM ready) s
JOIN found ON s.{PARTITION} = found.{PARTITION} AND s.{OFFSET} = found.{OFFSET}"""

    def _newest(self, name: str) -> str:
        text = "'" + name.replace("'", "''") + "'"
        sent = f"NOT list_contains(coalesce(lacks, []), {text})"
        return f"arg_max_null({quote(name)}, age) FILTER ({sent}) AS {quote(name)}"

    def _same_key(self, alias: str) -> str:
        return " AND ".join(f"{alias}.{quote(key)} IS NOT DISTINCT FROM m.{old}" for key, old in self.old.items())

    def _make(self, table: str, sql: str) -> None:
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {sql}")

    def _count(self, table: str) -> int:
        return int(self.connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])
