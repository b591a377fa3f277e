"""A panel at a position that is not the newest: what it asks, what it shows, what others are told of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

from headwater import Lake
from headwater.config import Settings
from headwater.errors import UsageError
from headwater.lake import answer
from headwater_notebooks import panels
from headwater_notebooks.pipeline_panel import PipelinePanel
from headwater_notebooks.table_panel import TablePanel, for_watch
from headwater_pipelines import api
from headwater_pipelines.runtime import worker

if TYPE_CHECKING:
    from tests.notebooks.conftest import Shop

Show = Callable[..., Page]
ORDERS = "SELECT * FROM orders ORDER BY id"
MINUTE = 60_000


def ready(page: Page) -> None:
    """Wait for the first rows, then stop the page's clock."""
    expect(page.locator(".hw-panel[data-ready='1']")).to_be_visible()
    page.clock.pause_at(page.evaluate("Date.now()") / 1000 + 1)
    page.wait_for_function("() => window.sent.length === window.answers")


def test_the_panel_of_a_thing_is_one(lake: Lake) -> None:
    watch, pipeline = lake.watch(ORDERS), lake.pipeline()
    assert panels.of(watch) is panels.of(watch) is for_watch(watch)
    assert isinstance(panels.of(pipeline), PipelinePanel)
    assert panels.of(pipeline) is panels.of(pipeline)
    panel = panels.of(watch)
    assert panels.of(panel) is panel
    with pytest.raises(UsageError, match=r"int has no panel.*pipeline.*watch"):
        panels.of(1)


def test_every_request_says_where_and_the_answer_is_of_there(lake: Lake, shop: Shop) -> None:
    shop.commit("c", (3, "Grace", "1.00"))
    lake.tag("before", 1)
    panel = for_watch(lake.watch(ORDERS))
    totals = {at: panel.handle({"id": "a", "op": "page", "at": at}) for at in ("", "commit:1", "tag:before", "latest")}
    assert [(each["total"], each["position"]) for each in totals.values()] == [
        ("4", "2"), ("3", "1"), ("3", "1"), ("4", "2"),
    ]  # fmt: skip
    assert panel.handle({"id": "a", "op": "page"})["total"] == "4"
    beyond = panel.handle({"id": "a", "op": "page", "at": "commit:3"})
    assert beyond["error"] == {"what": "there is no commit 3 yet.", "todo": "The newest is commit:2."}
    assert "error" in panel.handle({"id": "a", "op": "page", "at": 3})
    assert "error" in panel.handle({"id": "a", "op": "page", "at": "last tuesday"})


def test_the_trait_at_turns_the_page_to_a_position_and_back(show: Show, lake: Lake, shop: Shop) -> None:
    shop.commit("c", (3, "Grace", "1.00"))
    page = show(for_watch(lake.watch(ORDERS)))
    ready(page)
    panel, position = page.locator(".hw-panel"), page.locator(".hw-position")
    expect(panel).to_have_attribute("data-state", "live")
    expect(position).to_have_text("position 2")
    page.evaluate("put('at', 'commit:1')")
    expect(panel).to_have_attribute("data-state", "pinned")
    expect(position).to_have_text("at commit 1")
    expect(position).to_have_class("hw-fact hw-position hw-pinned")
    expect(panel).to_have_attribute("data-rows", "3")
    before = page.evaluate("window.sent.length")
    page.clock.run_for(MINUTE)
    assert page.evaluate("window.sent.length") == before, "a past position is asked for once"
    page.evaluate("put('at', '')")
    expect(panel).to_have_attribute("data-state", "live")
    expect(position).to_have_text("position 2")
    expect(position).to_have_class("hw-fact hw-position")
    assert page.evaluate("window.positions") == ["2", "1", "2"], "told once for each position that was shown"


def test_a_pinned_panel_says_what_it_shows_and_not_what_it_was_told_to_show(show: Show, lake: Lake) -> None:
    page = show(for_watch(lake.watch(ORDERS)))
    ready(page)
    page.evaluate("put('at', 'commit:9')")
    expect(page.locator(".hw-message")).to_contain_text("there is no commit 9 yet")
    expect(page.locator(".hw-panel")).to_have_attribute("data-state", "error")
    expect(page.locator(".hw-position")).to_have_text("position 1")


def test_a_panel_of_now_says_that_it_does_not_travel(show: Show, lake: Lake, shop: Shop) -> None:
    shop.commit("c", (3, "Grace", "1.00"))
    page = show(PipelinePanel(lake.pipeline()))
    ready(page)
    page.evaluate("put('at', 'commit:1')")
    expect(page.locator(".hw-position")).to_have_text("as of now, not commit:1")
    expect(page.locator(".hw-panel")).to_have_attribute("data-state", "live")
    assert {each["at"] for each in page.evaluate("window.sent")} == {""}


def test_a_static_table_is_of_the_position_too(lake: Lake, shop: Shop) -> None:
    shop.commit("c", (3, "Grace", "1.00"))
    panel = for_watch(lake.watch(ORDERS))
    assert isinstance(panel, TablePanel)
    assert "Grace" in panel.static_html()
    panel.at = "commit:1"
    assert "Grace" not in panel.static_html()


def test_a_link_does_not_take_a_view_that_stands_still_for_fresh(
    lake: Lake, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("totals", "others"):
        api.create_view(shop.log, "SELECT customer, sum(total) AS total FROM orders GROUP BY customer", name=name)
    worker.run(shop.log, Settings(), threading.Event(), until_caught_up=True)
    shop.log.set_view("totals", state="paused")
    shop.commit("c", (100, "Ada", "1.00"))
    worker.run(shop.log, Settings(), threading.Event(), until_caught_up=True)
    shown = [panels.of(lake.watch("SELECT * FROM totals")), panels.of(lake.chart("SELECT * FROM totals"))]
    monkeypatch.setattr(answer, "STALE_AFTER_S", 0.0)
    at = f"commit:{lake.position()}"
    for panel in shown:
        request = {"id": "a", "op": "page" if isinstance(panel, TablePanel) else "chart", "at": at}
        assert "is paused" in panel.handle({**request, "newest": True})["error"]["what"]
        assert "error" not in panel.handle({**request, "newest": False}), "who asks for the past gets it"
