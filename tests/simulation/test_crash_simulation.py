"""kill -9 at every storage, catalog and acknowledge call of a recorded run; then what was acknowledged is there.

The list of points is read off a run, so a new call is a new point without anyone adding it here.
"""

from __future__ import annotations

import multiprocessing
import random
import signal
from collections import Counter
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from headwater.lake import open_lake
from headwater.log import Log, open_log
from headwater.log.verify import verify
from headwater.testing import workload

COUNT = 8
# Children are forked from a server that has imported everything and started nothing: a start costs milliseconds.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["headwater.testing.workload"])


def run(folder: Path, seed: int, group: int, plan: str = "") -> BaseProcess:
    """The workload in a process of its own, to its end or its death."""
    arguments = (folder / "lake", folder / "acknowledged", seed, COUNT, group, plan)
    process = FORKS.Process(target=workload.run, args=arguments, daemon=True)
    process.start()
    process.join(60)
    return process


def record(folder: Path, seed: int) -> list[str]:
    """Every point that an undisturbed run passes, in order."""
    folder.mkdir()
    assert run(folder, seed, 1, f"record:{folder / 'points'}").exitcode == 0
    check(folder, seed, complete=True)
    return (folder / "points").read_text().splitlines()


def acknowledged(folder: Path) -> int:
    path = folder / "acknowledged"
    return max((int(line) for line in path.read_text().splitlines()), default=0) if path.exists() else 0


def check(folder: Path, seed: int, *, complete: bool) -> int:
    """What is there is exactly a prefix of the source that holds all that was acknowledged; how long it is."""
    if not (folder / "lake" / "catalog.sqlite").exists():
        assert acknowledged(folder) == 0
        return 0
    with open_log(folder / "lake", create=True) as log:
        position = int(log.producer(workload.PRODUCER).position or 0)
        assert position >= acknowledged(folder)
        assert position == COUNT or not complete
        report = verify(log, deep=True)
        assert report.findings == ()
        if log.topics():
            check_records(log, seed, position)
    return position


def check_records(log: Log, seed: int, position: int) -> None:
    source = workload.batches(seed, COUNT)
    identity = ["_lsn", "_seq", "_op", "a", "b"]
    sent = Counter(tuple(row.values()) for t, _ in source[:position] for row in t.select(identity).to_pylist())
    found = log.read_changes(workload.TOPIC, 0, log.newest_commit(), [*identity, "_partition"])
    # A truncate stands in both partitions.
    held = Counter(tuple(row.values())[:5] for row in found.to_pylist() if row["_op"] != "t" or row["_partition"] == 0)
    assert held == sent
    truth = source[position - 1][1] if position else Counter()
    with open_lake(log.folder) as lake:
        assert Counter(lake.sql("SELECT * FROM t").fetchall()) == truth


def kill_at(folder: Path, seed: int, point: int, name: str) -> None:
    folder.mkdir()
    process = run(folder, seed, 1, f"kill:{point}")
    assert process.exitcode == -signal.SIGKILL, f"point {point} ({name}) was not reached"
    before = check(folder, seed, complete=False)
    if name == "catalog.commit:after":
        assert acknowledged(folder) <= before  # the commit is there though its writer never heard of it
    assert run(folder, seed, 3).exitcode == 0, f"the run after a kill at {name} failed"
    check(folder, seed, complete=True)


def chosen(points: Sequence[str], chance: random.Random, many: int) -> list[int]:
    """1-based places of ``many`` different kinds of call, each at one of its hits."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(points, start=1):
        places.setdefault(name, []).append(place)
    return sorted(chance.choice(places[name]) for name in chance.sample(sorted(places), k=many))


def test_kill_at_some_calls(arena: Path, seed: int) -> None:
    points = record(arena / "whole", seed)
    assert {"storage.fsync:before", "catalog.commit:after", "acknowledge:before"} <= set(points)
    for place in chosen(points, random.Random(seed), many=6):
        kill_at(arena / f"kill-{place}", seed, place, points[place - 1])


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_kill_at_every_single_call(arena: Path, seed: int) -> None:
    points = record(arena / "whole", seed)
    for place, name in enumerate(points, start=1):
        kill_at(arena / f"kill-{place}", seed, place, name)


def test_a_commit_whose_reply_was_lost_is_not_repeated(arena: Path, seed: int) -> None:
    """The writer dies right after COMMIT; its successor, with more to do at once, must not send it again."""
    points = record(arena / "whole", seed)
    captured = [place for place, name in enumerate(points, start=1) if name == "acknowledge:before"]
    for place in random.Random(seed).sample(captured, k=3):
        assert points[place - 2] == "catalog.commit:after"
        folder = arena / f"lost-{place}"
        folder.mkdir()
        assert run(folder, seed, 1, f"kill:{place - 1}").exitcode == -signal.SIGKILL
        assert check(folder, seed, complete=False) == acknowledged(folder) + 1
        assert run(folder, seed, 3).exitcode == 0
        check(folder, seed, complete=True)


def test_nothing_is_named_before_it_is_durable(arena: Path, seed: int) -> None:
    """Between the last byte written and the catalog's COMMIT: fsync of the file, then of its folder."""
    points = record(arena / "whole", seed)
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
