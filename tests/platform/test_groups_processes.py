"""A group of processes under joins, leaves, SIGKILL and SIGSTOP: every row, one owner at a time, no standstill."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections import defaultdict
from contextlib import suppress
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.waiting import until

from headwater.log import Log, offsets
from headwater.schema import Schema
from headwater.testing import group_worker
from headwater.testing.forks import FORKS
from headwater.testing.writer import Writer

PARTITIONS, MEMBERS = 16, 8
TOPIC, GROUP = "shop.public.orders", "etl"
WAIT_S = 60.0


class Crowd:
    """The group's processes and their journal."""

    def __init__(self, log: Log, folder: Path, lease_s: float, rng: random.Random) -> None:
        self.log, self.lease_s, self.rng = log, lease_s, rng
        self.journal = folder / "journal"
        self.processes: dict[int, BaseProcess] = {}
        self.stopped: dict[int, float] = {}
        self.did: list[tuple[float, str]] = []

    def join(self) -> None:
        arguments = (self.log.folder, TOPIC, GROUP, self.journal, self.lease_s)
        process = FORKS.Process(target=group_worker.read, args=arguments, daemon=True)
        process.start()
        assert process.pid is not None
        self.processes[process.pid] = process

    def act(self) -> None:
        """One random thing, and waking up who slept for longer than a lease. Half of the members stay in peace."""
        for pid in [pid for pid, since in self.stopped.items() if time.monotonic() - since > 1.5 * self.lease_s]:
            self.send(pid, signal.SIGCONT)
            del self.stopped[pid]
        running = [pid for pid, each in self.processes.items() if each.is_alive() and pid not in self.stopped]
        began = {line["pid"] for line in self.lines() if line["what"] == "began"}
        members = [pid for pid in running if pid in began]
        kinds: list[signal.Signals | None] = [None] if len(running) < MEMBERS else []
        kinds += [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM] if len(members) > MEMBERS // 2 else []
        if not kinds:
            return
        kind = self.rng.choice(kinds)
        if kind is None:
            self.join()
            return
        victim = self.rng.choice(members)
        self.send(victim, kind)
        if kind == signal.SIGSTOP:
            self.stopped[victim] = time.monotonic()

    def send(self, pid: int, kind: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # one that was stopped inside a transaction is killed by who waits for it
            os.kill(pid, kind)
        self.did.append((time.monotonic(), f"{kind.name} {pid}"))

    def calm(self) -> None:
        while self.stopped:
            self.send(self.stopped.popitem()[0], signal.SIGCONT)

    def end(self) -> None:
        self.calm()
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.join(WAIT_S)
            process.kill()
            process.join()
        assert {process.exitcode for process in self.processes.values()} <= {0, -signal.SIGKILL, -signal.SIGTERM}

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.journal.read_text().splitlines()] if self.journal.exists() else []


def supply(log: Log, stop: threading.Event) -> None:
    """New records in every partition, all the time."""
    writer = Writer(log)
    number = 0
    while not stop.wait(0.1):
        with writer.transaction() as tx:
            tx.append(TOPIC, pa.table({"id": range(number, number + 10 * PARTITIONS)}))
            tx.commit()
        number += 10 * PARTITIONS


def check(log: Log, lines: list[dict[str, Any]]) -> None:
    """Every record was handed out; in each generation of a partition by one process, and there only once."""
    owners: dict[tuple[int, int], set[int]] = defaultdict(set)
    handed: dict[int, list[tuple[int, int]]] = defaultdict(list)
    spans: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for line in lines:
        if line["what"] == "read":
            owners[line["partition"], line["generation"]].add(line["pid"])
            spans[line["partition"], line["generation"]].append((line["first"], line["last"]))
            handed[line["partition"]].append((line["first"], line["last"]))
    assert {place: found for place, found in owners.items() if len(found) > 1} == {}
    for found in spans.values():
        assert all(before[1] < after[0] for before, after in pairwise(found)), found
    topic = log.topic(TOPIC)
    with log.catalog.read() as connection:
        states = offsets.states(connection, [topic.id])
        stored = offsets.stored(connection, GROUP)
    for state in states:
        reached = 0
        for first, last in sorted(handed[state.partition]):
            assert first <= reached, f"offsets {reached} to {first - 1} of partition {state.partition} were skipped"
            reached = max(reached, last + 1)
        assert reached == state.next_offset == stored[state.place].offset


def storm(log: Log, folder: Path, seed: int, lease_s: float, seconds: float) -> None:
    print(f"seed {seed}")
    Writer(log).create(TOPIC, "event", Schema.of(id="BIGINT"), partitions=PARTITIONS)
    crowd = Crowd(log, folder, lease_s, random.Random(seed))
    enough = threading.Event()
    source = threading.Thread(target=supply, args=(log, enough))
    source.start()
    try:
        for _ in range(MEMBERS):
            crowd.join()
        until(lambda: len(read_of(crowd.lines())) > MEMBERS, "every process reads")
        begin = time.monotonic()
        while time.monotonic() < begin + seconds:
            crowd.act()
            enough.wait(crowd.rng.uniform(0.1, 0.5))
        crowd.calm()
        end = time.monotonic()
        enough.set()
        source.join()
        until(lambda: _lag(log) == 0, "all was read", WAIT_S)
    finally:
        enough.set()
        source.join()
        crowd.end()
    lines = crowd.lines()
    check(log, lines)
    times = [begin, *(line["at"] for line in read_of(lines) if begin < line["at"] < end), end]
    gap, at = max((after - before, before) for before, after in pairwise(times))
    count = {what: sum(line["what"] == what for line in lines) for what in ("read", "committed", "fenced", "left")}
    print(f"{count}, {len(crowd.did)} interventions, longest standstill {gap:.3f} s, lease {lease_s} s")
    near = [f"{when - at:+.2f} {what}" for when, what in crowd.did if -3 < when - at < gap + 1]
    assert gap <= lease_s, near


def read_of(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted((line for line in lines if line["what"] == "read"), key=lambda line: line["at"])


def _lag(log: Log) -> int:
    with log.catalog.read() as connection:
        states = offsets.states(connection, [log.topic(TOPIC).id])
        stored = offsets.stored(connection, GROUP)
    return sum(offsets.lag(state, stored[state.place].offset) for state in states)


def test_processes_share_sixteen_partitions_under_kills_and_pauses(log: Log, tmp_path: Path, seed: int) -> None:
    storm(log, tmp_path, seed, lease_s=3.0, seconds=6.0)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_processes_share_sixteen_partitions_for_a_minute(log: Log, tmp_path: Path, seed: int) -> None:
    storm(log, tmp_path, seed, lease_s=4.0, seconds=60.0)
