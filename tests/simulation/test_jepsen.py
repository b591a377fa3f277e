"""Jepsen's Kafka workload: five producers, five consumers, SIGKILL and SIGSTOP at random; then the checker.

``HEADWATER_JEPSEN_SECONDS`` sets how long; the seed of the faults is printed.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from tests.waiting import until

from headwater.log import Log, offsets, open_log
from headwater.log.verify import verify
from headwater.testing import kafka_workload
from headwater.testing.forks import FORKS
from headwater.testing.kafka_checker import check
from headwater.testing.kafka_workload import GROUP, TOPICS

SECONDS = float(os.environ.get("HEADWATER_JEPSEN_SECONDS", "10"))
EACH = 5
LEASE_S = 2.0
WAIT_S = 60.0


class Cluster:
    """The processes, by the part they play: each that dies is started again under the same name."""

    def __init__(self, folder: Path, journal: Path, rng: random.Random) -> None:
        self.rng = rng
        self.targets: dict[str, tuple[Callable[..., None], tuple[object, ...]]] = {
            **{f"p{n}": (kafka_workload.produce, (folder, journal, f"p{n}")) for n in range(EACH)},
            **{f"c{n}": (kafka_workload.consume, (folder, journal, LEASE_S)) for n in range(EACH)},
        }
        self.running: dict[str, BaseProcess] = {}
        self.old: list[BaseProcess] = []
        self.stopped: dict[str, float] = {}
        self.did: Counter[str] = Counter()

    def start(self, name: str) -> None:
        target, arguments = self.targets[name]
        process = FORKS.Process(target=target, args=arguments, daemon=True)
        process.start()
        self.running[name] = process

    def step(self) -> None:
        """One fault, or none; who was killed comes back, who was stopped for longer than a lease goes on."""
        for name, process in list(self.running.items()):
            if not process.is_alive():
                self.start(name)
        for name in [n for n, since in self.stopped.items() if time.monotonic() - since > 1.3 * LEASE_S]:
            self.send(name, signal.SIGCONT)
            del self.stopped[name]
        awake = [name for name in self.running if name not in self.stopped]
        victim, kind = self.rng.choice(awake), self.rng.choice(["kill", "stop", "replace", "nothing"])
        self.did[kind] += 1
        if kind == "kill":
            self.send(victim, signal.SIGKILL)
        elif kind == "stop":
            self.send(victim, signal.SIGSTOP)
            self.stopped[victim] = time.monotonic()
        elif kind == "replace":  # another of the same name, while the first still runs: a producer is fenced
            self.old.append(self.running[victim])
            self.start(victim)

    def send(self, name: str, kind: signal.Signals) -> None:
        pid = self.running[name].pid
        assert pid is not None
        with suppress(ProcessLookupError):
            os.kill(pid, kind)

    def calm(self) -> None:
        while self.stopped:
            self.send(self.stopped.popitem()[0], signal.SIGCONT)

    def stop(self, names: list[str]) -> None:
        """Let these end in order, and whoever of theirs was replaced."""
        self.calm()
        processes = [self.running.pop(name) for name in names if name in self.running] + self.old
        self.old = []
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(WAIT_S)
            process.kill()
            process.join()
            assert process.exitcode in (0, -signal.SIGKILL, -signal.SIGTERM)


def lag(log: Log) -> int:
    topics = [log.topic(name).id for name in TOPICS]
    with log.catalog.read() as connection:
        states = offsets.states(connection, topics)
        stored = offsets.stored(connection, GROUP)
    return sum(offsets.lag(s, stored[s.place].offset) for s in states) if stored else 1


def run(folder: Path, seed: int, seconds: float) -> None:
    print(f"seed {seed}, {seconds} s")
    journal = folder / "journal"
    with open_log(folder / "lake", create=True) as log:
        kafka_workload.create(log)
        cluster = Cluster(folder / "lake", journal, random.Random(seed))
        pause = threading.Event()
        try:
            for name in cluster.targets:
                cluster.start(name)
            until(lambda: journal.exists() and '"poll"' in journal.read_text(), "the first record is read")
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                cluster.step()
                pause.wait(cluster.rng.uniform(0.05, 0.5))
            cluster.stop([f"p{n}" for n in range(EACH)])
            for name, process in list(cluster.running.items()):
                if not process.is_alive():
                    cluster.start(name)
            until(lambda: lag(log) == 0, "everything is read once the faults have ended")
        finally:
            cluster.stop(list(cluster.running))
        history = kafka_workload.history(journal)
        states = Counter(operation.state for operation in history if any(operation.sends))
        read = sum(len(records) for op in history for poll in op.polls for records in poll.records.values())
        print(f"{dict(cluster.did)}; transactions: {dict(states)}; records read: {read}")
        assert check(history) == {}
        assert states["ok"] > 0
        assert verify(log).findings == ()


@pytest.mark.long
@pytest.mark.timeout(300 + 2 * SECONDS)
def test_jepsens_kafka_workload(tmp_path: Path, seed: int) -> None:
    run(tmp_path, seed, SECONDS)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_jepsens_kafka_workload_for_a_minute(tmp_path: Path, seed: int) -> None:
    run(tmp_path, seed, 60.0)
