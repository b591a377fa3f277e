"""Where simulated crashes play: in memory, because kill -9 loses nothing that a disk would have to keep."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headwater.log import Log, open_log
from headwater.testing import mutations, shim
from headwater.testing.recording import Recorded
from headwater.testing.workloads import WORKLOADS

MEMORY = Path("/dev/shm")

mutations.MUTATIONS.apply_from_environment()  # what test_mutations.py breaks in a process of its own


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system whose fsync costs nothing, where there is one."""
    with _memory(tmp_path) as folder:
        yield folder


@pytest.fixture(scope="module")
def module_arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with _memory(tmp_path_factory.mktemp("arena")) as folder:
        yield folder


@contextmanager
def _memory(otherwise: Path) -> Iterator[Path]:
    if not MEMORY.is_dir():
        yield otherwise
        return
    with tempfile.TemporaryDirectory(prefix="headwater-", dir=MEMORY) as folder:
        yield Path(folder).resolve()


@pytest.fixture(scope="session")
def shim_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that records file calls and makes them fail; without a C compiler skips, or fails in CI."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not sys.platform.startswith("linux"):
        pytest.skip("the shim is preloaded as Linux does it")
    if compiler is None:
        reason = "no C compiler on this machine; install Debian's packages: sudo apt-get install gcc libc6-dev"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return shim.build(tmp_path_factory.mktemp("shim"), compiler)


@pytest.fixture(scope="module")
def shimmed(shim_library: Path) -> Iterator[shim.Server]:
    """Processes under the shim."""
    with shim.Server(shim_library) as server:
        yield server


@pytest.fixture(scope="module")
def captured(shimmed: shim.Server, module_arena: Path, module_seed: int) -> Recorded:
    """An undisturbed run of the workload that captures."""
    run = Recorded(shimmed, module_arena / "captured", "capture", module_seed)
    assert run.run() == 0
    return run


@pytest.fixture(scope="module", params=WORKLOADS)
def recorded(request: pytest.FixtureRequest, shimmed: shim.Server, module_arena: Path, module_seed: int) -> Recorded:
    """An undisturbed run of each workload; the same one for all tests of a module."""
    run = Recorded(shimmed, module_arena / request.param, request.param, module_seed)
    assert run.run() == 0
    return run


@pytest.fixture
def log(arena: Path) -> Iterator[Log]:
    with open_log(arena / "lake", create=True) as opened:
        yield opened
