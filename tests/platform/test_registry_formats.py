"""Avro and JSON Schema: what is exported is what others understand, and comes back identical."""

from __future__ import annotations

import io
import json
import random
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import jsonschema
import pyarrow as pa
import pytest
from fastavro._schema_common import SchemaParseException
from fastavro.read import SchemaResolutionError
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater import types
from headwater.cli.output import json_lines
from headwater.errors import SchemaError, UsageError
from headwater.log import Log
from headwater.registry import Proposal, assign, avro, check, document, json_schema, promotion
from headwater.schema import Field, Schema
from headwater.testing import evolutions
from headwater.testing.writer import Writer

SCALARS = [*types._ARROW, "DECIMAL(12,2)", "DECIMAL(38,38)", "DECIMAL(5,0)"]
KINDS = [*SCALARS, *(f"{kind}[]" for kind in SCALARS), "INTEGER[][]"]
EVERYTHING = Schema(
    fields=(
        Field(id=1, name="order id", type="BIGINT", nullable=False, source_type="int8", description="the key"),
        *(Field(id=n, name=f"c{n}", type=kind) for n, kind in enumerate(KINDS, start=2)),
        Field(id=90, name="narrow", type="BIGINT", write_type="SMALLINT", null_default=True),
        Field(id=91, name="defaulted", type="DOUBLE", nullable=False, initial_default="0.25", write_default="0.5"),
        Field(id=92, name="later", type="VARCHAR", initial_default="a", null_default=True),
        Field(id=93, name="first", type="VARCHAR", write_default="a", null_initial=True),
    ),
    key=("order id",),
)


@pytest.mark.parametrize("form", ["avro", "json-schema"])
def test_every_type_and_property_comes_back_identical(form: str) -> None:
    exported = avro.export(EVERYTHING, "shop.public.t") if form == "avro" else json_schema.export(EVERYTHING, "t")
    text = json.dumps(exported)
    assert document.form_of(json.loads(text)) == form
    loaded = avro.load(json.loads(text)) if form == "avro" else json_schema.load(json.loads(text))
    assert loaded == Proposal(fields=EVERYTHING.fields, key=EVERYTHING.key)
    assert (
        assign(loaded, {1: replace(EVERYTHING, fields=tuple(wide(f) for f in EVERYTHING.fields)), 2: EVERYTHING})
        == EVERYTHING
    )


@pytest.mark.parametrize("form", ["avro", "json-schema"])
def test_structs_are_records_and_come_back_identical(form: str) -> None:
    """Of captured tables; a topic that people write to has none."""
    inner = types.struct([("at", "INTERVAL"), ("a b", "DECIMAL(4,2)[]"), ("n", "BIGINT")])
    kinds = [types.struct([("x", inner), ("xs", f"{inner}[]")]), f"{inner}[]", inner, "INTERVAL"]
    schema = Schema(fields=tuple(Field(id=n, name=f"c{n}", type=kind) for n, kind in enumerate(kinds, start=1)))
    module = avro if form == "avro" else json_schema
    exported = json.loads(json.dumps(module.export(schema, "shop.public.t")))
    assert module.load(exported) == Proposal(fields=schema.fields, key=())
    part: dict[str, Any] = {"at": {"months": 1, "days": 2, "micros": 3}, "a b": [Decimal("1.50"), None], "n": None}
    if form == "avro":
        parsed = fastavro.parse_schema(exported)
        part["a_x20b"] = part.pop("a b")
        record = {"c1": {"x": part, "xs": [part, None]}, "c2": [part], "c3": part, "c4": None}
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, parsed, record)
        buffer.seek(0)
        assert fastavro.schemaless_reader(buffer, parsed, None) == record
    else:
        part = {"at": "1 month", "a b": ["1.50", None], "n": "9007199254740993"}
        record = {"c1": {"x": part, "xs": [part, None]}, "c2": [part], "c3": None, "c4": None}
        jsonschema.validate(record, exported, cls=jsonschema.Draft202012Validator)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(record | {"c3": {"n": 1}}, exported, cls=jsonschema.Draft202012Validator)
    with pytest.raises(UsageError, match="only captured tables and views have"):
        assign(Proposal(fields=schema.fields), {})


def wide(field: Field) -> Field:
    return replace(field, write_type="")


def test_headwaters_own_form_comes_back_with_ids() -> None:
    exported = json.loads(json.dumps(document.export(EVERYTHING)))
    assert (
        assign(
            document.parse(exported),
            {1: replace(EVERYTHING, fields=tuple(wide(f) for f in EVERYTHING.fields)), 2: EVERYTHING},
        )
        == EVERYTHING
    )
    hand = document.parse(
        {"fields": [{"name": "a", "type": "int", "default": 5}, {"name": "b", "type": "text", "default": None}]}
    )
    assert [(f.id, f.type, f.write_default, f.null_default) for f in hand.fields] == [
        (0, "INTEGER", "5", False),
        (0, "VARCHAR", None, True),
    ]


def test_exported_documents_are_valid() -> None:
    fastavro.parse_schema(avro.export(EVERYTHING, "shop.public.t"))
    jsonschema.Draft202012Validator.check_schema(json_schema.export(EVERYTHING, "t"))


DEFAULTED = [
    ("BOOLEAN", "true", True), ("INTEGER", "-5", -5), ("BIGINT", "5", 5), ("FLOAT", "0.5", 0.5),
    ("DECIMAL(8,2)", "-1.50", Decimal("-1.50")), ("HUGEINT", "300", Decimal(300)), ("UBIGINT", "255", Decimal(255)),
    ("VARCHAR", "é", "é"), ("BLOB", "00ff", b"\x00\xff"), ("UUID", "6fa459ea-ee8a-3ca4-894e-db77e160355e", None),
    ("DATE", "2024-02-29", date(2024, 2, 29)), ("TIME", "10:00:00", None), ("TIMESTAMP", "2024-02-29 10:00:00", None),
    ("TIMESTAMP WITH TIME ZONE", "2024-02-29 10:00:00+00", None), ("INTEGER[]", "[1, NULL]", [1, None]),
    ("DECIMAL(4,1)[]", "[1.5]", [Decimal("1.5")]), ("VARCHAR[]", "[a]", ["a"]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "text", "value"), DEFAULTED, ids=[each[0] for each in DEFAULTED])
@pytest.mark.parametrize("nullable", [False, True])
def test_a_default_means_the_same_to_an_avro_reader(kind: str, text: str, value: Any, nullable: bool) -> None:
    """fastavro gives a default as the file has it, so it is written out and read again for its value."""
    field = Field(id=2, name="v", type=kind, nullable=nullable, initial_default=text, write_default=text)
    exported = avro.export(Schema(fields=(field,)), "t")
    (filled,) = resolved(avro.export(Schema.of(k="INTEGER"), "t"), exported, [{"k": 1}])
    branch = exported["fields"][0]["type"]
    raw = fastavro.parse_schema(
        {"type": "record", "name": "r", "fields": [{"name": "v", "type": branch[0] if nullable else branch}]}
    )
    kept = json.loads(json.dumps(filled["v"]))
    assert kept == exported["fields"][0]["default"]
    # Avro's JSON encoding of a record holding that default, read by fastavro.
    (read,) = fastavro.json_reader(
        io.StringIO(
            json.dumps({"v": kept if not kind.endswith("[]") else boxed(kept, branch[0] if nullable else branch)})
        ),
        raw,
    )
    assert isinstance(read, dict)
    assert value is None or read["v"] == value
    # And somebody else's copy of it, without our properties, is imported as the same default.
    member = {key: part for key, part in exported["fields"][0].items() if key != avro.KEPT}
    (imported,) = avro.load({**exported, "fields": [member]}).fields
    from headwater import default

    assert default.value(str(imported.write_default), kind) == default.value(text, kind)


def boxed(values: list[Any], array: Any) -> list[Any]:
    """Elements of a union as Avro's JSON encoding writes them: named by their branch."""
    branch = array["items"][1]
    name = branch if isinstance(branch, str) else branch["type"]
    return [None if each is None else {name: each} for each in values]


def resolved(writer: dict[str, Any], reader: dict[str, Any], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows written with one schema, read with another, by fastavro."""
    buffer = io.BytesIO()
    fastavro.writer(buffer, fastavro.parse_schema(writer), rows)
    buffer.seek(0)
    return [row for row in fastavro.reader(buffer, fastavro.parse_schema(reader)) if isinstance(row, dict)]


# The shapes that Avro and Iceberg judge alike. Avro alone reads integers as floats and text as bytes, and it takes no
# notice of a decimal's digits or a timestamp's meaning: those are refused here and not asked of it.
COMMON = ("INTEGER", "BIGINT", "FLOAT", "DOUBLE", "VARCHAR", "BOOLEAN", "INTEGER[]", "BIGINT[]")
AVRO_ALONE = {("INTEGER", "FLOAT"), ("INTEGER", "DOUBLE"), ("BIGINT", "FLOAT"), ("BIGINT", "DOUBLE")}


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Schema, Schema]:
    """Two versions with some fields in common; each id has one name, so that Avro, by name, finds the same fields."""
    count = draw(st.integers(1, 4))

    def side() -> tuple[Field, ...]:
        chosen = []
        for number in range(1, count + 1):
            if draw(st.booleans()):
                nullable = draw(st.booleans())
                kind = draw(st.sampled_from(COMMON))
                text = draw(st.sampled_from([None, evolutions.default_of(kind)]))
                chosen.append(
                    Field(id=number, name=f"f{number}", type=kind, nullable=nullable, initial_default=text,
                          write_default=text, null_initial=text is None and nullable and draw(st.booleans()))
                )  # fmt: skip
        return tuple(draw(st.permutations(chosen)))

    return Schema(fields=side()), Schema(fields=side())


@given(pairs())
@settings(max_examples=150)
def test_an_avro_reader_reads_old_records_exactly_when_backward_allows_it(both: tuple[Schema, Schema]) -> None:
    old, new = both
    kinds = {(field.type, new.by_id(field.id).type) for field in old.fields if new.by_id(field.id)}  # type: ignore[union-attr]
    if kinds & AVRO_ALONE:
        return
    accepted = not [
        v for v in check(new, {1: old}, "BACKWARD") if v.rule not in ("INITIAL_DEFAULT_CHANGED", "ID_RETYPED")
    ]
    writer, reader = avro.export(old, "t"), avro.export(new, "t")
    assert accepted == all(avro_reads(writer, reader, row) for row in extreme_rows(old)), (old, new)


def avro_reads(writer: dict[str, Any], reader: dict[str, Any], row: dict[str, Any]) -> bool:
    try:
        resolved(writer, reader, [row])
    except (SchemaResolutionError, SchemaParseException):
        return False
    return True


def extreme_rows(schema: Schema) -> list[dict[str, Any]]:
    """Rows in which every field shows each of its values once, NULL included: what a reader must be ready for."""
    columns = {field.name: evolutions.values(field) for field in schema.fields}
    longest = max((len(values) for values in columns.values()), default=1)
    return [{name: values[min(n, len(values) - 1)] for name, values in columns.items()} for n in range(longest)]


def test_where_avro_is_more_lenient_than_the_log() -> None:
    for old, new in sorted(AVRO_ALONE):
        writer, reader = avro.export(Schema.of(f=old), "t"), avro.export(Schema.of(f=new), "t")
        assert avro_reads(writer, reader, {"f": 5})
        assert not promotion.promotes(old, new)


def test_an_avro_reader_finds_a_renamed_field_by_its_alias() -> None:
    old = Schema.of(n="INTEGER")
    new = Schema(fields=(Field(id=1, name="count", type="BIGINT"),))
    assert resolved(avro.export(old, "t"), avro.export(new, "t", {1: old}), [{"n": 5}]) == [{"count": 5}]
    assert check(new, {1: old}, "BACKWARD") == []
    assert not avro_reads(avro.export(old, "t"), avro.export(new, "t"), {"n": 5})


def test_a_type_edited_in_the_file_wins_over_the_property() -> None:
    exported = json.loads(json.dumps(avro.export(Schema.of(n="SMALLINT", s="VARCHAR"), "t")))
    exported["fields"][0]["type"] = ["null", "long"]
    first, second = avro.load(exported).fields
    assert (first.id, first.type, second.id, second.type) == (1, "BIGINT", 2, "VARCHAR")
    shown = json.loads(json.dumps(json_schema.export(Schema.of(n="SMALLINT"), "t")))
    shown["properties"]["n"]["maximum"] = 2**31 - 1
    shown["properties"]["n"]["minimum"] = -(2**31)
    (field,) = json_schema.load(shown).fields
    assert (field.id, field.type) == (1, "INTEGER")


def test_an_avro_schema_of_somebody_else() -> None:
    loaded = avro.load(
        {
            "type": "record", "name": "Order", "namespace": "com.example",
            "fields": [
                {"name": "id", "type": "long", "doc": "order number"},
                {"name": "state", "type": {"type": "enum", "name": "S", "symbols": ["OPEN"]}, "default": "OPEN"},
                {"name": "note", "type": ["null", "string"], "default": None},
                {"name": "trap", "type": ["null", "string"]},
                {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "default": 1000},
                {"name": "sum", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
                {"name": "tags", "type": {"type": "array", "items": "string"}, "default": ["a"]},
                {"name": "odd", "type": {"type": "string", "logicalType": "unheard-of"}},
            ],
        }
    )  # fmt: skip
    assert [(f.name, f.type, f.nullable, f.write_default, f.null_default) for f in loaded.fields] == [
        ("id", "BIGINT", False, None, False),
        ("state", "VARCHAR", False, "OPEN", False),
        ("note", "VARCHAR", True, None, True),
        ("trap", "VARCHAR", True, None, False),  # nullable is not optional
        ("at", "TIMESTAMP WITH TIME ZONE", False, "1970-01-01 00:00:01+00", False),
        ("sum", "DECIMAL(9,2)", False, None, False),
        ("tags", "VARCHAR[]", False, '["a"]', False),
        ("odd", "VARCHAR", False, None, False),
    ]
    assert loaded.fields[0].description == "order number"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (["int", "string"], "a union of several types"),
        ({"type": "map", "values": "int"}, "Avro's map"),
        ({"type": "record", "name": "r", "fields": []}, "Avro's record"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 50}, "a decimal of 50 digits"),
    ],
)
def test_what_no_column_can_hold_is_refused_by_field(kind: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=rf"{message} \(field f\)"):
        avro.load({"type": "record", "name": "t", "fields": [{"name": "f", "type": kind}]})


def test_a_json_schema_of_somebody_else() -> None:
    loaded = json_schema.load(
        {
            "type": "object",
            "required": ["id"],
            "properties": {
                "id": {"type": "integer"},
                "price": {"type": "number", "default": 0},
                "when": {"type": "string", "format": "date-time"},
                "tags": {"type": "array", "items": {"type": "string"}},
            },
        }
    )
    assert [(f.name, f.type, f.nullable, f.write_default, f.null_default) for f in loaded.fields] == [
        ("id", "BIGINT", False, None, False),
        ("price", "DOUBLE", False, "0", False),
        ("when", "TIMESTAMP WITH TIME ZONE", True, None, True),
        ("tags", "VARCHAR[]", True, None, True),
    ]
    with pytest.raises(SchemaError, match="an object"):
        json_schema.load({"type": "object", "properties": {"x": {"type": "object"}}})


def test_the_json_schema_holds_for_the_records_that_are_printed(
    log: Log, writer: Writer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The oracle: every value of every type as `topic tail` prints it, and none of a record that is no such record."""
    schema = Schema.of({f"c{n}": kind for n, kind in enumerate(KINDS)})
    columns = {}
    for n, kind in enumerate(KINDS):
        values = SAMPLES.get(kind.rstrip("[]"), [None])
        if kind.endswith("[]"):
            values = [[value] for value in values] if not kind.endswith("[][]") else [[[value]] for value in values]
        kinds = types.arrow_type(kind)
        columns[f"c{n}"] = pa.nulls(3, kinds) if kind.rstrip("[]") not in SAMPLES else pa.array((values * 3)[:3], kinds)
    writer.create("shop.t", "insert_only", schema)
    writer.write("shop.t", pa.table({**columns, "_op": ["c"] * 3}))
    json_lines(log.read_changes("shop.t", 0, 2, schema.names), schema, "UTC")
    validator = jsonschema.Draft202012Validator(
        json_schema.export(schema, "shop.t"), format_checker=jsonschema.FormatChecker(["uuid"])
    )
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for line in lines:
        assert list(validator.iter_errors(line)) == []
    for broken in (
        {**lines[0], "more": 1},
        {**lines[0], "c2": 2**40},
        {k: v for k, v in lines[0].items() if k != "c2"},
    ):
        assert list(validator.iter_errors(broken))


SAMPLES: dict[str, list[Any]] = {
    "BOOLEAN": [True, False], "TINYINT": [-128, 127], "SMALLINT": [-(2**15)], "INTEGER": [-(2**31), 2**31 - 1],
    "BIGINT": [-(2**63), 5], "UTINYINT": [255], "USMALLINT": [2**16 - 1], "UINTEGER": [2**32 - 1],
    "UBIGINT": [2**64 - 1, 0], "HUGEINT": [Decimal(10**37), Decimal(-5)], "FLOAT": [0.5, float("nan")],
    "DOUBLE": [float("inf"), 1e300], "VARCHAR": ["", "é"], "JSON": ['{"a": 1}'], "BLOB": [b"\x00\xff", b""],
    "DATE": [date(2024, 2, 29)], "DECIMAL(12,2)": [Decimal("-9999999999.99")], "DECIMAL(5,0)": [Decimal("-99999")],
    "DECIMAL(38,38)": [Decimal("0.5")],
}  # fmt: skip


def test_a_file_is_recognised_and_a_bad_one_said_so(tmp_path: Path) -> None:
    schema = Schema.of(a="INTEGER")
    forms = {
        "a.avsc": avro.export(schema, "t"),
        "b.json": json_schema.export(schema, "t"),
        "c.json": document.export(schema),
    }
    for name, content in forms.items():
        (tmp_path / name).write_text(json.dumps(content))
        (field,) = document.load(tmp_path / name).fields
        assert (field.id, field.name, field.type) == (1, "a", "INTEGER")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UsageError, match="no schema can be read"):
        document.load(tmp_path / "bad.json")
    (tmp_path / "typo.json").write_text('{"fields": [{"name": "a", "type": "INTEGER", "nulable": true}]}')
    with pytest.raises(SchemaError, match=r"unknown property 'nulable' .*typo\.json, field a"):
        document.load(tmp_path / "typo.json")


def test_random_schemas_come_back_in_every_form(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(40):
        versions = {1: evolutions.start(rng)}
        for number in (2, 3):
            proposal = evolutions.evolve(rng, versions[number - 1])
            versions[number] = assign(proposal, versions, replaces=True)  # no check refuses an unrelated type here
        newest = versions[3]
        for load, exported in (
            (avro.load, avro.export(newest, "t", versions)),
            (json_schema.load, json_schema.export(newest, "t")),
            (document.parse, document.export(newest)),
        ):
            assert assign(load(json.loads(json.dumps(exported))), versions, replaces=True) == newest
