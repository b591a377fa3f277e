"""Members of a group as processes of their own, for tests that kill and stop them.

``read`` writes down what it was handed, ``copy`` copies it to another topic exactly once. One JSON line for each
batch, written before the commit; then one for what came of the commit. Lines survive SIGKILL. SIGTERM lets the
member leave.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from headwater import failpoint
from headwater.client.consumer import Consumer
from headwater.errors import FencedMember
from headwater.log import open_log


def read(lake: Path, topic: str, group: str, journal: Path, lease_s: float, batch_rows: int = 50) -> None:
    """Read until SIGTERM."""
    going = True

    def stop(_signal: int, _frame: object) -> None:
        nonlocal going
        going = False

    signal.signal(signal.SIGTERM, stop)
    descriptor = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def say(**line: Any) -> None:
        os.write(descriptor, f"{json.dumps({'pid': os.getpid(), 'at': time.monotonic(), **line})}\n".encode())

    with open_log(lake) as log:
        consumer = Consumer(log, topic, group, batch_rows=batch_rows, auto_commit=False, lease_s=lease_s)
        began = False
        while going:
            batch = consumer.poll(timeout=0.1)
            if not began:
                say(what="began")
                began = True
            if batch is None:
                continue
            place = {"partition": batch.partition, "generation": batch.generation}
            say(what="read", **place, first=batch.first, last=batch.last, rows=len(batch))
            try:
                consumer.commit()
                say(what="committed", **place, upto=batch.last + 1)
            except FencedMember:
                say(what="fenced", **place)
        consumer.close()
        say(what="left")


def copy(lake: Path, topic: str, target: str, group: str, plan: str) -> None:
    """Append every ``id`` of a topic to another one, up to its end; ``plan`` says where to die (``failpoint``)."""
    failpoint.follow(plan)
    with (
        open_log(lake) as log,
        Consumer(log, topic, group, batch_rows=7, stop="latest", auto_commit=False, lease_s=0.3) as consumer,
    ):
        while not consumer.finished:
            batch = consumer.poll(timeout=0.1)
            if batch is not None:
                with consumer.transaction() as tx:
                    tx.append(target, batch.arrow().select(["id"]))
