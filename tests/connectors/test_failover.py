"""The server behind the address becomes another one: a promoted standby, with all we have or without; a backup."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from tests.connectors.conftest import Captured
from tests.waiting import until

from headwater.errors import SourceGap, SourceNotReady
from headwater.lake.status import status
from headwater_connectors.postgres import requests
from headwater_connectors.postgres.catalog import parse_lsn
from headwater_connectors.postgres.embedded import EmbeddedPostgres
from headwater_connectors.postgres.verification import verify

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]
ORDERS = "CREATE TABLE orders (id int PRIMARY KEY, v text)"
MAKING_A_SLOT = """SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name LIKE 'headwater%'
    AND (query LIKE 'CREATE_REPLICATION_SLOT%' OR query LIKE 'SELECT pg_last_wal_replay_lsn() >=%')"""
STANDBY = {"hot_standby_feedback": "on", "sync_replication_slots": "on", "primary_slot_name": "standby"}


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that the server's own user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="headwater-failover-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def primary(home: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(home / "first", fsync=False) as server:
        yield server


@pytest.fixture
def shop(primary: EmbeddedPostgres, tmp_path: Path) -> Iterator[Captured]:
    captured = Captured(primary.create_database("shop"), tmp_path / "lake")
    yield captured
    captured.close()


@pytest.fixture
def standby(primary: EmbeddedPostgres, home: Path) -> Iterator[EmbeddedPostgres]:
    """Of the primary as it is now; its copies of slots follow."""
    server = EmbeddedPostgres(home / "second", fsync=False, settings=STANDBY)
    server._own_files()
    place = f"host=127.0.0.1 port={primary.port} user=postgres dbname=postgres"
    words = ("-d", place, "-D", str(server.data), "-R", "-C", "-S", "standby", "--checkpoint=fast")
    server._run([str(server.bin / "pg_basebackup"), *words])
    with server:
        yield server


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


def test_changes_are_decoded_on_a_standby(shop: Captured, primary: EmbeddedPostgres, standby: EmbeddedPostgres) -> None:
    """The slot is the standby's; tables are copied from the primary, where a transaction that wrote to one is open."""
    shop.run(ORDERS, "INSERT INTO orders SELECT i, 'a' FROM generate_series(1, 1000) i")
    replayed(primary, standby)
    # A slot could be made here at once, at a position where there are no publications, with a change after it.
    ask(standby, "SELECT pg_wal_replay_pause()::text")
    until(lambda: ask(standby, "SELECT pg_get_wal_replay_pause_state()") == "paused")
    shop.run("SELECT pg_log_standby_snapshot()", "UPDATE orders SET v = 'before' WHERE id = 900")
    shop.standby_dsn = standby.dsn("shop")
    with psycopg.connect(shop.dsn) as writer:
        writer.execute("UPDATE orders SET v = 'open' WHERE id < 5")
        with shop.running():
            until(lambda: ask(standby, MAKING_A_SLOT) is True)
            ask(standby, "SELECT pg_wal_replay_resume()::text")
            shop.run("UPDATE orders SET v = 'meanwhile' WHERE id BETWEEN 10 AND 20")
            writer.execute("INSERT INTO orders VALUES (3000, 'open')")
            writer.commit()
            until(lambda: "shop.public.orders" in {topic.name for topic in shop.log.topics()}, seconds=100)
            shop.run("UPDATE orders SET v = 'after' WHERE id = 30", "CREATE TABLE later (id int PRIMARY KEY)")
    shop.run("INSERT INTO later VALUES (1)", "DELETE FROM orders WHERE id = 40")
    shop.catch_up()
    shop.assert_equal("orders", "later")
    assert ask(primary, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'headwater_shop'") == 0
    assert ask(standby, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'headwater_shop'") == 1
    with shop.running():
        assert [(each.differences, each.skipped) for each in verify(shop.source, shop.log)] == [(0, "")] * 2
    until(lambda: ask(standby, "SELECT active FROM pg_replication_slots WHERE slot_name = 'headwater_shop'") is False)
    ask(standby, "SELECT count(pg_drop_replication_slot('headwater_shop'))")
    shop.run("DELETE FROM orders WHERE id = 50")
    requests.ask_repair(shop.log, "shop")
    shop.catch_up()
    shop.assert_equal("orders", "later")


def test_a_source_on_a_standby_is_told_what_to_do(
    shop: Captured, primary: EmbeddedPostgres, standby: EmbeddedPostgres
) -> None:
    shop.run(ORDERS)
    replayed(primary, standby)
    shop.dsn = standby.dsn("shop")
    with pytest.raises(SourceNotReady, match="the server is a standby: publications are made, and tables copied"):
        shop.catch_up()
    shop.standby_dsn = standby.dsn("shop")
    with pytest.raises(SourceNotReady, match="dsn leads to a standby"):
        shop.catch_up()
    shop.dsn, shop.standby_dsn = primary.dsn("shop"), primary.dsn("shop")
    with pytest.raises(SourceNotReady, match="is no standby"):
        shop.catch_up()
