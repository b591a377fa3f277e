"""kill -9 at every storage, catalog and acknowledge call of a recorded run; then what was acknowledged is there.

The list of points is read off a run, so a new call is a new point without anyone adding it here.
"""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from headwater.log import open_log
from headwater.testing import workload, workloads
from headwater.testing.forks import FORKS
from headwater.testing.workload import check_folder
from headwater.testing.workloads import WORKLOADS, swept

# Children are forked from a server that has imported everything and started nothing: a start costs milliseconds.


def run(folder: Path, name: str, seed: int, plan: str = "", *, again: bool = False) -> BaseProcess:
    """The workload in a process of its own, to its end or its death."""
    arguments = (name, str(folder / "lake"), str(folder / "acknowledged"), seed, again, plan)
    process = FORKS.Process(target=workloads.run, args=arguments, daemon=True)
    process.start()
    process.join(60)
    return process


def record(folder: Path, name: str, seed: int) -> list[str]:
    """Every point that an undisturbed run passes, in order."""
    folder.mkdir()
    assert run(folder, name, seed, f"record:{folder / 'points'}").exitcode == 0
    check(folder, name, seed, complete=True)
    return (folder / "points").read_text().splitlines()


def acknowledged(folder: Path) -> list[str]:
    path = folder / "acknowledged"
    return path.read_text().split() if path.exists() else []


def check(folder: Path, name: str, seed: int, *, complete: bool) -> None:
    check_folder(WORKLOADS[name], folder / "lake", seed, acknowledged(folder), complete=complete)


def kill_at(folder: Path, name: str, seed: int, place: int, point: str) -> None:
    folder.mkdir()
    process = run(folder, name, seed, f"kill:{place}")
    assert process.exitcode == -signal.SIGKILL, f"point {place} ({point}) was not reached"
    check(folder, name, seed, complete=False)
    assert run(folder, name, seed, again=True).exitcode == 0, f"the run after a kill at {point} failed"
    check(folder, name, seed, complete=True)
    shutil.rmtree(folder)


def chosen(points: Sequence[str], chance: random.Random, many: int) -> list[int]:
    """1-based places of ``many`` different kinds of call, each at one of its hits."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(points, start=1):
        places.setdefault(name, []).append(place)
    return sorted(chance.choice(places[name]) for name in chance.sample(sorted(places), k=many))


@pytest.mark.parametrize("name", ["capture", pytest.param("keep", marks=pytest.mark.long)])
def test_kill_at_some_calls(arena: Path, seed: int, name: str) -> None:
    points = record(arena / "whole", name, seed)
    assert {"storage.fsync:before", "catalog.commit:after", "acknowledge:before"} <= set(points)
    for place in chosen(points, random.Random(seed), many=2 if name == "capture" else 1):
        kill_at(arena / f"kill-{place}", name, seed, place, points[place - 1])


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", WORKLOADS)
def test_kill_at_every_kind_of_call(arena: Path, seed: int, name: str) -> None:
    """At every single call of the short workload; of a longer one at each kind of call, and at four hundred hits."""
    points = record(arena / "whole", name, seed)
    kinds = chosen(points, random.Random(seed), many=len(set(points)))
    for place in sorted({*kinds, *swept(name, range(1, len(points) + 1), seed, many=400)}):
        kill_at(arena / f"kill-{place}", name, seed, place, points[place - 1])


def test_a_commit_whose_reply_was_lost_is_not_repeated(arena: Path, seed: int) -> None:
    """The writer dies right after COMMIT; its successor, with more to do at once, must not send it again."""
    points = record(arena / "whole", "capture", seed)
    captured = [place for place, name in enumerate(points, start=1) if name == "acknowledge:before"]
    for place in random.Random(seed).sample(captured, k=1):
        assert points[place - 2] == "catalog.commit:after"
        folder = arena / f"lost-{place}"
        folder.mkdir()
        assert run(folder, "capture", seed, f"kill:{place - 1}").exitcode == -signal.SIGKILL
        with open_log(folder / "lake") as log:
            assert int(log.producer(workload.PRODUCER).position or 0) == len(acknowledged(folder)) + 1
        assert run(folder, "capture", seed, again=True).exitcode == 0
        check(folder, "capture", seed, complete=True)


def test_nothing_is_named_before_it_is_durable(arena: Path, seed: int) -> None:
    """Between the last byte written and the catalog's COMMIT: fsync of the file, then of its folder."""
    points = record(arena / "whole", "capture", seed)
    dirty: list[str] = []
    for name in points:
        if name == "storage.create:after":
            dirty += ["file", "folder"]
        elif name == "storage.write:after":
            assert "file" in dirty, "bytes written after the file was made durable"
        elif name == "storage.fsync:after":
            dirty.remove("file")
        elif name == "storage.fsync_folder:after" and "folder" in dirty:
            dirty.remove("folder")
        elif name == "catalog.commit:before":
            assert dirty == [], "the catalog names what a power cut could still take"
