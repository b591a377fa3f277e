"""The maintenance process: one round of housekeeping a second, until SIGTERM.

It is a process of its own, so that rewriting files never delays the supervisor or takes it down.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from headwater import logs
from headwater.config import Project
from headwater.errors import HeadwaterError, Retryable
from headwater.log import open_log
from headwater.maintenance import OWNER, Publisher, housekeep, run_once, start
from headwater.service.component import HOUSEKEEPING_GROUP, plugged_in
from headwater.service.signals import stop_signals

if TYPE_CHECKING:
    from headwater.log import Log

ROUND_S = 1.0
"""Looking whether anything is due costs a few catalog reads; the limits themselves are larger."""
NICENESS = 10
"""Rewriting files yields the cores to capture and views, which somebody waits for."""
AUTOGROUP = Path("/proc/self/autogroup")
_UNSAID = ("bytes", "compared")
"""Counts that are there at every round."""
RETRY_S = 5.0
"""After a failure that may pass, a full disk above all."""


def run(project: Project) -> None:
    """Work until asked to stop. Raises what trying again cannot mend, CorruptFile for example."""
    log_lines = logs.logger(OWNER)
    give_way()
    with stop_signals() as stop, open_log(project.lake_dir, create=True) as log, _Beat(log) as beat:
        log_lines.info("ready; removed %d files of writers that died", start(log)["orphans"])
        keeps_house = 0.0
        publisher = Publisher(log)
        others = plugged_in(HOUSEKEEPING_GROUP)
        while not stop.is_set():
            began = time.monotonic()
            try:
                done = run_once(log, project.settings)
                if began >= keeps_house:
                    done |= housekeep(log, project.settings)
                    for each in others:
                        done |= each(project, log)
                    keeps_house = began + project.settings.housekeeping_s
                publisher.publish(now=done["sealed"] > 0)
                beat.says(state="running", error=None)
            except HeadwaterError as error:
                beat.says(state="error", error=str(error))
                if not isinstance(error, Retryable):
                    raise
                log_lines.warning("%s", error)
                stop.wait(RETRY_S)
                continue
            if said := [f"{name} {count:,}" for name, count in done.items() if count and name not in _UNSAID]:
                log_lines.info(
                    ", ".join(said),
                    extra={"rows": done["sealed"], "duration_ms": round((time.monotonic() - began) * 1000)},
                )
            stop.wait(ROUND_S)


def give_way() -> None:
    """Yield the cores to everybody else's work.

    Linux shares them out by session first where autogrouping is on, as distributions have it, and by niceness only
    within one: a process with a session of its own, as the supervisor starts them, says it of that as well.
    """
    os.nice(NICENESS)
    if os.getsid(0) == os.getpid():
        with suppress(OSError):  # a system without, or one that forbids it
            AUTOGROUP.write_text(str(NICENESS))


class _Beat:
    """Beats from a thread of its own: sealing a large topic takes longer than a heartbeat may."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._stats: dict[str, str | None] = {"state": "running", "error": None}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="beat", daemon=True)

    def __enter__(self) -> _Beat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        if self._stats["state"] == "running":
            self._stats["state"] = "stopped"
        self._log.live.beat(OWNER, **self._stats)

    def says(self, **stats: str | None) -> None:
        self._stats = stats

    def _run(self) -> None:
        while True:
            self._log.live.beat(OWNER, **self._stats)
            if self._end.wait(ROUND_S):
                return
