"""From changes to current rows, as SQL: the last state of every key in a relation of changes.

    changes (a..b]  ──fold──▶  one row per key  ──apply──▶  rows at b, given rows at a

Per key only what came after its last delete or truncate counts; each column is taken from the newest record
that does not list it in ``_unchanged`` (the source sends no unchanged TOAST value). Records of one key stand
in one partition, so ``_offset`` orders them.
"""

from __future__ import annotations

from headwater.record import OFFSET, OP, PARTITION, UNCHANGED
from headwater.schema import Schema
from headwater.types import quote

GONE = "_gone"
"""BOOLEAN: the key has no row at the end of the range."""
KEPT = "_kept"
"""VARCHAR[]: columns that nobody sent in the range; their value is that of the row before. Empty where that row
contributes nothing: the key was created, deleted or truncated in the range."""

_AFTER_TRUNCATE = f"""cut AS (
  SELECT {PARTITION}, max({OFFSET}) AS at FROM changes WHERE {OP} = 't' GROUP BY {PARTITION}),
alive AS (SELECT c.*, cut.at IS NOT NULL AS after_cut FROM changes c LEFT JOIN cut USING ({PARTITION})
          WHERE c.{OP} <> 't' AND (cut.at IS NULL OR c.{OFFSET} > cut.at))"""
_NO_TRUNCATE = "alive AS (SELECT *, false AS after_cut FROM changes)"


def fold_sql(schema: Schema, kind: str, source_sql: str, *, partial: bool = True, truncated: bool = True) -> str:
    """SQL with one row per key of ``source_sql`` (changes of one keyed topic, data and metadata columns).

    Columns: the topic's own, ``_gone``, ``_kept``. Rows of a key that is gone hold NULL outside the key. After a
    truncate in the range (``truncated_sql``) no earlier row of the table lives on, whether its key is in the result
    or not. With ``partial=False`` the caller vouches that no record in the range has ``_unchanged``, and with
    ``truncated=False`` that none is a truncate: to look for them is a good part of a small fold.

    Raises ValueError for topics without a key: their changes are a Z-set already.
    """
    if kind != "table" or not schema.key:
        raise ValueError(f"a {kind} topic has no keys to fold")
    body = _columnwise(schema) if partial else _last_record(schema)
    return f"WITH changes AS ({source_sql}),\n{_AFTER_TRUNCATE if truncated else _NO_TRUNCATE}\n{body}"


def truncated_sql(source_sql: str) -> str:
    """SQL with one BOOLEAN: whether the whole table was emptied inside the range."""
    return f"SELECT count(*) > 0 FROM ({source_sql}) WHERE {OP} = 't'"


def _last_record(schema: Schema) -> str:
    keys = ", ".join(quote(name) for name in schema.key)
    values = ", ".join(_or_null(name, schema) for name in schema.names)
    # Not `row_number() = 1`: DuckDB makes arg_max of that, which returns -0 of a REAL as 0.
    return f"""SELECT {values}, {OP} = 'd' AS {GONE}, []::VARCHAR[] AS {KEPT} FROM alive
QUALIFY {OFFSET} = max({OFFSET}) OVER (PARTITION BY {keys})"""


def _columnwise(schema: Schema) -> str:
    keys = ", ".join(quote(name) for name in schema.key)
    others = [name for name in schema.names if name not in schema.key]
    sent = {name: f"NOT list_contains(coalesce({UNCHANGED}, []), {_text(name)})" for name in others}
    types = {field.name: field.type for field in schema.fields}
    values = "".join(f",\n  {_newest(name, types[name], sent[name])} AS {quote(name)}" for name in others)
    missing = ", ".join(f"CASE WHEN count(*) FILTER ({sent[name]}) = 0 THEN {_text(name)} END" for name in others)
    select = ", ".join(quote(name) if name in schema.key else _unless_gone(name) for name in schema.names)
    kept = f"list_filter([{missing}], lambda name: name IS NOT NULL)" if others else "[]::VARCHAR[]"
    return f""", windowed AS (SELECT *,
  max({OFFSET}) FILTER ({OP} IN ('c', 'r', 'd')) OVER (PARTITION BY {keys}) AS made_at FROM alive),
folded AS (SELECT {keys}{values},
  arg_max({OP}, {OFFSET}) = 'd' AS {GONE},
  bool_or(after_cut) OR max(made_at) IS NOT NULL AS fresh,
  {kept} AS missing
FROM windowed WHERE made_at IS NULL OR {OFFSET} >= made_at GROUP BY {keys})
SELECT {select}, {GONE}, CASE WHEN fresh OR {GONE} THEN []::VARCHAR[] ELSE missing END AS {KEPT}
FROM folded"""


def _newest(name: str, kind: str, sent: str) -> str:
    """The value of the newest record that has sent the column, a NULL too: ``arg_max`` would skip that."""
    if "FLOAT" in kind or ("DOUBLE" in kind and kind != "DOUBLE"):  # of these arg_max returns -0 as 0
        return f"(list({quote(name)} ORDER BY {OFFSET}) FILTER ({sent}))[-1]"
    return f"arg_max_null({quote(name)}, {OFFSET}) FILTER ({sent})"


def _or_null(name: str, schema: Schema) -> str:
    if name in schema.key:
        return quote(name)
    return f"CASE WHEN {OP} <> 'd' THEN {quote(name)} END AS {quote(name)}"


def _unless_gone(name: str) -> str:
    return f"CASE WHEN NOT {GONE} THEN {quote(name)} END AS {quote(name)}"


def _text(name: str) -> str:
    return "'" + name.replace("'", "''") + "'"
