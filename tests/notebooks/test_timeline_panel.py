"""The timeline: which commits there were when, and the slider that sends panels to them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

from headwater import Lake
from headwater.errors import UsageError
from headwater.lake.timeline import Timeline
from headwater_notebooks import panels

if TYPE_CHECKING:
    from tests.notebooks.conftest import Shop

Show = Callable[..., Page]
ORDERS = "SELECT * FROM orders ORDER BY id"


@pytest.fixture
def many(shop: Shop, lake: Lake) -> Lake:
    """Ten commits: the first with three orders, each further one with one more."""
    for number in range(9):
        shop.commit("c", (10 + number, "Ada", "1.00"))
    lake.tag("audit", 4)
    return lake


def test_stretches_count_every_commit_once(many: Lake) -> None:
    found = many.timeline().commits()
    counts = [after - before for before, after in zip(found.edges, found.edges[1:], strict=False)]
    assert (found.oldest, found.newest, sum(counts)) == (1, 10, 10)
    for n, edge in enumerate(found.edges[:-1]):
        at = found.start + timedelta(seconds=n * found.width_s)
        assert many.log.commit_at_time(at) == edge
    assert [(tag.name, tag.commit) for tag in found.tags] == [("audit", 4)]
    assert len(many.timeline().commits(most=4).edges) <= 5
    with pytest.raises(UsageError):
        many.timeline().commits(window_s=0)


def test_the_oldest_position_is_the_first_that_can_be_read(many: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    timeline = many.timeline()
    monkeypatch.setattr(Timeline, "_readable", lambda _, commit: commit >= 6)
    assert timeline.commits().oldest == 6
    monkeypatch.setattr(Timeline, "_readable", lambda _, commit: commit >= 9)
    assert timeline.commits().oldest == 9


def test_as_text_and_as_a_picture(many: Lake) -> None:
    assert "tag:audit" in str(many.timeline())
    html = panels.of(many.timeline()).static_html()
    assert "<svg" in html
    assert "oldest readable" in html


def test_a_timeline_of_nothing(lake: Lake, shop: Shop) -> None:
    del shop
    reply = panels.of(lake.at("commit:1").timeline()).handle({"id": "a", "op": "timeline", "at": ""})
    assert (reply["position"], reply["newest"]) == ("1", "1")
    assert "error" in panels.of(lake.timeline()).handle({"id": "a", "op": "timeline", "window": 7})


def test_what_came_and_went_between_two_positions(many: Lake, shop: Shop) -> None:
    shop.commit("u", (1, "Ada", "99.00"))
    shop.commit("d", (2, None, None))
    found = many.diff("SELECT id, total FROM orders", "commit:10")
    assert [(row[0], row[1], str(row[2])) for row in found.fetchall()] == [
        (-1, 1, "12.50"), (1, 1, "99.00"), (-1, 2, "None"),
    ]  # fmt: skip
    assert "1 came and 2 went from commit 10 to commit 12" in str(found)
    assert many.diff(ORDERS, 12, 10).rows == 3
    assert many.diff(ORDERS, 12).rows == 0


def test_the_slider_sends_what_it_is_linked_with(show: Show, many: Lake) -> None:
    watch = many.watch(ORDERS)
    page = show(panels.of(many.timeline(link=watch)), panels.of(watch))
    expect(page.locator(".hw-panel[data-ready='1'][data-state='live']")).to_have_count(2)
    page.clock.pause_at(page.evaluate("Date.now()") / 1000 + 1)
    slider = page.get_by_role("slider")
    expect(slider).to_have_attribute("aria-valuenow", "10")

    def both(position: int, state: str = "pinned") -> None:
        expect(page.locator(f".hw-panel[data-position='{position}'][data-state='{state}']")).to_have_count(2)
        expect(slider).to_have_attribute("aria-valuenow", str(position))
        expect(page.locator(".hw-panel").nth(1)).to_have_attribute("data-rows", str(position + 2))

    slider.focus()
    page.keyboard.press("ArrowLeft")
    both(9)
    page.keyboard.press("Home")
    both(1)
    page.get_by_role("button", name="\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}").click()
    both(2)
    page.get_by_label("go to position").fill("tag:audit")
    page.keyboard.press("Enter")
    both(4)
    box = slider.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 1, box["y"] + 20)
    both(1)
    page.get_by_label("go to position").fill("11")
    page.keyboard.press("Enter")
    expect(page.locator(".hw-message").first).to_contain_text("there is no commit 11 yet")
    page.get_by_role("button", name="live").click()
    both(10, "live")
    assert [name for name, _ in page.evaluate("window.changed")].count("at") >= 7


def test_commits_are_drawn_while_a_past_position_is_shown(show: Show, many: Lake, shop: Shop) -> None:
    page = show(panels.of(many.timeline()))
    expect(page.locator(".hw-panel[data-state='live']")).to_have_count(1)
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".hw-panel[data-state='pinned'][data-position='9']")).to_have_count(1)
    shop.commit("c", (30, "Ada", "1.00"))
    page.clock.run_for(3_000)
    expect(page.locator(".hw-panel")).to_have_attribute("data-newest", "11")
    expect(page.locator(".hw-panel")).to_have_attribute("data-position", "9")
