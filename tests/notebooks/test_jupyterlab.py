"""One real JupyterLab: the panel's requests reach the kernel through real comms, and its position grows."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest
from playwright.sync_api import Browser, Page, expect

if TYPE_CHECKING:
    from tests.notebooks.conftest import Shop

CELLS = (
    "%load_ext headwater",
    "lake = %headwater",
    'lake.watch("SELECT count(*) AS orders, max(id) AS newest FROM orders WHERE id < 1000000")',
    """import ipywidgets
from headwater_notebooks import panels
made = lake.dashboard(lake.watch("SELECT count(*) AS n FROM orders"), lake.watch("SELECT * FROM orders ORDER BY id"))
ipywidgets.Tab(children=[ipywidgets.VBox([panels.of(made)])], titles=["orders"])""",
    """slider, table = panels.of(lake.timeline()), panels.of(lake.watch("SELECT count(*) AS n FROM orders"))
by_traits = ipywidgets.jslink((slider, "at"), (table, "at"))
ipywidgets.VBox([slider, table])""",
    "import time\nuntil = time.time() + 600\nwhile time.time() < until:\n    time.sleep(0.1)",
)
"""The last cell keeps the kernel busy: the panel must go on beside it."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def jupyterlab(shop: Shop, tmp_path: Path) -> Iterator[str]:
    """A JupyterLab with JupyterLab's own test configuration, on loopback, in a folder of its own."""
    port = free_port()
    (tmp_path / "jupyter_server_config.py").write_text(
        "from jupyterlab.galata import configure_jupyter_server\n"
        "configure_jupyter_server(c)\n"
        f"c.ServerApp.ip = '127.0.0.1'\nc.ServerApp.port = {port}\nc.ServerApp.allow_root = True\n"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, shop.folder / "live.ipynb")
    environment = os.environ | {
        "JUPYTERLAB_GALATA_ROOT_DIR": str(shop.folder),
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_DATA_DIR": str(tmp_path / "data"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    with (tmp_path / "jupyterlab.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--config", str(tmp_path / "jupyter_server_config.py")],
            cwd=shop.folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for_server(address, process, tmp_path / "jupyterlab.log")
            yield address
        finally:
            process.terminate()  # the server ends its kernels
            process.wait(20)


def wait_for_server(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 40
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/api/status", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError):
            threading.Event().wait(0.1)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


def run_all(page: Page) -> None:
    page.wait_for_function("() => window.jupyterapp && window.jupyterapp.shell.currentWidget?.sessionContext")
    page.evaluate(
        """async () => { const panel = window.jupyterapp.shell.currentWidget;
        await panel.context.ready; await panel.sessionContext.ready;
        window.jupyterapp.commands.execute("notebook:run-all-cells"); }"""
    )


@pytest.mark.timeout(240)
def test_the_panel_grows_with_commits_while_a_cell_runs(jupyterlab: str, browser: Browser, shop: Shop) -> None:
    context = browser.new_context(viewport={"width": 1200, "height": 3000})
    page = context.new_page()
    try:
        page.goto(f"{jupyterlab}/lab/tree/live.ipynb?reset")
        run_all(page)
        panel = page.locator(".hw-panel").first
        panel.and_(page.locator("[data-ready='1']")).wait_for(timeout=40_000)
        positions = [int(panel.get_attribute("data-position") or "0")]
        for number in range(4):
            shop.commit("c", (100 + number, "Ada", "1.00"))
            page.wait_for_function(
                "(before) => Number(document.querySelector('.hw-panel').dataset.position) > before",
                arg=positions[-1],
                timeout=15_000,
            )
            positions.append(int(panel.get_attribute("data-position") or "0"))
        assert positions == [1, 2, 3, 4, 5]
        assert panel.get_attribute("data-state") == "live"
        assert panel.locator("tbody td").all_inner_texts() == ["6", "103"]
        a_dashboard_in_a_tab(page, shop, 5)
        traits_that_are_linked(page)
        assert page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    finally:
        page.evaluate("window.jupyterapp?.serviceManager.sessions.shutdownAll()")
        context.close()


TORN = """() => {
  window.torn = [];
  new MutationObserver(() => {
    const live = [...document.querySelectorAll(".widget-tab .hw-panel[data-state=live]")];
    const shown = live.map((panel) => panel.dataset.position);
    if (new Set(shown).size > 1) window.torn.push(shown);
  }).observe(document.querySelector(".widget-tab"), { subtree: true, childList: true, attributes: true });
}"""


def a_dashboard_in_a_tab(page: Page, shop: Shop, position: int) -> None:
    """Its panels turn together while commits come, and go where the slider goes."""
    panels = page.locator(".widget-tab .hw-panel")
    expect(panels.and_(page.locator("[data-state=live]"))).to_have_count(3, timeout=40_000)
    page.evaluate(TORN)
    for number in range(4):
        shop.commit("c", (200 + number, "Ada", "1.00"))
        at = f"[data-state=live][data-position='{position + 1 + number}']"
        expect(panels.and_(page.locator(at))).to_have_count(3, timeout=20_000)
    assert page.evaluate("window.torn") == []
    page.locator(".widget-tab").get_by_role("slider").focus()
    page.keyboard.press("Home")
    expect(panels.and_(page.locator("[data-state=pinned][data-position='1']"))).to_have_count(3, timeout=20_000)
    page.keyboard.press("End")
    expect(panels.and_(page.locator("[data-state=live]"))).to_have_count(3, timeout=20_000)


def traits_that_are_linked(page: Page) -> None:
    """``jslink`` of a slider's ``at`` with a table's."""
    page.get_by_role("slider").last.focus()
    page.keyboard.press("Home")
    expect(page.locator(".hw-panel[data-state=pinned][data-position='1']")).to_have_count(2, timeout=20_000)
