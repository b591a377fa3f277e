"""From the columns somebody proposes to a schema version: which field each of them is.

A proposed field with an id is that field. One without is the field that has its name in the newest version, or
the field that ``renames`` says it was; else it is new and gets an id that no version of the topic ever had, even
under a name that was used before: what was dropped does not come back as something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from headwater import default, types
from headwater.errors import UsageError
from headwater.registry import promotion
from headwater.schema import Field, Schema

NEW = 0
"""The id of a proposed field that does not say which one it is."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Columns in order. ``write_default`` and ``null_default`` are what the proposer calls the default.

    ``key`` None: the key stays.
    """

    fields: tuple[Field, ...]
    key: tuple[str, ...] | None = None
    renames: Mapping[str, str] = field(default_factory=dict)
    """New name to old name."""

    @classmethod
    def of(cls, schema: Schema) -> Proposal:
        """A schema without its ids: its fields are found by name."""
        return cls(fields=tuple(replace(each, id=NEW) for each in schema.fields), key=schema.key)


def assign(proposal: Proposal, versions: Mapping[int, Schema], *, replaces: bool = False) -> Schema:
    """The proposal as the next version after ``versions`` (by number), with ids and with what fields keep.

    A field that existed keeps its initial default; a new one gets its default for older records too. With
    ``replaces``, a field whose type is unrelated to the one it had is a new field under the old name (what mode
    NONE allows). UsageError when ``renames`` or an id names a field that is not there, or two become one.
    """
    refuse_structs(proposal.fields)
    newest = versions[max(versions)] if versions else Schema(fields=())
    fresh = max((each.id for schema in versions.values() for each in schema.fields), default=0) + 1
    fields: list[Field] = []
    for given in proposal.fields:
        old = _old(given, proposal, newest)
        kind = types.canonical(given.declared_type)
        proposed = replace(given, type=kind, write_type="")
        if old is None or (replaces and not promotion.related(old.declared_type, kind)):
            fields.append(_fresh(proposed, fresh))
            fresh += 1
        else:
            kept = old.initial_default
            if kept is not None and promotion.related(old.type, kind):
                kept = default.promoted(kept, old.type, kind)
            fields.append(replace(proposed, id=old.id, initial_default=kept, null_initial=old.null_initial))
    _refuse_twins(fields)
    if proposal.key is None:
        key = tuple(each.name for name in newest.key for each in fields if each.id == newest.field(name).id)
    else:
        key = proposal.key
    if missing := [name for name in key if all(each.name != name for each in fields)]:
        raise UsageError(
            f"key column {missing[0]} is not among the columns", todo="Add it, or leave it out of the key."
        )
    return settle(Schema(fields=tuple(fields), key=key), versions)


def refuse_structs(fields: Iterable[Field]) -> None:
    """UsageError for a column of a type that only captured tables and views have: producers' rows do not become one."""
    for each in fields:
        if types.is_struct(types.canonical(each.declared_type).rstrip("[]")):
            raise UsageError(
                f"column {each.name!r} is a {each.declared_type}, which only captured tables and views have",
                todo="Make its fields columns, or keep it as JSON.",
            )


def settle(schema: Schema, versions: Mapping[int, Schema]) -> Schema:
    """The version as it is kept: a type narrower than an older version's is what producers write, not what is read.

    All records of a topic, the oldest too, are read in the shape of the newest version. A new field whose default for
    older records is not said has the one that new records are given.
    """
    return replace(schema, fields=tuple(_settled(each, versions) for each in schema.fields))


def _settled(proposed: Field, versions: Mapping[int, Schema]) -> Field:
    declared = proposed.declared_type
    before = [old.declared_type for version in versions.values() if (old := version.by_id(proposed.id))]
    if not before and not proposed.fills_older:
        proposed = _fresh(proposed, proposed.id)
    if not all(promotion.related(declared, each) for each in before):
        return replace(proposed, type=declared, write_type="")
    wide = promotion.widest([*before, declared])
    if wide == declared:
        return replace(proposed, type=declared, write_type="")
    return replace(proposed, type=wide, write_type=declared)


def _fresh(proposed: Field, field_id: int) -> Field:
    """A new field: what new records are given is what older ones read."""
    return replace(proposed, id=field_id, initial_default=proposed.write_default, null_initial=proposed.null_default)


def _old(proposed: Field, proposal: Proposal, newest: Schema) -> Field | None:
    """The field of the newest version that the proposed one is; None for a new one."""
    if proposed.id != NEW:
        return newest.by_id(proposed.id)
    if (was := proposal.renames.get(proposed.name)) is not None:
        if was not in newest.names:
            raise UsageError(f"there is no field {was} to rename", todo=f"There are {', '.join(newest.names)}.")
        return newest.field(was)
    if proposed.name in proposal.renames.values():  # it was renamed away: this is another one
        return None
    return newest.field(proposed.name) if proposed.name in newest.names else None


def _refuse_twins(fields: list[Field]) -> None:
    by_id: dict[int, str] = {}
    for each in fields:
        if (other := by_id.setdefault(each.id, each.name)) != each.name:
            raise UsageError(f"{other} and {each.name} would be the same field", todo="Rename one of them only.")
