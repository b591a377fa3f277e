"""What a topic lacks to be the copied table: differences as ordinary changes, worked out by DuckDB.

copied rows at S + tail ──▶ the table now ──┐
rows that readers see ─────────────────────┴──▶ c, u, d (or weights) for what differs
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import duckdb
import pyarrow as pa

from headwater import record
from headwater.catalog.records import Topic
from headwater.log import Log
from headwater.log.fold import GONE, fold_sql
from headwater.log.rows import CurrentRows
from headwater.types import lift_sql, lower_sql, quote
from headwater_connectors.postgres.pending import BATCH_ROWS, appended


class Difference:
    """For one topic, in the shape that the copy has; ``copied`` and ``tail`` are read once, in their order.

    With ``selects`` only keys are compared that were copied or are in the table ``again`` (see ``select``).
    """

    def __init__(self, log: Log, topic: Topic, connection: duckdb.DuckDBPyConnection, *, selects: bool = False) -> None:
        self.log = log
        self.topic = topic
        self.connection = connection
        self._selects = selects
        self._shown = CurrentRows(log, connection, topic)
        self._data = ", ".join(quote(name) for name in topic.schema.names)
        self._keys = [quote(name) for name in topic.schema.key]

    def changes(
        self, copied: Iterable[pa.Table], tail: Iterable[pa.Table], commit: int, same: str = ""
    ) -> Iterator[pa.Table]:
        """Changes that turn the rows at ``commit`` into the copied ones with the tail applied.

        ``same``: a condition on those rows; where it holds they are as good as copied.
        """
        self._load("copied", copied)
        self._load("tail", tail)
        shown = self._shown
        if same:
            self._add_shown(shown, commit, same)
        query = self._keyed(shown, commit) if self.topic.kind == "table" else self._bag(shown, commit)
        target = appended(self.topic)
        more = [record.WEIGHT] if self.topic.kind == "multiset" else []
        names = [*self.topic.schema.names, record.OP, *more, record.RAW]
        wanted = pa.schema([target.field(name) for name in names])
        for batch in self.connection.sql(query).to_arrow_reader(BATCH_ROWS):
            yield pa.Table.from_batches([batch]).select(names).cast(wanted)

    def _add_shown(self, shown: CurrentRows, commit: int, where: str) -> None:
        """Rows that readers see, as copied ones."""
        fields = self.topic.schema.fields
        lowered = ", ".join(f"{lower_sql(field.name, field.type)} AS {quote(field.name)}" for field in fields)
        self.connection.execute(
            f"INSERT INTO copied BY NAME SELECT {lowered}, 'r' AS {record.OP}"
            f" FROM ({shown.at(self.topic, commit)}) WHERE {where}"
        )

    def select(self, condition: str, copied: Iterable[pa.Table], commit: int) -> None:
        """Add keys to ``again`` that readers see and the condition selects, and that were not copied.

        The server looks at them by their key: it may judge otherwise.
        """
        self._load("copied", copied)
        lowered = ", ".join(
            lower_sql(name, self.topic.schema.field(name).type) + f" AS {key}"
            for name, key in zip(self.topic.schema.key, self._keys, strict=True)
        )
        keys = ", ".join(self._keys)
        self.connection.execute(
            f"INSERT INTO again SELECT {keys} FROM (SELECT {lowered}"
            f" FROM ({self._shown.at(self.topic, commit)}) WHERE {condition})"
            f" EXCEPT SELECT {keys} FROM copied EXCEPT SELECT {keys} FROM again"
        )

    def _selected(self) -> str:
        """The compared keys, as values."""
        lifted = ", ".join(
            lift_sql(name, self.topic.schema.field(name).type) + f" AS {key}"
            for name, key in zip(self.topic.schema.key, self._keys, strict=True)
        )
        return f"SELECT {lifted} FROM copied UNION SELECT {lifted} FROM again"

    def _load(self, name: str, rows: Iterable[pa.Table]) -> None:
        """A table of the rows, numbered in their order."""
        target = appended(self.topic)
        batches = (batch for table in rows for batch in record.fill(table, target).combine_chunks().to_batches())
        reader = pa.RecordBatchReader.from_batches(target, batches)
        self.connection.register("loaded", reader)
        self.connection.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM loaded")
        self.connection.unregister("loaded")

    def _keyed(self, shown: CurrentRows, commit: int) -> str:
        schema, keys = self.topic.schema, ", ".join(self._keys)
        cut = "(SELECT coalesce(max(rowid), -1) FROM tail WHERE _op = 't')"
        folded = fold_sql(
            schema,
            "table",
            f"SELECT {self._data}, _op, _unchanged, 0 AS _partition, -1 AS _offset"
            f" FROM copied SEMI JOIN tail USING ({keys}) WHERE {cut} < 0"
            f" UNION ALL SELECT {self._data}, _op, _unchanged, 0, rowid FROM tail WHERE rowid > {cut}",
            truncated=False,  # the rows before the last one are left out above, and a truncate has no key
        )
        lifted = ", ".join(f"{lift_sql(field.name, field.type)} AS {quote(field.name)}" for field in schema.fields)
        raw = (
            f"SELECT {keys}, map_concat(first(_raw ORDER BY o), last(_raw ORDER BY o)) AS _raw FROM ("
            f"SELECT {keys}, _raw, -1 AS o FROM copied WHERE {cut} < 0"
            f" UNION ALL SELECT {keys}, _raw, rowid FROM tail WHERE rowid > {cut})"
            f" GROUP BY {keys} HAVING count(_raw) > 0"
        )
        self.connection.execute(
            f"CREATE OR REPLACE TABLE now AS SELECT {lifted}, _raw FROM ("
            f"SELECT {self._data} FROM copied ANTI JOIN tail USING ({keys}) WHERE {cut} < 0"
            f" UNION ALL SELECT {self._data} FROM ({folded}) WHERE NOT {GONE}) LEFT JOIN ({raw}) USING ({keys})"
        )
        lowered = ", ".join(f"{lower_sql(field.name, field.type)} AS {quote(field.name)}" for field in schema.fields)
        only = f" SEMI JOIN ({self._selected()}) USING ({keys})" if self._selects else ""
        before = f"(SELECT {self._data} FROM ({shown.at(self.topic, commit)}){only})"
        same = " AND ".join(f"n.{key} = b.{key}" for key in self._keys)
        values = [quote(name) for name in schema.names if quote(name) not in self._keys]
        differs = " OR ".join(["n._raw IS NOT NULL", *(f"n.{name} IS DISTINCT FROM b.{name}" for name in values)])
        made = f"b.{self._keys[0]} IS NULL"
        gone = ", ".join(f"b.{quote(n)}" if quote(n) in self._keys else f"NULL AS {quote(n)}" for n in schema.names)
        return (
            f"SELECT {lowered}, _op, _raw FROM (SELECT n.*, CASE WHEN {made} THEN 'c' ELSE 'u' END AS _op"
            f" FROM now n LEFT JOIN {before} b ON {same} WHERE {made} OR {differs}"
            f" UNION ALL SELECT {gone}, NULL, 'd' FROM {before} b ANTI JOIN now n ON {same})"
        )

    def _bag(self, shown: CurrentRows, commit: int) -> str:
        schema = self.topic.schema
        lifted = ", ".join(f"{lift_sql(field.name, field.type)} AS {quote(field.name)}" for field in schema.fields)
        lowered = ", ".join(f"{lower_sql(field.name, field.type)} AS {quote(field.name)}" for field in schema.fields)
        cut = "(SELECT coalesce(max(rowid), -1) FROM tail WHERE _op = 't')"
        return (
            f"SELECT {lowered}, _op, _weight, NULL::MAP(VARCHAR, VARCHAR) AS _raw FROM (SELECT {self._data},"
            f" CASE WHEN sum(n) > 0 THEN 'c' ELSE 'd' END AS _op, sum(n)::BIGINT AS _weight FROM ("
            f"SELECT {lifted}, 1 AS n FROM copied WHERE {cut} < 0"
            f" UNION ALL SELECT {lifted}, _weight FROM tail WHERE rowid > {cut}"
            f" UNION ALL SELECT {self._data}, -1 FROM ({shown.at(self.topic, commit)}))"
            f" GROUP BY {self._data} HAVING sum(n) <> 0)"
        )
