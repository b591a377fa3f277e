"""Dead letters: bytes and reasons kept, indexed with the commit that holds them, redriven once or discarded."""

from __future__ import annotations

import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import select

from headwater import failpoint
from headwater.catalog import tables
from headwater.client.letters import DeadLetters, Redriven, decoded
from headwater.config import Settings
from headwater.errors import NameNotFound, SchemaError, UsageError
from headwater.lake import Lake, open_lake
from headwater.log import Log, dead_letters, incidents, merge, retention, seal
from headwater.log.system import transaction
from headwater.log.verify import verify
from headwater.schema import Field, Schema
from headwater.testing.forks import FORKS
from headwater.testing.writer import Writer

TOPIC = "shop.events.clicks"
DLQ = f"{TOPIC}.dlq"
OWN = pa.map_(pa.string(), pa.string())
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


# ---- given back, or given up


EVENTS = {"user": "BIGINT", "page": "VARCHAR"}


@pytest.fixture
def lake(log: Log) -> Lake:
    lake = Lake(log)
    lake.create_topic("clicks", EVENTS, key=["user"], partitions=2)
    return lake


def refuse(lake: Lake, *rows: dict[str, Any]) -> None:
    """Send rows, the bad ones of which become dead letters."""
    with lake.producer(on_error="dead_letter") as producer:
        producer.send("clicks", list(rows)).result(timeout=20)


def widen(log: Log) -> None:
    """What made the rows bad goes: ``page`` may be longer now, and ``extra`` is a column."""
    schema = log.topic("clicks").schema
    with transaction(log, "system:test") as tx:
        extra = Field(id=9, name="extra", type="VARCHAR", null_default=True)
        tx.add_schema("clicks", replace(schema, fields=(*schema.fields, extra)))
        tx.commit()


def test_redrive_writes_what_may_enter_now_and_counts_what_may_not(lake: Lake) -> None:
    refuse(lake, {"user": 1, "page": "a"}, {"user": 2, "page": "b", "extra": "x"}, {"user": "no", "page": "c"})
    widen(lake.log)
    assert lake.dlq.redrive("clicks") == Redriven(redriven=1, failed=1)
    assert sorted(lake.sql("SELECT user, page, extra FROM clicks").fetchall()) == [(1, "a", None), (2, "b", "x")]
    (still,) = lake.dlq.letters("clicks").to_pylist()
    assert (still["delivery_count"], still["error_field"], still["original"]) == (
        2,
        "user",
        b'{"user": "no", "page": "c"}',
    )
    assert "'no' does not fit BIGINT" in still["error_message"]
    assert still["first_failure_at"] < still["last_failure_at"]
    assert lake.dlq.redrive("clicks") == Redriven(redriven=0, failed=1)
    assert lake.dlq.show(still["id"])["delivery_count"] == 3
    causes = {cause.cause: (cause.open, cause.redriven, cause.discarded) for cause in lake.dlq.causes("clicks")}
    assert causes == {"InvalidRecords at extra": (0, 1, 0), "InvalidRecords at user": (1, 0, 0)}
    topics = {topic["name"]: topic["dead_letters"] for topic in lake.status()["topics"]}
    assert topics == {"clicks": {"open": 1, "total": 2}, "clicks.dlq": {"open": 0, "total": 0}}
    assert verify(lake.log, deep=True).findings == ()


def test_redrive_keeps_the_records_own_headers_and_every_form(lake: Lake) -> None:
    own = pa.array([[("trace", "t1")]], pa.map_(pa.string(), pa.string()))
    table = pa.table({"user": [1], "page": ["p"], "extra": ["e"]}).append_column("_headers", own)
    with lake.producer(on_error="dead_letter") as producer:
        producer.send("clicks", table).result(timeout=20)
    with transaction(lake.log, "system:test") as tx:
        dead_letters.append(tx, "clicks", letters(b"no json", b"[1]"))
        dead_letters.append(tx, "clicks", letters(b"\xff\xfe").set_column(1, "format", [["bytes"]]))
        tx.commit()
    widen(lake.log)
    assert lake.dlq.redrive("clicks") == Redriven(redriven=1, failed=3)
    (row,) = lake.log.read_changes("clicks", 0, lake.position()).to_pylist()
    assert (row["extra"], row["_headers"]) == ("e", [("trace", "t1")])
    left = lake.dlq.letters("clicks").to_pylist()
    assert {letter["error_class"] for letter in left} == {"Unreadable"}
    assert [decoded(letter) for letter in left] == ["6e6f206a736f6e", [1], "fffe"]


def test_a_record_that_a_group_gave_up_is_written_again(lake: Lake) -> None:
    refuse(lake, {"user": 7, "page": "a"})
    record = lake.log.read_changes("clicks", 0, lake.position())
    place = record.to_pylist()[0]
    sink = pa.BufferOutputStream()
    kept = record.drop_columns(["_offset", "_partition", "_commit", "_ingested_at"])
    with pa.ipc.new_stream(sink, kept.schema) as stream:
        stream.write_table(kept)
    letter = letters(sink.getvalue().to_pybytes(), group="g", partition=place["_partition"], offset=place["_offset"])
    with transaction(lake.log, "system:test") as tx:
        dead_letters.append(tx, "clicks", letter.set_column(1, "format", [["arrow"]]))
        tx.commit()
    assert lake.dlq.redrive("clicks") == Redriven(redriven=1, failed=0)
    assert lake.sql("SELECT * FROM clicks").fetchall() == [(7, "a"), (7, "a")]


def test_two_who_redrive_at_once_write_each_record_once(lake: Lake) -> None:
    refuse(lake, *({"user": n, "page": "p", "extra": "x"} for n in range(300)))
    widen(lake.log)
    done: list[Redriven] = []

    def redrive() -> None:
        with open_lake(lake.log.folder) as own:
            done.extend(own.dlq.redrive("clicks", list(range(n, n + 60))) for n in range(1, 301, 30))

    threads = [threading.Thread(target=redrive) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(each.redriven for each in done) == 300
    assert sorted(lake.sql("SELECT user FROM clicks").fetchall()) == [(n,) for n in range(300)]
    assert lake.dlq.causes()[0].redriven == 300


def test_a_mended_row_is_written_once_with_the_records_own_headers(lake: Lake) -> None:
    table = pa.table({"user": ["one"], "page": ["p"]}).append_column("_headers", pa.array([[("trace", "t1")]], OWN))
    with lake.producer(on_error="dead_letter") as producer:
        producer.send("clicks", table)
    (letter,) = lake.dlq.letters("clicks")["id"].to_pylist()
    told: list[str] = []

    def mend(user: int) -> None:
        with open_lake(lake.log.folder) as own:
            try:
                own.dlq.mend(letter, f'{{"user": {user}, "page": "p"}}')
            except UsageError as error:
                told.append(error.what)

    threads = [threading.Thread(target=mend, args=(user,)) for user in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == [f"letter {letter} is redriven already"] * 2
    (row,) = lake.sql("SELECT page, _headers FROM log.clicks").arrow().to_pylist()
    assert row == {"page": "p", "_headers": [("trace", "t1")]}
    assert lake.dlq.show(letter)["reason"] == "mended by hand"


def test_discard_says_why_and_keeps_the_bytes(lake: Lake) -> None:
    refuse(lake, {"user": "x", "page": "1"}, {"user": "y", "page": "2"})
    first, second = lake.dlq.letters("clicks")["id"].to_pylist()
    with pytest.raises(UsageError, match="needs a reason"):
        lake.dlq.discard("clicks", reason="  ")
    assert lake.dlq.discard("clicks", [first], reason="a test user") == 1
    assert lake.dlq.discard("clicks", [first], reason="again") == 0
    shown = lake.dlq.show(first)
    assert (shown["state"], shown["reason"], shown["original"]) == (
        "discarded",
        "a test user",
        b'{"user": "x", "page": "1"}',
    )
    assert lake.dlq.redrive("clicks") == Redriven(redriven=0, failed=1)
    assert lake.dlq.letters("clicks")["id"].to_pylist() == [second]
    with pytest.raises(NameNotFound):
        lake.dlq.show(99)


def test_letters_leave_with_retention_and_open_ones_are_told(lake: Lake) -> None:
    refuse(lake, {"user": "x", "page": "1"}, {"user": "y", "page": "2"})
    lake.dlq.discard("clicks", [1], reason="a test")
    seal.seal(lake.log, Settings())
    topic = lake.log.topic("clicks.dlq")
    refuse(lake, {"user": "z", "page": "3"})
    retention.remove(lake.log, topic, merge.live(lake.log, topic.id))
    assert [row["id"] for row in index(lake.log)] == [3]
    (told,) = incidents.newest(lake.log)
    assert (told.kind, told.subject) == ("dead_letters", "clicks.dlq")
    assert told.what.startswith("1 open dead letters left")


def test_only_topics_of_producers_are_redriven(log: Log, clicks: Writer) -> None:
    with clicks.transaction() as tx:
        dead_letters.append(tx, TOPIC, letters(b"{}"))
        tx.commit()
    with pytest.raises(UsageError, match="written by source shop"):
        DeadLetters(log).redrive(TOPIC)


def redrive(folder: Path, plan: str) -> None:
    """In a process of its own, with a plan for its crash points."""
    failpoint.follow(plan)
    with open_lake(folder) as lake:
        lake.dlq.redrive("clicks")


@pytest.fixture
def killed(lake: Lake, tmp_path: Path) -> Callable[[int], None]:
    """Kill a redrive at its nth crash point, run it again, and look at what is there; 0: count the points."""
    for place in range(3):
        refuse(lake, *({"user": n + 10 * place, "page": "p", "extra": "x"} for n in range(10)), {"user": "no"})
    widen(lake.log)
    folder = lake.log.folder
    lake.close()

    def check(nth: int) -> None:
        copy = tmp_path / f"killed-{nth}"
        shutil.copytree(folder, copy)
        process = FORKS.Process(target=redrive, args=(copy, f"kill:{nth}" if nth else f"record:{tmp_path / 'passed'}"))
        process.start()
        process.join(60)
        assert process.exitcode == (-signal.SIGKILL if nth else 0)
        with open_lake(copy) as again:
            before = again.sql("SELECT count(*) FROM clicks").scalar()
            assert before in ((0, 30) if nth else (30,)), "a commit is whole or not there"
            again.dlq.redrive("clicks")
            assert sorted(again.sql("SELECT user FROM clicks").fetchall()) == [(n,) for n in range(30)]
            assert Counter(row["state"] for row in index(again.log)) == {"redriven": 30, "open": 3}
            delivered = again.dlq.letters("clicks")["delivery_count"].to_pylist()
            assert delivered == [3 if before else 2] * 3
            assert verify(again.log).findings == ()
        shutil.rmtree(copy)

    return check


def test_a_redrive_that_is_killed_loses_and_doubles_nothing(killed: Callable[[int], None], tmp_path: Path) -> None:
    killed(0)
    passed = (tmp_path / "passed").read_text().splitlines()
    published = len(passed) - passed[::-1].index("catalog.commit:before")
    for nth in (published, published + 1):
        killed(nth)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_redrive_that_is_killed_anywhere_loses_and_doubles_nothing(
    killed: Callable[[int], None], tmp_path: Path
) -> None:
    killed(0)
    for nth in range(1, len((tmp_path / "passed").read_text().splitlines()) + 1):
        killed(nth)


def test_a_dead_letter_topic_is_read_like_any_other(log: Log, clicks: Writer) -> None:
    with clicks.transaction() as tx:
        dead_letters.append(tx, TOPIC, letters(b"{}"))
        tx.commit()
    with Lake(log) as lake:
        for name in (f'"{DLQ}"', DLQ, "clicks.dlq"):
            assert lake.sql(f"SELECT original FROM {name}").fetchall() == [(b"{}",)]
        with lake.connect() as own:
            assert own.sql('SELECT original FROM shop.events."clicks.dlq"').fetchall() == [(b"{}",)]
