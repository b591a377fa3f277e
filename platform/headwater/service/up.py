"""``headwater up``: owns the project, prepares it, runs its components, answers /healthz and /metrics.

One process at a time owns ``up`` of a lake. It ends on SIGTERM or SIGINT (exit 0), when caught up if that
was asked for (exit 0), or when every source was given up; the exit code is 1 if any component was given up.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from headwater import logs
from headwater.catalog.live import LiveRow
from headwater.config import Project, Settings
from headwater.errors import ConfigError, HeadwaterError
from headwater.log import Log, open_log
from headwater.ownership import own
from headwater.service import status
from headwater.service.caught_up import CaughtUp, ends
from headwater.service.child import Child
from headwater.service.component import PREPARE_GROUP, Component, declared, plugged_in
from headwater.service.http import StatusServer
from headwater.service.signals import CUT_SHORT, stop_signals
from headwater.service.supervisor import MAINTENANCE, POLL_S, Supervisor
from headwater.service.watcher import ProjectWatcher

BEAT_S = 1.0
REFRESH_S = 0.25
"""How often health is renewed: /healthz is never older, and the display moves smoothly."""
AWAY_S_MAX = 300.0
"""``--until-caught-up`` ends when a source's server has been away for so long; otherwise it is waited for."""
ARENAS = "MALLOC_ARENA_MAX"
_ARENAS_MAX = "2"
"""Maintenance opens a DuckDB for each file that it rewrites, whose threads are new ones: with an arena for each, glibc
kept 90 MB of freed pieces after 30 rounds, and more with each; with two it keeps 20. Other allocators do not look at
it."""
POOL = "ARROW_DEFAULT_MEMORY_POOL"
_POOL = "system"
"""Arrow's own allocator keeps for each thread that ended what it freed: 119 MB after two minutes of sealing, of which
nothing was in use. glibc's gives it to the next thread."""
MAINTAIN = Component(
    name=MAINTENANCE,
    argv=("headwater", "maintain"),
    stage=2,
    # What a person has chosen stays.
    env={ARENAS: os.environ.get(ARENAS, _ARENAS_MAX), POOL: os.environ.get(POOL, _POOL)},
)


class Display(Protocol):
    """Where log lines and the live status go."""

    def line(self, line: Mapping[str, Any]) -> None: ...

    def show(self, document: Callable[[], Mapping[str, Any]], health: Mapping[str, Any]) -> None: ...


class Lines:
    """Log lines on stderr, as text or JSON; no live status."""

    def __init__(self, form: str) -> None:
        self._form = form

    def line(self, line: Mapping[str, Any]) -> None:
        sys.stderr.write(logs.render(line, self._form) + "\n")
        sys.stderr.flush()

    def show(self, document: Callable[[], Mapping[str, Any]], health: Mapping[str, Any]) -> None:
        """A person reads lines here; the figures are at /metrics and in `headwater status`."""


def run(
    project: Project,
    display: Display,
    *,
    until_caught_up: bool = False,
    standby: bool = False,
) -> int:
    """Run the project until it is stopped; returns the exit code. For the main thread: it takes the signals.

    Raises OwnedElsewhere, naming the process, when another ``up`` runs and ``standby`` is not set.
    """
    with (
        open_log(project.lake_dir, create=True) as log,
        own(log, status.UP, wait=standby),  # a signal while waiting ends the process as usual: nothing runs yet
        stop_signals() as stop,
    ):
        return Up(project, log, display, stop).run(until_caught_up)


class Up:
    """One run of ``headwater up`` in the process that owns it."""

    def __init__(self, project: Project, log: Log, display: Display, stop: threading.Event) -> None:
        self._project = project
        self._log = log
        self._display = display
        self._stop = stop
        self._watcher = ProjectWatcher(project)
        components = self._components()
        self._consumers = [each.name for each in components if each.stage and each != MAINTAIN]
        self._supervisor = Supervisor(project, components, display.line)
        self._health: dict[str, Any] = {"status": "starting", "components": []}
        self._next_beat = 0.0
        self._refreshed = 0.0
        self._port = 0

    def run(self, until_caught_up: bool) -> int:
        self._supervisor.stop_orphans()
        self._adopt_timezone()
        self._prepare()
        caught_up = CaughtUp(self._log, ends(self._project), self._consumers) if until_caught_up else None
        server = self._serve()
        self._port = server.port
        self._supervisor.note(f"running {self._project.name}; health and metrics at {server.address}")
        try:
            reason = self._loop(caught_up)
            self._supervisor.note(f"stopping: {reason}")
        finally:
            self._supervisor.stop(self._refresh)
            server.close()
            self._log.live.forget(status.UP)
        return self._exit_code(caught_up)

    def _loop(self, caught_up: CaughtUp | None) -> str:
        while not self._stop.wait(POLL_S):
            self._look_after()
            if caught_up is not None and caught_up.poll():
                return "caught up with the source"
            if self._supervisor.pointless:
                return "nothing is left to capture"
            if caught_up is not None and self._supervisor.failed:
                return "a component was given up"
            if caught_up is not None and (waits := self._waits()):
                return waits
            if self._watcher.due():
                self._look_at_files()
        return "asked to"

    def _look_after(self) -> None:
        self._supervisor.poll()
        self._refresh()

    def _components(self) -> list[Component]:
        return [*declared(self._project), MAINTAIN]

    def _prepare(self) -> None:
        """Let the installed packages bring the lake in line with the project's files."""
        for prepare in plugged_in(PREPARE_GROUP):
            for line in prepare(self._project, self._log) or ():
                self._supervisor.note(line)

    def _look_at_files(self) -> None:
        if self._watcher.project_changed():
            self._supervisor.note("headwater.toml changed: restart `headwater up` to apply it", "warn")
        if self._watcher.jobs_changed():
            self._supervisor.adopt(self._components(), self._look_after)
        if self._watcher.views_changed():
            self._supervisor.note("views/ changed: applying")
            try:
                self._prepare()
            except HeadwaterError as error:  # a mistake in a file that was just saved must not end what runs
                self._supervisor.note(str(error), "error", error=type(error).__name__)

    def _adopt_timezone(self) -> None:
        """The zone belongs to the lake's data: set once, and refused when it would change answers."""
        wanted = self._project.settings.timezone
        if self._log.newest_commit() == 0:
            self._log.set_setting("timezone", wanted)
        elif self._log.timezone != wanted:
            raise ConfigError(
                f"timezone = {wanted!r}, but this lake was made with {self._log.timezone!r}",
                where=str(self._project.file),
                todo="Keep the lake's zone; another one needs a new lake.",
            )

    def _serve(self) -> StatusServer:
        """On the configured port. The default gives way to a free one when another project has it."""
        wanted = self._project.settings.http_port
        try:
            return StatusServer(wanted, self.health, self.status)
        except ConfigError:
            if wanted != Settings().http_port:
                raise
            server = StatusServer(0, self.health, self.status)
            self._supervisor.note(f"port {wanted} is taken by another program, using {server.port}", "warn")
            return server

    def _refresh(self) -> None:
        """Beat, and publish the children's state to the other threads; cheap when called too often."""
        now = time.monotonic()
        if now < self._refreshed + REFRESH_S:
            return
        live = self._log.live.read()
        found = [self._component(each, live.get(each.name)) for each in self._supervisor.children]
        self._health = {
            "status": "ok" if all(each["ok"] for each in found) else "degraded",
            "project": self._project.name,
            "position": self._log.newest_commit(),
            "components": found,
        }
        self._refreshed = now
        self._display.show(self.status, self._health)
        if now >= self._next_beat:
            self._next_beat = now + BEAT_S
            self._log.live.beat(status.UP, state="running", http_port=self._port, status=self._health["status"])

    def _component(self, child: Child, row: LiveRow | None) -> dict[str, Any]:
        """A component is well while its process runs, beats, and does not say that it is in error."""
        mine = row if row is not None and row.pid == child.pid else None
        age = time.time() - mine.beat_at if mine else None
        quiet_s = age if age is not None else time.monotonic() - child.started
        stale = quiet_s > self._project.settings.stale_after_s
        in_error = mine is not None and mine.stats.get("state") == "error"
        return {
            "name": child.name,
            "ok": child.state == "running" and not stale and not in_error,
            "state": "stale" if stale and child.state == "running" else child.state,
            "pid": child.pid,
            "restarts": child.restarts,
            "errors": child.errors,
            "last_error": child.last_error or (status.error_of(mine) if mine else None),
            "mended_by": (mine.stats.get("mended_by") if mine else None) or None,
            "away_s": (mine.stats.get("away_s") if mine else None) or 0.0,
            "age_s": None if age is None else round(age, 3),
        }

    def _waits(self) -> str:
        """Which component waits for somebody to run a command, or for a server; empty when none does."""
        for each in self._health["components"]:
            if each["mended_by"]:
                return f"{each['name']} waits until somebody runs `{each['mended_by']}`"
            if each["away_s"] >= AWAY_S_MAX:
                return f"{each['name']} has waited for its server for {each['away_s']:.0f} s: {each['last_error']}"
        return ""

    def health(self) -> dict[str, Any]:
        """The /healthz document. A supervisor that no longer looks after its children is not well."""
        age = time.monotonic() - self._refreshed
        current = dict(self._health)
        if self._refreshed and age > status.BEAT_AGE_MAX_S:
            current["status"] = "stale"
        return {**current, "age_s": round(age, 3) if self._refreshed else None}

    def status(self) -> dict[str, Any]:
        """The status document, read anew."""
        return status.collect(self._log, self._project)

    def _exit_code(self, caught_up: CaughtUp | None) -> int:
        """1 when a component, a view or a job was given up, or what was to be reached was not: all said once more."""
        left_behind = caught_up.left_behind() if caught_up else {}
        cut_short = caught_up is not None and not caught_up.reached
        for child in self._supervisor.failed:
            because = child.last_error or child.describe_exit()
            self._supervisor.note(f"{child.name} was given up: {because}", "error", component=child.name)
        for what, reason in left_behind.items():
            self._supervisor.note(f"{what}: {reason}", "error")
        if cut_short and not self._supervisor.failed:
            self._supervisor.note(f"{CUT_SHORT}; the next run goes on from here", "error")
        return 1 if self._supervisor.failed or left_behind or cut_short else 0
