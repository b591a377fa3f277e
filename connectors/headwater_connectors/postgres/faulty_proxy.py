"""A TCP proxy that does what networks do: stalls, delays, loses and half-closes connections. For tests."""

from __future__ import annotations

import select
import socket
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Literal, Self

Fault = Literal["none", "stall", "delay", "drop", "half_close"]
"""none: bytes pass. stall: nothing passes, connections stand. delay: 50 ms for each piece. drop: every connection is
reset. half_close: the server's side is closed towards the client, whose own bytes still pass."""
DELAY_SECONDS = 0.05


class FaultyProxy:
    """Listens on a free port of 127.0.0.1 and passes everything to ``target``; ``fault`` may be set at any time."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.fault: Fault = "none"
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _spawn(self, run: object, *args: object) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)  # type: ignore[arg-type]
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        while not self._stop.is_set():
            if not select.select([self._listener], [], [], 0.1)[0]:
                continue
            with suppress(OSError):
                client, _ = self._listener.accept()
                self._spawn(self._pass, client)

    def _pass(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            while self.fault == "stall" and not self._stop.is_set():
                time.sleep(0.01)
            with socket.create_connection(self._target) as server:
                self._pump(client, server)

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        other = {client: server, server: client}
        closed = False
        while not self._stop.is_set() and self.fault != "drop":
            if self.fault == "stall":
                time.sleep(0.01)
                continue
            if self.fault == "half_close" and not closed:
                closed = True
                client.shutdown(socket.SHUT_WR)
            for ready in select.select(list(other), [], [], 0.02)[0]:
                data = ready.recv(1 << 16)
                if not data:
                    return
                if self.fault == "delay":
                    time.sleep(DELAY_SECONDS)
                if not (closed and ready is server):
                    other[ready].sendall(data)
