"""TUMBLE, HOP and SESSION: against plain Python, kept over random changes, and what they refuse."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.pipelines.world import Topic, World

from headwater.errors import HeadwaterError, UnknownColumn, UnsupportedSql
from headwater.schema import Schema
from headwater_pipelines.compiler import CompiledView, Relations, Table, compile_view, parse
from headwater_pipelines.compiler.explain import explain
from headwater_pipelines.compiler.plan import Base

CLICKS = {"id": "BIGINT", "k": "VARCHAR", "x": "INTEGER", "ts": "TIMESTAMP", "tz": "TIMESTAMPTZ", "d": "DATE"}
START = datetime.fromisoformat("2026-03-30T23:59:40")
SECOND = timedelta(seconds=1)
Row = tuple[Any, ...]

SHAPES = {
    "tumble": "SELECT * FROM TUMBLE(clicks, ts, INTERVAL 10 seconds)",
    "tumble_group": "SELECT window_start, k, count(*) AS n, max(x) AS m"
    " FROM TUMBLE(TABLE clicks, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, k",
    "tumble_zone": "SELECT window_end, sum(x) AS s FROM TUMBLE(clicks, tz, INTERVAL 1 minute, INTERVAL 7 seconds) AS w"
    " GROUP BY ALL",
    "tumble_days": "SELECT w.window_start, count(*) AS n FROM TUMBLE(bag, d, INTERVAL 7 days) AS w GROUP BY 1",
    "tumble_months": "SELECT id, window_start, window_end FROM TUMBLE(clicks, ts, INTERVAL 1 month)",
    "hop": "SELECT id, window_start, window_end FROM HOP(clicks, ts, INTERVAL 4 seconds, INTERVAL 10 seconds)",
    "hop_group": "SELECT window_start, count(*) AS n, count(DISTINCT k) AS ks"
    " FROM HOP(TABLE (SELECT * FROM clicks WHERE x > 0), DESCRIPTOR(ts), INTERVAL 5 seconds, INTERVAL 10 seconds)"
    " GROUP BY window_start",
    "hop_gaps": "SELECT id, window_start FROM HOP(clicks, ts, INTERVAL 10 seconds, INTERVAL 3 seconds)",
    "hop_months": "SELECT d, window_start, window_end FROM HOP(bag, d, INTERVAL 1 month, INTERVAL 3 months)",
    "session": "SELECT * FROM SESSION(clicks, ts, INTERVAL 5 seconds, k)",
    "session_group": "SELECT k, window_start, window_end, count(*) AS n"
    " FROM SESSION(TABLE clicks PARTITION BY k, DESCRIPTOR(ts), INTERVAL 5 seconds) GROUP BY ALL",
    "session_keys": "SELECT id, window_start FROM SESSION(clicks PARTITION BY (k, x % 2), ts, INTERVAL 5 seconds)",
    "session_whole": "SELECT window_start, window_end, sum(x) AS s"
    " FROM SESSION(clicks, ts, INTERVAL 2 seconds) GROUP BY 1, 2",
    "session_bag": "SELECT k, d, window_start, window_end FROM SESSION(bag, d, INTERVAL 3 days, k)",
    "session_cte": "WITH c AS (SELECT k AS key, ts AS moment FROM clicks WHERE x IS NOT NULL)"
    " SELECT key, window_end, max(moment) AS last FROM SESSION(c, moment, INTERVAL 4 seconds, key)"
    " GROUP BY key, window_end",
    "of_each_other": "SELECT window_start, max(n) AS m FROM TUMBLE((SELECT window_end AS moment, k, count(*) AS n"
    " FROM HOP(clicks, ts, INTERVAL 5 seconds, INTERVAL 10 seconds) GROUP BY ALL), moment, INTERVAL 20 seconds)"
    " GROUP BY 1",
    "joined": "SELECT a.id, b.id AS other FROM TUMBLE(clicks, ts, INTERVAL 10 seconds) a"
    " JOIN TUMBLE(clicks, ts, INTERVAL 10 seconds) b ON a.window_start = b.window_start AND a.k = b.k AND a.id < b.id",
    "left_joined": "SELECT c.id, t.n FROM clicks c LEFT JOIN (SELECT k, count(*) AS n"
    " FROM SESSION(clicks, ts, INTERVAL 5 seconds, k) GROUP BY k, window_start HAVING n > 2) t USING (k)",
    "exists": "SELECT id FROM clicks c WHERE EXISTS (SELECT 1 FROM TUMBLE(bag, d, INTERVAL 7 days) t WHERE t.k = c.k"
    " AND t.window_start < c.ts)",
    "whole": "SELECT id, (SELECT max(window_start) FROM TUMBLE(bag, d, INTERVAL 7 days) t WHERE t.d < c.d) AS w"
    " FROM clicks c WHERE x > 3 OR id IN (SELECT id FROM HOP(clicks, ts, INTERVAL 5 seconds, INTERVAL 5 seconds))",
    "of_a_view": "SELECT window_end, sum(n) AS n"
    " FROM TUMBLE((SELECT window_start AS moment, n FROM view_session_group), moment, INTERVAL 20 seconds)"
    " GROUP BY window_end",
}

REFUSED = [
    ("TUMBLE(clicks, ts)", "arguments are not those"),
    ("TUMBLE(clicks, INTERVAL 10 seconds)", "arguments are not those"),
    ("TUMBLE(clicks, ts, INTERVAL 10 seconds, INTERVAL 1 second, INTERVAL 1 second)", "arguments are not those"),
    ("TUMBLE(clicks, ts, INTERVAL 10 seconds, k)", "arguments are not those"),
    ("HOP(clicks, ts, INTERVAL 10 seconds)", "HOP.table, time column, INTERVAL slide, INTERVAL size."),
    ("SESSION(clicks, ts, k)", "arguments are not those"),
    ("TUMBLE('clicks', ts, INTERVAL 10 seconds)", "no table"),
    ("TUMBLE(clicks, k, INTERVAL 10 seconds)", "type VARCHAR"),
    ("TUMBLE(clicks, ts, INTERVAL 0 seconds)", "size is not longer than nothing"),
    ("HOP(clicks, ts, INTERVAL '-1 second', INTERVAL 10 seconds)", "slide is not longer than nothing"),
    ("SESSION(clicks, ts, INTERVAL '-1 second', k)", "gap is not longer than nothing"),
    ("TUMBLE(clicks, ts, 10)", "size is no interval"),
    ("TUMBLE(clicks, ts, INTERVAL '1 month 1 day')", "months beside days"),
    ("HOP(clicks, ts, INTERVAL 1 day, INTERVAL 1 month)", "has months, the other none"),
    ("HOP(clicks, ts, INTERVAL 1 second, INTERVAL 1 day)", "more than 10000 windows"),
    ("TUMBLE(data := clicks, timecol := ts, size := INTERVAL 1 second)", "by place"),
    ("TUMBLE(clicks, ts, INTERVAL 1 second) WITH ORDINALITY", "no order"),
    (
        "TUMBLE((SELECT * FROM TUMBLE(clicks, ts, INTERVAL 1 second)), ts, INTERVAL 1 minute)",
        "has a column window_end",
    ),
]


class Clicks(World):
    """Few keys and times close to each other: sessions merge and split, rows come and leave at window boundaries."""

    def tables(self) -> list[Topic]:
        return [
            self.topic("clicks", 1, "table", ["id"], **CLICKS),
            self.topic("bag", 2, "multiset", [], k="VARCHAR", d="DATE"),
        ]

    def value(self, topic: Topic, name: str, text: str) -> Any:
        if text.startswith("TIMESTAMP") and self.rng.random() > self.NULLS:
            return START + timedelta(milliseconds=500 * self.rng.randrange(120))
        return None if text.startswith("TIMESTAMP") else super().value(topic, name, text)


@pytest.fixture
def clicks(seed: int, tmp_path: Path) -> Iterator[Clicks]:
    print("seed", seed)
    made = Clicks(random.Random(seed), tmp_path, SHAPES)
    yield made
    made.state.close()


def test_time_windows_equal_duckdb_at_every_step(clicks: Clicks) -> None:
    for _ in range(4):
        clicks.step()


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("round_", range(4))
def test_time_windows_over_long_histories(clicks: Clicks, round_: int) -> None:
    print("round", round_)
    for _ in range(25):
        clicks.step()


# ---- what they mean


@pytest.fixture
def rows(seed: int) -> list[Row]:
    """(id, key, time), some without a time."""
    print("seed", seed)
    rng = random.Random(seed)
    times = [
        START + timedelta(milliseconds=500 * rng.randrange(400)) if rng.random() > 0.1 else None for _ in range(200)
    ]
    return [(number, rng.choice(["a", "b", None]), at) for number, at in enumerate(times)]


def answer(call: str, rows: list[Row]) -> Counter[Row]:
    """What DuckDB gives for the rewritten call: (id, window_start, window_end)."""
    view = compiled(f"SELECT id, window_start, window_end FROM {call}")
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE clicks (id BIGINT, k VARCHAR, ts TIMESTAMP)")
        connection.executemany("INSERT INTO clicks VALUES (?, ?, ?)", rows)
        return Counter(connection.execute(view.query).fetchall())


@pytest.mark.parametrize(("slide", "size", "offset"), [(10, 10, 0), (2, 10, 0), (4, 10, 0), (10, 3, 0), (7, 21, 5)])
def test_a_row_is_in_every_window_that_holds_its_time(rows: list[Row], slide: int, size: int, offset: int) -> None:
    intervals = [slide, size, offset] if slide != size else [size, offset]
    written = ", ".join(f"INTERVAL {seconds} seconds" for seconds in intervals)
    found = answer(f"{'TUMBLE' if slide == size else 'HOP'}(clicks, ts, {written})", rows)
    epoch = datetime.fromisoformat("1970-01-01") + offset * SECOND
    wanted = Counter[Row]()
    for number, _, at in rows:
        if at is None:
            continue
        # Every start near the time, on the grid of slides from the epoch.
        nearest = int((at - epoch) / SECOND) // slide
        for step in range(nearest - size // slide - 2, nearest + 2):
            start = epoch + step * slide * SECOND
            if start <= at < start + size * SECOND:
                wanted[number, start, start + size * SECOND] += 1
    assert found == wanted


@pytest.mark.parametrize("keyed", [True, False])
def test_a_session_ends_after_a_gap(rows: list[Row], keyed: bool) -> None:
    found = answer(f"SESSION(clicks, ts, INTERVAL 4 seconds{', k' if keyed else ''})", rows)
    wanted = Counter[Row]()
    for key in {row[1] for row in rows} if keyed else {"all"}:
        mine = sorted((at, number) for number, k, at in rows if at is not None and (k == key or not keyed))
        session: list[tuple[datetime, int]] = []
        for place, (at, number) in enumerate(mine):
            session.append((at, number))
            if place + 1 == len(mine) or mine[place + 1][0] >= at + 4 * SECOND:
                wanted.update((each, session[0][0], at + 4 * SECOND) for _, each in session)
                session = []
    assert found == wanted
    assert len({row[1] for row in found}) > 3, "sessions end"


# ---- what they say


def compiled(sql: str) -> CompiledView:
    tables = [Table(Base("shop.public.clicks", 1, "table"), Schema.of(CLICKS, key=["id"]))]
    return compile_view(parse(sql, name="v"), Relations(tables))


@pytest.mark.parametrize(("call", "what"), REFUSED)
def test_refused_at_its_place(call: str, what: str) -> None:
    sql = f"SELECT count(*) AS n\n  FROM {call}"
    with pytest.raises(UnsupportedSql, match=what) as caught:
        compiled(sql)
    error = caught.value
    assert (error.code, error.line) == ("TIME_WINDOW", 2)
    assert sql.splitlines()[1][error.column - 1 :].startswith(error.sql.splitlines()[0])
    assert error.todo


@pytest.mark.parametrize(
    ("call", "kind", "what"),
    [
        ("TUMBLE(clicks, tss, INTERVAL 1 second)", UnknownColumn, 'Did you mean "ts"'),
        ("TUMBLE(clickz, ts, INTERVAL 1 second)", HeadwaterError, "shop.public.clicks"),
    ],
)
def test_names_are_suggested(call: str, kind: type[HeadwaterError], what: str) -> None:
    with pytest.raises(kind, match=what):
        compiled(f"SELECT count(*) AS n FROM {call}")


def test_explain_shows_them_and_what_they_read() -> None:
    plan = explain(
        compiled("SELECT k, window_end, count(*) AS n FROM SESSION(clicks, ts, INTERVAL 5 seconds, k) GROUP BY ALL")
    )
    assert ("session gap 5 seconds of ts", "by (clicks.k)", "touched-key", "SESSION") in [
        (node.operator, node.detail, node.maintenance, node.reason) for node in plan.nodes
    ]
    assert plan.nodes[-1].detail == "shop.public.clicks (k, ts)"
    plan = explain(compiled("SELECT id, window_end FROM HOP(clicks, ts, INTERVAL 2 seconds, INTERVAL 1 day / 1440)"))
    assert ("hop", "slide 2 seconds, size 60 seconds of ts", "linear") in [
        (node.operator, node.detail, node.maintenance) for node in plan.nodes
    ]
    whole = explain(compiled("SELECT count(*) AS n FROM SESSION(clicks, ts, INTERVAL 5 seconds) GROUP BY window_end"))
    assert "SESSION_WHOLE" in [node.reason for node in whole.nodes]
    assert not whole.is_incremental
