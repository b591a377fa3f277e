"""A producer's rows: every kind of frame and type through both tiers, the door, dead letters, metadata."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import headwater as hw
from headwater import Producer, record
from headwater.config import Settings
from headwater.errors import (
    InvalidRecords,
    NameNotFound,
    UsageError,
)
from headwater.log import Log, seal
from headwater.schema import Field, Schema
from headwater.testing.producing import EVENTS, make_topic, read
from headwater.testing.writer import Writer
from headwater.types import arrow_type

U = uuid.UUID("6fa459ea-ee8a-3ca4-894e-db77e160355e")
NOON_UTC = dt.datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=dt.UTC)
NOON = NOON_UTC.replace(tzinfo=None)
OLD_UTC = dt.datetime(1900, 1, 1, tzinfo=dt.UTC)
INTERVAL = {"months": 14, "days": 3, "micros": 5_000_001}
TIMETZ = {"micros": 3_600_000_001, "offset": 7200}
VALUES: dict[str, list[Any]] = {
    "BOOLEAN": [True, False],
    "TINYINT": [-128, 127],
    "SMALLINT": [-32768, 32767],
    "INTEGER": [-(2**31), 2**31 - 1],
    "BIGINT": [-(2**63), 2**63 - 1],
    "UTINYINT": [0, 255],
    "USMALLINT": [0, 65535],
    "UINTEGER": [0, 2**32 - 1],
    "UBIGINT": [0, 2**64 - 1],
    "HUGEINT": [-(10**37), 10**37],
    "FLOAT": [1.5, -0.25],
    "DOUBLE": [0.1, float("inf")],
    "DECIMAL(12,2)": [Decimal("12.50"), Decimal("-9999999999.99")],
    "DECIMAL(38,10)": [Decimal("1.0000000001"), Decimal("-1")],
    "VARCHAR": ["", "ß 'quoted' \n"],
    "JSON": ['{"a": [1, null]}', "[]"],
    "BLOB": [b"", b"\x00\xff"],
    "UUID": [U, uuid.UUID(int=0)],
    "DATE": [dt.date(1, 1, 1), dt.date(9999, 12, 31)],
    "TIME": [dt.time(0), dt.time(23, 59, 59, 999999)],
    "TIMETZ": [TIMETZ, {"micros": 0, "offset": -3600}],
    "TIMESTAMP": [NOON, OLD_UTC.replace(tzinfo=None)],
    "TIMESTAMP WITH TIME ZONE": [NOON_UTC, OLD_UTC],
    "INTERVAL": [INTERVAL, {"months": 0, "days": 0, "micros": -1}],
    "BIGINT[]": [[1, None, 2], []],
    "VARCHAR[][]": [[["a"], [], None], [["b", "c"]]],
    "DECIMAL(12,2)[]": [[Decimal("1.25")], [None]],
    "UUID[]": [[U], []],
}
NAMES = {f"c{place}": kind for place, kind in enumerate(VALUES)}
WIDE = Schema.of({"id": "BIGINT", **NAMES})
ROWS = [
    {"id": row, **{name: VALUES[kind][row] if row < 2 else None for name, kind in NAMES.items()}} for row in range(3)
]


@pytest.fixture
def events(log: Log) -> Log:
    """A lake with a keyed topic of three partitions and two keyless ones of one."""
    make_topic(log, "events", EVENTS, partitions=3, record_bytes_max=1000)
    make_topic(log, "plain", Schema.of({"n": "BIGINT"}))
    make_topic(log, "other", Schema.of({"n": "BIGINT"}))
    return log


def _numbers(log: Log, topic: str = "plain") -> list[int]:
    return [row["n"] for row in read(log, topic, "n")]


# ---- frames


def _arrow(rows: list[dict[str, Any]]) -> pa.Table:
    columns = {}
    for name, kind in {"id": "BIGINT", **NAMES}.items():
        values = [row[name] for row in rows]
        if kind == "UUID[]":
            flat = pa.array([U.bytes], pa.binary(16))
            child = pa.ExtensionArray.from_storage(pa.uuid(), flat)
            columns[name] = pa.ListArray.from_arrays([0, 1, 1, 1], child, mask=pa.array([False, False, True]))
        else:
            columns[name] = pa.array(values, arrow_type(kind))
    return pa.table(columns)


def _polars(rows: list[dict[str, Any]]) -> pl.DataFrame:
    kinds: dict[str, Any] = {
        "UBIGINT": pl.UInt64,
        "HUGEINT": pl.Int128,
        "DECIMAL(12,2)": pl.Decimal(12, 2),
        "DECIMAL(38,10)": pl.Decimal(38, 10),
        "TIMESTAMP WITH TIME ZONE": pl.Datetime("us", "UTC"),
        "DECIMAL(12,2)[]": pl.List(pl.Decimal(12, 2)),
    }
    plain = {"UUID", "UUID[]"}
    columns = []
    for name, kind in {"id": "BIGINT", **NAMES}.items():
        values = [row[name] for row in rows]
        if kind in plain:
            values = [None if v is None else [str(u) for u in v] if isinstance(v, list) else str(v) for v in values]
        columns.append(pl.Series(name, values, dtype=kinds.get(kind)))
    return pl.DataFrame(columns)


def _pandas(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """As pandas people have it: objects, and nullable integers."""
    frame = pd.DataFrame({name: pd.Series([row[name] for row in rows], dtype=object) for name in rows[0]})
    frame["id"] = frame["id"].astype("int64")
    by_kind = {kind: name for name, kind in NAMES.items()}
    frame[by_kind["INTEGER"]] = frame[by_kind["INTEGER"]].astype("Int32")
    frame[by_kind["FLOAT"]] = frame[by_kind["FLOAT"]].astype("float64")
    frame[by_kind["TIMESTAMP"]] = frame[by_kind["TIMESTAMP"]].astype("datetime64[us]")
    return frame


@pytest.mark.parametrize("make", [list, _arrow, _polars, _pandas], ids=["dicts", "arrow", "polars", "pandas"])
def test_every_type_of_every_frame_reads_back_in_both_tiers(log: Log, make: Callable[[Any], Any]) -> None:
    make_topic(log, "wide", WIDE)
    with Producer(log) as producer:
        producer.send("wide", make(ROWS))
    hot = read(log, "wide", *WIDE.names)
    assert [_plain(row) for row in hot] == [_plain(row) for row in ROWS]
    assert seal.seal(log, Settings())
    assert read(log, "wide", *WIDE.names) == hot


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Timestamps of pandas and of Python compare, zones by their instant."""
    return {name: value.isoformat() if isinstance(value, dt.datetime) else value for name, value in row.items()}


def test_other_shapes_of_rows(events: Log) -> None:
    with Producer(events) as producer:
        producer.send("plain", {"n": 1})
        producer.send("plain", ({"n": n} for n in (2, 3)))
        producer.send("plain", pa.RecordBatch.from_pydict({"n": [4]}))
        producer.send("plain", pl.LazyFrame({"n": [5]}))
        producer.send("plain", pd.DataFrame({"n": [6.0, None]}))
        producer.send("plain", pa.table({"n": pa.array([7], pa.int8())}))
        producer.send("plain", pa.table({"n": pa.array([8, 8]).dictionary_encode()}).slice(1))
        producer.send("plain", pa.table({"n": pa.nulls(1)}))
        assert producer.send("plain", []).result().rows == 0
        for nothing in ("text", 5, [1, 2], [[1]]):
            with pytest.raises(UsageError):
                producer.send("plain", nothing)
    assert _numbers(events) == [1, 2, 3, 4, 5, 6, None, 7, 8, None]


def test_naive_times_are_in_the_lakes_zone(log: Log) -> None:
    log.set_setting("timezone", "Europe/Zurich")
    make_topic(log, "t", Schema.of({"at": "TIMESTAMPTZ"}))
    summer = dt.datetime(2026, 7, 1, 12, tzinfo=dt.UTC).replace(tzinfo=None)
    with Producer(log) as producer:
        producer.send("t", [{"at": summer}, {"at": summer.replace(tzinfo=dt.UTC)}])
        producer.send("t", pa.table({"at": pa.array([summer])}))
        never_shown = dt.datetime(2026, 3, 29, 2, 30, tzinfo=dt.UTC).replace(tzinfo=None)
        with pytest.raises(InvalidRecords, match="row 1, at"):
            producer.send("t", [{"at": summer}, {"at": never_shown}])
    utc = [row["at"].astimezone(dt.UTC).hour for row in read(log, "t", "at")]
    assert utc == [10, 12, 10]


# ---- the door

GOOD = {"id": 1, "name": "a"}
REFUSED: list[tuple[Any, int, str]] = [
    ([GOOD, {"id": "x", "name": "b"}], 1, "id"),
    ([GOOD, {"id": 2.5, "name": "b"}], 1, "id"),
    ([GOOD, {"id": True, "name": "b"}], 1, "id"),
    ([GOOD, GOOD, {"id": 2**63, "name": "b"}], 2, "id"),
    ([GOOD, {"id": None, "name": "b"}], 1, "id"),
    ([{"name": "b"}], 0, "id"),
    ([GOOD, {"id": 2}], 1, "name"),
    ([GOOD, {"id": 2, "name": None}], 1, "name"),
    ([GOOD, {"id": 2, "name": "b", "kind": None}], 1, "kind"),
    ([GOOD, {**GOOD, "amount": 1.5}], 1, "amount"),
    ([GOOD, {**GOOD, "amount": Decimal("1.555")}], 1, "amount"),
    ([GOOD, {**GOOD, "amount": Decimal("1e11")}], 1, "amount"),
    ([GOOD, {**GOOD, "nmae": "b"}], 1, "nmae"),
    ([GOOD, {**GOOD, "name": "x" * 1001}], 1, "name"),
    ([GOOD, {**GOOD, "name": b"\xff"}], 1, "name"),
    ([GOOD, {**GOOD, "name": "\ud800"}], 1, "name"),
    ([GOOD, {**GOOD, record.EVENT_ID: 5}], 1, record.EVENT_ID),
    ([GOOD, {**GOOD, record.HEADERS: {"a": 1}}], 1, record.HEADERS),
    ([GOOD, {**GOOD, record.OP: "c"}], 1, record.OP),
    ([GOOD, {**GOOD, record.OFFSET: 5}], 1, record.OFFSET),
    (pa.table({"id": ["1"], "name": ["a"]}), 0, "id"),
    (pa.table({"id": [1, 2], "name": ["a", None]}), 1, "name"),
    (pa.table({"id": [1, 2], "name": [b"a", b"\xc3("]}), 1, "name"),
    (pa.table({"id": [1], "nmae": ["a"], "name": ["a"]}), 0, "nmae"),
    (pl.DataFrame({"id": [1, None], "name": ["a", "b"]}), 1, "id"),
    (pl.DataFrame({"id": [1, 2], "name": ["a", "b"], "amount": [1.5, 2.5]}), 0, "amount"),
    (pd.DataFrame({"id": [1.0, 1.5], "name": ["a", "b"]}), 1, "id"),
    (pd.DataFrame({"id": [1, 2], "name": ["a", 5]}), 1, "name"),
]


def test_the_door_names_row_and_field_and_lets_nothing_in(events: Log) -> None:
    with Producer(events) as producer:
        before = events.newest_commit()
        for rows, row, field in REFUSED:
            with pytest.raises(InvalidRecords) as refused:
                producer.send("events", rows)
            first: Any = refused.value.violations[0]
            assert (first.row, first.field) == (row, field), rows
            assert f"row {row}, {field}" in str(refused.value)
        producer.flush()
        assert events.newest_commit() == before


def test_broken_utf8_inside_an_arrow_text_column_is_found(events: Log) -> None:
    octets = pa.array([b"ok", b"\xff", None])
    _, ends, data = octets.buffers()
    broken = pa.StringArray.from_buffers(3, ends, data, octets.buffers()[0])
    with Producer(events) as producer, pytest.raises(InvalidRecords, match="row 1, name: the value does not fit"):
        producer.send("events", pa.table({"id": [1, 2, 3], "name": broken}))


def test_many_violations_are_named_in_part_and_counted_in_full(events: Log) -> None:
    with Producer(events) as producer, pytest.raises(InvalidRecords) as refused:
        producer.send("events", [{"id": n, "name": "a" if n % 2 else 5} for n in range(1000)])
    assert refused.value.count == 500
    assert [each.row for each in refused.value.violations] == list(range(0, 20, 2))  # type: ignore[attr-defined]
    assert "490 more" in str(refused.value)


def test_what_is_left_out_gets_its_default(events: Log) -> None:
    with Producer(events) as producer:
        producer.send("events", [{"id": 1, "name": "a"}, {"id": 2, "name": "b", "kind": "shop"}])
        producer.send("events", pa.table({"id": [3], "name": ["c"]}))
    assert {row["id"]: (row["kind"], row["amount"]) for row in read(events, "events")} == {
        1: ("web", None),
        2: ("shop", None),
        3: ("web", None),
    }


def test_schema_versions_that_rows_were_made_for(events: Log) -> None:
    renamed = Schema(
        fields=(
            *(
                f if f.name != "name" else Field(id=2, name="title", type="VARCHAR", nullable=False)
                for f in EVENTS.fields
            ),
            Field(id=5, name="more", type="BIGINT", null_default=True),
        ),
        key=("id",),
    )
    with Writer(events, "system:test").transaction() as tx:
        tx.add_schema("events", renamed)
        tx.commit()
    with Producer(events) as producer:
        producer.send("events", GOOD, schema_version=1)
        with pytest.raises(InvalidRecords, match="name"):
            producer.send("events", GOOD)
        with pytest.raises(InvalidRecords, match="no schema version 3"):
            producer.send("events", GOOD, schema_version=3)
    assert [(row["title"], row["more"]) for row in read(events, "events")] == [("a", None)]


def test_a_schema_that_changes_between_acceptance_and_commit(events: Log) -> None:
    with Producer(events, linger_ms=60_000) as producer:
        accepted = producer.send("plain", {"n": 1})
        with Writer(events, "system:test").transaction() as tx:
            fields = (
                Field(id=1, name="number", type="BIGINT"),
                Field(id=2, name="m", type="BIGINT", null_default=True),
            )
            tx.add_schema("plain", Schema(fields=fields))
            tx.commit()
        assert accepted.result(10).rows == 1
    assert [row["number"] for row in read(events, "plain")] == [1]


def test_only_topics_of_ones_own(log: Log) -> None:
    Writer(log).create("shop.public.t", "table", Schema.of({"a": "BIGINT"}, key=["a"]))
    with Producer(log) as producer:
        with pytest.raises(UsageError, match="written by source shop"):
            producer.send("shop.public.t", {"a": 1})
        with pytest.raises(NameNotFound):
            producer.send("nothing", {"a": 1})


def test_a_keyed_table_is_changed_by_operations(log: Log) -> None:
    make_topic(log, "stock", Schema.of({"sku": "VARCHAR", "n": "BIGINT"}, key=["sku"]), kind="table")
    with Producer(log) as producer:
        producer.send("stock", [{"sku": "a", "n": 1}, {"sku": "b", "n": 1}])
        producer.send("stock", [{"sku": "a", "n": 2, "_op": "u"}, {"sku": "b", "_op": "d"}])
        with pytest.raises(InvalidRecords, match=r"row 1, _op: 't' is not one of c, u, d"):
            producer.send("stock", [{"sku": "a", "_op": "u"}, {"sku": "c", "_op": "t"}])
    with hw.open(log.folder) as lake:
        assert lake.sql("SELECT * FROM stock").fetchall() == [("a", 2)]


def test_tombstones_of_a_compacted_topic_need_no_values(log: Log) -> None:
    required = Schema(
        fields=(Field(id=1, name="k", type="BIGINT"), Field(id=2, name="v", type="VARCHAR", nullable=False)), key=("k",)
    )
    make_topic(log, "kept", required, cleanup="compact")
    make_topic(log, "all", required)
    with Producer(log) as producer:
        assert producer.send("kept", [{"k": 1, "v": "a"}, {"k": 1, "v": None}]).result().rows == 2
        with pytest.raises(InvalidRecords, match="row 1, v is missing"):
            producer.send("all", [{"k": 1, "v": "a"}, {"k": 1, "v": None}])


def test_originals_keep_what_was_given_beside_the_row(events: Log) -> None:
    at = {"event_at": NOON_UTC, "headers": {"k": "v"}}
    with Producer(events, on_error="dead_letter") as producer:
        producer.send("plain", {"n": "x"}, event_id="e1", **at)  # type: ignore[arg-type]
        producer.send("plain", pa.table({"n": ["x"]}), event_id=["e2"], **at)  # type: ignore[arg-type]
    one, two = read(events, "plain.dlq")
    assert one["original"] == b'{"n": "x", "_event_id": "e1", "_event_at": "2026-03-01 12:00:00.123456+00:00"}'
    assert pa.ipc.open_stream(two["original"]).read_all().to_pylist() == [
        {"n": "x", "_event_id": "e2", "_event_at": NOON_UTC}
    ]
    assert ("k", "v") in two["_headers"]


def test_bad_rows_go_to_the_dead_letters_in_the_commit_of_the_good_ones(events: Log) -> None:
    rows = [GOOD, {"id": "x", "name": "b"}, {"id": 3, "name": "c", "zz": 1}, {"id": 4, "name": "d"}]
    with Producer(events, on_error="dead_letter") as producer:
        receipt = producer.send("events", rows, headers={"from": "test"}).result()
        table = pa.table({"id": [7, None], "name": ["g", "h"]})
        producer.send("events", table)
        assert (receipt.rows, receipt.dead_letters) == (2, 2)
        assert producer.send("events", [{"name": "alone"}]).result().dead_letters == 1
        assert producer.counters().dead_letters == 4
    assert sorted(row["id"] for row in read(events, "events")) == [1, 4, 7]
    letters = read(events, "events.dlq")
    assert [(each["error_field"], each["_commit"]) for each in letters[:2]] == [
        ("id", receipt.commit),
        ("zz", receipt.commit),
    ]
    assert letters[0]["original"] == b'{"id": "x", "name": "b"}'
    assert ("from", "test") in letters[0]["_headers"]
    assert pa.ipc.open_stream(letters[2]["original"]).read_all() == table.slice(1)
    assert [each["format"] for each in letters] == ["json", "json", "arrow", "json"]


# ---- metadata


def test_metadata_as_arguments_and_as_columns(events: Log) -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    with Producer(events) as producer:
        producer.send("plain", {"n": 1}, event_id="e1", event_at=NOON_UTC, headers={"k": "v"}, traceparent=trace)
        producer.send("plain", [{"n": 2, "_event_id": "e2", "_event_at": NOON_UTC, "_headers": {"k": "w"}}, {"n": 3}])
        headers = pl.Series([[{"key": "k", "value": "x"}]])
        producer.send("plain", pl.DataFrame({"n": [4], "_headers": headers}), event_id=["e4"], event_at=[NOON_UTC])
        for wrong in ({"event_id": ["a", "b"]}, {"traceparent": "nonsense"}):
            with pytest.raises(UsageError):
                producer.send("plain", {"n": 9}, **wrong)
        with pytest.raises(UsageError, match="both a column"):
            producer.send("plain", {"n": 9, "_event_id": "a"}, event_id="b")
    rows = read(events, "plain")
    assert [row["_event_id"] for row in rows] == ["e1", "e2", None, "e4"]
    assert [row["_event_at"] for row in rows] == [NOON_UTC, NOON_UTC, None, NOON_UTC]
    assert [row["_headers"] for row in rows] == [
        [("k", "v"), ("traceparent", trace)],
        [("k", "w")],
        None,
        [("k", "x")],
    ]


def test_commits_say_who_and_from_where(events: Log) -> None:
    with Producer(events, "billing", principal="ann") as producer:
        number = producer.send("plain", {"n": 1}).result().commit
    with events.catalog.read() as connection:
        sql = 'SELECT producer, principal, client FROM "commit" WHERE number = ?'
        row = connection.exec_driver_sql(sql, (number,)).one()
    assert (row.producer, row.principal) == ("producer:billing", "ann")
    assert row.client.startswith("pid ")
