"""The live table in a real browser: what it shows, when it asks and when it does not.

The page's clock stands still unless a test moves it, so "asks nothing for a minute" takes no minute.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

from headwater import Lake
from headwater_notebooks.pages import Pages
from headwater_notebooks.table_panel import TablePanel, for_watch

if TYPE_CHECKING:
    from tests.notebooks.conftest import Shop

Show = Callable[..., Page]
ORDERS = "SELECT * FROM orders ORDER BY id"
MINUTE = 60_000
LONGEST_PAUSE = 11_000
"""After an answer that was slow, as on a busy machine, a page waits up to ten seconds before it asks again."""


def ready(page: Page) -> None:
    """Wait for the first rows, then stop the page's clock."""
    expect(page.locator(".hw-panel[data-ready='1']")).to_be_visible()
    expect(page.locator(".hw-panel")).to_have_attribute("data-state", "live")
    page.clock.pause_at(page.evaluate("Date.now()") / 1000 + 1)
    settle(page)


def settle(page: Page) -> None:
    """Until the request that may be under way is answered."""
    page.wait_for_function("() => window.sent.length === window.answers")


def advance(page: Page, milliseconds: int) -> None:
    """Let the page's clock run, in small parts, each request answered before the next part."""
    for _ in range(0, milliseconds, 500):
        page.clock.run_for(500)
        settle(page)


def attribute(page: Page, name: str) -> int:
    return int(page.locator(".hw-panel").get_attribute(f"data-{name}") or "-1")


def cells(page: Page, row: int) -> list[str]:
    return page.locator(f".hw-table tbody tr:nth-child({row}) td").all_inner_texts()


def asked(page: Page) -> int:
    count: int = page.evaluate("window.sent.length")
    return count


@pytest.fixture
def page(show: Show, lake: Lake) -> Page:
    """The orders, shown and live."""
    found = show(for_watch(lake.watch(ORDERS)))
    ready(found)
    return found


def test_shows_exact_values_and_never_runs_data(page: Page) -> None:
    expect(page.locator(".hw-state")).to_have_text("live")
    assert cells(page, 1) == ["1", "Ada", "12.50"]
    assert cells(page, 2) == ["2", "NULL", "NULL"]
    assert cells(page, 3) == ["9007199254740993", "<img src=x onerror=window.hacked=1>", "99999999999999999.99"]
    assert page.locator(".hw-null").count() == 2
    assert page.evaluate("window.hacked") is None
    assert (attribute(page, "rows"), attribute(page, "position")) == (3, 1)
    expect(page.locator(".hw-total")).to_have_text("3 rows")
    expect(page.locator(".hw-position")).to_have_text("position 1")
    assert page.locator("th[data-column=total] .hw-type").inner_text() == "decimal(20,2)"


def test_a_commit_moves_the_position_and_flashes_what_changed(page: Page, shop: Shop) -> None:
    page.evaluate("window.kept = document.querySelector('.hw-table tbody tr')")
    shop.commit("u", (1, "Ada", "99.00"))
    shop.commit("c", (3, "Grace", "1.00"))
    advance(page, LONGEST_PAUSE)
    expect(page.locator(".hw-panel")).to_have_attribute("data-position", "3")
    assert cells(page, 1) == ["1", "Ada", "99.00"]
    assert page.evaluate("window.kept === document.querySelector('.hw-table tbody tr')"), "rows keep their elements"
    changed = page.locator("td[data-changed]").all_inner_texts()
    assert changed == ["99.00", "3", "Grace", "1.00"]
    first = page.evaluate("document.querySelector('td[data-changed]').dataset.changed")
    shop.commit("u", (1, "Ada", "100.00"))
    advance(page, LONGEST_PAUSE)
    expect(page.locator(".hw-panel")).to_have_attribute("data-position", "4")
    assert page.locator("td[data-changed]").all_inner_texts() == ["100.00"]
    second = page.evaluate("document.querySelector('td[data-changed]').dataset.changed")
    assert first != second, "a cell that changes twice in a row flashes twice"
    assert "hw-flash" in page.evaluate("getComputedStyle(document.querySelector('td[data-changed]')).animationName")


def test_asks_one_thing_at_a_time_and_shows_a_busy_kernel(page: Page) -> None:
    page.evaluate("window.hold = true")
    before = asked(page)
    while asked(page) == before:  # how long it waits by now depends on how long the page took to come up
        page.clock.run_for(500)
    held = asked(page)
    page.clock.run_for(3000)
    assert asked(page) == held, "one request outstanding"
    expect(page.locator(".hw-panel")).to_have_attribute("data-state", "busy")
    page.clock.run_for(MINUTE)
    page.locator("th[data-column=id] button").click()  # a person asks for something else meanwhile
    page.locator("th[data-column=id] button").click()
    assert asked(page) == held
    expect(page.locator(".hw-panel")).to_have_attribute("data-state", "lost")
    expect(page.get_by_role("button", name="ask again")).to_be_visible()
    page.evaluate("window.release()")
    expect(page.locator(".hw-panel")).to_have_attribute("data-state", "live")
    expect(page.locator("tbody tr:nth-child(1) td").first).to_have_text("9007199254740993")
    assert page.evaluate("window.sent.at(-1).sort") == [{"column": "id", "descending": True}]
    expect(page.locator(".hw-message")).to_be_hidden()
    advance(page, LONGEST_PAUSE)
    assert asked(page) > held


def test_asks_less_often_while_nothing_changes(page: Page) -> None:
    before = asked(page)
    advance(page, MINUTE)
    assert before < asked(page) <= before + 40, "at most every 2 s, but for the first few"


def test_pause_asks_nothing_and_resume_catches_up(page: Page, shop: Shop) -> None:
    page.evaluate("window.hold = true")
    page.clock.run_for(3000)  # pause meets a request under way
    page.get_by_role("button", name="pause").click()
    expect(page.locator(".hw-panel")).to_have_attribute("data-state", "paused")
    settle(page)
    page.evaluate("window.release()")
    before = asked(page)
    shop.commit("c", (3, "Grace", "1.00"))
    advance(page, MINUTE)
    assert asked(page) == before
    assert attribute(page, "position") == 1
    expect(page.locator(".hw-age")).to_have_text(re.compile(r"updated (\d\d) s ago"))
    page.get_by_role("button", name="resume").click()
    expect(page.locator(".hw-panel")).to_have_attribute("data-position", "2")
    expect(page.locator(".hw-panel")).to_have_attribute("data-state", "live")


def test_asks_nothing_off_the_screen_or_in_a_hidden_page(page: Page, shop: Shop) -> None:
    page.evaluate("window.scrollTo(0, 2500)")
    expect(page.locator(".hw-panel")).to_have_attribute("data-state", "hidden")
    before = asked(page)
    shop.commit("c", (3, "Grace", "1.00"))
    advance(page, MINUTE)
    assert asked(page) == before
    page.evaluate("window.scrollTo(0, 0)")
    expect(page.locator(".hw-panel")).to_have_attribute("data-position", "2")
    settle(page)
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    expect(page.locator(".hw-panel")).to_have_attribute("data-state", "hidden")
    before = asked(page)
    advance(page, MINUTE)
    assert asked(page) == before


def test_sorts_filters_and_pages_with_keys_alone(show: Show, shop: Shop, lake: Lake) -> None:
    shop.commit("c", *[(number, f"c{number % 5}", f"{number}.25") for number in range(10, 200)])
    page = show(TablePanel(Pages(lake, ORDERS), page_rows=20))
    ready(page)
    expect(page.locator(".hw-range")).to_have_text("1\N{EN DASH}20 of 193")
    page.locator("th[data-column=total] button").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(page.locator("th[data-column=total]")).to_have_attribute("aria-sort", "descending")
    expect(page.locator("tbody tr:nth-child(2) td").first).to_have_text("199")
    page.locator(".hw-scroll").focus()
    page.keyboard.press("n")
    expect(page.locator(".hw-range")).to_have_text("21\N{EN DASH}40 of 193")
    expect(page.locator("tbody tr:nth-child(1) td").first).to_have_text("180")
    page.keyboard.press("p")
    expect(page.locator(".hw-range")).to_have_text("1\N{EN DASH}20 of 193")
    page.keyboard.press("f")
    page.keyboard.type("> 195")  # the first filter has the focus
    page.clock.run_for(300)
    expect(page.locator(".hw-panel")).to_have_attribute("data-rows", "5")
    page.locator("input[aria-label='filter customer']").fill("C1")
    page.clock.run_for(300)
    expect(page.locator(".hw-panel")).to_have_attribute("data-rows", "1")
    assert cells(page, 1) == ["196", "c1", "196.25"]
    page.locator(".hw-scroll").focus()
    page.keyboard.press("f")
    expect(page.locator(".hw-panel")).to_have_attribute("data-rows", "193")
    page.keyboard.press("Space")
    expect(page.locator(".hw-panel")).to_have_attribute("data-state", "paused")


def test_paging_while_rows_arrive_neither_repeats_nor_drops_a_row(show: Show, shop: Shop, lake: Lake) -> None:
    shop.commit("c", *[(number, None, None) for number in range(100, 200)])
    page = show(TablePanel(Pages(lake, ORDERS), page_rows=30))
    ready(page)
    seen = page.locator("tbody td:first-child").all_inner_texts()
    shop.commit("c", *[(number, None, None) for number in range(50, 60)])  # before the page's end
    page.get_by_role("button", name="next").click()
    expect(page.locator("tbody tr:nth-child(1) td").first).to_have_text("128")
    seen += page.locator("tbody td:first-child").all_inner_texts()
    assert seen == ["1", "2", *map(str, range(100, 158))]


def test_a_mistake_is_said_in_place_and_the_rows_stay(page: Page) -> None:
    page.get_by_role("button", name="filter").click()
    page.locator("input[aria-label='filter id']").fill("> abc")
    page.clock.run_for(300)
    expect(page.locator(".hw-message")).to_contain_text("abc")
    expect(page.locator(".hw-panel")).to_have_attribute("data-state", "error")
    assert page.locator("tbody tr").count() == 3
    page.locator("input[aria-label='filter id']").fill("> 2")
    page.clock.run_for(300)
    expect(page.locator(".hw-message")).to_be_hidden()
    expect(page.locator(".hw-panel")).to_have_attribute("data-rows", "1")


def test_closing_the_watch_ends_the_panel_but_leaves_its_rows(show: Show, lake: Lake) -> None:
    watch = lake.watch(ORDERS)
    page = show(for_watch(watch))
    ready(page)
    watch.close()
    advance(page, 3000)
    expect(page.locator(".hw-panel")).to_have_attribute("data-state", "closed")
    before = asked(page)
    advance(page, MINUTE)
    assert asked(page) == before
    assert page.locator("tbody tr").count() == 3


def test_a_disposed_view_asks_no_more(page: Page) -> None:
    page.evaluate("window.dispose()")
    before = asked(page)
    advance(page, MINUTE)
    assert asked(page) == before


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_colour_schemes(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    contrast = """(selector) => {
      const light = (text) => { const [r, g, b] = text.match(/[\\d.]+/g).map((n) => n / 255)
        .map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      const panel = getComputedStyle(document.querySelector(".hw-panel"));
      const text = getComputedStyle(document.querySelector(selector));
      const pair = [light(text.color), light(panel.backgroundColor)].sort();
      return [(pair[1] + 0.05) / (pair[0] + 0.05), light(panel.backgroundColor)]; }"""
    for selector in ("td", ".hw-null", ".hw-position", ".hw-type", ".hw-button"):
        ratio, background = page.evaluate(contrast, selector)
        assert ratio >= 4.5, selector
        assert (background < 0.1) == (scheme == "dark")


def test_the_module_is_small_and_fetches_nothing() -> None:
    assert len(TablePanel._esm.encode()) < 60_000
    for forbidden in ("http:", "https:", "import ", "import(", "fetch(", "innerHTML", "eval("):
        assert forbidden not in TablePanel._esm
