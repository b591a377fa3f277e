"""``history.<table>``: every version of every row, with the time span in which it was the current one.

A version begins with the record that wrote it and ends with the next record of its key or a truncate; times
are the source's commit times. ``valid_to`` is NULL while the version is current.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import duckdb

from headwater import record
from headwater.catalog.records import Topic
from headwater.errors import NameNotFound, UsageError
from headwater.log import moves
from headwater.types import lift_sql, quote

VALID_FROM, VALID_TO = "valid_from", "valid_to"


def of_key(topic: Topic, key: Any) -> tuple[str, dict[str, Any]]:
    """A SELECT of one row's versions in the order they came, and its parameters; ``key`` as ``key_values`` takes it.

    Columns: the topic's, ``valid_from``, ``valid_to`` (NULL while it is current), ``_op`` of a table, ``_commit``,
    ``_offset``. A version of a view's row is what one commit left of it, so none is shorter than a commit.
    """
    values = key_values(topic, key)
    params = {f"key_{place}": value for place, value in enumerate(values)}
    kinds = {field.name: field.type for field in topic.schema.fields}
    same = " AND ".join(
        f"{quote(column)} IS NOT DISTINCT FROM CAST(${name} AS {kinds[column]})"
        for column, name in zip(topic.schema.key, params, strict=True)
    )
    source = f"history.{'.'.join(map(quote, topic.name.split('.')))}"
    if topic.kind == "table":
        return f"SELECT * FROM {source} WHERE {same} ORDER BY {record.COMMIT}, {record.OFFSET}", params
    columns = ", ".join(quote(name) for name in topic.schema.names)
    return (
        f"""SELECT {columns}, {VALID_FROM}, {VALID_TO}, {record.COMMIT}, {record.OFFSET} FROM (
  SELECT *, lead({VALID_FROM}) OVER (PARTITION BY {columns} ORDER BY {record.COMMIT}) AS {VALID_TO} FROM (
    SELECT {columns}, min({VALID_FROM}) AS {VALID_FROM}, sum({record.WEIGHT}) AS {record.WEIGHT},
      {record.COMMIT}, max({record.OFFSET}) AS {record.OFFSET}
    FROM {source} WHERE {same} GROUP BY {columns}, {record.COMMIT} HAVING sum({record.WEIGHT}) <> 0))
WHERE {record.WEIGHT} > 0 ORDER BY {record.COMMIT}, {record.OFFSET}""",
        params,
    )


def key_values(topic: Topic, key: Any) -> list[Any]:
    """The values of a key's columns from a value, or a tuple or mapping for composite keys.

    NameNotFound for a topic without a key, UsageError for a key that is not one of its.
    """
    columns = topic.schema.key
    if not columns:
        raise NameNotFound(f"{topic.name} has no key", todo="Select the row with a WHERE clause.")
    if isinstance(key, Mapping):
        values = [key[column] for column in columns if column in key]
    else:
        values = list(key) if isinstance(key, tuple) else [key]
    if len(values) != len(columns):
        raise UsageError(f"{key!r} is no key of {topic.name}", todo=f"Its key is ({', '.join(columns)}).")
    return values


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
