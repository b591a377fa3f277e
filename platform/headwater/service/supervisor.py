"""All components of a project: starts them, keeps them running, says what happens, stops them in order.

One loop calls ``poll`` a few times a second. A component that is given up does not take the others with it
(a corrupt file must not stop capture), but ``failed`` tells, and the exit code of ``up`` with it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from headwater import metrics
from headwater.config import Project
from headwater.service.child import Child
from headwater.service.component import Component

Emit = Callable[[dict[str, Any]], None]
POLL_S = 0.05
"""How often children and their log files are looked at: two system calls each."""
RECORD = "up.json"
SOURCE_PREFIX = "source:"
MAINTENANCE = "maintenance"


class Supervisor:
    """Runs ``components`` of ``project``; every log line, theirs and its own, goes to ``emit``.

    ``record``: the file that names its processes to a successor; one of its own for each kind of supervisor.
    """

    def __init__(self, project: Project, components: Sequence[Component], emit: Emit, record: str = RECORD) -> None:
        self._project = project
        self._emit = emit
        self._record = project.lake_dir / "run" / record
        self.children = [self._child(each) for each in components]

    def poll(self) -> None:
        """Forward new log lines, start what is due, notice what ended. Never blocks."""
        for child in self.children:
            before = (child.state, child.process)
            child.poll()
            self.forward(child)
            if (child.state, child.process) != before:
                self._say(child)
                self._remember()

    def adopt(self, components: Sequence[Component], while_waiting: Callable[[], None]) -> None:
        """Run these from now on: those that are new are started, those that are not among them are stopped."""
        known, wanted = {each.name for each in self.children}, {each.name for each in components}
        leaving = [each for each in self.children if each.name not in wanted]
        self.children = [each for each in self.children if each.name in wanted]
        self.children += [self._child(each) for each in components if each.name not in known]
        self._stop_group(leaving, while_waiting)
        self._remember()

    @property
    def failed(self) -> list[Child]:
        """Components that were given up."""
        return [each for each in self.children if each.state == "given up"]

    @property
    def pointless(self) -> bool:
        """Whether what still runs has nothing to work on: every source is given up, or, in a project without
        sources, every component. One source of several that is given up does not stop the others."""
        sources = [each for each in self.children if each.name.startswith(SOURCE_PREFIX)]
        own = [each for each in self.children if each.name != MAINTENANCE]
        return all(each.ended for each in sources or own)

    def stop(self, while_waiting: Callable[[], None] = lambda: None, *, upto: int | None = None) -> None:
        """Stop stage by stage: SIGTERM, then SIGKILL by pid after ``stop_timeout_s``; returns when all ended.

        With ``upto``, only the stages up to that one; a later call stops the rest.
        """
        for stage in sorted({each.component.stage for each in self.children}):
            if upto is not None and stage > upto:
                return
            group = [each for each in self.children if each.component.stage == stage]
            self._stop_group(group, while_waiting)
        with suppress(FileNotFoundError):
            self._record.unlink()

    def stop_orphans(self) -> None:
        """End what an earlier ``up`` of this project started and could not stop, because it was killed.

        Only processes whose pid and start time were recorded by it are touched.
        """
        for name, process in alive(self._record):
            self.note(f"stopping process {process.pid}, left by an earlier run", "warn", component=name)
            with suppress(psutil.NoSuchProcess):
                process.terminate()
                try:
                    process.wait(self._project.settings.stop_timeout_s)
                except psutil.TimeoutExpired:
                    process.kill()
                    process.wait()

    def forward(self, child: Child) -> None:
        for line in child.new_lines():
            self._emit(line)

    def note(self, message: str, level: str = "info", **fields: Any) -> None:
        """A log line of the supervisor's own."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._emit({"time": now, "level": level, metrics.COMPONENT: "up", "message": message, **fields})

    def _child(self, component: Component) -> Child:
        return Child(
            component=component,
            folder=self._project.root,
            log_path=self._project.lake_dir / "logs" / f"{component.name.replace(':', '-')}.log",
            settings=self._project.settings,
        )

    def _stop_group(self, group: Iterable[Child], while_waiting: Callable[[], None]) -> None:
        waiting = list(group)
        for child in waiting:
            child.ask_to_stop()
        deadline = time.monotonic() + self._project.settings.stop_timeout_s
        while waiting:
            for child in list(waiting):
                done = child.finish(deadline)
                self.forward(child)
                if done:
                    waiting.remove(child)
                    if child.state == "stopped" and child.process is not None:
                        level = "info" if child.exit_code == 0 else "warn"
                        how = "killed: it did not stop in time" if child.killed else f"exit code {child.exit_code}"
                        self.note(f"stopped ({how})", level, component=child.name)
            if waiting:
                while_waiting()
                time.sleep(POLL_S)

    def _say(self, child: Child) -> None:
        fields: dict[str, Any] = {metrics.COMPONENT: child.name}
        if child.state == "running":
            self.note("started", **fields, pid=child.pid)
            return
        fields[metrics.EXIT_CODE] = child.exit_code
        because = f": {child.last_error}" if child.last_error else f"; its log is {child.log_path}"
        if child.state == "given up":
            self.note(f"{child.describe_exit()} and is given up{because}", "error", **fields)
        elif child.state == "waiting":
            self.note(f"{child.describe_exit()}, restart {child.restarts} follows{because}", "warn", **fields)

    def _remember(self) -> None:
        """Which processes are ours, for a successor; written whole and renamed, so never half."""
        found: dict[str, dict[str, float]] = {}
        for child in self.children:
            if child.pid is not None:
                with suppress(psutil.NoSuchProcess):
                    found[child.name] = {"pid": child.pid, "started": psutil.Process(child.pid).create_time()}
        draft = self._record.with_suffix(".new")
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(found))
        draft.replace(self._record)


def alive(record: Path) -> list[tuple[str, psutil.Process]]:
    """Recorded processes that still are the recorded ones: pids are reused, start times are not."""
    try:
        recorded: dict[str, dict[str, float]] = json.loads(record.read_text())
    except (FileNotFoundError, ValueError):
        return []
    found = []
    for name, facts in recorded.items():
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(int(facts["pid"]))
            if abs(process.create_time() - facts["started"]) < 0.5 and process.status() != psutil.STATUS_ZOMBIE:
                found.append((name, process))
    return found
