"""Outbox tables: rows that an application inserts are events, whatever becomes of the rows afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from headwater import default, record
from headwater.config import OutboxConfig
from headwater.types import lift_sql, quote
from headwater_connectors.postgres.events import Arrived
from headwater_connectors.postgres.relation import Target

_METADATA = (record.COMMITTED_AT, record.LSN, record.XID, record.SEQ)


@dataclass(frozen=True)
class Outbox:
    """What the project says of one outbox table; ``home`` is the table's own name as a topic."""

    config: OutboxConfig
    source: str
    home: str

    @property
    def topic(self) -> str:
        return self.config.topic or f"{self.source}.events.{{}}"

    def arrived(self, target: Target, rows: pa.Table) -> Arrived:
        """The inserted ones of rows that were decoded for ``target``, as events.

        A column that the table does not have is NULL. Of a row without topic, the payload is the row as JSON.
        """
        inserted = rows.filter(pc.equal(rows[record.OP], "c"))
        found = self._read(target, inserted)
        routed = "{}" in self.topic
        head, _, tail = self.topic.partition("{}")
        named = pc.binary_join_element_wise(head, found["by"], tail, "")
        return Arrived(
            topic=named if routed else pa.array([self.topic] * len(inserted), pa.string()),
            key=found["key"],
            type=found["type"],
            id=found["id"],
            payload=found["payload"],
            metadata={name: inserted[name].combine_chunks() for name in _METADATA},
            keyed=True,
            home=self.home,
            prefix=head if routed else "",
        )

    def _read(self, target: Target, rows: pa.Table) -> dict[str, pa.Array]:
        places = {column.name: place for place, column in enumerate(target.relation.columns)}

        def text(name: str) -> str:
            if name not in places:
                return "NULL::VARCHAR"
            place = places[name]
            return f"CAST({lift_sql(target.names[place], target.types[place].duckdb)} AS VARCHAR)"

        texts = {name: text(getattr(self.config, name)) for name in ("by", "key", "type", "id")}
        whole = ", ".join(f"{quote(target.names[place])} := {text(name)}" for name, place in places.items())
        place = places.get(self.config.payload)
        is_bytes = place is not None and target.types[place].duckdb == "BLOB"
        payload = (
            quote(target.names[place]) if is_bytes and place is not None else f"encode({text(self.config.payload)})"
        )
        if "{}" in self.topic:
            payload = f"CASE WHEN {texts['by']} IS NULL THEN encode(to_json(struct_pack({whole}))) ELSE {payload} END"
        listed = ", ".join(f"{sql} AS {name}" for name, sql in {**texts, "payload": payload}.items())
        connection = default.connection()  # keeps the order of rows
        connection.register("inserted", rows)
        try:
            found = connection.sql(f"SELECT {listed} FROM inserted").to_arrow_table()
        finally:
            connection.unregister("inserted")
        kinds = {name: pa.binary() if name == "payload" else pa.string() for name in found.column_names}
        return {name: found[name].cast(kind).combine_chunks() for name, kind in kinds.items()}
