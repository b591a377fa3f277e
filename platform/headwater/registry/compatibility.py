"""The seven compatibility modes: which new schema version may follow which old ones, and why not.

    mode                     who must read what                           compared with
    NONE                     nobody                                       -
    BACKWARD                 a reader of the new version, older records   the latest version
    FORWARD                  a reader of the older version, new records   the latest version
    FULL                     both                                         the latest version
    ..._TRANSITIVE           the same                                     every version

A reader finds its columns by field id, so renaming and reordering are always safe. A reader can read records of
another version when, for each of its columns,

- the record has the column, with a type that promotes to the reader's (``promotion``), and is not NULL where the
  reader wants none; or
- the record lacks it and the reader has a default for it. Nullable is not optional: without a default, NULL would
  be made up. A column that is required needs a default that is a value, for older records and for new ones.

Many consumers find columns by name all the same (Avro, JSON, SQL). So a name that meant another field in a version
compared with is refused in every mode but NONE: such a consumer would read one field as the other without an error.

What the log itself relies on holds in every mode, NONE included: the key, since partitions and compaction follow
from it; one chain of types for each field id and an unchanging initial default, since old files stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from headwater import default, record
from headwater.errors import IncompatibleSchema, SchemaError
from headwater.registry import promotion
from headwater.schema import Field, Schema

Mode = Literal["NONE", "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE"]
MODES: tuple[Mode, ...] = get_args(Mode)

Rule = Literal[
    "ADDED_WITHOUT_DEFAULT",
    "REQUIRED_WITHOUT_DEFAULT",
    "REMOVED_WITHOUT_DEFAULT",
    "TYPE_CHANGED",
    "TYPE_NARROWED",
    "TYPE_WIDENED",
    "BECAME_REQUIRED",
    "BECAME_NULLABLE",
    "NAME_REUSED",
    "NAME_INVALID",
    "DEFAULT_INVALID",
    "INITIAL_DEFAULT_CHANGED",
    "ID_RETYPED",
    "KEY_CHANGED",
    "KEY_RETYPED",
]
"""Stable codes; the first nine depend on the mode, the others hold in every one."""


@dataclass(frozen=True, kw_only=True)
class Violation:
    """A rule that a proposed version breaks: for which field, against which version, and what would be accepted."""

    rule: Rule
    field: str
    old: int
    new: int
    what: str
    accepted: str

    def __str__(self) -> str:
        against = f" against version {self.old}" if self.old else ""
        return f"{self.rule}: {self.what} (version {self.new}{against}). {self.accepted}"


def check(proposed: Schema, versions: Mapping[int, Schema], mode: Mode) -> list[Violation]:
    """Everything that keeps ``proposed`` from following ``versions`` (by number); empty when it may.

    Ordered by the version it breaks with, newest first, then by column.
    """
    newest = max(versions, default=0)
    found = _violations(_validity(proposed), 0, newest + 1)
    if found:  # the rules below take names and defaults as given
        return found
    for number in sorted(versions, reverse=True):
        old = versions[number]
        broken = list(_laws(proposed, old))
        if mode != "NONE" and (number == newest or mode.endswith("_TRANSITIVE")):
            broken += _names(proposed, old)
            if mode.startswith(("BACKWARD", "FULL")):
                broken += _readable(proposed, old, backward=True)
            if mode.startswith(("FORWARD", "FULL")):
                broken += _readable(old, proposed, backward=False)
        found += _violations(_once(broken), number, newest + 1)
    return found


def require(topic: str, proposed: Schema, versions: Mapping[int, Schema], mode: Mode) -> None:
    """Raise IncompatibleSchema with the first violation as its text, when there is one."""
    found = check(proposed, versions, mode)
    if not found:
        return
    first = found[0]
    against = f"{mode}, against version {first.old}" if first.old else "in every mode"
    more = f"; {len(found) - 1} more" if len(found) > 1 else ""
    raise IncompatibleSchema(
        f"{first.what} [{first.rule}; {against}{more}]",
        where=topic,
        todo=first.accepted,
        rule=first.rule,
        field=first.field,
        version=first.old,
        violations=tuple(found),
    )


_Broken = tuple[Rule, str, str, str]
"""Rule, field, what is wrong, what would be accepted."""


def _violations(broken: Iterable[_Broken], old: int, new: int) -> list[Violation]:
    return [
        Violation(rule=rule, field=field, old=old, new=new, what=what, accepted=accepted)
        for rule, field, what, accepted in dict.fromkeys(broken)
    ]


def _once(broken: Sequence[_Broken]) -> Iterator[_Broken]:
    """One word about each field's type: a key's first, then the mode's, then the field id's."""
    keys = {field for rule, field, _, _ in broken if rule == "KEY_RETYPED"}
    changed = {field for rule, field, _, _ in broken if rule == "TYPE_CHANGED"}
    for each in broken:
        by_key = each[1] in keys and each[0].startswith("TYPE_")
        if not (by_key or (each[1] in changed and each[0] == "ID_RETYPED")):
            yield each


def _readable(reader: Schema, writer: Schema, *, backward: bool) -> Iterator[_Broken]:
    """Why a reader with ``reader`` cannot read records of ``writer``; ``backward``: the reader is the new one."""
    for field in reader.fields:
        sent = writer.by_id(field.id)
        if sent is None:
            yield from _absent(field, backward=backward)
            continue
        yield from _retyped(field, sent, backward=backward)
        if sent.nullable and not field.nullable:
            yield _nullability(field, sent, backward=backward)


def _absent(field: Field, *, backward: bool) -> Iterator[_Broken]:
    """The reader has the field, the record does not."""
    if not backward:
        if not (field.optional or field.fills_older):
            yield (
                "REMOVED_WITHOUT_DEFAULT",
                field.name,
                f"{field.name} is removed, but readers of the old version have no default for it",
                f"Keep {field.name}; only a field with a default may go.",
            )
    elif not field.nullable and (field.initial_default is None or field.write_default is None):
        yield (
            "REQUIRED_WITHOUT_DEFAULT",
            field.name,
            f"{field.name} is new and required, but there is no value for records that lack it",
            f"Give {field.name} a default that is not NULL, or let it be nullable with a default.",
        )
    elif not field.fills_older:
        yield (
            "ADDED_WITHOUT_DEFAULT",
            field.name,
            f"{field.name} is new and has no default; that it may be NULL is no default",
            f"Give {field.name} a default; NULL is one, where it is said.",
        )


def _retyped(field: Field, sent: Field, *, backward: bool) -> Iterator[_Broken]:
    old, new = (sent, field) if backward else (field, sent)
    was, now = old.declared_type, new.declared_type
    if promotion.promotes(sent.declared_type, field.declared_type):
        return
    if not promotion.related(was, now):
        wider = promotion.accepted(was) if backward else ()
        may = f"{was} may become {' or '.join(wider)}." if wider else f"Keep {was}."
        yield "TYPE_CHANGED", new.name, f"{new.name} was {was} and would be {now}", f"{may} Or add a new field."
    elif backward:
        what = f"{new.name} was {was} and would be narrower: {now} does not hold what older records say"
        yield "TYPE_NARROWED", new.name, what, f"Keep {was}."
    else:
        what = f"{new.name} was {was} and would be wider: readers of the old version cannot hold {now}"
        yield "TYPE_WIDENED", new.name, what, f"Keep {was}, or add a new field."


def _nullability(field: Field, sent: Field, *, backward: bool) -> _Broken:
    if backward:
        what = f"{field.name} would be required, but older records may hold NULL"
        return "BECAME_REQUIRED", field.name, what, f"Let {field.name} be nullable."
    what = f"{sent.name} would be nullable, but readers of the old version want a value"
    return "BECAME_NULLABLE", sent.name, what, f"Keep {sent.name} required."


def _names(new: Schema, old: Schema) -> Iterator[_Broken]:
    """Names that meant another field: dangerous for whoever reads by name."""
    meant = {field.name.lower(): field.id for field in old.fields}
    for field in new.fields:
        if meant.get(field.name.lower(), field.id) != field.id:
            yield (
                "NAME_REUSED",
                field.name,
                f"the name {field.name} meant another field, and who reads by name would take one for the other",
                "Use another name.",
            )


def _laws(new: Schema, old: Schema) -> Iterator[_Broken]:
    """What no mode allows: old files and partitions stay as they are."""
    key = [new.field(name).id for name in new.key]
    was = [old.field(name).id for name in old.key]
    if key != was:
        yield (
            "KEY_CHANGED",
            ", ".join(new.key) or ", ".join(old.key),
            f"the key was ({', '.join(old.key)}) and would be ({', '.join(new.key)})",
            "The key decides partitions and compaction and never changes; make a new topic for another one.",
        )
    for field in new.fields:
        before = old.by_id(field.id)
        if before is None:
            continue
        if field.name in new.key and not promotion.keeps_hash(before.declared_type, field.declared_type):
            what = f"the key column {field.name} was {before.declared_type} and would be {field.declared_type}"
            yield "KEY_RETYPED", field.name, what, "The same key would go to another partition; keep its type."
        elif not promotion.related(before.declared_type, field.declared_type):
            what = f"field id {field.id} was {before.declared_type} and would be {field.declared_type}"
            yield "ID_RETYPED", field.name, what, "Old files are read by id; give the new type a new field id."
        else:
            yield from _initial_default(field, before)


def _initial_default(field: Field, before: Field) -> Iterator[_Broken]:
    kind = promotion.widest([field.type, before.type])
    if not default.same(field.initial_default, field.type, before.initial_default, before.type, kind):
        yield (
            "INITIAL_DEFAULT_CHANGED",
            field.name,
            f"{field.name} was {before.initial_default} in older records and would be {field.initial_default}",
            "What older records say does not change; change the write default instead.",
        )


def _validity(schema: Schema) -> Iterator[_Broken]:
    """What no schema may have, whatever came before it."""
    seen: set[str] = set()
    for field in schema.fields:
        folded = field.name.lower()
        if not field.name or folded in record.METADATA or folded in seen:
            reason = "is a metadata column's" if folded in record.METADATA else "comes twice (case does not count)"
            reason = reason if field.name else "is empty"
            yield "NAME_INVALID", field.name, f"the name {field.name!r} {reason}", "Use another name."
        seen.add(folded)
        for text in {field.initial_default, field.write_default} - {None}:
            assert text is not None
            try:
                default.value(text, field.declared_type)
            except SchemaError as error:
                yield "DEFAULT_INVALID", field.name, f"{field.name}: {error.what}", error.todo
        if field.null_default and not field.nullable:
            what = f"{field.name} is required and cannot default to NULL"
            yield "DEFAULT_INVALID", field.name, what, "Give it a value as its default, or let it be nullable."


def summary(violations: Sequence[Violation]) -> list[dict[str, object]]:
    """Violations as a document holds them."""
    return [
        {"rule": v.rule, "field": v.field, "old": v.old, "new": v.new, "what": v.what, "accepted": v.accepted}
        for v in violations
    ]
