"""The seven compatibility modes: every rule by name, and all of them against a reader that knows only values."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from headwater.errors import IncompatibleSchema, UsageError
from headwater.registry import MODES, Mode, Proposal, assign, check, diff, promotion, require, settle
from headwater.schema import Field, Schema
from headwater.testing import evolutions

V1 = Schema(
    fields=(
        Field(id=1, name="id", type="BIGINT", nullable=False),
        Field(id=2, name="n", type="INTEGER"),
        Field(id=3, name="note", type="VARCHAR", null_default=True),
        Field(id=4, name="sure", type="VARCHAR", nullable=False),
        Field(id=5, name="price", type="DECIMAL(8,2)"),
        Field(id=6, name="day", type="DATE"),
        Field(id=7, name="ratio", type="FLOAT"),
        Field(id=8, name="few", type="INTEGER[]"),
    ),
    key=("id",),
)


def with_field(name: str, /, **values: object) -> Schema:
    """V1 with one field changed."""
    fields = (replace(field, **values) if field.name == name else field for field in V1.fields)  # type: ignore[arg-type]
    return replace(V1, fields=tuple(fields))


def without(name: str) -> Schema:
    return replace(V1, fields=tuple(field for field in V1.fields if field.name != name))


def plus(field: Field) -> Schema:
    return replace(V1, fields=(*V1.fields, field))


# change: version 2, what BACKWARD has against it, what FORWARD has, what every mode has (a field id that changes its
# type is said by the mode, where one says it)
GOLDEN: dict[str, tuple[Schema, str, str, str]] = {
    "nothing": (V1, "", "", ""),
    "add with a default": (
        plus(Field(id=9, name="x", type="INTEGER", initial_default="0", write_default="0")), "", "", ""),
    "add with NULL as its default": (plus(Field(id=9, name="x", type="INTEGER", null_initial=True)), "", "", ""),
    "add nullable, no default": (plus(Field(id=9, name="x", type="INTEGER")), "ADDED_WITHOUT_DEFAULT", "", ""),
    "add required, no default": (
        plus(Field(id=9, name="x", type="INTEGER", nullable=False)), "REQUIRED_WITHOUT_DEFAULT", "", ""),
    "add required, default for older records only": (
        plus(Field(id=9, name="x", type="INTEGER", nullable=False, initial_default="0")),
        "REQUIRED_WITHOUT_DEFAULT", "", ""),
    "add required with defaults": (
        plus(Field(id=9, name="x", type="INTEGER", nullable=False, initial_default="0", write_default="1")),
        "", "", ""),
    "remove without a default": (without("n"), "", "REMOVED_WITHOUT_DEFAULT", ""),
    "remove with a default": (without("note"), "", "", ""),
    "rename": (with_field("n", name="count"), "", "", ""),
    "reorder": (replace(V1, fields=tuple(reversed(V1.fields))), "", "", ""),
    "swap two names": (
        replace(V1, fields=tuple(
            replace(f, name={"n": "price", "price": "n"}.get(f.name, f.name)) for f in V1.fields)),
        "NAME_REUSED", "NAME_REUSED", ""),
    "the name of another field, gone": (
        replace(V1, fields=(*without("n").fields, Field(id=9, name="N", type="INTEGER", null_initial=True))),
        "NAME_REUSED", "NAME_REUSED REMOVED_WITHOUT_DEFAULT", ""),
    "int to bigint": (with_field("n", type="BIGINT"), "", "TYPE_WIDENED", ""),
    "int to smallint": (with_field("n", type="SMALLINT"), "TYPE_NARROWED", "", ""),
    "int to double": (with_field("n", type="DOUBLE"), "TYPE_CHANGED", "TYPE_CHANGED", "ID_RETYPED"),
    "text to bytes": (with_field("note", type="BLOB"), "TYPE_CHANGED", "TYPE_CHANGED", "ID_RETYPED"),
    "int to text": (with_field("n", type="VARCHAR"), "TYPE_CHANGED", "TYPE_CHANGED", "ID_RETYPED"),
    "int to uint": (with_field("n", type="UINTEGER"), "TYPE_CHANGED", "TYPE_CHANGED", "ID_RETYPED"),
    "float to double": (with_field("ratio", type="DOUBLE"), "", "TYPE_WIDENED", ""),
    "more digits": (with_field("price", type="DECIMAL(12,2)"), "", "TYPE_WIDENED", ""),
    "fewer digits": (with_field("price", type="DECIMAL(6,2)"), "TYPE_NARROWED", "", ""),
    "another scale": (with_field("price", type="DECIMAL(12,3)"), "TYPE_CHANGED", "TYPE_CHANGED", "ID_RETYPED"),
    "date to timestamp": (with_field("day", type="TIMESTAMP"), "", "TYPE_WIDENED", ""),
    "date to timestamptz": (
        with_field("day", type="TIMESTAMP WITH TIME ZONE"), "TYPE_CHANGED", "TYPE_CHANGED", "ID_RETYPED"),
    "wider elements": (with_field("few", type="BIGINT[]"), "", "TYPE_WIDENED", ""),
    "a list of it": (with_field("n", type="INTEGER[]"), "TYPE_CHANGED", "TYPE_CHANGED", "ID_RETYPED"),
    "nullable to required": (with_field("n", nullable=False), "BECAME_REQUIRED", "", ""),
    "required to nullable": (with_field("sure", nullable=True), "", "BECAME_NULLABLE", ""),
    "another default from now on": (with_field("n", write_default="7"), "", "", ""),
    "another default for older records": (
        with_field("n", initial_default="7"), "", "", "INITIAL_DEFAULT_CHANGED"),
    "a default of another type": (with_field("n", write_default="many"), "", "", "DEFAULT_INVALID"),
    "NULL for a required field": (with_field("sure", null_default=True), "", "", "DEFAULT_INVALID"),
    "a metadata column's name": (with_field("n", name="_offset"), "", "", "NAME_INVALID"),
    "two names that differ in case": (with_field("n", name="NOTE"), "", "", "NAME_INVALID"),
    "one more key column": (replace(V1, key=("id", "n")), "", "", "KEY_CHANGED"),
    "no key": (replace(V1, key=()), "", "", "KEY_CHANGED"),
    "a renamed key": (
        replace(V1, key=("order_id",), fields=(replace(V1.fields[0], name="order_id"), *V1.fields[1:])), "", "", ""),
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("change", GOLDEN)
def test_golden_table(change: str, mode: Mode) -> None:
    new, backward, forward, always = GOLDEN[change]
    expected = set(always.split()) if mode == "NONE" else set(always.split()) - {"ID_RETYPED"}
    if mode.startswith(("BACKWARD", "FULL")):
        expected |= set(backward.split())
    if mode.startswith(("FORWARD", "FULL")):
        expected |= set(forward.split())
    found = check(new, {1: V1}, mode)
    assert {violation.rule for violation in found} == expected
    assert all(v.new == 2 and v.what and v.accepted and (v.old == 1 or v.rule.endswith("INVALID")) for v in found)


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("INTEGER", "BIGINT", None),
        ("BIGINT", "INTEGER", None),
        ("DECIMAL(8,2)", "DECIMAL(9,2)", None),
        ("FLOAT", "DOUBLE", "KEY_RETYPED"),
        ("DATE", "TIMESTAMP", "KEY_RETYPED"),
        ("INTEGER", "VARCHAR", "KEY_RETYPED"),
    ],
)
def test_a_key_keeps_its_hash(old: str, new: str, rule: str | None) -> None:
    before, after = Schema.of({"k": old}, key=["k"]), Schema.of({"k": new}, key=["k"])
    assert [violation.rule for violation in check(after, {1: before}, "NONE")] == ([rule] if rule else [])


def test_what_the_partitioner_hashes_alike_is_what_keys_may_become() -> None:
    import pyarrow as pa

    from headwater.log.partitioner import partition_of
    from headwater.types import arrow_type

    for old in evolutions.TYPES:
        for new in evolutions.TYPES:
            if old == new or not promotion.promotes(old, new) or old.endswith("[]"):
                continue
            field = Field(id=1, name="k", type=old, nullable=False)
            given = evolutions.values(field)
            wide = [evolutions.as_read(value, new) for value in given]
            one = partition_of([pa.chunked_array([pa.array(given, arrow_type(old))])], 2**20)
            other = partition_of([pa.chunked_array([pa.array(wide, arrow_type(new))])], 2**20)
            assert promotion.keeps_hash(old, new) == bool((one == other).all()), (old, new)


def test_transitive_modes_look_at_every_version_and_the_others_at_the_latest() -> None:
    v2 = without("n")
    v3 = replace(V1, fields=(*v2.fields, Field(id=9, name="n", type="VARCHAR", null_initial=True)))
    assert check(v3, {1: V1, 2: v2}, "BACKWARD") == []
    (found,) = check(v3, {1: V1, 2: v2}, "BACKWARD_TRANSITIVE")
    assert (found.rule, found.field, found.old, found.new) == ("NAME_REUSED", "n", 1, 3)
    narrow = settle(with_field("n", type="SMALLINT"), {1: V1})
    assert check(narrow, {1: V1}, "FORWARD") == []
    again = settle(with_field("n", type="INTEGER"), {1: V1, 2: narrow})
    assert [(v.rule, v.old) for v in check(again, {1: V1, 2: narrow}, "FORWARD_TRANSITIVE")] == [("TYPE_WIDENED", 2)]


def test_the_refusal_says_rule_field_version_and_what_would_be_accepted() -> None:
    with pytest.raises(IncompatibleSchema) as caught:
        require("shop.orders", with_field("n", type="VARCHAR", nullable=False), {1: V1}, "BACKWARD")
    error = caught.value
    assert (error.rule, error.field, error.version, len(error.violations)) == ("TYPE_CHANGED", "n", 1, 2)
    assert str(error) == (
        "n was INTEGER and would be VARCHAR [TYPE_CHANGED; BACKWARD, against version 1; 1 more] (shop.orders)."
        " INTEGER may become BIGINT. Or add a new field."
    )
    require("shop.orders", with_field("n", type="BIGINT"), {1: V1}, "BACKWARD")


def test_proposals_get_ids_by_name_and_by_rename() -> None:
    proposal = Proposal(
        fields=(
            Field(id=0, name="extra", type="integer", write_default="1"),
            Field(id=0, name="count", type="BIGINT"),
            Field(id=0, name="id", type="BIGINT", nullable=False),
        ),
        renames={"count": "n"},
    )
    new = assign(proposal, {1: V1})
    assert [(f.id, f.name, f.type, f.initial_default, f.write_default) for f in new.fields] == [
        (9, "extra", "INTEGER", "1", "1"),
        (2, "count", "BIGINT", None, None),
        (1, "id", "BIGINT", None, None),
    ]
    assert new.key == ("id",)
    changes = [(change.kind, change.field) for change in diff(V1, new)]
    assert changes[:3] == [("added", "extra"), ("renamed", "count"), ("retyped", "count")]
    assert {("removed", "note"), ("order", "")} <= set(changes)


def test_a_name_that_was_dropped_comes_back_as_another_field() -> None:
    v2 = without("n")
    back = assign(Proposal.of(V1), {1: V1, 2: v2})
    assert back.field("n").id == 9
    swapped = Proposal(
        fields=(Field(id=0, name="price", type="INTEGER"), Field(id=0, name="n", type="DECIMAL(8,2)")),
        key=(),
        renames={"price": "n", "n": "price"},
    )
    assert [field.id for field in assign(swapped, {1: V1}).fields] == [2, 5]


@pytest.mark.parametrize(
    ("proposal", "message"),
    [
        (
            Proposal(fields=(Field(id=0, name="x", type="INTEGER"),), renames={"x": "nothing"}, key=()),
            "no field nothing",
        ),
        (
            Proposal(fields=(Field(id=0, name="x", type="INTEGER"), Field(id=2, name="n", type="INTEGER")),
                     renames={"x": "n"}, key=()),
            "would be the same field",
        ),
        (Proposal(fields=(Field(id=0, name="n", type="INTEGER"),), key=("m",)), "key column m"),
    ],
)  # fmt: skip
def test_a_proposal_that_contradicts_itself_is_refused(proposal: Proposal, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        assign(proposal, {1: V1})


def test_mode_none_makes_a_new_field_of_what_cannot_be_converted() -> None:
    proposal = Proposal.of(with_field("n", type="VARCHAR"))
    kept, replaced = assign(proposal, {1: V1}), assign(proposal, {1: V1}, replaces=True)
    assert (kept.field("n").id, replaced.field("n").id) == (2, 9)
    assert check(replaced, {1: V1}, "NONE") == []


def test_a_narrower_type_is_what_producers_write_and_the_wider_one_what_is_read() -> None:
    new = assign(Proposal.of(with_field("n", type="SMALLINT")), {1: V1})
    assert (new.field("n").type, new.field("n").write_type) == ("INTEGER", "SMALLINT")
    assert check(new, {1: V1}, "FORWARD_TRANSITIVE") == []


def test_a_default_keeps_its_value_when_its_type_is_promoted() -> None:
    v2 = plus(Field(id=9, name="x", type="FLOAT", initial_default="0.1", write_default="0.1"))
    v3 = assign(Proposal.of(replace(v2, fields=(*V1.fields, replace(v2.field("x"), type="DOUBLE")))), {1: V1, 2: v2})
    assert (v3.field("x").initial_default, v3.field("x").write_default) == ("0.10000000149011612", "0.1")
    assert check(v3, {1: V1, 2: v2}, "BACKWARD_TRANSITIVE") == []


def test_old_catalogs_are_read() -> None:
    text = (
        '{"fields": [{"id": 1, "name": "a", "type": "BIGINT", "nullable": true, "source_type": "int8",'
        ' "description": "", "initial_default": "5"}], "key": ["a"]}'
    )
    (field,) = Schema.from_json(text).fields
    assert (field.initial_default, field.write_default, field.null_default, field.declared_type) == (
        "5",
        None,
        False,
        "BIGINT",
    )
    assert Schema.from_json(Schema.from_json(text).to_json()) == Schema.from_json(text)


@pytest.mark.parametrize("mode", MODES)
def test_random_evolutions_agree_with_the_model(mode: Mode, seed: int) -> None:
    agree(mode, seed, 250)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", MODES)
def test_ten_thousand_evolutions_agree_with_the_model(mode: Mode, seed: int) -> None:
    agree(mode, seed, 10_000)


def agree(mode: Mode, seed: int, count: int) -> None:
    """So many proposals, each judged by rules and by model; both answers must be seen."""
    print(f"seed: {seed}")
    rng = random.Random(seed)
    versions: dict[int, Schema] = {}
    answers = [0, 0]
    for _ in range(count):
        if not versions or len(versions) > 8:
            versions = {1: evolutions.start(rng)}
        proposal = evolutions.evolve(rng, versions[max(versions)])
        new = assign(proposal, versions, replaces=mode == "NONE")
        found = check(new, versions, mode)
        laws = [v for v in found if v.rule in ("ID_RETYPED", "INITIAL_DEFAULT_CHANGED", "KEY_CHANGED", "KEY_RETYPED")]
        accepted = evolutions.allowed(new, list(versions.values()), mode) and not laws
        assert accepted == (not found), (versions, new, found)
        answers[accepted] += 1
        if accepted:
            versions[len(versions) + 1] = new
    assert answers[1] > count // 20
    assert answers[0] > count // 20 or mode == "NONE"
