"""A group's member as a process of its own, for tests that kill and stop it: it writes down what it was handed.

    python -m headwater.testing.group_worker LAKE TOPIC GROUP JOURNAL LEASE_S [BATCH_ROWS]

One JSON line for each batch, written before the commit; then one for what came of the commit. Lines survive
SIGKILL. SIGTERM lets the member leave. ``failpoint`` plans apply from the environment.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from headwater.client.consumer import Consumer
from headwater.errors import FencedMember
from headwater.log import open_log


def run(lake: Path, topic: str, group: str, journal: Path, lease_s: float, batch_rows: int = 50) -> None:
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
        while going:
            batch = consumer.poll(timeout=0.1)
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


if __name__ == "__main__":
    lake, topic, group, journal, *figures = sys.argv[1:]
    run(Path(lake), topic, group, Path(journal), float(figures[0]), *(int(each) for each in figures[1:]))
