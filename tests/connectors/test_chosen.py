"""What of a table is captured: columns and rows that the project chooses, generated columns, origins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from headwater.config import TableConfig
from headwater.errors import SourceNotReady
from headwater.lake.status import status
from headwater_connectors.postgres import check, requests, tending
from headwater_connectors.postgres.chunks import CHUNK_PAGES
from headwater_connectors.postgres.source import PostgresSource

if TYPE_CHECKING:
    from tests.connectors.conftest import Captured

ORDERS = (
    "CREATE TABLE orders (region text, id int, cents int, secret text, PRIMARY KEY (region, id))",
    "INSERT INTO orders SELECT 'r' || i % 3, i, i * 100, 'x' FROM generate_series(1, 300) i",
)


@pytest.fixture(params=["binary", pytest.param("text", marks=pytest.mark.long)])
def either(request: pytest.FixtureRequest, shop: Captured) -> Captured:
    shop.mode = request.param
    return shop


def _version(shop: Captured) -> int:
    return shop.connection.info.server_version


def _same(shop: Captured, table: str, columns: str = "*", where: str = "true") -> None:
    shop.assert_equal(table, columns=columns, where=where)
    compared = PostgresSource().verify(shop.source, shop.log, lambda _: None)
    assert [(each.differences, each.skipped) for each in compared] == [(0, "")]


def test_only_the_chosen_columns_and_rows_are_captured(either: Captured) -> None:
    """Copied, streamed, compared and copied again; a row that leaves the condition is deleted, one that enters made."""
    shop = either
    shop.table = {
        "public.orders": TableConfig(columns=("region", "id", "cents"), where="region <> 'r1' AND id % 2 = 0")
    }
    shown = {"columns": "region, id, cents", "where": "region <> 'r1' AND id % 2 = 0"}
    shop.run(*ORDERS)
    shop.catch_up()
    _same(shop, "orders", **shown)
    assert shop.log.topic("orders").schema.names == ("region", "id", "cents")
    shop.run(
        "UPDATE orders SET cents = cents + 1, secret = 'y'",
        "UPDATE orders SET region = 'r1' WHERE region = 'r0' AND id < 100",
        "UPDATE orders SET region = 'r2' WHERE region = 'r1' AND id > 200",
        "INSERT INTO orders VALUES ('r1', 1000, 1, 's'), ('r2', 1002, 2, 's')",
        "DELETE FROM orders WHERE id = 5 OR id = 8",
    )
    shop.catch_up()
    _same(shop, "orders", **shown)
    assert "d" in {row["_op"] for row in shop.changes("orders")}
    shop.run(
        "UPDATE orders SET cents = 7", "ALTER TABLE orders ALTER secret TYPE varchar(9), ADD more int DEFAULT 5",
        "UPDATE orders SET more = 6, cents = 8 WHERE id > 20",
    )  # fmt: skip
    requests.ask_copy(shop.log, "shop", "public.orders")
    shop.catch_up()
    assert shop.log.topic("orders").schema.names == ("region", "id", "cents")
    _same(shop, "orders", **shown)


@pytest.mark.long
def test_another_choice_is_copied_again(shop: Captured) -> None:
    """Fewer and more columns, another condition, none; the topic stays, and what was added has its values."""
    shop.run(*ORDERS)
    shop.catch_up()
    topic = shop.log.topic("orders").id
    choices = [
        TableConfig(columns=("region", "id")),
        TableConfig(columns=("region", "id", "secret")),
        TableConfig(where="id < 100"),
        TableConfig(where="orders.id > 50 AND region = 'r2'"),
        TableConfig(),
    ]
    for choice in choices:
        shop.table = {"public.orders": choice}
        shop.run("UPDATE orders SET cents = cents + 1", "INSERT INTO orders SELECT 'r0', max(id) + 1 FROM orders")
        shop.catch_up()
        listed = ", ".join(choice.columns) or "*"
        _same(shop, "orders", columns=listed, where=choice.where or "true")
        shop.run("UPDATE orders SET cents = cents + 1 WHERE id % 2 = 0", "DELETE FROM orders WHERE id % 50 = 7")
        shop.catch_up()
        _same(shop, "orders", columns=listed, where=choice.where or "true")
    assert shop.log.topic("orders").id == topic


def test_chunks_beside_a_stream_honour_the_condition(shop: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that moved between two chunks are read again, and those outside of the condition are not."""
    assert CHUNK_PAGES > 2
    monkeypatch.setattr("headwater_connectors.postgres.chunks.CHUNK_PAGES", 2)
    shop.table = {"public.big": TableConfig(columns=("id", "v"), where="id % 3 = 0")}
    shop.run(
        "CREATE TABLE big (id int PRIMARY KEY, v text, w text)",
        "INSERT INTO big SELECT i, repeat('x', 100), 'w' FROM generate_series(1, 3000) i",
    )
    with shop.running(), psycopg.connect(shop.dsn, autocommit=True) as other:
        for number in range(20):
            other.execute("UPDATE big SET id = id + 100000 WHERE id %% 20 = %s AND id < 3000", [number])
    shop.catch_up()
    _same(shop, "big", columns="id, v", where="id % 3 = 0")


@pytest.mark.parametrize(
    ("table", "choice", "what"),
    [
        ("id int PRIMARY KEY, v text", TableConfig(columns=("v",)), "lacks id, which is part of the key"),
        ("id int PRIMARY KEY, v text", TableConfig(columns=("id", "w")), "names w, which is no column of it"),
        ("id int PRIMARY KEY, v text", TableConfig(where="v <> 'x'"), "`where` uses v, which is not part of the key"),
        ("id int PRIMARY KEY, v text", TableConfig(where="id <"), "syntax error"),
        ("id int PRIMARY KEY, v text", TableConfig(where="w = 1"), 'column "w" does not exist'),
    ],
)
def test_a_choice_that_would_hurt_is_refused(shop: Captured, table: str, choice: TableConfig, what: str) -> None:
    shop.table = {"public.t": choice}
    shop.run(f"CREATE TABLE t ({table})", "INSERT INTO t VALUES (1, 'a')")
    with pytest.raises(SourceNotReady, match=what):
        shop.catch_up()
    shop.run("UPDATE t SET v = 'b'", "DELETE FROM t")


def test_a_choice_refused_later_leaves_only_that_table(shop: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """FULL identity and a column list, or another key than the condition's: the application's UPDATE must not fail."""
    monkeypatch.setattr(tending, "SURVEY_SECONDS", 0.2)
    shop.run(
        *ORDERS, "CREATE TABLE other (id int PRIMARY KEY, v text)", "CREATE TABLE third (id int PRIMARY KEY, n int)"
    )
    shop.run("INSERT INTO third VALUES (1, 1)", "INSERT INTO other VALUES (1, 'a')")
    shop.table = {
        "public.orders": TableConfig(columns=("region", "id")),
        "public.third": TableConfig(where="id > 0"),
    }
    shop.catch_up()
    shop.run("ALTER TABLE orders REPLICA IDENTITY FULL", "INSERT INTO other VALUES (2, 'b')")
    shop.run("ALTER TABLE third DROP CONSTRAINT third_pkey, ADD PRIMARY KEY (n)")
    shop.catch_up()
    shop.run("UPDATE orders SET cents = 1", "DELETE FROM orders WHERE id = 1", "UPDATE third SET id = 5")
    shop.assert_equal("other")
    topics = {topic.name: (topic.state, topic.reason) for topic in shop.log.topics()}
    assert topics["shop.public.orders"][0] == "quarantined"
    assert "REPLICA IDENTITY FULL" in topics["shop.public.orders"][1] or "FULL" in topics["shop.public.orders"][1]
    assert "not part of the key" in topics["shop.public.third"][1]


def test_stored_generated_columns_are_captured_where_the_server_sends_them(either: Captured) -> None:
    """From PostgreSQL 18 on; virtual ones never are, and both are reported where they are left out."""
    shop = either
    new = _version(shop) >= 180_000
    virtual = ", v int GENERATED ALWAYS AS (n + 1) VIRTUAL" if new else ""
    shop.run(
        "CREATE TABLE orders"
        f" (id int PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED{virtual}, w text)",
        "INSERT INTO orders (id, n) VALUES (1, 1), (2, NULL)",
        "CREATE TABLE whole (id int, twice int GENERATED ALWAYS AS (id * 2) STORED)",
        "ALTER TABLE whole REPLICA IDENTITY FULL", "INSERT INTO whole VALUES (1), (1)",
    )  # fmt: skip
    shop.catch_up()
    shop.run(
        "UPDATE orders SET n = 5 WHERE id = 1", "INSERT INTO orders (id, n) VALUES (3, 3)",
        "DELETE FROM orders WHERE id = 2",
        "UPDATE whole SET id = 4 WHERE ctid = '(0,1)'", "INSERT INTO whole VALUES (7)",
    )  # fmt: skip
    shop.catch_up()
    sent = "id, n, twice, w" if new else "id, n, w"
    assert ", ".join(shop.log.topic("orders").schema.names) == sent
    shop.assert_equal("orders", columns=sent)
    shop.assert_equal("whole", columns="id, twice" if new else "id")
    said = [each.what for each in check.source(shop.source, shop.connection, shop.log)]
    omitted = ["v of public.orders"] if new else ["twice of public.orders", "twice of public.whole"]
    assert [name for name in omitted if any(name in what for what in said)] == omitted
    shop.run(
        "ALTER TABLE orders ADD thrice int GENERATED ALWAYS AS (n * 3) STORED", "UPDATE orders SET n = 6 WHERE id = 3",
        "ALTER TABLE orders ALTER twice DROP EXPRESSION", "UPDATE orders SET twice = 77 WHERE id = 1",
    )  # fmt: skip
    shop.catch_up()
    sent = "id, n, twice, w, thrice" if new else "id, n, twice, w"
    shop.assert_equal("orders", columns=sent)
    shop.run("UPDATE orders SET n = 8", "INSERT INTO orders (id, n, twice) VALUES (9, 9, 1)")
    shop.catch_up()
    shop.assert_equal("orders", columns=sent)


def test_publications_of_an_earlier_release_get_generated_columns(shop: Captured) -> None:
    if _version(shop) < 180_000:
        pytest.skip("the server publishes no generated columns")
    shop.run("CREATE TABLE orders (id int PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED)")
    shop.catch_up()
    shop.run(
        "INSERT INTO orders VALUES (1, 1)", "ALTER PUBLICATION headwater_shop SET (publish_generated_columns = none)"
    )
    shop.run("INSERT INTO orders VALUES (2, 2)")
    shop.catch_up()
    shop.run("UPDATE orders SET n = 4 WHERE id = 1")
    shop.catch_up()
    shop.assert_equal("orders")


@pytest.mark.parametrize("origin", ["any", "none"])
def test_what_the_server_received_by_replication(shop: Captured, origin: str) -> None:
    """Its messages say where it came from, also inside of transactions in progress; `none` leaves it out."""
    if origin == "none" and _version(shop) < check.ORIGIN_VERSION:
        pytest.skip("the server cannot leave it out")
    shop.origin = origin
    shop.run("CREATE TABLE orders (id int PRIMARY KEY, v text)", "ALTER SYSTEM SET logical_decoding_work_mem = '64kB'")
    shop.run("SELECT pg_reload_conf()")
    name = f"origin_{shop.connection.info.dbname}"
    try:
        shop.catch_up()
        shop.run(f"SELECT pg_replication_origin_create('{name}')")
        with psycopg.connect(shop.dsn, autocommit=True) as other:
            other.execute(f"SELECT pg_replication_origin_session_setup('{name}')".encode())
            other.execute("INSERT INTO orders VALUES (1, 'from afar')")
            other.execute("INSERT INTO orders SELECT i, repeat('x', 50) FROM generate_series(10, 5000) i")
        shop.run("INSERT INTO orders VALUES (2, 'own')")
        shop.catch_up()
        shop.assert_equal("orders", where="true" if origin == "any" else "id = 2")
    finally:
        shop.run("ALTER SYSTEM RESET logical_decoding_work_mem", "SELECT pg_reload_conf()")
        shop.run(f"SELECT pg_replication_origin_drop('{name}')")


def test_what_cannot_be_captured_is_named_with_its_reason(shop: Captured) -> None:
    shop.run(
        "CREATE TABLE orders (id int PRIMARY KEY)", "CREATE VIEW seen AS SELECT * FROM orders",
        "CREATE MATERIALIZED VIEW kept AS SELECT * FROM orders", "CREATE UNLOGGED TABLE quick (id int PRIMARY KEY)",
        "CREATE FOREIGN DATA WRAPPER nothing", "CREATE SERVER away FOREIGN DATA WRAPPER nothing",
        "CREATE FOREIGN TABLE far (id int) SERVER away", "CREATE TEMP TABLE brief (id int)",
        "CREATE TABLE narrow (id int PRIMARY KEY)",
    )  # fmt: skip
    shop.catch_up()
    shop.table = {"public.narrow": TableConfig(columns=("other",))}
    left = {"seen": "a view", "kept": "a materialized view", "quick": "an unlogged", "far": "a foreign"}
    said = [each.what for each in check.source(shop.source, shop.connection, shop.log)]
    for name, why in left.items():
        assert any(what.startswith(f"public.{name} is left out: it is {why}") for what in said), name
    with shop.running():
        found = shop.until(lambda: status(shop.log)["sources"][0], lambda each: "narrow" in (each["left_out"] or ""))
    for name, why in left.items():
        assert f"public.{name}: {why}" in found["left_out"]
    assert "public.narrow: it cannot be published: `columns` names other" in found["left_out"]
    assert "brief" not in found["left_out"]


def test_a_table_that_is_not_logged_for_a_while(shop: Captured) -> None:
    """The server refuses it of a published table; of one that was taken out, the topic ends meanwhile."""
    shop.run("CREATE TABLE orders (id int PRIMARY KEY, v text)", "INSERT INTO orders VALUES (1, 'a')")
    shop.run("CREATE TABLE other (id int PRIMARY KEY)")
    shop.catch_up()
    with pytest.raises(psycopg.Error, match="publication"):
        shop.run("ALTER TABLE orders SET UNLOGGED")
    shop.run("ALTER PUBLICATION headwater_shop DROP TABLE orders", "ALTER TABLE orders SET UNLOGGED")
    shop.run("UPDATE orders SET v = 'unlogged'")
    shop.catch_up()
    assert "shop.public.orders" not in {topic.name for topic in shop.log.topics()}
    shop.run("ALTER TABLE orders SET LOGGED", "INSERT INTO orders VALUES (2, 'b')")
    shop.catch_up()
    shop.assert_equal("orders")
    shop.run("UPDATE orders SET v = 'logged'")
    shop.catch_up()
    shop.assert_equal("orders")


def test_tables_that_inherit_are_tables_of_their_own(shop: Captured) -> None:
    """Copied and streamed without each other's rows; one without a key does not hurt, though its parent has one."""
    shop.run(
        "CREATE TABLE towns (name text PRIMARY KEY, height int)",
        "CREATE TABLE capitals (country text, PRIMARY KEY (name)) INHERITS (towns)",
        "CREATE TABLE villages (inns int) INHERITS (towns)", "CREATE SCHEMA apart",
        "CREATE TABLE apart.hamlets () INHERITS (towns)",
        "INSERT INTO towns VALUES ('Basel', 260)", "INSERT INTO capitals VALUES ('Bern', 540, 'CH')",
        "INSERT INTO villages VALUES ('Guarda', 1653, 2)", "INSERT INTO apart.hamlets VALUES ('Ova', 1)",
    )  # fmt: skip
    shop.catch_up()
    shop.run(
        "UPDATE towns SET height = height + 1", "DELETE FROM apart.hamlets",
        "INSERT INTO capitals VALUES ('Rom', 21, 'IT')",
        "ALTER TABLE towns ADD note text DEFAULT 'n'", "INSERT INTO villages VALUES ('Soglio', 1097, 3)",
    )  # fmt: skip
    shop.catch_up()
    for table in ("towns", "capitals"):
        theirs = sorted(shop.source_rows(f"SELECT * FROM ONLY {table}"))
        assert sorted(shop.lake(f"SELECT * FROM {table}")) == theirs
    assert [row["name"] for row in shop.changes("villages")] == ["Guarda", "Soglio"]
    assert {topic.name for topic in shop.log.topics() if topic.kind != "transactions"} == {
        "shop.public.towns", "shop.public.capitals", "shop.public.villages",
    }  # fmt: skip
    [(members,)] = shop.source_rows("SELECT count(*) FROM pg_publication_tables WHERE pubname LIKE 'headwater_shop%'")
    assert members == 3


def test_partitions_of_partitions_with_columns_in_another_order(either: Captured) -> None:
    shop = either
    shop.run(
        "CREATE TABLE events (day date, kind text, id int, v text, PRIMARY KEY (day, kind, id))"
        " PARTITION BY RANGE (day)",
        "CREATE TABLE january (id int, gone int, v text, kind text NOT NULL, day date NOT NULL,"
        " PRIMARY KEY (day, kind, id)) PARTITION BY LIST (kind)",
        "ALTER TABLE january DROP gone",
        "CREATE TABLE january_a (v text, kind text NOT NULL, id int, day date NOT NULL, PRIMARY KEY (day, kind, id))",
        "ALTER TABLE january ATTACH PARTITION january_a FOR VALUES IN ('a')",
        "CREATE TABLE january_rest PARTITION OF january DEFAULT",
        "ALTER TABLE events ATTACH PARTITION january FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')",
        "CREATE TABLE later PARTITION OF events DEFAULT",
        "INSERT INTO events SELECT '2026-01-01'::date + i, chr(97 + i % 3), i, 'v' FROM generate_series(0, 60) i",
    )
    shop.catch_up()
    shop.assert_equal("events")
    created = shop.log.topic("events").id
    shop.run(
        "UPDATE events SET v = 'w' WHERE id % 2 = 0", "UPDATE events SET kind = 'a' WHERE id = 4",
        "UPDATE events SET day = '2026-03-03' WHERE id = 5", "DELETE FROM january_a WHERE id = 6",
        "INSERT INTO january_a VALUES ('direct', 'a', 100, '2026-01-09')", "TRUNCATE january_rest",
        "UPDATE january SET v = 'middle' WHERE id = 9",
    )  # fmt: skip
    shop.catch_up()
    shop.assert_equal("events")
    shop.run("ALTER TABLE january DETACH PARTITION january_a", "UPDATE january_a SET v = 'alone'")
    shop.run("INSERT INTO events VALUES ('2026-01-03', 'b', 200, 'x')")
    shop.catch_up()
    shop.assert_equal("events")
    shop.run("ALTER TABLE january ATTACH PARTITION january_a FOR VALUES IN ('a')", "DELETE FROM events WHERE id = 12")
    shop.catch_up()
    shop.assert_equal("events")
    assert shop.log.topic("events").id == created
