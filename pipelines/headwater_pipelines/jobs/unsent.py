"""Values that a source did not send because they did not change: a job gets them, from the row before each change.

Such changes are rare, and only a range that has some costs anything: its records of their keys are laid over the
table's rows before it, and each value is the newest that was sent.
"""

from __future__ import annotations

from functools import cached_property

import duckdb
import pyarrow as pa

from headwater import record, types
from headwater.catalog.records import Topic
from headwater.lake.history import filled
from headwater.log import Log, moves, read
from headwater.log.rows import CurrentRows
from headwater.types import quote
from headwater_pipelines.jobs.room import Room

_PLACE = (record.PARTITION, record.OFFSET)
_AT = ", ".join(_PLACE)
_READ = (record.OP, record.LSN, record.SEQ, record.UNCHANGED, *_PLACE)


class Unsent:
    """Fills in what was not sent. It keeps the rows of the tables that needed it."""

    def __init__(self, log: Log, room: Room) -> None:
        self.log = log
        self.room = room
        self._rows: dict[int, CurrentRows] = {}
        self._resolved: tuple[int, int, int] | None = None

    def fill(self, topic: Topic, after: int, upto: int, table: pa.Table) -> pa.Table:
        """Records of commits in (after, upto] with all values; the others stay as they are, and so does the order."""
        if topic.kind != "table" or table.column(record.UNCHANGED).null_count == table.num_rows:
            return table
        if self._resolved != (topic.id, after, upto):
            self._resolve(topic, after, upto)
            self._resolved = (topic.id, after, upto)
        self._own.register("given", table)
        columns = ", ".join(
            f"CASE WHEN r.{record.OFFSET} IS NULL THEN g.{name} ELSE r.{name} END AS {name}"
            for name in (quote(field.name) for field in topic.schema.fields)
        )
        same = " AND ".join(f"g.{name} = r.{name}" for name in _PLACE)
        found = self._own.sql(
            f"SELECT g.* REPLACE ({columns}) FROM given g LEFT JOIN resolved r ON {same} ORDER BY g.{record.OFFSET}"
        ).to_arrow_table()
        self._own.unregister("given")
        return found.cast(table.schema)

    @cached_property
    def _own(self) -> duckdb.DuckDBPyConnection:
        return self.room.connect("unsent", self.log.timezone)

    def _resolve(self, topic: Topic, after: int, upto: int) -> None:
        """Make the table ``resolved``: of every record that lacks values its place, and all values, in file types."""
        rows = self._rows.setdefault(topic.id, CurrentRows(self.log, self._own, topic))
        before = rows.at(topic, after)
        source = read.relation_sql(self.log, self._own, read.plan(self.log, topic, after, upto), "range_rows")
        fields, keys = topic.schema.fields, ", ".join(quote(name) for name in topic.schema.key)
        lifted = ", ".join(f"{types.lift_sql(field.name, field.type)} AS {quote(field.name)}" for field in fields)
        changes = f"SELECT {lifted}, {', '.join(_READ)} FROM ({source})"
        self._make("lacking", f"SELECT {keys}, {_AT} FROM ({changes}) WHERE len({record.UNCHANGED}) > 0")
        if self._own.execute(moves.exist_sql(changes)).fetchall() == [(True,)]:
            changes = moves.complete(self._own, topic.schema, changes, before)
        names = ", ".join(quote(field.name) for field in fields)
        first = f"[]::VARCHAR[] AS {record.UNCHANGED}, -1::INTEGER AS {record.PARTITION}, -1::BIGINT AS {record.OFFSET}"
        versions = (
            f"SELECT {names}, {record.UNCHANGED}, {_AT} FROM ({changes}) SEMI JOIN lacking USING ({keys})"
            f" UNION ALL SELECT {names}, {first} FROM ({before}) SEMI JOIN lacking USING ({keys})"
        )
        values = ", ".join(filled(field.name, topic, keys) for field in fields)
        lowered = ", ".join(f"{types.lower_sql(field.name, field.type)} AS {quote(field.name)}" for field in fields)
        found = f"SELECT {values}, {_AT} FROM ({versions})"
        self._make("resolved", f"SELECT {lowered}, {_AT} FROM ({found}) SEMI JOIN lacking USING ({_AT})")
        self._own.unregister("range_rows")

    def _make(self, name: str, sql: str) -> None:
        self._own.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {sql}")
