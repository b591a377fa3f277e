"""Every accepted schema version reads everything that was ever written, hot and sealed, as records and as rows."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from headwater import default, types
from headwater.catalog.records import TopicSettings
from headwater.config import Settings
from headwater.lake import open_lake
from headwater.log import Log, base, seal, subjects
from headwater.registry import MODES, Mode, Proposal
from headwater.schema import Field, Schema
from headwater.testing import evolutions
from headwater.testing.writer import Writer

TOPIC = "shop.public.t"
EVENTS = "app.events"
PROPOSALS = int(os.environ.get("HEADWATER_EVOLUTIONS") or 10_000)
"""Random proposals of the long test, for each mode; some ten minutes a mode, so that fewer can be asked for."""
naive = datetime.fromisoformat


def create(log: Log, schema: Schema, mode: Mode = "BACKWARD_TRANSITIVE", name: str = EVENTS) -> Writer:
    writer = Writer(log, "producer:test")
    with writer.transaction() as tx:
        tx.create_topic(name, "event", schema, settings=TopicSettings(compatibility=mode))
        tx.commit()
    return writer


def register(log: Log, *fields: Field, name: str = EVENTS, **renames: str) -> subjects.Version:
    return subjects.register(log, log.topic(name), Proposal(fields=fields, renames=renames))


def column(name: str, kind: str, **values: Any) -> Field:
    return Field(id=0, name=name, type=kind, **values)


PROMOTED: list[tuple[str, str, list[Any], list[Any]]] = [
    ("TINYINT", "BIGINT", [-128, 127, None], [-128, 127, None]),
    ("SMALLINT", "INTEGER", [-(2**15)], [-(2**15)]),
    ("INTEGER", "BIGINT", [2**31 - 1, None], [2**31 - 1, None]),
    ("UTINYINT", "UINTEGER", [255], [255]),
    ("FLOAT", "DOUBLE", [0.1, float("inf"), None], [0.10000000149011612, float("inf"), None]),
    ("DECIMAL(4,2)", "DECIMAL(38,2)", [Decimal("-99.99")], [Decimal("-99.99")]),
    ("DATE", "TIMESTAMP", [date(2024, 2, 29), None], [naive("2024-02-29"), None]),
    ("INTEGER[]", "BIGINT[]", [[1, None], [], None], [[1, None], [], None]),
    ("DATE[]", "TIMESTAMP[]", [[date(1, 1, 1), None]], [[naive("0001-01-01"), None]]),
]


@pytest.mark.parametrize(("old", "new", "given", "expected"), PROMOTED, ids=[f"{p[0]} to {p[1]}" for p in PROMOTED])
def test_a_promoted_type_reads_every_old_value(
    log: Log, old: str, new: str, given: list[Any], expected: list[Any]
) -> None:
    writer = create(log, Schema.of(v=old))
    writer.write(EVENTS, pa.table({"v": pa.array(given, types.arrow_type(old))}))
    register(log, column("v", new))
    for read in both_tiers(log):
        assert read("SELECT v FROM events ORDER BY _offset", log_rows=True) == [(value,) for value in expected]
    assert log.read_changes(EVENTS, 0, log.newest_commit()).schema.field("v").type == types.arrow_type(new)


def both_tiers(log: Log) -> list[Callable[..., list[tuple[Any, ...]]]]:
    """Readers that run a query before and after sealing; the second one seals."""

    def ask(query: str, *, log_rows: bool = False) -> list[tuple[Any, ...]]:
        with open_lake(log.folder) as lake:
            return lake.sql(query.replace("FROM events", f'FROM log."{EVENTS}"') if log_rows else query).fetchall()

    def sealed(query: str, *, log_rows: bool = False) -> list[tuple[Any, ...]]:
        seal.seal(log, Settings())
        return ask(query, log_rows=log_rows)

    return [ask, sealed]


def test_dates_beyond_timestamps_sort_where_they_did(log: Log) -> None:
    writer = create(log, Schema.of(v="DATE"))
    days = [2**31 - 1, -(2**31) + 1, 10**8, 10**9, -(10**9), 0]
    writer.write(EVENTS, pa.table({"v": pa.array(days, pa.int32()).cast(pa.date32())}))
    register(log, column("v", "TIMESTAMP"))
    for read in both_tiers(log):
        found = read("SELECT CAST(v AS VARCHAR) FROM events ORDER BY _offset", log_rows=True)
        assert found == [
            ("infinity",), ("-infinity",), ("infinity" if days[2] > 106_751_991 else found[2][0],),
            ("infinity",), ("-infinity",), ("1970-01-01 00:00:00",),
        ]  # fmt: skip


DEFAULTS: list[tuple[str, str, Any]] = [
    ("BOOLEAN", "true", True),
    ("TINYINT", "-5", -5),
    ("UBIGINT", "18446744073709551615", 18446744073709551615),
    ("HUGEINT", "99999999999999999999", 99999999999999999999),
    ("FLOAT", "0.5", 0.5),
    ("DOUBLE", "1e300", 1e300),
    ("DECIMAL(8,2)", "1.5", Decimal("1.50")),
    ("VARCHAR", "it's", "it's"),
    ("VARCHAR", "", ""),
    ("JSON", '{"a": [1]}', '{"a": [1]}'),
    ("BLOB", "00ff", b"\x00\xff"),
    ("DATE", "2024-02-29", date(2024, 2, 29)),
    ("TIMESTAMP", "2024-02-29 10:00:00.000001", naive("2024-02-29 10:00:00.000001")),
    ("TIMESTAMP WITH TIME ZONE", "2024-02-29 10:00:00+02", naive("2024-02-29 08:00:00+00:00")),
    ("INTEGER[]", "[1, NULL]", [1, None]),
    ("VARCHAR[]", "['a, b', c]", ["a, b", "c"]),
    ("BLOB[]", "[00, ff]", [b"\x00", b"\xff"]),
]
TEXTS = [
    ("UUID", "6fa459ea-ee8a-3ca4-894e-db77e160355e", "6fa459ea-ee8a-3ca4-894e-db77e160355e"),
    ("TIME", "10:00", "10:00:00"),
    ("TIMETZ", "10:00:00+02", "10:00:00+02"),
    ("INTERVAL", "1 month 2 days 00:00:03", "1 month 2 days 00:00:03"),
    ("DATE", "infinity", "infinity"),
    ("TIMESTAMP", "-infinity", "-infinity"),
]
"""Types whose values have no Python counterpart: compared as DuckDB's text."""


def test_a_default_fills_older_records_of_every_type_in_both_tiers(log: Log) -> None:
    writer = create(log, Schema.of(id="BIGINT"))
    writer.write(EVENTS, pa.table({"id": [1, 2]}))
    added = [column(f"c{n}", kind, write_default=text) for n, (kind, text, _) in enumerate(DEFAULTS)]
    shown = [column(f"t{n}", kind, write_default=text) for n, (kind, text, _) in enumerate(TEXTS)]
    register(log, column("id", "BIGINT"), *added, *shown, column("nothing", "INTEGER", null_default=True))
    writer.write(EVENTS, pa.table({"id": [3]}))  # left out: the same defaults, written by the door
    casts = ", ".join(f"CAST({field.name} AS VARCHAR)" for field in shown)
    expected = (*(value for _, _, value in DEFAULTS), *(text for _, _, text in TEXTS), None)
    for read in both_tiers(log):
        found = read(f"SELECT {', '.join(f.name for f in added)}, {casts}, nothing FROM app.events")
        assert found == [expected] * 3
    assert types.canonical("HUGEINT") in {kind for kind, _, _ in DEFAULTS}


def test_every_type_has_a_tested_default() -> None:
    tested = {kind.removesuffix("[]") for kind, *_ in (*DEFAULTS, *TEXTS)}
    missing = {kind for kind in types._ARROW if kind not in tested}
    assert missing == {"SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"} - tested


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("INTEGER", "1.5"),
        ("DECIMAL(4,2)", "0.005"),
        ("BLOB", "0g"),
        ("TIMESTAMP", "2024-01-01 00:00:00+02"),
        ("UUID", "x"),
    ],
)
def test_a_default_that_is_no_value_of_its_type_is_none(kind: str, text: str) -> None:
    from headwater.errors import SchemaError

    with pytest.raises(SchemaError, match="the default"):
        default.value(text, kind)


def test_renamed_reordered_dropped_and_added_again(log: Log) -> None:
    writer = create(log, Schema.of(a="INTEGER", b="VARCHAR", c="DOUBLE"), "BACKWARD")
    writer.write(EVENTS, pa.table({"a": pa.array([1], pa.int32()), "b": ["old"], "c": [1.5]}))
    first = log.newest_commit()
    register(log, column("c", "DOUBLE"), column("title", "VARCHAR"), title="b")
    writer.write(EVENTS, pa.table({"c": [2.5], "title": ["new"]}))
    register(log, column("c", "DOUBLE"), column("title", "VARCHAR"), column("a", "VARCHAR", null_default=True),
             column("b", "INTEGER", write_default="7"))  # fmt: skip
    assert [field.id for field in log.topic(EVENTS).schema.fields] == [3, 2, 4, 5]
    writer.write(EVENTS, pa.table({"c": [3.5], "title": ["newest"], "a": ["x"], "b": pa.array([8], pa.int32())}))
    for read in both_tiers(log):
        assert read("SELECT * FROM app.events ORDER BY c") == [
            (1.5, "old", None, 7), (2.5, "new", None, 7), (3.5, "newest", "x", 8),
        ]  # fmt: skip
    with open_lake(log.folder) as lake:
        assert lake.sql("SELECT * FROM app.events", at=first).fetchall() == [(1, "old", 1.5)]


@pytest.mark.parametrize("sealed", [False, True])
def test_metadata_by_column_name_follows_the_field(log: Log, writer: Writer, sealed: bool) -> None:
    """``_unchanged``, ``_raw`` and ``_before`` of older records name columns as they were called then."""
    v1 = Schema.of({"id": "BIGINT", "body": "VARCHAR", "n": "INTEGER", "gone": "VARCHAR"}, key=["id"])
    writer.create(TOPIC, "table", v1)
    columns = {"id": [1], "body": ["long"], "n": pa.array([1], pa.int32()), "gone": ["g"], "_op": ["c"]}
    writer.write(TOPIC, pa.table(columns))
    if sealed:
        seal.seal(log, Settings())
    before = pa.array([{"n": 1, "gone": "g"}], pa.struct([("n", pa.int32()), ("gone", pa.string())]))
    update = {
        "id": [1], "body": pa.nulls(1, pa.string()), "n": pa.array([2], pa.int32()), "gone": pa.nulls(1, pa.string()),
        "_op": ["u"], "_unchanged": [["body", "gone"]], "_before": before,
        "_raw": pa.array([[("n", "2.0"), ("gone", "?")]], pa.map_(pa.string(), pa.string())),
    }  # fmt: skip
    writer.write(TOPIC, pa.table(update))
    v2 = Schema(
        fields=(
            Field(id=1, name="id", type="BIGINT"),
            Field(id=2, name="gone", type="VARCHAR"),  # a new name for body, and an old one of another field
            Field(id=3, name="n", type="BIGINT"),
            Field(id=5, name="extra", type="VARCHAR", initial_default="-"),
        ),
        key=("id",),
    )
    with writer.transaction() as tx:
        tx.add_schema(TOPIC, v2)
        tx.commit()
    if sealed:
        seal.seal(log, Settings())
    with open_lake(log.folder) as lake:
        assert lake.sql("SELECT * FROM t").fetchall() == [(1, "long", 2, "-")]
        versions = lake.sql("SELECT gone, n FROM history.t ORDER BY _offset").fetchall()
        assert versions == [("long", 1), ("long", 2)]
    rows = log.read_changes(TOPIC, 0, log.newest_commit()).to_pylist()
    assert rows[0]["_before"] is None
    assert rows[1]["_before"] == {"id": None, "gone": None, "n": 1, "extra": None}
    assert rows[1]["_unchanged"] == ["gone"]
    assert rows[1]["_raw"] == [("n", "2.0")]


def test_current_rows_fold_over_versions_and_an_older_base(log: Log) -> None:
    """A base of version 1, sealed and hot changes of versions 1 to 3: one row a key, in the newest shape."""
    writer = Writer(log, "producer:test")
    v1 = Schema.of({"id": "INTEGER", "n": "INTEGER", "gone": "VARCHAR"}, key=["id"])
    with writer.transaction() as tx:
        tx.create_topic(TOPIC, "table", v1, settings=TopicSettings(compatibility="BACKWARD"))
        tx.commit()

    def write(op: str, row_id: int, kind: pa.DataType, **values: Any) -> None:
        columns = {name: pa.array([value], kind if name == "n" else None) for name, value in values.items()}
        writer.write(TOPIC, pa.table({"id": pa.array([row_id], kind), **columns, "_op": [op]}))

    for row_id in (1, 2, 3):
        write("c", row_id, pa.int32(), n=row_id, gone="x")
    base.write(log, log.topic(TOPIC), log.newest_commit(), Settings())
    write("u", 2, pa.int32(), n=20, gone="y")
    register(log, column("id", "BIGINT"), column("m", "BIGINT"), column("day", "DATE", write_default="2024-02-29"),
             name=TOPIC, m="n")  # fmt: skip
    seal.seal(log, Settings())
    writer.write(TOPIC, pa.table({"id": [2**40], "m": [4], "day": pa.array([0], pa.date32()), "_op": ["c"]}))
    register(log, column("m", "BIGINT"), column("id", "BIGINT"), column("day", "TIMESTAMP"),
             column("gone", "INTEGER", null_default=True), name=TOPIC)  # fmt: skip
    moment = pa.array([naive("2024-01-01 12:00:00")], pa.timestamp("us"))
    writer.write(
        TOPIC, pa.table({"m": [30], "id": [3], "day": moment, "gone": pa.array([9], pa.int32()), "_op": ["u"]})
    )
    leap = naive("2024-02-29")
    for read in both_tiers(log):
        assert read("SELECT * FROM t ORDER BY id") == [
            (1, 1, leap, None), (20, 2, leap, None), (30, 3, naive("2024-01-01 12:00:00"), 9),
            (4, 2**40, naive("1970-01-01"), None),
        ]  # fmt: skip
        assert read("SELECT count(*), sum(m) FROM history.t") == [(6, 1 + 2 + 3 + 20 + 4 + 30)]
    base.write(log, log.topic(TOPIC), log.newest_commit(), Settings())
    with open_lake(log.folder) as lake:
        assert lake.sql("SELECT sum(m) FROM t").scalar() == 55


def test_two_versions_in_one_transaction_each_keep_their_records(log: Log, writer: Writer) -> None:
    writer.create(TOPIC, "insert_only", Schema.of(a="INTEGER"))
    v2 = Schema(fields=(Field(id=1, name="a", type="INTEGER"), Field(id=2, name="b", type="INTEGER")))
    v3 = Schema(fields=(Field(id=2, name="b", type="INTEGER"),))
    one = pa.array([1], pa.int32())
    with writer.transaction() as tx:
        tx.append(TOPIC, pa.table({"a": one, "_op": ["c"]}))
        tx.add_schema(TOPIC, v2)
        tx.append(TOPIC, pa.table({"a": one, "b": one, "_op": ["c"]}))
        tx.add_schema(TOPIC, v3)
        tx.append(TOPIC, pa.table({"b": one, "_op": ["c"]}))
        tx.commit()
    assert sorted(log.schemas(log.topic(TOPIC))) == [1, 2, 3]
    assert log.read_changes(TOPIC, 0, log.newest_commit())["b"].to_pylist() == [None, 1, 1]


def test_a_narrowed_type_is_checked_at_the_door_and_old_records_stay_readable(log: Log) -> None:
    from headwater.errors import SchemaError

    writer = create(log, Schema.of(n="BIGINT", day="TIMESTAMP"), "FORWARD_TRANSITIVE")
    moment = pa.array([naive("2024-02-29 12:00:00")], pa.timestamp("us"))
    writer.write(EVENTS, pa.table({"n": [2**40], "day": moment}))
    register(log, column("n", "SMALLINT"), column("day", "DATE"))
    with pytest.raises(SchemaError, match="'n' holds"):
        writer.write(EVENTS, pa.table({"n": [2**20], "day": pa.array([0], pa.date32())}))
    writer.write(EVENTS, pa.table({"n": [5], "day": pa.array([0], pa.date32())}))
    for read in both_tiers(log):
        assert read("SELECT n, day FROM app.events ORDER BY n DESC") == [
            (2**40, naive("2024-02-29 12:00:00")), (5, naive("1970-01-01")),
        ]  # fmt: skip


def value_at(record: dict[int, Any], field: Field, initial: dict[int, Any]) -> Any:
    """What the newest version reads of a record, by the model."""
    if field.id in record:
        return evolutions.as_read(record[field.id], field.type)
    return evolutions.as_read(initial.get(field.id), field.type)


def evolve_and_read(log: Log, mode: Mode, rng: random.Random, proposals: int, topic: str) -> int:
    """One topic through so many proposals; after each accepted one all records are read. Returns how many were.

    Hot right after the change, and in the end sealed at every position at which a version came into force.
    """
    schema = evolutions.start(rng)
    writer = create(log, schema, mode, topic)
    records: list[dict[int, Any]] = []
    initial: dict[int, Any] = {}
    states: list[tuple[int, Schema, int]] = []
    written: Schema | None = None
    for _ in range(proposals):
        if written != schema:  # a record of every version
            records.append(row := evolutions.random_row(rng, schema, len(records)))
            data = {f.name: pa.array([row[f.id]], types.arrow_type(f.declared_type)) for f in schema.fields}
            writer.write(topic, pa.table(data))
            written = schema
        answer = subjects.propose(log, log.topic(topic), evolutions.evolve(rng, schema))
        if answer.violations or not answer.changes:
            continue
        new = subjects.register(log, log.topic(topic), proposal_of(answer.schema)).schema
        assert new == answer.schema
        initial |= {f.id: default_of(f) for f in new.fields if schema.by_id(f.id) is None}
        schema = new
        states.append((log.newest_commit(), schema, len(records)))
        expect(log, topic, schema, records, initial)
    seal.seal(log, Settings())
    with open_lake(log.folder) as lake:
        for commit, version, count in states:
            rows = lake.sql(f"SELECT * FROM {topic} ORDER BY k", at=commit).fetchall()
            expected = [tuple(value_at(each, f, initial) for f in version.fields) for each in records[:count]]
            assert rows == expected, (version, expected, rows)
    expect(log, topic, schema, records, initial)
    return len(states)


def proposal_of(schema: Schema) -> Proposal:
    """The version again, by ids."""
    fields = (replace(field, type=field.declared_type, write_type="") for field in schema.fields)
    return Proposal(fields=tuple(fields), key=schema.key)


def default_of(field: Field) -> Any:
    return None if field.initial_default is None else evolutions.default_value(field.declared_type)


def expect(log: Log, topic: str, schema: Schema, records: list[dict[int, Any]], initial: dict[int, Any]) -> None:
    rows = log.read_changes(topic, 0, log.newest_commit(), schema.names)
    for field in schema.fields:
        expected = [value_at(each, field, initial) for each in records]
        assert rows[field.name].to_pylist() == expected, (field, expected)


@pytest.mark.parametrize("mode", MODES)
def test_accepted_evolutions_read_all_old_files(make_log: Callable[[], Log], mode: Mode, seed: int) -> None:
    print(f"seed: {seed}")
    rng, log, accepted, topic = random.Random(seed), make_log(), 0, 0
    while accepted < 3:
        accepted += evolve_and_read(log, mode, rng, 5, f"app.t{topic}")
        topic += 1


@pytest.mark.long
@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("mode", MODES)
def test_ten_thousand_evolutions_read_all_old_files(make_log: Callable[[], Log], mode: Mode, seed: int) -> None:
    print(f"seed: {seed}")
    rng, accepted = random.Random(seed), 0
    for _ in range(max(1, PROPOSALS // 200)):
        log = make_log()
        accepted += sum(evolve_and_read(log, mode, rng, 10, f"app.t{n}") for n in range(20))
    assert accepted > PROPOSALS // 10
