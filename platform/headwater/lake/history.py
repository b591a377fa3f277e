"""``history.<table>``: every version of every row, with the time span in which it was the current one.

A version begins with the record that wrote it and ends with the next record of its key or a truncate; times
are the source's commit times. ``valid_to`` is NULL while the version is current.
"""

from __future__ import annotations

import duckdb

from headwater import record
from headwater.catalog.records import Topic
from headwater.log import moves
from headwater.types import lift_sql, quote

VALID_FROM, VALID_TO = "valid_from", "valid_to"


def history_sql(topic: Topic, source: str, offset: str = record.OFFSET) -> str:
    """SQL of the versions: data columns, ``valid_from``, ``valid_to``, ``_op``, ``_commit``, ``_offset``.

    ``offset`` is the column of ``source`` to show as a record's offset (its ``_offset`` gives the order).
    For topics without a key a version is a row with its weight (``_weight``, no ``valid_to``).
    """
    lifted = ", ".join(f"{lift_sql(f.name, f.type)} AS {quote(f.name)}" for f in topic.schema.fields)
    if topic.kind != "table":
        committed = (
            f"coalesce({record.COMMITTED_AT}, {record.INGESTED_AT})"
            if topic.kind == "multiset"
            else (record.INGESTED_AT)
        )
        return (
            f"SELECT {lifted}, {committed} AS {VALID_FROM}, {record.WEIGHT}, {record.COMMIT},"
            f" {offset} AS {record.OFFSET} FROM ({source}) WHERE {record.WEIGHT} <> 0"
        )
    keys = ", ".join(quote(name) for name in topic.schema.key)
    columns = ", ".join(filled(name, topic, keys) for name in topic.schema.names)
    moment = f"coalesce({record.COMMITTED_AT}, {record.INGESTED_AT})"
    return f"""WITH changes AS ({source}),
cuts AS (SELECT {record.PARTITION}, {record.OFFSET}, {moment} AS cut FROM changes WHERE {record.OP} = 't'),
spans AS (SELECT {columns}, {moment} AS {VALID_FROM}, {record.OP}, {record.COMMIT}, {record.OFFSET},
  {offset} AS _shown, {record.PARTITION},
  lead({moment}) OVER (PARTITION BY {keys} ORDER BY {record.OFFSET}) AS next_change
  FROM changes WHERE {record.OP} <> 't'),
bounded AS (SELECT spans.*, cuts.cut FROM spans
  ASOF LEFT JOIN cuts ON spans.{record.PARTITION} = cuts.{record.PARTITION}
    AND spans.{record.OFFSET} < cuts.{record.OFFSET})
SELECT {lifted}, {VALID_FROM}, least(next_change, cut) AS {VALID_TO},
  {record.OP}, {record.COMMIT}, _shown AS {record.OFFSET} FROM bounded WHERE {record.OP} <> 'd'"""


def completed(connection: duckdb.DuckDBPyConnection, topic: Topic, source: str, name: str) -> str:
    """SQL of all records of a topic in which a row that changed its key has all its values; see ``moves``."""
    if topic.kind != "table" or connection.execute(moves.exist_sql(source)).fetchall() == [(False,)]:
        return source
    return moves.complete(connection, topic.schema, source, f"SELECT * FROM ({source}) LIMIT 0", name)


def filled(name: str, topic: Topic, keys: str) -> str:
    """A column with what the source did not send taken from the version before."""
    column = quote(name)
    if name in topic.schema.key:
        return column
    text = name.replace("'", "''")
    sent = (
        f"CASE WHEN NOT list_contains(coalesce({record.UNCHANGED}, []), '{text}') THEN struct_pack(v := {column}) END"
    )
    window = f"PARTITION BY {keys} ORDER BY {record.OFFSET} ROWS UNBOUNDED PRECEDING"
    return f"(last_value({sent} IGNORE NULLS) OVER ({window})).v AS {column}"
