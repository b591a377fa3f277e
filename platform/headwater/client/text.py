"""Text as a column of the type that files hold: what DuckDB reads it as, but only where that says all of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater import types
from headwater.client.columns import (
    NONE,
    STAMP,
    Converted,
    as_map,
    ask,
    file_type,
    is_list,
    lists,
    lost,
    no_json,
    of_arrow,
)

MARK = "\x02"
"""Before what a file does not write as text; a raw control character, so that no JSON text begins with it."""

_WHOLE = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT"}


@dataclass(frozen=True)
class Text:
    """A column of text that is to be read as the topic's type: what files give. An absent value is NULL.

    ``marked``: what begins with ``MARK`` was no text in the file but a number or a truth value. Lists of texts are
    lists already.
    """

    column: pa.ChunkedArray
    marked: bool = False


def of_text(array: pa.Array, kind: str, zone: str, marked: bool) -> Converted:
    """Text as DuckDB reads it as the type, but exactly; bytes are hexadecimal, as the command line writes them."""
    if kind.endswith("[]"):
        return _lists_of_text(array, kind, zone, marked)
    text, bad = of_arrow(array, "VARCHAR", zone)
    if marked and kind not in ("JSON", "MAP"):
        bare = pc.starts_with(text, MARK)
        if kind == "VARCHAR":
            bad = np.union1d(bad, np.flatnonzero(bare.fill_null(False).to_numpy(zero_copy_only=False)))
        text = pc.if_else(bare, pc.utf8_slice_codeunits(text, 1), text)
    match kind:
        case "VARCHAR":
            return text, bad
        case "JSON":
            return text, np.union1d(bad, no_json(text))
        case "MAP":
            found = as_map(ask("SELECT TRY_CAST(TRY_CAST(v AS JSON) AS MAP(VARCHAR, VARCHAR)) AS v FROM given", text))
        case "BLOB":
            hexadecimal = "regexp_full_match(v, '([0-9A-Fa-f]{2})*')"
            found = ask(f"SELECT CASE WHEN {hexadecimal} THEN unhex(v) END AS v FROM given", text)
        case _:
            cast = f"SELECT CASE WHEN {_exact(kind)} THEN TRY_CAST(v AS {kind}) END AS v FROM given"
            found = ask(f"SELECT {types.lower_sql('v', kind)} AS v FROM ({cast})", text, zone)
    return found.cast(file_type(kind)), np.union1d(bad, lost(text, found))


def _lists_of_text(array: pa.Array, kind: str, zone: str, marked: bool) -> Converted:
    text, bad, split = array, NONE, array
    if not is_list(array.type):
        text, bad = of_arrow(array, "VARCHAR", zone)
        split = ask("SELECT TRY_CAST(v AS VARCHAR[]) AS v FROM given", text)
    lengths = pc.fill_null(pc.list_value_length(split), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    child, worse = of_text(split.flatten(), kind[:-2], zone, marked)
    array, more = lists(child, worse, lengths, split.is_null().to_numpy(zero_copy_only=False))
    return array, np.unique(np.concatenate([bad, more, lost(text, split)]))


def _exact(kind: str) -> str:
    """SQL: the text ``v`` says no more than a ``kind`` holds. DuckDB's cast would round it or leave a part out."""
    finer = r"NOT regexp_matches(v, '\.\d{6}0*[1-9]')"
    zone = r"([Zz]|UTC|[+-]\d\d(:?\d\d){0,2})\s*$"
    if kind in _WHOLE:
        exact = r"regexp_full_match(v, '\s*[+-]?\d+(\.0*)?\s*')"
    elif kind.startswith("DECIMAL"):
        scale = kind.removesuffix(")").rpartition(",")[2]
        exact = (
            r"regexp_full_match(v, '\s*[+-]?(\d+\.?\d*|\.\d+)\s*')"
            rf" AND length(rtrim(regexp_extract(v, '\.(\d*)', 1), '0')) <= {scale}"
        )
    elif kind in ("FLOAT", "DOUBLE"):
        exact = f"(v ILIKE '%inf%' OR NOT coalesce(isinf(TRY_CAST(v AS {kind})), false))"
    elif kind == "DATE":
        exact = "v NOT LIKE '%:%'"
    elif kind in ("TIMESTAMP", "TIME"):
        exact = rf"{finer} AND NOT regexp_matches(v, ':\d\d(\.\d+)?\s*{zone}')"
    elif kind == "TIMETZ":
        exact = f"{finer} AND regexp_matches(v, '{zone}')"
    else:
        exact = finer if kind in (STAMP, "INTERVAL") else "true"
    return exact
