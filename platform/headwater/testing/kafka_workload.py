"""Processes of the Jepsen test: producers with transactions over topics, members of a group, and their journal.

Values are unique. A producer writes down what it is about to send and then what became of it; a consumer what a
poll returned, before it commits. A line that is there survives SIGKILL; a producer's attempt without an end has an
unknown outcome.
"""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path
from typing import Any

from headwater.client.consumer import Consumer
from headwater.client.producer import Producer
from headwater.errors import CatalogError, Fenced, FencedMember, NotDelivered
from headwater.log import Log, open_log
from headwater.schema import Schema
from headwater.testing.kafka_checker import Operation, Poll, Send, State
from headwater.testing.writer import Writer

TOPICS = [f"t{number}" for number in range(8)]
"""One partition each: a topic is a key."""
GROUP = "readers"
ABORTED = 0.1
"""Share of the transactions that are given up at their end."""


def create(log: Log) -> None:
    with Writer(log).transaction() as tx:
        for name in TOPICS:
            tx.create_topic(name, "event", Schema.of(value="BIGINT"))
        tx.commit()


def produce(lake: Path, journal: Path, name: str) -> None:
    """Transactions of a few values to a few topics, until SIGTERM; a later process of this name fences this one."""
    say, going = _begin(journal)
    with open_log(lake) as log:
        producer = Producer(log, name, linger_ms=0)
        number = 0
        while going():
            number += 1
            sends = [(topic, random.getrandbits(52)) for topic in random.choices(TOPICS, k=random.randint(1, 4))]
            say(what="begin", number=number, sends=sends)
            try:
                offsets = _transaction(producer, sends)
            except _Aborted:
                say(what="fail", number=number)
            except Fenced:
                say(what="fail", number=number)
                return
            except (NotDelivered, CatalogError) as error:
                say(what="info", number=number, error=str(error))
            else:
                say(what="ok", number=number, offsets=offsets)
        producer.close()


class _Aborted(Exception):
    """The transaction was given up on purpose."""


def _transaction(producer: Producer, sends: list[tuple[str, int]]) -> list[int]:
    with producer.transaction() as tx:
        deliveries = [tx.send(topic, {"value": value}) for topic, value in sends]
        if random.random() < ABORTED:
            raise _Aborted
    return [delivery.result().offsets[0].start for delivery in deliveries]


def consume(lake: Path, journal: Path, lease_s: float) -> None:
    """A member of the group, until SIGTERM."""
    say, going = _begin(journal)
    with open_log(lake) as log:
        consumer = Consumer(log, TOPICS, GROUP, batch_rows=20, auto_commit=False, lease_s=lease_s)
        known: dict[str, int] = {}
        while going():
            batch = consumer.poll(timeout=0.1)
            if batch is None:
                continue
            fresh = known.get(batch.topic) != batch.generation
            known[batch.topic] = batch.generation
            table = batch.arrow()
            records = list(zip(table.column("_offset").to_pylist(), table.column("value").to_pylist(), strict=True))
            say(what="poll", topic=batch.topic, fresh=fresh, records=records)
            try:
                consumer.commit()
            except FencedMember:
                say(what="fenced")
                known.clear()
        consumer.close()


def _begin(journal: Path) -> tuple[Any, Any]:
    """How to write a line, and whether to go on."""
    stopped = False

    def stop(_signal: int, _frame: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    descriptor = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def say(**line: Any) -> None:
        os.write(descriptor, f"{json.dumps({'process': str(os.getpid()), **line})}\n".encode())

    return say, lambda: not stopped


def history(journal: Path) -> list[Operation]:
    """The journal as operations; a producer's attempt stands where it began."""
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    ends = {(line["process"], line["number"]): line for line in lines if line["what"] in ("ok", "fail", "info")}
    found = []
    for line in lines:
        if line["what"] == "begin":
            end = ends.get((line["process"], line["number"]), {"what": "info"})
            found.append(_attempt(line, end["what"], end.get("offsets")))
        elif line["what"] == "poll":
            poll = Poll(records={line["topic"]: [(offset, value) for offset, value in line["records"]]})
            fresh = frozenset({line["topic"]} if line["fresh"] else ())
            found.append(Operation(process=line["process"], state="ok", actions=(poll,), fresh=fresh))
    return found


def _attempt(line: dict[str, Any], state: State, offsets: list[int] | None) -> Operation:
    places: list[int | None] = [*offsets] if offsets else [None] * len(line["sends"])
    actions = tuple(
        Send(key=key, value=value, offset=offset) for (key, value), offset in zip(line["sends"], places, strict=True)
    )
    return Operation(process=line["process"], state=state, actions=actions)
