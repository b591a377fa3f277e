"""Dead letters: bytes and reasons kept, indexed with the commit that holds them, redriven once or discarded."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import select

from headwater.catalog import tables
from headwater.errors import SchemaError
from headwater.log import Log, dead_letters
from headwater.schema import Schema
from headwater.testing.writer import Writer

TOPIC = "shop.events.clicks"
DLQ = f"{TOPIC}.dlq"
CLICKS = Schema.of({"user": "BIGINT", "page": "VARCHAR"}, key=["user"])


def letters(*originals: bytes, **more: Any) -> pa.Table:
    rows = [{"original": each, "format": "json", "error_class": "SchemaError", **more} for each in originals]
    return pa.Table.from_pylist(rows)


def index(log: Log) -> list[dict[str, Any]]:
    with log.catalog.read() as connection:
        rows = connection.execute(select(tables.dead_letter).order_by(tables.dead_letter.c.id))
        return [dict(row._mapping) for row in rows]


@pytest.fixture
def clicks(writer: Writer) -> Writer:
    writer.create(TOPIC, "event", CLICKS, partitions=2)
    return writer


def test_letters_and_their_index_come_with_the_commit(log: Log, clicks: Writer) -> None:
    with clicks.transaction() as tx:
        dead_letters.append(tx, TOPIC, letters(b'{"user": "x"}', b"\xff", error_field="user"))
        dead_letters.append(tx, TOPIC, letters(b"{}", group="billing", partition=1, offset=7, delivery_count=3))
        commit = tx.commit().number
    kept = log.read_changes(DLQ, 0, commit)
    assert kept["original"].to_pylist() == [b'{"user": "x"}', b"\xff", b"{}"]
    assert kept["delivery_count"].to_pylist() == [1, 1, 3]
    assert [row["offset"] for row in index(log)] == kept["_offset"].to_pylist() == [0, 1, 2]
    assert [row["cause"] for row in index(log)] == ["SchemaError at user", "SchemaError at user", "SchemaError"]
    assert {row["state"] for row in index(log)} == {"open"}
    assert {row["topic"] for row in index(log)} == {log.topic(TOPIC).id}


def test_headers_hold_the_records_own_and_the_names_of_kip_1191(log: Log, clicks: Writer) -> None:
    own = pa.array([[("trace", "a"), ("__dlq.errors.topic", "forged")]], pa.map_(pa.string(), pa.string()))
    rows = letters(b"{}", group="g", partition=1, offset=7, error_message="no", delivery_count=2, schema_version=3)
    with clicks.transaction() as tx:
        dead_letters.append(tx, TOPIC, rows.append_column("headers", own))
        commit = tx.commit()
    headers = dict(log.read_changes(DLQ, 0, commit.number)["_headers"].to_pylist()[0])
    times = {headers.pop(f"__dlq.errors.{which}.failure.ts") for which in ("first", "last")}
    assert len(times) == 1
    assert min(times).endswith("Z")
    assert headers == {
        "trace": "a",
        "__dlq.errors.topic": TOPIC,
        "__dlq.errors.partition": "1",
        "__dlq.errors.offset": "7",
        "__dlq.errors.group": "g",
        "__dlq.errors.delivery.count": "2",
        "__dlq.errors.message": "no",
        "__dlq.errors.exception.class": "SchemaError",
        "__dlq.errors.schema.id": "3",
    }


def test_two_writers_that_race_to_create_the_topic_both_succeed(log: Log, clicks: Writer) -> None:
    other = Writer(log, "producer:other")
    with clicks.transaction() as first, other.transaction() as second:
        dead_letters.append(first, TOPIC, letters(b"1", b"2"))
        dead_letters.append(second, TOPIC, letters(b"3"))
        second.commit()
        newest = first.commit().number
    assert log.read_changes(DLQ, 0, newest)["original"].to_pylist() == [b"3", b"1", b"2"]
    assert [row["offset"] for row in index(log)] == [0, 1, 2]
    assert [topic.name for topic in log.topics()] == [TOPIC, DLQ]


def test_nothing_is_left_of_letters_that_were_not_committed(log: Log, clicks: Writer) -> None:
    with clicks.transaction() as tx:
        dead_letters.append(tx, TOPIC, letters(b"1"))
    assert index(log) == []
    assert [topic.name for topic in log.topics()] == [TOPIC]


def test_what_is_no_letter_is_refused(log: Log, clicks: Writer) -> None:
    with clicks.transaction() as tx:
        with pytest.raises(SchemaError, match="needs error_class"):
            dead_letters.append(tx, TOPIC, letters(b"1").drop_columns(["error_class"]))
        with pytest.raises(SchemaError, match="no column 'why'"):
            dead_letters.append(tx, TOPIC, letters(b"1", why="x"))
        with pytest.raises(SchemaError, match="dead letters itself"):
            dead_letters.append(tx, DLQ, letters(b"1"))
        dead_letters.append(tx, "nowhere", letters(b"1"))
        with pytest.raises(SchemaError, match="nowhere does not exist"):
            tx.commit()
    assert index(log) == []
