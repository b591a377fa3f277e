"""Python values as a column of the type that files hold: a value is of an allowed type, or does not fit."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.client.columns import NONE, STAMP, Converted, file_type, in_zone, lists, no_json, salvage

_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}
_PYTHON: dict[str, tuple[type, ...]] = {
    "BOOLEAN": (bool, np.bool_),
    "FLOAT": (float, int, np.floating, np.integer),
    "DOUBLE": (float, int, np.floating, np.integer),
    "HUGEINT": (int, np.integer),
    "VARCHAR": (str, bytes),
    "JSON": (str, dict, list),
    "BLOB": (bytes, bytearray, memoryview),
    "UUID": (uuid.UUID, str, bytes),
    "DATE": (date,),
    "TIME": (time,),
    "TIMETZ": (dict, time),
    "TIMESTAMP": (datetime, np.datetime64),
    STAMP: (datetime, np.datetime64),
    "INTERVAL": (dict, timedelta),
    "LIST": (list, tuple, np.ndarray),
    "MAP": (dict, list),
}


def of_values(values: list[Any], kind: str, zone: str) -> Converted:
    family = "LIST" if kind.endswith("[]") else "DECIMAL" if kind.startswith("DECIMAL") else kind
    allowed = _PYTHON.get(family, (int, np.integer) if family in _INTEGERS else (Decimal, int))
    strange = {each for each in set(map(type, values)) if not _is_allowed(each, family, allowed)}
    bad = NONE
    if strange:
        bad = np.array([place for place, value in enumerate(values) if type(value) in strange], dtype=np.int64)
        values = [None if type(value) in strange else value for value in values]
    if family == "LIST":
        array, more = _of_lists(values, kind, zone)
    else:
        array, more = salvage(len(values), kind, lambda start, stop: _build(values[start:stop], kind, zone))
    if kind == "JSON":
        more = np.concatenate([more, no_json(array)])
    return array, np.union1d(bad, more) if len(bad) else more


def _is_allowed(given: type, family: str, allowed: tuple[type, ...]) -> bool:
    if given is type(None):
        return True
    if given is bool and family != "BOOLEAN":
        return False
    return issubclass(given, allowed) and not (family == "DATE" and issubclass(given, datetime))


def _build(values: Sequence[Any], kind: str, zone: str) -> pa.Array:
    """These values, all of allowed Python types; raises one of REFUSED when any has no form in ``kind``."""
    match kind:
        case "TIMESTAMP" | "TIME":
            if any(getattr(value, "tzinfo", None) for value in values):
                raise ValueError
        case "TIMESTAMP WITH TIME ZONE":
            naive = [value is not None and getattr(value, "tzinfo", None) is None for value in values]
            if any(naive):
                given = [value if bare else None for value, bare in zip(values, naive, strict=True)]
                local = in_zone(pa.array(given, pa.timestamp("us")), zone)
                rest = [None if bare else value for value, bare in zip(values, naive, strict=True)]
                return pc.coalesce(local, pa.array(rest, local.type))
        case "UUID":
            values = [None if value is None else _uuid_bytes(value) for value in values]
            return pa.ExtensionArray.from_storage(pa.uuid(), pa.array(values, pa.binary(16)))
        case "JSON":
            values = [json.dumps(value) if isinstance(value, dict | list) else value for value in values]
        case "INTERVAL" | "TIMETZ":
            values = [None if value is None else _parts(value, file_type(kind).names) for value in values]
    array = pa.array(values, file_type(kind))
    return _finite(array, values) if kind == "FLOAT" else array


def _uuid_bytes(value: uuid.UUID | str | bytes) -> bytes:
    return value if isinstance(value, bytes) else (uuid.UUID(value) if isinstance(value, str) else value).bytes


def _parts(value: Any, names: list[str]) -> dict[str, int]:
    """An interval or a time with its offset as the struct that files hold."""
    if isinstance(value, timedelta):
        return {"months": 0, "days": 0, "micros": value // timedelta(microseconds=1)}
    if isinstance(value, time):
        offset = value.utcoffset()
        if offset is None:
            raise ValueError
        since = timedelta(hours=value.hour, minutes=value.minute, seconds=value.second, microseconds=value.microsecond)
        return {"micros": since // timedelta(microseconds=1), "offset": offset // timedelta(seconds=1)}
    if set(value) != set(names) or None in value.values():
        raise ValueError
    return dict(value)


def _finite(array: pa.Array, values: Sequence[Any]) -> pa.Array:
    wide = pa.array(values, pa.float64())
    if pc.any(pc.and_(pc.is_inf(array), pc.is_finite(wide))).as_py():
        raise OverflowError
    return array


def _of_lists(values: list[Any], kind: str, zone: str) -> Converted:
    lengths = np.array([0 if value is None else len(value) for value in values], dtype=np.int64)
    flat = list(chain.from_iterable(value for value in values if value is not None))
    child, bad = of_values(flat, kind[:-2], zone)
    return lists(child, bad, lengths, np.array([value is None for value in values], dtype=bool))
