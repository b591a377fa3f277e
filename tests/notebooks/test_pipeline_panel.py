"""The pipeline as a graph: its nodes, where they stand, and the panel in a real browser."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

from headwater import Lake
from headwater.config import Settings
from headwater_notebooks.graph import laid_out
from headwater_notebooks.pipeline_panel import PipelinePanel
from headwater_pipelines import api
from headwater_pipelines.runtime import worker

if TYPE_CHECKING:
    from tests.notebooks.conftest import Shop

Show = Callable[..., Page]


@pytest.fixture
def piped(shop: Shop, lake: Lake) -> Lake:
    """Two views, one on the other, one step done; what they read comes from the source ``shop``, which streams."""
    api.create_view(shop.log, "SELECT customer, sum(total) AS total FROM orders GROUP BY customer", name="totals")
    api.create_view(shop.log, "SELECT count(*) AS n FROM totals", name="customers")
    worker.run(shop.log, Settings(), threading.Event(), until_caught_up=True)
    shop.log.live.beat("source:shop", state="streaming", lag_ms=12.0)
    return lake


def test_what_feeds_a_node_is_left_of_it() -> None:
    reads = {"d": ["b", "c"], "a": [], "b": ["a"], "c": ["b", "gone"], "x": [], "y": ["x"]}
    places = laid_out(reads)
    assert places.keys() == reads.keys()
    for name, fed in reads.items():
        assert all(places[each].x < places[name].x for each in fed if each in places)
    assert len({(place.x, place.y) for place in places.values()}) == len(places)
    assert laid_out({}) == {}
    assert len(laid_out({"a": ["b"], "b": ["a"]})) == 2, "a circle is drawn somehow"


def test_lines_do_not_cross_where_they_need_not() -> None:
    places = laid_out({"a": [], "b": [], "of_b": ["b"], "of_a": ["a"]})
    assert (places["a"].y < places["b"].y) == (places["of_a"].y < places["of_b"].y)


def test_nodes_of_a_lake(piped: Lake) -> None:
    nodes = {node.id: node for node in piped.pipeline().nodes()}
    assert list(nodes) == ["source:shop", "topic:shop.public.orders", "view:totals", "view:customers"]
    assert nodes["view:customers"].reads == ("view:totals",)
    assert nodes["view:totals"].reads == ("topic:shop.public.orders",)
    assert nodes["topic:shop.public.orders"].reads == ("source:shop",)
    assert (nodes["source:shop"].level, nodes["source:shop"].lag_ms) == ("good", 12.0)
    assert nodes["view:totals"].rows == 3


def test_trouble_is_a_level_and_a_reason(shop: Shop, piped: Lake) -> None:
    api.pause_view(shop.log, "totals", "it needs more memory than there is")
    shop.log.live.beat("source:shop", state="error", error="the server is gone")
    nodes = {node.id: node for node in piped.pipeline().nodes()}
    assert (nodes["view:totals"].level, nodes["view:totals"].trouble) == ("bad", "it needs more memory than there is")
    assert (nodes["source:shop"].level, nodes["source:shop"].trouble) == ("bad", "the server is gone")
    assert "the server is gone" in str(piped.pipeline())


def test_topics_that_nothing_reads_are_counted(lake: Lake) -> None:
    (source,) = lake.pipeline().nodes()
    assert (source.id, source.unread) == ("source:shop", 1)


def test_without_a_kernel_it_is_a_picture_and_a_table(piped: Lake) -> None:
    bundle, _ = PipelinePanel(piped.pipeline())._repr_mimebundle_()
    assert bundle["text/html"].count("<g transform") == 4
    assert "<script" not in bundle["text/html"]
    assert "customers" in bundle["text/plain"]
    assert "application/vnd.jupyter.widget-view+json" in bundle


@pytest.fixture
def page(show: Show, piped: Lake) -> Page:
    found = show(PipelinePanel(piped.pipeline()))
    expect(found.locator(".hw-panel[data-ready='1']")).to_be_visible()
    return found


def test_draws_boxes_and_lines(page: Page) -> None:
    expect(page.locator(".hw-box")).to_have_count(4)
    expect(page.locator(".hw-lines path")).to_have_count(3)
    expect(page.locator(".hw-box[data-id='source:shop']")).to_have_attribute("data-level", "good")
    expect(page.locator(".hw-box[data-id='view:totals'] .hw-box-name")).to_have_text("totals")
    expect(page.locator(".hw-total")).to_have_text("4 parts")


def test_a_click_or_enter_chooses_and_tells(page: Page) -> None:
    expect(page.locator(".hw-foot")).to_be_hidden()
    page.locator(".hw-box[data-id='view:totals']").click()
    expect(page.locator(".hw-detail strong")).to_have_text("view totals")
    assert page.evaluate("window.changed") == [["selection", "view:totals"]]
    assert page.evaluate("window.saved") == 1
    expect(page.locator(".hw-lines path.hw-near")).to_have_count(2)
    page.locator(".hw-box[data-id='source:shop']").press("Enter")
    expect(page.locator(".hw-detail strong")).to_have_text("source shop")
    page.locator(".hw-box[data-id='source:shop']").press("Enter")
    expect(page.locator(".hw-foot")).to_be_hidden()


def test_the_kernel_can_choose(page: Page) -> None:
    page.evaluate("window.put('selection', 'view:customers')")
    expect(page.locator(".hw-box[data-id='view:customers']")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".hw-detail strong")).to_have_text("view customers")
    assert page.evaluate("window.saved") == 0, "it is not sent back"


def test_trouble_shows_as_soon_as_it_is_asked_for(page: Page, shop: Shop) -> None:
    shop.log.live.beat("source:shop", state="error", error="<b>the server</b> is gone")
    page.clock.run_for(3_000)
    source = page.locator(".hw-box[data-id='source:shop']")
    expect(source).to_have_attribute("data-level", "bad")
    expect(page.locator(".hw-total")).to_have_text("1 in trouble")
    source.click()
    expect(page.locator(".hw-trouble")).to_have_text("trouble <b>the server</b> is gone")


def test_a_new_view_appears(page: Page, shop: Shop) -> None:
    api.create_view(shop.log, "SELECT max(n) AS n FROM customers", name="most")
    page.clock.run_for(3_000)
    expect(page.locator(".hw-box[data-id='view:most']")).to_be_visible()
    expect(page.locator(".hw-lines path")).to_have_count(4)
