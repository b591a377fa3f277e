"""What every test may use: the run's seed, and the browser.

The seed is printed at the start of a run; ``HEADWATER_TEST_SEED`` repeats it.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from headwater.testing.command import Forked

SEED = int(os.environ.setdefault("HEADWATER_TEST_SEED", str(secrets.randbits(32))))
"""In the environment, so that the workers of a parallel run have the seed that is printed."""

# No deadline: with two cores and a database beside the tests, time says nothing about a single example.
settings.register_profile("headwater", deadline=None, print_blob=True)
settings.load_profile("headwater")


def pytest_report_header() -> str:
    return f"seed: {SEED} (repeat with HEADWATER_TEST_SEED={SEED})"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, those of whole projects: no worker is left alone with one at the end of a run."""
    items.sort(key=lambda item: (item.path.name != "test_docs.py", item.path.parent.name != "end_to_end"))


def pytest_runtest_setup() -> None:
    """What an earlier test ran may have left SIGTERM ignored, and every process started later would inherit that."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """This test's own seed: the same for the same run seed, whatever else runs before it."""
    return random.Random(f"{SEED}/{request.node.nodeid}").getrandbits(32)


@pytest.fixture(scope="module")
def module_seed(request: pytest.FixtureRequest) -> int:
    """The same for what all tests of a module share."""
    return random.Random(f"{SEED}/{request.node.nodeid}").getrandbits(32)


@pytest.fixture(scope="session")
def command() -> Iterator[Path]:
    """``headwater``, to be run by its path; on Linux each run is forked from a process that has imported everything."""
    if not sys.platform.startswith("linux"):
        yield Path(sys.executable).with_name("headwater")
        return
    with tempfile.TemporaryDirectory(prefix="headwater-") as folder, Forked(Path(folder)) as forked:
        yield forked.command


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The system's chromium, for playwright's ``executable_path``; without one skips, or fails in CI."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        reason = "no chromium on this machine; install Debian's package: sudo apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return Path(found)
