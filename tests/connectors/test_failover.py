"""The server behind the address becomes another one: a promoted standby, with all we have or without; a backup."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psycopg
import pytest
from tests.connectors.conftest import Captured
from tests.waiting import until

from headwater.errors import SourceGap
from headwater.lake.status import status
from headwater_connectors.postgres import requests
from headwater_connectors.postgres.catalog import parse_lsn
from headwater_connectors.postgres.embedded import EmbeddedPostgres

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]
ORDERS = "CREATE TABLE orders (id int PRIMARY KEY, v text)"


@pytest.fixture
def dsn(primary: EmbeddedPostgres) -> str:
    return primary.create_database("shop")


def ask(server: EmbeddedPostgres, query: str) -> object:
    with psycopg.connect(server.dsn("shop"), autocommit=True) as connection:
        [(answer,)] = connection.execute(query.encode()).fetchall()
        return answer


def replayed(primary: EmbeddedPostgres, standby: EmbeddedPostgres) -> None:
    end = ask(primary, "SELECT pg_current_wal_flush_lsn()")
    until(lambda: ask(standby, f"SELECT pg_last_wal_replay_lsn() >= '{end}'") is True)


def slot_is_copied(shop: Captured, standby: EmbeddedPostgres) -> None:
    """The standby keeps the slot once it has moved far enough; its worker looks every 0.2 to 30 s."""
    ready = "SELECT count(*) = 1 FROM pg_replication_slots WHERE synced AND NOT temporary"

    def copied() -> bool:
        shop.run("INSERT INTO orders SELECT coalesce(max(id), 0) + 1, 'sync' FROM orders")
        shop.catch_up()
        return ask(standby, ready) is True

    until(copied, seconds=100)


def promote(shop: Captured, primary: EmbeddedPostgres, standby: EmbeddedPostgres) -> None:
    """The primary is gone; the application and we find the standby."""
    shop.connection.close()
    primary.stop()
    assert ask(standby, "SELECT pg_promote()") is True
    shop.dsn = standby.dsn("shop")
    shop.connection = psycopg.connect(shop.dsn, autocommit=True)


def gap_of(shop: Captured) -> dict[str, str]:
    (found,) = status(shop.log)["sources"]
    return dict(found["gap"] or {})


def test_pain_14_a_promoted_standby_is_followed_without_loss(
    shop: Captured, primary: EmbeddedPostgres, standby: EmbeddedPostgres
) -> None:
    shop.run(ORDERS, "INSERT INTO orders SELECT i, 'a' FROM generate_series(1, 1000) i")
    shop.catch_up()
    assert shop.source_rows("SELECT failover FROM pg_replication_slots WHERE slot_name = 'headwater_shop'") == [(True,)]
    slot_is_copied(shop, standby)
    shop.run("UPDATE orders SET v = 'seen by us' WHERE id < 10")
    shop.catch_up()
    shop.run("UPDATE orders SET v = 'not seen by us' WHERE id > 990", "DELETE FROM orders WHERE id = 500")
    replayed(primary, standby)
    before = len(shop.changes("orders"))
    promote(shop, primary, standby)
    shop.run("INSERT INTO orders VALUES (100000, 'at the new one')")
    changed = shop.source_rows("SELECT count(*) FROM orders WHERE v = 'not seen by us'")[0][0]
    shop.catch_up()
    shop.assert_equal("orders")
    assert len(shop.changes("orders")) - before == changed + 2
    assert gap_of(shop) == {}
    assert (shop.log.setting("source:shop:system") or "").endswith("/2")
    shop.run("DELETE FROM orders WHERE id = 3")
    shop.catch_up()
    shop.assert_equal("orders")


def test_idle_wal_that_a_failover_lost_is_not_acknowledged_to_the_new_server(
    shop: Captured, primary: EmbeddedPostgres, standby: EmbeddedPostgres
) -> None:
    """We said to have everything up to X, all of it nothing for us; of the new server we have nothing up to X."""
    shop.run(ORDERS, "CREATE SCHEMA apart", "CREATE TABLE apart.other (a text)")
    slot_is_copied(shop, standby)
    replayed(primary, standby)
    standby.stop()
    shop.run("INSERT INTO apart.other SELECT repeat('x', 1000) FROM generate_series(1, 3000) i")
    shop.catch_up()
    acknowledged = parse_lsn(shop.log.producer("source:shop").confirmed or "0/0")
    shop.connection.close()
    primary.stop()
    standby.start()
    promote(shop, primary, standby)
    shop.run("INSERT INTO orders SELECT 1000 + i, 'new' FROM generate_series(1, 100) i")
    assert parse_lsn(str(ask(standby, "SELECT pg_current_wal_insert_lsn()"))) < acknowledged
    with shop.running():
        until(lambda: shop.lake("SELECT count(*) FROM orders WHERE id > 1000") == [(100,)])
    with shop.running():
        shop.run("INSERT INTO orders VALUES (5000, 'later')")
        until(lambda: shop.lake("SELECT count(*) FROM orders WHERE id = 5000") == [(1,)])
    confirmed = ask(standby, "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'headwater_shop'")
    assert parse_lsn(str(confirmed)) < acknowledged
    shop.assert_equal("orders")
    assert gap_of(shop) == {}


def test_commits_that_a_failover_lost_are_taken_back(
    shop: Captured, primary: EmbeddedPostgres, standby: EmbeddedPostgres
) -> None:
    """An asynchronous standby was promoted; we had captured what it never got."""
    shop.run(ORDERS, "INSERT INTO orders SELECT i, 'a' FROM generate_series(1, 1000) i")
    slot_is_copied(shop, standby)
    replayed(primary, standby)
    standby.stop()
    shop.run("INSERT INTO orders VALUES (7000, 'lost')", "UPDATE orders SET v = 'lost' WHERE id = 7")
    shop.catch_up()
    shop.connection.close()
    primary.stop()
    standby.start()
    promote(shop, primary, standby)
    shop.on_gap = "repair"
    with pytest.raises(SourceGap, match="lost commits that were captured"):
        shop.catch_up()
    before = len(shop.changes("orders"))
    shop.run("INSERT INTO orders VALUES (8000, 'new')")
    requests.ask_repair(shop.log, "shop")
    shop.catch_up()
    shop.assert_equal("orders")
    assert len(shop.changes("orders")) - before == 3
    assert "lost commits" in gap_of(shop)["reason"]
    shop.run("INSERT INTO orders VALUES (8001, 'new')")
    shop.catch_up()
    shop.assert_equal("orders")


def test_a_backup_that_was_restored_is_never_read_on_blindly(
    shop: Captured, primary: EmbeddedPostgres, home: Path
) -> None:
    """A copy of the stopped server's files, of the same system and timeline, with the slot in it."""
    shop.run(ORDERS, "INSERT INTO orders SELECT i, 'a' FROM generate_series(1, 1000) i")
    shop.catch_up()
    shop.connection.close()
    primary.stop()
    subprocess.run(["cp", "-a", str(home / "first"), str(home / "backup")], check=True)
    primary.start()
    shop.connection = psycopg.connect(shop.dsn, autocommit=True)
    shop.run("UPDATE orders SET v = 'b'", "INSERT INTO orders VALUES (5000, 'never was')")
    shop.catch_up()
    shop.connection.close()
    primary.stop()
    with EmbeddedPostgres(home / "backup", fsync=False, port=primary.port):
        shop.connection = psycopg.connect(shop.dsn, autocommit=True)
        shop.on_gap = "repair"
        with pytest.raises(SourceGap, match="before the stored position"):
            shop.catch_up()
        shop.run("CREATE TABLE filler (a text)")
        shop.run("INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 3000) i")  # past all we have read
        with pytest.raises(SourceGap, match="an older mark of ours"):
            shop.catch_up()
        requests.ask_repair(shop.log, "shop")
        shop.run("INSERT INTO orders VALUES (6000, 'is')")
        shop.catch_up()
        shop.assert_equal("orders", "filler")
        shop.connection.close()
