"""Charts: what the engine found against DuckDB's own answer, and the panel in a real browser."""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from itertools import combinations
from math import dist
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest
from playwright.sync_api import Page, expect

from headwater import Lake
from headwater.errors import HeadwaterError, NameNotFound, UsageError
from headwater.lake.chart import Chart, chart_of, table_rows
from headwater.lake.plot import scale
from headwater.lake.plot.palette import COLOURS
from headwater_notebooks import panels
from headwater_notebooks.chart_panel import ChartPanel
from headwater_notebooks.pages import Pages
from headwater_notebooks.table_panel import TablePanel

if TYPE_CHECKING:
    from tests.notebooks.conftest import Shop

Show = Callable[..., Page]
BY_HOUR = (
    "SELECT TIMESTAMPTZ '2026-11-01 00:00:00+00' + INTERVAL (i) HOUR AS at, 'shop ' || i % 2 AS shop, i * 10 AS total"
    " FROM range(24) t(i)"
)


def rows(sql: str) -> pa.Table:
    with duckdb.connect() as own:
        own.execute("SET TimeZone = 'UTC'")
        return own.sql(sql).to_arrow_table()


def chart(sql: str, **options: Any) -> Chart:
    made = chart_of(rows(sql), **options)
    assert isinstance(made, Chart)
    return made


def ask(panel: ChartPanel, **request: Any) -> dict[str, Any]:
    return panel.handle({"id": 1, "op": "chart", **request})


# ---- what is drawn


@pytest.mark.parametrize(
    ("select", "kind", "x", "y", "color"),
    [
        ("now() AS t, 1 AS n", "line", "t", ["n"], None),
        ("'a' AS name, 1 AS n, 2 AS m", "bar", "name", ["n", "m"], None),
        ("1.5 AS a, 2 AS b, 'x' AS g", "scatter", "a", ["b"], "g"),
        ("1.5 AS a", "histogram", "a", [], None),
        ("'x' AS g", "bar", "g", [], None),
        ("'x' AS g, DATE '2026-01-01' AS d, 3 AS n", "line", "d", ["n"], "g"),
        ("DATE '2026-01-01' AS d", "histogram", "d", [], None),
    ],
)
def test_the_kind_follows_the_columns(select: str, kind: str, x: str, y: list[str], color: str | None) -> None:
    found = chart(f"SELECT {select}").draw().encoding
    assert (found.kind, found.x.name, [each.name for each in found.y]) == (kind, x, y)
    assert (found.color and found.color.name) == color


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"kind": "pie"}, UsageError, "no kind of chart is called 'pie'"),
        ({"x": "tota"}, NameNotFound, "no column 'tota'"),
        ({"y": "name"}, UsageError, "y needs numbers"),
        ({"y": ["total", "id"], "color": "name"}, UsageError, "two ways to make series"),
        ({"kind": "line", "x": "name"}, UsageError, "needs a number or a time on x"),
        ({"window": "15 parsecs"}, UsageError, "not a stretch of time"),
        ({"x": "id", "window": "15m"}, UsageError, "window needs a time on x"),
        ({"engine": "gnuplot"}, UsageError, "no engine is called"),
    ],
)
def test_what_cannot_be_drawn_is_said_at_once(options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        chart_of(rows("SELECT 1 AS id, 'a' AS name, 2.5 AS total"), **options)


MEASURED = """SELECT TIMESTAMPTZ '2026-01-01 00:00:00+00' + INTERVAL (i) HOUR AS at, 'c' || i % 3 AS customer,
  (i * 2)::DECIMAL(20,2) AS "sum(a.b)", i * 3.5 AS other FROM range(1, 51) t(i)"""


@pytest.mark.parametrize(
    ("options", "mark", "fields"),
    [
        ({"kind": "line", "x": "at", "y": ["sum(a.b)", "other"]}, "line", {"x": "at", "y": "value", "color": "series"}),
        ({"kind": "bar", "x": "customer", "y": "sum(a.b)"}, "bar", {"x": "customer", "y": r"sum(a\.b)"}),
        ({"kind": "area", "x": "at", "y": "other", "color": "customer"}, "area", {"y": "other", "color": "customer"}),
        ({"kind": "histogram", "x": "sum(a.b)"}, "bar", {"x": r"sum(a\.b)"}),
        ({"kind": "scatter", "x": "sum(a.b)", "y": "other", "log": True}, "point", {"y": "other"}),
    ],
)
def test_altair_gets_all_rows_under_their_own_names(options: dict[str, Any], mark: str, fields: dict[str, str]) -> None:
    made = chart_of(rows(MEASURED), engine="altair", **options).to_dict()
    assert made["mark"]["type"] == mark
    assert {channel: made["encoding"][channel]["field"] for channel in fields} == fields
    (data,) = made["datasets"].values()
    assert len(data) == 50
    assert [float(row["sum(a.b)"]) for row in data] == [2.0 * i for i in range(1, 51)]


@pytest.mark.parametrize("kind", ["line", "bar", "area", "scatter"])
def test_plotly_gets_all_rows(kind: str) -> None:
    made = chart_of(rows(MEASURED), engine="plotly", kind=kind, x="at" if kind != "bar" else "customer", y="sum(a.b)")
    assert sum(len(each.y) for each in made.data) == 50
    assert sorted(float(value) for each in made.data for value in each.y) == [2.0 * i for i in range(1, 51)]
    counted = chart_of(rows(MEASURED), engine="plotly", kind="histogram", x="other")
    assert sum(len(each.x) for each in counted.data) == 50


def test_an_engine_that_is_not_there_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "altair", None)
    with pytest.raises(UsageError, match=r"altair is not installed.*pip install altair.*built-in chart needs nothing"):
        chart_of(rows("SELECT 1 AS id, 2.5 AS total"), engine="altair")


def test_a_line_of_many_rows_is_what_duckdb_says_of_each_stretch() -> None:
    table = rows("SELECT i AS x, (hash(i) % 1000)::DECIMAL(20,2) / 7 AS y FROM range(100000) t(i)")
    drawn = chart_of(table, kind="line", x="x", y="y").draw()
    (series,) = drawn.points.series
    assert len(series.points) == 600
    assert drawn.extent == "100,000 rows, 600 points"
    with duckdb.connect() as own:
        own.register("given", table)
        for place in (0, 17, 599):
            point = series.points[place]
            ((mean, least, greatest, count),) = own.execute(
                "SELECT avg(y), CAST(min(y) AS VARCHAR), CAST(max(y) AS VARCHAR), count(*) FROM given"
                " WHERE x BETWEEN CAST($low AS BIGINT) AND CAST($high AS BIGINT)",
                {"low": point.x0_text, "high": point.x1_text},
            ).fetchall()
            assert (point.y, point.low_text, point.high_text, point.rows) == (
                pytest.approx(mean), least, greatest, count,
            )  # fmt: skip
    assert sum(point.rows for point in series.points) == 100_000
    assert series.points[0].x0_text == "0"
    assert series.points[-1].x1_text == "99999"


def test_exact_values_survive() -> None:
    drawn = chart(
        "SELECT i AS x, 9223372036854775807 - i AS y FROM range(3) t(i)", kind="line", x="x", y="y"
    ).draw()  # fmt: skip
    assert [drawn.value(point) for point in drawn.points.series[0].points] == [
        "9,223,372,036,854,775,807",
        "9,223,372,036,854,775,806",
        "9,223,372,036,854,775,805",
    ]
    money = chart("SELECT 'a' AS name, 99999999999999999.99::DECIMAL(20,2) AS y UNION ALL SELECT 'a', 0.01")
    assert table_rows(money.draw()) == [("a", "100,000,000,000,000,000.00")]


def test_null_is_a_gap_and_what_has_no_place_is_counted() -> None:
    drawn = chart(
        "SELECT * FROM (VALUES (1.0::DOUBLE, 1.0::DOUBLE), (2, NULL), (3, 'nan'), (4, 'infinity'), (5, 2),"
        " (NULL, 7), ('-infinity', 8)) t(x, y)",
        kind="line",
    ).draw()
    assert [point.y for point in drawn.points.series[0].points] == [1.0, None, None, None, 2.0]
    assert drawn.notes == [
        "2 rows without a place on x (NULL, NaN or infinite) left out",
        "3 values NULL, NaN or infinite",
    ]
    assert len(drawn.picture.marks) == 2


def test_bins_are_those_that_duckdb_counts() -> None:
    table = rows("SELECT (i * 7) % 100 AS v FROM range(1000) t(i)")
    (series,) = chart_of(table, kind="histogram").draw().points.series
    with duckdb.connect() as own:
        own.register("given", table)
        for point in series.points:
            counted = own.execute(
                "SELECT count(*) FROM given WHERE v >= $low::BIGINT AND v < $high::BIGINT",
                {"low": point.x0_text, "high": point.x1_text},
            ).fetchall()
            assert counted == [(int(point.low_text or -1),)]
    assert sum(point.rows for point in series.points) == 1000


def test_bins_of_a_zone_are_its_days() -> None:
    table = rows("SELECT TIMESTAMPTZ '2026-03-01 00:00:00+00' + INTERVAL (i) HOUR AS at FROM range(960) t(i)")
    made = chart_of(table, timezone="Europe/Berlin")
    (series,) = made.draw().points.series
    assert {point.x0_text[11:] for point in series.points} == {"00:00:00+01", "00:00:00+02"}, (
        "summer time begins within"
    )
    with duckdb.connect() as own:
        own.execute("SET TimeZone = 'Europe/Berlin'")
        own.register("given", table)
        days = 'SELECT CAST(CAST("at" AS DATE) AS VARCHAR), count(*) FROM given GROUP BY 1'
        apart = own.execute(days).fetchall()
    assert {point.x0_text[:10]: point.rows for point in series.points} == dict(apart)


def test_a_scatter_plot_of_many_rows_says_that_it_is_a_sample_and_keeps_its_points() -> None:
    before = chart("SELECT i AS a, i % 97 AS b FROM range(5000) t(i)", kind="scatter").draw()
    after = chart("SELECT i AS a, i % 97 AS b FROM range(5100) t(i)", kind="scatter").draw()
    first, second = ({point.x0_text for point in each.points.series[0].points} for each in (before, after))
    assert (len(first), len(second)) == (2000, 2000)
    assert len(first & second) > 1900, "new rows move few points"
    assert before.notes == ["a sample, chosen by a hash of the rows"]


def test_many_series_and_categories_are_the_largest_and_the_rest_is_said(lake: Lake) -> None:
    many = chart("SELECT i AS x, 's' || least(i % 40, 30) AS s, i AS y FROM range(4000) t(i)", kind="line").draw()
    assert len(many.points.series) == 10
    assert many.points.series[0].name == "s30", "the largest"
    assert many.notes[-1] == "21 smaller series with 2,100 rows left out"
    names = lake.chart("SELECT 'n' || i AS name, i AS y FROM range(100) t(i)").draw()
    assert names.points.categories[0] == "n99"
    assert len(names.points.categories) == 40
    assert names.notes == ["60 more name left out"]


def test_categories_keep_the_order_of_the_query(lake: Lake) -> None:
    query = "SELECT coalesce(customer, 'nobody') AS who, id % 10 AS n FROM orders"
    assert lake.chart(query).draw().points.categories[0] != "nobody"
    assert lake.chart(f"{query} ORDER BY id DESC").draw().points.categories[1:] == ("nobody", "Ada")


def test_a_window_is_the_last_stretch() -> None:
    drawn = chart(BY_HOUR, window="3h", y="total", color="shop").draw()
    assert drawn.points.rows == 4
    assert drawn.points.series[0].points[0].x0_text == "2026-11-01 20:00:00+00"


@pytest.mark.parametrize(
    "select",
    [
        "1 AS a, 2 AS b WHERE false",
        "1 AS a, 2 AS b",
        "now() AS t, 0 AS n",
        "'' AS name, NULL::INTEGER AS n",
        "'\u0001<b>&' || chr(27) AS name, 1 AS n",
        "NULL::DOUBLE AS a",
        "TIMESTAMP 'infinity' AS t, 1 AS n",
        "TIMESTAMP '200000-01-01' AS t, 1 AS n",
        "(-1e308)::DOUBLE AS a, 1e308::DOUBLE AS b UNION ALL SELECT 1e308, -1e308",
        "'名前がとても長い会社の支店の名前です' AS name, -5 AS n",
    ],
)
@pytest.mark.parametrize("log", [False, True])
def test_every_picture_is_well_formed(select: str, log: bool) -> None:
    made = chart(f"SELECT {select}", log=log, title="<t>")
    page = made.static_html()
    picture = page[page.index("<svg") : page.index("</svg>") + 6]
    assert ET.fromstring(picture).tag.endswith("svg")
    assert not re.search(r"\bnan\b|\binf\b", picture)
    assert "<t>" not in page
    assert str(made)


# What eyes without one kind of cone make of linear red, green and blue: Machado, Oliveira and Fernandes (2009).
EYES = {
    "normal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152, 1.053, -0.205), (0.115, 0.786, 0.099), (-0.004, -0.048, 1.052)),
    "deuteranopia": ((0.367, 0.861, -0.228), (0.280, 0.673, 0.047), (-0.012, 0.043, 0.969)),
    "tritanopia": ((1.256, -0.077, -0.179), (-0.078, 0.931, 0.148), (0.005, 0.691, 0.304)),
}


def linear(colour: str) -> list[float]:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def lab(rgb: list[float]) -> tuple[float, float, float]:
    def root(value: float) -> float:
        return value ** (1 / 3) if value > 0.008856 else 7.787 * value + 16 / 116

    red, green, blue = (min(1.0, max(0.0, each)) for each in rgb)
    x = root((0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505)
    y = root(0.2126 * red + 0.7152 * green + 0.0722 * blue)
    z = root((0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def test_colours_stand_out_on_light_and_dark() -> None:
    def luminance(colour: str) -> float:
        return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear(colour), strict=True))

    for colour in COLOURS:
        for page in ("#ffffff", "#111111", "#16191d"):
            low, high = sorted((luminance(colour), luminance(page)))
            assert (high + 0.05) / (low + 0.05) >= 3, (colour, page)


@pytest.mark.parametrize("eyes", list(EYES))
def test_colours_are_told_from_one_another(eyes: str) -> None:
    seen = [lab([sum(a * b for a, b in zip(row, linear(each), strict=True)) for row in EYES[eyes]]) for each in COLOURS]
    assert min(dist(one, other) for one, other in combinations(seen, 2)) > 14


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0, 1, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (-3, 1_200_000, ["-500,000", "0", "500,000", "1,000,000", "1,500,000"]),
        (0, 9.3e18, ["0", "2e18", "4e18", "6e18", "8e18", "1e19"]),
        (0, 25e6, ["0", "5,000,000", "10M", "15M", "20M", "25M"]),
    ],
)
def test_marks_of_numbers(low: float, high: float, labels: list[str]) -> None:
    found = [tick.label for tick in scale.numbers(low, high, 0, 100, count=5).ticks]
    assert found == labels


# ---- the protocol


@pytest.fixture
def by_hour(lake: Lake) -> ChartPanel:
    return ChartPanel(lake.chart(BY_HOUR, y="total", color="shop", title="Totals"))


def test_a_reply_has_its_position_and_says_when_nothing_changed(lake: Lake, shop: Shop) -> None:
    panel = ChartPanel(lake.chart("SELECT id % 100 AS a, total FROM orders", kind="scatter"))
    first = ask(panel)
    assert first["position"] == "1"
    assert "error" not in first
    again = ask(panel, since_version=first["version"])
    assert (again["unchanged"], again["position"]) == (True, "1")
    shop.commit("c", (50, None, "10.00"))
    moved = ask(panel, since_version=first["version"])
    assert (moved["extent"], moved["position"]) == ("4 rows, 3 points", "2")
    assert ask(panel, at="commit:1")["extent"] == "3 rows, 2 points"  # one total is NULL
    json.dumps(moved)


@pytest.mark.parametrize(
    "request_",
    [
        {"op": "draw"},
        {"hidden": "a"},
        {"hidden": ["a"] * 11},
        {"filters": [{"column": "id; DROP TABLE orders", "op": "=", "value": "1"}]},
        {"filters": [{"column": "total", "op": "~", "value": "1"}]},
        {"filters": [{"column": "total", "op": ">", "value": "many"}]},
        {"filters": {"column": "total"}},
        {"selection": [{"column": "at", "op": ">=", "value": "yesterday"}]},
        {"width": "wide"},
        {"at": 5},
    ],
)
def test_a_malformed_request_is_answered_with_a_sentence(by_hour: ChartPanel, request_: dict[str, Any]) -> None:
    reply = ask(by_hour, **request_)
    assert reply["error"]["what"]
    assert "Traceback" not in str(reply)


def test_filters_restrict_the_rows(by_hour: ChartPanel) -> None:
    reply = ask(by_hour, filters=[{"column": "total", "op": ">=", "value": "200"}])
    assert reply["extent"] == "4 rows, 4 points"


def test_sizes_are_bounded(by_hour: ChartPanel) -> None:
    assert ask(by_hour, width=1_000_000, height=1)["size"] == [3000, 80]


def test_a_reply_is_bounded() -> None:
    made = chart("SELECT i AS x, 's' || i % 10 AS s, i * 1234567 AS y FROM range(50000) t(i)", kind="line")
    assert len(json.dumps(ask(ChartPanel(made)))) < 700_000


def test_without_a_kernel_it_is_a_picture_and_a_table(by_hour: ChartPanel) -> None:
    bundle = by_hour.chart._repr_mimebundle_()[0]
    assert set(bundle) == {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"}
    assert bundle["text/html"].count("<svg") == 3, "the picture, and a swatch for each series"
    assert "<script" not in bundle["text/html"]
    assert bundle["text/plain"].startswith("Totals: line chart of total over at by shop; 24 rows, 24 points")
    assert panels.of(by_hour.chart) is by_hour.chart._panel


def test_a_mistake_in_the_query_is_told_where_the_chart_is_made(lake: Lake) -> None:
    with pytest.raises(HeadwaterError, match="ordrs"):
        lake.chart("SELECT * FROM ordrs")


# ---- the page


@pytest.fixture
def page(show: Show, by_hour: ChartPanel) -> Page:
    return shown(show, by_hour)


def shown(show: Show, panel: ChartPanel) -> Page:
    found = show(panel)
    expect(found.locator(".hw-panel[data-ready='1']")).to_be_visible()
    return found


def settled(page: Page, count: int) -> None:
    page.wait_for_function("(count) => window.answers >= count && window.sent.length === window.answers", arg=count)


def test_draws_what_the_kernel_placed(page: Page) -> None:
    expect(page.locator(".hw-series")).to_have_count(2)
    expect(page.locator(".hw-series path")).to_have_count(2)
    expect(page.locator(".hw-chart-title")).to_have_text("Totals")
    expect(page.locator(".hw-total")).to_have_text("24 rows, 24 points")
    expect(page.locator("svg.hw-plot")).to_have_attribute("role", "img")
    expect(page.locator("svg.hw-plot")).to_have_attribute(
        "aria-label", "Totals: line chart of total over at by shop; 24 rows, 24 points"
    )
    labels = page.locator(".hw-axis text").all_text_contents()
    assert "↑ total" in labels
    assert "at (UTC) →" in labels
    page.get_by_role("button", name="table").click()
    expect(page.locator(".hw-points tbody tr")).to_have_count(24)
    expect(page.locator(".hw-points thead th")).to_have_text(["series", "at", "total"])
    expect(page.locator(".hw-points tbody tr").last.locator("td")).to_have_text(
        ["shop 1", "2026-11-01 23:00:00+00", "230"]
    )


def test_keys_and_the_pointer_read_out_exact_points(page: Page) -> None:
    page.locator(".hw-scroll").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".hw-tip-head")).to_have_text("2026-11-01 00:00:00+00")
    expect(page.locator(".hw-tip-line")).to_have_count(1)
    expect(page.locator(".hw-tip-line").first).to_have_text("shop 00")
    page.keyboard.press("End")
    expect(page.locator(".hw-tip-line").first).to_have_text("shop 1230")
    page.keyboard.press("Escape")
    expect(page.locator(".hw-tip")).to_be_hidden()
    box = page.locator("svg.hw-plot").bounding_box()
    assert box is not None
    line = page.locator(".hw-series[data-series='1'] path").get_attribute("d") or ""
    mark = [float(each) for each in line[1:].split("L")[5].split()]
    page.mouse.move(box["x"] + mark[0] + 1, box["y"] + mark[1] - 3)
    expect(page.locator(".hw-tip-head")).to_have_text("2026-11-01 11:00:00+00")
    expect(page.locator(".hw-tip b")).to_have_text("110")


def test_the_legend_puts_series_away(page: Page) -> None:
    key = page.locator(".hw-key", has_text="shop 1")
    key.focus()
    page.keyboard.press("Enter")
    expect(key).to_have_attribute("aria-pressed", "false")
    expect(page.locator(".hw-series")).to_have_count(1)
    key.press("Enter")
    expect(page.locator(".hw-series")).to_have_count(2)
    key.click(modifiers=["Shift"])
    expect(page.locator(".hw-series")).to_have_count(1)
    expect(page.locator(".hw-series")).to_have_attribute("data-series", "1")


def test_a_brush_the_kernel_and_keys_choose_rows_that_a_table_can_show(
    page: Page, by_hour: ChartPanel, lake: Lake
) -> None:
    box = page.locator("svg.hw-plot").bounding_box()
    assert box is not None
    left, top = box["x"], box["y"] + 100
    page.mouse.move(left + box["width"] * 0.5, top)
    page.mouse.down()
    page.mouse.move(left + box["width"] * 0.8, top)
    page.mouse.up()
    expect(page.locator(".hw-panel")).to_have_attribute("data-chosen", "2")
    ((name, chosen),) = page.evaluate("window.changed")
    assert page.evaluate("window.saved") == 1
    assert name == "selection"
    assert [(each["column"], each["op"]) for each in chosen] == [("at", ">="), ("at", "<=")]
    assert float(page.locator(".hw-chosen").get_attribute("width") or 0) > 100
    narrowed = ask(by_hour, filters=chosen)
    assert 5 <= len(narrowed["marks"]) <= 8
    table = TablePanel(Pages(lake, BY_HOUR))
    table.filters = chosen
    shown = table.handle({"id": 1, "op": "page", "filters": table.filters})
    assert shown["total"] == str(len(narrowed["marks"]))
    page.get_by_role("button", name="clear").click()
    expect(page.locator(".hw-panel")).to_have_attribute("data-chosen", "0")
    saved = page.evaluate("window.saved")
    page.evaluate(
        """window.put('selection', [{column: 'at', op: '>=', value: '2026-11-01 06:00:00+00'},
        {column: 'at', op: '<=', value: '2026-11-01 12:00:00+00'}])"""
    )
    expect(page.locator(".hw-panel")).to_have_attribute("data-chosen", "2")
    assert page.evaluate("window.saved") == saved, "it is not sent back"
    page.wait_for_function("() => window.sent.length === window.answers")
    band, line = (f"document.querySelector('{each}').getBBox().width" for each in (".hw-chosen", ".hw-axis path"))
    width, whole = page.evaluate(f"[{band}, {line}]")
    assert width == pytest.approx(whole * 6 / 23, abs=1), "six of the 23 hours"
    page.locator(".hw-scroll").focus()
    page.keyboard.press("Home")
    page.keyboard.press("[")
    assert page.evaluate("window.changed.at(-1)[1].map((each) => each.value)") == [
        "2026-11-01 00:00:00+00",
        "2026-11-01 12:00:00+00",
    ]


def test_a_bar_is_chosen_by_a_click_and_by_enter(show: Show, lake: Lake) -> None:
    made = lake.chart("SELECT coalesce(customer, 'nobody') AS who, count(*) AS n FROM orders GROUP BY 1 ORDER BY 1")
    page = shown(show, ChartPanel(made))
    page.locator(".hw-series rect").nth(1).click()
    expect(page.locator(".hw-panel")).to_have_attribute("data-chosen", "1")
    ((_, chosen),) = page.evaluate("window.changed")
    assert chosen == [{"column": "who", "op": "=", "value": "Ada"}]
    assert page.locator(".hw-series rect").nth(0).get_attribute("opacity") == "0.35"
    page.locator(".hw-scroll").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".hw-panel")).to_have_attribute("data-chosen", "0")
    assert page.evaluate("window.hacked") is None, "markup in a name is text"
    assert any("<img src" in name for name in page.locator(".hw-axis text").all_text_contents())


def test_a_commit_moves_the_line_and_keeps_its_element(show: Show, lake: Lake, shop: Shop) -> None:
    made = lake.chart("SELECT id AS x, total AS y FROM orders WHERE id < 1000", kind="line")
    page = shown(show, ChartPanel(made))
    page.evaluate("window.before = document.querySelector('.hw-series')")
    shop.commit("c", (3, None, "70.00"), (4, None, None))
    page.clock.run_for(4_000)
    # The page's clock ran on while the answer was made: it takes the answer for slow, and asks less often.
    expect(page.locator(".hw-total")).to_have_text("4 rows, 4 points", timeout=20_000)
    expect(page.locator(".hw-panel")).to_have_attribute("data-position", "2")
    assert page.evaluate("window.before === document.querySelector('.hw-series')"), "patched, not built again"


def test_log_and_an_error_that_passes_and_a_narrow_page(page: Page) -> None:
    page.locator(".hw-scroll").focus()
    page.keyboard.press("l")
    expect(page.locator(".hw-notes")).to_contain_text("at or below 0 not on a logarithmic scale")
    page.evaluate("window.put('filters', [{column: 'gone', op: '=', value: '1'}])")
    expect(page.locator(".hw-message")).to_contain_text("no column 'gone'")
    page.evaluate("window.put('filters', [])")
    expect(page.locator(".hw-message")).to_be_hidden()
    wide = int(page.locator("svg.hw-plot").get_attribute("width") or 0)
    page.set_viewport_size({"width": 500, "height": 600})
    page.wait_for_function(
        "(wide) => Number(document.querySelector('svg.hw-plot').getAttribute('width')) < wide", arg=wide
    )
    overflow = page.evaluate(
        "() => { const s = document.querySelector('.hw-scroll'); return s.scrollWidth - s.clientWidth; }"
    )
    assert overflow <= 0


@pytest.mark.parametrize(
    ("sql", "options"),
    [
        ("SELECT i * 1.5 AS x, hash(i) % 1000 AS y FROM range(5000) t(i)", {"kind": "scatter"}),
        ("SELECT i AS x, sin(i / 50.0) AS y, i % 10 AS g FROM range(9000) t(i)", {"kind": "line", "color": "g"}),
        ("SELECT i AS x, sin(i / 50.0) AS y, i % 10 AS g FROM range(9000) t(i)", {"kind": "area", "color": "g"}),
        ("SELECT i % 40 AS x, i AS y, i % 10 AS g FROM range(9000) t(i)", {"kind": "bar", "color": "g"}),
        ("SELECT hash(i) % 1000 AS x FROM range(9000) t(i)", {"kind": "histogram"}),
    ],
)
def test_what_a_saved_notebook_keeps_is_small(lake: Lake, sql: str, options: dict[str, Any]) -> None:
    """However much there is to draw: less than 30 KB. It says so where it has not drawn every row."""
    made = lake.chart(sql, x="x", y=None if options["kind"] == "histogram" else "y", **options)
    assert len(made.static_html().encode()) < 30_000
    assert "5,000 rows, 300 points" in made.static_html() or options["kind"] != "scatter"
