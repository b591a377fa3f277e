"""What may be written of event time, and what is said of the rest: the code, and the place in the text."""

from __future__ import annotations

import pytest

from headwater.errors import HeadwaterError, UnknownColumn, UnsupportedSql
from headwater.schema import Schema
from headwater_pipelines.compiler import CompiledView, Relations, Table, compile_view, parse
from headwater_pipelines.compiler.explain import explain
from headwater_pipelines.compiler.forgetting import forgettable
from headwater_pipelines.compiler.plan import Base, TimeColumn, sources

RELATIONS = [
    Table(
        Base("shop.public.orders", 1, "table"),
        Schema.of(id="BIGINT", k="VARCHAR", n="INTEGER", ts="TIMESTAMP WITH TIME ZONE", day="DATE", key=["id"]),
    ),
    Table(Base("web.clicks", 2, "event"), Schema.of(k="VARCHAR", n="INTEGER", at_time="TIMESTAMP")),
]
EMIT = " EMIT ON WINDOW CLOSE"
CLOSED = "SELECT window_end, count(*) AS n FROM TUMBLE({}, INTERVAL 1 HOUR) GROUP BY ALL EMIT ON WINDOW CLOSE"


def compiled(options: str, query: str) -> CompiledView:
    return compile_view(parse(f"CREATE MATERIALIZED VIEW v\nWITH ({options})\nAS {query}"), Relations(RELATIONS))


@pytest.mark.parametrize(
    ("options", "query", "columns"),
    [
        ("watermark = 'ts'", "SELECT id FROM orders", [(1, "ts", 0)]),
        ("watermark = ' TS - INTERVAL 90 SECOND '", "SELECT id FROM orders", [(1, "ts", 90_000_000)]),
        ("watermark = 'day - INTERVAL ''2 days'''", "SELECT id FROM orders", [(1, "day", 2 * 86_400_000_000)]),
        ("watermark = 'public.orders: ts'", "SELECT o.id FROM orders o JOIN clicks c USING (k)", [(1, "ts", 0)]),
        (
            "watermark = 'orders: day; clicks: at_time - INTERVAL 1 minute'",
            "SELECT id FROM orders JOIN clicks USING (k)",
            [(1, "day", 0), (2, "at_time", 60_000_000)],
        ),
    ],
)
def test_watermarks(options: str, query: str, columns: list[tuple[int, str, int]]) -> None:
    timed = compiled(options, query).event_time
    assert timed is not None
    names = {1: "shop.public.orders", 2: "web.clicks"}
    assert timed.columns == tuple(TimeColumn(topic, names[topic], name, delay) for topic, name, delay in columns)


@pytest.mark.parametrize(
    ("options", "query", "code", "place"),
    [
        ("watermark = 'ts +'", "SELECT id FROM orders", "WATERMARK", (2, 7)),
        ("watermark = 'ts - n'", "SELECT id FROM orders", "WATERMARK", (2, 7)),
        ("watermark = 'ts - INTERVAL 1 month'", "SELECT id FROM orders", "WATERMARK", (2, 7)),
        ("watermark = 'n'", "SELECT id FROM orders", "WATERMARK", (2, 7)),
        ("watermark = 'k'", "SELECT id FROM orders JOIN clicks USING (k)", "WATERMARK", (2, 7)),
        ("watermark = 'clicks: at_time'", "SELECT id FROM orders", "WATERMARK", (2, 7)),
        (
            "watermark = 'orders: ts; clicks: at_time'",
            "SELECT id FROM orders JOIN clicks USING (k)",
            "WATERMARK",
            (2, 7),
        ),
        ("watermark = 'orders: ts; orders: ts'", "SELECT id FROM orders", "WATERMARK", (2, 7)),
        ("watermark = 'ts', grace = 'long'", "SELECT id FROM orders", "WATERMARK", (2, 25)),
        ("watermark = 'ts', ttl = '-1 day'", "SELECT id FROM orders", "WATERMARK", (2, 25)),
        ("watermark = 'ts', watermark_by = 'row'", "SELECT id FROM orders", "UNKNOWN_OPTION", (2, 25)),
        ("grace = '1 minute'", "SELECT id FROM orders", "WATERMARK", (2, 7)),
        ("refresh = 'manual'", CLOSED.format("orders, ts"), "WATERMARK", (3, 91)),
        ("refresh = 'manual'", "SELECT id FROM orders WHERE ts < watermark()", "WATERMARK", (3, 37)),
        ("watermark = 'ts'", "SELECT id FROM orders EMIT ON WINDOW CLOSE", "EMIT", (3, 26)),
    ],
)
def test_what_is_not_understood_is_shown_where_it_stands(
    options: str, query: str, code: str, place: tuple[int, int]
) -> None:
    with pytest.raises(UnsupportedSql) as caught:
        compiled(options, query)
    found = caught.value.facts
    assert (found["code"], (found["line"], found["column"])) == (code, place), str(caught.value)


def test_names_that_are_not_there() -> None:
    with pytest.raises(UnknownColumn):
        compiled("watermark = 'orders: tz'", "SELECT id FROM orders")
    with pytest.raises(HeadwaterError, match="no table or view order"):
        compiled("watermark = 'order: ts'", "SELECT id FROM orders")


FORGOTTEN = {
    CLOSED.format("clicks, at_time"): "at",
    "SELECT k, window_end, max(n) AS m FROM {} GROUP BY ALL": "rt",
    "SELECT k, count(*) AS n FROM {} GROUP BY k": "t",
    "SELECT k, max(n) AS m FROM {} GROUP BY k": "",
    "SELECT * FROM {}": "t",
    "SELECT w.n, o.id FROM {} w JOIN orders o USING (k)": "",
    "SELECT n FROM {} WHERE window_end > now() - INTERVAL 1 DAY": "",
    "SELECT window_end, count(*) AS n FROM {} WHERE window_end > now() - INTERVAL 1 DAY GROUP BY ALL": "",
    "SELECT count(*) AS n FROM {}, (SELECT count(*) FROM clicks)": "",
    "SELECT window_end, count(*) AS n FROM SESSION(clicks, at_time, INTERVAL 1 HOUR, k) GROUP BY ALL": "a",
    "SELECT window_end, count(*) AS n FROM HOP(clicks, at_time, INTERVAL 1 HOUR, INTERVAL 1 DAY) GROUP BY ALL": "at",
    "SELECT window_end, count(*) AS n FROM TUMBLE((SELECT * FROM clicks WHERE n > 1), at_time, INTERVAL 1 HOUR)"
    " GROUP BY ALL": "at",
    "SELECT window_end, count(*) AS n FROM TUMBLE((SELECT *, row_number() OVER (PARTITION BY k ORDER BY at_time DESC,"
    " n) AS r FROM clicks), at_time, INTERVAL 1 HOUR) WHERE r = 1 GROUP BY ALL": "",
    "SELECT window_end, count(*) AS n FROM TUMBLE((SELECT * FROM clicks WHERE at_time > now() - INTERVAL 1 DAY),"
    " at_time, INTERVAL 1 HOUR) GROUP BY ALL": "",
    "SELECT window_end, count(*) AS n FROM TUMBLE(clicks, at_time - INTERVAL 1 DAY, INTERVAL 1 HOUR) GROUP BY ALL": "",
    "SELECT window_end, count(*) AS n FROM TUMBLE((SELECT at_time - INTERVAL 1 DAY AS at_time FROM clicks), at_time,"
    " INTERVAL 1 HOUR) GROUP BY ALL": "",
}
"""The first letters of the relations with rows that go: t of a topic, a of an aggregate, r of what is recomputed."""


@pytest.mark.parametrize(("query", "forgotten"), FORGOTTEN.items())
def test_rows_are_forgotten_only_where_nothing_comes_back_to_them(query: str, forgotten: str) -> None:
    text = query.format("TUMBLE(clicks, at_time, INTERVAL 1 HOUR)").removesuffix(EMIT) + EMIT
    view = compiled("watermark = 'clicks: at_time'", text)
    found = forgettable([view.root], sources(view.root))
    assert "".join(sorted(source.table[0] for source in found)) == forgotten
    assert ("OPEN_WINDOWS" in {node.reason for node in explain(view).nodes}) == ("t" in forgotten)
