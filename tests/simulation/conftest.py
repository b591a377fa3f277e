"""Where simulated crashes play: in memory, because kill -9 loses nothing that a disk would have to keep."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system whose fsync costs nothing, where there is one."""
    if not MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="headwater-", dir=MEMORY) as folder:
        yield Path(folder)
