"""Stored copies of topics: change records in, a weighted delta out, then applied.

The delta of a keyed topic is the prior row (-1), taken from the stored copy and never from what the source
says it was, and the new row (+1); values the source did not send come from the prior row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from headwater import record
from headwater.log import moves
from headwater.log.fold import GONE, KEPT, fold_sql
from headwater.schema import Schema
from headwater.types import lift_sql, quote
from headwater_pipelines.compiler.plan import WEIGHT, Base
from headwater_pipelines.compiler.render import delta_table
from headwater_pipelines.runtime.arrived import ALL, Arrived
from headwater_pipelines.runtime.relation import Found
from headwater_pipelines.runtime.state import ARRIVED, State

META = {
    "table": (record.OP, record.UNCHANGED, record.OFFSET, record.PARTITION, record.LSN, record.SEQ),
    "multiset": (record.OP, record.WEIGHT, record.OFFSET, record.PARTITION),
    "insert_only": (record.OP, record.OFFSET, record.PARTITION),
    "event": (),
}


@dataclass(frozen=True)
class Store:
    """A topic's stored copy: the columns views read (``schema``, pruned, key included)."""

    base: Base
    schema: Schema

    @cached_property
    def columns(self) -> str:
        return ", ".join(quote(name) for name in self.schema.names)

    @property
    def tables(self) -> tuple[str, ...]:
        """The stored relations that it consists of."""
        return (self.base.table,)

    @property
    def reads(self) -> list[str]:
        """The columns to ask of the log."""
        return [*self.schema.names, *META[self.base.kind]]

    def create(self, state: State) -> None:
        """Make the stored copy, empty."""
        columns = [(field.name, field.type) for field in self.schema.fields]
        columns = columns or [("_row", "BOOLEAN")]  # COUNT(*) over a keyless topic reads no column
        state.create(self.base.table, columns, tuple(map(quote, self.schema.key or dict(columns))))

    def stage(self, state: State, changes: Arrived) -> int:
        """Make the delta table out of change records (file types, ``reads``); returns its number of rows."""
        if changes.rows == 0:
            return 0
        into = f"CREATE OR REPLACE TEMP TABLE {quote(self.delta)} AS "
        if self.base.kind not in ("table", "history") or self.grows(changes):
            return state.temporary(into + self._arrived_sql(state, changes), changes.table)
        if self._is_last_of_each(changes):
            found = self._seek(state, self._records(state, changes), changes.table)
            return state.temporary(into + self._compared(state, changes, found), changes.table, found)
        if changes.table is not None:
            state.connection.register(ARRIVED, changes.table)  # more than one statement reads it
        source, rows = self._records(state, changes), 0
        for within in changes.slices(self.keys):
            rows += state.temporary(into + self._keyed(state, changes, source, within))
            into = f"INSERT INTO {quote(self.delta)} "
        if changes.table is not None:
            state.connection.unregister(ARRIVED)  # a rollback does it otherwise
        return rows

    def load(self, state: State, changes: Arrived) -> None:
        """Apply change records that nothing else reads, without a delta table where they are all new rows."""
        relation = state.relations[self.base.table]
        if not changes.rows or not self.grows(changes):
            self.apply(state, self.stage(state, changes))
        elif changes.table is None:
            relation.fill(self._arrived_sql(state, changes))
        else:
            relation.append(self._arrived_sql(state, changes), changes.table)

    def apply(self, state: State, rows: int) -> None:
        """Bring the stored copy up to date with the staged delta of so many rows."""
        state.relations[self.base.table].add(f"SELECT * FROM {quote(self.delta)}", rows)

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(map(quote, self.schema.key))

    def forget(self, state: State, mark: int) -> None:
        """Let go of rows that nobody looks at any more where the watermark is ``mark``."""

    @property
    def delta(self) -> str:
        return delta_table(self.base)

    def _lifted(self) -> str:
        return ", ".join(f"{lift_sql(field.name, field.type)} AS {quote(field.name)}" for field in self.schema.fields)

    def grows(self, changes: Arrived) -> bool:
        """Whether every record is a new row: no row before it has to be looked up, and every weight is positive."""
        return changes.ops <= {"c", "r"}

    def _arrived_sql(self, state: State, changes: Arrived) -> str:
        """Records that look up no row: each is its own delta; a truncation takes back all that was there before."""
        lifted = self._lifted() or "true AS _row"
        weight = record.WEIGHT if self.base.is_bag else "1::BIGINT"
        select = f"SELECT {lifted}, {weight} AS {WEIGHT} FROM {changes.source}"
        if "t" not in changes.ops:
            return select
        partition, offset = record.PARTITION, record.OFFSET
        cut = f"SELECT {partition}, max({offset}) AS _cut FROM {changes.source} WHERE {record.OP} = 't' GROUP BY ALL"
        return (
            f"WITH cut AS ({cut}) {select} LEFT JOIN cut USING ({partition})"
            f" WHERE {record.OP} <> 't' AND (_cut IS NULL OR {offset} > _cut)"
            f" UNION ALL SELECT * REPLACE (-{WEIGHT} AS {WEIGHT})"
            f" FROM ({state.relations[self.base.table].current_sql()})"
        )

    def _records(self, state: State, changes: Arrived) -> str:
        """SQL of the records of a keyed topic; those that moved a row have all its values."""
        source = f"SELECT {self._lifted()}, {', '.join(META['table'])} FROM {changes.source}"
        if not changes.is_partial or not (state.row(moves.exist_sql(source)) or (False,))[0]:
            return source
        old = self._prior(state, "" if "t" in changes.ops else source, ALL)
        return moves.complete(state.connection, self.schema, source, f"SELECT {self.columns} FROM {old}")

    def _keyed(self, state: State, changes: Arrived, source: str, within: str) -> str:
        """The delta of the keys ``within``; truncations concern all of them."""
        keys, partial, truncated = ", ".join(self.keys), changes.is_partial, "t" in changes.ops
        if within != ALL:
            source = f"SELECT * FROM ({source}) WHERE {within} OR {record.OP} = 't'"
        old = self._prior(state, "" if truncated else source, within)
        fold = fold_sql(self.schema, "table", source, partial=partial, truncated=truncated)
        touched = "" if truncated else f" SEMI JOIN folded USING ({keys})"
        values = self.columns
        prior = ""
        if partial:
            values = ", ".join(self._value(name) for name in self.schema.names)
            prior = f" LEFT JOIN old USING ({keys})"
        rows = (
            f"WITH folded AS MATERIALIZED ({fold}),"
            f" old AS MATERIALIZED (SELECT {self.columns} FROM {old}{touched})"
            f" SELECT {self.columns}, -1::BIGINT AS {WEIGHT} FROM old"
            f" UNION ALL SELECT {values}, 1::BIGINT AS {WEIGHT} FROM folded{prior} WHERE NOT {GONE}"
        )
        # Of a small batch, updates of columns that no view reads end here.
        return rows if changes.table is None else state.relations[self.base.table].current_sql(f"({rows})")

    def _prior(self, state: State, source: str, within: str) -> str:
        """A FROM item of the rows that stand, those at least that have a key of ``source``, or all ``within``."""
        relation = state.relations[self.base.table]
        name = f"p_{self.base.table}"
        if source and (found := self._seek(state, source)):
            state.temporary(f"CREATE OR REPLACE TEMP TABLE {quote(name)} AS {found.sql}", None, found)
            return f"({relation.current_sql(quote(name))})"
        rows = "" if within == ALL else f"(SELECT * FROM {quote(self.base.table)} WHERE {within})"
        if source:  # to consolidate what is not asked for would cost more than the scan
            keys = ", ".join(self.keys)
            of_keys = f"SEMI JOIN (SELECT {keys} FROM ({source})) AS k USING ({keys})"
            rows = f"(SELECT s.* FROM {quote(self.base.table)} AS s {of_keys})"
        return f"({relation.current_sql(rows)})"

    def _seek(self, state: State, source: str, arrived: pa.Table | None = None) -> Found | None:
        """The stored rows of the keys of ``source``; None: all have to be read."""
        relation = state.relations[self.base.table]
        keys = f"SELECT {', '.join(self.keys)} FROM ({source})"
        return relation.seek(self.keys, keys, arrived)

    def _compared(self, state: State, changes: Arrived, found: Found | None) -> str:
        """Of records that hold each key once: its row before, as ``found``, and its new one, where they differ.

        An update of columns that no view reads is the most frequent one; it ends here.
        """
        stored = state.relations[self.base.table].current_sql(f"({found.sql})" if found else "")
        fields, key = self.schema.fields, self.schema.key
        place = {field.name: n for n, field in enumerate(fields)}
        new = "".join(f"{lift_sql(f.name, f.type)} AS n{n}, " for f, n in zip(fields, place.values(), strict=True))
        old = "".join(f"{quote(name)} AS o{n}, " for name, n in place.items())
        same_key = " AND ".join(f"n{place[name]} = o{place[name]}" for name in key)
        moved = [f"n{n} IS DISTINCT FROM o{n}" for name, n in place.items() if name not in key]
        if not all(is_identity(field.type) for field in fields):
            moved = ["true"]
        rows = (
            f"SELECT * FROM (SELECT {new}{record.OP} AS op FROM {changes.source})"
            f" LEFT JOIN (SELECT {old}true AS was FROM ({stored})) ON {same_key}"
        )
        changed = " OR ".join(["was IS NULL", "op = 'd'", *moved])
        before, after = (", ".join(f"{c}{n} AS {quote(name)}" for name, n in place.items()) for c in "on")
        return (
            f"WITH moved AS MATERIALIZED (SELECT * FROM ({rows}) WHERE {changed})"
            f" SELECT {before}, -1::BIGINT AS {WEIGHT} FROM moved WHERE was"
            f" UNION ALL SELECT {after}, 1::BIGINT AS {WEIGHT} FROM moved WHERE op <> 'd'"
        )

    def _is_last_of_each(self, changes: Arrived) -> bool:
        """Whether every key occurs once, with all values: the usual small batch, which needs no fold."""
        if self.base.kind != "table" or "t" in changes.ops or changes.is_partial or changes.table is None:
            return False
        keys = [_storage(changes.table.column(name)) for name in self.schema.key]
        if any(pa.types.is_nested(key.type) for key in keys):
            return False
        if len(keys) == 1:  # by far the quicker of the two for a small batch
            distinct = pc.count_distinct(keys[0], mode="all").as_py()
        else:
            table = pa.table(keys, names=list(self.schema.key))
            distinct = table.group_by(list(self.schema.key), use_threads=False).aggregate([]).num_rows
        return bool(distinct == changes.rows)

    def _value(self, name: str) -> str:
        if name in self.schema.key:
            return quote(name)
        kept = name.replace("'", "''")
        return f"CASE WHEN list_contains({KEPT}, '{kept}') THEN old.{quote(name)} ELSE folded.{quote(name)} END"


def filled_sql(schema: Schema, name: str) -> str:
    """A column of a key's records in their order, with what the source did not send taken from the record before."""
    column, keys = quote(name), ", ".join(map(quote, schema.key))
    if name in schema.key:
        return column
    text = name.replace("'", "''")
    unsent = f"list_contains(coalesce({record.UNCHANGED}, []), '{text}')"
    sent = f"CASE WHEN NOT {unsent} THEN struct_pack(v := {column}) END"
    window = f"PARTITION BY {keys} ORDER BY {record.OFFSET} ROWS UNBOUNDED PRECEDING"
    return f"(last_value({sent} IGNORE NULLS) OVER ({window})).v AS {column}"


def _storage(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of an extension type (uuid) as what it is stored as: Arrow's functions know only that."""
    if not isinstance(column.type, pa.BaseExtensionType):
        return column
    return pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)


def is_identity(text: str) -> bool:
    """Whether equal values of the type are the same value: 0.0 is -0.0, and a month is 30 days, to a comparison."""
    return text.removesuffix("[]") not in ("FLOAT", "DOUBLE", "INTERVAL", "TIMETZ")


def prune(schema: Schema, used: frozenset[str]) -> Schema:
    """The schema's fields that are used or belong to the key."""
    keep = used | set(schema.key)
    return Schema(fields=tuple(field for field in schema.fields if field.name in keep), key=schema.key)
