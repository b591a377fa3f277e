"""Changes of shape: whatever is done to a table, the lake's table is the server's, and its history stays readable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.connectors.conftest import Captured

ORDERS = (
    "CREATE TABLE orders (id int PRIMARY KEY, who varchar(10), amount numeric(12,2), n int NOT NULL DEFAULT 0)",
    "INSERT INTO orders SELECT i, 'w' || i % 7, i * 1.25, i FROM generate_series(1, 50) i",
)
MORE = (
    "INSERT INTO orders (id) VALUES (1001)",
    "UPDATE orders SET id = 1002 WHERE id = 1",
    "DELETE FROM orders WHERE id = 2",
)

SAME_ROWS = {
    "a nullable column": ["ALTER TABLE orders ADD note text"],
    "a column with a constant default": ["ALTER TABLE orders ADD flag int DEFAULT 7"],
    "a NOT NULL column with a default": ["ALTER TABLE orders ADD flag text NOT NULL DEFAULT 'x''y'"],
    "a column with a default of a time": ["ALTER TABLE orders ADD at timestamptz DEFAULT '2020-02-03 04:05:06.789+02'"],
    "a column with bytes as default": ["ALTER TABLE orders ADD raw bytea DEFAULT '\\x00ff'"],
    "a column with a list as default": ["ALTER TABLE orders ADD tags text[] DEFAULT '{a,\"b,c\",NULL}'"],
    "two columns, one after the other": ["ALTER TABLE orders ADD a int DEFAULT 1", "ALTER TABLE orders ADD b int"],
    "a dropped column": ["ALTER TABLE orders DROP who"],
    "a renamed column": ["ALTER TABLE orders RENAME who TO whom"],
    "a renamed key column": ["ALTER TABLE orders RENAME id TO number"],
    "two columns that swap their names": [
        "ALTER TABLE orders ADD m int",
        "ALTER TABLE orders RENAME n TO x; ALTER TABLE orders RENAME m TO n; ALTER TABLE orders RENAME x TO m",
    ],
    "a column dropped and added again": ["ALTER TABLE orders DROP who, ADD who varchar(10)"],
    "a wider varchar": ["ALTER TABLE orders ALTER who TYPE varchar(40)"],
    "varchar to text": ["ALTER TABLE orders ALTER who TYPE text"],
    "another default": ["ALTER TABLE orders ALTER n SET DEFAULT 5"],
    "a nullable column made NOT NULL": ["ALTER TABLE orders ALTER amount SET NOT NULL, ALTER amount SET DEFAULT 1"],
    "NOT NULL taken away": ["ALTER TABLE orders ALTER n DROP NOT NULL"],
    "full identity": ["ALTER TABLE orders REPLICA IDENTITY FULL"],
    "a comment": ["COMMENT ON COLUMN orders.who IS 'the customer'"],
    "vacuumed whole": ["VACUUM FULL orders"],
}
OTHER_ROWS = {
    "an integer made larger": ["ALTER TABLE orders ALTER n TYPE bigint"],
    "a number made text": ["ALTER TABLE orders ALTER n TYPE text USING 'n' || n"],
    "text made a number": ["ALTER TABLE orders ALTER who TYPE int USING length(who)"],
    "values changed by the same type": ["ALTER TABLE orders ALTER n TYPE int USING n + 1"],
    "a larger scale": ["ALTER TABLE orders ALTER amount TYPE numeric(14,4)"],
    "a smaller scale": ["ALTER TABLE orders ALTER amount TYPE numeric(10,1)"],
    "a volatile default": ["ALTER TABLE orders ADD r float DEFAULT random()"],
    "an identity column": ["ALTER TABLE orders ADD seq int GENERATED ALWAYS AS IDENTITY"],
    "another key": ["ALTER TABLE orders DROP CONSTRAINT orders_pkey, ADD PRIMARY KEY (id, n)"],
    "another identity": [
        "CREATE UNIQUE INDEX by_n ON orders (n)", "ALTER TABLE orders REPLICA IDENTITY USING INDEX by_n",
    ],
    "a larger key": ["ALTER TABLE orders ALTER id TYPE bigint"],
    "added, dropped and added again with a default": [
        "ALTER TABLE orders ADD a int DEFAULT 1", "ALTER TABLE orders DROP a", "ALTER TABLE orders ADD a int DEFAULT 2",
    ],
    "dropped and created again": ["DROP TABLE orders", *ORDERS[:1], "INSERT INTO orders VALUES (1, 'a', 1)"],
    "taken out of the publication": ["ALTER PUBLICATION headwater_shop DROP TABLE orders"],
}  # fmt: skip


@pytest.fixture(params=["binary", "text"])
def either(request: pytest.FixtureRequest, shop: Captured) -> Captured:
    shop.mode = request.param
    return shop


def named(statements: tuple[str, ...] | list[str], table: str) -> list[str]:
    """The statements about ``orders`` for a table of another name."""
    return [s.replace("orders", table).replace("by_n", f"by_n_{table}") for s in statements]


def _rows_after(change: list[str]) -> list[str]:
    renamed = "RENAME id TO number" in change[0]
    return [statement.replace("id", "number") if renamed else statement for statement in MORE]


@pytest.mark.parametrize(
    ("followed", "mode"),
    [
        pytest.param(False, "auto", id="alone"),
        pytest.param(True, "text", id="with rows after", marks=pytest.mark.long),
        pytest.param(True, "binary", id="strictly binary", marks=pytest.mark.long),
    ],
)
def test_the_table_is_the_servers_after_every_kind_of_ddl(shop: Captured, followed: bool, mode: str) -> None:
    """A table for each kind, all in one source: what happens to one does not touch the others."""
    shop.mode = mode
    kinds = {f"t{place}": change for place, change in enumerate([*SAME_ROWS.values(), *OTHER_ROWS.values()])}
    for table in kinds:
        shop.run(*named(ORDERS, table))
    shop.catch_up()
    for table in kinds:
        shop.run(f"UPDATE {table} SET n = n + 100 WHERE id % 2 = 0", f"DELETE FROM {table} WHERE id = 50")
    shop.catch_up()
    before = shop.log.newest_commit()
    rows = {table: shop.lake(f"SELECT * FROM {table} ORDER BY id") for table in kinds}
    for table, change in kinds.items():
        shop.run(*named(change, table), *(named(_rows_after(change), table) if followed else ()))
    shop.catch_up()
    shop.assert_equal(*kinds)
    assert {shop.log.topic(table).state for table in kinds} == {"live"}
    assert not [topic for topic in shop.log.topics(hidden=True) if topic.hidden]
    for table in kinds:
        shop.run(_insert(shop, table))
    shop.catch_up()
    shop.assert_equal(*kinds)
    for table in kinds:
        assert shop.lake(f"SELECT * FROM {table} ORDER BY id", at=before) == rows[table]
        assert shop.lake(f'SELECT count(*) > 0 FROM log."shop.public.{table}"') == [(True,)]


def test_a_change_that_leaves_the_rows_is_a_new_version_at_most(shop: Captured) -> None:
    kinds = {f"t{place}": change for place, change in enumerate(SAME_ROWS.values())}
    for table in kinds:
        shop.run(*named(ORDERS, table))
    shop.catch_up()
    topics = {table: shop.log.topic(table).id for table in kinds}
    for table, change in kinds.items():
        shop.run(*named(change, table))
    shop.catch_up()
    assert {table: shop.log.topic(table).id for table in kinds} == topics
    assert {table: len(shop.changes(table)) for table in kinds} == dict.fromkeys(kinds, 50)


def _insert(shop: Captured, table: str) -> str:
    """A row of what must be given."""
    found = shop.source_rows(
        f"SELECT attname FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped"
        " AND attidentity = '' AND attnotnull AND (NOT atthasdef OR attname = 'n')"
    )
    named = [column for (column,) in found] or ["n"]
    return f"INSERT INTO {table} ({', '.join(named)}) VALUES ({', '.join(['7777'] * len(named))})"


@pytest.mark.parametrize("tail", [False, True])
def test_a_default_that_no_decimal_holds_keeps_its_text(shop: Captured, tail: bool) -> None:
    shop.run(*ORDERS)
    shop.catch_up()
    shop.run("ALTER TABLE orders ADD odd numeric(5,2) DEFAULT 'NaN'")
    if tail:
        shop.run("UPDATE orders SET who = 'x' WHERE id = 3", "UPDATE orders SET odd = 1 WHERE id = 4")
    shop.catch_up()
    shop.assert_equal("orders", columns="id, who, amount, n")
    last = {row["id"]: row for row in shop.changes("orders")}
    texts = {number: dict(row["_raw"] or {}).get("odd") for number, row in last.items()}
    assert texts == {number: None if tail and number == 4 else "NaN" for number in range(1, 51)}


def test_a_table_that_lost_its_key_takes_inserts(shop: Captured) -> None:
    shop.run(*ORDERS)
    shop.catch_up()
    shop.run("ALTER TABLE orders DROP CONSTRAINT orders_pkey", "INSERT INTO orders VALUES (60, 'b', 1)")
    shop.catch_up()
    shop.run("INSERT INTO orders VALUES (60, 'a', 1)")
    shop.catch_up()
    shop.assert_equal("orders")
    assert shop.log.topic("orders").kind == "insert_only"


def test_a_renamed_table_is_another_topic(either: Captured) -> None:
    shop = either
    shop.run(*ORDERS)
    shop.catch_up()
    before = shop.log.newest_commit()
    shop.run("ALTER TABLE orders RENAME TO purchases", "INSERT INTO purchases (id) VALUES (900)")
    shop.catch_up()
    shop.assert_equal("purchases")
    assert [topic.name for topic in shop.log.topics() if topic.kind == "table"] == ["shop.public.purchases"]
    assert shop.lake("SELECT count(*) FROM orders", at=before) == [(50,)]


def test_a_dropped_table_is_gone_from_then_on(shop: Captured) -> None:
    shop.run(*ORDERS, "CREATE TABLE stays (id int PRIMARY KEY)", "INSERT INTO stays VALUES (1)")
    shop.catch_up()
    before = shop.log.newest_commit()
    shop.run("INSERT INTO orders (id) VALUES (700)", "DROP TABLE orders", "INSERT INTO stays VALUES (2)")
    shop.catch_up()
    shop.assert_equal("stays")
    assert [topic.name for topic in shop.log.topics() if topic.kind == "table"] == ["shop.public.stays"]
    assert shop.lake("SELECT count(*) FROM orders", at=before) == [(50,)]


def test_a_table_that_gains_a_key_is_captured_by_it(shop: Captured) -> None:
    shop.run("CREATE TABLE lines (n int, what text)", "INSERT INTO lines SELECT i, 'x' FROM generate_series(1, 9) i")
    shop.catch_up()
    assert shop.log.topic("lines").kind == "insert_only"
    shop.run("UPDATE lines SET what = 'y' WHERE n < 4", "ALTER TABLE lines ADD PRIMARY KEY (n)")
    shop.run("DELETE FROM lines WHERE n = 9")
    shop.catch_up()
    shop.run("UPDATE lines SET what = 'z' WHERE n = 5")
    shop.catch_up()
    assert (shop.log.topic("lines").kind, shop.log.topic("lines").state) == ("table", "live")
    shop.assert_equal("lines")


def test_new_tables_are_taken_in_and_columns_described(shop: Captured) -> None:
    shop.run(*ORDERS)
    shop.catch_up()
    shop.run(
        "CREATE TABLE more (id int PRIMARY KEY, v text)", "INSERT INTO more VALUES (1, 'a')",
        "COMMENT ON TABLE more IS 'what came later'", "COMMENT ON COLUMN more.v IS 'a value'",
    )  # fmt: skip
    shop.catch_up()
    shop.run("UPDATE more SET v = 'b'", "COMMENT ON COLUMN more.v IS 'another'")
    shop.catch_up()
    shop.assert_equal("more", "orders")
    topic = shop.log.topic("more")
    assert (topic.description, topic.schema.field("v").description) == ("what came later", "another")


def test_partitions_that_come_and_go(shop: Captured) -> None:
    shop.run(
        "CREATE TABLE events (day date, id int, v text, PRIMARY KEY (day, id)) PARTITION BY RANGE (day)",
        "CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')",
        "INSERT INTO events SELECT '2026-01-05', i, 'x' FROM generate_series(1, 30) i",
    )
    shop.catch_up()
    shop.assert_equal("events")
    created = shop.log.topic("events").id
    shop.run(
        "CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')",
        "INSERT INTO events SELECT '2026-02-05', i, 'y' FROM generate_series(1, 30) i",
        "UPDATE events SET v = 'moved', day = '2026-02-20' WHERE id = 3 AND day < '2026-02-01'",
    )
    shop.catch_up()
    shop.assert_equal("events")
    shop.run(
        "CREATE TABLE apart (id int, v text, day date NOT NULL, PRIMARY KEY (day, id))",
        "INSERT INTO apart SELECT i, 'z', '2026-03-03' FROM generate_series(1, 10) i",
        "ALTER TABLE events ATTACH PARTITION apart FOR VALUES FROM ('2026-03-01') TO ('2026-04-01')",
        "UPDATE events SET v = 'after' WHERE day = '2026-03-03' AND id = 4",
    )
    shop.catch_up()
    shop.assert_equal("events")
    shop.run(
        "BEGIN; CREATE TABLE loaded (day date NOT NULL, id int, v text, PRIMARY KEY (day, id));"
        " INSERT INTO loaded VALUES ('2026-04-04', 1, 'loaded');"
        " ALTER TABLE events ATTACH PARTITION loaded FOR VALUES FROM ('2026-04-01') TO ('2026-05-01'); COMMIT"
    )
    shop.catch_up()
    shop.assert_equal("events")
    shop.run("ALTER TABLE events DETACH PARTITION events_1", "DELETE FROM events WHERE id = 7")
    shop.catch_up()
    shop.assert_equal("events")
    assert shop.log.topic("events").id == created
