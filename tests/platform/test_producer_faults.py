"""A producer and what can go wrong: killed anywhere, fenced, a lost reply, resent events, an ended interpreter."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import Connection

from headwater import Producer
from headwater.client import events as event_ids
from headwater.client import sequence
from headwater.client.consumer import Consumer
from headwater.client.producer import RELAXED_AGE_MS
from headwater.client.publish import Publisher
from headwater.config import Settings
from headwater.errors import (
    BufferFull,
    CatalogError,
    Fenced,
    FencedMember,
    NameNotFound,
    OffsetConflict,
    ProducerConflict,
    StorageError,
)
from headwater.log import Log, Transaction, open_log, seal
from headwater.log.repartition import repartition
from headwater.log.verify import verify
from headwater.testing import producing
from headwater.testing.faults import FaultyStorage
from headwater.testing.forks import FORKS
from headwater.testing.producing import LEFT, RIGHT
from headwater.testing.writer import Writer

COUNT = 6


def _start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    process = FORKS.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


@pytest.fixture
def lake(log: Log) -> Log:
    producing.create(log)
    return log


def _numbers(log: Log, topic: str) -> list[int]:
    found: list[int] = log.read_changes(topic, 0, log.newest_commit(), ["n"]).column("n").to_pylist()
    return found


# ---- killed


def _make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    with open_log(folder / "lake", create=True) as log:
        producing.create(log)
    return folder


def _run(folder: Path, plan: str = "") -> BaseProcess:
    process = _start(producing.run, folder / "lake", folder / "acknowledged", COUNT, plan)
    process.join(60)
    return process


def _check(folder: Path) -> int:
    """Both topics hold the same batches, each once, and all that were acknowledged; how many."""
    with open_log(folder / "lake") as log:
        right = _numbers(log, RIGHT)
        assert right == list(range(len(right)))
        assert Counter(_numbers(log, LEFT)) == Counter(right * 3)
        path = folder / "acknowledged"
        told = len(path.read_text().splitlines()) if path.exists() else 0
        assert told <= len(right) <= told + 1
        assert verify(log, deep=True).findings == ()
    return len(right)


def _kill_at(folder: Path, place: int) -> None:
    assert _run(_make(folder), f"kill:{place}").exitcode == -signal.SIGKILL
    _check(folder)
    assert _run(folder).exitcode == 0
    assert _check(folder) == COUNT


def _points(folder: Path) -> list[str]:
    _make(folder)
    assert _run(folder, f"record:{folder / 'points'}").exitcode == 0
    assert _check(folder) == COUNT
    return (folder / "points").read_text().splitlines()


def test_killed_at_some_calls_nothing_is_torn_lost_or_doubled(tmp_path: Path, seed: int) -> None:
    points = _points(tmp_path / "whole")
    kinds = {"catalog.commit:after", "storage.fsync:before"}
    assert kinds <= set(points)
    chance = random.Random(seed)
    for kind in sorted(kinds):
        _kill_at(tmp_path / kind, chance.choice([n for n, name in enumerate(points, 1) if name == kind]))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_killed_at_every_single_call(tmp_path: Path) -> None:
    for place, _ in enumerate(_points(tmp_path / "whole"), start=1):
        _kill_at(tmp_path / str(place), place)


# ---- fenced


def test_a_process_that_slept_while_another_took_its_name_writes_nothing_more(lake: Log) -> None:
    here, there = FORKS.Pipe()
    process = _start(producing.fenced, lake.folder, there)
    assert here.recv() == "sent"
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    with Producer(lake, producing.NAME) as producer:
        assert producer.next_sequence == 1
        producer.send(LEFT, {"n": 5, "part": 0}).result()
        os.kill(process.pid, signal.SIGCONT)
        here.send("go on")
        process.join(30)
        producer.send(LEFT, {"n": 6, "part": 0})
    assert process.exitcode == producing.FENCED
    assert sorted(_numbers(lake, LEFT)) == [0, 5, 6]


# ---- the reply is lost


def _lose_replies(monkeypatch: pytest.MonkeyPatch, log: Log, times: int) -> None:
    """COMMIT goes through, its answer does not come."""
    write = log.catalog.write
    left = [times]

    @contextmanager
    def losing() -> Iterator[Connection]:
        with write() as connection:
            yield connection
        if left[0]:
            left[0] -= 1
            raise CatalogError("the catalog refused: disk I/O error")

    monkeypatch.setattr(log.catalog, "write", losing)


def test_after_a_lost_reply_the_batch_is_there_once(lake: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    with Producer(lake, linger_ms=60_000) as producer:
        _lose_replies(monkeypatch, lake, 1)
        keyed = [producer.send(LEFT, [{"n": n, "part": 0}, {"n": n, "part": 1}]) for n in range(4)]
        event = producer.send(RIGHT, [{"n": 1}, {"n": 2}, {"n": 1}], event_id=["a", "b", "a"])
        receipt = event.result()
        assert (receipt.rows, receipt.duplicates, receipt.repeated) == (2, 1, True)
        assert receipt.offsets == {0: range(2)}
        assert producer.send(RIGHT, {"n": 3}, event_id="b").result().duplicates == 1
    where = {
        (row["_partition"], row["_offset"]): row["n"]
        for row in lake.read_changes(LEFT, 0, 99, ["n", "_partition", "_offset"]).to_pylist()
    }
    assert len(where) == 8
    for number, delivery in enumerate(keyed):
        found = [where[partition, at] for partition, span in delivery.result().offsets.items() for at in span]
        assert found == [number, number]
    assert _numbers(lake, RIGHT) == [1, 2]


def test_a_lost_reply_within_a_transaction(lake: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    with Producer(lake) as producer:
        _lose_replies(monkeypatch, lake, 1)
        with producer.transaction() as tx:
            tx.send(LEFT, {"n": 1, "part": 0}, expect_offset={1: 0, 0: 0})
            tx.send(RIGHT, {"n": 1})
    assert (_numbers(lake, LEFT), _numbers(lake, RIGHT)) == ([1], [1])


def test_a_catalog_that_refuses_for_a_while_is_tried_again(lake: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    write = lake.catalog.write
    left = [2]

    @contextmanager
    def refusing() -> Iterator[Connection]:
        if left[0]:
            left[0] -= 1
            raise CatalogError("the catalog refused: database is locked")
        with write() as connection:
            yield connection

    monkeypatch.setattr("headwater.client.publish.BACKOFF_S", 0.0)
    with Producer(lake) as producer:
        monkeypatch.setattr(lake.catalog, "write", refusing)
        assert not producer.send(LEFT, {"n": 1, "part": 0}).result().repeated
    assert _numbers(lake, LEFT) == [1]


@pytest.mark.parametrize("call", ["create", "write", "fsync", "fsync_folder"])
def test_a_failing_disk_fails_the_batch_and_the_producer_goes_on(lake: Log, call: Any) -> None:
    faulty = FaultyStorage(lake.folder)
    lake.storage = faulty
    with Producer(lake) as producer:
        faulty.fail(call)
        with pytest.raises(StorageError):
            producer.send(LEFT, {"n": 1, "part": 0}).result()
        assert producer.send(LEFT, {"n": 2, "part": 0}).result().rows == 1
    assert _numbers(lake, LEFT) == [2]


def test_a_failed_batch_of_a_relaxed_producer_is_not_silent(lake: Log) -> None:
    faulty = FaultyStorage(lake.folder)
    lake.storage = faulty
    producer = Producer(lake, durability="relaxed")
    faulty.fail("fsync")
    assert producer.send(LEFT, {"n": 1, "part": 0}).result().commit is None
    with pytest.raises(StorageError):
        producer.close()


# ---- forgotten


class _Clock:
    def __init__(self, start: int) -> None:
        self.now = start

    def now_us(self) -> int:
        return self.now


@pytest.fixture
def clock(lake: Log) -> _Clock:
    lake.clock = found = _Clock(lake.clock.now_us())
    return found


def test_a_producer_without_a_name_outlives_its_record(lake: Log, clock: _Clock) -> None:
    with Producer(lake) as producer:
        for number in range(3):
            producer.send(LEFT, {"n": number, "part": 0}).result()
        old = producer.name
        clock.now += (sequence.NAMELESS_KEPT_S + 1) * 10**6
        with Producer(lake):  # opening one forgets the old ones
            assert lake.producer(old).epoch == 0
        assert producer.send(LEFT, {"n": 3, "part": 0}).result().rows == 1
        assert producer.name != old
    assert sorted(_numbers(lake, LEFT)) == [0, 1, 2, 3]


def test_a_forgotten_name_begins_anew_and_fences_who_held_it(lake: Log, clock: _Clock) -> None:
    Producer(lake, "load").close()
    old = Producer(lake, "load")
    old.send(LEFT, {"n": 1, "part": 0}, sequence=0).result()
    clock.now += (sequence.NAMED_KEPT_S - 1) * 10**6
    Producer(lake).close()
    assert lake.producer("producer:load").epoch == 2
    clock.now += 2 * 10**6
    Producer(lake).close()
    assert lake.producer("producer:load").epoch == 0
    with pytest.raises(Fenced):
        old.send(LEFT, {"n": 1, "part": 0}, sequence=0).result()
    with Producer(lake, "load") as new:
        assert (new.next_sequence, lake.producer("producer:load").epoch) == (0, 3)
        with pytest.raises(ProducerConflict, match="its record has expired"):
            new.send(LEFT, {"n": 2, "part": 0}, sequence=1).result()
    assert lake.producer("system:test").epoch > 0, "only producers of clients are forgotten"


# ---- event ids


def test_two_processes_that_send_the_same_events(lake: Log, seed: int) -> None:
    count, pipes, processes = 1000, [], []
    for n in range(2):
        here, there = FORKS.Pipe()
        processes.append(_start(producing.same_events, lake.folder, count, seed + n, there))
        pipes.append(here)
    for _ in range(count // 50):
        for pipe in pipes:
            assert pipe.recv() == "ready"
        for pipe in pipes:
            pipe.send("go")
    told = [pipe.recv() for pipe in pipes]
    for process in processes:
        process.join(30)
    assert sorted(_numbers(lake, RIGHT)) == list(range(count))
    assert (sum(rows for rows, _ in told), sum(dropped for _, dropped in told)) == (count, count)
    assert all(rows for rows, _ in told)


def test_a_window_goes_by_commit_times_and_spans_both_tiers(lake: Log, clock: _Clock) -> None:
    with Producer(lake) as producer:
        producer.send(RIGHT, [{"n": 1}, {"n": 2}], event_id=["a", "b"]).result()
        clock.now += 1800 * 10**6
        producer.send(RIGHT, [{"n": 3}, {"n": 4}, {"n": 5}], event_id=["b", "c", None]).result()
        seal.seal(lake, Settings())
    with Producer(lake) as other:
        assert other.send(RIGHT, [{"n": 6}, {"n": 7}], event_id=["a", "c"]).result().duplicates == 2
        clock.now += 1801 * 10**6
        receipt = other.send(RIGHT, [{"n": 8}, {"n": 9}, {"n": 10}], event_id=["a", "c", None]).result()
        assert (receipt.rows, receipt.duplicates) == (2, 1)
        assert other.send(RIGHT, {"n": 11}, event_id="a").result().duplicates == 1
    assert _numbers(lake, RIGHT) == [1, 2, 4, 5, 8, 10]


def test_a_race_for_one_event_is_sifted_again(lake: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other producer commits the same id between this one's look and its commit."""
    advance = event_ids.Window.advance
    raced: list[int] = []

    with Producer(lake) as mine, Producer(lake) as other:

        def racing(window: event_ids.Window) -> None:
            advance(window)
            if not raced:
                raced.append(1)
                other.send(RIGHT, [{"n": 1}, {"n": 2}], event_id=["a", "b"]).result()

        monkeypatch.setattr(event_ids.Window, "advance", racing)
        receipt = mine.send(RIGHT, [{"n": 1}, {"n": 3}], event_id=["a", "c"]).result()
    assert raced
    assert (receipt.rows, receipt.duplicates) == (1, 1)
    assert _numbers(lake, RIGHT) == [1, 2, 3]


def test_windows_of_many_ids_are_exact(lake: Log, clock: _Clock, seed: int) -> None:
    chance = random.Random(seed)
    times: dict[str, int] = {}
    with Producer(lake) as producer:
        for _ in range(25):
            clock.now += chance.randrange(600) * 10**6
            ids = [str(chance.randrange(400)) for _ in range(60)]
            receipt = producer.send(RIGHT, [{"n": 0}] * 60, event_id=ids).result()
            newest = lake.commit_info(receipt.commit or 0).time.timestamp() * 1e6 if receipt.commit else clock.now
            fresh = [each for each in dict.fromkeys(ids) if times.get(each, 0) < clock.now - 3600 * 10**6]
            assert receipt.rows == len(fresh)
            times.update(dict.fromkeys(fresh, round(newest)))


def test_a_window_is_bounded(lake: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_ids, "IDS_MAX", 10)
    with Producer(lake) as producer:
        producer.send(RIGHT, [{"n": n} for n in range(10)], event_id=[str(n) for n in range(10)]).result()
        with pytest.raises(BufferFull, match="dedupe window"):
            producer.send(RIGHT, {"n": 10}, event_id="10").result()
        assert producer.send(RIGHT, {"n": 10}, event_id="9").result().duplicates == 1


# ---- beside consumers, other threads and administration


def test_read_process_write_is_one_commit(lake: Log) -> None:
    with Producer(lake) as producer, Consumer(lake, RIGHT, "doubling", auto_commit=False) as consumer:
        producer.send(RIGHT, [{"n": n} for n in range(10)]).result()
        for attempt in range(2):
            batch = consumer.poll(10)
            assert batch is not None
            assert batch.table.column("n").to_pylist() == list(range(10)), "an aborted transaction moved the group on"
            with producer.transaction() as writing:
                writing.send(LEFT, [{"n": n, "part": 2 * n} for n in batch.table.column("n").to_pylist()])
                writing.commit_offsets(consumer)
                if attempt == 0:
                    writing.abort()
        assert consumer.poll(0) is None
    assert sorted(_numbers(lake, LEFT)) == list(range(10))
    with Consumer(lake, RIGHT, "doubling") as consumer:
        assert consumer.poll(0.1) is None


def test_a_fenced_consumer_does_not_break_the_producer(lake: Log) -> None:
    with Producer(lake) as producer, Consumer(lake, RIGHT, "g", auto_commit=False) as consumer:
        producer.send(RIGHT, {"n": 1}).result()
        assert consumer.poll(10) is not None
        with producer.transaction() as tx:
            tx.send(LEFT, {"n": 1, "part": 0})
            tx.commit_offsets(consumer)
            with lake.catalog.write() as connection:
                connection.exec_driver_sql("UPDATE assignment SET owner = 'another', generation = generation + 1")
            with pytest.raises(FencedMember):
                tx.commit()
        assert _numbers(lake, LEFT) == []
        producer.send(LEFT, {"n": 2, "part": 0})
    assert _numbers(lake, LEFT) == [2]


def test_threads_share_a_producer_and_each_keeps_its_order(lake: Log) -> None:
    with Producer(lake) as producer:

        def send(me: int) -> None:
            for n in range(50):
                producer.send(RIGHT, {"n": me * 1000 + n})

        threads = [threading.Thread(target=send, args=(me,)) for me in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    numbers = _numbers(lake, RIGHT)
    assert len(numbers) == 200
    for me in range(4):
        assert [n % 1000 for n in numbers if n // 1000 == me] == list(range(50))


def test_a_topic_repartitioned_or_dropped_under_a_producer(lake: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    changed: list[str] = []
    stage = Publisher._stage

    with Producer(lake) as producer:

        def staging(publisher: Publisher, tx: Transaction, part: Any) -> None:
            """The topic changes after the rows were made for its partitions."""
            stage(publisher, tx, part)
            if not changed:
                changed.append(LEFT)
                repartition(lake, LEFT, 3)

        monkeypatch.setattr(Publisher, "_stage", staging)
        receipt = producer.send(LEFT, [{"n": n, "part": 0} for n in range(20)]).result()
        assert set(receipt.offsets) == {2, 3, 4}
    with Producer(lake, linger_ms=60_000) as producer:
        accepted = producer.send(RIGHT, {"n": 1})
        with Writer(lake, "system:other").transaction() as tx:
            tx.drop_topic(RIGHT)
            tx.commit()
        with pytest.raises(NameNotFound):
            accepted.result()
        producer.send(LEFT, {"n": 20, "part": 0})
    assert sorted(_numbers(lake, LEFT)) == list(range(21))


# ---- relaxed, and the end of the interpreter


def test_what_a_killed_relaxed_producer_loses_is_bounded(lake: Log) -> None:
    here, there = FORKS.Pipe()
    process = _start(producing.relaxed, lake.folder, there)
    there.close()
    accepted: list[tuple[int, float]] = []
    while len(accepted) < 500 or not lake.wait(1, 0):
        accepted.append(here.recv())
    process.kill()
    process.join(30)
    try:
        while True:
            accepted.append(here.recv())
    except EOFError:
        pass
    kept = sorted(_numbers(lake, LEFT))
    assert kept == list(range(len(kept))), "a gap: what was lost is not the newest"
    lost = [at for number, at in accepted if number >= len(kept)]
    assert kept
    assert len(lost) * 16 <= 1 << 20
    assert not lost or lost[-1] - lost[0] <= RELAXED_AGE_MS / 1000 + 0.1


def _interpreter(log: Log, body: str) -> subprocess.CompletedProcess[str]:
    program = f"""
        import sys
        from headwater.log import open_log
        from headwater.client import producer as client
        from pathlib import Path
        log = open_log(Path({str(log.folder)!r}))
        {body}
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )


def test_an_interpreter_that_ends_commits_what_was_accepted(lake: Log) -> None:
    ended = _interpreter(lake, 'client.Producer(log, linger_ms=60_000).send("left", {"n": 1, "part": 0})')
    assert (ended.returncode, ended.stderr) == (0, "")
    assert _numbers(lake, LEFT) == [1]


def test_an_interpreter_that_cannot_commit_any_more_says_so(lake: Log) -> None:
    body = """client.EXIT_S = 0.2
        producer = client.Producer(log, "late")
        producer.send("left", {"n": 1, "part": 0}).result()
        lock = log.catalog.write()
        lock.__enter__()
        producer.send("left", {"n": 2, "part": 0})"""
    ended = _interpreter(lake, body)
    assert "producer:late was not closed, and lost what it held" in ended.stderr
    assert _numbers(lake, LEFT) == [1]


def test_what_another_writer_did_meanwhile_is_expected_or_refused(lake: Log) -> None:
    with Producer(lake) as producer, Producer(lake) as other:
        other.send(RIGHT, pa.table({"n": [1, 2, 3]})).result()
        with pytest.raises(OffsetConflict) as conflict:
            producer.send(RIGHT, {"n": 4}, expect_offset=0).result()
        assert conflict.value.actual == 3
