"""Dagster on a project as `headwater init` makes it: its files, its definitions, and `headwater dagster`."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
import yaml  # type: ignore[import-untyped]
from dagster._core.instance.config import dagster_instance_config
from dagster._core.workspace.config_schema import ensure_workspace_config
from tests.waiting import until

from headwater.config import Project, load
from headwater.log import open_log
from headwater.ownership import own
from headwater_dagster import instance, worker
from headwater_dagster.pages import OWNER
from headwater_pipelines.api import sync_project_views

from .conftest import LARGE, TOTALS, Shop, end_workers, fill, worker_processes

PAGE = Path(__file__).parents[2] / "docs" / "dagster.md"
LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId } } } }"""
STATUS = """query($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }"""
LOADED = """query { repositoriesOrError { ... on RepositoryConnection { nodes { location { name } } } } }"""
SCHEDULES = """query($selector: RepositorySelector!) { schedulesOrError(repositorySelector: $selector) {
  ... on Schedules { results { name scheduleState { status } } } } }"""
SELECTOR = {"repositoryName": "__repository__", "repositoryLocationName": instance.LOCATION}


@pytest.fixture
def generated(command: Path, tmp_path: Path) -> Iterator[Project]:
    """What `headwater init` makes, with two views in files, and a lake that holds them and their tables."""
    folder = tmp_path / "shop"
    subprocess.run([str(command), "init", str(folder), "--name", "shop"], check=True, capture_output=True)
    project = load(folder)
    for name, sql in (("totals", TOTALS), ("large", LARGE)):
        (project.views_dir / f"{name}.sql").write_text(f"CREATE MATERIALIZED VIEW {name} AS {sql}")
    with open_log(project.lake_dir, create=True) as log, own(log, "source:shop") as owner:
        fill(Shop(project=project, log=log, epoch=owner.epoch))
        assert len(sync_project_views(project, log)) == 2
    yield project
    end_workers(project)


def validate(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", *arguments],
        cwd=project.root,
        env={**os.environ, **instance.environment(project)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_definitions_of_a_generated_project_are_valid(generated: Project) -> None:
    instance.write_instance(instance.home(generated))
    done = validate(generated, "--workspace", "dagster/workspace.yaml")
    assert done.returncode == 0, done.stderr
    assert f"Validation successful for code location {instance.LOCATION}" in done.stdout + done.stderr


@pytest.mark.long
def test_the_module_alone_does_it_and_a_mistake_is_found(generated: Project) -> None:
    instance.write_instance(instance.home(generated))
    done = validate(generated, "--module-name", instance.MODULE)
    assert done.returncode == 0, done.stderr
    generated.file.write_text("[project]\nnaem = 'shop'\n")
    done = validate(generated, "--module-name", instance.MODULE)
    assert done.returncode == 1
    assert "Did you mean 'name'" in done.stdout + done.stderr


def test_the_files_are_written_once_and_load(generated: Project, command: Path) -> None:
    def write() -> str:
        argv = [str(command), "dagster", "--only-write", "--project", str(generated.root)]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    home = instance.home(generated)
    assert f"export DAGSTER_HOME={home}\nexport HEADWATER_PROJECT={generated.root}\n" in write()
    config, _ = dagster_instance_config(str(home))
    assert set(config["retention"]) == {"schedule", "sensor", "auto_materialize"}, "ticks are kept for ever otherwise"
    path = home / instance.WORKSPACE
    workspace: Any = ensure_workspace_config(yaml.safe_load(path.read_text()), str(path))
    assert [each["python_module"]["module_name"] for each in workspace["load_from"]] == [instance.MODULE]
    assert not (home / "history").exists(), "nothing was started"
    path.write_text(path.read_text() + "  - python_module: mine\n")
    write()
    assert "mine" in path.read_text()


def test_a_port_that_is_taken_is_said(generated: Project, command: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        argv = [str(command), "dagster", "--port", port, "--project", str(generated.root)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"port {port} is taken" in done.stderr


def test_what_the_page_says_for_a_deployment_is_what_dagster_reads(tmp_path: Path) -> None:
    instances, workspaces = 0, 0
    for text in re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        if "load_from" in yaml.safe_load(text):
            ensure_workspace_config(yaml.safe_load(text), str(PAGE))
            workspaces += 1
        elif "type" not in yaml.safe_load(text):
            (tmp_path / instance.FILE).write_text(text)
            dagster_instance_config(str(tmp_path))
            instances += 1
    assert (instances, workspaces) == (3, 1)


@pytest.mark.long
def test_a_code_server_alone_needs_the_project_and_whoever_asks_it_does_not(generated: Project, tmp_path: Path) -> None:
    """As on two hosts: the lake's has the project's folder, the other a workspace with the address."""
    port = instance.free(0)
    argv = [
        "code-server",
        "start",
        "--port",
        str(port),
        "--module-name",
        instance.MODULE,
        "--location-name",
        "headwater",
    ]
    serving = subprocess.Popen([sys.executable, "-m", "dagster", *argv], cwd=generated.root)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    location = {"grpc_server": {"host": "localhost", "port": port, "location_name": "headwater"}}
    (elsewhere / "workspace.yaml").write_text(yaml.safe_dump({"load_from": [location]}))

    def ask() -> int:
        assert serving.poll() is None
        argv = [sys.executable, "-m", "dagster", "definitions", "validate", "--workspace", "workspace.yaml"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADWATER_")}
        environment["DAGSTER_HOME"] = str(elsewhere)
        return subprocess.run(argv, cwd=elsewhere, env=environment, capture_output=True, check=False).returncode

    try:
        until(lambda: ask() == 0, "the definitions, from the code server", 100)
    finally:
        serving.send_signal(signal.SIGINT)
        serving.wait(30)


# ---- everything at once


def ask(port: int, query: str, **variables: Any) -> Any:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        got = json.load(answer)
    assert "errors" not in got, got
    (value,) = got["data"].values()
    return value


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def left_behind(project: Project) -> list[psutil.Process]:
    """Processes with this project's DAGSTER_HOME, but for the views' worker."""
    found, workers = [], {each.pid for each in worker_processes(project)}
    for process in psutil.process_iter():
        try:
            theirs = process.environ().get("DAGSTER_HOME") == str(instance.home(project))
            if theirs and process.status() != psutil.STATUS_ZOMBIE and process.pid not in workers:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@contextmanager
def serving(project: Project, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`headwater dagster`, once its pages show the definitions; at the end nothing of it is left."""
    argv = [sys.executable, "-m", "headwater.cli", "dagster", "--project", str(project.root), "--port", str(port)]
    with (project.root / "dagster.log").open("ab") as output:
        running = subprocess.Popen(argv, stdout=output, stderr=output)
    try:
        until(lambda: answers(port) or running.poll() is not None, "the pages", 120)
        until(lambda: ask(port, LOADED).get("nodes"), "the definitions", 120)
        yield running
    finally:
        running.kill()
        running.wait()
        for process in left_behind(project):
            process.kill()


@pytest.mark.long
@pytest.mark.timeout(400)
def test_headwater_dagster_runs_maintenance_and_ends_without_a_trace(
    generated: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = instance.free(0)
    with serving(generated, port) as running:
        argv = [sys.executable, "-m", "headwater.cli", "dagster", "--project", str(generated.root)]
        again = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert again.returncode == 1
        assert f"dagster is already running as process {running.pid}" in again.stderr
        schedules = ask(port, SCHEDULES, selector=SELECTOR)["results"]
        states = {each["name"]: each["scheduleState"]["status"] for each in schedules}
        assert {states[f"maintenance_{name}_schedule"] for name in ("seal", "verify", "runs")} == {"RUNNING"}
        params = {"selector": {**SELECTOR, "jobName": "maintenance_verify_deep"}, "mode": "default"}
        launched = ask(port, LAUNCH, params=params)
        assert launched["__typename"] == "LaunchRunSuccess", launched

        def status() -> str:
            return str(ask(port, STATUS, run=launched["run"]["runId"])["status"])

        until(lambda: status() in ("SUCCESS", "FAILURE"), "the end of the run", 120)
        assert status() == "SUCCESS"
        until(lambda: worker_processes(generated), "a lease, and the worker that it starts", 120)
        (before,) = worker_processes(generated)
        running.send_signal(signal.SIGINT)
        assert running.wait(90) == 0, (generated.root / "dagster.log").read_text()
        assert left_behind(generated) == []
        assert worker_processes(generated) == [before], "the views go on"
        with open_log(generated.lake_dir) as log:
            assert log.setting(worker.STOPPING) is None
            with own(log, OWNER):
                pass
    monkeypatch.setenv("DAGSTER_HOME", str(instance.home(generated)))
    with dg.DagsterInstance.get() as found:
        ended = {(each.job_name, each.status) for each in found.get_runs()}
    assert ("stream", dg.DagsterRunStatus.SUCCESS) in ended, "the lease reports and ends before anything is stopped"
    assert {status for _, status in ended} == {dg.DagsterRunStatus.SUCCESS}


@pytest.mark.long
@pytest.mark.timeout(400)
def test_what_a_killed_one_left_is_ended_by_the_next(generated: Project) -> None:
    first, second = instance.free(0), instance.free(0)
    with serving(generated, first) as killed:
        killed.kill()
        killed.wait()
        orphans = left_behind(generated)
        assert answers(first), "the pages are still there, and nobody looks after them"
        with serving(generated, second) as running:
            assert not answers(first)
            assert [each for each in orphans if each.is_running() and each.status() != psutil.STATUS_ZOMBIE] == []
            running.send_signal(signal.SIGTERM)
            assert running.wait(90) == 0, (generated.root / "dagster.log").read_text()
            assert left_behind(generated) == []
