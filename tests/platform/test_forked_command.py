"""`headwater.testing.command`: a forked command is to its caller what a started one is."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headwater.log import open_log
from headwater.schema import Field, Schema

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="commands are forked on Linux only")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a topic ``events``."""
    (tmp_path / "headwater.toml").write_text('[project]\nname = "shop"\n')
    log = open_log(tmp_path / "lake", create=True)
    with log, log.transaction("system:test", log.raise_epoch("system:test")) as tx:
        tx.create_topic("events", "event", Schema(fields=(Field(id=1, name="id", type="BIGINT"),)))
        tx.commit()
    return tmp_path


def test_a_command_has_its_callers_world(command: Path, project: Path) -> None:
    """Arguments, folder, standard streams and exit code."""
    produce = [str(command), "topic", "produce", "events", "-", "--format", "jsonl"]
    rows = b'{"id": 1}\n{"id": 2}\n'
    done = subprocess.run(produce, cwd=project, input=rows, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    with open_log(project / "lake") as log:
        assert log.read_changes("events", 0, log.newest_commit()).column("id").to_pylist() == [1, 2]
    show = [str(command), "topic", "show", "nothing"]
    wrong = subprocess.run(show, cwd=project, capture_output=True, timeout=60, check=False)
    assert wrong.returncode == 1
    assert b"nothing" in wrong.stderr


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_command_ends_with_its_caller(command: Path, project: Path, by: signal.Signals) -> None:
    """A command that follows for ever: told to end, it does; of a killed caller nobody is left who could tell it."""
    produce = [str(command), "topic", "produce", "events", "-", "--format", "jsonl"]
    subprocess.run(produce, cwd=project, input=b'{"id": 1}\n', capture_output=True, timeout=60, check=True)
    tail = [str(command), "topic", "tail", "events", "--follow"]
    with subprocess.Popen(tail, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
        assert run.stdout is not None
        assert b'"id"' in run.stdout.readline()
        run.send_signal(by)
        run.stdout.read()  # until the last process that could write has gone
        assert run.wait(60) in {signal.SIGINT: (0, 130), signal.SIGTERM: (143, -by), signal.SIGKILL: (-by,)}[by]
