"""Writers that meet: what the processes of a test about several of them do."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pyarrow as pa

from headwater.errors import HeadwaterError
from headwater.log import Log, open_log
from headwater.schema import Schema
from headwater.testing import mutations
from headwater.testing.writer import Writer

TOPIC = "shop.public.t"
SCHEMA = Schema.of({"writer": "BIGINT", "number": "BIGINT"}, key=["writer", "number"])
COMMITS, ROWS = 8, 5


def producer(number: int) -> str:
    return f"source:w{number}"


def rows(writer: int, commit: int) -> pa.Table:
    numbers = range(commit * ROWS, (commit + 1) * ROWS)
    return pa.table(
        {
            "writer": pa.repeat(pa.scalar(writer, pa.int64()), ROWS),
            "number": pa.array(numbers, pa.int64()),
            "_op": ["c"] * ROWS,
        }
    )


def write_all(log: Log, number: int, each_round: Barrier | None = None) -> None:
    """All commits of one writer, each at the position that the one before left; with a barrier, in rounds."""
    writer = Writer(log, producer(number))
    for commit in range(COMMITS):
        if each_round is not None:
            each_round.wait(20)
        writer.write(TOPIC, rows(number, commit), position=str(commit + 1))


def write_in_process(folder: Path, number: int, each_round: Barrier) -> None:
    """In rounds: all commits of one take less time than a process takes to start, and they would never meet."""
    mutations.MUTATIONS.apply_from_environment()
    with open_log(folder) as log:
        write_all(log, number, each_round)


def hold_a_transaction(folder: Path, pipe: Connection) -> None:
    """Begin a commit and tell; on the word, try to end it, and tell what came of it."""
    mutations.MUTATIONS.apply_from_environment()
    with open_log(folder) as log:
        writer = Writer(log, producer(0))
        with writer.transaction() as tx:
            tx.append(TOPIC, rows(0, 0))
            tx.position = "1"
            pipe.send(os.getpid())
            pipe.recv()
            try:
                tx.commit()
                pipe.send("committed")
            except HeadwaterError as error:
                pipe.send(type(error).__name__)
