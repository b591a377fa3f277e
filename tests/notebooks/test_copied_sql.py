"""The SQL of what a table shows: run as a cell, it is what the table shows, whatever was typed and bound."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from playwright.sync_api import Page, expect
from tests.notebooks.test_pages import EVERY_KIND, every_page
from tests.notebooks.test_table_panel_browser import ready, settle

from headwater import Lake
from headwater_notebooks import cell as cells
from headwater_notebooks.page_plan import Wish
from headwater_notebooks.pages import Pages
from headwater_notebooks.query_text import literal
from headwater_notebooks.table_panel import TablePanel

if TYPE_CHECKING:
    from tests.notebooks.conftest import Shop

Show = Callable[..., Page]
EVIL = "a'b\"; DROP TABLE orders; -- \\ :most $most /* */ \N{MUSICAL SYMBOL G CLEF} %"


def run(lake: Lake, text: str) -> list[list[str | None]]:
    """What the cell answers when a person runs it."""
    first, _, body = text.partition("\n")
    assert first.startswith("%%sql")
    asked = cells.read(first.removeprefix("%%sql"), body, {})
    assert not asked.params, "every value is in the text"
    return [list(row) for row in lake.sql(asked.sql, at=asked.at).texts(10_000)]


WISHES: list[dict[str, Any]] = [
    {},
    {"sort": [{"column": "amount", "descending": True}, {"column": "day"}]},
    {
        "filters": [
            {"column": "ratio", "op": ">", "value": "0.1"},
            {"column": "name", "op": "contains", "value": "N1"},
        ]
    },
    {"filters": [{"column": "moment", "op": "=", "value": "2026-02-04 04:05:06.000007+00"}]},
    {"filters": [{"column": "huge", "op": "=", "value": "170141183460469231731687303715884105727"}]},
    {"filters": [{"column": "flag", "op": "null"}], "search": "n"},
    {"search": "0.625"},
    {"filters": [{"column": "name", "op": "!=", "value": EVIL}], "search": EVIL},
]


def test_a_copied_cell_is_what_the_table_shows(lake: Lake) -> None:
    pages = Pages(lake, f"-- a comment\n{EVERY_KIND} -- another")
    for wish in WISHES:
        shown, ran = every_page(pages, 500, **wish), run(lake, pages.text(Wish(**wish)))
        assert sorted(map(repr, ran)) == sorted(map(repr, shown)), wish
        if wish.get("sort"):
            assert [(row[2], row[7]) for row in ran] == [(row[2], row[7]) for row in shown], wish


def test_order_keys_past_positions_logs_and_histories_are_written_too(lake: Lake, shop: Shop) -> None:
    shop.commit("u", (1, EVIL, "13.00"))
    shop.commit("c", *[(number, EVIL if number % 2 else None, "1.00") for number in range(10, 30)])
    pages = Pages(lake, "SELECT * FROM orders ORDER BY id DESC")
    sort = [{"column": "total"}]
    wishes: tuple[dict[str, Any], ...] = ({}, {"sort": sort}, {"filters": [{"column": "id", "op": ">", "value": "9"}]})
    for wish in wishes:
        assert run(lake, pages.text(Wish(**wish))) == every_page(pages, 500, **wish), "equal rows in the same order"
    old = pages.text(Wish(sort=sort), at="commit:1")
    assert run(lake, old) == pages.page(Wish(sort=sort), at=1)["rows"]
    moment = lake.time_of(2).isoformat(" ")
    assert run(lake, pages.text(at=moment)) == pages.page(at=2)["rows"]
    above = Wish(filters=[{"column": "total", "op": ">", "value": "12.60"}])
    others: tuple[dict[str, Any], ...] = ({"show": "log"}, {"show": "history", "of": ["1"]})
    for shown in others:
        assert run(lake, pages.text(**shown)) == pages.page(**shown)["rows"]
        assert len(pages.page(above, **shown)["rows"]) < len(pages.page(**shown)["rows"])
        assert run(lake, pages.text(above, **shown)) == pages.page(above, **shown)["rows"]


VALUES: list[Any] = [
    None, True, 0, -5, 2**31, 2**63 - 1, -(2**63), 2**100, 0.1, -1e300, float("inf"), float("nan"), "", EVIL,
    Decimal("12345678901234567890.123456789"), date(2026, 1, 2), datetime(2026, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001
    datetime(2026, 1, 2, 3, tzinfo=UTC), b"\x00\xffa'", [1, None], ["a'", "]"], {"k": "v'", "n": 1},
]  # fmt: skip


def test_a_parameter_is_written_as_what_it_is(lake: Lake) -> None:
    for value in VALUES:
        text = literal(lake, value)
        bound = lake.sql("SELECT typeof($v), CAST($v AS VARCHAR)", params={"v": value}).fetchall()[0]
        written = lake.sql(f"SELECT typeof({text}), CAST({text} AS VARCHAR)").fetchall()[0]
        assert written[1] == bound[1], value
        assert written[0] == bound[0] or value is None or isinstance(value, int), value
        pages = Pages(lake, "SELECT $v AS v, '$v' AS text, 1 -$n AS n -- $v", {"v": value, "n": -3})
        shown = pages.page()["rows"]
        assert run(lake, pages.text()) == shown, value
        assert shown[0][1:] == ["$v", "4"], value


def test_the_button_copies_or_shows_what_to_copy(show: Show, lake: Lake) -> None:
    panel = TablePanel(Pages(lake, "SELECT * FROM orders ORDER BY id"))
    panel.filters = [{"column": "customer", "op": "contains", "value": "<img src=x onerror=window.hacked=1>'"}]
    page = show(panel)
    ready(page)
    page.evaluate(
        "() => { window.copied = []; navigator.clipboard.writeText = async (text) => { copied.push(text); }; }"
    )
    page.get_by_role("button", name="copy SQL").click()
    expect(page.get_by_role("button", name="copied")).to_be_visible()
    (text,) = page.evaluate("window.copied")
    assert "onerror=window.hacked=1>''" in text
    assert run(lake, text) == []
    page.clock.run_for(2000)
    page.evaluate("() => { navigator.clipboard.writeText = async () => { throw new Error('not allowed'); }; }")
    page.get_by_role("button", name="copy SQL").click()
    area = page.locator("textarea")
    expect(area).to_have_value(text)
    expect(area).to_be_focused()
    assert page.evaluate("document.activeElement.selectionEnd") == len(text)
    assert page.evaluate("window.hacked") is None
    page.get_by_role("button", name="close").click()
    expect(area).to_have_count(0)
    settle(page)
    expect(page.locator(".hw-panel")).to_have_attribute("data-state", "live")
    assert page.evaluate("window.sent.every((sent) => !JSON.stringify(sent).includes('SELECT'))"), "no SQL goes back"
