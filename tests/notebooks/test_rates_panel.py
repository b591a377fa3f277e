"""Rates and lags: figures of the committed history against DuckDB's own over the same records, and the panel."""

from __future__ import annotations

import re
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest
from playwright.sync_api import Page, expect

from headwater import Lake, ownership
from headwater.config import Settings
from headwater.errors import UsageError
from headwater.lake import flow, open_lake
from headwater.lake.rates import Rates, bytes_text, count_text, drawn, lag_text
from headwater.log import Log, open_log
from headwater.maintenance import run_once
from headwater.schema import Schema
from headwater_notebooks.rates_panel import RatesPanel
from headwater_pipelines import api
from headwater_pipelines.runtime import worker

if TYPE_CHECKING:
    from headwater.clock import Clock

Show = Callable[..., Page]
ORDERS = "shop.public.orders"
COLUMNS = Schema.of({"id": "BIGINT", "customer": "VARCHAR", "total": "DECIMAL(20,2)"}, key=["id"])
BEGAN = datetime(2026, 11, 1, 12, tzinfo=UTC)


class Hand:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = BEGAN

    def now_us(self) -> int:
        return int((self.now - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))


class Busy:
    """A lake with one table and one view of it, written at moments that the test chooses."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "headwater.toml").write_text('[project]\nname = "busy"\n')
        self.folder, self.clock, self.count = folder, Hand(), 0
        clock: Clock = self.clock
        self.log: Log = open_log(folder / "lake", create=True, clock=clock)

    def commit(self, rows: int, late_ms: int) -> None:
        """So many rows in one transaction, which their source committed ``late_ms`` before."""
        committed = self.clock.now - timedelta(milliseconds=late_ms)
        ids = range(self.count * 1000, self.count * 1000 + rows)
        table = pa.table(
            {
                "id": pa.array(ids, pa.int64()),
                "customer": pa.array([f"c{each % 3}" for each in ids]),
                "total": pa.array([Decimal("1.50")] * rows, pa.decimal128(20, 2)),
                "_op": pa.array(["c"] * rows),
                "_committed_at": pa.array([committed] * rows, pa.timestamp("us", "UTC")),
            }
        )
        before = f"0/{self.count:X}" if self.count else None
        with (
            ownership.own(self.log, "source:shop") as owner,
            self.log.transaction("source:shop", owner.epoch, before) as transaction,
        ):
            if before is None:
                transaction.create_topic(ORDERS, "table", COLUMNS, source="shop")
            transaction.append(ORDERS, table)
            self.count += 1
            transaction.position = f"0/{self.count:X}"
            transaction.commit()

    def later(self, **stretch: float) -> None:
        self.clock.now += timedelta(**stretch)


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Busy]:
    """Ten commits, a second apart, of 1, 2, ... rows, each 100 ms later than the one before; then two seconds more."""
    made = Busy(tmp_path / "busy")
    for number in range(1, 11):
        made.commit(number, 100 * number)
        made.later(seconds=1)
    made.later(seconds=1)
    yield made
    made.log.close()


@pytest.fixture
def viewed(busy: Busy) -> Busy:
    """With a view that has taken in what was there, two seconds after the last commit."""
    api.create_view(busy.log, "SELECT customer, sum(total) AS total FROM orders GROUP BY customer", name="totals")
    worker.run(busy.log, Settings(), threading.Event(), until_caught_up=True)
    busy.later(seconds=1)
    return busy


@pytest.fixture
def lake(busy: Busy) -> Iterator[Lake]:
    with Lake(busy.log) as opened:
        yield opened


def by_name(lake: Lake, window: str = "1m", **options: Any) -> dict[str, flow.Rate]:
    return {rate.name: rate for rate in Rates(lake, window).measure(**options)}


def test_figures_are_those_of_the_records(lake: Lake) -> None:
    found = by_name(lake)[ORDERS]
    records = lake.sql(f'SELECT _ingested_at, _committed_at FROM log."{ORDERS}"').arrow()
    with duckdb.connect() as own:
        own.execute("SET TimeZone = 'UTC'")
        own.register("records", records)
        ((count, lags),) = own.execute(
            "SELECT count(*), quantile_cont(epoch_us(_ingested_at) - epoch_us(_committed_at), [0.5, 0.95, 0.99])"
            " FROM records"
        ).fetchall()
        buckets = dict(
            own.execute(
                "SELECT epoch_us(date_trunc('second', _ingested_at)), count(*) FROM records GROUP BY 1"
            ).fetchall()
        )
    assert (found.rows, found.rows_per_s) == (count, count / 60) == (55, 55 / 60)
    assert found.lag_ms == pytest.approx([each / 1e3 for each in lags], abs=0.01)
    assert {each.start: each.rows for each in found.buckets if each.rows} == buckets
    assert len(found.buckets) == 60
    assert found.bytes_per_s > 0


def test_the_lag_of_a_view_is_from_the_source_to_its_step(viewed: Busy, lake: Lake) -> None:
    view = by_name(lake)["views.totals"]
    step = viewed.log.last_step()
    assert step is not None
    published = lake.time_of(step.publish_commit)
    committed = lake.sql(f'SELECT _committed_at AS c FROM log."{ORDERS}"').arrow()
    with duckdb.connect() as own:
        own.register("committed", committed)
        ((apart,),) = own.execute(
            "SELECT quantile_cont(epoch_us($published::TIMESTAMPTZ) - epoch_us(c), [0.5, 0.95, 0.99]) FROM committed",
            {"published": published},
        ).fetchall()
    assert view.lag_ms == pytest.approx([each / 1e3 for each in apart], abs=0.01)
    assert view.rows == 3


def test_sealed_records_count_as_hot_ones_do(busy: Busy, lake: Lake) -> None:
    before = by_name(lake)[ORDERS]
    run_once(busy.log, Settings(), force=True)
    after = by_name(lake)[ORDERS]
    assert (after.rows, after.lag_ms) == (before.rows, before.lag_ms)
    assert [each.rows for each in after.buckets] == [each.rows for each in before.buckets]


def test_what_is_older_than_the_window_does_not_count(busy: Busy, lake: Lake) -> None:
    busy.later(seconds=55)
    assert by_name(lake)[ORDERS].rows == sum(range(7, 11))
    assert by_name(lake, "5m")[ORDERS].rows == 55
    busy.later(hours=1)
    assert by_name(lake) == {}


def test_a_position_is_measured_at_its_own_time(busy: Busy, lake: Lake) -> None:
    now = by_name(lake)[ORDERS].rows
    commit = lake.position()
    busy.later(hours=5)
    busy.commit(3, 50)
    assert by_name(lake, at=f"commit:{commit}")[ORDERS].rows == now
    assert by_name(lake, at="commit:1")[ORDERS].rows == 1


def test_a_window_of_more_than_is_looked_at_says_so(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "RECORDS_MAX", 20)
    found = by_name(lake)[ORDERS]
    assert (found.whole, found.rows) == (False, 19), "the newest"
    assert "of public.orders only the newest records" in Rates(lake, "1m").static_html()


def test_forms_without_a_page(lake: Lake) -> None:
    rates = lake.rates("1m")
    assert "shop.public.orders" in str(rates)
    assert ET.fromstring(rates.svg()).tag.endswith("svg")
    bundle = rates._repr_mimebundle_()[0]
    assert set(bundle) == {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"}
    assert "<script" not in bundle["text/html"]
    with pytest.raises(UsageError, match="stretch of time"):
        lake.rates("soon")


def test_views_are_drawn_before_the_busiest_topics() -> None:
    def rate(name: str, kind: str, rows: int) -> flow.Rate:
        return flow.Rate(name, kind, rows, 0.0, 0.0, None, ())

    every = [rate(f"shop.public.t{n}", "table", 100 - n) for n in range(20)] + [rate("views.late", "changelog", 1)]
    assert [each.name for each in drawn(every)] == [*(f"shop.public.t{n}" for n in range(9)), "views.late"]


def test_an_empty_lake_has_no_rates(tmp_path: Path) -> None:
    with open_log(tmp_path / "lake", create=True), open_lake(tmp_path / "lake") as lake:
        assert lake.rates().measure() == []
        assert "no rows" in lake.rates().svg()


@pytest.mark.parametrize(
    ("text", "is_"),
    [
        (bytes_text(0), "0 B"),
        (bytes_text(999), "999 B"),
        (bytes_text(1500), "1.5 KiB"),
        (bytes_text(3e8), "286 MiB"),
        (count_text(0.013), "0.01"),
        (count_text(1234.5), "1,234"),
        (lag_text(0.4), "0 ms"),
        (lag_text(9_999), "9,999 ms"),
        (lag_text(12_340), "12.3 s"),
        (lag_text(6e6), "100.0 min"),
    ],
)
def test_units(text: str, is_: str) -> None:
    assert text == is_


def test_a_reply_says_when_no_bucket_is_over_yet(busy: Busy, lake: Lake) -> None:
    panel = RatesPanel(lake.rates("1m"))
    first = panel.handle({"id": 1, "op": "chart"})
    assert first["extent"] == "0.9 rows/s into topics"
    assert panel.handle({"id": 2, "op": "chart", "since_version": first["version"]})["unchanged"]
    busy.later(seconds=30)
    assert "unchanged" not in panel.handle({"id": 3, "op": "chart", "since_version": first["version"]})
    assert len(panel.handle({"id": 4, "op": "chart", "window": "1h"})["series"][0]["points"]) == 120
    assert "error" in panel.handle({"id": 5, "op": "chart", "window": "; DROP TABLE orders"})
    assert "error" in panel.handle({"id": 6, "op": "chart", "window": 5})


def test_the_page_shows_figures_and_plots(show: Show, viewed: Busy, lake: Lake) -> None:
    page = show(RatesPanel(lake.rates("1m")))
    expect(page.locator(".hw-panel[data-ready='1']")).to_be_visible()
    expect(page.locator(".hw-panel")).to_have_attribute("aria-label", "rates")
    rows = page.locator(".hw-figures tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.first.locator("td").nth(0)).to_have_text("public.orders")
    expect(rows.first.locator("td").nth(1)).to_have_text("55")
    expect(page.locator(".hw-series")).to_have_count(6)  # two in each of three plots
    page.locator(".hw-scroll").focus()
    page.keyboard.press("End")
    lines = page.locator(".hw-tip-line")
    expect(lines).to_have_text(
        ["public.orders0 rows/s · 0 B/s", re.compile(r"^views.totals3 rows/s · .* B/s · 9,570 ms$")]
    )
    viewed.later(seconds=30)
    page.get_by_label("window").select_option("1h")
    page.wait_for_function("() => window.sent.at(-1).window === '1h' && window.sent.length === window.answers")
    page.locator(".hw-scroll").focus()
    page.keyboard.press("End")
    expect(page.locator(".hw-tip-head")).to_have_text("2026-11-01 12:00:00, 30 s")
    page.locator(".hw-key", has_text="views.totals").click()
    expect(page.locator(".hw-series")).to_have_count(3)
    page.get_by_role("button", name="pause").click()
    asked = page.evaluate("window.sent.length")
    viewed.later(minutes=1)
    page.clock.run_for(60_000)
    assert page.evaluate("window.sent.length") == asked, "nothing is asked while paused"
    page.get_by_role("button", name="resume").click()
    expect(rows.first.locator("td").nth(1)).to_have_text("55")
    page.wait_for_function("(asked) => window.answers > asked", arg=asked)
