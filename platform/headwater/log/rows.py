"""A topic's current rows at a commit, kept in a DuckDB table and advanced by what came after.

    base at or before P ──▶ rows at a ──▶ + fold of changes (a, P] ──▶ rows at P

Two tables are kept per topic, one near the newest commit and one for a past position, so that watching and
walking through history both only pay for the change. A topic whose rows are its records (event, transactions,
insert-only) is not kept: its records are scanned in place.

Not thread-safe: ``Lake`` calls it under its lock, and a reading cursor pins its snapshot before it is let go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from headwater import record
from headwater.catalog.records import Topic
from headwater.log import base, generations, moves, read
from headwater.log.fold import GONE, KEPT, fold_sql, truncated_sql
from headwater.types import lift_sql, quote

if TYPE_CHECKING:
    from headwater.log.log import Log

COUNT = "_n"
"""Multisets and changelogs: of how many copies of the row this one speaks, 1 or more."""


_FOLDED = (record.OP, record.LSN, record.SEQ, record.UNCHANGED, record.PARTITION, record.OFFSET)

CHURN_ROWS_MIN = 200_000
"""Deleted rows keep their memory until the table is written anew; below this many it is not worth it."""


@dataclass
class _Kept:
    """One materialised state; ``churn`` counts rows written since the table was last made."""

    table: str
    commit: int
    schema_version: int
    churn: int = 0


class CurrentRows:
    """The current rows of one topic. ``connection`` is the lake's own; tables live in its memory."""

    def __init__(self, log: Log, connection: duckdb.DuckDBPyConnection, topic: Topic) -> None:
        self.log = log
        self.connection = connection
        self.topic = topic
        self._slots: dict[str, _Kept] = {}

    def at(self, topic: Topic, commit: int) -> str:
        """SQL of the rows at ``commit``, with the columns of ``topic``'s schema as DuckDB types."""
        table = self.table_at(topic, commit)
        columns = ", ".join(quote(name) for name in topic.schema.names)
        if topic.kind == "table":
            return f"SELECT {columns} FROM {table}"
        # A bag: most rows stand once, so only the others pay for the expansion.
        return (
            f"SELECT {columns} FROM {table} WHERE {COUNT} = 1 UNION ALL"
            f" SELECT {columns} FROM (SELECT *, unnest(range({COUNT})) FROM {table} WHERE {COUNT} > 1)"
        )

    def table_at(self, topic: Topic, commit: int) -> str:
        """The DuckDB table that holds the rows at ``commit``; bags also have ``_n``, and equal rows may stand twice."""
        self.topic = topic
        kept = self._slot(commit)
        if kept.commit < commit:
            self._advance(kept, commit)
        return kept.table

    def _slot(self, commit: int) -> _Kept:
        newest = self._slots.get("newest")
        if newest is None or newest.commit <= commit:
            return self._fit("newest", commit)
        return self._fit("past", commit)

    def _fit(self, slot: str, commit: int) -> _Kept:
        """The slot's table if it can be advanced to ``commit``, else one started from the nearest base."""
        kept = self._slots.get(slot)
        if kept is None or kept.commit > commit or kept.schema_version != self.topic.schema_version:
            kept = self._start(f'"{slot}_{self.topic.id}"', commit)
            self._slots[slot] = kept
        return kept

    def _start(self, table: str, commit: int) -> _Kept:
        weight = "" if self.topic.kind == "table" else f", {COUNT}"
        found = base.newest(self.log, self.topic, commit)
        source = base.relation_sql(self.log, self.topic, found)
        with read.blaming(self.log, [found] if found else []):
            self.connection.execute(f"CREATE OR REPLACE TABLE {table} AS SELECT {self._data()}{weight} FROM ({source})")
        start = found.commit if found else 0
        return _Kept(table=table, commit=start, schema_version=self.topic.schema_version)

    def _advance(self, kept: _Kept, commit: int) -> None:
        plan = read.plan(self.log, self.topic, kept.commit, commit)
        if plan.batches or plan.segments:
            source, hot_rows = read.scan_sql(self.log, plan, "hot_rows")
        if generations.spans(plan) and self.topic.kind != "changelog":
            source = generations.linear_sql(source)
            if not plan.segments and self.topic.kind != "table" and _only_adds(hot_rows):
                # DuckDB finds the variable by its name: what every small change of a view costs is this statement.
                self.connection.execute(
                    f"INSERT INTO {kept.table} SELECT {self._data()}, {record.WEIGHT} FROM ({source})"
                )
            else:
                self._merge(kept.table, source, hot_rows, plan)
            kept.churn += plan.rows
            self._compact(kept)
        kept.commit = commit

    def _merge(self, table: str, source: str, hot: pa.Table, plan: read.Plan) -> None:
        """Changes that replace or remove rows, in one transaction: several statements read them."""
        self.connection.execute("BEGIN")
        try:
            self.connection.register("hot_rows", hot)
            with read.blaming(self.log, plan.segments):
                self._apply(table, source, None if plan.segments else hot)
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        else:
            self.connection.execute("COMMIT")
        finally:  # a name that stayed would hide the next change's rows
            self.connection.unregister("hot_rows")

    def _compact(self, kept: _Kept) -> None:
        """Write the table anew once more rows were rewritten than it holds: bounds memory under churn."""
        if kept.churn < CHURN_ROWS_MIN:
            return
        rows = self.connection.execute(f"SELECT count(*) FROM {kept.table}").fetchone()
        if rows and kept.churn > rows[0]:
            self.connection.execute(f"CREATE OR REPLACE TABLE {kept.table} AS FROM {kept.table}")
            kept.churn = 0

    def _apply(self, table: str, source: str, hot: pa.Table | None) -> None:
        """``hot``: the whole source as a table, when no segment takes part; then its flags cost no query."""
        if self.topic.kind == "table":
            if hot is None:
                truncated = self._one(truncated_sql(source))
                partial = self._one(f"SELECT count(*) > 0 FROM ({source}) WHERE len({record.UNCHANGED}) > 0")
            else:
                truncated = bool(pc.any(pc.equal(hot.column(record.OP), "t")).as_py())
                partial = hot.column(record.UNCHANGED).null_count < hot.num_rows
            source = self._lifted(source)
            if partial and self._one(moves.exist_sql(source)):
                source = moves.complete(self.connection, self.topic.schema, source, f"SELECT * FROM {table}")
            if truncated:
                self.connection.execute(f"DELETE FROM {table}")
            self._apply_keyed(table, source, partial)
        else:
            self._apply_bag(table, source)

    def _data(self) -> str:
        return ", ".join(f"{lift_sql(f.name, f.type)} AS {quote(f.name)}" for f in self.topic.schema.fields)

    def _lifted(self, source: str) -> str:
        """The changes with data columns as DuckDB types, so that they and the kept rows compare."""
        return f"SELECT {self._data()}, {', '.join(_FOLDED)} FROM ({source})"

    def _apply_keyed(self, table: str, source: str, partial: bool) -> None:
        schema = self.topic.schema
        folded = fold_sql(schema, "table", source, partial=partial)
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE delta AS {folded}")
        match = " AND ".join(f"t.{quote(name)} IS NOT DISTINCT FROM d.{quote(name)}" for name in schema.key)
        if partial:
            self._take_kept(table, match)
        self.connection.execute(f"DELETE FROM {table} t USING delta d WHERE {match}")
        columns = ", ".join(quote(name) for name in schema.names)
        self.connection.execute(f"INSERT INTO {table} SELECT {columns} FROM delta WHERE NOT {GONE}")

    def _take_kept(self, table: str, match: str) -> None:
        """Columns that nobody sent in the range come from the row before."""
        schema = self.topic.schema
        resolved = ", ".join(
            f"d.{quote(name)}"
            if name in schema.key
            else f"CASE WHEN list_contains(d.{KEPT}, '{name.replace(chr(39), chr(39) * 2)}')"
            f" THEN t.{quote(name)} ELSE d.{quote(name)} END AS {quote(name)}"
            for name in schema.names
        )
        self.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE delta AS SELECT {resolved}, d.{GONE} FROM delta d"
            f" LEFT JOIN {table} t ON {match}"
        )

    def _apply_bag(self, table: str, source: str) -> None:
        schema = self.topic.schema
        columns = ", ".join(quote(name) for name in schema.names)
        if self.topic.kind == "multiset" and self._one(truncated_sql(source)):
            self.connection.execute(f"DELETE FROM {table}")
            cut = (
                f"(SELECT {record.PARTITION}, max({record.OFFSET}) AS at FROM ({source})"
                f" WHERE {record.OP} = 't' GROUP BY ALL)"
            )
            source = (
                f"SELECT s.* FROM ({source}) s LEFT JOIN {cut} c USING ({record.PARTITION})"
                f" WHERE c.at IS NULL OR s.{record.OFFSET} > c.at"
            )
        match = " AND ".join(f"t.{quote(name)} IS NOT DISTINCT FROM d.{quote(name)}" for name in schema.names)
        self.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE merged AS"
            f" WITH delta AS MATERIALIZED (SELECT {self._data()}, {record.WEIGHT} AS {COUNT} FROM ({source}))"
            f" SELECT {columns}, sum({COUNT})::BIGINT AS {COUNT} FROM"
            f" (FROM delta UNION ALL SELECT t.* FROM {table} t SEMI JOIN delta d ON {match}) GROUP BY ALL"
        )
        self.connection.execute(f"DELETE FROM {table} t USING merged d WHERE {match}")
        self.connection.execute(f"INSERT INTO {table} SELECT * FROM merged WHERE {COUNT} > 0")

    def _one(self, sql: str) -> bool:
        row = self.connection.execute(sql).fetchone()
        return bool(row and row[0])


def _only_adds(changes: pa.Table) -> bool:
    """Whether a bag's changes are all new rows: nothing that is kept has to be looked up. A truncate weighs 0."""
    return bool(changes.num_rows and pc.min(changes.column(record.WEIGHT)).as_py() > 0)


def records_sql(topic: Topic, source: str) -> str:
    """Current rows of a topic whose rows are its records: all of them after the last truncate."""
    lifted = ", ".join(f"{lift_sql(f.name, f.type)} AS {quote(f.name)}" for f in topic.schema.fields)
    if topic.kind != "insert_only":
        return f"SELECT {lifted} FROM ({source})"
    return (
        f"SELECT {lifted} FROM ({source}) s WHERE {record.OP} <> 't' AND {record.OFFSET} >"
        f" coalesce((SELECT max(c.{record.OFFSET}) FROM ({source}) c WHERE c.{record.OP} = 't'"
        f" AND c.{record.PARTITION} = s.{record.PARTITION}), -1)"
    )
