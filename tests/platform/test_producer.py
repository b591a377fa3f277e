"""A producer: batches, order, expected offsets, transactions, the buffer, batch numbers."""

from __future__ import annotations

import gc
import random
import threading
import weakref
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

import headwater as hw
from headwater import Producer
from headwater.client.buffer import Buffer, Parcel
from headwater.errors import (
    BufferFull,
    CatalogError,
    Fenced,
    HeadwaterError,
    InvalidRecords,
    NotDelivered,
    OffsetConflict,
    ProducerConflict,
    ProducerError,
    UsageError,
)
from headwater.log import Log
from headwater.schema import Schema
from headwater.testing.producing import EVENTS, make_topic, read

GOOD = {"id": 1, "name": "a"}


@pytest.fixture
def events(log: Log) -> Log:
    """A lake with a keyed topic of three partitions and two keyless ones of one."""
    make_topic(log, "events", EVENTS, partitions=3, record_bytes_max=1000)
    make_topic(log, "plain", Schema.of({"n": "BIGINT"}))
    make_topic(log, "other", Schema.of({"n": "BIGINT"}))
    return log


def _numbers(log: Log, topic: str = "plain") -> list[int]:
    return [row["n"] for row in read(log, topic, "n")]


# ---- offsets and order


def test_receipts_are_where_the_rows_are(events: Log, seed: int) -> None:
    chance = random.Random(seed)
    sent: list[tuple[list[int], Any]] = []
    with Producer(events, linger_ms=20) as producer:
        for _ in range(30):
            ids = [chance.randrange(50) for _ in range(chance.randint(1, 20))]
            sent.append((ids, producer.send("events", [{"id": n, "name": str(n)} for n in ids])))
        receipts = [(ids, delivery.result()) for ids, delivery in sent]
        assert producer.counters().commits < 30, "sends did not share commits"
    stored = {(row["_partition"], row["_offset"]): row for row in read(events, "events")}
    assert len(stored) == sum(len(ids) for ids, _ in receipts)
    for ids, receipt in receipts:
        mine = [stored[partition, offset] for partition, span in receipt.offsets.items() for offset in span]
        assert {row["_commit"] for row in mine} == {receipt.commit}
        by_partition = [stored[p, o]["id"] for p, span in sorted(receipt.offsets.items()) for o in span]
        assert sorted(by_partition) == sorted(ids)
        for partition, span in receipt.offsets.items():
            here = [stored[partition, offset]["id"] for offset in span]
            assert here == [n for n in ids if n in set(here)], "rows of a partition lost their order"


def test_keyless_rows_take_turns_across_sends(log: Log) -> None:
    make_topic(log, "spread", Schema.of({"n": "BIGINT"}), partitions=3)
    with Producer(log) as producer:
        places = [next(iter(producer.send("spread", {"n": n}).result().offsets)) for n in range(6)]
    assert places == [0, 1, 2, 0, 1, 2]


def test_one_partition_sees_sends_in_their_order(events: Log) -> None:
    with Producer(events) as producer:
        for n in range(200):
            producer.send("plain", {"n": n})
    assert _numbers(events) == list(range(200))


def test_expected_offsets(events: Log) -> None:
    with Producer(events) as producer:
        assert producer.send("plain", {"n": 1}, expect_offset=0).result().offsets == {0: range(1)}
        producer.send("other", {"n": 1})
        late = producer.send("plain", {"n": 2}, expect_offset={0: 0})
        with pytest.raises(OffsetConflict, match="ends at offset 1, not at 0") as conflict:
            late.result()
        assert (conflict.value.partition, conflict.value.expected, conflict.value.actual) == (0, 0, 1)
        with pytest.raises(UsageError, match="3 partitions"):
            producer.send("events", GOOD, expect_offset=0)
        assert producer.send("plain", {"n": 3}, expect_offset=1).result().rows == 1
    assert _numbers(events) == [1, 3]


def test_of_racing_threads_that_expect_one_offset_exactly_one_wins(events: Log) -> None:
    rounds, threads = 5, 4
    won: list[int] = []
    lost: list[int] = []
    barrier = threading.Barrier(threads)

    def race(me: int) -> None:
        with Producer(events) as producer:
            for number in range(rounds):
                barrier.wait()
                delivery = producer.send("plain", {"n": me}, expect_offset=number)
                try:
                    delivery.result()
                    won.append(me)
                except OffsetConflict as conflict:
                    lost.append(conflict.actual - number)
                barrier.wait()

    pool = [threading.Thread(target=race, args=(me,)) for me in range(threads)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    assert _numbers(events) == won
    assert (len(won), lost) == (rounds, [1] * rounds * (threads - 1))


# ---- transactions


def test_a_transaction_is_one_commit_over_topics(events: Log) -> None:
    with Producer(events) as producer:
        with producer.transaction() as tx:
            first, second = tx.send("plain", {"n": 1}), tx.send("other", [{"n": 2}, {"n": 3}])
            assert not first.done()
            assert _numbers(events) == []
        assert first.result().commit == second.result().commit == tx.commit_number
        assert second.result().offsets == {0: range(2)}
        with producer.transaction():
            pass
    assert (_numbers(events), _numbers(events, "other")) == ([1], [2, 3])


def _transact(producer: Producer, *sends: tuple[str, dict[str, Any]], timeout_s: float = 60, **options: Any) -> None:
    with producer.transaction(timeout_s=timeout_s) as tx:
        for topic, row in sends:
            tx.send(topic, row, **options)
        if not sends:
            raise ZeroDivisionError


def test_what_a_transaction_did_not_commit_was_never_there(events: Log) -> None:
    with Producer(events) as producer:
        with pytest.raises(ZeroDivisionError):
            _transact(producer)
        with pytest.raises(NotDelivered, match="out of time"):
            _transact(producer, ("plain", {"n": 3}), timeout_s=0)
        with pytest.raises(OffsetConflict):
            _transact(producer, ("other", {"n": 4}), ("plain", {"n": 4}), expect_offset=5)
        with pytest.raises(InvalidRecords):
            _transact(producer, ("plain", {"n": 5}), ("plain", {"n": "x"}))
        with producer.transaction() as tx:
            lost = tx.send("plain", {"n": 2})
            tx.abort()
            with pytest.raises(UsageError, match="has ended"):
                tx.send("plain", {"n": 2})
        with pytest.raises(NotDelivered, match="aborted"):
            lost.result()
        assert producer._buffer.held == 0
        producer.send("plain", {"n": 6})
    assert (_numbers(events), _numbers(events, "other")) == ([6], [])


def test_a_deadline_passes_while_the_commit_waits_for_another_writer(events: Log) -> None:
    held, passed = threading.Event(), threading.Event()

    def other_writer() -> None:
        with events.catalog.write():
            held.set()
            passed.wait(30)

    with Producer(events) as producer:
        thread = threading.Thread(target=other_writer)
        thread.start()
        held.wait(30)
        threading.Timer(0.3, passed.set).start()
        with pytest.raises(NotDelivered, match="out of time"):
            _transact(producer, ("plain", {"n": 1}), timeout_s=0.1)
        thread.join()
        producer.send("plain", {"n": 2})
    assert _numbers(events) == [2]


def test_a_fenced_producers_transaction_raises_and_leaves_nothing(events: Log) -> None:
    old = Producer(events, "load")
    with old.transaction() as tx:
        tx.send("plain", {"n": 1})
        with Producer(events, "load") as new:
            new.send("plain", {"n": 2})
        with pytest.raises(Fenced):
            tx.commit()
    with pytest.raises(Fenced):
        old.send("plain", {"n": 3})
    old.close()
    assert _numbers(events) == [2]


# ---- the buffer


def test_a_full_buffer_raises_or_blocks_and_stays_within_its_bytes(events: Log) -> None:
    rows = pa.table({"n": list(range(1000))})
    size = rows.nbytes
    with Producer(events, buffer_bytes=3 * size, on_full="raise", linger_ms=60_000) as producer:
        for _ in range(3):
            producer.send("plain", rows)
        with pytest.raises(BufferFull, match="no room"):
            producer.send("plain", rows)
        with pytest.raises(BufferFull, match="more than the buffer's"):
            producer.send("plain", pa.concat_tables([rows] * 4))
    with Producer(events, buffer_bytes=3 * size, linger_ms=60_000) as producer:
        highest = 0
        for _ in range(20):  # the linger is a minute: only a caller that is held up makes the sender commit
            producer.send("plain", rows)
            highest = max(highest, producer._buffer.held)
        assert highest <= 3 * size
    producer = Producer(events, buffer_bytes=3 * size, block_s=0.05, linger_ms=60_000)
    with events.catalog.write():
        for _ in range(3):
            producer.send("plain", rows)
        with pytest.raises(BufferFull, match=r"within 0.05 s"):
            producer.send("plain", rows)
    producer.close()
    assert len(_numbers(events)) == 26_000


def test_what_was_committed_is_not_kept_in_memory(events: Log) -> None:
    rows = pa.table({"n": list(range(1000))})
    kept = weakref.ref(rows)
    with Producer(events) as producer:
        producer.send("plain", rows).result()
        producer.flush()
        producer.send("plain", {"n": 1}).result()
        del rows
        gc.collect()
        assert kept() is None


def test_taking_keeps_order_and_cuts_at_what_must_be_alone() -> None:
    buffer = Buffer(bytes_max=1 << 20, linger_s=0, on_full="raise", block_s=0, age_max_s=float("inf"))
    parcels = [Parcel(sends=[], alone=place in (2, 3)) for place in range(6)]
    for parcel in parcels:
        buffer.put(parcel)
    taken = []
    for _ in range(4):
        taken.append([parcels.index(each) for each in buffer.take(rows_max=10, bytes_max=100)])
        buffer.done()
    assert taken == [[0, 1], [2], [3], [4, 5]]


def test_a_failure_that_nobody_looked_at_is_raised_by_flush_and_close(events: Log) -> None:
    with Producer(events) as producer:
        producer.send("plain", {"n": 1}, expect_offset=9)
        with pytest.raises(OffsetConflict):
            producer.flush()
        producer.flush()
        told: list[HeadwaterError | None] = []
        producer.send("plain", {"n": 1}, expect_offset=9).add_done_callback(lambda d: told.append(d.error()))
        producer.flush()
        assert isinstance(told[0], OffsetConflict)
    closing = Producer(events)
    closing.send("plain", {"n": 1}, expect_offset=9)
    with pytest.raises(OffsetConflict):
        closing.close()
    with pytest.raises(ZeroDivisionError) as error:
        _send_and_fail(Producer(events))
    assert "ends at offset 0" in error.value.__notes__[0]


def _send_and_fail(producer: Producer) -> None:
    with producer:
        producer.send("plain", {"n": 1}, expect_offset=9)
        raise ZeroDivisionError


def test_waiting_has_an_end(events: Log) -> None:
    with Producer(events) as producer:
        with events.catalog.write():
            delivery = producer.send("plain", {"n": 1})
            for wait in (delivery.result, producer.flush):
                with pytest.raises(NotDelivered):
                    wait(0.05)
        assert delivery.result(10).rows == 1


def test_closing_a_lake_closes_its_producers(events: Log) -> None:
    lake = hw.open(events.folder)
    producer = lake.producer(linger_ms=60_000)
    producer.send("plain", {"n": 1})
    lake.close()
    assert _numbers(events) == [1]
    with pytest.raises(UsageError, match="is closed"):
        producer.send("plain", {"n": 2})


def test_a_defect_ends_the_producer_and_leaves_nobody_waiting(events: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    producer = Producer(events)
    with monkeypatch.context() as broken:
        broken.setattr("headwater.client.publish.Publisher._part", lambda *_: 1 / 0)
        with pytest.raises(ProducerError, match="ZeroDivisionError"):
            producer.send("plain", {"n": 1}).result(10)
    with pytest.raises(ProducerError, match="ZeroDivisionError"):
        producer.send("plain", {"n": 2})
    producer.close()


def test_options_are_checked(events: Log) -> None:
    for wrong in ({"on_full": "wait"}, {"durability": "none"}, {"on_error": "skip"}):
        with pytest.raises(UsageError, match="Use '"):
            Producer(events, **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no name for a producer"):
        Producer(events, "~x")


# ---- batch numbers


def test_batch_numbers_survive_the_process_and_repeats_are_recognised(events: Log) -> None:
    with Producer(events, "load") as producer:
        assert producer.next_sequence == 0
        first = producer.send("plain", [{"n": 1}, {"n": 2}], sequence=0).result()
        second = producer.send("plain", [{"n": 3}], sequence=1).result()
        with pytest.raises(UsageError, match="all by the caller, or none"):
            producer.send("plain", {"n": 9})
    with Producer(events, "load") as producer:
        assert producer.next_sequence == 2
        again = producer.send("plain", pl.DataFrame({"n": [3]}), sequence=1).result()
        assert (again.commit, again.offsets, again.repeated) == (second.commit, second.offsets, True)
        for number, rows in ((1, [{"n": 4}]), (1, [{"n": 3}, {"n": 3}]), (0, [{"n": 1}, {"n": 2}]), (3, [{"n": 5}])):
            with pytest.raises(ProducerConflict) as conflict:
                producer.send("plain", rows, sequence=number).result()
            assert conflict.value.stored == 1
        producer.send("plain", [{"n": 5}], sequence=2)
    assert first.offsets == {0: range(2)}
    assert _numbers(events) == [1, 2, 3, 5]


def test_batch_numbers_need_a_name(events: Log) -> None:
    with Producer(events) as producer, pytest.raises(UsageError, match="need a producer with a name"):
        producer.send("plain", {"n": 1}, sequence=0)


def test_automatic_numbers_go_on_where_the_name_stopped(events: Log) -> None:
    for n in range(3):
        with Producer(events, "svc") as producer:
            assert producer.next_sequence == n
            producer.send("plain", {"n": n})
    assert _numbers(events) == [0, 1, 2]


def test_a_broken_producer_says_so_at_the_next_send(events: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.client.publish.BACKOFF_S", 0.0)
    producer = Producer(events)
    with monkeypatch.context() as broken:
        broken.setattr("headwater.log.transaction.Transaction.commit", _lost_reply)
        with pytest.raises(CatalogError, match=r"tried 5 times, and its outcome is unknown"):
            producer.send("plain", {"n": 1}).result()
    with pytest.raises(CatalogError, match="its outcome is unknown"):
        producer.send("plain", {"n": 2})
    producer.close()
    assert _numbers(events) == []


def _lost_reply(tx: Any) -> None:
    """COMMIT is asked for and never answers."""
    tx._publishing = True
    raise CatalogError("the catalog refused: disk I/O error")
