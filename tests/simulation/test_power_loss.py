"""The power goes, at any call: what was acknowledged is on the disk, and what is on the disk is whole.

A run is recorded call by call (``headwater.testing.shim``), SQLite's calls included; then the disk is built that a
cut at a point of it could leave (``headwater.testing.power``), and opened. The list of points is read off the run.
"""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

import pytest

from headwater.testing import power
from headwater.testing.recording import TOLD, Recorded
from headwater.testing.shim import Server
from headwater.testing.workloads import WORKLOADS, swept


def test_the_recording_misses_no_call(recorded: Recorded, seed: int) -> None:
    """What the recorded calls add up to is what the folder really holds."""
    disk = power.Disk(recorded.disk)
    for event in recorded.events():
        disk.follow(event)
    found = {
        path.relative_to(recorded.disk).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in recorded.disk.rglob("*")
        if not path.name.endswith(power.IGNORED)
    }
    assert disk.image("everything", random.Random(seed)) == found
    assert {event.op for event in recorded.events()} >= {"C", "D", "W", "S", "U", "R"}


def test_what_is_acknowledged_is_on_the_disk(recorded: Recorded, seed: int) -> None:
    """The worst disk, that keeps nothing it need not: behind each acknowledgement, and where its state can change."""
    events = recorded.events()
    told = [number + 1 for number, event in enumerate(events) if event.op == "W" and event.path.endswith(TOLD)]
    points = random.Random(seed).sample(power.turning_points(events), k=16 if recorded.name == "capture" else 3)
    assert recorded.cut({*told, *points}, ["nothing"], rows=12, goes_on=20) >= 5


def test_a_cut_leaves_a_whole_lake_whatever_else_survives(recorded: Recorded, seed: int) -> None:
    many = 4 if recorded.name == "capture" else 1
    points = random.Random(seed).sample(range(len(recorded.events())), k=many)
    assert recorded.cut(points, power.MODES, rows=10)


def test_a_file_put_under_a_name_is_whole(recorded: Recorded) -> None:
    """Names reach the disk before bytes do: what was renamed into place must have had its bytes there."""
    renamed = [number + 1 for number, event in enumerate(recorded.events()) if event.op == "R"]
    recorded.cut(renamed if recorded.name == "capture" else renamed[:3], ["names"])


@pytest.mark.long
@pytest.mark.timeout(5400)
def test_cuts_all_through_a_run(recorded: Recorded, seed: int) -> None:
    """``everything`` is what kill -9 leaves: at calls of the process, SQLite's own included."""
    points = swept(recorded.name, range(len(recorded.events()) + 1), seed, many=400)
    recorded.cut(points, [*power.MODES, "everything"], rows=12, goes_on=40)


def kill_then_cut(server: Server, folder: Path, name: str, seed: int, plan: str) -> None:
    """A run finds what a killed one had written and not made durable; then the power goes."""
    run = Recorded(server, folder, name, seed)
    assert run.run(plan) == -signal.SIGKILL, f"{plan} was not reached"
    before = len(run.events())
    assert run.run(again=True) == 0
    points = [point for point in power.turning_points(run.events()) if point >= before]
    run.cut(random.Random(seed).sample(points, k=min(8, len(points))) + points[-1:], ["nothing"])
    shutil.rmtree(folder)


def test_kill_then_power_cut(shimmed: Server, arena: Path, seed: int) -> None:
    """The folders are made and not yet durable: the next run finds them and must not take them for it."""
    kill_then_cut(shimmed, arena / "run", "capture", seed, "kill:storage.fsync_folder:before:1")


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", WORKLOADS)
def test_kill_at_points_then_power_cut(shimmed: Server, arena: Path, seed: int, name: str) -> None:
    whole = Recorded(shimmed, arena / "whole", name, seed)
    assert whole.run(f"record:{arena / 'points'}") == 0
    places = range(1, len((arena / "points").read_text().splitlines()) + 1)
    for place in swept(name, places, seed, many=60):
        kill_then_cut(shimmed, arena / str(place), name, seed, f"kill:{place}")
