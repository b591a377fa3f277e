"""What changed between two schema versions, field by field."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from headwater.schema import Field, Schema

Kind = Literal["added", "removed", "renamed", "retyped", "nullability", "default", "description", "key", "order"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One change of one field (``field``: its newer name; empty for key and order), with what was and what is."""

    kind: Kind
    field: str
    before: str
    after: str

    def __str__(self) -> str:
        if self.kind in ("added", "removed"):
            return f"{self.kind} {self.field} {self.after or self.before}"
        return f"{self.kind} {self.field}: {self.before} → {self.after}".replace(" :", ":")


def diff(old: Schema, new: Schema) -> list[Change]:
    """Changes in the order of the newer version's columns, then what was removed, key and order."""
    changes = [change for field in new.fields for change in _of_field(old.by_id(field.id), field)]
    changes += [
        Change(kind="removed", field=field.name, before=_described(field), after="")
        for field in old.fields
        if new.by_id(field.id) is None
    ]
    if [old.field(name).id for name in old.key] != [new.field(name).id for name in new.key]:
        changes.append(Change(kind="key", field="", before=", ".join(old.key), after=", ".join(new.key)))
    before = [field.id for field in old.fields if new.by_id(field.id)]
    after = [field.id for field in new.fields if old.by_id(field.id)]
    if before != after:
        changes.append(Change(kind="order", field="", before=", ".join(old.names), after=", ".join(new.names)))
    return changes


def _of_field(old: Field | None, new: Field) -> Iterator[Change]:
    if old is None:
        yield Change(kind="added", field=new.name, before="", after=_described(new))
        return
    aspects: tuple[tuple[Kind, str, str], ...] = (
        ("renamed", old.name, new.name),
        ("retyped", old.declared_type, new.declared_type),
        ("nullability", _nullability(old), _nullability(new)),
        ("default", default_text(old), default_text(new)),
        ("description", old.description, new.description),
    )
    for kind, before, after in aspects:
        if before != after:
            yield Change(kind=kind, field=new.name, before=before, after=after)


def default_text(field: Field) -> str:
    """The default that records are given from now on, for people: "none", NULL, or the text in quotes."""
    if field.write_default is not None:
        return repr(field.write_default)
    return "NULL" if field.null_default else "none"


def _described(field: Field) -> str:
    shown = default_text(field)
    return f"{field.declared_type}, {_nullability(field)}" + (f", default {shown}" if shown != "none" else "")


def _nullability(field: Field) -> str:
    return "nullable" if field.nullable else "required"
