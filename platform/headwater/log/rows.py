"""A topic's current rows at a commit, kept in a DuckDB table and advanced by what came after.

    base at or before P ──▶ rows at a ──▶ + fold of changes (a, P] ──▶ rows at P

A small base is copied into the kept table. A large one of a keyed topic stays where it is, and what is kept are
the rows and the keys that changed since; every read takes the base's other rows from its file:

    rows at P = base at b, less the keys changed in (b, P], and the kept rows of those keys

Two states are kept per topic, one near the newest commit and one for a past position, so that watching and
walking through history both only pay for the change. A topic whose rows are its records (event, transactions,
insert-only) is not kept: its records are scanned in place.

Not thread-safe: ``Lake`` calls it under its lock, and a reading cursor pins its snapshot before it is let go.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from headwater import record
from headwater.catalog.records import Base, Segment, Topic
from headwater.config import MIB
from headwater.errors import Expired
from headwater.log import base, generations, moves, read
from headwater.log.fold import GONE, KEPT, fold_sql, truncated_sql
from headwater.types import lift_sql, quote

if TYPE_CHECKING:
    from headwater.log.log import Log

COUNT = "_n"
"""Multisets and changelogs: of how many copies of the row this one speaks, 1 or more."""


_FOLDED = (record.OP, record.LSN, record.SEQ, record.UNCHANGED, record.PARTITION, record.OFFSET)

COPIED_BYTES_MAX = 16 * MIB
"""A larger base of a keyed topic is read in place: a copy would cost its first reader more than several scans, and
the memory of every one. Smaller ones answer faster from memory."""

ADVANCE_ROWS_TARGET = 1_000_000
"""Changes are folded in parts of about this many sealed records: bounds what a fold holds in memory."""

CHURN_ROWS_MIN = 200_000
"""Deleted rows keep their memory until the table is written anew; below this many it is not worth it."""


@dataclass
class _Kept:
    """One materialised state; ``churn`` counts rows written since the table was last made.

    ``base``: the one read in place; the keys that it no longer speaks for are in ``touched``. ``owes``: rows of a
    changelog were taken back that it never had. They are kept, with less than no copies, for they may yet come.
    ``reached``: it has been brought to a position that was asked for.
    """

    table: str
    commit: int
    schema_version: int
    base: Base | None = None
    churn: int = 0
    owes: bool = False
    reached: bool = False

    @property
    def touched(self) -> str:
        return self.table[:-1] + '_touched"'


class CurrentRows:
    """The current rows of one topic. ``connection`` is the lake's own; tables live in its memory."""

    copied_bytes_max = COPIED_BYTES_MAX

    def __init__(self, log: Log, connection: duckdb.DuckDBPyConnection, topic: Topic) -> None:
        self.log = log
        self.connection = connection
        self.topic = topic
        self._slots: dict[str, _Kept] = {}

    def at(self, topic: Topic, commit: int) -> str:
        """SQL of the rows at ``commit``, with the columns of ``topic``'s schema as DuckDB types."""
        kept = self._kept_at(topic, commit)
        columns = ", ".join(quote(name) for name in topic.schema.names)
        if topic.kind == "table":
            return self._keyed_rows(kept)
        # A bag: most rows stand once, so only the others pay for the expansion.
        return (
            f"SELECT {columns} FROM {kept.table} WHERE {COUNT} = 1 UNION ALL"
            f" SELECT {columns} FROM (SELECT *, unnest(range({COUNT})) FROM {kept.table} WHERE {COUNT} > 1)"
        )

    def counted_at(self, topic: Topic, commit: int) -> str:
        """The DuckDB table with the rows of a bag at ``commit`` and their ``_n``; equal rows may stand twice."""
        return self._kept_at(topic, commit).table

    def _keyed_rows(self, kept: _Kept) -> str:
        columns = ", ".join(quote(name) for name in self.topic.schema.names)
        if kept.base is None:
            return f"SELECT {columns} FROM {kept.table}"
        source = base.relation_sql(self.log, self.topic, kept.base)
        return (
            f"SELECT {columns} FROM {kept.table} UNION ALL"
            f" SELECT {columns} FROM (SELECT {self._data()} FROM ({source})) t"
            f" ANTI JOIN {kept.touched} d ON {self._same_key()}"
        )

    def _kept_at(self, topic: Topic, commit: int) -> _Kept:
        self.topic = topic
        kept = self._slot(commit)
        if kept.commit < commit:
            try:
                self._advance(kept, commit)
            except (KeyboardInterrupt, RuntimeError, duckdb.InterruptException):
                # Nobody knows whether the last statement's rows are counted.
                self._forget(kept)
                raise
            except Expired:
                if not kept.reached:
                    raise
                self._forget(kept)  # nobody asked for so long that the changes since have gone: from a base, then
                return self._kept_at(topic, commit)
        kept.reached = True
        return kept

    def _forget(self, kept: _Kept) -> None:
        self._slots = {slot: each for slot, each in self._slots.items() if each is not kept}

    def _slot(self, commit: int) -> _Kept:
        newest = self._slots.get("newest")
        if newest is None or newest.commit <= commit:
            return self._fit("newest", commit)
        return self._fit("past", commit)

    def _fit(self, slot: str, commit: int) -> _Kept:
        """The slot's state if it can be advanced to ``commit``, else one started from the nearest base."""
        kept = self._slots.get(slot)
        if (
            kept is None
            or kept.commit > commit
            or kept.schema_version != self.topic.schema_version
            # The file of a base that was replaced will go, and the new one leaves less to keep.
            or (kept.base is not None and base.newest(self.log, self.topic, commit) != kept.base)
        ):
            self._slots.pop(slot, None)  # its table goes, also when an interrupt ends this half-way
            kept = self._start(f'"{slot}_{self.topic.id}"', commit)
            self._slots[slot] = kept
        return kept

    def _start(self, table: str, commit: int) -> _Kept:
        found = base.newest(self.log, self.topic, commit)
        in_place = found if found and self.topic.kind == "table" and found.bytes > self.copied_bytes_max else None
        start = found.commit if found else 0
        kept = _Kept(table=table, commit=start, schema_version=self.topic.schema_version, base=in_place)
        source = base.relation_sql(self.log, self.topic, None if in_place else found)
        weight = "" if self.topic.kind == "table" else f", {COUNT}"
        with read.blaming(self.log, [found] if found else []):
            self.connection.execute(f"CREATE OR REPLACE TABLE {table} AS SELECT {self._data()}{weight} FROM ({source})")
        kept.owes = self.topic.kind == "changelog" and self._one(f"SELECT count(*) > 0 FROM {table} WHERE {COUNT} < 0")
        if in_place:
            keys = ", ".join(quote(name) for name in self.topic.schema.key)
            self.connection.execute(f"CREATE OR REPLACE TABLE {kept.touched} AS SELECT {keys} FROM {table}")
        return kept

    def _advance(self, kept: _Kept, commit: int) -> None:
        plan = read.plan(self.log, self.topic, kept.commit, commit, whole=True)
        for part in read.parts(plan, ADVANCE_ROWS_TARGET):
            self._advance_by(kept, part)
            kept.commit = part.upto
        kept.commit = commit

    def _advance_by(self, kept: _Kept, plan: read.Plan) -> None:
        source, hot_rows = read.scan_sql(self.log, plan, "hot_rows")
        if generations.spans(plan) and self.topic.kind != "changelog":
            source = generations.linear_sql(source)
        if not plan.segments and self.topic.kind != "table" and not kept.owes and _only_adds(hot_rows):
            # DuckDB finds the variable by its name: what every small change of a view costs is this statement.
            self.connection.execute(f"INSERT INTO {kept.table} SELECT {self._data()}, {record.WEIGHT} FROM ({source})")
        else:
            self._merge(kept, source, hot_rows, plan)
        kept.churn += plan.rows
        self._compact(kept)

    def _merge(self, kept: _Kept, source: str, hot: pa.Table, plan: read.Plan) -> None:
        """Changes that replace or remove rows, in one transaction: several statements read them."""
        files: list[Segment | Base] = [*plan.segments, *([kept.base] if kept.base else [])]
        emptied = False
        try:
            self.connection.execute("BEGIN")
            self.connection.register("hot_rows", hot)
            with read.blaming(self.log, files):
                emptied = self._apply(kept, source, None if plan.segments else hot)
            self.connection.execute("COMMIT")
        except BaseException:
            # A damaged file can take DuckDB's whole memory down; it is the file that is to be named then.
            with suppress(duckdb.Error):
                self._roll_back()
            raise
        finally:  # a name that stayed would hide the next change's rows
            with suppress(duckdb.FatalException, duckdb.TransactionException):
                self.connection.unregister("hot_rows")
        if emptied:
            kept.base = None

    def _roll_back(self) -> None:
        """An interrupt that was meant for the statement before may meet this one."""
        while True:
            with suppress(duckdb.InterruptException):
                self.connection.execute("ROLLBACK")
                return

    def _compact(self, kept: _Kept) -> None:
        """Write the table anew once more rows were rewritten than it holds: bounds memory under churn."""
        if kept.churn < CHURN_ROWS_MIN:
            return
        rows = self.connection.execute(f"SELECT count(*) FROM {kept.table}").fetchall()
        if kept.churn > rows[0][0]:
            self.connection.execute(f"CREATE OR REPLACE TABLE {kept.table} AS FROM {kept.table}")
            kept.churn = 0

    def _apply(self, kept: _Kept, source: str, hot: pa.Table | None) -> bool:
        """Whether a truncate among the changes ended every row before them.

        ``hot``: the whole source as a table, when no segment takes part; then its flags cost no query.
        """
        if self.topic.kind != "table":
            self._apply_bag(kept, source)
            return False
        if hot is None:
            truncated = self._one(truncated_sql(source))
            partial = self._one(f"SELECT count(*) > 0 FROM ({source}) WHERE len({record.UNCHANGED}) > 0")
        else:
            truncated = bool(pc.any(pc.equal(hot.column(record.OP), "t")).as_py())
            partial = hot.column(record.UNCHANGED).null_count < hot.num_rows
        source = self._lifted(source)
        if partial and self._one(moves.exist_sql(source)):
            source = moves.complete(self.connection, self.topic.schema, source, self._keyed_rows(kept))
        if truncated:
            self.connection.execute(f"DELETE FROM {kept.table}")
        self._apply_keyed(kept, source, partial, emptied=truncated)
        return truncated

    def _data(self) -> str:
        return ", ".join(f"{lift_sql(f.name, f.type)} AS {quote(f.name)}" for f in self.topic.schema.fields)

    def _lifted(self, source: str) -> str:
        """The changes with data columns as DuckDB types, so that they and the kept rows compare."""
        return f"SELECT {self._data()}, {', '.join(_FOLDED)} FROM ({source})"

    def _apply_keyed(self, kept: _Kept, source: str, partial: bool, *, emptied: bool) -> None:
        schema = self.topic.schema
        folded = fold_sql(schema, "table", source, partial=partial, truncated=emptied)
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE delta AS {folded}")
        if partial:
            self._take_kept(f"SELECT * FROM {kept.table}" if emptied else self._keyed_rows(kept))
        self.connection.execute(f"DELETE FROM {kept.table} t USING delta d WHERE {self._same_key()}")
        columns = ", ".join(quote(name) for name in schema.names)
        self.connection.execute(f"INSERT INTO {kept.table} SELECT {columns} FROM delta WHERE NOT {GONE}")
        if kept.base and not emptied:
            keys = ", ".join(quote(name) for name in schema.key)
            fresh = f"SELECT {keys} FROM delta t ANTI JOIN {kept.touched} d ON {self._same_key()}"
            self.connection.execute(f"INSERT INTO {kept.touched} {fresh}")

    def _take_kept(self, before: str) -> None:
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
            f" LEFT JOIN ({before}) t ON {self._same_key()}"
        )

    def _same_key(self) -> str:
        return " AND ".join(f"t.{quote(name)} IS NOT DISTINCT FROM d.{quote(name)}" for name in self.topic.schema.key)

    def _apply_bag(self, kept: _Kept, source: str) -> None:
        table, schema = kept.table, self.topic.schema
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
        # A source's delete of a row that is not there means nothing; a changelog's weights add up.
        is_sum = self.topic.kind == "changelog"
        self.connection.execute(f"INSERT INTO {table} SELECT * FROM merged WHERE {COUNT} {'<>' if is_sum else '>'} 0")
        kept.owes |= is_sum and self._one(f"SELECT count(*) > 0 FROM merged WHERE {COUNT} < 0")

    def _one(self, sql: str) -> bool:
        return bool(self.connection.execute(sql).fetchall()[0][0])


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
