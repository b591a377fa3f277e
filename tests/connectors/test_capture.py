"""Stories of tables through PostgreSQL, the stream and the log: what the lake shows is what the server has."""

from __future__ import annotations

import random
import re
import threading
from typing import TYPE_CHECKING, Any

import pytest
from tests.waiting import until

from headwater.config import Settings, SourceConfig, TableConfig
from headwater.errors import SourceNotReady
from headwater.lake.status import status
from headwater.log import open_log
from headwater.log.demand import Demand
from headwater_connectors.postgres import check
from headwater_connectors.postgres.capture import Capture
from headwater_connectors.postgres.catalog import parse_lsn
from headwater_connectors.postgres.source import PostgresSource

if TYPE_CHECKING:
    from tests.connectors.conftest import Captured

ORDERS = "CREATE TABLE orders (id int PRIMARY KEY, who text, amount numeric(12,2), at timestamptz DEFAULT now())"


@pytest.fixture(params=["binary", "text"])
def either(request: pytest.FixtureRequest, shop: Captured) -> Captured:
    shop.mode = request.param
    return shop


def test_insert_update_delete_and_truncate(either: Captured) -> None:
    shop = either
    shop.run(ORDERS, "INSERT INTO orders SELECT i, 'w' || i % 7, i * 1.25 FROM generate_series(1, 1000) i")
    shop.catch_up()
    shop.assert_equal("orders")
    assert {row["_op"] for row in shop.changes("orders")} == {"r"}
    shop.run(
        "UPDATE orders SET amount = amount + 1 WHERE id % 3 = 0",
        "DELETE FROM orders WHERE id % 10 = 0",
        "INSERT INTO orders SELECT i, NULL, -1 FROM generate_series(2000, 2100) i",
        "BEGIN; INSERT INTO orders VALUES (3000, 'a', 1); UPDATE orders SET who = 'b' WHERE id = 3000;"
        " DELETE FROM orders WHERE id = 3000; INSERT INTO orders VALUES (3000, 'c', 2); COMMIT",
        "BEGIN; DELETE FROM orders; ROLLBACK",
    )
    before = shop.log.newest_commit()
    shop.catch_up()
    shop.assert_equal("orders")
    shop.run("TRUNCATE orders", "INSERT INTO orders VALUES (1, 'again', 3)")
    shop.catch_up()
    shop.assert_equal("orders")
    assert shop.lake("SELECT count(*) FROM orders", at=before) == [(1000,)]


def test_changes_carry_their_transaction(either: Captured) -> None:
    shop = either
    shop.run(ORDERS)
    shop.catch_up()
    shop.run("INSERT INTO orders VALUES (1, 'a', 1), (2, 'b', 2)", "UPDATE orders SET who = 'c'")
    xid = shop.source_rows("SELECT xmin::text::int8 FROM orders LIMIT 1")[0][0]
    shop.catch_up()
    rows = shop.changes("orders")
    assert [(row["_op"], row["id"], row["_seq"]) for row in rows] == [
        ("c", 1, 1),
        ("c", 2, 2),
        ("u", 1, 1),
        ("u", 2, 2),
    ]
    assert [row["_xid"] for row in rows] == [xid - 1, xid - 1, xid, xid]
    transactions = shop.lake(
        "SELECT xid, rows, commit_lsn > begin_lsn, committed_at FROM shop.transactions ORDER BY xid"
    )
    assert [row[:3] for row in transactions] == [(xid - 1, 2, True), (xid, 2, True)]
    assert {row["_lsn"] for row in rows} == {lsn for (lsn,) in shop.lake("SELECT commit_lsn FROM shop.transactions")}
    assert [row[3] for row in transactions] == sorted({row["_committed_at"] for row in rows})


def test_what_the_application_says_of_a_transaction(either: Captured) -> None:
    """A logical message inside it; the last one counts, others and those outside of transactions do not."""
    shop = either
    shop.run(ORDERS)
    shop.catch_up()
    said = '{"actor": "ann", "correlation_id": "42", "traceparent": "00-ab-cd-01", "more": [1]}'
    emit = "SELECT pg_logical_emit_message(true, 'headwater.context', '{}')"
    shop.run(
        f"BEGIN; {emit.format('{}')}; INSERT INTO orders VALUES (1, 'a', 1); {emit.format(said)}; COMMIT",
        "INSERT INTO orders VALUES (2, 'b', 2)",
        f"BEGIN; {emit.format('no json')}; INSERT INTO orders VALUES (3, 'c', 3); COMMIT",
        "BEGIN; SELECT pg_logical_emit_message(true, 'other', 'x'); INSERT INTO orders VALUES (4, 'd', 4); COMMIT",
        "SELECT pg_logical_emit_message(false, 'headwater.context', '{\"actor\": \"nobody\"}')",
    )
    shop.catch_up()
    shop.assert_equal("orders")
    query = "SELECT actor, correlation_id, traceparent, context FROM shop.transactions ORDER BY commit_lsn"
    nothing = (None, None, None, None)
    assert shop.lake(query) == [("ann", "42", "00-ab-cd-01", said), nothing, nothing, nothing]


def test_key_change_is_a_delete_and_a_create(either: Captured) -> None:
    shop = either
    shop.run("CREATE TABLE pairs (a int, b text, v text, PRIMARY KEY (a, b))", "INSERT INTO pairs VALUES (1, 'x', 'p')")
    shop.catch_up()
    shop.run("UPDATE pairs SET v = 'q'", "UPDATE pairs SET a = 2", "UPDATE pairs SET b = 'y', v = 'r'")
    shop.catch_up()
    shop.assert_equal("pairs")
    ops = [(row["_op"], row["a"], row["b"], row["v"]) for row in shop.changes("pairs")][1:]
    assert ops == [
        ("u", 1, "x", "q"),
        ("d", 1, "x", None), ("c", 2, "x", "q"),
        ("d", 2, "x", None), ("c", 2, "y", "r"),
    ]  # fmt: skip
    moved = [(row["_lsn"], row["_seq"]) for row in shop.changes("pairs")][2:]
    assert moved[0] == moved[1]
    assert moved[2] == moved[3]


def test_unchanged_toast_is_never_a_made_up_null(either: Captured) -> None:
    shop = either
    shop.run(
        "CREATE TABLE docs (id int PRIMARY KEY, body text, other text, n int)",
        "ALTER TABLE docs ALTER body SET STORAGE EXTERNAL, ALTER other SET STORAGE EXTERNAL",
        "INSERT INTO docs VALUES (1, repeat('a', 9000), repeat('b', 9000), 1), (2, repeat('c', 9000), NULL, 1)",
    )
    shop.catch_up()
    shop.run(
        "UPDATE docs SET n = 2",
        "UPDATE docs SET other = repeat('d', 8000) WHERE id = 2",
        "UPDATE docs SET id = 3, n = 9 WHERE id = 1",
        "INSERT INTO docs VALUES (4, repeat('e', 9000), 'x', 0); UPDATE docs SET n = 1 WHERE id = 4",
        "UPDATE docs SET body = NULL WHERE id = 4",
    )
    shop.catch_up()
    updates = [row for row in shop.changes("docs") if row["_op"] == "u"]
    assert sorted(updates[0]["_unchanged"]) == ["body", "other"]
    assert updates[1]["_unchanged"] == ["body"]
    shop.run("DELETE FROM docs WHERE id = 3")  # its values are those of a row the source moved: compaction's matter
    shop.catch_up()
    shop.assert_equal("docs")


def test_full_identity_sends_the_old_row_and_leaves_nothing_unchanged(either: Captured) -> None:
    shop = either
    shop.run(
        "CREATE TABLE docs (id int PRIMARY KEY, body text, n int)",
        "ALTER TABLE docs REPLICA IDENTITY FULL",
        "ALTER TABLE docs ALTER body SET STORAGE EXTERNAL",
        "INSERT INTO docs VALUES (1, repeat('a', 9000), 1)",
    )
    shop.catch_up()
    shop.run(
        "UPDATE docs SET n = 2",
        "UPDATE docs SET id = 5, n = 3",
        "DELETE FROM docs",
        "INSERT INTO docs VALUES (7, 'z', 1)",
    )
    shop.catch_up()
    shop.assert_equal("docs")
    update, moved, made, deleted, _ = shop.changes("docs")[1:]
    assert (update["_op"], update["_before"]["n"], len(update["body"])) == ("u", 1, 9000)
    assert [row["_op"] for row in (moved, made, deleted)] == ["d", "c", "d"]
    assert len(made["body"]) == 9000
    assert all(row["_unchanged"] is None for row in shop.changes("docs"))
    assert deleted["_before"]["n"] == 3


def test_a_table_without_a_key_is_a_multiset(either: Captured) -> None:
    shop = either
    shop.run(
        "CREATE TABLE lines (a int, b text)",
        "ALTER TABLE lines REPLICA IDENTITY FULL",
        "INSERT INTO lines VALUES (1, 'x'), (1, 'x'), (2, NULL), (2, NULL)",
    )
    shop.catch_up()
    shop.assert_equal("lines")
    shop.run(
        "UPDATE lines SET b = 'y' WHERE a = 1",
        "DELETE FROM lines WHERE ctid = (SELECT min(ctid) FROM lines WHERE a = 2)",
        "INSERT INTO lines VALUES (3, 'z'), (3, 'z'), (3, 'z')",
    )
    shop.catch_up()
    shop.assert_equal("lines")
    shop.run("TRUNCATE lines; INSERT INTO lines VALUES (9, 'n')")
    shop.catch_up()
    shop.assert_equal("lines")


def test_without_identity_inserts_are_captured_and_changes_declared(either: Captured) -> None:
    shop = either
    shop.run(
        "CREATE TABLE views_of_pages (at timestamptz, page text)", "INSERT INTO views_of_pages VALUES (now(), 'a')"
    )
    shop.catch_up()
    shop.run("INSERT INTO views_of_pages VALUES (now(), 'b')")
    shop.catch_up()
    shop.assert_equal("views_of_pages")
    assert shop.log.topic("views_of_pages").state == "live"
    shop.run("UPDATE views_of_pages SET page = 'c'", "SELECT pg_stat_force_next_flush()", "SELECT 1")
    shop.catch_up()
    topic = shop.log.topic("views_of_pages")
    assert topic.state == "incomplete"
    assert "updated or deleted" in topic.reason


def test_no_statement_of_the_application_ever_fails(shop: Captured) -> None:
    """Law 9: UPDATE and DELETE work on every table, also without key, also created or changed after prepare."""
    shop.run(
        ORDERS, "CREATE TABLE lines (a int)", "INSERT INTO orders VALUES (1, 'a', 1)", "INSERT INTO lines VALUES (1)"
    )
    shop.catch_up()
    shop.run("UPDATE lines SET a = 2", "DELETE FROM lines", "UPDATE orders SET who = 'b'")
    shop.run(
        "CREATE TABLE later (a int)", "INSERT INTO later VALUES (1)", "UPDATE later SET a = 2", "DELETE FROM later"
    )
    shop.catch_up()
    shop.assert_equal("orders")
    shop.run("ALTER TABLE orders DROP CONSTRAINT orders_pkey")
    shop.catch_up()  # every capture looks at its start, and every ten seconds
    assert (shop.log.topic("orders").kind, shop.log.topic("orders").state) == ("insert_only", "live")
    shop.run("UPDATE orders SET who = 'c'", "DELETE FROM orders", "SELECT pg_stat_force_next_flush()", "SELECT 1")
    shop.catch_up()
    assert shop.log.topic("orders").state == "incomplete"


def test_partitions_keep_each_key_in_one_and_truncate_reaches_all(shop: Captured) -> None:
    config = SourceConfig(name="shop", dsn=shop.dsn, table={"public.orders": TableConfig(partitions=4)})

    def catch_up() -> None:
        end = parse_lsn(PostgresSource().current_end(shop.dsn))
        Capture(config, Settings(), shop.log, threading.Event()).run(until=end)

    shop.run(ORDERS, "INSERT INTO orders SELECT i, 'a', i FROM generate_series(1, 400) i")
    catch_up()
    shop.run("UPDATE orders SET who = 'b'", "UPDATE orders SET id = id + 1000 WHERE id <= 50")
    catch_up()
    shop.assert_equal("orders")
    assert {row["_partition"] for row in shop.changes("orders")} == {0, 1, 2, 3}
    shop.run("TRUNCATE orders; INSERT INTO orders VALUES (1, 'z', 0)")
    catch_up()
    shop.assert_equal("orders")
    assert sum(row["_op"] == "t" for row in shop.changes("orders")) == 4


def test_added_columns_are_a_new_schema_version(either: Captured) -> None:
    shop = either
    shop.run(ORDERS, "INSERT INTO orders VALUES (1, 'a', 1)")
    shop.catch_up()
    shop.run("INSERT INTO orders VALUES (2, 'b', 2)", "ALTER TABLE orders ADD note text, ADD day date")
    shop.run(
        "INSERT INTO orders VALUES (3, 'c', 3, now(), 'new', '2026-01-01')", "UPDATE orders SET note = 'u' WHERE id = 1"
    )
    shop.catch_up()
    shop.assert_equal("orders")
    assert shop.log.topic("orders").schema.names == ("id", "who", "amount", "at", "note", "day")
    assert len(shop.log.schemas(shop.log.topic("orders"))) == 2


def test_a_column_read_as_text_turns_a_binary_session(shop: Captured) -> None:
    shop.run(ORDERS, "INSERT INTO orders VALUES (1, 'a', 1)")
    shop.catch_up()
    stop = threading.Event()
    capture = Capture(shop.source, shop.settings, shop.log, stop)
    running = threading.Thread(target=capture.run)
    running.start()
    try:
        _await(shop, "SELECT count(*) = 1 FROM pg_replication_slots WHERE active AND database = current_database()")
        shop.run("ALTER TABLE orders ADD tags text[]", "INSERT INTO orders VALUES (2, 'b', 2, now(), '{a,\"b,c\"}')")
        commit = shop.log.newest_commit()
        assert shop.log.wait(commit, 20) > commit
    finally:
        stop.set()
        running.join()
    shop.assert_equal("orders")


def test_an_array_whose_elements_have_no_binary_form(shop: Captured) -> None:
    """The server ends a binary stream at it: `auto` goes on as text, `binary` is refused before anything is made."""
    shop.run("CREATE TABLE orders (id int PRIMARY KEY)", "INSERT INTO orders VALUES (1)")
    shop.catch_up()
    acl = f"'{{=r/{shop.connection.info.user}}}'"
    with shop.running():
        _await(shop, "SELECT count(*) = 1 FROM pg_replication_slots WHERE active AND database = current_database()")
        shop.run("ALTER TABLE orders ADD acl aclitem[], ADD cost money")
        shop.run(f"INSERT INTO orders VALUES (2, {acl}, 1.5)")
        shop.until(lambda: shop.changes("orders"), lambda found: len(found) == 2)
    shop.catch_up()
    shop.assert_equal("orders", columns="id, acl::text[]", where="true")
    shop.mode = "binary"
    named = r"public.orders.acl \(aclitem\[\]\), public.orders.cost \(money\)"
    (finding,) = [each for each in check.source(shop.source, shop.connection, shop.log) if each.fatal]
    assert re.match(rf'mode = "binary" cannot read {named}', finding.what)
    newest = shop.log.newest_commit()
    with pytest.raises(SourceNotReady, match=named):
        shop.catch_up()
    assert shop.log.newest_commit() == newest


def test_a_transaction_larger_than_memory_allows_is_one_commit(shop: Captured) -> None:
    shop.settings = Settings(commit_bytes_max=64 * 1024, commit_rows_max=500)
    shop.run(ORDERS, "INSERT INTO orders VALUES (0, 'a', 1)")
    shop.catch_up()
    shop.run(
        "BEGIN; INSERT INTO orders SELECT i, 'w', i FROM generate_series(1, 20000) i;"
        " UPDATE orders SET amount = 1; COMMIT"
    )
    shop.run("UPDATE orders SET who = 'x' WHERE id = 5")
    shop.catch_up()
    shop.assert_equal("orders")
    counts = [
        shop.lake("SELECT count(*), sum(amount) FROM orders", at=n)[0][0]
        for n in range(shop.log.topic("orders").created, shop.log.newest_commit() + 1)
    ]
    assert set(counts) == {1, 20001}
    assert shop.lake("SELECT max(rows) FROM shop.transactions") == [(40001,)]


def test_rows_that_somebody_asks_for_do_not_linger(shop: Captured) -> None:
    """Rows would wait ten minutes for more of them, and are committed as soon as somebody has room for them."""
    shop.run(ORDERS, "INSERT INTO orders VALUES (1, 'a', 1)")
    shop.catch_up()
    stop, demand = threading.Event(), Demand(shop.log.folder)
    capture = Capture(shop.source, Settings(linger_ms=600_000), shop.log, stop)
    running = threading.Thread(target=capture.run)
    running.start()
    try:
        for number in (2, 3):
            before = shop.log.newest_commit()
            shop.run(f"INSERT INTO orders VALUES ({number}, 'b', 2)")
            demand.ask()
            until(lambda: shop.log.newest_commit() > before, "a commit")  # noqa: B023
    finally:
        stop.set()
        running.join()
        demand.close()
    shop.assert_equal("orders")


def test_every_commit_is_a_state_the_source_really_had(shop: Captured, seed: int) -> None:
    """Transfers between two tables keep the sum: at every commit number, in commits as small as they come."""
    draw = random.Random(seed)
    shop.settings = Settings(commit_rows_max=20, linger_ms=0)
    shop.run("CREATE TABLE a (id int PRIMARY KEY, v int)", "CREATE TABLE b (id int PRIMARY KEY, v int)")
    shop.run(*(f"INSERT INTO {t} SELECT i, 100 FROM generate_series(1, 10) i" for t in "ab"))
    shop.catch_up()
    stop = threading.Event()
    running = threading.Thread(target=Capture(shop.source, shop.settings, shop.log, stop).run)
    running.start()
    try:
        for _ in range(20_000):
            if shop.log.newest_commit() >= 12:
                break
            n, one, other = draw.randint(1, 50), draw.randint(1, 10), draw.randint(1, 10)
            shop.run(
                f"BEGIN; UPDATE a SET v = v - {n} WHERE id = {one}; UPDATE b SET v = v + {n} WHERE id = {other}; COMMIT"
            )
    finally:
        stop.set()
        running.join()
    shop.catch_up()
    newest = shop.log.newest_commit()
    assert newest >= 12
    query = "SELECT (SELECT sum(v) FROM a) + (SELECT sum(v) FROM b)"
    both = max(shop.log.topic(name).created for name in "ab")
    assert {shop.lake(query, at=number)[0][0] for number in range(both, newest + 1)} == {2000}
    shop.assert_equal("a", "b")


def test_types_are_equal_in_the_lake(either: Captured) -> None:
    """The scalar types of a normal application, from the server through the log to a query, as text on both sides."""
    shop = either
    columns: dict[str, tuple[str, Any]] = {
        "b": ("bool", "true"), "i2": ("int2", "-5"), "i8": ("int8", "9223372036854775807"), "f": ("float8", "0.1"),
        "n": ("numeric(20,5)", "-123456789.12345"), "u": ("numeric", "1e-9"), "t": ("text", "é'\"\\"),
        "g": ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"), "d": ("date", "0044-03-15 BC"),
        "di": ("date", "infinity"),
        "tm": ("time", "24:00:00"), "ts": ("timestamp", "2026-11-23 10:00:00.000001"),
        "tsi": ("timestamp", "-infinity"),
        "tz": ("timestamptz", "2026-11-23 10:00:00+05:30"), "iv": ("interval", "3 days"), "j": ("json", '{"a":  1}'),
        "jb": ("jsonb", '{"a": [1, null]}'), "raw": ("bytea", "\\x00ff"),
    }  # fmt: skip
    names = ", ".join(f"{name} {kind}" for name, (kind, _) in columns.items())
    shop.run(f"CREATE TABLE kinds (id int PRIMARY KEY, {names})")
    marks = ", ".join(f"%s::{kind}" for kind, _ in columns.values())
    values = [value for _, value in columns.values()]
    shop.connection.execute(f"INSERT INTO kinds VALUES (1, {marks})".encode(), values)
    shop.catch_up()
    shop.connection.execute(f"INSERT INTO kinds VALUES (2, {marks})".encode(), values)
    shop.run(
        "INSERT INTO kinds (id) VALUES (3)",
        "UPDATE kinds SET i2 = NULL WHERE id = 2",
        "UPDATE kinds SET i2 = -5 WHERE id = 2",
    )
    shop.catch_up()
    shop.run("SET timezone = 'UTC'", "SET intervalstyle = 'postgres'")
    for name in columns:
        ours = shop.lake(
            f"SELECT id, {'lower(hex(raw))' if name == 'raw' else f'{name}::VARCHAR'} FROM kinds ORDER BY id"
        )
        shown = {"raw": "encode(raw, 'hex')", "d": "replace(d::text, ' BC', ' (BC)')"}.get(name, f"{name}::text")
        assert ours == shop.source_rows(f"SELECT id, {shown} FROM kinds ORDER BY id"), name


def test_reopening_reads_nothing_twice(shop: Captured) -> None:
    shop.run(ORDERS, "INSERT INTO orders VALUES (1, 'a', 1)")
    shop.catch_up()
    for number in range(2, 6):
        shop.run(f"INSERT INTO orders VALUES ({number}, 'a', 1)")
        shop.catch_up()
        shop.catch_up()
    assert [row["id"] for row in shop.changes("orders")] == [1, 2, 3, 4, 5]
    with open_log(shop.folder) as again:
        assert again.newest_commit() == shop.log.newest_commit()


def test_idle_wal_is_acknowledged_only_once_it_is_stored(shop: Captured) -> None:
    """WAL that changes no captured table moves the slot, after the catalog holds the position."""
    shop.run(ORDERS)
    shop.catch_up()
    commits = shop.log.newest_commit()
    shop.run("CREATE SCHEMA apart", "CREATE TABLE apart.other (a text)")
    shop.run("INSERT INTO apart.other SELECT repeat('x', 1000) FROM generate_series(1, 2000)")
    shop.catch_up()
    state = shop.log.producer("source:shop")
    assert state.confirmed is not None
    # The server reads the last status after the session has ended here.
    of_slot = "FROM pg_replication_slots WHERE database = current_database()"
    _await(shop, f"SELECT confirmed_flush_lsn > '{state.position}' {of_slot}")
    held = shop.source_rows(f"SELECT confirmed_flush_lsn::text {of_slot}")[0][0]
    assert parse_lsn(held) <= parse_lsn(state.confirmed)
    assert shop.log.newest_commit() == commits


def _await(shop: Captured, condition: str) -> None:
    until(lambda: shop.source_rows(condition)[0][0], condition)


def test_what_the_server_keeps_for_the_slot_is_in_the_status(shop: Captured) -> None:
    shop.run(ORDERS)
    shop.catch_up()
    with shop.running():
        for _ in range(2000):
            (found,) = status(shop.log)["sources"]
            if found["wal_status"] and (found["state"], found["copying"]) == ("streaming", 0):
                break
            threading.Event().wait(0.01)
    assert (found["wal_status"], found["copying"], found["copy"]) == ("reserved", 0, "")
    assert found["retained_wal_bytes"] > 0
