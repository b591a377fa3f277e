"""The whole demo as a person meets it: a panel in JupyterLab that moves, and Dagster's pages, under the shop's load."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import sync_playwright
from tests.end_to_end.site import HEADWATER
from tests.waiting import until

import headwater as hw

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
CELLS = (
    "%load_ext headwater",
    "lake = %headwater",
    'lake.watch("SELECT count(*) AS orders, max(id) AS newest FROM orders")',
)
RUNS = """query { runsOrError(filter: {tags: [{key: "stream.lease", value: "main"}]}) {
  ... on Runs { results { runId status tags { key value } } } } }"""
VIEWS = """query { assetNodes { assetKey { path } isMaterializable assetMaterializations(limit: 1) { runId } } }"""
LAG = """query { assetCheckExecutions(assetKey: {path: ["shop"]}, checkName: "lag", limit: 1) {
  status evaluation { success metadataEntries { label ... on TextMetadataEntry { text }
    ... on IntMetadataEntry { intValue } ... on FloatMetadataEntry { floatValue } } } } }"""


@dataclass(kw_only=True)
class Show:
    """A running demo and the addresses it printed."""

    folder: Path
    jupyter: str
    dagster: str

    def ask(self, query: str) -> Any:
        body = json.dumps({"query": query}).encode()
        request = urllib.request.Request(f"{self.dagster}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            got = json.load(answer)
        assert "errors" not in got, got
        (value,) = got["data"].values()
        return value

    def leases(self, *statuses: str) -> list[dict[str, Any]]:
        return [run for run in self.ask(RUNS)["results"] if run["status"] in statuses]


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture
def show(tmp_path: Path, seed: int) -> Iterator[Show]:
    tmp_path.chmod(0o755)
    folder, output, config = tmp_path / "demo", tmp_path / "out.txt", tmp_path / "jupyter"
    config.mkdir()
    (config / "jupyter_server_config.py").write_text("c.LabApp.expose_app_in_browser = True\n")
    environment = os.environ | {"JUPYTER_CONFIG_DIR": str(config), "HEADWATER_LEASE_S": "25", "NO_COLOR": "1"}
    argv = [*HEADWATER, "demo", str(folder), "--no-browser", "--rate", "1000", "--seed", str(seed % 10_000)]
    with output.open("wb") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=out, env=environment, start_new_session=True)

    def addresses() -> list[str]:
        assert process.poll() is None, output.read_text()
        return re.findall(r"http://127\.0\.0\.1:\d+\S*", output.read_text())

    try:
        until(lambda: any("token=" in each for each in addresses()) and len(set(addresses())) > 1, "addresses", 120)
        jupyter = next(each for each in addresses() if "token=" in each)
        dagster = next(each for each in addresses() if "token=" not in each).rstrip("/")
        until(lambda: answers(f"{dagster}/server_info"), "Dagster's answer", 120)
        yield Show(folder=folder, jupyter=jupyter, dagster=dagster)
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0, output.read_text()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(120)


def panel_positions(show: Show, chromium: Path) -> list[int]:
    """Positions that the live panel shows, one after the other, until it has grown three times."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, show.folder / "notebooks" / "live.ipynb")
    base, token = show.jupyter.split("/lab?")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.goto(f"{base}/lab/tree/live.ipynb?reset&{token}", timeout=90_000)
        page.wait_for_function(
            "() => window.jupyterapp && window.jupyterapp.shell.currentWidget?.sessionContext", timeout=90_000
        )
        page.evaluate(
            """async () => { const panel = window.jupyterapp.shell.currentWidget;
            await panel.context.ready; await panel.sessionContext.ready;
            window.jupyterapp.commands.execute("notebook:run-all-cells"); }"""
        )
        page.locator(".hw-panel[data-ready='1']").wait_for(timeout=90_000)
        positions = [int(page.locator(".hw-panel").get_attribute("data-position") or "0")]
        for _ in range(3):
            page.wait_for_function(
                "(before) => Number(document.querySelector('.hw-panel').dataset.position) > before",
                arg=positions[-1],
                timeout=60_000,
            )
            positions.append(int(page.locator(".hw-panel").get_attribute("data-position") or "0"))
        browser.close()
    return positions


@pytest.mark.long
@pytest.mark.timeout(600)
def test_panel_and_control_room_under_load(show: Show, chromium: Path) -> None:
    until(lambda: bool(show.leases("STARTED", "SUCCESS")), "a lease launched by the sensor", 180)
    with hw.open(show.folder) as lake:
        until(lambda: any(view.state == "live" for view in lake.views()), "a live view", 180)
    positions = panel_positions(show, chromium)
    print(f"the panel's positions: {positions}")
    assert len(set(positions)) == 4

    until(lambda: bool(show.leases("SUCCESS")), "a lease that ended", 180)
    run = show.leases("SUCCESS")[-1]
    assert {"key": "dagster/sensor_name", "value": "renew_lease"} in run["tags"]
    made = {node["assetKey"]["path"][-1]: node["assetMaterializations"] for node in show.ask(VIEWS)
            if node["isMaterializable"] and node["assetKey"]["path"][0] == "views"}  # fmt: skip
    print(f"materialized: {sorted(name for name, found in made.items() if found)}")
    assert made
    assert all(made.values())

    until(lambda: bool(show.ask(LAG)), "an evaluation of the lag check", 120)
    (execution,) = show.ask(LAG)
    done = subprocess.run(
        [*HEADWATER, "status", "--json", "--project", str(show.folder)], capture_output=True, text=True, check=True
    )
    (source,) = json.loads(done.stdout)["sources"]
    figures = {each["label"]: each.get("text") for each in execution["evaluation"]["metadataEntries"]}
    print(f"lag check {execution['evaluation']['success']} {figures}; status {source['state']} {source['lag_ms']} ms")
    assert execution["evaluation"]["success"] is (source["state"] == "streaming" and source["lag_ms"] < 10_000)
