"""What a table panel asks for and has chosen, as traits: the page writes them, Python sets and observes them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets
import pytest
import traitlets
from playwright.sync_api import Page, expect
from tests.notebooks.test_table_panel_browser import advance, asked, cells, ready, settle

from headwater import Lake
from headwater_notebooks.pages import Pages
from headwater_notebooks.table_panel import SELECTED_MAX, TablePanel, for_watch

if TYPE_CHECKING:
    from tests.notebooks.conftest import Shop

Show = Callable[..., Page]
ORDERS = "SELECT * FROM orders ORDER BY id"
TRAITS = ("filters", "sort", "search", "show", "selection", "_turned")


class Wired:
    """A panel and its page, with what a front end carries between them; ``heard`` is what an observer was told."""

    def __init__(self, show: Show, panel: TablePanel) -> None:
        self.panel = panel
        self.page = show(panel)
        ready(self.page)
        self.heard: list[tuple[str, Any]] = []
        panel.observe(lambda change: self.heard.append((change["name"], change["new"])), TRAITS)
        panel.observe(self._to_page, TRAITS)
        self._receiving = False

    def _to_page(self, change: dict[str, Any]) -> None:
        if not self._receiving:
            self.page.evaluate("([name, value]) => window.put(name, value)", [change["name"], change["new"]])

    def from_page(self) -> None:
        """What the page wrote since reaches the panel, as a front end's messages do."""
        settle(self.page)
        self._receiving = True
        for name, value in self.page.evaluate("window.changed.splice(0)"):
            self.panel.set_state({name: value})
        self._receiving = False


@pytest.fixture
def wired(show: Show, lake: Lake, shop: Shop) -> Wired:
    shop.commit("c", *[(number, f"c{number % 5}", f"{number}.25") for number in range(10, 40)])
    return Wired(show, for_watch(lake.watch(ORDERS)))


def rows(page: Page) -> str | None:
    return page.locator(".hw-panel").get_attribute("data-rows")


def test_what_is_typed_is_in_the_traits(wired: Wired) -> None:
    page, panel = wired.page, wired.panel
    page.locator(".hw-scroll").focus()
    page.keyboard.press("f")
    page.keyboard.type("> 12 and <= 20")
    page.locator("input[aria-label='filter customer']").fill("C1")
    page.clock.run_for(300)
    wired.from_page()
    assert panel.filters == [
        {"column": "id", "op": ">", "value": "12"},
        {"column": "id", "op": "<=", "value": "20"},
        {"column": "customer", "op": "contains", "value": "C1"},
    ]
    assert page.locator("tbody td:first-child").all_inner_texts() == ["16"]
    page.locator("th[data-column=total] button").click()
    page.keyboard.press("Escape")
    wired.from_page()
    assert panel.sort == [{"column": "total", "descending": False}]
    assert [name for name, _ in wired.heard] == ["filters", "filters", "sort"]
    page.locator(".hw-scroll").focus()
    page.keyboard.press("/")
    page.keyboard.type("no such text")
    page.clock.run_for(300)
    wired.from_page()
    assert (panel.search, wired.heard[-1]) == ("no such text", ("search", "no such text"))
    assert rows(page) == "0"


def test_what_python_sets_is_shown(wired: Wired) -> None:
    page, panel = wired.page, wired.panel
    before = asked(page)
    panel.filters = [
        {"column": "id", "op": ">=", "value": 10},
        {"column": "id", "op": "<", "value": "13"},
        {"column": "customer", "op": "contains", "value": "> odd"},
    ]
    expect(page.locator(".hw-panel")).to_have_attribute("data-rows", "0")
    shown = page.locator(".hw-filters input").evaluate_all("inputs => inputs.map((input) => input.value)")
    assert shown == [">= 10 and < 13", "~ > odd", ""]
    assert asked(page) == before + 1, "one question"
    panel.filters = [{"column": "id", "op": "<", "value": "13"}, {"column": "customer", "op": "not null"}]
    panel.sort = [{"column": "id", "descending": True}]
    expect(page.locator("tbody tr:nth-child(1) td").first).to_have_text("12")
    expect(page.locator("th[data-column=id]")).to_have_attribute("aria-sort", "descending")
    panel.search = "ada"
    expect(page.locator(".hw-panel")).to_have_attribute("data-rows", "1")
    expect(page.locator(".hw-search")).to_have_value("ada")
    settle(page)
    assert page.evaluate("window.changed") == [], "nothing comes back, so nothing goes round in circles"
    before = asked(page)
    page.evaluate("([name, value]) => window.put(name, value)", ["filters", panel.filters])  # a kernel's echo
    settle(page)
    assert asked(page) == before


def test_a_paused_panel_keeps_what_it_shows_until_it_goes_on(wired: Wired) -> None:
    page = wired.page
    page.get_by_role("button", name="pause").click()
    before = asked(page)
    wired.panel.search = "ada"
    advance(page, 5000)
    assert (asked(page), rows(page)) == (before, "33")
    page.get_by_role("button", name="resume").click()
    expect(page.locator(".hw-panel")).to_have_attribute("data-rows", "1")


def test_static_rows_are_the_filtered_ones(lake: Lake) -> None:
    panel = TablePanel(Pages(lake, ORDERS))
    panel.filters = [{"column": "id", "op": "<", "value": "2"}]
    assert "Ada" in panel.static_html()
    assert "img" not in panel.static_html()


NO_FILTERS: list[Any] = [
    [{"column": "id", "op": "DROP", "value": "1"}],
    [{"op": "=", "value": "1"}],
    [{"column": "id", "op": "=", "value": "1", "sql": "x"}],
    ["id > 1"],
]


def test_a_filter_that_is_none_is_refused_at_once(lake: Lake) -> None:
    panel = TablePanel(Pages(lake, ORDERS))
    for value in NO_FILTERS:
        with pytest.raises(traitlets.TraitError):
            panel.filters = value
    with pytest.raises(traitlets.TraitError):
        panel.sort = [{"descending": True}]
    with pytest.raises(traitlets.TraitError):
        panel.selection = [{"id": "1"}] * (SELECTED_MAX + 1)
    assert (panel.filters, panel.sort, panel.selection) == ([], [], [])


def test_rows_are_chosen_by_mouse_and_keyboard(wired: Wired) -> None:
    page, panel = wired.page, wired.panel
    page.locator("tbody tr:nth-child(3)").click()
    wired.from_page()
    assert panel.selection == [{"id": "10", "customer": "c0", "total": "10.25"}]
    assert wired.heard == [("selection", panel.selection)]
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+ArrowDown")
    wired.from_page()
    assert [row["id"] for row in panel.selection] == ["11", "12"]
    page.locator("tbody tr:nth-child(2)").click(modifiers=["Control"])
    wired.from_page()
    assert [(row["id"], row["customer"]) for row in panel.selection] == [("11", "c1"), ("12", "c2"), ("2", None)]
    page.locator("tbody tr:nth-child(4)").click(modifiers=["Control"])
    wired.from_page()
    assert [row["id"] for row in panel.selection] == ["12", "2"]
    page.locator("tbody tr:nth-child(6)").click()
    page.locator("tbody tr:nth-child(8)").click(modifiers=["Shift"])
    wired.from_page()
    assert [row["id"] for row in panel.selection] == ["13", "14", "15"]
    assert page.locator("tbody tr[aria-selected=true]").count() == 3
    page.keyboard.press("Escape")
    wired.from_page()
    assert panel.selection == []
    assert page.locator("tbody tr[aria-selected=true]").count() == 0


def test_a_chosen_row_stays_chosen_while_its_cells_change(wired: Wired, shop: Shop) -> None:
    page = wired.page
    wired.panel.selection = [{"id": "11"}, {"id": "no such row"}]
    chosen = page.locator("tbody tr[aria-selected=true] td:first-child")
    expect(chosen).to_have_text("11")
    shop.commit("u", (11, "somebody else", "0.01"))
    shop.commit("c", (5, None, None))
    advance(page, 11_000)
    expect(page.locator(".hw-panel")).to_have_attribute("data-rows", "34")
    expect(chosen).to_have_text("11")


def test_a_choice_is_bounded(show: Show, lake: Lake, shop: Shop) -> None:
    shop.commit("c", *[(number, None, None) for number in range(100, 400)])
    wired = Wired(show, TablePanel(Pages(lake, ORDERS), page_rows=500))
    wired.page.locator("tbody tr:nth-child(1)").click()
    wired.page.locator("tbody tr:nth-child(300)").click(modifiers=["Shift"])
    wired.from_page()
    assert len(wired.panel.selection) == SELECTED_MAX


def test_the_page_follows_a_control(show: Show, lake: Lake) -> None:
    slider = ipywidgets.IntSlider(value=1, min=0, max=10)
    who = ipywidgets.Dropdown(options=["Ada", "x' OR true --"])
    query = "SELECT id FROM orders WHERE id <= $most AND coalesce(customer, 'Ada') = $who ORDER BY id"
    wired = Wired(show, for_watch(lake.watch(query, params={"most": slider, "who": who})))
    page = wired.page
    assert cells(page, 1) == ["1"]
    before = asked(page)
    slider.value = 2
    expect(page.locator(".hw-panel")).to_have_attribute("data-rows", "2")
    assert asked(page) == before + 1, "at once, not when the next question is due"
    page.locator(".hw-query summary").click()
    expect(page.locator(".hw-params")).to_contain_text("$most = 2")
    who.value = "x' OR true --"
    expect(page.locator(".hw-panel")).to_have_attribute("data-rows", "0")
    assert all("2" not in str(sent.get("params", "")) for sent in page.evaluate("window.sent")), "no value comes back"
    assert wired.heard == [("_turned", 1), ("_turned", 2)]


def test_a_control_does_not_keep_a_panel(lake: Lake) -> None:
    slider = ipywidgets.IntSlider(value=1)
    panel = TablePanel(Pages(lake, "SELECT 1 AS one"), params={"most": slider, "plain": 3})
    slider.value = 2
    assert panel._turned == 1
    known = weakref.ref(panel)
    ipywidgets.Widget.close(panel)  # its channel, which keeps it
    del panel
    gc.collect()
    assert known() is None
    slider.value = 3


def test_last_page_page_size_and_back(show: Show, lake: Lake, shop: Shop) -> None:
    shop.commit("c", *[(number, None, None) for number in range(100, 200)])
    page = show(TablePanel(Pages(lake, ORDERS), page_rows=30))
    ready(page)
    dash = "\N{EN DASH}"
    page.get_by_role("button", name="last").click()
    expect(page.locator(".hw-range")).to_have_text(f"74{dash}103 of 103")
    assert cells(page, 30)[0] == "9007199254740993"
    expect(page.get_by_role("button", name="next")).to_be_disabled()
    page.get_by_role("button", name="previous").click()
    expect(page.locator(".hw-range")).to_have_text(f"44{dash}73 of 103")
    page.get_by_role("button", name="next").click()
    expect(page.locator(".hw-range")).to_have_text(f"74{dash}103 of 103")
    page.get_by_label("rows of a page").select_option("100")
    expect(page.locator(".hw-range")).to_have_text(f"1{dash}100 of 103")
    page.get_by_role("button", name="next").click()
    expect(page.locator(".hw-range")).to_have_text(f"101{dash}103 of 103")
    page.get_by_role("button", name="previous").click()
    expect(page.locator(".hw-range")).to_have_text(f"1{dash}100 of 103")
