"""What a query returns and what a view is: handles that fetch when asked, and tell what they know."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from jupyter_client.manager import KernelManager
from tests.waiting import until

from headwater import Lake, progress
from headwater.config import Settings
from headwater.errors import Expired, NameNotFound, NotYet, PipelineError, SqlError, UsageError
from headwater.lake import open_lake, result
from headwater.log import retention, seal

if TYPE_CHECKING:
    from tests.notebooks.conftest import Shop

ENDLESS = "SELECT a.i FROM range(100000) a(i), range(1000000) b(i) WHERE (a.i * b.i + b.i) % 999999937 = 3"
"""Hours of work that hands out a row now and then."""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer of more than a handful of rows is a large one."""
    monkeypatch.setattr(result, "MEMORY_BYTES_MAX", 1)
    monkeypatch.setattr(result, "FETCHED_BYTES_MAX", 1)
    monkeypatch.setattr(result, "_BATCH_ROWS", 2048)
    monkeypatch.setattr(result, "HEAD_ROWS", 100)


@pytest.fixture
def many(shop: Shop) -> int:
    """5,000 orders beside the three; the commit they came with."""
    return shop.commit("c", *[(number, f"c{number % 7}", "1.00") for number in range(10, 5010)])


# ---- rows come when they are asked for


@pytest.mark.usefixtures("small")
def test_a_large_answer_is_shown_without_its_rows_and_fetched_at_its_position(
    lake: Lake, shop: Shop, many: int
) -> None:
    answer = lake.sql("SELECT id, customer FROM orders WHERE id > $least ORDER BY id", params={"least": 9})
    assert (answer.rows, len(answer), answer.fetched, answer.position) == (5001, 5001, False, many)
    assert "showing 20 of 5,001 rows" in answer._repr_html_()
    assert f"(showing 20 of 5,001 rows, at commit {many})" in str(answer)
    assert [row[0] for row in answer.texts(3, 97)] == ["107", "108", "109"]
    assert [each["commit"] for each in lake.status()["held"]["readers"]] == [many], "its position stays readable"
    shop.commit("d", (10, None, None))
    shop.commit("c", (9, "late", None), (5555, "later", None))
    assert answer.pl()["id"].to_list()[:-1] == list(range(10, 5010)), "rows of the position that was shown"
    assert lake.status()["held"]["readers"] == [], "nobody needs it any more"
    assert lake.sql("SELECT count(*) FROM orders").scalar() == 5004


@pytest.mark.usefixtures("small", "many")
def test_rows_beyond_the_first_ones_are_fetched_for_whoever_asks(lake: Lake) -> None:
    for form in (
        lambda answer: answer.arrow().num_rows,
        lambda answer: len(answer.df()),
        lambda answer: len(answer.fetchall()),
        lambda answer: answer.reader().read_all().num_rows,
        lambda answer: len(answer.texts(9000)),
    ):
        answer = lake.sql("SELECT * FROM orders")
        assert not answer.fetched
        assert form(answer) == 5003
    assert lake.sql("SELECT * FROM orders", whole=True).fetched


@pytest.mark.usefixtures("small", "many")
@pytest.mark.parametrize(
    "query", ["SELECT *, random() FROM orders", "FROM orders LIMIT 4000", "SELECT now(), * FROM orders"]
)
def test_what_could_answer_otherwise_the_second_time_is_asked_once(lake: Lake, query: str) -> None:
    assert lake.sql(query).fetched


@pytest.mark.usefixtures("many")
def test_sorted_rows_that_are_few_are_all_there(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    query = "SELECT id FROM orders ORDER BY id DESC"
    assert lake.sql(query).fetched, "no more than are kept of any answer"
    monkeypatch.setattr(result, "HEAD_ROWS", 100)
    answer = lake.sql(query)
    assert answer.fetched, "a few bytes"
    assert (answer.rows, answer.pl()["id"].is_sorted(descending=True)) == (5003, True)
    monkeypatch.setattr(result, "FETCHED_BYTES_MAX", 1)
    answer = lake.sql(query)
    assert (answer.rows, answer.fetched) == (5003, False)
    assert answer.texts(2)[1] == ("5009",)
    assert answer.pl()["id"].is_sorted(descending=True)


@pytest.mark.usefixtures("small")
def test_a_position_that_nobody_can_read_any_more_is_said(lake: Lake, shop: Shop, many: int) -> None:
    answer = lake.sql("SELECT * FROM orders")
    assert answer._held is not None
    answer._held.close()  # as after `reader_expiry_s`
    limits = replace(Settings(), time_travel_s=0.001, history_s=0.001, compact_dirty_fraction=0.01)

    def goes_on() -> bool:
        shop.commit("u", *[(number, "new", None) for number in range(10, 5010)])
        seal.seal(shop.log, limits)
        retention.retain(shop.log, limits)
        return expired(shop, many)

    until(goes_on, "a position that cannot be read")
    shop.commit("c", (9, "one more", None))
    assert lake.sql("SELECT count(*) FROM orders").scalar() == 5004, "what the lake keeps begins anew"
    with pytest.raises(Expired):
        answer.pl()
    assert answer.rows == 5003
    assert "showing 20 of 5,003 rows" in str(answer), "what was shown stays"


def expired(shop: Shop, commit: int) -> bool:
    try:
        with open_lake(shop.folder) as fresh:
            fresh.sql("SELECT 1 FROM orders", at=commit)
    except Expired:
        return True
    return False


def test_a_large_answer_costs_the_memory_of_its_first_rows(lake: Lake) -> None:
    before = psutil.Process().memory_info().rss
    answer = lake.sql("SELECT i, repeat('x', 100) || i AS wide FROM range(3_000_000) r(i)")
    assert "3,000,000 rows" in str(answer)
    assert not answer.fetched
    assert psutil.Process().memory_info().rss - before < 250 * 2**20, "all rows are 360 MB"


# ---- what else a result knows


def test_a_result_goes_live_with_its_parameters(lake: Lake, shop: Shop) -> None:
    answer = lake.sql("SELECT count(*) AS n FROM orders WHERE id < $below", params={"below": 50})
    watch = answer.live()
    assert watch.latest().scalar() == 2
    shop.commit("c", (7, "x", None), (70, "y", None))
    assert watch.latest().scalar() == 3
    assert answer.scalar() == 2
    with pytest.raises(UsageError, match="no names"):
        lake.sql("SELECT ?", params=[1]).live()


@pytest.mark.usefixtures("small", "many")
def test_a_result_is_charted_at_its_position(lake: Lake, shop: Shop) -> None:
    few = lake.sql("SELECT id, total FROM orders WHERE id < 10")
    large = lake.sql("SELECT customer, id FROM orders WHERE id > $least", params={"least": 9})
    charts = (few.chart(kind="scatter", x="id", y="total"), large.chart(kind="bar", x="customer", y="id"))
    shop.commit("c", (9, "late", "7.00"))
    for chart, rows in zip(charts, (2, 5001), strict=True):
        drawn = chart.draw()
        assert (drawn.position, drawn.points.rows) == ("2", rows)
        assert "<svg" in chart.svg()
    assert not large.fetched


def test_the_history_of_a_key_of_the_one_table_that_is_read(lake: Lake, shop: Shop) -> None:
    shop.commit("u", (1, "Grace", "13.00"))
    assert [row[1] for row in lake.sql("SELECT id FROM orders").history(1).fetchall()] == ["Ada", "Grace"]
    with pytest.raises(UsageError, match="0 tables"):
        lake.sql("SELECT 1").history(1)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT customer FROM orders WHERE total > 1", {"rows": ("customer", "total")}),
        ("WITH o AS (SELECT * FROM orders) SELECT o.id FROM o", {"rows": ("id", "customer", "total")}),
        ("SELECT * FROM orders", {"rows": ("id", "customer", "total")}),
        ("SELECT count(*) FROM (SELECT id AS x FROM orders o WHERE o.total IS NULL)", {"rows": ("id", "total")}),
        ("SELECT h.id FROM history.orders h JOIN orders o ON h.id = o.id", {"history": ("id",), "rows": ("id",)}),
        ("SELECT 1", {}),
    ],
)
def test_lineage_names_what_was_read_and_where(lake: Lake, query: str, expected: dict[str, Any]) -> None:
    found = lake.sql(query).lineage()
    assert {read.facet: read.columns for read in found.reads} == expected
    assert {(read.name, read.position) for read in found.reads} <= {("shop.public.orders", 1)}
    assert "position 1" in found._repr_html_()


def test_explain_has_the_plan_as_a_view_and_the_engines(lake: Lake) -> None:
    plan = lake.sql("SELECT customer, count(*) FROM orders GROUP BY customer").explain()
    assert "ADDITIVE_STATE" in str(plan)
    assert "Hash Group By" in plan.engine
    assert "<svg" in plan._repr_html_()
    refused = lake.sql("SELECT random() FROM orders").explain()
    assert refused.view is None
    assert "random" in str(refused)
    assert "parameters" in str(lake.sql("SELECT $a", params={"a": 1}).explain())


# ---- views and lists


def test_a_view_is_handled_by_its_name(lake: Lake) -> None:
    made = lake.create_view("per_customer", "SELECT customer, count(*) AS n FROM orders GROUP BY customer")
    view = lake.view("per_customer")
    assert (view.name, view.state, view.sql) == (made.name, "creating", made.sql)
    assert view.reads == ["shop.public.orders"]
    assert view.columns_read == {"shop.public.orders": ["customer"]}
    assert "ADDITIVE_STATE" in str(view.explain())
    with pytest.raises(NotYet, match="not been published"):
        view.result()
    with pytest.raises(NotYet, match=r"views\.per_customer is not there after 0 s"):
        view.wait(0)
    assert view.pause("because").reason == "because"
    with pytest.raises(PipelineError, match="paused: because"):
        view.wait()
    assert view.resume().state == "creating"
    assert "sum(total)" in view.replace("SELECT customer, sum(total) AS n FROM orders GROUP BY customer").sql
    assert "per_customer" in repr(view)
    assert "shop.public.orders" in view._repr_html_()
    with pytest.raises(NameNotFound, match="Did you mean per_customer"):
        lake.view("per_custmer")
    with pytest.raises(UsageError, match="past position"):
        lake.at(1).view("per_customer")
    assert view.drop() == ["per_customer"]
    with pytest.raises(NameNotFound):
        _ = view.sql


def test_a_table_is_waited_for_until_it_is_copied(lake: Lake) -> None:
    assert lake.wait("orders", "shop.public.orders") is lake
    with pytest.raises(NotYet, match="later is not there after"):
        lake.wait("orders", "later", seconds=0.01)
    waiting = threading.Thread(target=lake.wait, args=("later",))
    waiting.start()
    lake.create_topic("shop.public.later", {"id": "BIGINT"})
    waiting.join(60)
    assert not waiting.is_alive()


def test_lists_are_lists_that_show_themselves_as_tables(lake: Lake) -> None:
    lake.create_view("v", "SELECT id FROM orders")
    topics, views = lake.topics(), lake.views()
    assert isinstance(topics, list)
    assert topics == list(topics)
    assert [topic.name for topic in topics[:1]] == [topics[0].name]
    assert "shop.public.orders" in repr(topics)
    assert "id, customer, total" in topics._repr_html_()
    assert repr(views).splitlines()[-1] == "(1 view)"
    assert "SELECT id FROM orders" in views._repr_html_()


# ---- an interrupt


@pytest.mark.usefixtures("interruptible")
def test_a_query_ends_with_an_interrupt_and_the_lake_goes_on(lake: Lake) -> None:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        lake.sql(ENDLESS)
    assert lake.sql("SELECT count(*) FROM orders").scalar() == 3


def test_a_time_limit_ends_a_query_in_any_thread(lake: Lake) -> None:
    seen: list[str] = []

    def ask() -> None:
        try:
            lake.sql(ENDLESS, seconds=0.1)
        except SqlError as error:
            seen.append(error.what)

    ask()
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert seen == ["the query took longer than 0.1 s"] * 2
    assert lake.sql("SELECT 7", seconds=60).scalar() == 7


@pytest.mark.usefixtures("many", "interruptible")
def test_rows_that_were_being_kept_are_whole_after_an_interrupt(lake: Lake, shop: Shop) -> None:
    """Interrupted anywhere while the lake's memory takes changes in, no row is counted twice or lost."""
    assert lake.sql("SELECT count(*) FROM orders").scalar() == 5003
    for number in range(8):
        shop.commit("c", *[(10_000 + number * 100 + each, "x", None) for each in range(100)])
        timer = threading.Timer(0.0004 * number, os.kill, (os.getpid(), signal.SIGINT))
        try:
            timer.start()
            lake.sql("SELECT count(*) FROM orders")
            timer.join()
            time.sleep(0)  # where the signal is met at the latest
        except KeyboardInterrupt:
            timer.join()
        assert lake.sql("SELECT count(*), count(DISTINCT id) FROM orders").fetchall() == [(5103 + number * 100,) * 2]


class Screen(io.StringIO):
    """A terminal's stderr."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("tqdm", [True, False])
def test_a_terminal_gets_a_bar_and_a_file_none(monkeypatch: pytest.MonkeyPatch, tqdm: bool) -> None:
    monkeypatch.setattr(progress, "SHOWN_AFTER_S", 0.0)
    monkeypatch.setattr(progress, "_EVERY_S", 0.0)
    if not tqdm:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    for screen in (Screen(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", screen)
        with progress.bar("copying orders") as bar:
            bar.to(0.25, "25 of 100 rows")
            bar.to(0.5, "50 of 100 rows")
        text = screen.getvalue()
        assert ("50" in text) == ("rows" in text) == isinstance(screen, Screen)
    quiet = Screen()
    monkeypatch.setattr(sys, "stderr", quiet)
    thread = threading.Thread(target=lambda: progress.Bar("a panel's").to(0.5))
    thread.start()
    thread.join()
    assert quiet.getvalue() == "", "panels' threads draw nothing"


class Kernel:
    """A real kernel, with what its cells send."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(cwd=str(folder), env=os.environ | environment)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def run(self, source: str, *, interrupt: float | None = None) -> dict[str, Any]:
        """The reply to a cell; ``interrupt``: so many seconds after it began to run."""
        sent = self.client.execute(source, stop_on_error=False)
        while interrupt is not None:
            message = self.client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") == sent and message["msg_type"] == "stream":
                time.sleep(interrupt)
                self.manager.interrupt_kernel()
                break
        reply = self.client.get_shell_msg(timeout=60)
        while reply["parent_header"].get("msg_id") != sent:  # what it still says of its beginning
            reply = self.client.get_shell_msg(timeout=60)
        content: dict[str, Any] = reply["content"]
        return content

    def displayed(self, source: str) -> list[dict[str, Any]]:
        """What a cell displays, each time it does, by mime type."""
        sent = self.client.execute(source)
        found: list[dict[str, Any]] = []
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") != sent:
                continue
            if message["msg_type"] in ("display_data", "update_display_data"):
                found.append(message["content"]["data"])
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return found

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel(shop: Shop, tmp_path: Path) -> Iterator[Kernel]:
    made = Kernel(shop.folder, {"IPYTHONDIR": str(tmp_path / "ipython")})
    yield made
    made.close()


def test_long_work_says_how_far_it_is_and_leaves_nothing_behind(kernel: Kernel) -> None:
    kernel.run("%load_ext headwater\nlake = %headwater\nfrom headwater import progress\nprogress.SHOWN_AFTER_S = 0.05")
    shown = kernel.displayed("lake.wait('nothing', seconds=1)")
    assert "progress" in shown[0]["text/html"]
    assert shown[0]["text/plain"] == "waiting for nothing 0%"
    assert set(shown[-1].values()) == {""}, "a saved notebook has no bar"
    assert not any("widget" in kind for each in shown for kind in each)


def test_an_interrupted_cell_ends_and_the_next_one_runs(kernel: Kernel) -> None:
    assert kernel.run("%load_ext headwater\nlake = %headwater")["status"] == "ok"
    began = f"print('began', flush=True)\nfound = lake.sql('''{ENDLESS}''')"
    assert kernel.run(began, interrupt=0.5).get("ename") == "KeyboardInterrupt"
    assert kernel.run("assert lake.sql('SELECT count(*) FROM orders').scalar() == 3")["status"] == "ok"
    waiting = "view = lake.create_view('v', 'SELECT id FROM orders')\nprint('began', flush=True)\nview.wait()"
    assert kernel.run(waiting, interrupt=0.2).get("ename") == "KeyboardInterrupt"
    assert kernel.run("assert view.state == 'creating', 'only the waiting ended'")["status"] == "ok"
