"""A real small file system that fills up, at any moment of any work: readable, nothing half, and on it goes."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater.errors import DiskFull
from headwater.log import open_log
from headwater.log.verify import verify
from headwater.testing import workload
from headwater.testing.workload import CAPTURE

MIB = 1 << 20
SIZE = 8 * MIB


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this container may not mount")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def used(folder: Path) -> int:
    stat = os.statvfs(folder)
    return (stat.f_blocks - stat.f_bfree) * stat.f_bsize


def told(folder: Path) -> list[str]:
    return (folder / "told").read_text().split() if (folder / "told").exists() else []


def fill_and_go_on(small: Path, outside: Path, seed: int, left: int) -> bool:
    """The workload with so many bytes left, then reading, then more room; whether the disk was full meanwhile.

    All of it meets the end of the disk in turn: a commit, a seal, a base, SQLite's log, its checkpoint.
    """
    lake, ballast = small / "lake", small / "ballast"
    outside.mkdir()
    ballast.write_bytes(bytes(SIZE - used(small) - left))
    full = False
    try:
        workload.run(lake, outside / "told", seed)
    except DiskFull:
        full = True
        if told(outside):
            look(lake, seed, told(outside))
    ballast.unlink()
    workload.run(lake, outside / "told", seed, again=True)
    with open_log(lake) as log:
        CAPTURE.stands(log, told(outside), True)
        CAPTURE.check(log, seed)
        assert not verify(log, deep=True).findings
    return full


def look(lake: Path, seed: int, acknowledged: list[str]) -> None:
    """Reading while the disk is full: what was acknowledged, and nothing half."""
    with open_log(lake) as log:
        CAPTURE.stands(log, acknowledged, False)
        CAPTURE.check(log, seed)
        assert not verify(log, deep=True).findings


def test_a_disk_that_fills_up_in_the_midst(small: Path, tmp_path: Path, seed: int) -> None:
    left = random.Random(seed).randrange(100_000, 1_200_000)
    assert fill_and_go_on(small, tmp_path / "outside", seed, left)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_disk_that_fills_up_anywhere(small: Path, tmp_path: Path, seed: int) -> None:
    """From no room at all to enough for all of it, in steps of a few pages."""
    met = []
    for number, left in enumerate(range(0, 2 * MIB, 40_960)):
        met.append(fill_and_go_on(small, tmp_path / str(number), seed, left))
        subprocess.run(["rm", "-rf", str(small / "lake")], check=True)
    assert met[0]
    assert not met[-1], "even the last run found the disk full: the sweep must reach to where it is not"
