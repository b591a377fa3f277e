"""Every panel as people see it, in light and dark: pictures to look at, and what a picture must not have.

Taken of a running shop. They go to the folder that HEADWATER_SCREENSHOTS names, else to ``build/screenshots``; those of
the documentation are kept from there (``make pictures``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, cast

import pytest
from playwright.sync_api import Browser, Page, expect

from headwater import Lake
from headwater.lake.backfill import Backfill
from headwater_notebooks import panels
from headwater_notebooks.guide import Shop, open_shop
from headwater_notebooks.panel import Panel

from .lab import jupyterlab, run_all

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]
SHOTS = Path(os.environ.get("HEADWATER_SCREENSHOTS", "build/screenshots"))
TABLE = "SELECT country, orders, revenue FROM sales_by_country ORDER BY revenue DESC"
PER_SECOND = """
SELECT date_trunc('second', placed_at) AS second, count(*) AS orders, sum(total) AS revenue
FROM orders WHERE placed_at > (SELECT max(placed_at) - INTERVAL 30 SECOND FROM orders) GROUP BY ALL ORDER BY ALL"""

PANELS: dict[str, Callable[[Any], Any]] = {
    "table": lambda lake: lake.watch(TABLE),
    "chart-bar": lambda lake: lake.chart(TABLE, kind="bar", x="country", y="revenue"),
    "chart-line": lambda lake: lake.chart(PER_SECOND, kind="line", x="second", y="revenue"),
    "chart-histogram": lambda lake: lake.chart("SELECT total FROM orders", kind="histogram", x="total"),
    "chart-scatter": lambda lake: lake.chart("SELECT stock, price FROM products", kind="scatter", x="stock", y="price"),
    "pipeline": lambda lake: lake.pipeline(),
    "rates": lambda lake: lake.rates(),
    "schema": lambda lake: _chosen(panels.of(lake.schema()), "shop.public.orders"),
    "dead-letters": lambda lake: lake.dlq,
    "timeline": lambda lake: lake.timeline(),
    "backfill": lambda lake: _run(lake.replay("sales_by_country")),
}


def _chosen(panel: Any, name: str) -> Panel:
    panel.selection = name
    return cast(Panel, panel)


def _run(replay: Backfill) -> Backfill:
    replay.run()
    return replay


MIN_CONTRAST = 4.5
"""Of text to what is behind it (WCAG 2.2, AA)."""

# Text that is seen, with its contrast to the nearest background that is not clear; and what sticks out of the panel.
LOOK = """(MIN) => {
  const panel = document.querySelector(".hw-panel"), box = panel.getBoundingClientRect();
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
  };
  const over = (top, below) => below.map((value, n) => n === 3 ? 1 : top[n] * top[3] + value * (1 - top[3]));
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const behind = (element) => {
    const layers = [];
    for (let each = element; each; each = each.parentElement) layers.push(rgba(getComputedStyle(each).backgroundColor));
    const page = matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18, 1] : [255, 255, 255, 1];
    return layers.reverse().reduce((below, top) => over(top, below), page);
  };
  const faint = [], outside = [];
  const walker = document.createTreeWalker(panel, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement, style = getComputedStyle(element);
    const text = node.textContent.trim();
    if (!text || !element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    if (element.closest(":disabled, option, title, .hw-scroll table thead .hw-type")) continue;
    const range = document.createRange(); range.selectNodeContents(node);
    const place = range.getBoundingClientRect();
    if (!place.width) continue;
    const sticksOut = place.right > box.right + 1 || place.left < box.left - 1;
    if (!element.closest(".hw-scroll") && sticksOut) outside.push(text);
    const svg = element instanceof SVGElement;
    const colour = rgba(svg ? style.fill : style.color), ground = behind(element);
    let shown = 1;
    for (let each = element; each; each = each.parentElement) shown *= Number(getComputedStyle(each).opacity);
    colour[3] *= shown * (svg ? Number(style.fillOpacity) : 1);
    const [a, b] = [light(over(colour, ground)), light(ground)].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    const where = element.outerHTML.slice(0, 60);
    if (contrast < MIN - 0.01) faint.push(`${text.slice(0, 30)}: ${contrast.toFixed(2)} in ${where}`);
  }
  return { faint, outside };
}"""


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    """The guides' shop, with some trade to show."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HEADWATER_PROJECT", raising=False)
        opened = open_shop()
        try:
            opened.sell(seconds=6.0)
            _set_aside(opened.lake)
            yield opened
        finally:
            opened.stop()


def _set_aside(lake: Lake) -> None:
    """Records that do not fit: a letter in the amount, a column too many."""
    lake.create_topic("shop.events.clicks", {"user": "BIGINT", "page": "VARCHAR"}, key=["user"])
    rows: list[dict[str, Any]] = [{"user": n, "page": "/"} for n in range(20)]
    rows += [{"user": name, "page": "/buy"} for name in ("ann", "بيرت", "cæcilie")]
    with lake.producer(on_error="dead_letter") as producer:
        producer.send("clicks", [*rows, {"user": 30, "page": "/", "referrer": "an ad"}])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", list(PANELS))
def test_picture(shop: Shop, show: Callable[..., Page], name: str, scheme: Literal["light", "dark"]) -> None:
    panel = panels.of(PANELS[name](shop.lake))
    try:
        page = show(panel)
        page.emulate_media(color_scheme=scheme)
        page.wait_for_selector(".hw-panel[data-ready='1']")
        page.evaluate("document.fonts.ready")
        SHOTS.mkdir(parents=True, exist_ok=True)
        page.locator(".hw-panel").first.screenshot(path=SHOTS / f"{name}-{scheme}.png", animations="disabled")
        looked = page.evaluate(LOOK, MIN_CONTRAST)
    finally:
        panel.close()
    assert looked == {"faint": [], "outside": []}


BOARD = (
    "%load_ext headwater",
    "lake = %headwater",
    f"""TABLE = "{TABLE}"
lake.dashboard(
    lake.watch(TABLE),
    lake.chart(TABLE, kind="bar", x="country", y="revenue"),
    lake.pipeline(),
    lake.chart({PER_SECOND!r}, kind="line", x="second", y="revenue"),
)""",
)
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}


@pytest.mark.parametrize("scheme", list(THEMES))
def test_picture_of_a_dashboard(shop: Shop, browser: Browser, tmp_path: Path, scheme: str) -> None:
    """In JupyterLab, in its own themes."""
    with jupyterlab(shop.folder, tmp_path / "lab", BOARD, "board.ipynb") as address:
        page = browser.new_page(viewport={"width": 1500, "height": 2400})
        try:
            page.goto(f"{address}/lab/tree/board.ipynb?reset")
            page.wait_for_function("() => window.jupyterapp?.shell.currentWidget")
            change = "(theme) => window.jupyterapp.commands.execute('apputils:change-theme', { theme })"
            page.evaluate(change, THEMES[scheme])
            run_all(page)
            panels_shown = page.locator(".hw-panel[data-state=live]")
            expect(panels_shown).to_have_count(5, timeout=60_000)
            SHOTS.mkdir(parents=True, exist_ok=True)
            board = page.locator(".jp-OutputArea-output").last
            board.screenshot(path=SHOTS / f"dashboard-{scheme}.png", animations="disabled")
            positions = panels_shown.evaluate_all("(panels) => panels.map((each) => each.dataset.position)")
            assert len(set(positions)) == 1
        finally:
            page.evaluate("window.jupyterapp?.serviceManager.sessions.shutdownAll()")
            page.close()
