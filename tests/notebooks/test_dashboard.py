"""Dashboards, and panels as what ipywidgets takes them for: in boxes and tabs, observed, linked by traits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import ipywidgets
import pytest
from playwright.sync_api import Page, expect

from headwater import Lake
from headwater.errors import UsageError
from headwater_notebooks import panels
from headwater_notebooks.board import Board
from headwater_notebooks.panel import Panel
from headwater_notebooks.pipeline_panel import PipelinePanel

if TYPE_CHECKING:
    from tests.notebooks.conftest import Shop

Show = Callable[..., Page]
ORDERS = "SELECT * FROM orders ORDER BY id"


def test_a_dashboard_is_a_grid_of_linked_panels_with_the_slider_on_top(lake: Lake) -> None:
    watch = lake.watch(ORDERS)
    made = lake.dashboard(watch, lake.chart("SELECT id, total FROM orders"), lake.pipeline(), columns=3)
    board = panels.of(made)
    assert isinstance(board, Board)
    assert panels.of(made) is board
    assert board.panels[1] is panels.of(watch)
    assert len({panel._link for panel in board.panels}) == 1
    slider, grid = board.children
    assert slider is board.panels[0]
    assert list(grid.children) == board.panels[1:]
    assert "/ 3), 1fr)" in grid.layout.grid_template_columns
    bundle = made._repr_mimebundle_()[0]
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == board.model_id
    assert bundle["text/html"].count("headwater-result") >= 3
    made.pause()
    assert [panel.paused for panel in board.panels] == [True] * 4
    made.resume()
    assert [panel.paused for panel in board.panels] == [False] * 4
    made.close()
    assert all(panel.closed for panel in board.panels)
    assert "application/vnd.jupyter.widget-view+json" not in made._repr_mimebundle_()[0]


def test_a_dashboard_without_what_it_needs(lake: Lake) -> None:
    assert len(panels.of(lake.dashboard(lake.watch(ORDERS), timeline=False)).panels) == 1
    with pytest.raises(UsageError, match="at least one"):
        lake.dashboard()
    with pytest.raises(UsageError, match="int has no panel"):
        panels.of(lake.dashboard(1))


def test_the_parts_of_a_dashboard_share_one_position(show: Show, lake: Lake, shop: Shop) -> None:
    chart = lake.chart("SELECT id, count(*) AS n FROM orders GROUP BY id", kind="bar")
    board = panels.of(lake.dashboard(lake.watch(ORDERS), chart, lake.pipeline()))
    shop.commit("c", (100, "Ada", "1.00"))
    page = show(*board.panels)
    page.set_viewport_size({"width": 900, "height": 1600})
    expect(page.locator(".hw-panel[data-ready='1'][data-state='live']")).to_have_count(4)
    page.get_by_role("slider").focus()
    page.keyboard.press("Home")
    expect(page.locator(".hw-panel[data-state='pinned'][data-position='1']")).to_have_count(3)
    expect(page.locator(".hw-panel").nth(3).locator(".hw-position")).to_have_text("as of now")
    page.locator(".hw-panel").first.get_by_role("button", name="pause").click()
    expect(page.locator(".hw-panel[data-state='paused']")).to_have_count(3)


def test_panels_are_widgets_that_nest(lake: Lake) -> None:
    one, two = panels.of(lake.watch(ORDERS)), panels.of(lake.pipeline())
    assert isinstance(one, ipywidgets.DOMWidget)
    tab = ipywidgets.Tab(children=[ipywidgets.VBox([one]), panels.of(lake.dashboard(two))], titles=["a", "b"])
    assert tab.children[0].children == (one,)


def page_says(panel: Panel, **traits: object) -> None:
    """What the page's model does when it saves changes."""
    panel._handle_msg({"content": {"data": {"method": "update", "state": traits}}, "buffers": []})


def test_what_the_page_says_is_observed(lake: Lake) -> None:
    panel = panels.of(lake.watch(ORDERS))
    seen: list[tuple[str, object]] = []
    panel.observe(lambda change: seen.append((change["name"], change["new"])), ["at", "position", "paused"])
    page_says(panel, at="commit:1")
    page_says(panel, position="1")
    page_says(panel, paused=True)
    assert seen == [("at", "commit:1"), ("position", "1"), ("paused", True)]
    pipeline = panels.of(lake.pipeline())
    assert isinstance(pipeline, PipelinePanel)
    pipeline.observe(lambda change: seen.append((change["name"], change["new"])), "selection")
    page_says(pipeline, selection="view:totals")
    assert seen[-1] == ("selection", "view:totals")


def test_traits_link_from_one_panel_to_another(lake: Lake) -> None:
    slider, table = panels.of(lake.timeline()), panels.of(lake.watch(ORDERS))
    for link in (ipywidgets.jslink, ipywidgets.jsdlink):
        made = link((slider, "at"), (table, "at"))
        assert made.source == (slider, "at")
        made.unlink()
    ipywidgets.dlink((slider, "at"), (table, "at"))
    page_says(slider, at="tag:audit")
    assert table.at == "tag:audit"
    slider.at = ""
    assert table.at == ""
