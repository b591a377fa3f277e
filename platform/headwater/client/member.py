"""A consumer's membership of its group: its lease, kept by a thread of its own, and what it owns."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping

from sqlalchemy import Connection

from headwater import logs
from headwater.client import group as groups
from headwater.client.group import Share
from headwater.errors import CatalogError, DiskFull
from headwater.log import Log
from headwater.log.offsets import Place

LEASE_S = 10.0
"""A member that has not beaten for so long has lost its partitions: what a death costs, and a pause may last."""
BEATS_PER_LEASE = 3
"""Two beats may fail before the lease ends."""
MAX_POLL_S = 300.0
"""A member that has not polled for so long beats no more: its processing hangs, others take its partitions."""


class Member:
    """One membership at a time: ``join`` after a loss makes a new one, with a name of its own.

    ``lapsed`` is set by the beating thread when another member's lease has ended; everything else is for the
    consumer's thread.
    """

    def __init__(
        self,
        log: Log,
        group: str,
        topics: Collection[int],
        first: Callable[[], Mapping[Place, int]],
        *,
        lease_s: float = LEASE_S,
        max_poll_s: float = MAX_POLL_S,
        client: str = "",
    ) -> None:
        self.log = log
        self.group = group
        self.name = ""
        self.lapsed = False
        self._topics = topics
        self._first = first
        self._lease_s = lease_s
        self._max_poll_s = max_poll_s
        self._client = client or f"{socket.gethostname()}:{os.getpid()}"
        self._known: frozenset[str] = frozenset()
        self._polled = time.monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def joined(self) -> bool:
        return self.name != ""

    def join(self) -> None:
        """Become a member anew; the lease runs before anybody can see the member."""
        self._halt()
        self.name = f"{self._client}-{uuid.uuid4().hex[:8]}"
        self.lapsed = False
        self._known = frozenset()
        self.polled()
        first = self._first()
        self.log.live.renew(groups.scope(self.group), self.name, self._lease_s)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(self._stop, self.name), name="lease", daemon=True)
        self._thread.start()
        groups.join(self.log, self.group, self.name, self._topics, first, self._client)

    def leave(self) -> None:
        """Give everything to the others now; nothing when not a member."""
        if self.joined:
            self._halt()
            groups.leave(self.log, self.group, self.name)
            self.name = ""

    def polled(self) -> None:
        """The processing thread is alive."""
        self._polled = time.monotonic()

    def share(self, connection: Connection) -> Share | None:
        """What this member owns; None when it was removed."""
        found = groups.share(connection, self.group, self.name)
        if found is not None:
            self._known = found.members
        return found

    def rebalance(self) -> None:
        """Remove who is gone and give out what is free."""
        self.lapsed = False
        with self.log.catalog.write() as connection:
            groups.rebalance(connection, self.log, self.group)

    def _halt(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _beat(self, stop: threading.Event, name: str) -> None:
        scope = groups.scope(self.group)
        while not stop.wait(self._lease_s / BEATS_PER_LEASE):
            try:
                if time.monotonic() - self._polled < self._max_poll_s:
                    self.log.live.renew(scope, name, self._lease_s)
                if self._known - self.log.live.leases(scope).keys() - {name}:
                    self.lapsed = True
            except (CatalogError, DiskFull) as error:  # the next beat may succeed; if none does, the lease fences us
                logs.logger().warning("group %s: no heartbeat: %s", self.group, error)
