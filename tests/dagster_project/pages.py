"""A running Dagster for tests: code server, webserver and daemon over a shop, asked by GraphQL as the pages ask."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.waiting import until

from headwater_dagster import instance, lease, worker
from headwater_dagster.location import LEASE_VARIABLE

if TYPE_CHECKING:
    from .conftest import Shop

RUNS = """query($filter: RunsFilter!) { runsOrError(filter: $filter) {
  ... on Runs { results { runId status tags { key value } } } } }"""
TICK = """query($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) { ... on Sensor {
  sensorState { ticks(limit: 1) { status skipReason timestamp } } } } }"""
TERMINATE = """mutation($run: String!) { terminateRun(runId: $run) { __typename } }"""
LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
LOADED = """{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"""
SELECTOR = {"repositoryName": "__repository__", "repositoryLocationName": instance.LOCATION}
CODE, WEBSERVER, DAEMON = 0, 1, 2


@dataclass(kw_only=True)
class Pages:
    """A running Dagster."""

    shop: Shop
    port: int
    environment: Mapping[str, str]
    argvs: list[list[str]]
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, which: int) -> None:
        """Start the code server, webserver or daemon, in the place of one that has ended."""
        project, argv = self.shop.project, self.argvs[which]
        with (project.root / f"{argv[2]}.log").open("ab") as output:
            child = subprocess.Popen(
                argv,
                env={**os.environ, **self.environment},
                cwd=project.root,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.children[which : which + 1] = [child]

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
        assert [child.poll() for child in self.children] == [None] * len(self.children), "a process of Dagster's ended"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/server_info", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def loaded(self) -> bool:
        return bool(self.ask(LOADED)["nodes"])

    def runs(self, *statuses: str) -> list[dict[str, Any]]:
        """Runs of the lease with one of these statuses, newest first."""
        found = self.ask(RUNS, filter={"tags": [{"key": lease.TAG, "value": lease.NAME}]})["results"]
        return [run for run in found if run["status"] in statuses]

    def launch(self, job: str, config: Mapping[str, Any] | None = None) -> str:
        """Launch a job as the launchpad does, as soon as there are definitions; the run's id."""
        selector = {**SELECTOR, "pipelineName": job}
        params = {"selector": selector, "mode": "default", "runConfigData": config or {}}
        done = dict[str, Any]()

        def launched() -> bool:
            try:
                done.update(self.ask(LAUNCH, params=params))
            except urllib.error.HTTPError as error:  # the code server is gone: a new one comes
                done.update({"__typename": str(error)})
            return bool(done["__typename"] == "LaunchRunSuccess")

        until(launched, lambda: f"a launch: {done}", 120)
        return str(done["run"]["runId"])

    def status(self, run: str) -> str:
        (found,) = self.ask(RUNS, filter={"runIds": [run]})["results"]
        return str(found["status"])

    def tick(self, sensor: str) -> dict[str, Any]:
        ticks = self.ask(TICK, selector={**SELECTOR, "sensorName": sensor})["sensorState"]["ticks"]
        return dict(ticks[0]) if ticks else {"status": "none", "skipReason": None, "timestamp": 0.0}


@contextmanager
def running(shop: Shop, lease_s: float, failpoints: str = "") -> Iterator[Pages]:
    """Dagster over the shop, until the block ends; its output is in the project's folder, a file each."""
    project, port = shop.project, instance.free(0)
    argvs = instance.processes(project, port=port)
    environment = {**instance.environment(project), LEASE_VARIABLE: str(lease_s), "HEADWATER_FAILPOINTS": failpoints}
    made = Pages(shop=shop, port=port, environment=environment, argvs=argvs)
    instance.create_databases(project)
    for which in (CODE, WEBSERVER, DAEMON):
        made.start(which)
    try:
        until(made.up, "the webserver's answer", 90)
        until(made.loaded, "the definitions", 90)
        yield made
    finally:
        shop.log.set_setting(worker.STOPPING, "test")
        for child in reversed(made.children):
            end(child)


def end(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGINT)
    try:
        child.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait(10)
