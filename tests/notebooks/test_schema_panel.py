"""The schema browser: what a lake tells of its names at a position, and the browser in a real page."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from tests.notebooks.conftest import Shop

from headwater import Lake
from headwater.config import Settings
from headwater.errors import NameNotFound
from headwater.lake import open_lake
from headwater.lake.schema_tree import SchemaTree, sql_name
from headwater.log import subjects
from headwater.log.system import transaction
from headwater.registry import Proposal
from headwater.schema import Schema
from headwater_notebooks import panels
from headwater_notebooks.backfill_panel import BackfillPanel
from headwater_notebooks.dead_letters_panel import DeadLettersPanel
from headwater_notebooks.schema_panel import ITEMS_MAX, SchemaPanel
from headwater_pipelines import api
from headwater_pipelines.runtime import worker

VIEW = "application/vnd.jupyter.widget-view+json"
Show = Callable[..., Page]
BAD = "<img src=x onerror=window.hacked=1>"


def made(shop: Shop) -> Lake:
    """A captured table, a topic with two schema versions, a view over the one, a view on the view that waits."""
    lake = open_lake(shop.folder)
    shop.commit("c", (1, "Ada", "12.50"), (2, None, None), (3, "Bob", "1.00"))
    lake.create_topic("app.clicks", {"user": "BIGINT", "Page Url": "VARCHAR"}, key=["user"])
    lake.alter_topic("app.clicks", owner="web", description=BAD)
    wider = Schema.of({"user": "BIGINT", "Page Url": "VARCHAR", "ref": "VARCHAR"}, key=["user"])
    fields = Proposal.of(wider).fields
    proposal = Proposal(fields=(*fields[:2], type(fields[2])(**{**vars(fields[2]), "null_default": True})))
    subjects.register(lake.log, lake.log.topic("app.clicks"), proposal)
    api.create_view(shop.log, "SELECT customer, sum(total) AS total FROM orders GROUP BY customer", name="totals")
    worker.run(shop.log, Settings(), threading.Event(), until_caught_up=True)
    api.create_view(shop.log, "SELECT count(*) AS n FROM totals", name="customers")
    return lake


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """One for all tests that only look."""
    shop = Shop(tmp_path_factory.mktemp("named"))
    with made(shop) as lake:
        yield lake
    shop.log.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Lake]:
    """One for a test that changes it."""
    shop = Shop(tmp_path / "shop")
    with made(shop) as lake:
        yield lake
    shop.log.close()


def names_of(tree: SchemaTree, *args: Any) -> list[str]:
    return [each.name for each in tree.items(*args)]


def browse(lake: Lake, **request: Any) -> dict[str, Any]:
    return SchemaPanel(lake.schema()).handle({"id": "1", "op": "browse", **request})


# ---- what a lake tells


def test_everything_that_can_be_read_is_listed(named: Lake) -> None:
    items = {each.name: each for each in named.schema().items()}
    assert list(items) == ["app.clicks", "shop.public.orders", "views.customers", "views.totals"]
    clicks, orders = items["app.clicks"], items["shop.public.orders"]
    assert (clicks.kind, clicks.owner, clicks.key, clicks.columns) == ("topic", "web", ("user",), 3)
    assert (orders.kind, orders.group, orders.sql) == ("table", "shop", "orders")
    assert (items["views.customers"].state, items["views.customers"].columns) == ("creating", 0)
    assert named.sql(f"SELECT count(*) AS n FROM {orders.sql}").arrow().to_pylist() == [{"n": 3}]


def test_names_are_quoted_only_where_they_must_be(own: Lake) -> None:
    assert [sql_name(name) for name in ("user_id", "Page Url", "select", "of", '2"x')] == [
        "user_id", '"Page Url"', '"select"', "of", '"2""x"'
    ]  # fmt: skip
    own.create_topic("other.orders", {"id": "BIGINT"})
    assert {each.sql for each in own.schema().items("orders")} == {"other.orders", "shop.public.orders"}


def test_a_search_finds_columns_owners_and_all_words(named: Lake) -> None:
    tree = named.schema()
    assert names_of(tree, "CUSTOMER") == ["shop.public.orders", "views.customers", "views.totals"]
    (clicks,) = tree.items("web url")
    assert (clicks.name, clicks.hits) == ("app.clicks", ("Page Url",))
    assert names_of(tree, "web nothing") == []


def test_a_past_position_has_its_names(named: Lake) -> None:
    tree = named.schema()
    assert names_of(tree, "", 1) == ["shop.public.orders"]
    before = tree.versions("clicks")[0].commit - 1
    assert [each.name for each in tree.columns("clicks", before)] == ["user", "Page Url"]
    assert [each.number for each in tree.versions("clicks", before)] == [1]
    with named.at(1) as past:
        assert names_of(past.schema()) == ["shop.public.orders"]
    with pytest.raises(NameNotFound):
        tree.columns("clicks", 1)


def test_versions_say_what_changed_and_what_is_made_of_it(named: Lake) -> None:
    second, first = named.schema().versions("clicks")
    assert (first.number, first.changes, first.verdict) == (1, (), "the first")
    assert second.changes == ("added ref VARCHAR, nullable, default NULL",)
    assert (second.verdict, second.accepted) == ("accepted by BACKWARD_TRANSITIVE", True)
    (orders,) = named.schema().versions("orders")
    assert orders.verdict == "follows source shop"


def test_who_reads_what(named: Lake) -> None:
    tree = named.schema()
    assert tree.readers("orders") == ["view totals"]
    assert tree.reads("views.totals") == ["shop.public.orders"]
    assert tree.readers("views.totals") == ["view customers"]
    assert tree.readers("orders", 1) == [], "the view was not there"
    assert tree.reads("orders") == []


# ---- the protocol


def test_an_answer_is_of_its_position(own: Lake) -> None:
    reply = browse(own, chosen="app.clicks")
    assert reply["position"] == str(own.position())
    assert [each["name"] for each in reply["chosen"]["columns"]] == ["user", "Page Url", "ref"]
    past = browse(own, chosen="app.clicks", at="commit:1")
    assert (past["position"], past["count"], past["chosen"]["missing"]) == ("1", "1", True)
    again = browse(own, chosen="app.clicks", since_version=reply["version"])
    assert again["unchanged"]
    own.alter_topic("app.clicks", owner="somebody else")
    changed = browse(own, chosen="app.clicks", since_version=reply["version"])
    assert changed["items"][0]["owner"] == "somebody else"
    own.create_topic("app.more", {"id": "BIGINT"})
    assert browse(own, since_version=changed["version"])["count"] == "5"
    assert "chosen is a text" in browse(own, chosen=7)["error"]["what"]


def test_a_thousand_tables_are_bounded(lake: Lake) -> None:
    columns = Schema.of({f"column_{number}": "BIGINT" for number in range(50)})
    with transaction(lake.log, "test") as tx:
        for number in range(1_000):
            tx.create_topic(f"big.public.table_{number:04}", "event", columns)
        tx.commit()
    reply = browse(lake)
    assert (reply["count"], len(reply["items"])) == ("1001", ITEMS_MAX)
    assert len(json.dumps(reply)) < 128 * 1024
    found = browse(lake, search="column_49")
    assert found["items"][0]["hits"] == ["column_49"]
    assert browse(lake, search="table_0999")["count"] == "1"


def test_without_a_kernel_it_is_a_table_of_text(named: Lake) -> None:
    bundle, _ = SchemaPanel(named.schema())._repr_mimebundle_()
    assert "id BIGINT, customer VARCHAR, total DECIMAL(20,2)" in bundle["text/html"]
    assert "<img" not in bundle["text/html"]
    assert "shop.public.orders" in bundle["text/plain"]


def test_what_is_shown_again_is_the_same_panel(named: Lake) -> None:
    for thing, kind in (
        (named.schema(), SchemaPanel),
        (named.dlq, DeadLettersPanel),
        (named.replay("totals"), BackfillPanel),
    ):
        first = thing._repr_mimebundle_()[0][VIEW]["model_id"]
        assert thing._repr_mimebundle_()[0][VIEW]["model_id"] == first
        panel = panels.of(thing)
        assert isinstance(panel, kind)
        assert panel.model_id == first


# ---- the page


@pytest.fixture
def page(show: Show, named: Lake) -> Page:
    found = show(SchemaPanel(named.schema()))
    expect(found.locator(".hw-panel[data-ready='1']")).to_be_visible()
    return found


def node(page: Page, name: str) -> Any:
    return page.locator(f".hw-node[data-key='{name}']")


def test_shows_names_by_source_and_opens_one(page: Page) -> None:
    expect(page.locator(".hw-group-head .hw-node-name")).to_have_text(["app", "shop", "views"])
    expect(node(page, "views.customers")).to_contain_text("creating")
    node(page, "app.clicks").click()
    expect(page.locator(".hw-columns tbody tr")).to_have_count(3)
    expect(page.locator("[data-column='user'] .hw-dim")).to_have_text("key")
    expect(page.locator(".hw-about")).to_contain_text(BAD)
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("window.changed") == [["selection", "app.clicks"]]
    page.locator(".hw-history summary").click()
    expect(page.locator("[data-version='2']")).to_contain_text("added ref VARCHAR")
    expect(page.locator("[data-version='2'] .hw-accepted")).to_have_text("accepted by BACKWARD_TRANSITIVE")
    head = page.locator(".hw-group-head").first
    head.click()
    expect(node(page, "app.clicks")).to_be_hidden()
    expect(head).to_have_attribute("aria-expanded", "false")


def test_goes_from_a_table_to_who_reads_it(page: Page) -> None:
    node(page, "shop.public.orders").click()
    page.get_by_role("button", name="view totals").click()
    expect(page.locator(".hw-about-head strong")).to_have_text("views.totals")
    page.locator(".hw-about summary", has_text="definition").click()
    expect(page.locator(".hw-about pre")).to_contain_text("sum(total)")
    page.get_by_role("button", name="shop.public.orders", exact=True).click()
    expect(page.locator(".hw-about-head strong")).to_have_text("shop.public.orders")


def test_the_kernel_can_choose_and_a_past_position_says_what_is_not_there(page: Page) -> None:
    page.evaluate("window.put('selection', 'app.clicks')")
    expect(node(page, "app.clicks")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".hw-columns tbody tr")).to_have_count(3)
    assert page.evaluate("window.saved") == 0, "it is not sent back"
    page.evaluate("window.put('at', 'commit:1')")
    expect(page.locator(".hw-node:not(.hw-group-head)")).to_have_count(1)
    expect(page.locator(".hw-about")).to_contain_text("nothing of this name at this position")


def test_searches_as_one_types(page: Page) -> None:
    page.locator(".hw-scroll").press("/")
    page.keyboard.type("url")
    page.clock.run_for(300)
    expect(page.locator(".hw-node:not(.hw-group-head)")).to_have_count(1)
    expect(page.locator(".hw-hits")).to_have_text("Page Url")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator(".hw-about-head strong")).to_have_text("app.clicks")


def test_a_name_is_copied_as_sql(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    node(page, "app.clicks").click()
    page.get_by_role("button", name="copy name").click()
    expect(page.get_by_role("button", name="copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "clicks"
    page.locator("[data-column='Page Url'] .hw-copy").click()
    page.wait_for_function("navigator.clipboard.readText().then((text) => text === '\"Page Url\"')")
