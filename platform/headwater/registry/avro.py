"""Schemas as Avro, out and in.

    BOOLEAN boolean            TINYINT … INTEGER, UTINYINT, USMALLINT int     BIGINT, UINTEGER long
    FLOAT float                DOUBLE double                                  DECIMAL bytes/decimal
    VARCHAR, JSON string       BLOB bytes                                     UUID string/uuid
    DATE int/date              TIME long/time-micros                          T[] array of nullable T
    TIMESTAMP long/local-timestamp-micros      TIMESTAMP WITH TIME ZONE long/timestamp-micros

What Avro has no type for is written as the type that holds every value: UBIGINT and HUGEINT as decimal(20,0) and
decimal(38,0), INTERVAL and TIMETZ as records of their parts. A STRUCT is a record of nullable fields; it is not read
back from a schema that was edited. Nullable is a union with null, a default is Avro's. Each field carries
``field-id``, as Iceberg's files do, and ``headwater``: what Avro cannot say, so that a schema comes back identical. A
type that was edited in between wins over it. Names that Avro does not allow are escaped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import pyarrow as pa

from headwater import default, types
from headwater.errors import SchemaError
from headwater.registry.proposal import NEW, Proposal
from headwater.schema import Field, Schema

KEPT = "headwater"
"""The property of a field with what Avro cannot say."""
KEY = "headwater-key"

_PLAIN = {
    "BOOLEAN": "boolean",
    **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "UTINYINT", "USMALLINT"), "int"),
    **dict.fromkeys(("BIGINT", "UINTEGER"), "long"),
    "FLOAT": "float",
    "DOUBLE": "double",
    "VARCHAR": "string",
    "JSON": "string",
    "BLOB": "bytes",
}
_LOGICAL: dict[str, dict[str, Any]] = {
    "UBIGINT": {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 0},
    "HUGEINT": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 0},
    "UUID": {"type": "string", "logicalType": "uuid"},
    "DATE": {"type": "int", "logicalType": "date"},
    "TIME": {"type": "long", "logicalType": "time-micros"},
    "TIMESTAMP": {"type": "long", "logicalType": "local-timestamp-micros"},
    "TIMESTAMP WITH TIME ZONE": {"type": "long", "logicalType": "timestamp-micros"},
}
_RECORDS = {
    "INTERVAL": (("months", "int"), ("days", "int"), ("micros", "long")),
    "TIMETZ": (("micros", "long"), ("offset", "int")),
}
_NAMES = {
    "boolean": "BOOLEAN",
    "int": "INTEGER",
    "long": "BIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "string": "VARCHAR",
    "enum": "VARCHAR",
    "bytes": "BLOB",
    "fixed": "BLOB",
}
_BY_LOGICAL = {
    ("string", "uuid"): "UUID",
    ("int", "date"): "DATE",
    ("int", "time-millis"): "TIME",
    ("long", "time-micros"): "TIME",
    ("long", "timestamp-millis"): "TIMESTAMP WITH TIME ZONE",
    ("long", "timestamp-micros"): "TIMESTAMP WITH TIME ZONE",
    ("long", "local-timestamp-millis"): "TIMESTAMP",
    ("long", "local-timestamp-micros"): "TIMESTAMP",
}
_ALLOWED = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def export(schema: Schema, name: str, earlier: Mapping[int, Schema] | None = None) -> dict[str, Any]:
    """The schema as an Avro record called after the topic ``name``.

    ``earlier``: the versions before it; names that a field had there become its aliases, so that an Avro reader
    with this schema finds the field in records written before it was renamed.
    """
    *place, last = (_escape(part) for part in name.split("."))
    defined: set[str] = set()
    current = {field.name for field in schema.fields}
    members = []
    for field in schema.fields:
        member = _member(field, defined)
        former = {old.name for version in (earlier or {}).values() if (old := version.by_id(field.id))} - current
        if former:
            member["aliases"] = sorted(_escape(each) for each in former)
        members.append(member)
    if len({member["name"] for member in members}) < len(members):
        raise SchemaError("two columns would have the same name in Avro", where=name, todo="Rename one of them.")
    record: dict[str, Any] = {"type": "record", "name": last, "fields": members}
    if place:
        record["namespace"] = ".".join(place)
    return record | {KEY: list(schema.key)}


def load(document: Mapping[str, Any]) -> Proposal:
    """The columns of an Avro record; SchemaError names the field that no column can hold."""
    if document.get("type") != "record" or not isinstance(document.get("fields"), list):
        raise SchemaError("the Avro schema is no record", todo="Give the record of a topic's values.")
    key = document.get(KEY)
    return Proposal(
        fields=tuple(_field(member) for member in document["fields"]), key=None if key is None else tuple(key)
    )


def _member(field: Field, defined: set[str]) -> dict[str, Any]:
    kind = field.declared_type
    avro: Any = _type(kind, defined, field.name)
    member: dict[str, Any] = {"name": _escape(field.name)}
    # One default must do in Avro: what a reader needs for older records, else what new ones are given.
    text = field.initial_default if field.fills_older else field.write_default
    if field.nullable:
        avro = [avro, "null"] if text is not None else ["null", avro]
    member["type"] = avro
    if field.fills_older or field.optional:
        member["default"] = None if text is None else _default(default.value(text, kind), kind)
    if field.description:
        member["doc"] = field.description
    return member | {"field-id": field.id, KEPT: kept(field)}


def kept(field: Field) -> dict[str, Any]:
    """Everything of a field that differs from a field's defaults; ``restored`` is the way back."""
    plain = {each.name: each.default for each in fields(Field)}
    return {name: value for name, value in asdict(field).items() if value != plain[name] and name != "id"}


def restored(properties: Any, field_id: Any) -> Field | None:
    """The field that ``kept`` wrote down; None where the property is not ours."""
    if not isinstance(properties, dict) or not {"name", "type"} <= set(properties):
        return None
    known = {each.name for each in fields(Field)}
    try:
        return Field(
            **{
                "id": field_id if isinstance(field_id, int) else NEW,
                **{k: properties[k] for k in known & set(properties)},
            }
        )
    except TypeError:
        return None


def _type(kind: str, defined: set[str], name: str = "") -> Any:
    """``name``: the path of the field, which a STRUCT's record is called after."""
    if kind.endswith("[]"):
        return {"type": "array", "items": ["null", _type(kind[:-2], defined, name)]}
    if types.is_struct(kind):
        members = [
            {"name": _escape(each), "type": ["null", _type(inner, defined, f"{name}.{each}")], "default": None}
            for each, inner in types.fields_of(kind)
        ]
        return {"type": "record", "name": f"headwater_struct_{_escape(name)}", "fields": members}
    if decimal := re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", kind):
        return {"type": "bytes", "logicalType": "decimal", "precision": int(decimal[1]), "scale": int(decimal[2])}
    if kind in _RECORDS:
        name = f"headwater_{kind.lower()}"
        if name in defined:  # Avro defines a named type once
            return name
        defined.add(name)
        return {"type": "record", "name": name, "fields": [{"name": n, "type": t} for n, t in _RECORDS[kind]]}
    return dict(_LOGICAL[kind]) if kind in _LOGICAL else _PLAIN[kind]


def _default(value: pa.Scalar, kind: str) -> Any:
    """A default as Avro's JSON writes it: bytes as text of code points 0 to 255, times as their number."""
    if kind.endswith("[]"):
        return [None if not each.is_valid else _default(each, kind[:-2]) for each in value.values]
    if pa.types.is_decimal(value.type) or kind == "UBIGINT":
        unscaled = int(value.as_py().scaleb(value.type.scale)) if pa.types.is_decimal(value.type) else value.as_py()
        return unscaled.to_bytes(unscaled.bit_length() // 8 + 1, "big", signed=True).decode("latin-1")
    if kind == "BLOB":
        return value.as_py().decode("latin-1")
    if kind in ("DATE", "TIME", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"):
        return value.value
    return str(value.as_py()) if kind == "UUID" else value.as_py()


def _field(member: Mapping[str, Any]) -> Field:
    ours = restored(member.get(KEPT), member.get("field-id"))
    if ours is not None:
        expected = json.loads(json.dumps(_member(ours, set())))
        if all(expected.get(part) == member.get(part) for part in ("name", "type", "default", "doc")) or (
            _same_but_named(expected, member)
        ):
            return ours
    return _foreign(member, ours)


def _same_but_named(expected: Mapping[str, Any], member: Mapping[str, Any]) -> bool:
    """Whether they differ only in that a named type is referred to, having been defined by an earlier field."""
    text = json.dumps(expected["type"])
    for kind in _RECORDS:
        text = text.replace(json.dumps(_type(kind, set())), json.dumps(f"headwater_{kind.lower()}"))
    parts = ("name", "default", "doc")
    return bool(json.loads(text) == member.get("type")) and all(expected.get(p) == member.get(p) for p in parts)


def _foreign(member: Mapping[str, Any], ours: Field | None) -> Field:
    """A field of somebody else's schema, or of ours when it was edited: then only the id is what it was."""
    name = str(member.get("name", ""))
    avro = member.get("type")
    branches = avro if isinstance(avro, list) else [avro]
    others = [branch for branch in branches if branch != "null"]
    if len(others) != 1:
        raise _no_column(name, "a union of several types")
    kind = _column_type(others[0], name)
    given = member.get("field-id")
    value = member.get("default")
    if isinstance(value, int) and str(_logical(others[0])).endswith("-millis"):
        value *= 1000
    text = None if value is None else _text(value, kind, name)
    return Field(
        id=given if isinstance(given, int) else NEW,
        name=ours.name if ours is not None and _escape(ours.name) == name else name,
        type=kind,
        nullable="null" in branches,
        description=str(member.get("doc", "")),
        write_default=text,
        null_default="default" in member and member["default"] is None,
    )


def _logical(avro: Any) -> Any:
    return avro.get("logicalType") if isinstance(avro, dict) else None


def _column_type(avro: Any, name: str) -> str:
    if not isinstance(avro, dict):
        return _column_type({"type": avro}, name)
    kind = avro.get("type")
    if isinstance(kind, dict):
        return _column_type(kind, name)
    found = _logical_type(avro, name) or _part_type(avro)
    if found is None and kind == "array":
        items = avro.get("items")
        inner = [each for each in items if each != "null"] if isinstance(items, list) else [items]
        if len(inner) != 1:
            raise _no_column(name, "an array of a union")
        return f"{_column_type(inner[0], name)}[]"
    if found is None and kind not in _NAMES:
        raise _no_column(name, f"Avro's {kind}")
    return found or _NAMES[str(kind)]


def _logical_type(avro: Mapping[str, Any], name: str) -> str | None:
    """The type that a logical type means; one that is not known means nothing, as Avro has it."""
    if avro.get("logicalType") != "decimal":
        return _BY_LOGICAL.get((str(avro.get("type")), str(avro.get("logicalType"))))
    precision, scale = avro.get("precision"), avro.get("scale", 0)
    if not isinstance(precision, int) or precision > 38:
        raise _no_column(name, f"a decimal of {precision} digits")
    return f"DECIMAL({precision},{scale})"


def _part_type(avro: Mapping[str, Any]) -> str | None:
    """Records of parts as ``export`` writes them, by definition or by name."""
    for ours in _RECORDS:
        if avro.get("type") == f"headwater_{ours.lower()}" or avro == _type(ours, set()):
            return ours
    return None


def _text(value: Any, kind: str, name: str) -> str:
    """Avro's default as our text of the same value."""
    if isinstance(value, dict | list) and not kind.endswith("[]"):
        raise _no_column(name, "a default that is a structure")
    if kind.endswith("[]"):
        return json.dumps([None if each is None else _text(each, kind[:-2], name) for each in value])
    if kind.startswith("DECIMAL"):
        scale = int(kind.partition(",")[2].rstrip(")"))
        unscaled = int.from_bytes(str(value).encode("latin-1"), "big", signed=True)
        digits = str(abs(unscaled)).rjust(scale + 1, "0")
        sign = "-" if unscaled < 0 else ""
        return sign + (f"{digits[:-scale]}.{digits[-scale:]}" if scale else digits)
    if kind == "BLOB":
        return str(value).encode("latin-1").hex()
    if kind in ("DATE", "TIME", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"):
        return default.spelled(pa.scalar(value, _storage(kind)).cast(types.arrow_type(kind)), kind)
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _storage(kind: str) -> pa.DataType:
    return pa.int32() if kind == "DATE" else pa.int64()


def _no_column(name: str, what: str) -> SchemaError:
    return SchemaError(f"no column can hold {what}", where=f"field {name}", todo="Give it a type of the table in docs.")


def _escape(name: str) -> str:
    """A name as Avro allows it: every other character as _x and its code, as Iceberg writes them."""
    if _ALLOWED.fullmatch(name):
        return name
    safe = "".join(c if re.fullmatch(r"[A-Za-z0-9_]", c) else f"_x{ord(c):X}" for c in name)
    return safe if not safe[:1].isdigit() else f"_{safe}"
