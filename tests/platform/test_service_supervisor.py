"""The supervisor with real processes: restart with backoff, giving up, orphans, stopping in order."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.waiting import until

from headwater import logs
from headwater.config import Project, Settings
from headwater.service.component import EXIT_NOT_RETRYABLE, Component
from headwater.service.supervisor import RECORD, Supervisor, alive

WAIT_S = 30.0
SETTINGS = Settings(restart_backoff_ms=20, restart_backoff_max_ms=80, restart_limit=3, stop_timeout_s=5.0)
FOREVER = "import signal\nprint('up', flush=True)\nsignal.pause()"
POLITE = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: (print("bye", flush=True), sys.exit(0)))
print("up", flush=True)
while True: signal.pause()
"""
STUBBORN = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
while True: signal.pause()
"""


class Recorder:
    """What the supervisor emitted."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def __call__(self, line: dict[str, Any]) -> None:
        self.lines.append(line)

    def messages(self, component: str) -> list[str]:
        return [each["message"] for each in self.lines if each["component"] == component]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(root=tmp_path, name="p", lake_dir=tmp_path / "lake", sources={}, settings=SETTINGS)


def component(name: str, code: str, stage: int = 0) -> Component:
    return Component(name=name, argv=(sys.executable, "-c", code), stage=stage)


def wait_for(supervisor: Supervisor, condition: Callable[[], bool]) -> None:
    def holds() -> bool:
        supervisor.poll()
        return condition()

    until(holds, lambda: str([(each.name, each.state) for each in supervisor.children]))


@contextmanager
def running(project: Project, *components: Component) -> Iterator[tuple[Supervisor, Recorder]]:
    emitted = Recorder()
    supervisor = Supervisor(project, components, emitted)
    try:
        yield supervisor, emitted
    finally:
        supervisor.stop()
        assert all(each.pid is None for each in supervisor.children)


def test_a_crashing_component_is_restarted_and_then_given_up(project: Project) -> None:
    crash = "import sys; sys.exit('no luck today')"
    with running(project, component("bad", crash), component("good", FOREVER)) as (supervisor, emitted):
        bad, good = supervisor.children
        wait_for(supervisor, lambda: bad.ended)
        assert (bad.state, bad.exit_code, bad.restarts) == ("given up", 1, SETTINGS.restart_limit)
        assert [each.name for each in supervisor.failed] == ["bad"]
        assert (good.state, good.restarts) == ("running", 0)
        assert not supervisor.pointless
    assert emitted.messages("bad").count("no luck today") == SETTINGS.restart_limit + 1
    assert any("is given up" in each for each in emitted.messages("bad"))


def test_waits_grow_up_to_their_limit(project: Project) -> None:
    # One crash a wait: the moments of the starts are the child's own, written to its log.
    crash = "import sys, time; print(time.monotonic(), flush=True); sys.exit(1)"
    with running(project, component("bad", crash)) as (supervisor, emitted):
        wait_for(supervisor, lambda: supervisor.pointless)
    starts = [float(each) for each in emitted.messages("bad") if each.replace(".", "").isdigit()]
    waits_ms = [1000 * (after - before) for before, after in pairwise(starts)]
    assert len(waits_ms) == SETTINGS.restart_limit
    for place, waited in enumerate(waits_ms):
        assert waited >= min(SETTINGS.restart_backoff_ms * 2**place, SETTINGS.restart_backoff_max_ms)


def test_old_failures_are_forgotten(project: Project) -> None:
    quick = replace(SETTINGS, restart_limit=1, restart_window_s=0.001)
    crash = "import sys; sys.exit(1)"
    with running(replace(project, settings=quick), component("bad", crash)) as (supervisor, _):
        wait_for(supervisor, lambda: supervisor.children[0].restarts >= 4)
        assert supervisor.failed == []


def test_what_cannot_be_mended_is_not_tried_again(project: Project) -> None:
    line = {"time": "t", "level": "error", "component": "bad", "message": "wal_level is replica", "error": "X"}
    code = f"import sys; print({json.dumps(line)!r}, flush=True); sys.exit({EXIT_NOT_RETRYABLE})"
    with running(project, component("bad", code)) as (supervisor, emitted):
        wait_for(supervisor, lambda: supervisor.pointless)
        (bad,) = supervisor.children
        assert (bad.state, bad.restarts, bad.errors) == ("given up", 0, 1)
        assert bad.last_error == "wal_level is replica"
    said = [each for each in emitted.lines if "given up" in each["message"]]
    assert [(each["level"], each["exit_code"]) for each in said] == [("error", EXIT_NOT_RETRYABLE)]
    assert "wal_level is replica" in said[0]["message"]


def test_a_killed_component_comes_back(project: Project) -> None:
    with running(project, component("good", FOREVER)) as (supervisor, emitted):
        (good,) = supervisor.children
        wait_for(supervisor, lambda: "up" in emitted.messages("good"))
        first = good.pid
        assert first is not None
        psutil.Process(first).kill()
        wait_for(supervisor, lambda: good.pid not in (None, first))
        assert (good.restarts, good.exit_code) == (1, -signal.SIGKILL)
        assert any("was killed by SIGKILL" in each for each in emitted.messages("good"))


def test_components_are_sessions_of_their_own_without_our_input(project: Project) -> None:
    code = "import os, sys; print(os.getsid(0) == os.getpid(), sys.stdin.read() == '', flush=True)\n" + FOREVER
    with running(project, component("good", code)) as (supervisor, emitted):
        wait_for(supervisor, lambda: "up" in emitted.messages("good"))
    assert "True True" in emitted.messages("good")


def test_stopping_is_in_order_and_polite(project: Project) -> None:
    first, last = component("first", POLITE), component("last", POLITE, stage=1)
    with running(project, last, first) as (supervisor, emitted):
        wait_for(supervisor, lambda: all("up" in emitted.messages(name) for name in ("first", "last")))
        supervisor.stop()
        assert [each.exit_code for each in supervisor.children] == [0, 0]
        farewells = [each["component"] for each in emitted.lines if each["message"] == "bye"]
        assert farewells == ["first", "last"]
        assert not any(each.killed for each in supervisor.children)


def test_who_does_not_stop_is_killed(project: Project) -> None:
    impatient = replace(project, settings=replace(SETTINGS, stop_timeout_s=0.2))
    with running(impatient, component("deaf", STUBBORN)) as (supervisor, emitted):
        (deaf,) = supervisor.children
        wait_for(supervisor, lambda: "up" in emitted.messages("deaf"))
        pid = deaf.pid
        supervisor.stop()
        assert pid is not None
        assert not psutil.pid_exists(pid)
        assert (deaf.killed, deaf.exit_code) == (True, -signal.SIGKILL)
    assert any("killed" in each["message"] and each["level"] == "warn" for each in emitted.lines)


def test_a_successor_stops_what_a_killed_supervisor_left(project: Project) -> None:
    left = Recorder()
    first = Supervisor(project, [component("good", FOREVER)], left)
    wait_for(first, lambda: "up" in left.messages("good"))
    orphan = first.children[0].process
    assert orphan is not None
    assert [name for name, _ in alive(project.lake_dir / "run" / RECORD)] == ["good"]

    emitted = Recorder()
    Supervisor(project, [], emitted).stop_orphans()  # `first` does nothing any more, as if killed
    assert not psutil.pid_exists(orphan.pid)
    orphan.wait(WAIT_S)
    assert any(f"process {orphan.pid}" in each for each in emitted.messages("good"))


def test_a_reused_pid_is_not_an_orphan(project: Project) -> None:
    me = psutil.Process()
    record = project.lake_dir / "run" / RECORD
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"good": {"pid": me.pid, "started": me.create_time() - 60}}))
    assert alive(record) == []
    record.write_text("{half")
    assert alive(record) == []


def test_a_log_that_grew_is_rotated_between_two_processes(project: Project) -> None:
    small = replace(project, settings=replace(SETTINGS, log_bytes_max=100))
    code = "import sys; print('x' * 200, flush=True); sys.exit(1)"
    with running(small, component("bad", code)) as (supervisor, emitted):
        wait_for(supervisor, lambda: supervisor.pointless)
    folder = project.lake_dir / "logs"
    assert sorted(path.name for path in folder.iterdir()) == ["bad.log", "bad.log.1"]
    assert all(path.read_text() == "x" * 200 + "\n" for path in folder.iterdir())
    assert emitted.messages("bad").count("x" * 200) == SETTINGS.restart_limit + 1


# ---- log lines


def test_a_json_line_carries_its_fields_and_no_secret() -> None:
    code = """
from headwater import logs
logs.configure("json", component="source:shop")
logs.logger("capture").info(
    "connected to postgresql://u:hunter2@h/d",
    extra={"commit": 12, "lsn": "0/16B", "topic": "shop.public.a", "view": "v"},
)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=WAIT_S)
    line = json.loads(done.stderr)
    assert (line["component"], line["level"]) == ("source:shop", "info")
    assert (line["commit"], line["lsn"], line["topic"], line["view"]) == (12, "0/16B", "shop.public.a", "v")
    assert "hunter2" not in done.stderr
    text = logs.render(line, "text")
    assert "commit=12 lsn=0/16B topic=shop.public.a view=v" in text


def test_a_line_that_is_no_json_is_still_a_line() -> None:
    for text in ("Traceback (most recent call last):", "{not json", '{"no": "message"}'):
        assert logs.parse(text, "bad")["message"] == text
    assert "hunter2" not in logs.parse("could not connect to postgresql://u:hunter2@h/d", "bad")["message"]
