"""Schemas in files: headwater's own JSON, and which of the three forms a file is in.

The own form is what people write by hand::

    {"fields": [{"name": "id", "type": "BIGINT", "nullable": false},
                {"name": "note", "type": "VARCHAR", "default": null}],
     "key": ["id"]}

``default`` absent means none, ``null`` means NULL, anything else is a text (a number or boolean is taken as one).
``id`` is needed only to say which field a renamed one was; ``renames`` {"new": "old"} says it too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from headwater import types
from headwater.errors import SchemaError, UsageError
from headwater.registry import avro, json_schema
from headwater.registry.proposal import NEW, Proposal
from headwater.schema import Field, Schema

Form = Literal["headwater", "avro", "json-schema"]
BYTES_MAX = 4 * 1024 * 1024
"""A schema file beyond this is taken for something else."""
_PROPERTIES = frozenset({"id", "name", "type", "nullable", "default", "description", "source_type"})


def load(path: Path) -> Proposal:
    """The proposal in a JSON file of any of the three forms; UsageError or SchemaError says what is wrong."""
    try:
        with sys.stdin.buffer if str(path) == "-" else path.open("rb") as file:
            text = file.read(BYTES_MAX + 1)
        if len(text) > BYTES_MAX:
            raise UsageError(f"{path} is larger than {BYTES_MAX} bytes", todo="Give a schema, not data.")
        document = json.loads(text)
    except (OSError, ValueError) as error:
        raise UsageError(f"no schema can be read from {path}: {error}", todo="Give a JSON file.") from error
    if not isinstance(document, dict):
        raise SchemaError("a schema is one JSON object", where=str(path), todo="See docs/schemas.md.")
    try:
        return {"avro": avro.load, "json-schema": json_schema.load, "headwater": parse}[form_of(document)](document)
    except SchemaError as error:
        raise SchemaError(
            error.what, where=f"{path}{', ' if error.where else ''}{error.where}", todo=error.todo
        ) from error


def form_of(document: Mapping[str, Any]) -> Form:
    """Which form a schema document has."""
    if document.get("type") == "record":
        return "avro"
    return "json-schema" if "properties" in document or "$schema" in document else "headwater"


def parse(document: Mapping[str, Any]) -> Proposal:
    """A proposal in headwater's own form."""
    members = document.get("fields")
    if not isinstance(members, list) or not all(isinstance(member, dict) for member in members):
        raise SchemaError("the schema has no list of fields", todo="See docs/schemas.md.")
    key = document.get("key")
    return Proposal(
        fields=tuple(_field(member) for member in members),
        key=None if key is None else tuple(key),
        renames=dict(document.get("renames", {})),
    )


def export(schema: Schema) -> dict[str, Any]:
    """A schema in headwater's own form, with ids."""
    return {"fields": [_member(field) for field in schema.fields], "key": list(schema.key)}


def with_renames(proposal: Proposal, renames: Mapping[str, str]) -> Proposal:
    """The proposal with more renames (new name to old name)."""
    unknown = set(renames) - {field.name for field in proposal.fields}
    if unknown:
        raise UsageError(f"there is no column {sorted(unknown)[0]} in the schema", todo="Write --rename OLD=NEW.")
    # An explicit rename says more than an id that was exported before it.
    fields = tuple(replace(f, id=NEW) if f.name in renames else f for f in proposal.fields)
    return replace(proposal, fields=fields, renames={**proposal.renames, **renames})


def _field(member: Mapping[str, Any]) -> Field:
    name, kind = member.get("name"), member.get("type")
    unknown = set(member) - _PROPERTIES
    if unknown or not isinstance(name, str) or not isinstance(kind, str):
        what = f"unknown property {sorted(unknown)[0]!r}" if unknown else "name or type is missing"
        raise SchemaError(what, where=f"field {name}", todo=f"A field has {', '.join(sorted(_PROPERTIES))}.")
    try:
        canonical = types.canonical(kind)
    except ValueError as error:
        raise SchemaError(str(error), where=f"field {name}", todo="Use a type of the table in docs.") from error
    value = member.get("default")
    return Field(
        id=int(member.get("id", NEW)),
        name=name,
        type=canonical,
        nullable=bool(member.get("nullable", True)),
        source_type=str(member.get("source_type", "")),
        description=str(member.get("description", "")),
        write_default=None if value is None else value if isinstance(value, str) else json.dumps(value),
        null_default="default" in member and value is None,
    )


def _member(field: Field) -> dict[str, Any]:
    member: dict[str, Any] = {
        "id": field.id,
        "name": field.name,
        "type": field.declared_type,
        "nullable": field.nullable,
    }
    if field.optional:
        member["default"] = field.write_default
    for name in ("description", "source_type"):
        if getattr(field, name):
            member[name] = getattr(field, name)
    return member
