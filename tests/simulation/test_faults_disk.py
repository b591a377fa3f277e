"""The disk fails a call, any call, for once: no acknowledgement of what is not there, and the next run goes on.

The calls fail below Python (``headwater.testing.shim``), SQLite's and DuckDB's included. After each the power goes
as well: an fsync that failed has lost its bytes, whatever a second one says.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from headwater.testing import power
from headwater.testing.recording import Recorded
from headwater.testing.shim import Server
from headwater.testing.workloads import swept

CALLS = {
    "fsync": "EIO",
    "fsync_folder": "EIO",
    "write": "ENOSPC",
    "create": "ENOSPC",
    "close": "EIO",
    "truncate": "EIO",
    "rename": "EIO",
}
"""Calls that may fail, and how each is made to."""


def fail_once(server: Server, folder: Path, name: str, seed: int, call: str, action: str, nth: int) -> None:
    """The run with the ``nth`` call failing, a power cut at its end, the next run; and a cut at the end of that."""
    run = Recorded(server, folder, name, seed)
    exit_code = run.run(rules=(f"{call}:{run.disk}/lake/*:{action}:{nth}:1",))
    assert exit_code in (0, 1), f"{call} {nth} {action}: the process ended with {exit_code}"
    run.check(complete=exit_code == 0)
    end = len(run.events())
    run.cut([end], ["nothing", "chance"])
    assert run.run(again=True) == 0, f"the run after {action} in {call} {nth} failed"
    run.check(complete=True)
    run.cut([len(run.events())], ["nothing"])
    shutil.rmtree(folder)


def calls_of(recorded: Recorded, call: str) -> int:
    """How often an undisturbed run makes a call below the lake; at least so, for what is not recorded."""
    ops = {"fsync": "S", "fsync_folder": "S", "write": "W", "create": "C", "close": "C", "truncate": "T", "rename": "R"}
    folders = {event.inode for event in recorded.events() if event.op == "D"}
    return sum(
        event.op == ops[call]
        and "/lake/" in event.path
        and (call not in ("fsync", "fsync_folder") or (event.inode in folders) == (call == "fsync_folder"))
        for event in recorded.events()
    )


def test_a_call_that_fails_once(shimmed: Server, arena: Path, captured: Recorded, seed: int) -> None:
    chance = random.Random(seed)
    call = chance.choice(["fsync", "fsync_folder", "write", "close"])
    nth = chance.randint(1, calls_of(captured, call))
    fail_once(shimmed, arena / "run", captured.name, seed, call, CALLS[call], nth)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("call", CALLS)
def test_every_call_that_can_fail(shimmed: Server, arena: Path, recorded: Recorded, seed: int, call: str) -> None:
    """Every single one of the short workload; forty of each kind of a longer one."""
    for nth in swept(recorded.name, range(1, calls_of(recorded, call) + 1), seed, many=40):
        fail_once(shimmed, arena / str(nth), recorded.name, seed, call, CALLS[call], nth)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_disk_that_stays_broken(shimmed: Server, arena: Path, recorded: Recorded, seed: int, call: str) -> None:
    """From some call on all fail: the process gives up, and what it had acknowledged is there."""
    for nth in random.Random(seed).sample(range(1, calls_of(recorded, call) + 1), k=20):
        run = Recorded(shimmed, arena / str(nth), recorded.name, seed)
        exit_code = run.run(rules=(f"{call}:{run.disk}/lake/*:{CALLS[call]}:{nth}:0",))
        assert exit_code in (0, 1)
        if exit_code == 0:  # all that was left is SQLite moving its log into the file, and the log stays
            run.check(complete=True)
        run.cut([len(run.events())], ["nothing", "chance", "everything"])


def test_writes_and_reads_that_return_short(shimmed: Server, arena: Path, seed: int) -> None:
    """Half of the bytes, each time: whoever believes the call loses the other half."""
    run = Recorded(shimmed, arena / "run", "capture", seed)
    assert run.run(rules=("write:*/data/*:short:1:0", "read:*/data/hot/*:short:1:0")) == 0
    run.check(complete=True)


def test_an_fsync_that_failed_is_not_believed_later(shimmed: Server, arena: Path, seed: int) -> None:
    """The hot file whose fsync failed is abandoned: its bytes are on no disk, though the next fsync says yes."""
    run = Recorded(shimmed, arena / "run", "capture", seed)
    assert run.run(rules=("fsync:*.arrows:EIO:3:1",)) == 1
    assert run.told() == ["1", "2"]
    run.cut([len(run.events())], power.MODES)
    assert run.run(again=True) == 0
    run.cut([len(run.events())], ["nothing"])
