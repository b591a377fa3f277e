"""The initial copy beside a source that goes on: what appears is what the server has, at every commit from then on."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from tests.waiting import until

from headwater.lake.status import status
from headwater_connectors.postgres import chunks, copier, copy_stream, copying
from headwater_connectors.postgres.capture import Capture
from headwater_connectors.postgres.chunks import Reader
from headwater_connectors.postgres.pieces import Pieces

if TYPE_CHECKING:
    from tests.connectors.conftest import Captured

WIDE = "CREATE TABLE wide (id int PRIMARY KEY, n int, fill text) WITH (fillfactor = 50)"
ROWS = "INSERT INTO wide SELECT i, i, repeat('x', 500) FROM generate_series(1, 400) i"
"""Some ten rows on a page, so a few hundred are many chunks of one page."""


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_PAGES", 8)
    monkeypatch.setattr(chunks, "PAGES_MIN", 2)
    monkeypatch.setattr(copier, "READERS", 1)


@pytest.fixture
def after_chunk(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], None]], None]:
    """Have something done after each chunk that was read: it is given how many there were."""

    def install(act: Callable[[int], None]) -> None:
        original, count = Pieces.keep_chunk, iter(range(1, 10**6))

        def keep(self: Pieces, *chunk: Any) -> Any:
            piece = original(self, *chunk)
            act(next(count))
            return piece

        monkeypatch.setattr(Pieces, "keep_chunk", keep)

    return install


def appeared(shop: Captured, table: str) -> int:
    """The commit in which a table's rows appeared."""
    return shop.log.topic(f"shop.public.{table}").created


def test_a_table_of_many_chunks_is_copied_and_appears_in_one_commit(shop: Captured) -> None:
    shop.run(WIDE, ROWS)
    shop.catch_up()
    shop.assert_equal("wide")
    commit = appeared(shop, "wide")
    assert {row["_commit"] for row in shop.changes("wide")} == {commit}
    assert {row["_op"] for row in shop.changes("wide")} == {"r"}
    with pytest.raises(Exception, match="wide"):
        shop.lake("SELECT * FROM wide", at=commit - 1)
    assert not [topic for topic in shop.log.topics(hidden=True) if topic.hidden]


def test_rows_move_between_chunks_while_they_are_read(shop: Captured, after_chunk: Any) -> None:
    """Updates move rows over pages, into chunks that were read and out of chunks that were not."""
    shop.run(WIDE, ROWS)
    mover = random.Random(7)

    def act(number: int) -> None:
        ids = mover.sample(range(1, 401), 12)
        with psycopg.connect(shop.dsn, autocommit=True) as other:
            other.execute("UPDATE wide SET n = n + 1000, fill = repeat('y', 450) WHERE id = ANY (%s)", [ids])
            other.execute("DELETE FROM wide WHERE id = %s", [mover.randint(1, 400)])
            other.execute("INSERT INTO wide VALUES (%s, 0, repeat('z', 300))", [1000 + number])
            if number % 5 == 0:
                other.execute("UPDATE wide SET id = id + 5000 WHERE id = (SELECT max(id) FROM wide WHERE id < 401)")
            other.execute("VACUUM wide")

    after_chunk(act)
    shop.catch_up()
    shop.assert_equal("wide")


def test_an_unchanged_toast_value_of_a_row_that_moved_between_two_chunk_reads(shop: Captured, after_chunk: Any) -> None:
    shop.run(
        "CREATE TABLE docs (id int PRIMARY KEY, n int, body text) WITH (fillfactor = 100)",
        "ALTER TABLE docs ALTER body SET STORAGE EXTERNAL",
        "INSERT INTO docs SELECT i, 0, repeat(chr(65 + i % 26), 4000) FROM generate_series(1, 4000) i",
    )

    def act(number: int) -> None:
        with psycopg.connect(shop.dsn, autocommit=True) as other:
            other.execute("UPDATE docs SET n = n + 1 WHERE mod(id, 97) = %s", [number])
            other.execute("UPDATE docs SET id = -id WHERE id = %s", [number * 13])

    after_chunk(act)
    shop.catch_up()
    shop.assert_equal("docs")


def test_changes_after_the_final_snapshot_come_after_the_copied_rows(shop: Captured, before_finish: Any) -> None:
    shop.run(WIDE, ROWS)

    def act() -> None:
        with psycopg.connect(shop.dsn, autocommit=True) as other:
            other.execute("UPDATE wide SET n = -1 WHERE id <= 10")
            other.execute("DELETE FROM wide WHERE id BETWEEN 11 AND 20")
            other.execute("UPDATE wide SET id = 9000 WHERE id = 21")

    before_finish(act)
    shop.catch_up()
    shop.assert_equal("wide")
    assert {row["_op"] for row in shop.changes("wide")} == {"r", "u", "d", "c"}


@pytest.mark.parametrize("statement", ["TRUNCATE wide", "ALTER TABLE wide ALTER n TYPE bigint USING n + 1"])
def test_a_table_emptied_or_rewritten_after_the_final_snapshot(
    shop: Captured, before_finish: Any, statement: str
) -> None:
    shop.run(WIDE, ROWS)

    def act() -> None:
        with psycopg.connect(shop.dsn, autocommit=True) as other:
            other.execute(statement.encode())
            other.execute("INSERT INTO wide VALUES (77777, 1, 'after')")

    before_finish(act)
    shop.catch_up()
    shop.assert_equal("wide")


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE wide ADD COLUMN more{n} int DEFAULT {n}",
        "TRUNCATE wide",
        *(
            pytest.param(statement, marks=pytest.mark.long)
            for statement in (
                "ALTER TABLE wide ADD COLUMN more{n} int",
                "ALTER TABLE wide ADD COLUMN more{n} float DEFAULT random()",
                "ALTER TABLE wide ALTER n TYPE bigint USING n + {n}",
                "VACUUM FULL wide",
            )
        ),
    ],
)
def test_a_table_that_is_altered_while_it_is_copied(shop: Captured, after_chunk: Any, statement: str) -> None:
    shop.run(WIDE, ROWS)

    def act(number: int) -> None:
        if number in (2, 9, 30):
            with psycopg.connect(shop.dsn, autocommit=True) as other:
                other.execute(statement.format(n=number).encode())
                other.execute("UPDATE wide SET fill = 'altered' WHERE id % 50 = 1")

    after_chunk(act)
    shop.catch_up()
    shop.assert_equal("wide")


def test_a_table_that_changes_faster_than_it_is_copied(
    shop: Captured, after_chunk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "READ_AGAIN_MIN", 5)
    monkeypatch.setattr(copying, "READ_AGAIN_FRACTION", 0.0)
    shop.run(WIDE, ROWS)

    def act(_: int) -> None:
        with psycopg.connect(shop.dsn, autocommit=True) as other:
            other.execute("UPDATE wide SET n = n + 1 WHERE id % 3 = 0")

    after_chunk(act)
    shop.catch_up()
    shop.assert_equal("wide")


KEYS = {
    "smallint": "i::smallint", "bigint": "i * 10000000000", "text": "'é''\"\\ ' || i", "varchar(40)": "'v' || i",
    "char(9)": "'c' || i", "numeric(12,3)": "i / 8.0", "numeric": "i / 3.0", "uuid": "md5(i::text)::uuid",
    "date": "CASE i WHEN 7 THEN 'infinity'::date ELSE date '0044-03-15 BC' + i END",
    "timestamp": "timestamp '1582-10-01' + i * interval '1 day 00:00:00.000001'",
    "timestamptz": "timestamptz '2001-01-01 00:00:00+02' + i * interval '1 hour'",
    "time": "time '00:00' + i * interval '1 second'", "bytea": "decode(md5(i::text), 'hex')",
    "inet": "'10.0.0.0'::inet + i", "float8": "i / 7.0", "moods": "('{a' || i || ',NULL}')::text[]",
    "int4range": "int4range(i, i + 2)", "interval": "i * interval '1 month 2 days 3.5 seconds'",
    "place": "row('s\"\\ ,(' || i, i, NULL, i * interval '1 day 1 second')::place",
}  # fmt: skip


@pytest.mark.long
def test_keys_of_every_kind_are_read_again(shop: Captured, after_chunk: Any) -> None:
    """Rows change beside their copy and are read again by their keys, written as text."""
    tables = [f"k{place}" for place in range(len(KEYS))]
    shop.run("CREATE DOMAIN moods AS text[]", "CREATE TYPE place AS (street text, n int, more int[], since interval)")
    for table, (kind, value) in zip(tables, KEYS.items(), strict=True):
        shop.run(
            f"CREATE TABLE {table} (k {kind}, part int, n int, fill text, PRIMARY KEY (k, part))"
            " WITH (fillfactor = 50)",
            f"INSERT INTO {table} SELECT {value}, i % 3, i, repeat('x', 500) FROM generate_series(1, 120) i",
        )
    again: list[str] = []

    def act(number: int) -> None:
        if number <= 2 * len(tables):
            with psycopg.connect(shop.dsn, autocommit=True) as other:
                for table in tables:
                    other.execute(f"UPDATE {table} SET n = n + 1000 WHERE n % 7 = {number % 7}".encode())
                again.append("changed")

    after_chunk(act)
    shop.catch_up()
    assert len(again) == 2 * len(tables)
    for table in tables:
        assert shop.log.topic(table).state == "live"
        query = f"SELECT count(*), count(DISTINCT k), sum(n), sum(part) FROM {table}"
        assert shop.lake(query) == shop.source_rows(query), table


def test_a_keyless_table_is_copied_under_one_snapshot(shop: Captured, after_chunk: Any) -> None:
    shop.run(
        "CREATE TABLE lines (n int, fill text) WITH (fillfactor = 50)",
        "ALTER TABLE lines REPLICA IDENTITY FULL",
        "INSERT INTO lines SELECT i % 40, repeat('x', 500) FROM generate_series(1, 400) i",
    )

    def act(_: int) -> None:
        with psycopg.connect(shop.dsn, autocommit=True) as other:
            other.execute("UPDATE lines SET n = n + 1 WHERE ctid IN (SELECT ctid FROM lines ORDER BY random() LIMIT 9)")
            other.execute("DELETE FROM lines WHERE ctid = (SELECT ctid FROM lines ORDER BY random() LIMIT 1)")
            other.execute("INSERT INTO lines VALUES (1, 'new')")

    after_chunk(act)
    shop.catch_up()
    shop.assert_equal("lines")


def test_a_table_added_while_a_transaction_that_wrote_to_it_is_open(shop: Captured) -> None:
    shop.run("CREATE TABLE first (id int PRIMARY KEY)")
    shop.catch_up()

    def copied() -> bool:
        return "shop.public.wide" in {topic.name for topic in shop.log.topics()}

    with shop.running(), psycopg.connect(shop.dsn) as writer:
        shop.run(WIDE)
        writer.execute(ROWS.encode())  # open while the table is published
        published = "SELECT count(*) = 1 FROM pg_publication_tables WHERE tablename = 'wide'"
        until(lambda: shop.source_rows(published) == [(True,)])
        writer.execute("UPDATE wide SET n = -5 WHERE id < 100")
        until(lambda: "waiting for transactions" in status(shop.log)["sources"][0]["copy"] or copied())
        writer.commit()
        until(lambda: "shop.public.wide" in {topic.name for topic in shop.log.topics()})
    shop.assert_equal("wide")


@pytest.mark.long
def test_commits_are_streamed_before_snapshots_see_them(shop: Captured, after_chunk: Any) -> None:
    """A synchronous standby is waited for, and is not there: the stream has the commits, no snapshot sees them.

    One of the two gets through before the last chunk, so some chunks saw it and others did not; the other after the
    table has appeared.
    """
    shop.run(WIDE, ROWS)
    shop.run("ALTER SYSTEM SET synchronous_commit = local", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    shop.run("SELECT pg_reload_conf()")
    writers: list[threading.Thread] = []
    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' ORDER BY query_start"

    def write(rest: int) -> None:
        with psycopg.connect(shop.dsn, autocommit=True) as other:
            other.execute("SET synchronous_commit = on")
            other.execute("UPDATE wide SET n = -n, fill = repeat('m', 480) WHERE id %% 9 = %s", [rest])

    def act(number: int) -> None:
        if number == 1:
            for rest in (0, 1):
                writers.append(threading.Thread(target=write, args=(rest,)))
                writers[-1].start()
                until(lambda: len(shop.source_rows(waiting)) == len(writers))
        if number == 4:
            shop.run(f"SELECT pg_cancel_backend({shop.source_rows(waiting)[0][0]})")  # committed here, as it now says
            until(lambda: len(shop.source_rows(waiting)) == 1)
            shop.run("UPDATE wide SET n = 0 WHERE id = 400")  # younger than the one that waits, and seen

    after_chunk(act)
    try:
        until(lambda: shop.source_rows("SHOW synchronous_standby_names") == [("nobody",)])
        shop.catch_up()
        assert len(shop.source_rows(waiting)) == 1
        assert shop.lake("SELECT count(*) FROM wide WHERE n < 0") == [(44 + 45,)]
    finally:
        shop.run("ALTER SYSTEM RESET synchronous_standby_names", "ALTER SYSTEM RESET synchronous_commit")
        shop.run("SELECT pg_reload_conf()")
        for writer in writers:
            writer.join()
    shop.assert_equal("wide")


@pytest.mark.long
@pytest.mark.parametrize(
    "statement",
    ["ALTER TABLE wide ADD COLUMN more{n} int DEFAULT {n}", "ALTER TABLE wide ALTER n TYPE {t} USING n + {n}"],
    ids=["added", "rewritten"],
)
def test_a_table_is_altered_in_every_chunk(shop: Captured, monkeypatch: pytest.MonkeyPatch, statement: str) -> None:
    """While each of the first dozen chunks holds the table, somebody begins to alter it, and waits for us."""
    shop.run(WIDE, ROWS)
    original, altering = Reader._copy, list[threading.Thread]()
    waiting = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"

    def alter(number: int) -> None:
        with psycopg.connect(shop.dsn, autocommit=True) as other:
            other.execute(statement.format(n=number, t=("int", "bigint")[number % 2]).encode())
            other.execute("UPDATE wide SET fill = 'altered' WHERE id = %s", [number])

    def copy(self: Reader, *args: Any) -> Any:
        if len(altering) < 12:
            altering.append(threading.Thread(target=alter, args=(len(altering),)))
            altering[-1].start()
            until(lambda: not altering[-1].is_alive() or shop.source_rows(waiting) == [(True,)])
        return original(self, *args)

    monkeypatch.setattr(Reader, "_copy", copy)
    shop.catch_up()
    assert len(altering) == 12
    shop.catch_up()
    shop.assert_equal("wide")


def test_the_application_waits_for_no_lock_of_a_copy(shop: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """ALTER TABLE beside a chunk that takes long: the chunk gives way within a fraction of a second."""
    shop.run(WIDE, ROWS)
    reading, hold = threading.Event(), threading.Event()
    original = Reader._copy

    def slow(self: Reader, *args: Any) -> Any:
        if not hold.is_set():
            reading.set()
            return psycopg.sql.SQL("COPY (SELECT pg_sleep(30)) TO STDOUT (FORMAT binary)") + psycopg.sql.SQL("")
        return original(self, *args)

    monkeypatch.setattr(Reader, "_copy", slow)
    with shop.running():
        assert reading.wait(20)
        took = shop.source_rows("SELECT clock_timestamp()")[0][0]
        shop.run("ALTER TABLE wide ADD COLUMN note text")
        waited = (shop.source_rows("SELECT clock_timestamp()")[0][0] - took).total_seconds()
        hold.set()
        until(lambda: "shop.public.wide" in {topic.name for topic in shop.log.topics()})
    assert waited < 0.5
    shop.assert_equal("wide")


def test_a_copy_goes_on_after_a_crash_from_the_chunks_that_are_kept(shop: Captured, after_chunk: Any) -> None:
    shop.run(WIDE, ROWS)
    read: list[int] = []

    def act(number: int) -> None:
        read.append(number)
        with psycopg.connect(shop.dsn, autocommit=True) as other:
            other.execute("UPDATE wide SET n = n + 1 WHERE mod(id, 7) = %s", [number % 7])
        if number == 4:
            capture.stop.set()

    after_chunk(act)
    capture = Capture(shop.source, shop.settings, shop.log, threading.Event())
    capture.run()
    first = len(read)
    assert 4 <= first < 8
    shop.catch_up()
    shop.assert_equal("wide")
    pages = shop.source_rows("SELECT pg_relation_size('wide') / 8192")[0][0]
    assert len(read) - first < pages / 8


@pytest.mark.parametrize("how", ["socket", "libpq"])
@pytest.mark.parametrize("rows", [0, 1, 2, 5000])
def test_both_ways_of_reading_a_copy_give_the_same_rows(
    dsn: str, monkeypatch: pytest.MonkeyPatch, how: str, rows: int
) -> None:
    """None at all, one beside the signature, one larger than the buffer, and texts full of what looks like frames."""
    monkeypatch.setattr(copy_stream, "BATCH_BYTES", 1 << 16)
    if how == "libpq":  # as behind TLS
        monkeypatch.setattr(copy_stream, "_from_socket", lambda c, command, _: copy_stream._from_libpq(c, command))
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE t (id int, v text)")
        connection.execute(
            "INSERT INTO t SELECT i, CASE i WHEN 7 THEN repeat('w', 400000) ELSE repeat('d' || chr(1), mod(i, 90)) END"
            " FROM generate_series(1, %s) i",
            [rows],
        )
        found = []
        for data, starts in copy_stream.rows_of(connection, b"COPY t TO STDOUT (FORMAT binary)", 2):
            for start in starts.tolist():
                size = int.from_bytes(data[start + 10 : start + 14])
                found.append((int.from_bytes(data[start + 6 : start + 10]), data[start + 14 : start + 14 + size]))
        broken = b"COPY (SELECT 1 / (i - 3), '' FROM generate_series(1, 5) i) TO STDOUT (FORMAT binary)"
        expected = connection.execute("SELECT id, v FROM t").fetchall()
        assert found == [(number, text.encode()) for number, text in expected]
        with pytest.raises(psycopg.errors.DivisionByZero):
            list(copy_stream.rows_of(connection, broken, 2))
        connection.rollback()
        assert connection.execute("SELECT 1").fetchone() == (1,)
