"""The log of what changed and the history of a row: which queries have them, what they say, how a page shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from playwright.sync_api import Page, expect
from tests.notebooks.test_table_panel_browser import advance, cells, ready, settle

from headwater import Lake
from headwater.catalog.records import Step
from headwater.errors import UsageError
from headwater.lake import open_lake
from headwater.schema import Schema
from headwater.testing.writer import Writer
from headwater_notebooks.page_order import Column
from headwater_notebooks.page_plan import Plan, Wish
from headwater_notebooks.pages import Pages
from headwater_notebooks.question import ask, subject
from headwater_notebooks.table_panel import TablePanel, for_watch

if TYPE_CHECKING:
    from tests.notebooks.conftest import Shop

Show = Callable[..., Page]
ORDERS = "SELECT * FROM orders ORDER BY id"
SUMS = Schema.of({"customer": "VARCHAR", "n": "BIGINT"}, key=["customer"])


@pytest.fixture
def sums(shop: Shop) -> Iterator[Lake]:
    """A view whose steps are written by hand: Ada has 1, then 2; Bob has 5 and goes."""
    shop.log.create_view("sums", "SELECT customer, count(*) AS n FROM orders GROUP BY customer")
    writer = Writer(shop.log, "pipeline:main")
    steps = [[("Ada", 1, 1), ("Bob", 5, 1)], [("Ada", 1, -1), ("Ada", 2, 1)], [("Bob", 5, -1)]]
    for number, rows in enumerate(steps, start=1):
        with writer.transaction() as tx:
            if number == 1:
                tx.create_topic("views.sums", "changelog", SUMS)
            names, counts, weights = zip(*rows, strict=True)
            tx.append("views.sums", pa.table({"customer": names, "n": counts, "_weight": weights}))
            ids = frozenset({shop.log.view("sums").id})
            tx.record_step(Step(number=number, input_commit=1, instant=datetime(2026, 1, 1, tzinfo=UTC), views=ids))
            tx.position = str(number)
            tx.commit()
    with open_lake(shop.folder) as opened:
        yield opened


def log(lake: Lake, query: str, **wish: Any) -> list[dict[str, str | None]]:
    page = Pages(lake, query).page(Wish(**wish), show="log")
    names = [column["name"] for column in page["columns"]]
    return [dict(zip(names, row, strict=True)) for row in page["rows"]]


def test_the_log_of_a_table_is_its_records_the_newest_first(lake: Lake, shop: Shop) -> None:
    shop.commit("u", (1, "Ada", "13.00"))
    shop.commit("d", (2, None, None))
    found = log(lake, "SELECT * FROM orders")
    assert [(each["_op"], each["_commit"], each["id"], each["total"]) for each in found] == [
        ("d", "3", "2", None),
        ("u", "2", "1", "13.00"),
        ("c", "1", "9007199254740993", "99999999999999999.99"),
        ("c", "1", "2", None),
        ("c", "1", "1", "12.50"),
    ]
    assert all(datetime.fromisoformat(str(each["_committed_at"])).tzinfo for each in found)
    some = log(lake, "SELECT id AS number, total FROM orders ORDER BY total", filters=[
        {"column": "number", "op": "=", "value": "1"}
    ])  # fmt: skip
    assert [(each["_op"], each["number"], "customer" in each) for each in some] == [
        ("u", "1", False),
        ("c", "1", False),
    ]
    past = Pages(lake, ORDERS).page(show="log", at="commit:1")
    assert (past["total"], past["position"]) == ("3", "1")


@pytest.mark.parametrize(
    ("name", "show", "looked_for"), [("orders", "log", False), ("orders", "state", False), ("sums", "state", True)]
)
def test_rows_without_a_name_are_looked_for_where_there_may_be_some(
    sums: Lake, name: str, show: str, looked_for: bool
) -> None:
    """It would read every column of every record, for a page of a hundred."""
    topics = [each for each in sums.topics() if each.name.endswith(f".{name}")]
    query = f"SELECT * FROM {name}"
    question = ask(query, {}, subject(query, topics[0].schema.names, topics), show, None)
    empty = sums.sql(f"SELECT * FROM ({question.sql}) LIMIT 0")
    columns = tuple(Column(name, kind) for name, kind in zip(empty.columns, empty.types, strict=True))
    plan = Plan(question=question, columns=columns, wish=Wish())
    assert "SEMI JOIN" in plan.sql
    assert ("IS NULL" in plan.sql) == looked_for


def test_the_log_of_a_view_says_what_each_step_gave_and_took(sums: Lake) -> None:
    found = [(each["_weight"], each["customer"], each["n"]) for each in log(sums, "FROM sums")]
    assert found[0] == ("-1", "Bob", "5")
    assert set(found[1:3]) == {("1", "Ada", "2"), ("-1", "Ada", "1")}
    assert set(found[3:]) == {("1", "Ada", "1"), ("1", "Bob", "5")}


def test_the_log_is_paged_by_key_while_it_grows(lake: Lake, shop: Shop) -> None:
    for number in range(10, 40):
        shop.commit("c", (number, None, None))
    pages = Pages(lake, ORDERS)
    seen, key = [], None
    while True:
        page = pages.page(Wish(key=key, limit=7), show="log")
        seen += [row[3] for row in page["rows"]]
        shop.commit("u", (1, "Ada", "0.01"))  # newer than all that is still to come
        key = page["next_key"]
        if key is None:
            break
    assert seen == [*map(str, range(39, 9, -1)), "9007199254740993", "2", "1"]


NO_LOG = [
    ("SELECT * FROM orders WHERE id > 1", "only some of the rows"),
    ("SELECT * FROM orders LIMIT 2", "only some of the rows"),
    ("SELECT *, 1 AS one FROM orders", "not the rows of one table"),
    ("SELECT id, id + 1 AS more FROM orders", "more than the columns"),
    ("SELECT count(*) AS n FROM orders", "not the rows of one table"),
    ("SELECT a.id FROM orders a JOIN orders b USING (id)", "not the rows of one table"),
    ("SELECT * FROM orders TABLESAMPLE 10%", "not the rows of one table"),
    ("SELECT id, unnest([1, 2]) AS twice FROM orders", "not the rows of one table"),
    ("WITH x AS (FROM orders) SELECT * FROM x", "not the rows of one table"),
    ("SELECT 1 AS one", "not the rows of one table"),
    ('SELECT * FROM log."shop.public.orders"', "a log already"),
]


def test_what_has_no_log_says_why(lake: Lake) -> None:
    for query, reason in NO_LOG:
        pages = Pages(lake, query)
        assert reason in pages.page()["no_log"], query
        with pytest.raises(UsageError, match=reason):
            pages.page(show="log")


def test_which_rows_have_a_history(lake: Lake, shop: Shop) -> None:
    shop.commit("u", (1, "Ada", "13.00"))
    page = Pages(lake, "SELECT total, id AS number FROM orders WHERE total > 1").page(show="history", of=["1"])
    totals = [
        row[page["columns"].index(next(c for c in page["columns"] if c["name"] == "total"))] for row in page["rows"]
    ]
    assert (page["key"], totals) == (["number"], ["13.00", "12.50"]), "the newest first"
    for query in ("SELECT total FROM orders", "SELECT count(*) AS id FROM orders", "SELECT 1 AS id"):
        assert Pages(lake, query).page()["key"] == []
        with pytest.raises(UsageError, match="no history"):
            Pages(lake, query).page(show="history", of=["1"])


def test_the_page_turns_to_the_log_and_back(show: Show, sums: Lake) -> None:
    panel = for_watch(sums.watch("SELECT * FROM sums ORDER BY customer"))
    page = show(panel)
    ready(page)
    page.locator("th[data-column=n] button").click()
    page.locator(".hw-scroll").focus()
    page.keyboard.press("l")
    expect(page.locator(".hw-total")).to_have_text("5 changes")
    assert cells(page, 1)[0] == "-1"
    signs = "[...document.querySelectorAll('tbody td:first-child')].map((cell) => cell.dataset.sign)"
    found = page.evaluate(signs)
    assert (found[0], sorted(found[1:])) == ("\N{MINUS SIGN}", ["+", "+", "+", "\N{MINUS SIGN}"])
    shown = page.evaluate("getComputedStyle(document.querySelector('tbody td'), '::before').content")
    assert "\N{MINUS SIGN}" in shown
    colours = page.evaluate(
        "[...document.querySelectorAll('tbody td:first-child')].map((c) => getComputedStyle(c).color)"
    )
    assert len(set(colours)) == 2
    assert page.evaluate("window.sent.at(-1).sort") == [], "an order of the rows is none of the log"
    page.get_by_role("button", name="changes").click()
    expect(page.locator(".hw-total")).to_have_text("1 row")
    assert page.evaluate("window.sent.at(-1).sort") == [{"column": "n", "descending": False}], "as it was left"
    assert page.locator("td[data-sign]").count() == 0
    page.evaluate("window.put('show', 'log')")  # as set from Python
    expect(page.locator(".hw-total")).to_have_text("5 changes")


def test_a_log_follows_the_lake(show: Show, lake: Lake, shop: Shop) -> None:
    panel = for_watch(lake.watch(ORDERS))
    panel.show = "log"
    page = show(panel)
    ready(page)
    expect(page.locator(".hw-total")).to_have_text("3 changes")
    shop.commit("d", (2, None, None))
    advance(page, 11_000)
    expect(page.locator(".hw-total")).to_have_text("4 changes")
    assert cells(page, 1)[:2] == ["d", "2"]
    assert set(page.locator("td[data-changed]").all_inner_texts()) <= set(cells(page, 1)), "only the new line flashes"


def test_why_there_is_no_log_is_said_where_it_is_asked_for(show: Show, lake: Lake) -> None:
    page = show(TablePanel(Pages(lake, "SELECT count(*) AS n FROM orders")))
    ready(page)
    page.get_by_role("button", name="changes").click()
    expect(page.locator(".hw-crumb")).to_contain_text("not the rows of one table or view")
    expect(page.locator(".hw-panel")).to_have_attribute("data-state", "live")
    assert cells(page, 1) == ["3"]
    page.get_by_role("button", name="close").click()
    expect(page.locator(".hw-crumb")).to_be_hidden()


def test_from_a_row_to_its_history_and_back(show: Show, lake: Lake, shop: Shop) -> None:
    shop.commit("u", (1, "Ada", "13.00"))
    shop.commit("d", (1, None, None))
    shop.commit("c", (1, "Eve", "1.00"))
    page = show(for_watch(lake.watch(ORDERS)))
    ready(page)
    expect(page.get_by_role("button", name="history")).to_be_disabled()
    page.locator(".hw-scroll").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("h")
    expect(page.locator(".hw-total")).to_have_text("3 versions")
    expect(page.locator(".hw-crumb")).to_contain_text("history of id = 1")
    assert [cells(page, row)[1:3] for row in (1, 2, 3)] == [["Eve", "1.00"], ["Ada", "13.00"], ["Ada", "12.50"]]
    assert cells(page, 1)[4] == "NULL", "it is the current one"
    shop.commit("u", (1, "Eve", "2.00"))
    advance(page, 11_000)
    expect(page.locator(".hw-total")).to_have_text("4 versions")
    page.get_by_role("button", name="back").click()
    expect(page.locator(".hw-total")).to_have_text("3 rows")
    expect(page.locator("tbody tr[aria-selected=true]")).to_have_count(1)
    settle(page)
    assert cells(page, 1) == ["1", "Eve", "2.00"]
