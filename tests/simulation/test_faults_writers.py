"""Several writers, writers that sleep, clocks that jump, files that vanish: no offset twice, no record lost."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from headwater.catalog.records import to_datetime
from headwater.config import Settings
from headwater.errors import Fenced, PositionConflict, StorageError
from headwater.log import Log, open_log, recovery, seal
from headwater.log.verify import verify
from headwater.testing.forks import FORKS
from headwater.testing.rivals import (
    COMMITS,
    ROWS,
    SCHEMA,
    TOPIC,
    hold_a_transaction,
    producer,
    rows,
    write_all,
    write_in_process,
)
from headwater.testing.writer import Writer


def check(log: Log, writers: int) -> None:
    """Every row of every writer once; offsets dense; each writer's rows in its order; nothing that verify finds."""
    found = log.read_changes(TOPIC, 0, log.newest_commit()).to_pylist()
    sent = Counter((writer, number) for writer in range(writers) for number in range(COMMITS * ROWS))
    assert Counter((row["writer"], row["number"]) for row in found) == sent
    for partition in (0, 1):
        part = [row for row in found if row["_partition"] == partition]
        assert [row["_offset"] for row in part] == list(range(len(part)))
        for writer in range(writers):
            mine = [row["number"] for row in part if row["writer"] == writer]
            assert mine == sorted(mine)
    assert not verify(log, deep=True).findings


def test_writers_in_threads(log: Log) -> None:
    Writer(log, producer(0)).create(TOPIC, "table", SCHEMA, partitions=2)
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            write_all(log, number)
        except BaseException as error:  # noqa: BLE001 - it is raised below, in the test's own thread
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    check(log, 4)


def test_writers_in_processes(log: Log) -> None:
    Writer(log, producer(0)).create(TOPIC, "table", SCHEMA, partitions=2)
    rounds = FORKS.Barrier(3)
    children = [FORKS.Process(target=write_in_process, args=(log.folder, number, rounds)) for number in range(2)]
    for child in children:
        child.start()
    write_all(log, 2, rounds)
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    check(log, 3)


def test_a_writer_that_slept_through_its_succession_is_fenced(log: Log) -> None:
    """SIGSTOP in the midst of a commit, a successor that writes the same, SIGCONT: refused, and nothing of it seen."""
    Writer(log, producer(0)).create(TOPIC, "table", SCHEMA, partitions=2)
    ours, theirs = FORKS.Pipe()
    child = FORKS.Process(target=hold_a_transaction, args=(log.folder, theirs))
    child.start()
    pid = ours.recv()
    os.kill(pid, signal.SIGSTOP)
    write_all(log, 0)
    os.kill(pid, signal.SIGCONT)
    ours.send("go on")
    assert ours.recv() == "Fenced"
    child.join()
    check(log, 1)


def test_an_older_owner_and_an_older_position_are_refused(log: Log) -> None:
    writer = Writer(log, producer(0))
    writer.create(TOPIC, "table", SCHEMA, partitions=2)
    with log.transaction(writer.producer, writer.epoch, "elsewhere") as tx:
        tx.append(TOPIC, rows(0, 0))
        with pytest.raises(PositionConflict):
            tx.commit()
    stale = Writer(log, producer(0))
    write_all(log, 0)
    with stale.transaction() as tx:
        tx.append(TOPIC, rows(0, 0))
        with pytest.raises(Fenced):
            tx.commit()
    check(log, 1)


# ---- clocks


class JumpingClock:
    """Goes where it is told; real clocks do that when a machine wakes, or a person corrects one."""

    def __init__(self, now_us: int) -> None:
        self.now = now_us

    def now_us(self) -> int:
        return self.now


DAY_US = 86_400_000_000
JUMPS = {
    "a day on": [DAY_US],
    "a day back": [-DAY_US],
    "on and back": [DAY_US, -DAY_US],
    "strobing": [3_000_000, -3_000_000] * 4,
    "standing": [0] * 4,
}


@pytest.mark.parametrize("jumps", JUMPS.values(), ids=list(JUMPS))
def test_a_clock_that_jumps(tmp_path: Path, seed: int, jumps: list[int]) -> None:
    """Commit times grow whatever the clock does, and a position by time is the newest commit until then."""
    clock = JumpingClock(1_700_000_000_000_000 + seed % DAY_US)
    with open_log(tmp_path / "lake", create=True, clock=clock) as log:
        writer = Writer(log, producer(0))
        writer.create(TOPIC, "table", SCHEMA, partitions=2)
        for commit, jump in enumerate((jumps * COMMITS)[:COMMITS]):
            writer.write(TOPIC, rows(0, commit), position=str(commit + 1))
            clock.now += jump
            if commit == COMMITS // 2:
                seal.seal(log, Settings())
        commits = log.commits()
        times = [info.time for info in commits]
        assert times == sorted(set(times))
        for info in commits:
            assert log.commit_at_time(info.time) == info.number
            assert log.commit_at_time(info.time - timedelta(microseconds=1)) == info.number - 1
        assert log.commit_at_time(to_datetime(0)) == 0
        recovery.remove_retired(log, grace_s=900)
        check(log, 1)


def test_a_clock_that_jumps_does_not_take_a_file_that_is_being_written(log: Log) -> None:
    """An hour's grace is over at once: what the transaction wrote is an orphan to whoever cleans up beside it."""
    clock = JumpingClock(log.clock.now_us())
    log.clock = clock
    writer = Writer(log, producer(0))
    writer.create(TOPIC, "table", SCHEMA, partitions=2)
    with writer.transaction() as tx:
        tx.append(TOPIC, rows(0, 0))
        clock.now += DAY_US
        recovery.remove_orphans(log)
        with pytest.raises(StorageError, match="removed"):
            tx.commit()
    clock.now -= DAY_US
    write_all(log, 0)
    check(log, 1)


def test_nobody_cleans_up_beside_an_open_transaction(log: Log) -> None:
    """Within the grace an unnamed file is somebody's work."""
    writer = Writer(log, producer(0))
    writer.create(TOPIC, "table", SCHEMA, partitions=2)
    for commit in range(COMMITS):
        with writer.transaction() as tx:
            tx.append(TOPIC, rows(0, commit))
            tx.position = str(commit + 1)
            assert recovery.remove_orphans(log) == 0
            tx.commit()
    check(log, 1)


def test_the_order_of_commits_is_one_for_all_readers(log: Log, seed: int) -> None:
    """Positions taken at any moment read the same afterwards: what was seen of a commit is all of it, for ever."""
    writer = Writer(log, producer(0))
    writer.create(TOPIC, "table", SCHEMA, partitions=2)
    write_all(log, 0)
    first = {at: log.read_changes(TOPIC, 0, at) for at in range(log.newest_commit() + 1)}
    seal.seal(log, Settings())
    for at in random.Random(seed).sample(sorted(first), k=4):
        assert log.read_changes(TOPIC, 0, at).equals(first[at])
