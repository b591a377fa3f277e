"""Schemas as JSON Schema (draft 2020-12), out and in: of records as headwater itself writes them in JSON.

Integers are numbers, or text where a reader's double would round them; decimals are text; bytes are hexadecimal;
times, uuids and intervals are text (see ``types``). A column is required unless it has a default, and nothing else
is allowed: a producer that sends an unknown column is refused. Each property carries ``headwater``: what JSON Schema
cannot say, so that a schema comes back identical; a type that was edited in between wins over it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from headwater import default, types
from headwater.errors import SchemaError
from headwater.registry.avro import KEPT, KEY, kept, restored
from headwater.registry.proposal import NEW, Proposal
from headwater.schema import Field, Schema

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_SAFE = 2**53
_DIGITS = r"^-?[0-9]+$"
_INTEGERS = {
    "TINYINT": (-(2**7), 2**7 - 1),
    "SMALLINT": (-(2**15), 2**15 - 1),
    "INTEGER": (-(2**31), 2**31 - 1),
    "UTINYINT": (0, 2**8 - 1),
    "USMALLINT": (0, 2**16 - 1),
    "UINTEGER": (0, 2**32 - 1),
}
_BEYOND_DOUBLE = ("BIGINT", "UBIGINT", "HUGEINT")
_TEXTS: dict[str, dict[str, Any]] = {
    "VARCHAR": {},
    "JSON": {"contentMediaType": "application/json"},
    "BLOB": {"contentEncoding": "base16", "pattern": "^([0-9a-fA-F]{2})*$"},
    "UUID": {"format": "uuid"},
    "DATE": {"format": "date"},
    "TIME": {"format": "time"},
    "TIMETZ": {},
    "TIMESTAMP": {},
    "TIMESTAMP WITH TIME ZONE": {"format": "date-time"},
    "INTERVAL": {},
}
_FORMATS = {
    "uuid": "UUID",
    "date": "DATE",
    "time": "TIME",
    "date-time": "TIMESTAMP WITH TIME ZONE",
    "duration": "INTERVAL",
}
_DECIMAL = re.compile(r"\^-\?\[0-9\]\{0,(\d+)\}(?:\(\\\.\[0-9\]\{0,(\d+)\}\)\?)?\$")
"""The pattern that ``export`` writes for a decimal."""
_SPECIAL = ["NaN", "Infinity", "-Infinity"]


def export(schema: Schema, name: str) -> dict[str, Any]:
    """The schema as a JSON Schema document for records of the topic ``name``."""
    return {
        "$schema": DRAFT,
        "title": name,
        "type": "object",
        "properties": {field.name: _property(field) for field in schema.fields},
        "required": [field.name for field in schema.fields if not field.optional],
        "additionalProperties": False,
        KEY: list(schema.key),
    }


def load(document: Mapping[str, Any]) -> Proposal:
    """The columns of an object's schema; SchemaError names the property that no column can hold."""
    members = document.get("properties")
    if document.get("type") != "object" or not isinstance(members, dict):
        raise SchemaError("the JSON Schema is no object with properties", todo="Give the schema of one record.")
    required = set(document.get("required", ()))
    key = document.get(KEY)
    fields = tuple(_field(name, member, name in required) for name, member in members.items())
    return Proposal(fields=fields, key=None if key is None else tuple(key))


def _property(field: Field) -> dict[str, Any]:
    kind = field.declared_type
    shape = _shape(kind)
    if field.nullable:
        shape["type"] = [*([shape["type"]] if isinstance(shape["type"], str) else shape["type"]), "null"]
        if "enum" in shape:
            shape["enum"] = [*shape["enum"], None]
    if field.write_default is not None:
        shape["default"] = _value(field.write_default, kind)
    elif field.null_default:
        shape["default"] = None
    if field.description:
        shape["description"] = field.description
    return shape | {"field-id": field.id, KEPT: kept(field)}


def _shape(kind: str) -> dict[str, Any]:
    if kind.endswith("[]"):
        items = _shape(kind[:-2])
        return {"type": "array", "items": items | {"type": _with_null(items["type"])}}
    return _object(kind) if types.is_struct(kind) else _single(kind)


def _single(kind: str) -> dict[str, Any]:
    if kind in _INTEGERS:
        low, high = _INTEGERS[kind]
        return {"type": "integer", "minimum": low, "maximum": high}
    if kind in _BEYOND_DOUBLE:
        return {"type": ["integer", "string"], "pattern": _DIGITS}
    if decimal := re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", kind):
        whole, scale = int(decimal[1]) - int(decimal[2]), int(decimal[2])
        fraction = f"(\\.[0-9]{{0,{scale}}})?" if scale else ""
        return {"type": "string", "pattern": f"^-?[0-9]{{0,{max(whole, 1)}}}{fraction}$"}
    if kind in ("FLOAT", "DOUBLE"):
        return {"type": ["number", "string"], "pattern": "^(" + "|".join(_SPECIAL) + ")$"}
    return {"type": "boolean"} if kind == "BOOLEAN" else {"type": "string", **_TEXTS[kind]}


def _object(kind: str) -> dict[str, Any]:
    """A STRUCT: every field is there, and may be null."""
    shapes = {name: _shape(inner) for name, inner in types.fields_of(kind)}
    members = {name: shape | {"type": _with_null(shape["type"])} for name, shape in shapes.items()}
    return {"type": "object", "properties": members, "required": list(members), "additionalProperties": False}


def _with_null(kind: Any) -> list[str]:
    return [*([kind] if isinstance(kind, str) else kind), "null"]


def _value(text: str, kind: str) -> Any:
    """A default as records hold it in JSON."""
    if kind in _INTEGERS or kind in _BEYOND_DOUBLE:
        number = int(default.value(text, kind).as_py())
        return number if abs(number) <= _SAFE else str(number)
    if kind in ("FLOAT", "DOUBLE"):
        number = default.value(text, kind).as_py()
        special = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
        return special.get(str(number), number)
    if kind == "BOOLEAN":
        return default.value(text, kind).as_py()
    if kind.endswith("[]"):
        return [
            None if not each.is_valid else _value(_spelled(each, kind[:-2]), kind[:-2])
            for each in default.value(text, kind).values
        ]
    return _spelled(default.value(text, kind), kind)


def _spelled(scalar: Any, kind: str) -> str:
    return scalar.as_py().hex() if kind == "BLOB" else default.spelled(scalar, kind)


def _field(name: str, member: Any, required: bool) -> Field:
    if not isinstance(member, dict):
        raise _no_column(name, "anything")
    ours = restored(member.get(KEPT), member.get("field-id"))
    if ours is not None and ours.name == name and required != ours.optional:
        shown = json.loads(json.dumps(_property(ours)))
        if all(shown.get(part) == value for part, value in member.items()) and set(shown) == set(member):
            return ours
    return _foreign(name, member, required)


def _foreign(name: str, member: Mapping[str, Any], required: bool) -> Field:
    """A property of somebody else's schema, or of ours when it was edited: then only the id is what it was."""
    kind, nullable = _column_type(name, member)
    value = member.get("default")
    given = member.get("field-id")
    optional = not required
    return Field(
        id=given if isinstance(given, int) else NEW,
        name=name,
        type=kind,
        nullable=nullable or (optional and value is None),
        description=str(member.get("description", "")),
        write_default=None if value is None else _text(value),
        null_default=value is None and (optional or "default" in member),
    )


def _column_type(name: str, member: Mapping[str, Any]) -> tuple[str, bool]:
    """The column type of a property's schema, and whether null is allowed."""
    given = member.get("type")
    named = [given] if isinstance(given, str) else list(given or ())
    kinds = [each for each in named if each != "null"]
    if sorted(kinds) == ["integer", "string"]:
        kinds = ["integer"]
    if sorted(kinds) == ["number", "string"]:
        kinds = ["number"]
    if len(kinds) != 1:
        raise _no_column(name, f"the type {given}")
    return _one_type(name, kinds[0], member), "null" in named


def _one_type(name: str, kind: str, member: Mapping[str, Any]) -> str:
    if kind == "integer":
        bounds = (member.get("minimum"), member.get("maximum"))
        return next((each for each, exact in _INTEGERS.items() if exact == bounds), "BIGINT")
    if kind == "array":
        items = member.get("items")
        if not isinstance(items, dict):
            raise _no_column(name, "an array of anything")
        return f"{_column_type(name, items)[0]}[]"
    if kind == "string":
        return _text_type(member)
    if kind not in ("number", "boolean"):
        raise _no_column(name, f"an {kind}")
    return "DOUBLE" if kind == "number" else "BOOLEAN"


def _text_type(member: Mapping[str, Any]) -> str:
    if decimal := _DECIMAL.fullmatch(str(member.get("pattern"))):
        scale = int(decimal[2] or 0)
        return f"DECIMAL({int(decimal[1]) + scale},{scale})"
    if member.get("contentEncoding") == "base16":
        return "BLOB"
    if member.get("contentMediaType") == "application/json":
        return "JSON"
    return _FORMATS.get(str(member.get("format")), "VARCHAR")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _no_column(name: str, what: str) -> SchemaError:
    todo = "Use one type beside null, or an array of one; keep nested objects as text."
    return SchemaError(f"no column can hold {what}", where=f"property {name}", todo=todo)
