"""A record's shape: typed fields with stable ids, and which of them are the key.

A field keeps its id through renames and reordering, so that old files are read by id and never by place.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa

from headwater import types


@dataclass(frozen=True, kw_only=True)
class Field:
    """One column. ``type`` is a canonical DuckDB type text, ``source_type`` what the source calls it.

    Defaults are texts (see ``headwater.default``). Nullable is not optional: a column that may be NULL must
    still be given, unless it has a default, and that is NULL only where it is said.
    """

    id: int
    name: str
    type: str
    nullable: bool = True
    source_type: str = ""
    description: str = ""
    initial_default: str | None = None
    """What records older than the column read; never changes, for it would change what they say."""
    write_default: str | None = None
    """What a record is given whose producer leaves the column out."""
    null_initial: bool = False
    """Older records read NULL, and that was said; without it they do too, but nobody may rely on it."""
    null_default: bool = False
    """NULL is what a record is given whose producer leaves the column out."""
    write_type: str = ""
    """The narrower type that producers must keep to, where older records need the wider ``type``; else empty."""

    @property
    def declared_type(self) -> str:
        """The type that was registered: what producers write."""
        return self.write_type or self.type

    @property
    def optional(self) -> bool:
        """Whether a record may leave the column out."""
        return self.null_default or self.write_default is not None

    @property
    def fills_older(self) -> bool:
        """Whether it is declared what records older than the column read."""
        return self.null_initial or self.initial_default is not None


@dataclass(frozen=True, kw_only=True)
class Schema:
    """The columns of a topic in order, without metadata columns; ``key`` is empty for keyless topics."""

    fields: tuple[Field, ...]
    key: tuple[str, ...] = dataclasses.field(default_factory=tuple)

    def __post_init__(self) -> None:
        missing = [name for name in self.key if name not in self.names]
        if missing:
            raise ValueError(f"key columns {missing} are not in the schema")
        if len({field.id for field in self.fields}) != len(self.fields):
            raise ValueError("field ids must be unique")

    @classmethod
    def of(cls, columns: dict[str, str] | None = None, /, key: Sequence[str] = (), **more: str) -> Schema:
        """``Schema.of({"id": "BIGINT", "name": "VARCHAR"}, key=["id"])``; ids are given by place from 1."""
        named = {**(columns or {}), **more}
        fields = tuple(
            Field(id=place, name=name, type=types.canonical(text))
            for place, (name, text) in enumerate(named.items(), start=1)
        )
        return cls(fields=fields, key=tuple(key))

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.fields)

    def field(self, name: str) -> Field:
        """The field of this name; KeyError when there is none."""
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(name)

    def by_id(self, field_id: int) -> Field | None:
        """The field with this id, whatever it is called."""
        return self._by_id.get(field_id)

    @cached_property
    def _by_id(self) -> dict[int, Field]:
        return {field.id: field for field in self.fields}

    def arrow(self) -> pa.Schema:
        """The data columns as files hold them."""
        return self._arrow

    @cached_property
    def _arrow(self) -> pa.Schema:
        return pa.schema([(field.name, types.arrow_type(field.type)) for field in self.fields])

    def to_json(self) -> str:
        return json.dumps({"fields": [asdict(field) for field in self.fields], "key": list(self.key)})

    @classmethod
    def from_json(cls, text: str) -> Schema:
        """What ``to_json`` wrote, or an earlier release of it; parsed when it is first looked at.

        A catalog of a thousand topics is opened for a query that reads one.
        """
        schema = object.__new__(cls)
        vars(schema)["_text"] = text
        return schema

    if not TYPE_CHECKING:  # a name that is nowhere is still an error of the type checker's

        def __getattr__(self, name: str) -> object:
            """``fields`` and ``key`` of a schema whose text has not been parsed yet."""
            held = vars(self)
            if name not in ("fields", "key") or "_text" not in held:
                raise AttributeError(f"Schema has no attribute {name!r}")
            parsed = json.loads(held["_text"])
            fields = tuple(Field(**field) for field in parsed["fields"])
            held.update(vars(Schema(fields=fields, key=tuple(parsed["key"]))))
            return held[name]
