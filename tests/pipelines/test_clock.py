"""Views that read the clock: after every step they are what DuckDB says with ``now()`` at the step's instant.

The oracle's ``now()`` and its kin are macros over the instant, so that the view's own text runs there.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.pipelines.world import Topic, World

from headwater import duck
from headwater_pipelines.compiler import clock
from headwater_pipelines.compiler.comparison import bounds
from headwater_pipelines.compiler.explain import explain

START = datetime(2026, 3, 28, 12, tzinfo=UTC)
MACROS = {
    "get_current_timestamp": "now()",
    "transaction_timestamp": "now()",
    "current_date": "CAST(now() AS DATE)",
    "today": "CAST(now() AS DATE)",
    "current_localtimestamp": "CAST(now() AS TIMESTAMP)",
    "current_localtime": "CAST(CAST(now() AS TIMESTAMP) AS TIME)",
    "get_current_time": "CAST(now() AS TIMETZ)",
}
RANGES = {
    "recent": "SELECT id, k FROM items WHERE ts > now() - INTERVAL 1 DAY",
    "naive": "SELECT id FROM items WHERE tn >= now() - INTERVAL 3 HOUR AND tn < current_timestamp",
    "between": "SELECT id, ts FROM items WHERE ts BETWEEN now() - INTERVAL 2 HOUR AND now() + INTERVAL 1 HOUR",
    "valid": "SELECT k, n FROM spans WHERE now() BETWEEN a AND b",
    "moved": "SELECT id FROM items WHERE now() < ts + INTERVAL '1 month 2 days' AND tn - INTERVAL 1 HOUR <= now()",
    "day": "SELECT id FROM items WHERE d = current_date",
    "days": "SELECT id FROM items WHERE d BETWEEN today() - 2 AND today() - 1",
    "hour": "SELECT id FROM items WHERE ts >= date_trunc('hour', now())",
    "either": "SELECT id FROM items WHERE a > 3 OR ts > now() OR NOT (tn <= localtimestamp)",
    "equal": "SELECT id, d IS DISTINCT FROM current_date AS other FROM items",
    "case": "SELECT id, CASE WHEN ts < now() - INTERVAL 1 DAY THEN 'old' WHEN ts < now() THEN 'new' ELSE 'to come' END"
    " AS s FROM items",
    "guarded": "SELECT id FROM items WHERE CASE WHEN s LIKE '%-%' THEN CAST(s AS TIMESTAMP) > now() END",
    "group": "SELECT k, count(*) AS n, sum(a) AS sa FROM items WHERE ts > now() - INTERVAL 1 DAY GROUP BY k",
    "filtered": "SELECT k, count(*) FILTER (WHERE ts > now() - INTERVAL 1 HOUR) AS n1,"
    " sum(CASE WHEN ts > now() THEN a END) AS s1, count(*) AS n FROM items GROUP BY k",
    "filtered_max": "SELECT k, max(a) FILTER (WHERE ts > now() - INTERVAL 1 HOUR) AS m FROM items GROUP BY k",
    "bucket": "SELECT CASE WHEN d < current_date - 1 THEN 'late' WHEN d = current_date THEN 'today' ELSE 'open' END"
    " AS b, count(*) AS n FROM items GROUP BY b",
    "having": "SELECT k, count(*) AS n FROM items GROUP BY k HAVING max(ts) > now() - INTERVAL 6 HOUR",
    "joined": "SELECT i.id, s.n FROM items i JOIN spans s ON i.k = s.k AND s.a <= now() AND now() < s.b",
    "left_joined": "SELECT i.id, s.n FROM items i LEFT JOIN spans s ON i.k = s.k AND now() < s.b",
    "exists": "SELECT id FROM items i WHERE EXISTS (SELECT 1 FROM spans s WHERE s.k = i.k AND s.b > now())",
    "correlated": "SELECT id, (SELECT count(*) FROM spans s WHERE s.k = i.k AND s.b > now()) AS n FROM items i",
    "distinct": "SELECT DISTINCT k FROM items WHERE ts > ago(INTERVAL 1 DAY)",
    "ranked": "SELECT id, row_number() OVER (PARTITION BY k ORDER BY ts, id) AS r FROM items WHERE ts < now()",
    "windowed": "SELECT id, count(*) FILTER (WHERE ts > now()) OVER (PARTITION BY k) AS n FROM items",
    "since": "SELECT id FROM items WHERE now() - ts < INTERVAL 1 HOUR AND localtimestamp - tn >= INTERVAL '-2 days'",
    "since_days": "SELECT id, current_date - d > 1 AS old FROM items",
    "since_between": "SELECT id FROM items WHERE now() - tn BETWEEN INTERVAL 1 HOUR AND INTERVAL 25 HOUR"
    " OR now() - d < INTERVAL 2 DAY",
    "state": "SELECT id FROM (SELECT id, CASE WHEN ts < now() THEN 'late' ELSE 'open' END AS s FROM items)"
    " WHERE s = 'late'",
    "nested": "SELECT id FROM items WHERE (ts > now()) = (a > 2)",
    "closed": "SELECT k, window_start, window_end, count(*) AS n FROM TUMBLE(items, ts, INTERVAL 1 HOUR) GROUP BY ALL"
    " HAVING window_end <= now() - INTERVAL 5 MINUTE",
    "closed_session": "SELECT k, window_end, count(*) AS n FROM SESSION(items, tn, INTERVAL 2 HOUR, k)"
    " WHERE window_end <= now() GROUP BY ALL",
    "closed_hop": "SELECT window_end, count(*) AS n FROM HOP(items, tn, INTERVAL 30 MINUTE, INTERVAL 1 HOUR)"
    " WHERE window_end <= localtimestamp GROUP BY ALL",
    "on_view": "SELECT k, count(*) AS n FROM view_recent GROUP BY k",
    "on_view_group": "SELECT n, count(*) AS c FROM view_group GROUP BY n",
    "union": "SELECT id FROM items WHERE ts > now() UNION ALL SELECT a FROM items WHERE tn > now()",
    "self_join": "SELECT x.id AS x, y.id AS y FROM items x JOIN items y ON x.k = y.k"
    " WHERE x.ts < now() AND y.ts > now()",
    "cte": "WITH live AS (SELECT * FROM items WHERE ts > now() - INTERVAL 1 DAY) SELECT a.id, b.n FROM live a"
    " JOIN (SELECT k, count(*) AS n FROM live GROUP BY k) b USING (k)",
    "bag": "SELECT k, count(*) AS n FROM seen WHERE t > now() - INTERVAL 1 DAY GROUP BY k",
    "bag_rows": "SELECT k FROM seen WHERE t > now() - INTERVAL 1 DAY",
}
"""Shapes whose rows change only where their time has come."""
WHOLE = {
    "shown": "SELECT id, now() AS t, ts - now() AS d FROM items",
    "unnamed": "SELECT now(), current_timestamp, today(), id FROM items",
    "only": "SELECT now() AS n, current_date AS d, localtime AS t, current_time::VARCHAR AS z",
    "difference": "SELECT id FROM items WHERE now() - ts < INTERVAL 1 MONTH",
    "differences": "SELECT id FROM items WHERE now() - ts BETWEEN INTERVAL 1 HOUR AND a * INTERVAL 1 HOUR",
    "ages": "SELECT id, current_date - d AS days, age(localtimestamp, tn) AS a FROM items",
    "age_groups": "SELECT date_diff('day', d, current_date) AS age, count(*) AS n FROM items GROUP BY ALL",
    "shown_in_group": "SELECT k, current_date AS day, count(*) AS n FROM items WHERE d = current_date GROUP BY k",
    "series": "SELECT g.day::DATE AS day, count(id) AS n FROM generate_series(current_date - 2, current_date,"
    " INTERVAL 1 DAY) g(day) LEFT JOIN items ON d = g.day::DATE GROUP BY 1",
    "full_joined": "SELECT i.id, s.n FROM items i FULL JOIN spans s ON i.k = s.k AND i.ts < now()",
    "left_of_join": "SELECT i.id, s.n FROM items i LEFT JOIN spans s ON i.k = s.k AND i.ts < now()",
    "in_query": "SELECT id FROM items WHERE k IN (SELECT k FROM spans WHERE b > now()) OR ts > now()",
    "top": "SELECT id, ts FROM items WHERE ts < now() ORDER BY ts DESC, id LIMIT 3",
    "text": "SELECT id FROM items WHERE s < strftime(now(), '%Y-%m-%d')",
    "shadowed": "SELECT id FROM (SELECT id, d AS current_date FROM items) WHERE current_date > DATE '2026-03-28'",
    "both": "SELECT id, ts > now() AS later, now() AS t FROM items",
    "in_lambda": "SELECT id, list_filter([ts, tn::TIMESTAMPTZ], lambda x: x > now()) AS l FROM items",
    "max_in_lambda": "SELECT k, max(len(list_filter([ts], lambda x: x > now()))) AS n FROM items GROUP BY k",
    "known": "SELECT id FROM items WHERE ts > nullif(date_trunc('hour', now()), TIMESTAMPTZ '2026-03-28 13:00:00+00')",
    "recursive": "WITH RECURSIVE r(n) AS (SELECT 1 UNION SELECT n + 1 FROM r WHERE n < extract(hour FROM now()))"
    " SELECT n FROM r",
}  # fmt: skip


class ClockWorld(World):
    """Rows whose times lie around an instant that moves; the oracle's clock shows it."""

    now = START

    def tables(self) -> list[Topic]:
        return [
            self.topic("items", 1, "table", ["id"], id="BIGINT", k="VARCHAR", a="INTEGER", s="VARCHAR",
                       ts="TIMESTAMP WITH TIME ZONE", tn="TIMESTAMP", d="DATE"),
            self.topic("spans", 2, "table", ["k"], k="VARCHAR", a="TIMESTAMP WITH TIME ZONE", b="TIMESTAMP",
                       n="INTEGER"),
            self.topic("seen", 3, "multiset", [], k="VARCHAR", t="TIMESTAMP"),
        ]  # fmt: skip

    def compile(self, shapes: Mapping[str, str]) -> Any:
        self.show()
        for name, body in MACROS.items():
            self.oracle.execute(f"CREATE MACRO memory.main.{name}() AS {body}")
        return super().compile(shapes)

    def show(self) -> None:
        self.oracle.execute(f"CREATE OR REPLACE MACRO memory.main.now() AS TIMESTAMPTZ '{self.now.isoformat()}'")

    def value(self, topic: Topic, name: str, text: str) -> Any:
        rng = self.rng
        if name == "s":
            return rng.choice(["", "x", "2026-03-28", "2027-01-01", None])
        hours = rng.choice([-800, -50, -25, -24, -23, -6, -2, -1, 0, 1, 2, 3, 24, rng.randrange(-48, 48)])
        moment = START.replace(tzinfo=None) + timedelta(hours=hours, minutes=rng.choice([0, 0, 30]))
        if text == "TIMESTAMP WITH TIME ZONE" and rng.random() > self.NULLS:
            return moment.replace(tzinfo=UTC)
        if text in ("TIMESTAMP", "DATE") and rng.random() > self.NULLS:
            return moment if text == "TIMESTAMP" else moment.date()
        return None if text.startswith(("TIME", "DATE")) else super().value(topic, name, text)

    def move(self, by: timedelta, *, changes: bool) -> None:
        """A step in which time passes, with changes of rows or without."""
        self.now += by
        self.show()
        self.apply(self.batch() if changes else [])
        self.compare_all()


MOVES = [timedelta(minutes=30), timedelta(hours=1), timedelta(hours=-2), timedelta(days=1), timedelta(seconds=1),
         timedelta(days=-1, hours=3), timedelta(days=90), timedelta(days=-90), timedelta(0),
         timedelta(hours=11)]  # fmt: skip
"""Forwards, back, across midnight, long downtime and its return."""


@pytest.fixture
def world(seed: int, tmp_path: Path) -> Iterator[ClockWorld]:
    print("seed", seed)
    rng = random.Random(seed)
    shapes = {name: sql for name, sql in (RANGES | WHOLE).items() if rng.random() < 0.3}
    shapes = {"recent": RANGES["recent"], "group": RANGES["group"], **shapes}
    made = ClockWorld(rng, tmp_path, shapes)
    yield made
    made.state.close()


def test_views_follow_the_clock_forwards_and_back(world: ClockWorld) -> None:
    world.step()
    world.step()
    for by in world.rng.sample(MOVES, 3):
        world.move(by, changes=world.rng.random() < 0.5)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Pacific/Kiritimati"])
def test_every_shape_follows_the_clock(zone: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    print("seed", seed)
    monkeypatch.setattr(ClockWorld, "ZONE", zone)
    world = ClockWorld(random.Random(seed), tmp_path, RANGES | WHOLE)
    for _ in range(3):
        world.step()
    for by in MOVES * 2:
        world.move(by, changes=world.rng.random() < 0.7)
    world.state.close()


def test_only_rows_whose_time_has_come_are_looked_at(tmp_path: Path) -> None:
    made = ClockWorld(random.Random(0), tmp_path, RANGES)
    made.state.close()
    for name, view in zip(RANGES, made.views.values(), strict=True):
        plan = explain(view)
        reasons = {node.reason for node in plan.nodes}
        assert ("CLOCK_RANGE" in reasons, "CLOCK" in reasons, plan.is_incremental) == (True, False, True), name


@pytest.mark.parametrize("zone", ["UTC", "Etc/GMT+12", "Pacific/Kiritimati"])
def test_the_age_of_one_argument_is_what_duckdb_takes_it_for(zone: str) -> None:
    """The oracle's ``age(x)`` knows no other clock than the machine's, so that both are asked about now."""
    with duck.connect(timezone=zone) as connection:
        for value in ("TIMESTAMP '2024-02-29 13:00:00'", "TIMESTAMPTZ '2024-02-29 13:00:00+05'", "DATE '2024-02-29'"):
            meaning = clock.of_argument("age", value)
            query = f"SELECT age({value}), {meaning} FROM (SELECT now() AS now) AS clock"
            ((native, ours),) = connection.execute(query).fetchall()
            assert native == ours, value


SHIFTS = ("", "INTERVAL 1 MONTH", "INTERVAL '1 year 2 months 3 days'", "-INTERVAL 1 DAY", "INTERVAL 5 HOUR")


@pytest.mark.parametrize(
    "zone", ["America/St_Johns", *(pytest.param(zone, marks=pytest.mark.long) for zone in ("UTC", "Europe/Berlin"))]
)
def test_a_range_of_stored_times_has_room_for_months_and_zones(zone: str) -> None:
    """Every time of two years lies in the range that is scanned for its value, however far that is ahead."""
    with duck.connect(timezone=zone) as connection:
        for text in ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "DATE"):
            for shift in SHIFTS:
                low, high = bounds(text, shift)
                value = f"CAST(t{f' + ({shift})' if shift else ''} AS TIMESTAMPTZ)"
                rows = connection.execute(
                    f"SELECT t FROM (SELECT CAST(TIMESTAMPTZ '2024-01-01' + to_hours(h) AS {text}) AS t"
                    f" FROM range(24 * 731) r(h)) WHERE NOT coalesce(t BETWEEN {low.format(v=value)}"
                    f" AND {high.format(v=value)}, false) LIMIT 3"
                ).fetchall()
                assert not rows, (text, shift)
