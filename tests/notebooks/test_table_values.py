"""Values that tables get wrong: exact numbers, NULL beside 'NULL', writing of either direction, markup everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from playwright.sync_api import Page, expect
from tests.notebooks.test_table_panel_browser import advance, cells, ready

from headwater import Lake
from headwater_notebooks.page_order import Column
from headwater_notebooks.page_plan import Wish
from headwater_notebooks.pages import Pages
from headwater_notebooks.table_panel import TablePanel

if TYPE_CHECKING:
    from tests.notebooks.conftest import Shop

Show = Callable[..., Page]
ATTACK = "<img src=x onerror=window.hacked=1>"
DIGITS = "12345678901234567890123456789012345678"

# SQL of a value, the text that stands in its cell, and the side it stands on.
VALUES = [
    ("9223372036854775807", "9223372036854775807", "right"),
    ("(-9223372036854775808)::BIGINT", "-9223372036854775808", "right"),
    ("170141183460469231731687303715884105727::HUGEINT", "170141183460469231731687303715884105727", "right"),
    (f"{DIGITS}::DECIMAL(38,0)", DIGITS, "right"),
    (f"'{DIGITS[0]}.{DIGITS[1:]}'::DECIMAL(38,37)", f"{DIGITS[0]}.{DIGITS[1:]}", "right"),
    ("'NaN'::DOUBLE", "nan", "right"),
    ("'-Infinity'::DOUBLE", "-inf", "right"),
    ("0.1::DOUBLE + 0.2::DOUBLE", "0.30000000000000004", "right"),
    ("'infinity'::TIMESTAMP", "infinity", "left"),
    ("TIMESTAMPTZ '2026-02-03 04:05:06.000007+02'", "2026-02-03 02:05:06.000007+00", "left"),
    ("DATE '0044-03-15 (BC)'", "0044-03-15 (BC)", "left"),
    ("NULL::INTEGER", "NULL", "right"),
    ("'NULL'", "NULL", "left"),
    ("''", "", "left"),
    ("[1, NULL, 3]", "[1, NULL, 3]", "left"),
    ("[1.50::DECIMAL(20,2)]", "[1.50]", "left"),
    ("{'a': 1, 'b': 'x'}", "{'a': 1, 'b': x}", "left"),
    ("'\\xDE\\x00'::BLOB", "\\xDE\\x00", "left"),
    ("'550e8400-e29b-41d4-a716-446655440000'::UUID", "550e8400-e29b-41d4-a716-446655440000", "left"),
    ("INTERVAL 90 MINUTE", "01:30:00", "left"),
    ("'שלום (1) עולם'", "שלום (1) עולם", "left"),
    ("'漢字かな'", "漢字かな", "left"),
    ("'👩‍👩‍👧 e\u0301 🏳️‍🌈'", "👩‍👩‍👧 e\u0301 🏳️‍🌈", "left"),
    ("chr(8238) || 'abc'", "\u202eabc", "left"),
    ("'one' || chr(10) || 'two' || chr(13) || chr(10) || 'three'", "one↵two↵three", "left"),
    (f"'{ATTACK}'", ATTACK, "left"),
    ("'</td></table><script>window.hacked=1</script>'", "</td></table><script>window.hacked=1</script>", "left"),
    ("'  two  spaces '", "  two  spaces ", "left"),
]  # fmt: skip


def test_every_value_stands_there_exactly(show: Show, lake: Lake) -> None:
    query = "SELECT " + ", ".join(f"{sql} AS c{place}" for place, (sql, _, _) in enumerate(VALUES))
    page = show(TablePanel(Pages(lake, query)))
    ready(page)
    found = page.locator("tbody td").evaluate_all(
        "cells => cells.map((cell) => [cell.textContent, getComputedStyle(cell).textAlign])"
    )
    assert [tuple(each) for each in found] == [(text, side) for _, text, side in VALUES]
    nulls = page.locator("td.hw-null").evaluate_all("cells => cells.map((cell) => cell.cellIndex)")
    assert nulls == [11], "NULL, and not the text 'NULL'"
    assert page.evaluate("window.hacked") is None
    assert page.locator("tbody tr").count() == 1
    heights = page.locator("tbody td").evaluate_all("cells => cells.map((cell) => cell.scrollHeight)")
    assert max(heights) < 40, "a line break makes no row tall"
    assert page.locator(f"td[title='one\\a two\\d\\a three']").count() == 1, "the tooltip has it as it is"  # noqa: F541
    aside = page.locator("td").evaluate_all("cells => cells.filter((cell) => cell.dir === 'auto').length")
    assert aside == sum(side == "left" for *_, side in VALUES), "a cell's direction does not reach its neighbours"


def test_markup_is_text_wherever_it_comes_from(show: Show, lake: Lake, shop: Shop) -> None:
    shop.commit("c", (3, ATTACK, None))
    name = f'"{ATTACK}"'
    panel = TablePanel(
        Pages(lake, f"SELECT id, customer AS {name} FROM orders ORDER BY id", {}), sql=f"SELECT '{ATTACK}'"
    )
    panel.filters = [{"column": ATTACK, "op": "contains", "value": ATTACK}]
    panel.search = ATTACK
    panel.selection = [{"id": "3", ATTACK: ATTACK}]
    page = show(panel)
    ready(page)
    expect(page.locator(".hw-panel")).to_have_attribute("data-rows", "2")
    expect(page.locator("tbody tr[aria-selected=true]")).to_have_count(1)
    page.get_by_role("button", name="history").click()
    expect(page.locator(".hw-total")).to_have_text("1 version")
    page.get_by_role("button", name="back").click()
    page.locator(".hw-filters input").nth(1).fill(f"= {ATTACK}{ATTACK}")
    page.clock.run_for(300)
    expect(page.locator(".hw-panel")).to_have_attribute("data-rows", "0")
    page.locator(".hw-filters input").nth(1).fill("")
    page.locator(".hw-filters input").nth(0).fill(f"> {ATTACK}")
    page.clock.run_for(300)
    expect(page.locator(".hw-message")).to_contain_text(ATTACK)
    assert page.evaluate("window.hacked") is None
    assert page.locator("img, script:not([type=module])").count() == 0


SEARCHES: list[tuple[str, list[str]]] = [
    ("ADA", ["1"]),
    ("12.5", ["1"]),
    ("9007199254740993", ["9007199254740993"]),
    ("999.99", ["9007199254740993"]),
    ("' OR true --", []),
    ("%", []),
    ("null", []),
    ("<img", ["9007199254740993"]),
]


def test_a_search_finds_text_in_any_column(lake: Lake) -> None:
    pages = Pages(lake, "SELECT * FROM orders ORDER BY id")
    for text, found in SEARCHES:
        assert [row[0] for row in pages.page(Wish(search=text))["rows"]] == found, text


def test_a_search_leaves_no_column_out_that_may_have_the_text(lake: Lake) -> None:
    """What ``may_hold`` leaves out has it nowhere: each part of each value's text is looked for."""
    for sql, text, _ in VALUES:
        kind = lake.sql(f"SELECT {sql} AS v").types[0]
        own = lake.sql(f"SELECT CAST({sql} AS VARCHAR)").scalar()
        if own is not None:
            column = Column("v", kind)
            assert all(
                column.may_hold(part.lower()) for start in range(len(own)) for part in (own[start:], own[start])
            ), text
    assert not Column("v", "BIGINT").may_hold("a")
    assert not Column("v", "DECIMAL(20,2)").may_hold("1,0")
    assert Column("v", "DECIMAL(20,2)[]").may_hold("1.0, ")


def test_columns_do_not_jump_while_values_change(show: Show, lake: Lake, shop: Shop) -> None:
    shop.commit("u", (1, "a rather long name of a customer", "12.50"))
    page = show(TablePanel(Pages(lake, "SELECT * FROM orders WHERE id < 3 ORDER BY id")))
    ready(page)
    widths = "[...document.querySelectorAll('th[data-column]')].map((cell) => cell.offsetLeft)"
    before = page.evaluate(widths)
    shop.commit("u", (1, "A", "1.00"))
    advance(page, 11_000)
    expect(page.locator(".hw-panel")).to_have_attribute("data-position", "3")
    assert cells(page, 1)[1] == "A"
    assert page.evaluate(widths) == before
