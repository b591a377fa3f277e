"""Dagster's pages over the running demo, in a real browser: the graph, a view's checks, a plotted figure.

Screenshots go to the folder that HEADWATER_SCREENSHOTS names, else to ``build/screenshots``. The one in the README is
``view-lineage.png``.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from tests.waiting import until

import headwater as hw
from headwater.config import load
from headwater.log import open_log
from headwater.service.compared import compare_source
from headwater_pipelines import api

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]  # a whole demo, and a browser

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
SHOTS = Path(os.environ.get("HEADWATER_SCREENSHOTS", "build/screenshots"))
VIEW = "country_share"
SLO = "\n[slo]\nreport_every_s = 5\n"
"""Many reports, so that there is something to plot."""
LEASE_S = 60
LINE = 300
"""Pixels: the dots of two reports have fewer."""
PAGE_MS = 60_000
NODES = """query { assetNodes { assetKey { path } description dependencyKeys { path } staleStatus staleCauses { reason }
  assetMaterializations(limit: 1) { timestamp } assetObservations(limit: 4) { timestamp }
  assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization { status } } } } } }"""


@dataclass(kw_only=True)
class Room:
    """A running demo's Dagster."""

    folder: Path
    url: str

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Assets by key as the pages ask for them."""
        body = json.dumps({"query": NODES}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            got = json.load(answer)
        assert "errors" not in got, got
        return {"/".join(node["assetKey"]["path"]): node for node in got["data"]["assetNodes"]}

    def open(self, page: Page, path: str, **query: str) -> None:
        page.goto(f"{self.url}/{path}?{urllib.parse.urlencode(query)}", timeout=PAGE_MS)

    def plotted(self) -> bool:
        """Whether every view has so many reports that a line is drawn, and its checks have been evaluated since."""
        views = [node for key, node in self.nodes().items() if key.startswith("views/")]
        return bool(views) and all(
            node["assetMaterializations"]
            and len(node["assetObservations"]) > 3
            and all(each["executionForLatestMaterialization"] for each in node["assetChecksOrError"]["checks"])
            for node in views
        )


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/server_info", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory, module_seed: int) -> Iterator[Room]:
    """The demo as a person starts it, until there is something to plot of every view."""
    place = tmp_path_factory.mktemp("room")
    place.chmod(0o755)
    folder, output = place / "demo", place / "out.txt"
    environment = os.environ | {"HEADWATER_LEASE_S": str(LEASE_S), "NO_COLOR": "1"}
    argv = [sys.executable, "-m", "headwater.cli", "demo", str(folder), "--no-browser", "--rate", "200"]
    with output.open("wb") as out:
        demo = subprocess.Popen([*argv, "--seed", str(module_seed % 10_000)], stdout=out, stderr=out,
                                env=environment, start_new_session=True)  # fmt: skip

    def address() -> str | None:
        assert demo.poll() is None, output.read_text()
        found = re.search(r"dagster +(http://127\.0\.0\.1:\d+)", output.read_text())
        return found[1] if found else None

    try:
        until(address, "the address of Dagster", 120)
        with (folder / "headwater.toml").open("a") as file:
            file.write(SLO)
        made = Room(folder=folder, url=str(address()))
        until(lambda: _answers(made.url), "Dagster's answer", 120)
        until(lambda: _live(folder), "live views", 120)
        _compare(folder)
        until(made.plotted, "reports and checks of every view", 300)
        yield made
    finally:
        demo.send_signal(signal.SIGINT)
        assert demo.wait(120) == 0, output.read_text()


def _live(folder: Path) -> bool:
    with hw.open(folder) as lake:
        views = lake.views()
    return bool(views) and all(view.state == "live" for view in views)


def _compare(folder: Path) -> None:
    """What the checks equals_query and equals_source do when they are executed by hand: then all have a verdict."""
    project = load(folder)
    with open_log(project.lake_dir) as log:
        for view in log.views():
            found = api.compare_view(log, project, view.name)
            assert found.is_same, (view.name, found)
        compare_source(project, log, "shop", print)


@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A window; a script error in it fails the test."""
    errors: list[str] = []
    opened = browser.new_page(viewport={"width": 1400, "height": 900})
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    opened.close()
    assert errors == []


def in_graph(page: Page) -> set[str]:
    """Names of the assets that the graph shows; each tells in its box when it was reported."""
    boxes = page.locator("foreignObject").filter(has_text="Latest event")
    return {text.split("Latest event")[0] for text in boxes.all_text_contents()}


def upstream(nodes: dict[str, dict[str, Any]], key: str) -> tuple[set[str], int]:
    """Keys of an asset and of all that it is made from, and how many arrows lie between them."""
    found, waiting, arrows = {key}, [key], 0
    while waiting:
        above = ["/".join(each["path"]) for each in nodes[waiting.pop()]["dependencyKeys"]]
        arrows += len(above)
        waiting += [each for each in above if each not in found]
        found.update(above)
    return found, arrows


def _await_graph(page: Page, names: set[str]) -> None:
    until(lambda: in_graph(page) == names, lambda: f"the graph {names}, not {in_graph(page)}")


def test_everything_says_what_it_is(room: Room) -> None:
    assert [key for key, node in room.nodes().items() if not node["description"]] == []


def test_graph_shows_the_groups_and_says_how_they_are(room: Room, page: Page) -> None:
    room.open(page, "asset-groups")
    for group in ("shop", "views", "replay"):
        expect(page.locator("foreignObject").filter(has_text=group).first).to_be_visible(timeout=PAGE_MS)
    expect(page.get_by_text("Join the Dagster community")).to_have_count(0)
    _shoot(page, "asset-graph")


def test_every_view_hangs_below_its_tables_and_their_source(room: Room, page: Page) -> None:
    nodes = room.nodes()
    views = [key for key in nodes if key.startswith("views/")]
    assert len(views) == 8
    # What lies outside the window is not drawn at all, and in a small one the boxes have names alone.
    page.set_viewport_size({"width": 2400, "height": 1800})
    for view in views:
        keys, arrows = upstream(nodes, view)
        assert "shop" in keys
        room.open(page, f"assets/{view}", view="lineage", lineageScope="upstream", lineageDepth="9")
        _await_graph(page, {key.split("/")[-1] for key in keys})
        expect(page.locator("svg path[marker-end]")).to_have_count(arrows)
        assert nodes[view]["staleStatus"] == "FRESH", nodes[view]["staleCauses"]
        expect(page.get_by_text("Unsynced")).to_have_count(0)


def test_picture_of_a_views_graph(room: Room, page: Page) -> None:
    """The one in the README."""
    page.set_viewport_size({"width": 1400, "height": 560})
    room.open(page, "overview")
    page.get_by_role("button", name="Hide navigation").click()
    room.open(page, f"assets/views/{VIEW}", view="lineage", lineageScope="upstream", lineageDepth="9")
    expect(page.get_by_text("Materialized").first).to_be_visible(timeout=PAGE_MS)
    _shoot(page, "view-lineage")


def test_checks_of_a_view_have_passed_and_say_what_they_saw(room: Room, page: Page) -> None:
    checks = {each["name"] for each in room.nodes()[f"views/{VIEW}"]["assetChecksOrError"]["checks"]}
    assert checks == {"lag", "fresh", "equals_query"}
    room.open(page, f"assets/views/{VIEW}", view="checks", checkDetail="lag")
    for name in checks:
        expect(page.get_by_text(name, exact=True).first).to_be_visible(timeout=PAGE_MS)
    expect(page.get_by_text("Succeeded")).to_have_count(len(checks), timeout=PAGE_MS)
    expect(page.get_by_text("Passed", exact=True).first).to_be_visible(timeout=PAGE_MS)
    expect(page.get_by_text(re.compile(r"^[\d,]+ (ms|s) behind$"))).to_be_visible()
    _shoot(page, "view-checks")


def test_figures_of_a_view_are_plotted(room: Room, page: Page) -> None:
    page.set_viewport_size({"width": 1400, "height": 1600})
    room.open(page, f"assets/views/{VIEW}")
    expect(page.get_by_text("A view on a view")).to_be_visible(timeout=PAGE_MS)
    page.get_by_role("button", name="Plots").click()
    expect(page.locator("canvas").first).to_be_visible(timeout=PAGE_MS)
    wanted = {"step_ms_p95", "lag_ms", "rows_total"}
    until(lambda: all(_plots(page).get(name, 0) > LINE for name in wanted), lambda: f"lines: {_plots(page)}")
    _shoot(page, "view-plots")


def _plots(page: Page) -> dict[str, int]:
    """Coloured pixels of each plot, by its title: axes and letters are grey."""
    found: dict[str, int] = (
        page.evaluate("""() => Object.fromEntries([...document.querySelectorAll("canvas")].map((canvas) => {
        const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        let coloured = 0;
        for (let i = 0; i < data.length; i += 4) {
            const rgb = [data[i], data[i + 1], data[i + 2]];
            if (data[i + 3] > 200 && Math.max(...rgb) - Math.min(...rgb) > 80) coloured += 1;
        }
        let around = canvas;
        while (around && !around.innerText?.trim()) around = around.parentElement;
        return [around.innerText.trim(), coloured];
    }))""")
    )
    return found


def _shoot(page: Page, name: str) -> None:
    """Keep what is shown, once everything that was loading is there."""
    expect(page.get_by_text(re.compile("Loading|fetching statuses"))).to_have_count(0, timeout=PAGE_MS)
    page.evaluate("document.fonts.ready")
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png")
