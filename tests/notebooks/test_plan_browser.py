"""The diagram of a plan in a real browser: nothing overlaps or is cut, both themes are readable, it has a text form."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from headwater.schema import Schema
from headwater_notebooks.magics import Created
from headwater_pipelines.compiler import compile_view, parse
from headwater_pipelines.compiler.explain import Cost, Explain, explain
from headwater_pipelines.compiler.plan import Base
from headwater_pipelines.compiler.relations import Relations, Table

TABLES = {
    "orders": Schema.of(id="BIGINT", customer_id="BIGINT", total="DOUBLE", note="VARCHAR", key=["id"]),
    "customers": Schema.of(id="BIGINT", country="VARCHAR", key=["id"]),
    "paid": Schema.of(order_id="BIGINT", method="VARCHAR", amount="DECIMAL(12,2)", key=["order_id"]),
}
RELATIONS = Relations(
    Table(Base(f"shop.public.{name}", n, "table"), schema) for n, (name, schema) in enumerate(TABLES.items())
)
QUERY = """
SELECT c.country, sum(o.total) AS total, max(o.total) AS most, count(*) AS n
FROM orders AS o JOIN customers AS c ON c.id = o.customer_id
WHERE o.id IN (SELECT order_id FROM paid WHERE amount > 10 AND method <> 'a long text that does not fit into a box')
  AND o.note <> '<script>window.hacked = 1</script>'
GROUP BY c.country
"""


def made() -> Explain:
    plan = explain(compile_view(parse(QUERY, name="sales"), RELATIONS))
    stored = [node.stored for node in plan.nodes if node.stored]
    return Explain(plan.name, plan.columns, plan.key, plan.nodes, costs=dict.fromkeys(stored, Cost(1_234_567, 12.3)))


@pytest.fixture(params=["light", "dark"])
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """What ``%%view`` shows, in a page of that theme."""
    shown = Created(name="sales", plan=made(), state="live, 3 rows at position 7")._repr_html_()
    body = '<body style="color-scheme: light dark; color: CanvasText; background: Canvas">'
    opened = browser.new_page(color_scheme=request.param)
    asked: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.set_content(f"<!doctype html><meta charset=utf-8>{body}{shown}")
    yield opened
    opened.close()
    assert asked == [], "nothing is fetched"


def test_every_text_lies_in_its_box_and_no_two_boxes_overlap(page: Page) -> None:
    boxes = page.evaluate("""() => [...document.querySelectorAll("svg g[transform]")].map((group) => {
        const edges = (element) => { const { left, top, right, bottom } = element.getBoundingClientRect();
                                     return [left, top, right, bottom]; };
        return [edges(group.querySelector("rect")), [...group.querySelectorAll("text")].map(edges)]; })""")
    assert len(boxes) == len(made().nodes)
    for n, ((left, top, right, bottom), texts) in enumerate(boxes):
        for x1, y1, x2, y2 in texts:
            assert x1 >= left
            assert y1 >= top
            assert x2 <= right
            assert y2 <= bottom
        for (other_left, other_top, other_right, other_bottom), _ in boxes[:n]:
            assert right <= other_left or other_right <= left or bottom <= other_top or other_bottom <= top


def test_it_says_what_each_node_costs_and_runs_nothing(page: Page) -> None:
    texts = page.locator("svg g[transform] text").all_text_contents()
    stored = [node for node in made().nodes if node.stored]
    assert texts.count("1,234,567 rows · 12.3 ms") == len(stored) > 3
    assert {"bilinear", "touched-key", "STORED_ROWS", "aggregate"} <= set(texts)
    assert any(text.endswith("…") for text in texts), "a long detail is cut"
    assert page.evaluate("window.hacked") is None
    expect(page.get_by_text("view sales: live, 3 rows at position 7")).to_be_visible()


def test_who_cannot_see_it_gets_a_table(page: Page) -> None:
    name = f"Plan of view sales: {len(made().nodes)} operators. The table below says the same."
    expect(page.get_by_role("img", name=name)).to_be_visible()
    page.get_by_text("as a table").click()
    table = page.get_by_role("table", name="view sales")
    assert table.get_by_role("row").count() == len(made().nodes) + 1
    assert "a long text that does not fit into a box" in table.inner_text()


def test_text_and_lines_stand_out_in_both_themes(page: Page) -> None:
    contrasts = page.evaluate("""() => {
        const numbers = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
        const light = (rgb) => { const [r, g, b] = rgb.map((n) => n / 255)
            .map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const page = numbers(getComputedStyle(document.body).backgroundColor).slice(0, 3);
        const over = (colour, share) => colour.map((n, i) => n * share + page[i] * (1 - share));
        const ratio = (colour) => { const pair = [light(colour), light(page)].sort((a, b) => a - b);
            return (pair[1] + 0.05) / (pair[0] + 0.05); };
        const of = (selector, kind) => [...document.querySelectorAll(selector)].map((element) => {
            const style = getComputedStyle(element);
            return ratio(over(numbers(style[kind]).slice(0, 3), Number(style[`${kind}Opacity`]))); });
        return [Math.min(...of("svg text", "fill")), Math.min(...of("svg rect[rx='3']", "fill")),
                Math.min(...of("svg path", "stroke"))]; }""")
    text, classes, lines = contrasts
    assert text >= 4.5
    assert classes >= 3
    assert lines >= 3
