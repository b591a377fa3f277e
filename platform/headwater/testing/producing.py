"""What a crash test kills on the producing side: processes that produce numbered batches through the client.

Batch n puts n into two topics in one transaction, one of them with an event id and a window; whatever happens, a
later run goes on with the number that the log says is next.
"""

from __future__ import annotations

import os
import random
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa

from headwater import failpoint
from headwater.catalog.records import Kind, TopicSettings
from headwater.client.producer import Producer
from headwater.errors import Fenced
from headwater.log import Log, open_log
from headwater.schema import Field, Schema

LEFT, RIGHT = "left", "right"
NAME = "load"
FENCED = 7
"""Exit code of a process that learnt that another one took its name over."""


EVENTS = Schema(
    fields=(
        Field(id=1, name="id", type="BIGINT", nullable=False),
        Field(id=2, name="name", type="VARCHAR", nullable=False),
        Field(id=3, name="amount", type="DECIMAL(12,2)"),
        Field(id=4, name="kind", type="VARCHAR", nullable=False, write_default="web"),
    ),
    key=("id",),
)


def make_topic(log: Log, name: str, schema: Schema, kind: Kind = "event", partitions: int = 1, **settings: Any) -> None:
    """A topic for producers, in a commit of its own."""
    with log.transaction("system:test", log.raise_epoch("system:test")) as tx:
        tx.create_topic(name, kind, schema, partitions=partitions, settings=TopicSettings(**settings))
        tx.commit()


def read(log: Log, topic: str, *columns: str) -> list[dict[str, Any]]:
    """Every record of a topic, or these columns of them, by partition and offset."""
    found: list[dict[str, Any]] = log.read_changes(topic, 0, log.newest_commit(), columns or None).to_pylist()
    return found


def create(log: Log) -> None:
    """The two topics: keyed rows over two partitions, and events that are dropped when they come again."""
    make_topic(log, LEFT, Schema.of({"n": "BIGINT", "part": "BIGINT"}, key=["n"]), partitions=2)
    make_topic(log, RIGHT, Schema.of({"n": "BIGINT"}), dedupe_s=3600)


def run(folder: Path, acknowledged: Path, count: int, plan: str = "") -> None:
    """Produce batches up to ``count``; each number is written to ``acknowledged`` once its commit is known."""
    failpoint.follow(plan)
    with open_log(folder) as log, Producer(log, NAME) as producer:
        for number in range(producer.next_sequence, count):
            with producer.transaction() as tx:
                tx.send(LEFT, [{"n": number, "part": part} for part in range(3)])
                tx.send(RIGHT, {"n": number}, event_id=str(number))
            _acknowledge(acknowledged, number)


def fenced(folder: Path, pipe: Connection) -> None:
    """Send one row, say so, and send another when asked; exit code ``FENCED`` when that is refused."""
    with open_log(folder) as log:
        producer = Producer(log, NAME)
        producer.send(LEFT, {"n": 0, "part": 0}).result()
        pipe.send("sent")
        pipe.recv()
        try:
            producer.send(LEFT, {"n": 1, "part": 0}).result()
        except Fenced:
            os._exit(FENCED)


def same_events(folder: Path, count: int, seed: int, pipe: Connection) -> None:
    """Send the same events as everyone else, in an order of one's own, a batch at each word; tells its counts."""
    chance = random.Random(seed)
    numbers = list(range(count))
    chance.shuffle(numbers)
    with open_log(folder) as log, Producer(log) as producer:
        while numbers:
            pipe.send("ready")
            pipe.recv()
            batch, numbers = numbers[:50], numbers[50:]
            producer.send(RIGHT, pa.table({"n": batch, "_event_id": [str(n) for n in batch]})).result()
        pipe.send((producer.counters().rows, producer.counters().duplicates))


def relaxed(folder: Path, pipe: Connection) -> None:
    """Accept rows until killed; tells the time (seconds since 1970) and number of each accepted one."""
    with open_log(folder) as log, Producer(log, durability="relaxed", buffer_bytes=1 << 20) as producer:
        number = 0
        while True:
            producer.send(LEFT, {"n": number, "part": 0}).result()
            pipe.send((number, time.time()))
            number += 1


def command(args: list[str], plan: str) -> None:
    """The command line with these arguments, to its end or its death."""
    failpoint.follow(plan)
    from headwater.cli.main import main  # only here: the core does not know its commands

    main(args)


def _acknowledge(path: Path, number: int) -> None:
    failpoint.hit("acknowledge:before")
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{number}\n")
        file.flush()
        os.fsync(file.fileno())
    failpoint.hit("acknowledge:after")
