"""The small shop that the guides run on: the demo's, in a PostgreSQL of its own, unless one is running already.

``open_shop`` joins the project named by HEADWATER_PROJECT (or the nearest one upwards) when it is a demo, and
otherwise builds one in a temporary folder and runs ``headwater up`` for it until ``stop`` or the kernel's end.
"""

from __future__ import annotations

import atexit
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import psycopg

from headwater import Lake, config
from headwater.errors import CatalogError, ConfigError, NotYet
from headwater.lake import open_lake
from headwater_connectors.demo import load, project
from headwater_notebooks.session import default_folder
from headwater_pipelines.runtime.publish import PRODUCER

READY_S: Final = 90.0
"""How long the first copy and the demo's views may take."""
VIEWS: Final = ("sales_by_country", "revenue_by_product")
"""Of the demo's views those that a new shop begins with: enough to see, and ready in a few seconds."""
_END_S: Final = 30.0


class Shop:
    """A running demo shop: its lake, and a hand in its database."""

    def __init__(self, folder: Path, dsn: str, ending: ExitStack) -> None:
        self.folder = folder
        self._dsn = dsn
        self._ending = ending
        self._lake: Lake | None = None

    @property
    def lake(self) -> Lake:
        """The shop's lake."""
        if self._lake is None:
            self._lake = open_lake(self.folder)
            self._ending.callback(self._lake.close)
        return self._lake

    def execute(self, sql: str) -> int:
        """Run SQL in the shop's PostgreSQL as one transaction; returns its commit, once the views have it too."""
        with psycopg.connect(self._dsn) as connection:
            connection.execute(sql.encode())
            row = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        assert row is not None
        until = time.monotonic() + READY_S
        newest = self.lake.position()
        while time.monotonic() < until:  # the commit record comes after everything the transaction wrote
            state = self.lake.log.producer(f"source:{project.SOURCE}")
            if state.position is not None and state.commit is not None and _lsn(state.position) > _lsn(row[0]):
                self.settle(state.commit)
                return state.commit
            newest = self.lake.log.wait(newest, 0.5)
        raise NotYet("the change was not captured in time", todo="Does `headwater up` run? `%hwstatus` says so.")

    def settle(self, commit: int | None = None) -> None:
        """Wait until the views have their rows, and have taken in everything up to a commit, or up to now."""
        log = self.lake.log
        wanted = log.newest_commit() if commit is None else commit
        until = time.monotonic() + READY_S
        while time.monotonic() < until:
            step = log.last_step()
            rest = log.commits(0 if step is None else step.input_commit, wanted)
            filled = all(view.state != "creating" for view in self.lake.views())
            if filled and all(info.producer == PRODUCER for info in rest):
                return
            log.wait(log.newest_commit(), 0.1)
        raise NotYet("the views did not take the change in", todo="Does `headwater up` run? `%hwstatus` says so.")

    def sell(self, seconds: float = 3.0, rate: float = 200.0) -> dict[str, float]:
        """Let customers browse, order, pay and cancel for a while; returns what they did."""
        return load.run(self._dsn, rate=rate, seconds=seconds, seed=1, stop=threading.Event())

    def stop(self) -> None:
        """End what ``open_shop`` started; a shop that ran before goes on."""
        self._ending.close()
        self._lake = None


def open_shop() -> Shop:
    """The running demo's shop, or a new one that is ready when this returns."""
    ending = ExitStack()
    try:
        folder = default_folder()
        dsn = config.load(folder).source(project.SOURCE).dsn
    except ConfigError:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="headwater-guide-")))
        demo = ending.enter_context(project.opened(folder / "shop", seed=1))
        folder, dsn = demo.project.root, demo.dsn
        for path in demo.project.views_dir.glob("*.sql"):
            if path.stem not in VIEWS:
                path.unlink()
        _run_up(folder, ending)
    atexit.register(ending.close)
    return Shop(folder, dsn, ending)


def _run_up(folder: Path, ending: ExitStack) -> None:
    """Start ``headwater up`` and wait until every view of the project has its rows."""
    output = ending.enter_context((folder / "up.log").open("wb"))
    process = subprocess.Popen(
        [sys.executable, "-m", "headwater.cli", "up", "--log-format", "text"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    ending.callback(_end, process)
    wanted = len(list((folder / "views").glob("*.sql")))
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        if _live_views(folder) >= wanted:
            return
        time.sleep(0.2)
    said = (folder / "up.log").read_text(errors="replace").strip()[-600:]
    raise NotYet("the shop did not get ready", todo=f"`headwater up` said: {said}")


def _live_views(folder: Path) -> int:
    try:
        with open_lake(folder) as lake:
            return sum(view.topic is not None for view in lake.views())
    except CatalogError:  # `up` has not made the lake yet
        return 0


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _lsn(text: str) -> int:
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) | int(low, 16)
