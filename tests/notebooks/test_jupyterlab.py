"""One real JupyterLab: the panel's requests reach the kernel through real comms, and its position grows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from .conftest import Shop
from .lab import jupyterlab, run_all

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


@pytest.fixture
def address(shop: Shop, tmp_path: Path) -> Iterator[str]:
    with jupyterlab(shop.folder, tmp_path / "lab", CELLS) as started:
        yield started


@pytest.mark.timeout(240)
def test_the_panel_grows_with_commits_while_a_cell_runs(address: str, browser: Browser, shop: Shop) -> None:
    context = browser.new_context(viewport={"width": 1200, "height": 3000})
    page = context.new_page()
    try:
        page.goto(f"{address}/lab/tree/live.ipynb?reset")
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
