"""Stored copies of ``history.<table>``: change records in, versions of rows that begin and end out.

A step reads the current versions of the keys that changed as if they were records before its own, and takes the spans
of all of these, as ``headwater.lake.history`` does over a whole topic. Versions that had ended stay as they are.
"""

from __future__ import annotations

from headwater import record
from headwater.lake.history import VALID_FROM, VALID_TO
from headwater.log import Log, moves
from headwater.schema import Schema
from headwater.types import lift_sql, quote
from headwater_pipelines.compiler.plan import WEIGHT, Base
from headwater_pipelines.compiler.relations import versioned
from headwater_pipelines.runtime.admission import Admitted
from headwater_pipelines.runtime.arrived import Arrived
from headwater_pipelines.runtime.bases import META, Store, filled_sql, prune
from headwater_pipelines.runtime.state import State

_MOMENT = "_moment"


def stored_copy(base: Base, schema: Schema) -> Store:
    """The stored copy of a topic's rows, of those that were not late, or of their versions."""
    if base.event_time is not None:
        return Admitted(base, schema)
    return Versions(base, schema) if base.kind == "history" else Store(base, schema)


def shape(log: Log, base: Base, names: frozenset[str]) -> Schema:
    """What is kept of a topic where these columns are used."""
    schema = log.topic(base.name).schema
    if base.kind == "history":
        return prune(versioned(schema), names | {VALID_FROM, VALID_TO})
    return prune(schema, names)


class Versions(Store):
    """A bag of versions; the current ones have no ``valid_to``."""

    @property
    def data(self) -> Schema:
        """The columns that records have."""
        fields = [field for field in self.schema.fields if field.name not in (VALID_FROM, VALID_TO)]
        return Schema.of({field.name: field.type for field in fields}, key=self.schema.key)

    @property
    def reads(self) -> list[str]:
        return [*self.data.names, *META["table"], record.COMMITTED_AT, record.INGESTED_AT]

    def grows(self, changes: Arrived) -> bool:  # noqa: ARG002
        return False

    def _records(self, state: State, changes: Arrived) -> str:
        lifted = ", ".join(f"{lift_sql(field.name, field.type)} AS {quote(field.name)}" for field in self.data.fields)
        moment = f"coalesce({record.COMMITTED_AT}, {record.INGESTED_AT}) AS {_MOMENT}"
        source = f"SELECT {lifted}, {', '.join(META['table'])}, {moment} FROM {changes.source}"
        if (state.row(moves.exist_sql(source)) or (False,))[0]:
            names = ", ".join(map(quote, self.data.names))
            return moves.complete(state.connection, self.data, source, f"SELECT {names} FROM ({self._current_sql()})")
        return source

    def _keyed(self, state: State, changes: Arrived, source: str, within: str) -> str:  # noqa: ARG002
        """The versions that end or begin with the records, of the keys ``within``."""
        return self._versions_sql(f"SELECT * FROM ({source}) WHERE {within} OR {record.OP} = 't'", within)

    def _current_sql(self) -> str:
        """The versions that have not ended, with weight: each once, but for those that were one another's copies."""
        rows = f"SELECT * FROM {quote(self.base.table)} WHERE {VALID_TO} IS NULL"
        return (
            f"SELECT * REPLACE (1::BIGINT AS {WEIGHT}) FROM (SELECT {self.columns}, sum({WEIGHT}) AS {WEIGHT}"
            f" FROM ({rows}) GROUP BY ALL HAVING sum({WEIGHT}) > 0)"
        )

    def _versions_sql(self, source: str, within: str) -> str:
        """The versions that end or begin with the records. All rows of a truncated table have one partition's cut."""
        keys, names = (", ".join(map(quote, each)) for each in (self.schema.key, self.data.names))
        op, offset, partition = record.OP, record.OFFSET, record.PARTITION
        filled = ", ".join(filled_sql(self.data, name) for name in self.data.names)
        cut = f"SELECT min({partition}) FROM changes WHERE {op} = 't'"
        touched = f"(EXISTS (FROM changes WHERE {op} = 't') OR ({keys}) IN (SELECT ({keys}) FROM changes))"
        return f"""WITH changes AS MATERIALIZED ({source}),
current AS MATERIALIZED (SELECT {self.columns} FROM ({self._current_sql()}) WHERE {touched} AND {within}),
records AS (SELECT {names}, {op}, {record.UNCHANGED}, {offset}, {partition}, {_MOMENT} FROM changes
  UNION ALL SELECT {names}, 'c', NULL, -1, ({cut}), {VALID_FROM} FROM current),
cuts AS (SELECT {partition} AS cut_in, {offset} AS cut_at, {_MOMENT} AS cut FROM changes WHERE {op} = 't'),
spans AS (SELECT {filled}, {op}, {_MOMENT}, {offset}, {partition},
  lead({_MOMENT}) OVER (PARTITION BY {keys} ORDER BY {offset}) AS next FROM records WHERE {op} <> 't'),
bounded AS (SELECT spans.*, cut FROM spans ASOF LEFT JOIN cuts ON {partition} = cut_in AND {offset} < cut_at),
made AS (SELECT {names}, {_MOMENT} AS {VALID_FROM}, least(next, cut) AS {VALID_TO} FROM bounded WHERE {op} <> 'd')
SELECT {self.columns}, CAST(sum({WEIGHT}) AS BIGINT) AS {WEIGHT} FROM (SELECT {self.columns}, 1 AS {WEIGHT} FROM made
  UNION ALL SELECT {self.columns}, -1 FROM current) GROUP BY ALL HAVING sum({WEIGHT}) <> 0"""
