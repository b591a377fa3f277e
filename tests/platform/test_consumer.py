"""Reading topics with and without a group: what is handed out, in which order, from where, and what a commit keeps."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import select, update

from headwater.catalog import tables
from headwater.client import turns
from headwater.client.batch import Batch
from headwater.client.consumer import Consumer
from headwater.client.group import scope
from headwater.config import Settings
from headwater.errors import CorruptFile, Expired, FencedMember, UsageError
from headwater.log import Log, offsets, open_log, seal
from headwater.log.repartition import repartition
from headwater.schema import Field, Schema
from headwater.testing import group_worker
from headwater.testing.forks import FORKS
from headwater.testing.writer import Writer

TOPIC = "shop.public.orders"
SCHEMA = Schema.of(id="BIGINT", note="VARCHAR")
LIMITS = replace(Settings(), row_group_rows=100)
FAR_S = 3600.0


def rows(first: int, count: int) -> pa.Table:
    return pa.table({"id": range(first, first + count), "note": [f"n{n}" for n in range(first, first + count)]})


@pytest.fixture
def topic(writer: Writer) -> str:
    writer.create(TOPIC, "event", SCHEMA, partitions=4)
    return TOPIC


def consumer(log: Log, group: str | None = None, **options: Any) -> Consumer:
    return Consumer(log, TOPIC, group, lease_s=FAR_S, **options)


def ids(batches: Iterator[Batch] | list[Batch]) -> list[int]:
    return [n for batch in batches for n in batch.arrow().column("id").to_pylist()]


def drain(found: Consumer) -> list[Batch]:
    batches = []
    while (batch := found.poll()) is not None:
        batches.append(batch)
    return batches


def test_every_record_once_in_offset_order_from_both_tiers(log: Log, writer: Writer, topic: str) -> None:
    for start in range(0, 2000, 400):
        writer.write(topic, rows(start, 400))
    seal.seal(log, LIMITS)
    for start in range(2000, 2050):
        writer.write(topic, rows(start, 1))
    with consumer(log, batch_rows=70, stop="latest") as found:
        batches = list(found)
    assert sorted(ids(batches)) == list(range(2050))
    assert max(len(batch) for batch in batches) <= 70
    for number in range(4):
        mine = [batch for batch in batches if batch.partition == number]
        assert [n for b in mine for n in b.arrow().column("_offset").to_pylist()] == list(range(mine[-1].last + 1))
    assert len(batches) < 2050 / 70 * 2, "batches of one record are joined"
    assert batches[0].pl().columns == batches[0].arrow().column_names


def test_all_partitions_are_read_in_turn(log: Log, writer: Writer, topic: str) -> None:
    writer.write(topic, rows(0, 4000))
    found = consumer(log, batch_rows=100)
    assert {found.poll().partition for _ in range(4)} == {0, 1, 2, 3}  # type: ignore[union-attr]


def test_no_partition_waits_for_ever_behind_those_with_a_backlog(
    log: Log, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "TURN_S", 0.0)
    writer.create(TOPIC, "event", SCHEMA, partitions=20)
    for start in range(0, 20_000, 2000):
        writer.write(TOPIC, rows(start, 2000))
    found = consumer(log, "etl", batch_rows=100)
    served = set()
    for _ in range(60):
        batch = found.poll()
        assert batch is not None
        served.add(batch.partition)
        writer.write(TOPIC, rows(0, 20))
        found._looked_at = found._full_look_at = -FAR_S  # as if time had passed: it looks at the catalog again
    assert served == set(range(20))
    found.close()


def test_a_column_that_comes_between_two_looks_is_not_left_out(log: Log, writer: Writer, topic: str) -> None:
    found = consumer(log, "etl")
    found.poll()
    fields = (*log.topic(topic).schema.fields, Field(id=3, name="extra", type="BIGINT"))
    with writer.transaction() as tx:
        tx.add_schema(topic, replace(log.topic(topic).schema, fields=fields))
        tx.append(topic, rows(0, 8).append_column("extra", pa.array(range(8))))
        tx.commit()
    found._full_look_at = time.monotonic() + FAR_S
    assert sorted(n for batch in drain(found) for n in batch.arrow().column("extra").to_pylist()) == list(range(8))
    found.close()


def test_positions_offsets_and_times_as_starts_and_stops(log: Log, writer: Writer, topic: str) -> None:
    infos = [writer.write(topic, rows(start, 40)) for start in range(0, 200, 40)]
    seal.seal(log, LIMITS)
    infos += [writer.write(topic, rows(start, 40)) for start in range(200, 400, 40)]
    for start, stop, expected in (
        ("earliest", f"commit:{infos[2].number}", range(120)),
        (f"commit:{infos[1].number}", f"commit:{infos[6].number}", range(80, 280)),
        (infos[6].time, "latest", range(280, 400)),
        (infos[6].time - timedelta(microseconds=1), "latest", range(240, 400)),
        ("latest", "latest", range(0)),
    ):
        assert sorted(ids(list(consumer(log, start=start, stop=stop)))) == list(expected), (start, stop)
    found = consumer(log, start=infos[8].number, stop="latest")
    assert sorted(row["id"] for row in found.rows()) == list(range(360, 400))


def test_seek_pause_and_resume(log: Log, writer: Writer, topic: str) -> None:
    infos = [writer.write(topic, rows(start, 40)) for start in range(0, 120, 40)]
    found = consumer(log)
    assert len(ids(drain(found))) == 120
    found.seek(topic, 1, 25)
    assert [(batch.partition, batch.first, batch.last) for batch in drain(found)] == [(1, 25, 29)]
    found.seek(topic, 2, f"commit:{infos[1].number}")
    assert found.position()[topic, 2] == 20
    found.seek(topic, 2, "earliest")
    found.seek(topic, 3, "earliest")
    found.pause(topic, 2)
    assert {batch.partition for batch in drain(found)} == {3}
    found.resume("orders", 2)
    assert {batch.partition for batch in drain(found)} == {2}
    with pytest.raises(UsageError, match="no offset 31"):
        found.seek(topic, 1, 31)
    with pytest.raises(UsageError, match="partition 9"):
        found.pause(topic, 9)


def test_columns_are_chosen_and_the_offset_is_always_there(log: Log, writer: Writer, topic: str) -> None:
    writer.write(topic, rows(0, 8))
    seal.seal(log, LIMITS)
    assert drain(consumer(log, columns=["note"]))[0].arrow().column_names == ["note", "_offset"]


def test_older_schema_versions_are_read_in_the_present_shape(log: Log, writer: Writer, topic: str) -> None:
    writer.write(topic, rows(0, 8))
    seal.seal(log, LIMITS)
    writer.write(topic, rows(8, 8))
    with writer.transaction() as tx:
        fields = (*log.topic(topic).schema.fields, Field(id=3, name="extra", type="BIGINT"))
        tx.add_schema(topic, replace(log.topic(topic).schema, fields=fields))
        tx.append(topic, rows(16, 8).append_column("extra", pa.array(range(8))))
        tx.commit()
    table = pa.concat_tables([batch.arrow() for batch in drain(consumer(log))]).sort_by("id")
    assert table.column("extra").to_pylist() == [None] * 16 + list(range(8))
    assert table.column("note").to_pylist() == [f"n{n}" for n in range(24)]


def test_a_group_goes_on_where_it_committed(log: Log, writer: Writer, topic: str) -> None:
    writer.write(topic, rows(0, 400))
    with consumer(log, "etl", batch_rows=30, auto_commit=False) as found:
        first = ids([batch for batch in (found.poll(), found.poll()) if batch])
        found.commit(metadata="two batches")
        again = ids([batch for batch in (found.poll(),) if batch])
    with consumer(log, "etl", batch_rows=30) as found:
        rest = ids(drain(found))
        assert sum(found.committed().values()) == 60
    assert sorted(first + rest) == list(range(400))
    assert set(again) <= set(rest), "what was not committed comes again"
    with consumer(log, "etl") as found:
        assert drain(found) == []
        assert sum(found.committed().values()) == 400, "the automatic commit of close"


def test_leaving_by_an_exception_commits_nothing(log: Log, writer: Writer, topic: str) -> None:
    writer.write(topic, rows(0, 40))

    def fail() -> None:
        with consumer(log, "etl") as found:
            drain(found)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with consumer(log, "etl") as found:
        assert len(ids(drain(found))) == 40


def test_latest_is_decided_when_the_group_begins(log: Log, writer: Writer, topic: str) -> None:
    writer.write(topic, rows(0, 40))
    first = consumer(log, "etl", start="latest", auto_commit=False)
    assert first.poll() is None
    writer.write(topic, rows(40, 40))
    first.close()
    with consumer(log, "etl", start="latest") as found:
        assert sorted(ids(drain(found))) == list(range(40, 80))


def test_a_removed_members_commit_is_refused_and_it_rejoins(log: Log, writer: Writer, topic: str) -> None:
    writer.write(topic, rows(0, 400))
    paused = consumer(log, "etl", batch_rows=10, auto_commit=False)
    before = paused.poll()
    assert before is not None
    log.live.end_lease(scope("etl"), paused._member.name)  # type: ignore[union-attr]
    other = consumer(log, "etl", batch_rows=400, auto_commit=False)
    taken = ids(drain(other))
    assert len(taken) == 400
    with pytest.raises(FencedMember) as refused:
        paused.commit()
    assert refused.value.facts["group"] == "etl"
    assert set(other.committed().values()) == {0}, "nothing of the refused commit was stored"
    other.commit()
    assert paused.poll() is None, "it rejoined and owns nothing until the other lets go"
    assert other.poll() is None
    assert paused.poll() is None
    assert len(paused.assignment()) == len(other.assignment()) == 2
    assert set(paused.position().values()) == {100}, "it begins at what the other committed"
    for each in (paused, other):
        each.close()


def test_a_partition_moves_only_when_its_owner_lets_go(log: Log, writer: Writer, topic: str) -> None:
    writer.write(topic, rows(0, 40))
    first = consumer(log, "etl")
    handed = drain(first)
    second = consumer(log, "etl")
    assert second.poll() is None
    assert second.assignment() == []
    assert len(first.assignment()) == 4, "the first goes on with all of them"
    assert first.poll() is None
    assert second.poll() is None, "what the first had handed out was committed as it let go"
    assert len(first.assignment()) == len(second.assignment()) == 2
    assert not set(first.assignment()) & set(second.assignment())
    writer.write(topic, rows(40, 40))
    more = ids(drain(first)) + ids(drain(second))
    assert sorted(ids(handed) + more) == list(range(80))
    first.close()
    assert len(drain(second)) == 0
    assert len(second.assignment()) == 4, "leaving gives everything to the other at once"
    second.close()


def test_a_new_generation_of_partitions_is_read_after_the_closed_one(log: Log, writer: Writer, topic: str) -> None:
    writer.write(topic, rows(0, 40))
    first, second = consumer(log, "etl", auto_commit=False), consumer(log, "etl", auto_commit=False)
    for each in (first, second, first, second):
        each.poll()
    repartition(log, topic, 6)
    writer.write(topic, rows(40, 60))
    alone = consumer(log, stop="latest", batch_rows=7)
    order = [batch.partition for batch in alone]
    assert set(order) == set(range(10))
    assert order == sorted(order, key=lambda partition: partition >= 4)
    for each in (first, second):
        drain(each)
    assert {number for _, number in first.assignment() + second.assignment()} == {0, 1, 2, 3}
    first.commit()
    second.commit()
    found: list[Batch] = []
    for each in (first, second, first, second):
        found += drain(each)
    assert {number for _, number in first.assignment() + second.assignment()} == set(range(4, 10))
    assert sorted(ids(found)) == list(range(40, 100))
    for each in (first, second):
        each.close()


def test_what_retention_removed_is_said(log: Log, writer: Writer, topic: str, caplog: pytest.LogCaptureFixture) -> None:
    writer.write(topic, rows(0, 40))
    group, strict = consumer(log, "etl", auto_commit=False), consumer(log, "strict", on_expired="error")
    group.poll()
    strict.poll()
    group.rewind()
    strict.rewind()
    with log.catalog.write() as connection:
        batch = tables.batch
        connection.execute(update(tables.partition).values(start_offset=10))
        connection.execute(batch.delete())
    writer.write(topic, rows(40, 40))
    assert sorted(ids(drain(group))) == list(range(40, 80))
    assert "offsets 0 to 9 of partition 0 are no longer kept" in caplog.text
    with pytest.raises(Expired, match="offsets 0 to 9"):
        strict.poll()
    for each in (group, strict):
        each.close()


def test_a_damaged_file_stops_its_partition_and_no_other(log: Log, writer: Writer, topic: str) -> None:
    writer.write(topic, rows(0, 40))
    seal.seal(log, LIMITS)
    with log.catalog.read() as connection:
        query = select(tables.file.c.path).join(tables.segment, tables.segment.c.file == tables.file.c.id)
        path = log.storage.path(connection.execute(query.where(tables.segment.c.partition == 2)).scalar_one())
    data = bytearray(path.read_bytes())
    data[len(data) // 8] ^= 0xFF
    path.write_bytes(data)
    found = consumer(log)
    seen: list[int] = []

    def read_all() -> None:
        while (batch := found.poll()) is not None:
            seen.append(batch.partition)

    with pytest.raises(CorruptFile):
        read_all()
    seen += [batch.partition for batch in drain(found)]
    assert sorted(seen) == [0, 1, 3]


def test_a_waiting_consumer_wakes_for_a_commit(log: Log, writer: Writer, topic: str) -> None:
    found = consumer(log)
    got: list[Batch | None] = []
    waiting = threading.Thread(target=lambda: got.append(found.poll(timeout=30)))
    waiting.start()
    writer.write(topic, rows(0, 1))
    waiting.join(30)
    assert ids([batch for batch in got if batch]) == [0]


# ---- exactly once


def work(folder: Path, failpoints: str) -> int | None:
    """Copy every record to another topic, in a process that may be killed on the way."""
    process = FORKS.Process(target=group_worker.copy, args=(folder, TOPIC, "doubled", "etl", failpoints), daemon=True)
    process.start()
    process.join()
    return process.exitcode


def prepare(folder: Path) -> None:
    with open_log(folder, create=True) as log:
        writer = Writer(log)
        writer.create(TOPIC, "event", SCHEMA, partitions=2)
        writer.create("doubled", "event", Schema.of(id="BIGINT"))
        writer.write(TOPIC, rows(0, 20))


def copied(folder: Path) -> Counter[int]:
    with open_log(folder) as log:
        return Counter(log.read_changes("doubled", 0, log.newest_commit()).column("id").to_pylist())


def crash_points(folder: Path) -> list[str]:
    prepare(folder)
    names = folder.parent / "names"
    assert work(folder, f"record:{names}") == 0
    return names.read_text().split()


def test_read_process_write_is_exactly_once_under_kills(tmp_path: Path, seed: int) -> None:
    passed = crash_points(tmp_path / "recorded")
    assert copied(tmp_path / "recorded") == Counter(range(20))
    for nth in sorted(random.Random(seed).sample(range(1, len(passed) + 1), 3)):
        check_kill(tmp_path / str(nth), nth, passed)


def check_kill(folder: Path, nth: int, passed: list[str]) -> None:
    prepare(folder)
    assert work(folder, f"kill:{nth}") == -signal.SIGKILL, passed[nth - 1]
    assert work(folder, "") == 0
    assert copied(folder) == Counter(range(20)), f"killed at {passed[nth - 1]}, hit {nth}"


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_read_process_write_is_exactly_once_at_every_failpoint(tmp_path: Path) -> None:
    passed = crash_points(tmp_path / "recorded")
    for nth in range(1, len(passed) + 1):
        check_kill(tmp_path / str(nth), nth, passed)
    print(json.dumps(Counter(passed), indent=1))


def copy_and_fail(found: Consumer, batch: Batch) -> None:
    with found.transaction() as tx:
        tx.append("doubled", batch.arrow().select(["id"]))
        raise ZeroDivisionError


def test_an_aborted_transaction_leaves_nothing_and_its_records_come_again(log: Log, writer: Writer, topic: str) -> None:
    writer.create("doubled", "event", Schema.of(id="BIGINT"))
    writer.write(topic, rows(0, 40))
    with consumer(log, "etl") as found:
        batch = found.poll()
        assert batch is not None
        with pytest.raises(ZeroDivisionError):
            copy_and_fail(found, batch)
        assert sorted(ids(drain(found))) == list(range(40))
    assert log.read_changes("doubled", 0, log.newest_commit()).num_rows == 0


def test_a_fenced_transaction_publishes_nothing(log: Log, writer: Writer, topic: str) -> None:
    writer.create("doubled", "event", Schema.of(id="BIGINT"))
    writer.write(topic, rows(0, 40))
    paused = consumer(log, "etl", auto_commit=False)
    batch = paused.poll()
    assert batch is not None
    log.live.end_lease(scope("etl"), paused._member.name)  # type: ignore[union-attr]
    with consumer(log, "etl") as other:
        drain(other)
        before = log.newest_commit()
        with pytest.raises(FencedMember), paused.transaction() as tx:
            tx.append("doubled", batch.arrow().select(["id"]))
        assert log.newest_commit() == before
    paused.close()


# ---- retries and dead letters


def test_what_keeps_failing_becomes_a_dead_letter_in_the_commit_that_moves_on(
    log: Log, writer: Writer, topic: str
) -> None:
    writer.write(topic, rows(0, 400))
    seen: Counter[int] = Counter()
    flaky = {7}

    def handle(batch: Batch) -> None:
        found = batch.arrow().column("id").to_pylist()
        seen.update(found)
        if flaky & set(found):
            flaky.clear()
            raise ConnectionError("not now")
        if {33, 201} & set(found):
            raise ValueError("cannot digest")

    with consumer(log, "etl", stop="latest", batch_rows=50) as found:
        assert found.process(handle, max_attempts=2, backoff=0.001) == 400
        assert sum(found.committed().values()) == 400
    letters = log.read_changes(f"{topic}.dlq", 0, log.newest_commit()).to_pylist()
    assert sorted((each["partition"], each["offset"]) for each in letters) == [(1, 8), (1, 50)]
    assert {each["error_class"] for each in letters} == {"ValueError"}
    assert {each["error_message"] for each in letters} == {"cannot digest"}
    assert {each["delivery_count"] for each in letters} <= {seen[33], seen[201]}
    original = pa.ipc.open_stream(letters[0]["original"]).read_all().to_pylist()[0]
    assert original["note"] == f"n{original['id']}"
    assert set(seen) == set(range(400))
    with log.catalog.read() as connection:
        assert connection.execute(select(tables.dead_letter.c.state)).scalars().all() == ["open", "open"]


def test_a_group_floor_holds_what_an_active_group_has_not_read(log: Log, writer: Writer, topic: str) -> None:
    writer.write(topic, rows(0, 40))
    with consumer(log, "etl", auto_commit=False) as found:
        found.poll()
        found.commit()
        moved = {number: place for (_, number), place in found.committed().items()}
    with log.catalog.read() as connection:
        assert offsets.group_floor(connection, log.topic(topic).id, 0) == moved
        assert offsets.group_floor(connection, log.topic(topic).id, log.clock.now_us() + 1) == {}


@pytest.mark.usefixtures("topic")
def test_what_makes_no_sense_is_refused(log: Log) -> None:
    alone = consumer(log)
    with pytest.raises(UsageError, match="no group"):
        alone.commit()
    alone.close()
    with pytest.raises(UsageError, match="closed"):
        alone.poll()
    with pytest.raises(UsageError, match="batch_rows"):
        consumer(log, batch_rows=0)
    with pytest.raises(UsageError, match="rate"):
        consumer(log, rate=0)


def test_a_rate_is_kept(log: Log, writer: Writer, topic: str) -> None:
    writer.write(topic, rows(0, 600))
    begin = time.monotonic()
    assert len(ids(list(consumer(log, stop="latest", rate=1000, batch_rows=100)))) == 600
    assert time.monotonic() - begin > 0.45
