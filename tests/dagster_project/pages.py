"""A running Dagster over a real lake: code server, webserver and daemon as headwater starts them, asked by GraphQL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.waiting import until

from headwater_dagster import instance, lease, worker
from headwater_dagster.location import LEASE_VARIABLE

from .conftest import Shop

RUNS = """query($tag: String!) { runsOrError(filter: {tags: [{key: $tag, value: "main"}]}) {
  ... on Runs { results { runId status tags { key value } } } } }"""
TICK = """query($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) { ... on Sensor {
  sensorState { ticks(limit: 1) { status skipReason timestamp } } } } }"""
LOADED = """{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"""
SELECTOR = {"repositoryName": "__repository__", "repositoryLocationName": instance.LOCATION}


@dataclass(kw_only=True)
class Pages:
    """A running Dagster."""

    shop: Shop
    port: int
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def ask(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            got = json.load(answer)
        assert "errors" not in got, got
        (value,) = got["data"].values()
        return value

    def up(self) -> bool:
        assert [child.poll() for child in self.children] == [None] * len(self.children), "a process of Dagster ended"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/server_info", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def loaded(self) -> bool:
        return bool(self.ask(LOADED)["nodes"])

    def runs(self, *statuses: str) -> list[dict[str, Any]]:
        """Runs of the lease with one of these statuses, newest first."""
        found = self.ask(RUNS, tag=lease.TAG)["results"]
        return [run for run in found if run["status"] in statuses]

    def tick(self, sensor: str) -> dict[str, Any]:
        ticks = self.ask(TICK, selector={**SELECTOR, "sensorName": sensor})["sensorState"]["ticks"]
        return dict(ticks[0]) if ticks else {"status": "none", "skipReason": None, "timestamp": 0.0}


@contextmanager
def running(shop: Shop, lease_s: float) -> Iterator[Pages]:
    """Dagster over the shop, until the block ends; its output is in the project's folder, a file each."""
    project, port = shop.project, instance.free(0)
    made = Pages(shop=shop, port=port)
    environment = {**os.environ, **instance.environment(project), LEASE_VARIABLE: str(lease_s)}
    with ExitStack() as stack:
        argvs = instance.processes(project, port=port)
        instance.create_databases(project)
        for argv in argvs:
            output = stack.enter_context((project.root / f"{argv[2]}.log").open("ab"))
            made.children.append(
                subprocess.Popen(
                    argv, env=environment, cwd=project.root, stdout=output, stderr=output, start_new_session=True
                )
            )
        try:
            until(made.up, "the webserver's answer", 90)
            until(made.loaded, "the definitions", 90)
            yield made
        finally:
            shop.log.set_setting(worker.STOPPING, "test")
            for child in reversed(made.children):
                _end(child)


@pytest.fixture
def lease_s() -> float:
    return 5.0


@pytest.fixture
def pages(beating: Shop, lease_s: float) -> Iterator[Pages]:
    """For test modules that import it, with ``lease_s``, which they may set."""
    beating.order()
    with running(beating, lease_s) as made:
        yield made


def _end(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGINT)
    try:
        child.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait(10)
