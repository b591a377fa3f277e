"""One column that a caller gave, as the type that files hold; rows whose value has no such form are named.

    Python values (``values``) ─┐
    Arrow column (``columns``) ─┼─▶ column of the topic's file type + the rows that do not fit (NULL there)
    text (``text``) ────────────┘

Strict: a value is never rounded, cut or guessed. What is allowed beside the type itself: integers for any number
that holds them, whole floats for integers (pandas has no NULL in them otherwise), FLOAT from a double, bytes of
UTF-8 for text, text for a UUID, a naive time for TIMESTAMP WITH TIME ZONE (it is in the lake's zone).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import pyarrow as pa

from headwater.client.columns import NONE, Converted, as_one, file_type, of_arrow
from headwater.client.text import Text, of_text
from headwater.client.values import of_values

Given: TypeAlias = Any
"""A column as it came: a list of Python values, a chunked Arrow array, or ``Text``."""


def convert(given: Given, kind: str, zone: str) -> Converted:
    """The column as ``kind`` (a canonical DuckDB type, or MAP for headers), and the rows that do not fit."""
    if isinstance(given, Text):
        return of_text(as_one(given.column), kind, zone, given.marked)
    if isinstance(given, list):
        return of_values(given, kind, zone)
    array = as_one(given)
    if pa.types.is_primitive(array.type) and array.type == file_type(kind):
        return array, NONE
    return of_arrow(array, kind, zone)
