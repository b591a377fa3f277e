"""Linked panels in a real browser: at no moment do two live ones show different positions.

A sampler in the page looks at every change of the page, and at every frame; it notes what is torn.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from playwright.sync_api import Page, expect

from headwater import Lake
from headwater_notebooks import panels
from headwater_notebooks.panel import Panel

if TYPE_CHECKING:
    from tests.notebooks.conftest import Shop

Show = Callable[..., Page]
MINUTE = 60_000
QUERIES = ("SELECT count(*) AS n FROM orders", "SELECT * FROM orders", "SELECT count(*) + 0 AS n FROM orders")
"""At commit P the first and the last say P + 2, and the second has so many rows: see ``Shop.commit``."""

SAMPLER = """(states) => {
  Object.assign(window, { torn: [], seen: new Set(), samples: 0 });
  const look = () => {
    window.samples += 1;
    const live = [...document.querySelectorAll(".hw-panel")].filter((panel) => states.includes(panel.dataset.state));
    const shown = live.map((panel) => {
      const told = panel.querySelector(".hw-position").textContent.replace(/\\D/g, "");
      const rows = [...panel.querySelectorAll(".hw-table tbody tr")];
      const counted = rows.length === 1 ? rows[0].cells[0].textContent : panel.dataset.rows;
      return [panel.dataset.position, told, String(counted - 2)];
    });
    const different = new Set(shown.flat());
    if (different.size > 1) window.torn.push(shown);
    if (live.length > 1) different.forEach((position) => window.seen.add(position));
  };
  new MutationObserver(look).observe(document.getElementById("host"),
    { subtree: true, childList: true, attributes: true, characterData: true });
  const frame = () => { look(); requestAnimationFrame(frame); };
  frame();
}"""


FRESH = ["live", "pinned"]
"""States of panels that must agree; others may differ, and say why."""


def linked(lake: Lake, *queries: str) -> list[Panel]:
    return panels.link(*[lake.watch(query, interval=0.1) for query in queries])


def states(page: Page) -> list[str | None]:
    return [panel.get_attribute("data-state") for panel in page.locator(".hw-panel").all()]


def positions(page: Page) -> list[str | None]:
    return [panel.get_attribute("data-position") for panel in page.locator(".hw-panel").all()]


def sent(page: Page) -> int:
    found: int = page.evaluate("window.sent.length")
    return found


def ready(page: Page, count: int) -> None:
    """Wait for the first rows, then stop the page's clock."""
    expect(page.locator(".hw-panel[data-ready='1']")).to_have_count(count)
    page.clock.pause_at(page.evaluate("Date.now()") / 1000 + 1)
    settle(page)


def settle(page: Page) -> None:
    page.wait_for_function("() => window.sent.length === window.answers")


def advance(page: Page, milliseconds: int) -> None:
    """Let the page's clock run, in small parts, each request answered before the next part."""
    for _ in range(0, milliseconds, 500):
        page.clock.run_for(500)
        settle(page)


def until(page: Page, states_: list[str], positions_: list[str]) -> None:
    """Let it run until this is shown: how often panels ask depends on what an answer takes on this machine."""
    for _ in range(20):
        advance(page, 6_500)
        if (states(page), positions(page)) == (states_, positions_):
            return
    assert (states(page), positions(page)) == (states_, positions_)


@contextmanager
def commits(shop: Shop) -> Iterator[list[int]]:
    """Orders arrive all the time, from another thread; yields the commits that were made."""
    made: list[int] = []
    ended = threading.Event()

    def write() -> None:
        while not ended.wait(0.01):
            made.append(shop.commit("c", (100 + len(made), "Ada", "1.00")))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield made
    finally:
        ended.set()
        writer.join()


def test_all_show_one_position_at_every_moment_while_commits_arrive(show: Show, lake: Lake, shop: Shop) -> None:
    page = show(*linked(lake, *QUERIES))
    page.set_viewport_size({"width": 900, "height": 1200})  # all three stay in view as rows come
    expect(page.locator(".hw-panel[data-state='live']")).to_have_count(3)
    page.evaluate(SAMPLER, [*FRESH, "busy", "behind"])  # none is lost or paused here, so none may differ
    with commits(shop) as made:
        page.wait_for_function("() => window.seen.size >= 6", timeout=60_000)
        page.evaluate("put('at', 'commit:2', 1)")  # and while they are sent elsewhere and back
        expect(page.locator(".hw-panel[data-state='pinned'][data-position='2']")).to_have_count(3)
        page.evaluate("put('at', '', 0)")
        expect(page.locator(".hw-panel[data-state='live']")).to_have_count(3)
        page.wait_for_function("() => window.seen.size >= 10", timeout=60_000)
    assert page.evaluate("window.torn") == []
    assert len(made) > 10
    assert page.evaluate("window.samples") > 100


def test_a_lost_panel_stops_nobody_and_never_looks_fresh(show: Show, lake: Lake, shop: Shop) -> None:
    page = show(*linked(lake, *QUERIES))
    ready(page, 3)
    page.evaluate(SAMPLER, FRESH)
    page.evaluate("window.heldBack.add(1)")
    shop.commit("c", (100, "Ada", "1.00"))
    until(page, ["live", "lost", "live"], ["2", "1", "2"])
    for number in range(2):
        shop.commit("c", (101 + number, "Ada", "1.00"))
        until(page, ["live", "lost", "live"], [f"{3 + number}", "1", f"{3 + number}"])
    page.evaluate("window.release()")
    until(page, ["live", "live", "live"], ["4", "4", "4"])
    assert page.evaluate("window.torn") == []


def test_the_one_that_decides_may_be_the_lost_one(show: Show, lake: Lake, shop: Shop) -> None:
    page = show(*linked(lake, *QUERIES))
    ready(page, 3)
    page.evaluate(SAMPLER, FRESH)
    page.evaluate("window.heldBack.add(0)")
    shop.commit("c", (100, "Ada", "1.00"))
    for _ in range(20):  # as ``until``, but the first is lost at last
        advance(page, 6_500)
        if positions(page)[1:] == ["2", "2"]:
            break
    assert positions(page)[1:] == ["2", "2"]
    assert states(page) == ["busy", "live", "live"]
    shop.commit("c", (101, "Ada", "1.00"))
    page.evaluate("window.release()")
    until(page, ["live", "live", "live"], ["3", "3", "3"])
    assert page.evaluate("window.torn") == []


def test_a_busy_kernel_is_said_by_all_of_a_link(show: Show, lake: Lake, shop: Shop) -> None:
    page = show(*linked(lake, *QUERIES))
    ready(page, 3)
    page.evaluate(SAMPLER, FRESH)
    page.evaluate("window.hold = true")
    shop.commit("c", (100, "Ada", "1.00"))
    page.clock.run_for(14_000)
    assert states(page) == ["busy", "busy", "busy"]
    ages = page.locator(".hw-age").all_inner_texts()
    assert all(int(age.split()[1]) >= 9 for age in ages), ages
    before = sent(page)
    assert before <= 2 * 3 + 3, "each has one request outstanding at most"
    page.clock.run_for(MINUTE)
    assert sent(page) == before
    assert states(page) == ["lost", "lost", "lost"]
    shop.commit("c", (101, "Ada", "1.00"))
    page.evaluate("window.release()")
    until(page, ["live", "live", "live"], ["3", "3", "3"])
    assert page.evaluate("window.torn") == []


def test_pausing_one_or_all_and_what_is_asked_meanwhile(show: Show, lake: Lake, shop: Shop) -> None:
    page = show(*linked(lake, *QUERIES))
    ready(page, 3)
    page.evaluate(SAMPLER, FRESH)
    pause = page.get_by_role("button", name="pause")
    pause.nth(1).click()
    assert states(page) == ["live", "paused", "live"]
    shop.commit("c", (100, "Ada", "1.00"))
    advance(page, 12_000)
    assert positions(page) == ["2", "1", "2"]
    page.get_by_role("button", name="resume").click()
    settle(page)
    expect(page.locator(".hw-panel[data-state='live'][data-position='2']")).to_have_count(3)
    pause.first.click(modifiers=["Shift"])
    assert states(page) == ["paused", "paused", "paused"]
    before = sent(page)
    shop.commit("c", (101, "Ada", "1.00"))
    advance(page, MINUTE)
    assert sent(page) == before
    page.get_by_role("button", name="resume").first.click(modifiers=["Shift"])
    expect(page.locator(".hw-panel[data-state='live'][data-position='3']")).to_have_count(3)
    assert page.evaluate("window.torn") == []


def test_hidden_panels_ask_nothing_and_do_not_hold_others_up(show: Show, lake: Lake, shop: Shop) -> None:
    page = show(*linked(lake, *QUERIES))
    ready(page, 3)
    page.evaluate(SAMPLER, FRESH)
    page.evaluate("document.querySelectorAll('#host > div')[1].style.display = 'none'")
    expect(page.locator(".hw-panel").nth(1)).to_have_attribute("data-state", "hidden")
    page.evaluate("window.sent.length = window.answers = 0")
    shop.commit("c", (100, "Ada", "1.00"))
    advance(page, 12_000)
    assert positions(page) == ["2", "1", "2"]
    assert 1 not in {request.get("panel", 0) for request in page.evaluate("window.sent")}
    page.evaluate("document.querySelectorAll('#host > div')[1].style.display = ''")
    expect(page.locator(".hw-panel[data-state='live'][data-position='2']")).to_have_count(3)
    page.evaluate("window.scrollTo(0, 3500)")
    expect(page.locator(".hw-panel[data-state='hidden']")).to_have_count(3)
    before = sent(page)
    shop.commit("c", (101, "Ada", "1.00"))
    advance(page, MINUTE)
    assert sent(page) == before
    page.evaluate("window.scrollTo(0, 0)")
    expect(page.locator(".hw-panel[data-state='live'][data-position='3']")).to_have_count(3)
    assert page.evaluate("window.torn") == []


def test_a_link_costs_no_more_messages_than_its_panels_apart(show: Show, lake: Lake, shop: Shop) -> None:
    page = show(*linked(lake, *QUERIES))
    ready(page, 3)
    advance(page, 12_000)
    page.evaluate("window.sent.length = window.answers = 0")
    shop.commit("c", (100, "Ada", "1.00"))
    advance(page, 2_000)
    asked = page.evaluate("window.sent")
    moved = [request for request in asked if request["at"] == "commit:2"]
    assert len(moved) == 2, "one each, and the first decides"
    assert {request["at"] for request in asked} == {"latest", "commit:2"}
    page.evaluate("window.sent.length = window.answers = 0")
    advance(page, MINUTE)
    asking = {request.get("panel", 0) for request in page.evaluate("window.sent")}
    assert len(asking) == 1, "nothing moved: one asks for all"
    ages = page.locator(".hw-age").all_inner_texts()
    assert len(set(ages)) == 1, "what the one heard is true of all"


def test_a_panel_that_is_linked_later_takes_the_position_of_the_others(show: Show, lake: Lake, shop: Shop) -> None:
    shop.commit("c", (100, "Ada", "1.00"))
    one, two = linked(lake, *QUERIES[:2])
    three = panels.of(lake.watch(QUERIES[2]))
    page = show(one, two, three)
    ready(page, 3)
    page.evaluate("put('at', 'commit:1')")
    expect(page.locator(".hw-panel[data-state='pinned'][data-position='1']")).to_have_count(2)
    assert positions(page)[2] == "2"
    page.evaluate("link => put('_link', link, 2)", one._link)
    expect(page.locator(".hw-panel[data-state='pinned'][data-position='1']")).to_have_count(3)
    page.locator(".hw-panel").nth(2).get_by_role("button", name="newest").click()
    expect(page.locator(".hw-panel[data-state='live'][data-position='2']")).to_have_count(3)
    page.evaluate("put('_link', '', 2)")
    page.evaluate("put('at', 'commit:1')")
    expect(page.locator(".hw-panel[data-state='pinned']")).to_have_count(2)
    assert states(page)[2] == "live"


def test_sorting_one_keeps_it_at_the_position_of_the_others(show: Show, lake: Lake, shop: Shop) -> None:
    page = show(*linked(lake, *QUERIES))
    ready(page, 3)
    page.evaluate(SAMPLER, FRESH)
    shop.commit("c", (100, "Ada", "1.00"))
    page.locator(".hw-panel").nth(1).locator("th[data-column=id] button").click()
    expect(page.locator(".hw-panel").nth(1).locator("th[data-column=id]")).to_have_attribute("aria-sort", "ascending")
    settle(page)
    assert page.evaluate("window.sent.at(-1).sort") == [{"column": "id", "descending": False}]
    assert positions(page) == ["1", "1", "1"], "the next round is not yet due"
    advance(page, 12_000)
    assert positions(page) == ["2", "2", "2"]
    assert page.evaluate("window.torn") == []


def test_a_mistake_in_one_is_its_own(show: Show, lake: Lake) -> None:
    page = show(*linked(lake, "SELECT 1 / (count(*) - 4) AS n, error('no') FROM orders WHERE id = 100", *QUERIES[1:]))
    expect(page.locator(".hw-panel[data-state='live']")).to_have_count(2)
    assert states(page)[0] == "error"


def test_links_of_things(lake: Lake) -> None:
    one, two = panels.link(lake.watch("SELECT 1 AS a"), lake.watch("SELECT 2 AS a"))
    (three,) = panels.link(lake.watch("SELECT 3 AS a"))
    assert one._link == two._link != three._link
    assert panels.link(three, one)[0]._link == three._link == one._link
