"""Pages by key against the whole answer, whatever the order, the types and the duplicates; and their handler."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from headwater import Lake, ownership
from headwater.errors import HeadwaterError, NameNotFound, SqlError, UsageError
from headwater.lake import open_lake
from headwater.schema import Schema
from headwater_notebooks import page_plan as limits
from headwater_notebooks import pages as pages_module
from headwater_notebooks.page_plan import Wish
from headwater_notebooks.pages import Pages
from headwater_notebooks.table_panel import TablePanel, for_watch

if TYPE_CHECKING:
    from tests.notebooks.conftest import Shop

# One of each kind, NULLs and duplicates in all of them; the rows are few enough that equal rows meet page ends.
EVERY_KIND = """SELECT CASE WHEN i % 7 > 0 THEN i % 5 END AS small, CASE WHEN i % 6 > 0 THEN 'n' || i % 4 END AS name,
  CASE WHEN i % 5 > 0 THEN (i % 3)::DECIMAL(38,2) / 8 END AS amount,
  CASE WHEN i % 3 > 0 THEN (i % 4)::DOUBLE / 3 END AS ratio,
  CASE WHEN i % 4 > 0 THEN TIMESTAMP WITH TIME ZONE '2026-02-03 04:05:06.000007+00' + (i % 3) * INTERVAL 1 DAY
    END AS moment,
  CASE WHEN i % 8 > 0 THEN [i % 2, NULL] END AS list, CASE WHEN i % 9 > 0 THEN i % 2 = 0 END AS flag,
  CASE WHEN i % 5 > 1 THEN CASE WHEN i % 2 = 0 THEN 'infinity'::DATE ELSE DATE '2026-01-01' END END AS day,
  (i % 2)::HUGEINT * 170141183460469231731687303715884105727 AS huge FROM range(400) t(i)"""


def every_page(pages: Pages, limit: int, *, backwards: bool = False, **wish: Any) -> list[list[str | None]]:
    """All pages from the first to the last, or all from the last to the first, as rows in their order."""
    rows: list[list[str | None]] = []
    key = None
    while True:
        page = pages.page(Wish(key=key, limit=limit, backwards=backwards, **wish))
        assert len(page["rows"]) <= limit
        rows = page["rows"] + rows if backwards else rows + page["rows"]
        key = page["previous_key" if backwards else "next_key"]
        if key is None:
            assert page["total"] == str(len(rows))
            return rows


def texts(lake: Lake, query: str) -> list[list[str | None]]:
    return [list(row) for row in lake.sql(query).texts(10_000)]


def bag(rows: list[list[str | None]]) -> list[str]:
    return sorted(map(repr, rows))


def test_pages_together_are_the_answer_in_every_order(lake: Lake, seed: int) -> None:
    pages = Pages(lake, EVERY_KIND)
    chance = random.Random(seed)
    names = [column["name"] for column in pages.page()["columns"]]
    whole = bag(texts(lake, EVERY_KIND))
    for _ in range(3):
        sort = [
            {"column": name, "descending": chance.random() < 0.5} for name in chance.sample(names, chance.randint(0, 3))
        ]
        limit = chance.randint(30, 150)
        rows = every_page(pages, limit, sort=sort)
        assert bag(rows) == whole, (seed, sort, limit)
        assert every_page(pages, limit, sort=sort, backwards=True) == rows, (seed, sort, limit)
        order = ", ".join(f"{s['column']} {'DESC' if s['descending'] else 'ASC'} NULLS LAST" for s in sort)
        if sort:
            chosen = [names.index(str(s["column"])) for s in sort]
            wanted = texts(
                lake, f"SELECT {', '.join(str(s['column']) for s in sort)} FROM ({EVERY_KIND}) ORDER BY {order}"
            )
            assert [[row[place] for place in chosen] for row in rows] == wanted, (seed, sort, limit)


def test_pages_turned_forth_and_back_are_the_same_rows(lake: Lake, seed: int) -> None:
    """Also where a page begins or ends among rows that are equal in every column."""
    chance = random.Random(seed)
    pages = Pages(lake, "SELECT i // 7 AS a, CASE WHEN i % 21 < 14 THEN 'x' END AS b FROM range(60) t(i)")
    rows = every_page(pages, 60)
    start, key, backwards = 0, None, False
    for _ in range(40):
        limit = chance.randint(1, 12)
        page = pages.page(Wish(key=key, backwards=backwards, limit=limit))
        shown = page["rows"]
        if backwards:
            start -= len(shown)
        assert shown == rows[start : start + len(shown)], (seed, start, limit)
        assert len(shown) == min(limit, start + len(shown) if backwards else 60 - start), (seed, start, limit)
        ahead, behind = page["next_key"], page["previous_key"]
        assert (ahead is None, behind is None) == (start + len(shown) == 60, start == 0)
        backwards = behind is not None and (ahead is None or chance.random() < 0.5)
        key = behind if backwards else ahead
        start = start if backwards else start + len(shown)


@pytest.mark.parametrize("few", [True, False], ids=["in one pass", "fetched late"])
def test_pages_of_a_keyed_table_are_its_rows(
    lake: Lake, shop: Shop, monkeypatch: pytest.MonkeyPatch, few: bool
) -> None:
    """However they are read: the order by what is asked, then by key; and none is lost when a filter finds few."""
    if not few:
        monkeypatch.setattr(pages_module, "FEW_ROWS", -1)
    plans: list[limits.Plan] = []

    def planned(**about: Any) -> limits.Plan:
        plans.append(limits.Plan(**about))
        return plans[-1]

    monkeypatch.setattr(pages_module, "Plan", planned)
    shop.commit("c", *((i, None if i % 5 == 0 else f"n{i % 7}", f"{i % 11}.25") for i in range(10, 300)))
    pages = Pages(lake, "SELECT * FROM orders")
    pages.page()  # from now on it is known how many there are
    for sort in ("id", "customer", "total"):
        for descending in (False, True):
            wish: dict[str, Any] = {"sort": [{"column": sort, "descending": descending}]}
            order = f"{sort} {'DESC' if descending else 'ASC'} NULLS LAST, id"
            assert every_page(pages, 40, **wish) == texts(lake, f"SELECT * FROM orders ORDER BY {order}")
            wish["filters"] = [{"column": "customer", "op": "=", "value": "n3"}]
            wanted = texts(lake, f"SELECT * FROM orders WHERE customer = 'n3' ORDER BY {order}")
            assert every_page(pages, 7, **wish) == wanted
            assert every_page(pages, 7, backwards=True, **wish) == wanted
    assert {"SEMI JOIN" in plan.sql for plan in plans[1:]} == {not few}


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("SELECT i FROM range(30) t(i) ORDER BY i DESC", "29"),
        ("SELECT i AS n, -i AS m FROM range(30) t(i) ORDER BY 2", "29"),
        ("SELECT i % 3 AS g, sum(i) AS s FROM range(30) t(i) GROUP BY 1 ORDER BY sum(i) DESC", "2"),
        ("SELECT i FROM range(30) t(i) ORDER BY abs(i - 7), i", "7"),  # an order its columns cannot say
        ("SELECT i FROM range(30) t(i) ORDER BY i DESC LIMIT 7 -- a comment", "29"),
        ("WITH t AS (SELECT 4 AS i) SELECT i FROM t;", "4"),
        ("SELECT CASE WHEN i > 3 THEN i END AS i FROM range(30) t(i) ORDER BY i NULLS FIRST", None),
    ],
)
def test_the_order_of_the_query_is_kept(lake: Lake, query: str, first: str | None) -> None:
    rows = every_page(Pages(lake, query), limit=4)
    assert rows[0][0] == first
    assert rows == texts(lake, query.rstrip(";"))


def test_filters_are_bound_and_exact(lake: Lake) -> None:
    pages = Pages(lake, "SELECT * FROM orders")

    def ids(*filters: dict[str, str]) -> list[str]:
        return [row[0] or "" for row in pages.page(Wish(filters=filters))["rows"]]

    big = "9007199254740993"
    assert ids({"column": "id", "op": "=", "value": big}) == [big]
    assert ids({"column": "id", "op": "=", "value": "9007199254740992"}) == []
    assert ids({"column": "customer", "op": "contains", "value": "ADA"}) == ["1"]
    assert ids({"column": "customer", "op": "contains", "value": "' OR true --"}) == []
    assert ids({"column": "total", "op": "contains", "value": "2.5"}) == ["1"]
    assert ids({"column": "total", "op": "contains", "value": "2,5"}) == []
    assert ids({"column": "total", "op": "null"}) == ["2"]
    assert ids({"column": "total", "op": "not null"}, {"column": "total", "op": "<=", "value": "12.50"}) == ["1"]
    with pytest.raises(SqlError, match="abc"):
        ids({"column": "id", "op": ">", "value": "abc"})
    with pytest.raises(UsageError, match="DROP"):
        ids({"column": "id", "op": "DROP", "value": "1"})
    with pytest.raises(NameNotFound, match="customer"):
        ids({"column": "custmer", "op": "null"})


def test_nothing_changed_is_said_without_rows(lake: Lake, shop: Shop) -> None:
    pages = Pages(lake, "SELECT * FROM orders WHERE id < 10")
    first = pages.page()
    assert pages.page(since_version=first["version"]) == {"unchanged": True, "version": first["version"]}
    shop.commit("c", (77, "elsewhere", None))  # the lake moves, this answer does not
    second = pages.page(since_version=first["version"])
    assert second["unchanged"] is True
    assert "rows" not in second
    assert (first["position"], second["position"]) == ("1", "2")
    assert datetime.fromisoformat(second["time"]) > datetime.fromisoformat(first["time"])
    shop.commit("u", (1, "Ada", "0.01"))
    assert pages.page(since_version=second["version"])["rows"][0] == ["1", "Ada", "0.01"]


def test_a_new_column_appears(shop: Shop, lake: Lake) -> None:
    pages = Pages(lake, "SELECT * FROM orders")
    assert len(pages.page()["columns"]) == 3
    wider = Schema.of({"id": "BIGINT", "customer": "VARCHAR", "total": "DECIMAL(20,2)", "note": "VARCHAR"}, key=["id"])
    with (
        ownership.own(shop.log, "source:shop") as owner,
        shop.log.transaction(producer="source:shop", epoch=owner.epoch, expected_position=shop.position) as transaction,
    ):
        transaction.add_schema("shop.public.orders", wider)
        row = {
            "id": [5],
            "customer": pa.nulls(1, pa.string()),
            "total": pa.nulls(1, pa.decimal128(20, 2)),
            "note": ["new"],
        }
        transaction.append("shop.public.orders", pa.table({**row, "_op": ["c"]}))
        transaction.position = "0/FF"
        transaction.commit()
    page = pages.page()
    assert [column["name"] for column in page["columns"]] == ["id", "customer", "total", "note"]
    assert ["5", None, None, "new"] in page["rows"]


def test_a_pinned_lake_pages_the_past(lake: Lake, shop: Shop) -> None:
    past = Pages(lake.at(1), "SELECT count(*) AS n FROM orders")
    shop.commit("c", (77, None, None))
    assert past.page()["rows"] == [["3"]]
    assert Pages(lake, "SELECT count(*) AS n FROM orders").page()["rows"] == [["4"]]


def test_what_leaves_is_bounded(lake: Lake) -> None:
    wide = Pages(lake, "SELECT i, repeat('ä', 5000) AS long FROM range(2000) t(i)")
    page = wide.page(Wish(limit=10_000))
    assert len(page["rows"]) == limits.ROWS_MAX
    assert page["cut"] == limits.ROWS_MAX
    assert page["rows"][0][1] == "ä" * limits.CELL_CHARACTERS_MAX + "…"
    many = Pages(
        lake, f"SELECT i, {', '.join(f'repeat(chr(97), 300) AS c{n}' for n in range(20))} FROM range(500) t(i)"
    )
    page = many.page(Wish(limit=500))
    assert 0 < len(page["rows"]) < 100
    assert len(every_page(many, 500)) == 500
    with pytest.raises(UsageError, match="Sort by"):
        Pages(lake, "SELECT repeat('a', 20000) || i AS long FROM range(9) t(i)").page(Wish(limit=2))


def test_a_page_that_takes_too_long_is_given_up(lake: Lake) -> None:
    endless = Pages(lake, "SELECT sum(a.range * b.range) AS n FROM range(10000000) a, range(10000000) b", seconds=0.2)
    with pytest.raises(SqlError, match=r"0\.2 s"):
        endless.page()
    assert Pages(lake, "SELECT 1 AS one").page()["rows"] == [["1"]], "the lake goes on"


class Meddler(str):
    """A parameter that commits when it is written down once more: between the look at what there is and the answer."""

    __slots__ = ("acts",)
    acts: list[Callable[[], object]]

    def __repr__(self) -> str:
        if self.acts:
            self.acts.pop()()
        return super().__repr__()


def test_a_total_is_of_the_very_rows_that_are_shown(lake: Lake, shop: Shop) -> None:
    for before in range(4):  # wherever in a request it happens
        who = Meddler("nobody")
        who.acts = []
        pages = Pages(lake, "SELECT id FROM orders WHERE customer IS DISTINCT FROM $who", {"who": who})
        known = int(pages.page()["total"])
        who.acts = [partial(shop.commit, "c", (77 + before, None, None)), *[int] * before]
        page = pages.page()
        assert (page["total"], len(page["rows"])) == (str(known + 1), known + 1), before
        assert not who.acts


def test_requests_from_many_threads_while_commits_arrive(shop: Shop) -> None:
    """Kernel subshells call the handler beside the cell that runs: every answer must be of one position."""
    with open_lake(shop.folder) as lake:
        panel = TablePanel(
            Pages(
                lake,
                "SELECT count(*) AS n, count(DISTINCT id) AS d, max(id) - 1000 AS last"
                " FROM orders WHERE id BETWEEN 1001 AND 5000",
            )
        )
        done = threading.Event()

        answers: list[dict[str, Any]] = []

        def ask(worker: int) -> None:
            while not done.is_set() or len(answers) < 8:
                answers.append(panel.handle({"id": worker, "op": "page"}))

        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(ask, worker) for worker in range(4)]
            for number in range(1, 26):
                shop.commit("c", (1000 + number, None, None))
            done.set()
            for each in asking:
                each.result()
        for reply in answers:
            assert "error" not in reply, reply
            number = int(reply["position"]) - 1  # commit 1 made the shop, each later one added one row
            assert reply["rows"] == [[str(number), str(number), str(number) if number else None]]
        assert lake.sql("SELECT count(*) FROM orders").scalar() == 28


@pytest.mark.parametrize(
    "request_",
    [
        {"id": "a", "op": "exec", "sql": "SELECT 1"},
        {"id": "a", "op": "page", "sort": "id"},
        {"id": "a", "op": "page", "sort": [{"column": "id; DROP TABLE orders"}]},
        {"id": "a", "op": "page", "filters": [{"op": "="}]},
        {"id": "a", "op": "page", "limit": "many"},
        {"id": "a", "op": "page", "key": {"values": ["1", "2"], "skip": 1}},
        {"id": "a", "op": "page", "key": [1]},
        {"id": "a", "op": "page", "key": {"values": ["1"], "skip": "1; DROP TABLE orders"}},
        {"id": "a", "op": "page", "key": {"values": ["1"], "left": -1}},
        {"id": "a", "op": "page", "search": ["x"]},
        {"id": "a", "op": "page", "search": "x" * 1000},
        {"id": "a", "op": "page", "show": "everything"},
        {"id": "a", "op": "page", "show": "history", "of": "1"},
        {"id": "a", "op": "page", "show": "history", "of": ["1", "2"]},
        {"id": "a", "op": "page", "show": "history", "of": ["x" * 1000]},
        {"id": "a"},
    ],
)
def test_a_malformed_request_is_answered_with_a_sentence(lake: Lake, request_: dict[str, Any]) -> None:
    reply = for_watch(lake.watch("SELECT * FROM orders")).handle(request_)
    assert reply["id"] == "a"
    assert reply["error"]["what"].endswith((".", "?", "!"))
    assert "Traceback" not in str(reply)


def test_a_watch_has_one_panel_that_shows_without_a_kernel(lake: Lake) -> None:
    watch = lake.watch("SELECT id, customer FROM orders ORDER BY id")
    assert for_watch(watch) is for_watch(watch)
    bundle, metadata = watch._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"}
    assert "9007199254740993" in bundle["text/html"]
    assert "<script" not in bundle["text/html"]
    assert "&lt;img src=x" in bundle["text/html"]
    assert metadata == {}
    unknown = lake.watch("SELECT * FROM ordrs")._repr_mimebundle_()[0]
    assert "Did you mean" in unknown["text/html"]


def test_a_closed_panel_answers_only_that(lake: Lake) -> None:
    panel = TablePanel(Pages(lake, "SELECT 1 AS one"))
    with panel:
        assert panel.handle({"id": 1, "op": "page"})["rows"] == [["1"]]
    assert panel.handle({"id": 2, "op": "page"}) == {"id": 2, "closed": True}
    panel.close()


def test_errors_of_the_query_are_errors_of_the_page(lake: Lake) -> None:
    with pytest.raises(HeadwaterError, match="ordrs"):
        Pages(lake, "SELECT * FROM ordrs").page()
