"""After changes that nobody saw: never a silent gap, never a table copied whole, and what was not seen is said."""

from __future__ import annotations

import re
import signal
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from tests.connectors.test_capture_process import Project
from tests.waiting import until

from headwater.config import load
from headwater.errors import SourceGap
from headwater.lake.status import status
from headwater.service.status import running
from headwater_connectors.postgres import copying, requests, testing
from headwater_connectors.postgres.catalog import parse_lsn
from headwater_connectors.postgres.component import components
from headwater_connectors.postgres.copying import Copying
from headwater_connectors.postgres.guard import Guard
from headwater_connectors.postgres.pieces import Pieces

if TYPE_CHECKING:
    from pathlib import Path

    from tests.connectors.conftest import Captured

TABLES = (
    "CREATE TABLE orders (id int PRIMARY KEY, who text, amount numeric(12,2), big text)",
    "ALTER TABLE orders ALTER big SET STORAGE EXTERNAL",
    "INSERT INTO orders SELECT i, 'w', i * 1.25, repeat('b', 3000 * (i % 50 = 0)::int) FROM generate_series(1, 5000) i",
    "CREATE TABLE still (id int PRIMARY KEY, v text, half float8, quarter real)",
    "INSERT INTO still SELECT i, 'v' || i, i / 2.0, -i / 4.0 FROM generate_series(1, 3000) i",
    "CREATE TABLE lines (a int, b text)",
    "ALTER TABLE lines REPLICA IDENTITY FULL",
    "INSERT INTO lines SELECT i % 40, 'x' FROM generate_series(1, 400) i",
    "CREATE TABLE odd (id int PRIMARY KEY, n numeric(9,2), at timestamptz, span interval)",
    "INSERT INTO odd SELECT i, i, now(), '1 day' FROM generate_series(1, 100) i",
    "INSERT INTO odd VALUES (200, 'NaN', '294250-01-01', NULL), (201, NULL, now(), NULL)",
    "CREATE TABLE sums (id int PRIMARY KEY, n numeric(9,2))",
    "INSERT INTO sums SELECT i, nullif(i, 9) FROM generate_series(1, 100) i",
    "CREATE TABLE emptied (id int PRIMARY KEY)",
    "INSERT INTO emptied SELECT generate_series(1, 100)",
    "CREATE TABLE widened (id int PRIMARY KEY)",
    "INSERT INTO widened SELECT generate_series(1, 100)",
    "CREATE TABLE anew (id int PRIMARY KEY, v text)",
    "INSERT INTO anew SELECT i, 'v' FROM generate_series(1, 100) i",
    "CREATE TABLE gone (id int PRIMARY KEY)",
    "CREATE TABLE pages (at int)",
    "INSERT INTO pages SELECT generate_series(1, 100)",
)
NAMES = ("orders", "still", "lines", "emptied", "widened", "anew", "pages", "later")
MEANWHILE = (
    "UPDATE orders SET amount = 0 WHERE id IN (50, 51)",
    "DELETE FROM orders WHERE id = 4000",
    "INSERT INTO orders VALUES (6001, 'new', 1, NULL)",
    "UPDATE orders SET id = 7000 WHERE id = 100",
    "INSERT INTO orders VALUES (6002, 'came and went', 1, NULL)",
    "DELETE FROM orders WHERE id = 6002",
    "UPDATE lines SET b = 'y' WHERE ctid = (SELECT min(ctid) FROM lines)",
    "UPDATE sums SET n = 'NaN' WHERE id = 9",
    "UPDATE odd SET n = 'NaN' WHERE id = 7",
    "TRUNCATE emptied",
    "INSERT INTO emptied VALUES (1000)",
    "ALTER TABLE widened ADD more int DEFAULT 7",
    "INSERT INTO widened VALUES (1000, 1)",
    "DROP TABLE anew",
    "CREATE TABLE anew (id int PRIMARY KEY, v text)",
    "INSERT INTO anew SELECT i, 'v' FROM generate_series(2, 100) i",
    "DROP TABLE gone",
    "CREATE TABLE later (id int PRIMARY KEY)",
    "INSERT INTO later VALUES (1)",
    "INSERT INTO pages VALUES (1)",
)


def drop_slot(shop: Captured) -> None:
    active = "SELECT active FROM pg_replication_slots WHERE slot_name = 'headwater_shop'"
    until(lambda: shop.source_rows(active) == [(False,)])  # the server reads the end of a session after it ended here
    shop.run("SELECT pg_drop_replication_slot('headwater_shop')")


def rows_read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """By table, counted from now on: rows that the server sent to a copy."""
    original, found = Pieces.keep_chunk, Counter[str]()

    def count(self: Pieces, *chunk: Any) -> Any:
        piece = original(self, *chunk)
        found[self.known.full_name] += piece.rows
        return piece

    monkeypatch.setattr(Pieces, "keep_chunk", count)
    return found


def appended(shop: Captured, table: str, before: dict[str, int]) -> int:
    return len(shop.changes(table)) - before[table]


def counts(shop: Captured) -> dict[str, int]:
    return {name: len(shop.changes(name)) for name in NAMES if name != "later"}


def status_of(shop: Captured) -> dict[str, Any]:
    return next(each for each in status(shop.log)["sources"] if each["name"] == "shop")


def gap_of(shop: Captured) -> dict[str, Any]:
    return dict(status_of(shop)["gap"] or {})


def test_pain_15_a_slot_that_was_dropped_costs_a_comparison_not_a_copy(
    shop: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything happens while the slot is gone: only rows that differ are appended, and the range is on record."""
    monkeypatch.setattr(copying, "COMPARED_HERE_PAGES_MAX", -1)  # as if they were large
    shop.run(*TABLES)
    shop.catch_up()
    before, topics = counts(shop), {name: shop.log.topic(name).id for name in NAMES if name != "later"}
    newest, position = shop.log.newest_commit(), shop.log.producer("source:shop").position or ""
    drop_slot(shop)
    shop.run(*MEANWHILE)
    with pytest.raises(SourceGap, match=r"is gone .*headwater source repair shop"):
        shop.catch_up()
    assert shop.log.newest_commit() == newest
    requests.ask_repair(shop.log, "shop")
    read = rows_read(monkeypatch)
    shop.catch_up()
    shop.assert_equal(*NAMES)
    assert {row["id"]: dict(row["_raw"]).get("n") for row in shop.changes("odd")[102:]} == {7: "NaN", 200: "NaN"}
    assert [(row["id"], dict(row["_raw"])) for row in shop.changes("sums")[100:]] == [(9, {"n": "NaN"})]
    assert 0 < read.pop("public.orders") < 500
    assert 0 < read.pop("public.lines") < 100
    assert sum(read.pop(name) for name in ("public.pages", "public.later", "public.odd")) == 101 + 1 + 102
    assert sum(read.values()) < 10, read
    expected = {"orders": 6, "still": 0, "lines": 2, "emptied": 101, "widened": 1, "anew": 1}
    assert {name: appended(shop, name, before) for name in expected} == expected
    assert {name: shop.log.topic(name).id for name in expected} == {name: topics[name] for name in expected}
    assert "shop.public.gone" not in {topic.name for topic in shop.log.topics()}
    assert shop.lake("SELECT count(*) FROM orders", at=newest) == [(5000,)]
    [(since, upto, reason)] = shop.lake("SELECT from_lsn, to_lsn, reason FROM shop.gaps")
    assert parse_lsn(position) <= since < upto
    assert reason == "the replication slot headwater_shop is gone"
    assert parse_lsn(gap_of(shop)["to_lsn"]) == upto
    shop.run("UPDATE orders SET who = 'after' WHERE id = 7000", "DELETE FROM widened WHERE id = 1")
    shop.catch_up()
    shop.assert_equal(*NAMES)
    assert shop.log.topic("orders").state == "live"


def test_changes_beside_a_repair_are_neither_lost_nor_doubled(shop: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """A capture that runs is asked for a repair of equal tables; rows change after the snapshot that is compared."""
    shop.run(*TABLES[:8], "CREATE TABLE more (id int PRIMARY KEY)", "INSERT INTO more SELECT generate_series(1, 9)")
    shop.catch_up()
    beside = {
        "orders": "UPDATE orders SET who = 'u' WHERE id < 9; DELETE FROM orders WHERE id = 20;"
        " UPDATE orders SET id = 9000 WHERE id = 21; INSERT INTO orders VALUES (8000, 'new', 1, NULL)",
        "lines": "UPDATE lines SET b = 'y' WHERE a < 3; DELETE FROM lines WHERE a = 7",
        "more": "TRUNCATE more; INSERT INTO more VALUES (100)",
    }
    monkeypatch.setattr(copying, "COMPARED_HERE_PAGES_MAX", -1)
    original = Copying._sum_chunk

    def and_change(self: Copying, *given: Any) -> Any:
        found = original(self, *given)
        if (statements := beside.pop(self.known.name, "")) != "":
            shop.run(statements)
        return found

    monkeypatch.setattr(Copying, "_sum_chunk", and_change)
    with shop.running():
        requests.ask_repair(shop.log, "shop")
        until(lambda: bool(gap_of(shop)) and {topic.state for topic in shop.log.topics()} == {"live"})
    shop.catch_up()
    assert not beside
    assert gap_of(shop)["reason"] == "a repair was asked for"
    shop.assert_equal("orders", "lines", "still", "more")


def test_a_slot_that_the_server_invalidated_is_repaired_where_that_is_allowed(
    shop: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its table is small, so it is read and compared here."""
    shop.run(*TABLES[:3])
    shop.catch_up()
    drop_slot(shop)
    shop.run("UPDATE orders SET amount = -1 WHERE id = 5")
    shop.run("SELECT pg_create_logical_replication_slot('headwater_shop', 'pgoutput')")
    lost = "SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = 'headwater_shop'"
    shop.run("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'", "SELECT pg_reload_conf()")
    try:
        for _ in range(10):
            shop.run("SELECT pg_logical_emit_message(false, 'x', 'x')", "SELECT pg_switch_wal()", "CHECKPOINT")
            if shop.source_rows(lost) == [(True,)]:
                break
        before = len(shop.changes("orders"))
        with pytest.raises(SourceGap, match="the server invalidated the replication slot headwater_shop"):
            shop.catch_up()
    finally:
        shop.run("ALTER SYSTEM RESET max_slot_wal_keep_size", "SELECT pg_reload_conf()")
    shop.on_gap = "repair"
    read = rows_read(monkeypatch)
    shop.catch_up()
    shop.assert_equal("orders")
    assert len(shop.changes("orders")) - before == 1
    assert read == {"public.orders": 5000}


def test_another_history_is_repaired_only_when_asked(shop: Captured) -> None:
    shop.run(*TABLES[:3])
    shop.catch_up()
    shop.on_gap = "repair"
    known = shop.log.setting("source:shop:system") or ""
    identifier = known.split("/")[0]
    for other, says in [("1/1", "another server"), (f"{identifier}/9", "does not descend"), (known, "ends at")]:
        shop.log.set_setting("source:shop:system", other)
        if other == known:
            shop.log.set_confirmed("source:shop", "FFFF/0")
        with pytest.raises(SourceGap, match=says):
            shop.catch_up()
    before = len(shop.changes("orders"))
    requests.ask_repair(shop.log, "shop")
    shop.catch_up()
    shop.assert_equal("orders")
    assert len(shop.changes("orders")) == before
    shop.run("UPDATE orders SET amount = 1 WHERE id = 1")
    shop.catch_up()
    shop.assert_equal("orders")


@pytest.mark.long
@pytest.mark.timeout(300)
def test_up_goes_on_by_itself_once_a_repair_is_asked_for(
    shop: Captured, admin: str, tmp_path: Path, command: Path
) -> None:
    """The other source and its view go on meanwhile; the status names the command; no process is started again."""
    shop.run(*TABLES[:3])
    shop.catch_up()
    drop_slot(shop)
    shop.run("UPDATE orders SET amount = -1 WHERE id = 5")
    with testing.database(admin) as dsn, psycopg.connect(dsn, autocommit=True) as other:
        other.execute("CREATE TABLE visits (id int PRIMARY KEY)")
        project = Project(tmp_path, shop.dsn, command)
        with (tmp_path / "headwater.toml").open("a") as file:
            file.write(f'[source.other]\ndsn = "{dsn}"\n[settings]\nhttp_port = 0\n')
        code, _, errors = project.run("up", "--until-caught-up")
        assert (code, "waits until somebody runs `headwater source repair shop`" in errors) == (1, True), errors
        (tmp_path / "views").mkdir()
        process = project.start_script("up")
        try:
            until(lambda: running(shop.log.live.read()["source:shop"]))
            until(lambda: status_of(shop)["mended_by"] == "headwater source repair shop")
            assert re.match(r"changes may be missing.* is gone .*headwater source repair", status_of(shop)["error"])
            code, _, errors = project.run("verify", "--source")
            assert code == 1
            assert re.search(r"its capture waits: .* Run `headwater source repair shop`", errors, re.DOTALL), errors
            started = shop.log.live.read()["source:shop"].pid
            until(lambda: "other.public.visits" in {topic.name for topic in shop.log.topics()})
            view = "CREATE MATERIALIZED VIEW visited AS SELECT count(*) AS n FROM visits"
            (tmp_path / "views" / "visited.sql").write_text(view)
            other.execute("INSERT INTO visits VALUES (1), (2)")
            until(lambda: [view.state for view in shop.log.views()] == ["live"])
            until(lambda: shop.lake("SELECT n FROM visited") == [(2,)])
            before = len(shop.changes("orders"))
            assert project.run("source", "repair", "shop")[0] == 0
            until(lambda: len(shop.changes("orders")) == before + 1)
            shop.run("UPDATE orders SET amount = -2 WHERE id = 6")
            until(lambda: len(shop.changes("orders")) == before + 2)
            shop.assert_equal("orders")
            until(lambda: status_of(shop)["state"] == "streaming")
            assert (status_of(shop)["mended_by"], status_of(shop)["error"]) == (None, "")
            assert shop.log.live.read()["source:shop"].pid == started
        finally:
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors


@pytest.mark.long
def test_kill_9_before_a_repair_is_on_record(shop: Captured, tmp_path: Path, command: Path) -> None:
    """The new slot is there and the commit that says so is not: it is another gap, and the repair still wanted."""
    shop.run(*TABLES[:3])
    shop.catch_up()
    drop_slot(shop)
    shop.run("DELETE FROM orders WHERE id = 3")
    project = Project(tmp_path, shop.dsn, command)
    assert project.run("source", "repair", "shop")[0] == 0
    process = project.start("capture", "shop", HEADWATER_FAILPOINTS="kill:source.repair:before:1")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    shop.run("DELETE FROM orders WHERE id = 4")
    shop.catch_up()
    shop.assert_equal("orders")
    assert requests.repair_asked(shop.log, "shop") is False
    until(lambda: bool(gap_of(shop)))


@pytest.mark.long
def test_pain_01_a_capture_that_stands_still_does_not_fill_the_servers_disk(
    shop: Captured, tmp_path: Path, command: Path
) -> None:
    """Its slot is in use and never moves: somebody else warns, and drops it; the capture mends it once it goes on."""
    shop.run(*TABLES[:3], "CREATE SCHEMA apart", "CREATE TABLE apart.other (a text)")
    shop.catch_up()
    process = Project(tmp_path, shop.dsn, command).start_script("capture", "shop")
    active = "SELECT count(*) = 1 FROM pg_replication_slots WHERE slot_name = 'headwater_shop' AND active"
    until(lambda: shop.source_rows(active) == [(True,)])
    process.send_signal(signal.SIGSTOP)
    try:
        shop.run("INSERT INTO apart.other SELECT repeat('x', 1000) FROM generate_series(1, 3000) i")
        shop.run("UPDATE orders SET amount = -1 WHERE id = 5")
        warns = replace(shop.source, wal_warn_bytes=1 << 20)
        assert Guard(warns, shop.log).look() is False
        (found,) = status(shop.log)["sources"]
        assert re.fullmatch(r"the server keeps \d MiB of WAL for the slot, more than 1 MiB", found["slot_warning"])
        assert found["retained_wal_bytes"] > 1 << 20
        assert found["wal_status"] == "reserved"
        drops = replace(warns, wal_drop_bytes=2 << 20)
        assert Guard(drops, shop.log).look() is True
        assert shop.source_rows("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'headwater_shop'") == [
            (0,)
        ]
        assert Guard(drops, shop.log).look() is False
    finally:
        process.send_signal(signal.SIGCONT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode not in (0, -signal.SIGSTOP)
    assert "was dropped: it kept" in errors
    assert "headwater source repair shop" in errors
    shop.on_gap = "repair"
    before = len(shop.changes("orders"))
    shop.catch_up()
    shop.assert_equal("orders")
    assert len(shop.changes("orders")) - before == 1
    assert "wal_drop_bytes" in gap_of(shop)["reason"]


def test_a_guard_runs_where_a_slot_may_be_dropped(tmp_path: Path) -> None:
    text = '[source.shop]\ndsn = "d"\n[source.other]\ndsn = "d"\nwal_drop_bytes = 1_000_000\non_gap = "repair"\n'
    (tmp_path / "headwater.toml").write_text(text)
    named = {each.name: list(each.argv) for each in components(load(tmp_path))}
    assert set(named) == {"source:shop", "source:other", "guard:other"}
    assert named["guard:other"] == ["headwater", "source", "guard", "other"]
