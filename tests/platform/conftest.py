"""An empty lake and a writer for every test of the core."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from headwater.log import Log, open_log
from headwater.testing.writer import Writer


@pytest.fixture
def make_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Log]]:
    """New empty lakes, as many as a test wants."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(open_log(tmp_path_factory.mktemp("lake") / "lake", create=True))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with open_log(tmp_path / "lake", create=True) as opened:
        yield opened


@pytest.fixture
def writer(log: Log) -> Writer:
    return Writer(log)
