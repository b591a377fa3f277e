"""`headwater up` as a process: ownership, health, metrics, giving up, signals, take-over.

The component it runs comes from a package made here and plugged in by entry points, as anyone's would be.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.waiting import until

from headwater.errors import ConfigError
from headwater.lake import Lake
from headwater.log import jobs, open_log
from headwater.metrics import HELP
from headwater.ownership import own
from headwater.service.component import EXIT_NOT_RETRYABLE
from headwater.service.http import StatusServer
from headwater.service.up import ARENAS, MAINTAIN
from headwater_pipelines.component import environment

WAIT_S = 60.0
TOY = """
import sys
from headwater.service.component import Component

BODY = '''
import sys
from pathlib import Path
from headwater import logs

logs.configure_from_environment()
logs.logger("toy").info("at work", extra=dict(commit=0, topic="t", view="v", lsn="0/1"))
if Path("mode").read_text() == "crash":
    sys.exit("the toy broke")

from headwater.log import open_log
from headwater.service.signals import stop_signals

with stop_signals() as stop, open_log(Path("lake")) as log:
    while not stop.wait(0.1):
        mode = Path("mode").read_text()
        if mode == "fatal":
            logs.logger("toy").error("the toy cannot be mended; buy another one")
            sys.exit(NOT_RETRYABLE)
        if mode != "silent":
            log.live.beat("toy", state="running")
'''

def components(project):
    return [Component(name="toy", argv=[sys.executable, "-c", BODY])]

class Source:
    def current_end(self, dsn):
        return "1/0"

def prepare(project, log):
    with open(project.root / "prepared", "a") as file:
        file.write("x")
""".replace("NOT_RETRYABLE", str(EXIT_NOT_RETRYABLE))
JOB = """
import headwater as hw

@hw.job(inputs="payments", output="seen", columns={"id": "BIGINT"})
def first(payments):
    return payments
"""
SETTINGS = """
http_port = 0
restart_backoff_ms = 10
restart_backoff_max_ms = 20
restart_limit = 2
"""


class Running:
    """A `headwater up` process and what it has printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    def text(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        until(condition, self.text)

    def says(self, words: str) -> None:
        self.wait_for(lambda: words in self.text())

    @property
    def address(self) -> str:
        self.says("health and metrics at ")
        return self.text().partition("health and metrics at ")[2].split()[0].strip('",}')

    def ask(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.address + path, timeout=WAIT_S) as answer:
                return int(answer.status), str(answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return int(error.code), str(error.read().decode())

    def healthy(self) -> bool:
        return self.ask("/healthz")[0] == 200

    def toy_pid(self) -> int:
        """0 between two of its processes."""
        document = json.loads(self.ask("/healthz")[1])
        pids = {each["name"]: int(each["pid"] or 0) for each in document["components"]}
        return pids["toy"]

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        code = self.process.wait(WAIT_S)
        self._reader.join(WAIT_S)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project, and beside it a package whose component does what the file `mode` says."""
    package = tmp_path / "packages"
    information = package / "toy-1.dist-info"
    information.mkdir(parents=True)
    (package / "toy.py").write_text(TOY)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1\n")
    (information / "entry_points.txt").write_text(
        "[headwater.component]\ntoy = toy:components\n[headwater.prepare]\ntoy = toy:prepare\n"
        "[headwater.source]\ntoy = toy:Source\n"
    )
    folder = tmp_path / "project"
    (folder / "views").mkdir(parents=True)
    (folder / "headwater.toml").write_text(f'[project]\nname = "p"\n[settings]{SETTINGS}')
    (folder / "mode").write_text("good")
    return folder


@pytest.fixture
def up(project: Path) -> Iterator[Callable[..., Running]]:
    """Start `headwater up`; what is still running at the end of the test is killed by pid."""
    started: list[Running] = []

    def start(*args: str, **environ: str) -> Running:
        paths = os.pathsep.join(filter(None, (str(project.parent / "packages"), os.environ.get("PYTHONPATH"))))
        process = subprocess.Popen(
            [sys.executable, "-m", "headwater.cli", "up", *args],
            cwd=project,
            env={**os.environ, "PYTHONPATH": paths, **environ},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(Running(process))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.terminate()
            each.ended()


def status(command: Path, project: Path) -> dict[str, Any]:
    argv = [str(command), "status", "--json"]
    done = subprocess.run(argv, cwd=project, capture_output=True, text=True, check=True, timeout=WAIT_S)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_a_life_of_up(command: Path, project: Path, up: Callable[..., Running]) -> None:
    first = up(HEADWATER_STALE_AFTER_S="2", HEADWATER_TIMEZONE="Asia/Tokyo")
    first.wait_for(first.healthy)
    document = json.loads(first.ask("/healthz")[1])
    assert {each["name"] for each in document["components"]} >= {"toy", "maintenance"}
    assert (document["status"], document["project"]) == ("ok", "p")

    code, figures = first.ask("/metrics")
    assert code == 200
    assert 'headwater_component_up{component="toy"} 1.0' in figures
    assert "headwater_position 0.0" in figures
    named = {line.split()[2].removesuffix("_total") for line in figures.splitlines() if line.startswith("# HELP")}
    empty = {name for name in HELP if name.startswith("kafka_")}  # there is no topic and no group to tell of
    assert named | empty == {name.removesuffix("_total") for name in HELP}
    assert first.ask("/nothing")[0] == 404
    assert status(command, project)["http"] == first.address

    # a second one is refused, and disturbs nothing
    second = up()
    assert second.ended() == 1
    assert len(second.lines) == 1
    assert f"already running as process {first.process.pid}" in second.text()
    first.wait_for(first.healthy)  # two seconds of silence are stale here, and a busy machine has such

    # a component that is killed comes back
    killed = first.toy_pid()
    psutil.Process(killed).kill()
    first.says("was killed by SIGKILL, restart 1 follows")
    first.wait_for(lambda: first.healthy() and first.toy_pid() not in (0, killed))

    # one that falls silent is noticed
    (project / "mode").write_text("silent")
    first.wait_for(lambda: '"state": "stale"' in first.ask("/healthz")[1])
    assert first.ask("/healthz")[0] == 503
    (project / "mode").write_text("good")
    first.wait_for(first.healthy)

    # view files are applied when they change; a mistake in one ends nothing
    assert (project / "prepared").read_text() == "x"
    (project / "views" / "notes.txt").write_text("no view")
    (project / "views" / "wrong.sql").write_text("CREATE NONSENSE")
    first.wait_for(lambda: " error up " in first.text())
    assert first.text().count("views/ changed: applying") == 1
    (project / "views" / "wrong.sql").unlink()
    first.wait_for(lambda: (project / "prepared").read_text() == "xx")
    (project / "headwater.toml").write_text(f'[project]\nname = "p"\n[settings]\n{SETTINGS}')
    first.says("restart `headwater up` to apply it")
    first.wait_for(first.healthy)

    toy = first.toy_pid()
    assert first.end() == 0
    assert not psutil.pid_exists(toy)
    assert status(command, project)["http"] is None
    assert "Traceback" not in first.text()

    # the lake keeps the zone it was made with
    with open_log(project / "lake") as log, own(log, "source:x") as owner:
        assert log.timezone == "Asia/Tokyo"
        with log.transaction("source:x", owner.epoch) as tx:
            tx.position = "0/1"
            tx.commit()
    third = up()
    assert third.ended() == 1
    assert "this lake was made with 'Asia/Tokyo'" in third.text()


def test_jobs_run_from_the_first_one_to_the_last(project: Path, up: Callable[..., Running]) -> None:
    with open_log(project / "lake", create=True) as log:
        Lake(log).create_topic("web.payments", {"id": "BIGINT"}, partitions=1)
    running = up()
    running.wait_for(running.healthy)
    file = project / "jobs" / "first.py"
    file.parent.mkdir()
    (file.parent / "_shared.py").write_text("LIMIT = 10\n")
    file.write_text("")  # a person makes the file, then writes it
    running.says("declares no job to run: waiting for one")
    file.write_text(JOB)
    with open_log(project / "lake") as log:
        running.wait_for(lambda: jobs.position(log, "first") is not None)
        assert log.topic("jobs.seen").kind == "event"
    file.unlink()
    running.wait_for(lambda: any("stopped (exit code 0)" in each and "jobs:main" in each for each in running.lines))
    running.wait_for(running.healthy)
    assert "jobs:main" not in running.ask("/healthz")[1]
    assert running.end() == 0
    assert "Traceback" not in running.text()


def test_a_component_that_keeps_crashing_is_given_up_and_said_so(project: Path, up: Callable[..., Running]) -> None:
    (project / "mode").write_text("crash")
    running = up("--log-format", "json")
    running.says("is given up")

    def toy() -> dict[str, Any]:
        components = json.loads(running.ask("/healthz")[1])["components"]
        return next(each for each in components if each["name"] == "toy")

    running.wait_for(lambda: toy()["state"] == "given up")
    assert running.ask("/healthz")[0] == 503
    assert (toy()["ok"], toy()["restarts"]) == (False, 2)
    figures = running.ask("/metrics")[1]
    assert 'headwater_component_up{component="toy"} 0.0' in figures
    assert 'headwater_component_restarts_total{component="toy"} 2.0' in figures
    assert 'headwater_component_up{component="maintenance"} 1.0' in figures
    assert running.end(signal.SIGINT) == 1

    lines = [json.loads(line) for line in running.lines]
    assert all({"time", "level", "component", "message"} <= set(each) for each in lines)
    work = [each for each in lines if each["message"] == "at work"]
    assert len(work) == 3
    assert (work[0]["component"], work[0]["commit"], work[0]["topic"]) == ("toy", 0, "t")
    assert (work[0]["view"], work[0]["lsn"]) == ("v", "0/1")
    assert "the toy broke" in [each["message"] for each in lines]
    assert "toy was given up" in lines[-1]["message"]


@pytest.mark.long
def test_a_standby_takes_over_after_kill_9(up: Callable[..., Running]) -> None:
    first = up()
    first.wait_for(first.healthy)
    toy = first.toy_pid()
    standby = up("--standby")
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    standby.wait_for(standby.healthy)
    assert f"stopping process {toy}, left by an earlier run" in standby.text()
    assert not psutil.pid_exists(toy)
    assert standby.toy_pid() != toy
    assert standby.end(signal.SIGINT) == 0


@pytest.mark.long
def test_a_source_that_is_not_there_ends_it_with_what_to_do(project: Path, up: Callable[..., Running]) -> None:
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))  # bound, not listening: whoever connects is refused
        dsn = f"postgresql://reader:hunter2@127.0.0.1:{bound.getsockname()[1]}/shop"
        (project / "headwater.toml").write_text(
            f'[project]\nname = "p"\n[source.shop]\ndsn = "{dsn}"\n[settings]\n{SETTINGS}'
        )
        running = up(HEADWATER_RESTART_LIMIT="1")
        assert running.ended() == 1
    assert "source:shop was given up" in running.lines[-1]
    assert "127.0.0.1" in running.lines[-1]
    assert "hunter2" not in running.text()
    assert "Traceback" not in running.text()


def test_until_caught_up_says_when_it_was_ended_before(project: Path, up: Callable[..., Running]) -> None:
    (project / "headwater.toml").write_text(
        f'[project]\nname = "p"\n[source.x]\nkind = "toy"\ndsn = "there"\n[settings]\n{SETTINGS}'
    )
    cut_short = up("--until-caught-up")
    cut_short.wait_for(cut_short.healthy)
    assert cut_short.end(signal.SIGINT) == 1
    assert "stopped before it had caught up" in cut_short.lines[-1]
    with (
        open_log(project / "lake") as log,
        own(log, "source:x") as owner,
        log.transaction("source:x", owner.epoch) as transaction,
    ):
        transaction.position = "1/0"
        transaction.commit()
    assert up("--until-caught-up").ended() == 0


def test_a_port_that_is_taken() -> None:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port: int = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is taken by another program"):
            StatusServer(port, dict, dict)


AUTOGROUP = Path("/proc/self/autogroup")


@pytest.mark.skipif(not AUTOGROUP.exists(), reason="Linux without autogrouping")
@pytest.mark.parametrize("own_session", [True, False])
def test_maintenance_gives_way_to_other_sessions_too(*, own_session: bool) -> None:
    code = (
        "import os; from headwater.service.maintenance import AUTOGROUP, give_way; before = AUTOGROUP.read_text();"
        " give_way(); print(os.nice(0), before.strip(), AUTOGROUP.read_text().strip(), sep='|')"
    )
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, start_new_session=own_session, capture_output=True, text=True, check=True, timeout=60)
    nice, before, after = done.stdout.strip("\n").split("|")
    assert int(nice) == min(os.nice(0) + 10, 19)
    if own_session:
        assert after.split()[-1] == "10"
    else:  # a terminal's session is not ours to slow down; what is started outside of any has no group: an empty file
        assert after == before


_ARENAS = """
import ctypes, threading
libc, together = ctypes.CDLL(None), threading.Barrier(9)
def work():
    libc.malloc(100)
    together.wait()
    together.wait()
for _ in range(8):
    threading.Thread(target=work).start()
together.wait()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
together.wait()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_threads_of_maintenance_and_of_views_share_two_arenas() -> None:
    def heaps(**env: str) -> int:
        kept = {name: value for name, value in os.environ.items() if name not in (ARENAS, "GLIBC_TUNABLES")}
        argv = [sys.executable, "-c", _ARENAS]
        done = subprocess.run(argv, env={**kept, **env}, capture_output=True, text=True, check=True, timeout=WAIT_S)
        return done.stdout.count("<heap nr=")

    assert heaps(**MAINTAIN.env) <= 2 < heaps()
    assert heaps(**environment({})) <= 2


def test_arrow_of_maintenance_uses_the_same_allocator() -> None:
    argv = [sys.executable, "-c", "import pyarrow; print(pyarrow.default_memory_pool().backend_name)"]
    done = subprocess.run(argv, env={**os.environ, **MAINTAIN.env}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "system"
