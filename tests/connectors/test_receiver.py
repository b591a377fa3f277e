"""The receiving thread by itself: what it does when its connection ends."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from headwater.errors import SourceUnreachable
from headwater_connectors.postgres.receiver import Receiver
from headwater_connectors.postgres.stream import Block

if TYPE_CHECKING:
    from pathlib import Path


class Broken:
    """A stream whose connection ends at the first read."""

    more = False

    def __init__(self) -> None:
        self._ends = os.pipe()
        os.write(self._ends[1], b"x")

    def fileno(self) -> int:
        return self._ends[0]

    def read(self) -> Block:
        raise SourceUnreachable("the server closed the connection")

    def send(self, message: bytes) -> None:
        raise OSError(f"{len(message)} bytes to nobody")

    def close(self) -> None:
        for end in self._ends:
            os.close(end)


def test_nothing_is_written_into_files_that_were_opened_since_its_connection_ended(tmp_path: Path) -> None:
    """It is woken through a descriptor; were that closed with the connection, the next file would get what wakes it."""
    receiver = Receiver(Broken(), "shop", 0)
    receiver.start()
    receiver.join()
    files = [(tmp_path / str(number)).open("wb", buffering=0) for number in range(20)]
    receiver.ask()
    receiver.acknowledge(7)
    assert [file.tell() for file in files] == [0] * 20
    receiver.close()
    for file in files:
        file.close()
