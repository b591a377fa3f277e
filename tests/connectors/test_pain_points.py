"""What users of other systems report, shown not to happen here: ``docs/capture_proof.md`` has the table.

The points that have a test elsewhere are listed there with it. ``test_capture_mutations.py`` takes away what each of
them hangs on, and sees the test fail.
"""

from __future__ import annotations

import threading
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from tests.waiting import until

from headwater.config import Settings, SourceConfig
from headwater.errors import SourceUnreachable
from headwater.log.transaction import Transaction
from headwater_connectors.postgres import capture, tending
from headwater_connectors.postgres.capture import Capture
from headwater_connectors.postgres.catalog import parse_lsn
from headwater_connectors.postgres.faulty_proxy import FaultyProxy

if TYPE_CHECKING:
    from tests.connectors.conftest import Captured

pytestmark = pytest.mark.long
SLOT = "FROM pg_replication_slots WHERE database = current_database()"


def lsn(shop: Captured, query: str) -> int:
    return parse_lsn(shop.source_rows(query)[0][0])


def await_confirmed(shop: Captured) -> None:
    """Until the server may forget everything that it has written by now."""
    end = lsn(shop, "SELECT pg_current_wal_insert_lsn()::text")
    until(lambda: lsn(shop, f"SELECT confirmed_flush_lsn::text {SLOT}") >= end - 100, "the slot has moved")


def test_pain_01_the_slot_moves_while_the_source_is_written_to(shop: Captured) -> None:
    shop.run("CREATE TABLE t (id bigserial PRIMARY KEY, v text)")
    shop.catch_up()
    before = lsn(shop, f"SELECT restart_lsn::text {SLOT}")
    with shop.running():
        for _ in range(4):
            shop.run("INSERT INTO t (v) SELECT repeat('x', 900) FROM generate_series(1, 2000)")
            await_confirmed(shop)
        shop.run("CHECKPOINT", "INSERT INTO t (v) VALUES ('last')")
        await_confirmed(shop)
        until(lambda: lsn(shop, f"SELECT restart_lsn::text {SLOT}") > before + (4 << 20), "WAL can be removed")


def test_pain_02_the_slot_moves_when_only_other_tables_change(shop: Captured) -> None:
    shop.run("CREATE TABLE t (id int PRIMARY KEY)", "CREATE SCHEMA apart", "CREATE TABLE apart.other (v text)")
    shop.catch_up()
    config = SourceConfig(name="shop", dsn=shop.dsn, tables=("public.*",))
    stop = threading.Event()
    running = threading.Thread(target=Capture(config, Settings(), shop.log, stop).run)
    running.start()
    try:
        shop.run("INSERT INTO apart.other SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
        await_confirmed(shop)
    finally:
        stop.set()
        running.join()


def test_pain_03_a_connection_that_says_nothing_is_given_up(shop: Captured, caplog: pytest.LogCaptureFixture) -> None:
    shop.run("CREATE TABLE t (id int PRIMARY KEY)")
    shop.catch_up()
    given = psycopg.conninfo.conninfo_to_dict(shop.dsn)
    with FaultyProxy((str(given["host"]), int(str(given["port"])))) as proxy:
        dsn = psycopg.conninfo.make_conninfo(shop.dsn, host="127.0.0.1", port=str(proxy.port))
        stop = threading.Event()
        config = SourceConfig(name="shop", dsn=dsn, silence_s=2)
        running = threading.Thread(target=Capture(config, Settings(), shop.log, stop).run)
        running.start()
        try:
            until(lambda: shop.source_rows(f"SELECT active {SLOT}") == [(True,)], "it streams")
            proxy.fault = "stall"
            shop.run("INSERT INTO t VALUES (1)")
            until(lambda: "reconnecting" in caplog.text, "the silence is noticed")
            proxy.fault = "none"
            until(lambda: len(shop.changes("t")) == 1, "the row arrives")
        finally:
            proxy.fault = "none"
            stop.set()
            running.join()


def test_pain_03_a_server_that_stays_away_is_waited_for(shop: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long, and from the start where it has been read from before; one that nobody supervises gives up."""
    monkeypatch.setattr(capture, "RECONNECT_SECONDS_MAX", 0.5)
    shop.run("CREATE TABLE t (id int PRIMARY KEY)")
    shop.catch_up()
    given = psycopg.conninfo.conninfo_to_dict(shop.dsn)
    with FaultyProxy((str(given["host"]), int(str(given["port"])))) as proxy:
        config = SourceConfig(name="shop", dsn=psycopg.conninfo.make_conninfo(shop.dsn, port=str(proxy.port)))

        def said() -> dict[str, Any]:
            return dict(shop.log.live.read()["source:shop"].stats)

        proxy.fault = "drop"
        with pytest.raises(SourceUnreachable):
            Capture(config, Settings(), shop.log, threading.Event()).run()
        stop = threading.Event()
        running = threading.Thread(target=Capture(config, Settings(), shop.log, stop, waits=True).run)
        running.start()
        try:
            for _ in range(2):
                until(lambda: said().get("away_s", 0) > 1, "it says for how long it has waited")
                assert said()["state"] == "error"
                shop.run("INSERT INTO t SELECT count(*) FROM t")
                proxy.fault = "none"
                until(lambda: len(shop.changes("t")) == shop.source_rows("SELECT count(*) FROM t")[0][0], "it arrives")
                until(lambda: (said()["state"], said()["away_s"]) == ("streaming", 0), "it says that it streams")
                proxy.fault = "drop"
        finally:
            stop.set()
            running.join()


def test_pain_04_a_key_change_brings_along_what_it_did_not_send(shop: Captured) -> None:
    """Values too large to be sent again: from the old key's row, over several moves and a swap in one transaction."""
    shop.run(
        "CREATE TABLE t (id int PRIMARY KEY, body text, n int)",
        "ALTER TABLE t ALTER body SET STORAGE EXTERNAL",
        "INSERT INTO t SELECT i, repeat(chr(64 + i), 9000), i FROM generate_series(1, 9) i",
    )
    shop.catch_up()
    shop.run(
        "UPDATE t SET id = 101 WHERE id = 1",
        "UPDATE t SET id = 102 WHERE id = 2",
        "UPDATE t SET id = 202 WHERE id = 102",
        "UPDATE t SET n = 5 WHERE id = 202",
        "BEGIN; UPDATE t SET id = 300 WHERE id = 3; UPDATE t SET id = 3 WHERE id = 4;"
        " UPDATE t SET id = 4 WHERE id = 300; COMMIT",
    )
    shop.catch_up()
    shop.assert_equal("t")
    assert any(row["_op"] == "c" and row["_unchanged"] == ["body"] for row in shop.changes("t"))


def test_pain_05_sessions_that_break_anywhere_lose_and_double_nothing(
    shop: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a transaction, before its commit and after it; many changes have one LSN."""
    shop.settings = Settings(commit_bytes_max=64 * 1024, commit_rows_max=500)
    shop.run("CREATE TABLE t (id int PRIMARY KEY, n int)", "CREATE TABLE u (id int PRIMARY KEY)")
    shop.catch_up()
    for number in range(5):
        shop.run(
            f"BEGIN; INSERT INTO t SELECT {number} * 2000 + i, 0 FROM generate_series(1, 2000) i;"
            f" UPDATE t SET n = n + 1; INSERT INTO u VALUES ({number}); COMMIT"
        )
    breaks, calls = {3, 9, 20, 40}, {"append": 0, "commit": 0}
    append, commit = Capture._append, Transaction.commit

    def broken_append(self: Capture, *args: Any) -> None:
        append(self, *args)
        calls["append"] += 1
        if calls["append"] in breaks:
            raise SourceUnreachable("in the middle")

    def broken_commit(self: Transaction) -> Any:
        calls["commit"] += 1
        if calls["commit"] == 2:
            raise SourceUnreachable("before a commit")
        info = commit(self)
        if calls["commit"] == 4:
            raise SourceUnreachable("after a commit")
        return info

    monkeypatch.setattr(Capture, "_append", broken_append)
    monkeypatch.setattr(Transaction, "commit", broken_commit)
    shop.catch_up()
    assert calls["append"] > 9
    shop.assert_equal("t", "u")
    assert [row["id"] for row in shop.changes("u")] == [0, 1, 2, 3, 4]
    assert len(shop.changes("t")) == 2000 * (5 + 1 + 2 + 3 + 4 + 5)
    places = [(row["_lsn"], row["_seq"]) for row in shop.changes("t")]
    assert places == sorted(set(places))


def test_pain_07_a_table_that_is_locked_stops_nothing(
    shop: Captured, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Other tables are looked at and captured meanwhile; what its transaction may have written to is copied later."""
    monkeypatch.setattr(tending, "SURVEY_SECONDS", 0.2)
    shop.run("CREATE TABLE locked (id int PRIMARY KEY)", "CREATE TABLE t (id int PRIMARY KEY)")
    shop.catch_up()
    with shop.running(), psycopg.connect(shop.dsn) as other:
        shop.run("CREATE TABLE late (id int PRIMARY KEY)", "INSERT INTO late VALUES (1)")
        other.execute("LOCK TABLE locked IN ACCESS EXCLUSIVE MODE")
        for number in range(3):
            shop.run(f"INSERT INTO t VALUES ({number})")
            until(lambda number=number: len(shop.changes("t")) > number, "the row arrives")  # type: ignore[misc]
        other.rollback()
        until(lambda: "shop.public.late" in {topic.name for topic in shop.log.topics()}, "the new table is copied")
    shop.assert_equal("t", "late", "locked")
    assert "reconnecting" not in caplog.text


def test_pain_09_a_row_of_a_hundred_megabytes(shop: Captured) -> None:
    """In the first copy, in the stream, and beside small ones."""
    shop.run(
        "CREATE TABLE t (id int PRIMARY KEY, v text)",
        "INSERT INTO t SELECT i, 'small' FROM generate_series(2, 500) i",
        "INSERT INTO t VALUES (1, repeat('0123456789', 10000000))",
    )
    shop.catch_up()
    shop.run("INSERT INTO t SELECT 1000 + id, v FROM t WHERE id < 10", "UPDATE t SET v = v || 'x' WHERE id = 1")
    shop.catch_up()
    query = "SELECT id, length(v), md5(v) FROM t ORDER BY id"
    assert shop.lake(query) == shop.source_rows(query)
    assert shop.log.topic("t").state == "live"


def _same(ours: str, theirs: str) -> bool:
    """As numbers, NaN and the sign of zero included."""
    one, other = Decimal(ours), Decimal(theirs)
    return one.is_signed() == other.is_signed() and (one == other or (one.is_nan() and other.is_nan()))


def test_pain_11_numbers_that_no_decimal_holds_keep_their_text(shop: Captured) -> None:
    shop.run("CREATE TABLE t (id int PRIMARY KEY, n numeric, d numeric(10,2), w numeric(60,30), f float8)")
    values = "(%s, 'NaN', 'NaN', 'NaN', 'NaN'), (%s, 'Infinity', -0.01, 1e29, '-Infinity'),"
    values += " (%s, 1e-40, 99999999.99, 123456789012345678901234567890.123456789012345678901234567890, '-0'),"
    values += " (%s, -1e130, NULL, 'NaN', 5e-324)"
    shop.connection.execute(f"INSERT INTO t VALUES {values}".encode(), [1, 2, 3, 4])
    shop.catch_up()
    shop.connection.execute(f"INSERT INTO t VALUES {values}".encode(), [11, 12, 13, 14])
    shop.catch_up()
    theirs = {row[0]: row[1:] for row in shop.source_rows("SELECT id, n::text, d::text, w::text, f::text FROM t")}
    found = shop.changes("t")
    assert len(found) == 8
    for row in found:
        texts = dict(row["_raw"] or {})
        for name, text in zip("ndwf", theirs[row["id"]], strict=True):
            ours = texts.get(name, row[name])
            assert (ours is None) == (text is None)
            assert text is None or _same(str(ours), text), (row["id"], name)


@pytest.mark.parametrize("mode", ["auto", "text"])
def test_pain_12_times_are_read_alike_whatever_the_servers_settings(shop: Captured, mode: str) -> None:
    shop.mode = mode
    shop.run(
        *(
            f"ALTER DATABASE {shop.connection.info.dbname} SET {setting}"
            for setting in (
                "timezone = 'Asia/Tokyo'", "datestyle = 'SQL, DMY'", "intervalstyle = 'postgres_verbose'",
                "extra_float_digits = -10", "bytea_output = 'escape'",
            )
        ),
        "CREATE TABLE t (id int PRIMARY KEY, z timestamptz, p timestamp, d date, w time, e interval, f float8,"
        " b bytea)",
    )  # fmt: skip
    rows = (
        "('2026-03-04 05:06:07.000001+02', '2026-03-04 05:06:07', '2026-03-04', '24:00', '1 mon', 0.1, '\\x00ff5c')",
        "('infinity', '-infinity', 'infinity', '00:00', NULL, 'NaN', NULL)",
        "('0044-03-15 12:00:00+00 BC', '4713-01-01 00:00:00 BC', '0044-03-15 BC', NULL, NULL, NULL, NULL)",
        "('294276-12-31 23:59:59.999999+00', '294276-12-31 23:59:59.999999', '5874897-12-31', NULL, NULL, NULL, NULL)",
    )
    for number, row in enumerate(rows):
        shop.run(
            f"INSERT INTO t SELECT {number}, z::timestamptz, p::timestamp, d::date, w::time, e::interval, f::float8,"
            f" b::bytea FROM (VALUES {row}) v(z, p, d, w, e, f, b)"
        )
    shop.catch_up()
    shop.run("INSERT INTO t SELECT 10 + id, z, p, d, w, e, f, b FROM t")
    shop.catch_up()
    same = " AND ".join(f"c.{name} IS NOT DISTINCT FROM s.{name}" for name in "zpdwefb")
    assert shop.lake(f"SELECT count(*) FROM t c JOIN t s ON s.id = c.id + 10 AND {same}") == [(4,)]
    first = shop.lake("SELECT epoch_us(z), epoch_us(p), d::VARCHAR, w::VARCHAR, f, hex(b) FROM t WHERE id = 0")
    assert first == [(1772593567000001, 1772600767000000, "2026-03-04", "24:00:00", 0.1, "00FF5C")]
    ends = shop.lake("SELECT isinf(z), isinf(p), isinf(d) FROM t WHERE id = 1")
    assert ends == [(True, True, True)]
    early = shop.lake("SELECT extract(year FROM p), d::VARCHAR FROM t WHERE id = 2")
    assert early == [(-4712, "0044-03-15 (BC)")]
    late = shop.lake("SELECT id, _raw['z'] FROM log.\"shop.public.t\" WHERE id IN (3, 13) ORDER BY id")
    assert late == [(number, "294276-12-31 23:59:59.999999+00") for number in (3, 13)]


def test_pain_13_a_slow_commit_does_not_cost_the_session(
    shop: Captured, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shop.run(
        "CREATE TABLE t (id int PRIMARY KEY)",
        f"ALTER DATABASE {shop.connection.info.dbname} SET wal_sender_timeout = '2s'",
    )
    shop.catch_up()
    commit, slow = Transaction.commit, iter([True])

    def slowly(self: Transaction) -> Any:
        for _ in slow:
            time.sleep(5)
        return commit(self)

    with shop.running():
        until(lambda: shop.source_rows(f"SELECT active {SLOT}") == [(True,)], "it streams")
        monkeypatch.setattr(Transaction, "commit", slowly)
        shop.run("INSERT INTO t VALUES (1)")
        until(lambda: len(shop.changes("t")) == 1, "the row arrives")
        shop.run("INSERT INTO t VALUES (2)")
        until(lambda: len(shop.changes("t")) == 2, "the next row arrives")
    assert "reconnecting" not in caplog.text


def test_pain_16_many_small_transactions_are_few_commits_and_files(shop: Captured) -> None:
    shop.run("CREATE TABLE t (id int PRIMARY KEY, n int)", "INSERT INTO t SELECT i, 0 FROM generate_series(1, 10) i")
    shop.catch_up()
    before = shop.log.newest_commit()
    for number in range(2000):
        shop.connection.execute("UPDATE t SET n = n + 1 WHERE id = %s", [number % 10 + 1])
    shop.catch_up()
    shop.assert_equal("t")
    assert len(shop.changes("t")) == 2010
    assert shop.log.newest_commit() - before <= 20
    assert len(list((shop.folder / "data" / "hot").iterdir())) <= 30


@pytest.mark.parametrize("mode", ["auto", "text"])
def test_pain_17_a_type_that_nobody_knows_is_text(shop: Captured, mode: str) -> None:
    shop.mode = mode
    shop.run(
        "CREATE TYPE pair AS (a int, b text)",
        "CREATE TYPE mood AS ENUM ('sad', 'ok')",
        "CREATE DOMAIN moods AS mood[]",
        "CREATE TYPE spans AS RANGE (subtype = float8)",
        "CREATE TABLE t (id int PRIMARY KEY, l pg_lsn, v tsvector, q tsquery, p point, c circle, y pair, ys pair[],"
        " m mood, ms moods, s spans, sm spans_multirange, x bit(5), k money, a macaddr,"
        " g xid8, j jsonpath, n name)",
    )
    row = (
        "'0/16B3748', to_tsvector('simple', 'a fat cat'), 'fat & rat', '(1,2)', '<(0,0),1>', '(1,\"x,y\")',"
        " ARRAY['(1,a)', NULL]::pair[], 'ok', '{sad,ok}', '[1,2)', '{[1,2),[3,4)}', B'10101', 12.34,"
        " '08:00:2b:01:02:03', '123456789012', '$.a[*]', 'n'"
    )
    shop.run(f"INSERT INTO t VALUES (1, {row})", "INSERT INTO t (id) VALUES (2)")
    shop.catch_up()
    shop.run(f"INSERT INTO t VALUES (3, {row})", "INSERT INTO t (id) VALUES (4)", "ALTER TYPE mood ADD VALUE 'glad'")
    shop.run("UPDATE t SET m = 'glad' WHERE id = 4")
    shop.catch_up()
    assert shop.log.topic("t").state == "live"
    copied, empty, streamed, changed = sorted(shop.lake("SELECT * FROM t"), key=lambda each: each[0])
    assert str(copied[1:]) == str(streamed[1:])
    assert set(empty[1:]) == {None}
    assert "glad" in changed
    texts = shop.lake("SELECT l, q, j, x::VARCHAR FROM t WHERE id = 3")
    assert texts == [("0/16B3748", "'fat' & 'rat'", '$."a"[*]', "10101")]
