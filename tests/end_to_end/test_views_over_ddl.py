"""Views while the shape of their tables changes: they wait, follow, or say why they cannot; the others go on."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import psycopg
import pytest
from tests.connectors.conftest import Captured
from tests.waiting import until

from headwater.config import Settings
from headwater.lake import open_lake
from headwater_connectors.postgres import copying, testing
from headwater_pipelines import api
from headwater_pipelines.runtime import worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headwater_connectors.postgres.embedded import EmbeddedPostgres

VIEWS = {
    "per_who": "SELECT who, count(*) AS n, sum(n) AS total FROM orders GROUP BY who",
    "joined": "SELECT orders.id, orders.n, others.v FROM orders JOIN others USING (id)",
    "alone": "SELECT count(*) AS n FROM others",
}


@pytest.fixture
def shop(server: EmbeddedPostgres, tmp_path: Path) -> Iterator[Captured]:
    with testing.database(server.dsn()) as dsn:
        captured = Captured(dsn, tmp_path / "lake")
        yield captured
        captured.close()


def states(shop: Captured) -> dict[str, str]:
    """The views' states once they have seen everything there is."""
    worker.run(shop.log, Settings(), threading.Event(), until_caught_up=True)
    return {view.name: view.state for view in shop.log.views()}


def assert_equal(shop: Captured, *names: str) -> None:
    for name in names:
        query = VIEWS[name]
        rows = f"(FROM {name} EXCEPT ALL ({query})) UNION ALL (({query}) EXCEPT ALL FROM {name})"
        assert shop.lake(rows) == [], name
        assert shop.lake(f"SELECT count(*) > 0 FROM {name}") == [(True,)], name


@pytest.mark.long
def test_views_over_changes_of_shape(shop: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "AGAIN_SECONDS_MAX", 0.1)  # a copy that gave way is tried again at once
    shop.run(
        "CREATE TABLE orders (id int PRIMARY KEY, who text, n int NOT NULL)",
        "INSERT INTO orders SELECT i, 'w' || i % 3, i FROM generate_series(1, 30) i",
        "CREATE TABLE others (id int PRIMARY KEY, v text)",
        "INSERT INTO others SELECT i, 'v' || i FROM generate_series(1, 10) i",
    )
    shop.catch_up()
    for name, query in VIEWS.items():
        api.create_view(shop.log, query, name=name)
    assert set(states(shop).values()) == {"live"}
    assert_equal(shop, *VIEWS)

    # Rows are written anew, and somebody's lock keeps the table from being copied.
    with shop.running(), psycopg.connect(shop.dsn) as first, psycopg.connect(shop.dsn) as second:
        first.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        locking = threading.Thread(target=second.execute, args=["LOCK TABLE orders IN ACCESS EXCLUSIVE MODE"])
        locking.start()
        first.execute("ALTER TABLE orders ALTER n TYPE int USING n * 10; INSERT INTO orders VALUES (31, 'new', 7)")
        first.commit()
        locking.join()
        until(lambda: shop.log.topic("shop.public.orders").state == "reshaping", "reshaping")
        shop.run("INSERT INTO others VALUES (11, 'v11')")
        until(lambda: shop.lake("SELECT count(*) FROM others") == [(11,)], "the other table")
        assert states(shop) == {"per_who": "waiting", "joined": "waiting", "alone": "live"}
        assert "reshaping" in shop.log.view("joined").reason
        assert_equal(shop, "alone")
        with open_lake(shop.folder) as lake:
            assert "is reshaping" in str(lake.sql("SELECT count(*) FROM orders"))
            assert lake.sql("SELECT sum(total) FROM per_who").scalar() == 465, "as it was before"
        second.rollback()
        until(lambda: shop.log.topic("shop.public.orders").state == "live", "the copy")
    assert set(states(shop).values()) == {"live"}
    assert_equal(shop, *VIEWS)
    assert shop.lake("SELECT sum(total) FROM per_who") == [(4657,)]

    shop.run("ALTER TABLE orders DROP who")
    shop.catch_up()
    assert states(shop) == {"per_who": "failed", "joined": "live", "alone": "live"}
    assert "who" in shop.log.view("per_who").reason
    shop.run("INSERT INTO others VALUES (31, 'v31')")
    shop.catch_up()
    assert states(shop)["joined"] == "live"
    assert_equal(shop, "joined", "alone")

    shop.run(
        "DROP TABLE orders",
        "CREATE TABLE orders (id int PRIMARY KEY, who text, n int NOT NULL)",
        "INSERT INTO orders VALUES (1, 'again', 1), (31, 'again', 2)",
    )
    shop.catch_up()
    assert set(states(shop).values()) == {"live"}
    assert_equal(shop, *VIEWS)
