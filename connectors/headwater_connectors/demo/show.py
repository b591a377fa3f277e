"""``headwater demo`` for people: database, load, capture, pages to open; and the end of it all, in order.

    start   PostgreSQL ─▶ capture, maintenance, load, Dagster (webserver, daemon), JupyterLab
            the views' worker is started by a Dagster run that holds a lease on the pipeline
    stop    `stopping` mark ─▶ load, daemon ─▶ runs ─▶ worker ─▶ capture, maintenance ─▶ pages ─▶ PostgreSQL

Other packages bring their pages by the entry-point group ``headwater.demo``: a callable that takes the Project and
returns Components with a ``url``. Their stages: 1 for what starts runs, 4 for servers of pages.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from headwater import logs
from headwater.config import Project
from headwater.log import Log, open_log
from headwater.ownership import own
from headwater.service import status
from headwater.service.component import PREPARE_GROUP, Component, declared, plugged_in
from headwater.service.display import render
from headwater.service.processes import descendants, end_processes, in_sessions
from headwater.service.signals import stop_signals
from headwater.service.supervisor import POLL_S, Supervisor
from headwater.service.up import MAINTAIN
from headwater_connectors.demo.project import Demo, opened

GROUP = "headwater.demo"
STOPPING = "stopping"
"""Catalog setting: while it is there, the end of a Dagster run means nothing."""
_LOAD, _RUNNERS, _WRITERS, _PAGES = 0, 1, 2, 4
"""Stages: the load stops first, then what starts runs, then what writes; the pages stay open until the end."""
_SHOW_S = 0.5
_LINES_S = 5.0
"""Between two lines of status where there is no terminal."""
_RUNS_S = 10.0
"""What runs get to report and end once the mark is set; they look every second."""


def show(folder: Path, *, seconds: float | None, rate: float, seed: int, browser: bool) -> int:
    """Run the demo until Ctrl-C, SIGTERM or ``seconds`` are over; the exit code."""
    console = Console(stderr=True, highlight=False)
    console.print("starting PostgreSQL and the web shop")
    with opened(folder, seed) as demo, ExitStack() as stack:
        log = stack.enter_context(open_log(demo.project.lake_dir, create=True))
        stack.enter_context(own(log, status.UP))
        stop = stack.enter_context(stop_signals())
        log.set_setting(STOPPING, None)
        for prepare in plugged_in(PREPARE_GROUP):
            prepare(demo.project, log)
        running = Show(demo, log, console, _components(demo, rate, seed))
        code = running.run(stop, seconds, browser=browser)
    console.print("stopped; nothing runs any more")
    return code


def _components(demo: Demo, rate: float, seed: int) -> list[Component]:
    load = [sys.executable, "-m", "headwater_connectors.demo.load", demo.dsn, "--rate", str(rate), "--seed", str(seed)]
    pages = [each for components in plugged_in(GROUP) for each in components(demo.project)]
    # With Dagster there the pipeline runs under its lease; without, as `headwater up` runs it.
    leased = any(each.stage == _RUNNERS for each in pages)
    own_components = [
        replace(each, stage=_WRITERS)
        for each in [*declared(demo.project), MAINTAIN]
        if not (leased and each.name == status.PIPELINE)
    ]
    return [*own_components, *pages, Component(name="load", argv=load, stage=_LOAD)]


class Show:
    """One run of the demo in the process that owns it."""

    def __init__(self, demo: Demo, log: Log, console: Console, components: list[Component]) -> None:
        self._project: Project = demo.project
        self._log = log
        self._console = console
        self._supervisor = Supervisor(demo.project, components, self._line)
        self._pages = {each.name: each.url for each in components if each.url}
        self._ready: set[str] = set()
        self._shown = 0.0

    def run(self, stop: threading.Event, seconds: float | None, *, browser: bool) -> int:
        self._supervisor.stop_orphans()
        ends = None if seconds is None else time.monotonic() + seconds
        opener = threading.Thread(target=self._await_pages, args=[stop, browser], daemon=True, name="pages")
        opener.start()
        self._console.print(self._head(), soft_wrap=True)  # what is copied from it stays one line
        live = Live(console=self._console, auto_refresh=False, transient=True)
        with live if self._console.is_terminal else ExitStack():
            try:
                while not stop.wait(POLL_S) and (ends is None or time.monotonic() < ends):
                    self._supervisor.poll()
                    self._show(live)
            finally:
                stop.set()
                live.stop()
                self._end()
        for child in self._supervisor.failed:
            self._console.print(f"{child.name} had been given up: {child.last_error or child.describe_exit()}")
        return 1 if self._supervisor.failed else 0

    def _end(self) -> None:
        """The order of the module's head. Each stage has its own time limit, so this ends."""
        self._log.set_setting(STOPPING, "demo")
        timeout = self._project.settings.stop_timeout_s
        runs, pages = self._family(_RUNNERS), self._family(_PAGES)
        sessions = {each.pid for each in self._supervisor.children if each.pid is not None}
        stages: list[tuple[str, Callable[[], None]]] = [
            ("the load and Dagster's daemon", lambda: self._supervisor.stop(upto=_RUNNERS)),
            ("Dagster's runs", lambda: self._await_runs(runs)),
            ("the views' worker", lambda: stop_worker(self._log, timeout)),
            ("capture, upkeep and the pages", self._supervisor.stop),
            ("what the pages had started", lambda: end_processes([*pages, *in_sessions(sessions)], _RUNS_S)),
        ]
        for what, stop in stages:
            began = time.monotonic()
            self._console.print(f"stopping {what} ...")
            stop()
            self._console.print(f"  stopped after {time.monotonic() - began:.1f} s", style="dim")
        self._log.set_setting(STOPPING, None)
        self._console.print("stopping PostgreSQL")

    def _await_runs(self, family: list[psutil.Process]) -> None:
        """Runs see the mark, report their views and end by themselves; so do the servers they ran in."""
        deadline = time.monotonic() + _RUNS_S
        while self._runs() and time.monotonic() < deadline:
            time.sleep(POLL_S)
        end_processes(family, max(0.0, deadline - time.monotonic()))

    def _runs(self) -> bool:
        """Whether a run of Dagster's works: each beats, by its id."""
        rows = [row for name, row in self._log.live.read().items() if name.startswith("run:")]
        return any(status.fresh(row) and row.stats.get("state") != "ended" for row in rows)

    def _family(self, stage: int) -> list[psutil.Process]:
        """What the components of a stage have started and would leave behind; the worker has its own turn."""
        worker = self._log.live.read().get(status.PIPELINE)
        found = descendants(each.pid for each in self._supervisor.children if each.component.stage == stage)
        return [each for each in found if worker is None or each.pid != worker.pid]

    def _await_pages(self, stop: threading.Event, browser: bool) -> None:
        """Note which pages answer; open JupyterLab's, once, where there is a screen."""
        while self._ready != set(self._pages) and not stop.wait(0.5):
            for name in set(self._pages) - self._ready:
                if _answers(self._pages[name]):
                    self._ready.add(name)
                    if name == "jupyterlab" and browser and _has_screen():
                        webbrowser.open(self._pages[name])

    def _show(self, live: Live) -> None:
        now = time.monotonic()
        if now < self._shown + (_SHOW_S if self._console.is_terminal else _LINES_S):
            return
        self._shown = now
        document = status.collect(self._log, self._project)
        if self._console.is_terminal:
            live.update(self._picture(document), refresh=True)
        else:
            self._console.print(_one_line(document), soft_wrap=True)
        self._log.live.beat(status.UP, state="running", status="ok")

    def _picture(self, document: Mapping[str, Any]) -> RenderableType:
        return Group(self._waiting(), render(document, {"components": self._troubled()}))

    def _troubled(self) -> list[dict[str, Any]]:
        return [
            {
                "name": each.name,
                "ok": each.state == "running",
                "state": each.state,
                "restarts": each.restarts,
                "errors": each.errors,
                "last_error": each.last_error,
            }
            for each in self._supervisor.children
        ]

    def _head(self) -> RenderableType:
        root = self._project.root
        lines = [Text.assemble("The web shop runs in ", (str(root), "bold"))]
        for name, url in self._pages.items():
            lines.append(Text.assemble(f"  {name:<12}", (url, "bold cyan")))
        sql = 'headwater sql "SELECT * FROM sales_by_country ORDER BY revenue DESC" --project '
        lines.append(Text.assemble(f"  {'SQL':<12}", (sql + str(root), "bold")))
        lines.append(Text(f"  {'logs':<12}{self._project.lake_dir / 'logs'}"))
        lines.append(Text("Orders, payments and page views come in, views follow. Ctrl-C ends everything."))
        return Group(*lines)

    def _waiting(self) -> Text:
        missing = sorted(set(self._pages) - self._ready)
        return Text(f"starting: {', '.join(missing)}" if missing else "all pages are up", style="dim")

    def _line(self, line: Mapping[str, Any]) -> None:
        """What goes wrong is said here; everything is in the log files."""
        if line["level"] in ("warn", "error", "fatal"):
            self._console.print(logs.render(line, "text"), markup=False, soft_wrap=True)


def stop_worker(log: Log, timeout: float) -> None:
    """End the pipeline's live worker, whoever started it: SIGTERM, after ``timeout`` seconds SIGKILL."""
    row = log.live.read().get(status.PIPELINE)
    if row is None or not status.running(row):
        return
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(row.pid)
        process.terminate()
        end_processes([process], timeout)


def _one_line(document: Mapping[str, Any]) -> str:
    sources = ", ".join(f"{each['name']} {each['state']}{_lag(each['lag_ms'])}" for each in document["sources"])
    live = sum(each["state"] == "live" for each in document["views"])
    return f"position {document['position']:,}  {sources}  views live {live} of {len(document['views'])}"


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # a loopback address of our own component
            return True
    except urllib.error.HTTPError:
        return True  # it answers, if only to ask for something
    except (urllib.error.URLError, OSError):
        return False


def _has_screen() -> bool:
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _lag(milliseconds: float | None) -> str:
    """Nothing before the source has said anything."""
    return "" if milliseconds is None else f" lag {milliseconds} ms"
