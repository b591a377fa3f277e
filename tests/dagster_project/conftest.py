"""A small real lake, written by this process as the source ``shop``; real workers, ended by pid."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from headwater.config import Project, load
from headwater.log import Log, open_log
from headwater.ownership import own
from headwater.schema import Schema
from headwater_dagster import worker

from .pages import Pages, running

PROJECT = """\
[project]
name = "little"
[source.shop]
kind = "postgres"
dsn = "postgresql://nobody@127.0.0.1:1/none"
"""
ORDERS = Schema.of({"id": "BIGINT", "customer": "BIGINT", "amount": "BIGINT"}, key=["id"])
CUSTOMERS = Schema.of({"id": "BIGINT", "name": "VARCHAR"}, key=["id"])
TOTALS = (
    "SELECT c.name AS name, SUM(o.amount) AS total FROM orders AS o JOIN customers AS c ON c.id = o.customer"
    " GROUP BY c.name"
)
LARGE = "SELECT id, amount FROM orders WHERE amount > 50"


@dataclass(kw_only=True)
class Shop:
    """The source's side of the lake: writes orders, beats as a capture process would."""

    project: Project
    log: Log
    epoch: int
    next_id: int = 1

    def order(self, count: int = 10) -> int:
        """One commit of ``count`` new orders; its number."""
        ids = list(range(self.next_id, self.next_id + count))
        self.next_id += count
        table = pa.table(
            {
                "id": pa.array(ids, pa.int64()),
                "customer": pa.array([each % 3 + 1 for each in ids], pa.int64()),
                "amount": pa.array([each * 7 % 100 for each in ids], pa.int64()),
                "_op": pa.array(["c"] * count),
            }
        )
        before = self.log.producer("source:shop").position
        with self.log.transaction("source:shop", self.epoch, before) as tx:
            tx.append("shop.public.orders", table)
            tx.position = f"0/{self.next_id:X}"
            return tx.commit().number

    def beat(self, *, state: str = "streaming", lag_ms: float = 12.0) -> None:
        self.log.live.beat(
            "source:shop", state=state, lag_ms=lag_ms, lag_bytes=0, received_lsn="0/10", confirmed_lsn="0/10"
        )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project without a lake."""
    (tmp_path / "headwater.toml").write_text(PROJECT)
    return load(tmp_path)


@pytest.fixture
def shop(project: Project) -> Iterator[Shop]:
    """A lake with two tables and two views; at the end no worker of it lives."""
    with ExitStack() as stack:
        log = stack.enter_context(open_log(project.lake_dir, create=True))
        owner = stack.enter_context(own(log, "source:shop"))
        made = Shop(project=project, log=log, epoch=owner.epoch)
        fill(made)
        log.create_view("totals", TOTALS, {})
        log.create_view("large", LARGE, {})
        yield made
        end_workers(project)


@pytest.fixture
def beating(shop: Shop) -> Iterator[Shop]:
    """The shop's source beats, as a running capture does, until the test ends."""
    done = threading.Event()

    def run() -> None:
        while not done.wait(0.5):
            shop.beat()

    shop.beat()
    thread = threading.Thread(target=run)
    thread.start()
    yield shop
    done.set()
    thread.join()


@pytest.fixture
def lease_s() -> float:
    return 5.0


@pytest.fixture
def failpoints() -> str:
    """What HEADWATER_FAILPOINTS is in Dagster's processes."""
    return ""


@pytest.fixture
def pages(beating: Shop, lease_s: float, failpoints: str) -> Iterator[Pages]:
    """A running Dagster over the shop, whose leases last ``lease_s`` seconds."""
    beating.order()
    with running(beating, lease_s, failpoints) as made:
        yield made


def fill(shop: Shop) -> None:
    """The two tables, with three customers."""
    customers = pa.table({"id": pa.array([1, 2, 3]), "name": ["ann", "bob", "eve"], "_op": ["c"] * 3})
    with shop.log.transaction("source:shop", shop.epoch, None) as tx:
        tx.create_topic("shop.public.orders", "table", ORDERS, source="shop", description="what was bought")
        tx.create_topic("shop.public.customers", "table", CUSTOMERS, source="shop")
        tx.append("shop.public.customers", customers)
        tx.position = "0/1"
        tx.commit()


def worker_processes(project: Project) -> list[psutil.Process]:
    """Live ``headwater views`` processes of this project, whoever started them."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        arguments = process.info["cmdline"] or []
        mine = "views" in arguments and str(project.root) in arguments
        if mine and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def end_workers(project: Project) -> None:
    for process in worker_processes(project):
        process.kill()
        child = worker._children.pop(process.pid, None)  # reaped as what it is: psutil would leave Popen wondering
        (child or process).wait(10)


def headwater(project: Project, *arguments: str) -> str:
    """Run the command line; its standard output. Fails with what it said."""
    command = [sys.executable, "-m", "headwater.cli", *arguments, "--project", str(project.root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    return done.stdout
