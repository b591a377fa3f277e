"""What a running source says of itself in the live file, at most four times a second."""

from __future__ import annotations

import time
from collections.abc import Mapping

from headwater.errors import HeadwaterError
from headwater.log import Log
from headwater_connectors.postgres.catalog import format_lsn

PERIOD_SECONDS = 0.25
_RATE_SECONDS = 2.0


class Beat:
    """Counts since the process started; rates over the last two seconds."""

    def __init__(self, log: Log, component: str) -> None:
        self._log = log
        self._component = component
        self._last = 0.0
        self._rows = self._commits = 0
        self._lag_ms = 0.0
        self._window: tuple[float, int] = (time.monotonic(), 0)
        self._rate = 0.0
        self.answered = False
        """Whether the server has ever told this process where to go on: only then is an absent one waited for."""

    def now(self, **stats: int | float | str | bool | None) -> None:
        self.answered = self.answered or stats.get("state") == "streaming"
        self._last = time.monotonic()
        self._log.live.beat(self._component, **stats)

    def failed(self, error: HeadwaterError, away_s: float = 0.0) -> None:
        """``away_s``: for how long the server could not be reached."""
        self.now(state="error", error=str(error), rows_per_s=0.0, away_s=away_s)

    def waiting(self, error: HeadwaterError, mended_by: str) -> None:
        """For somebody to run the command that mends it."""
        self.answered = True
        self.now(state="error", error=str(error), mended_by=mended_by, rows_per_s=0.0)

    def committed(self, rows: int, committed_at_us: int) -> None:
        """Rows became durable; the newest of them was committed in the source at ``committed_at_us``."""
        self._rows += rows
        self._commits += 1
        self._lag_ms = max(0.0, time.time() * 1000 - committed_at_us / 1000)

    @property
    def due(self) -> bool:
        return time.monotonic() - self._last >= PERIOD_SECONDS

    def streaming(
        self,
        received: int,
        confirmed: int,
        server: int,
        *,
        behind: bool,
        copying: int,
        note: str,
        slot: Mapping[str, int | str | None],
        **more: int | str,
    ) -> None:
        """``copying``: tables that have not appeared yet, -1 when the server was not asked yet; ``note``: how far.

        ``slot``: what the server says of the slot; ``more``: other figures of the status.
        """
        moment = time.monotonic()
        since, rows = self._window
        if moment - since >= _RATE_SECONDS:
            self._rate = (self._rows - rows) / (moment - since)
            self._window = (moment, self._rows)
        idle = not behind and server <= confirmed
        self.now(
            state="copying" if copying > 0 else "streaming",
            copying=copying,
            copy=note,
            received_lsn=format_lsn(received),
            confirmed_lsn=format_lsn(confirmed),
            server_lsn=format_lsn(server),
            lag_bytes=max(0, server - confirmed) if behind else 0,
            lag_ms=0.0 if idle else round(self._lag_ms, 1),
            rows=self._rows,
            rows_per_s=round(self._rate, 1),
            commits=self._commits,
            **slot,
            **more,
        )
