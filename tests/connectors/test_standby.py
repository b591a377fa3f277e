"""Reading from a standby: its slot, and copies under the snapshot of a slot, whatever runs on the primary."""

from __future__ import annotations

import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from tests.connectors.test_capture_process import SMALL_CHUNKS, Project
from tests.connectors.test_failover import ORDERS, ask, replayed
from tests.connectors.test_initial_copy import ROWS, WIDE
from tests.waiting import until

from headwater.errors import SourceNotReady
from headwater.lake.status import status
from headwater_connectors.postgres import chunks, copier, requests, slot
from headwater_connectors.postgres import standby as standby_module
from headwater_connectors.postgres.chunks import Reader
from headwater_connectors.postgres.embedded import EmbeddedPostgres
from headwater_connectors.postgres.pieces import Pieces
from headwater_connectors.postgres.verification import verify

if TYPE_CHECKING:
    from pathlib import Path

    from tests.connectors.conftest import Captured

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]
MAKING_A_SLOT = """SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name LIKE 'headwater%'
    AND (query LIKE 'CREATE_REPLICATION_SLOT%' OR query LIKE 'SELECT pg_last_wal_replay_lsn() >=%')"""
LINES = "CREATE TABLE lines (n int, fill text) WITH (fillfactor = 50)"
"""Without a key: a row too many is one too many."""
FULL = "ALTER TABLE lines REPLICA IDENTITY FULL"
FILLED = "INSERT INTO lines SELECT i % 40, repeat('x', 500) FROM generate_series(1, 400) i"
SLOW = psycopg.sql.SQL("COPY (SELECT pg_sleep(60)) TO STDOUT (FORMAT binary)") + psycopg.sql.SQL("")
BEGUN = "SELECT count(*) = 1 FROM pg_replication_slots WHERE temporary AND catalog_xmin IS NOT NULL"
HOLDING = "application_name = 'headwater:shop' AND state = 'idle in transaction'"


@pytest.fixture
def dsn(primary: EmbeddedPostgres) -> str:
    return primary.create_database("shop")


@pytest.fixture
def copied(shop: Captured, standby: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> Captured:
    """The source with its slot on the standby and nothing captured yet but one empty table; copies are read there."""
    monkeypatch.setattr(chunks, "CHUNK_PAGES", 8)
    monkeypatch.setattr(chunks, "PAGES_MIN", 2)
    shop.standby_dsn, shop.copy_from = standby.dsn("shop"), "standby"
    shop.run("CREATE TABLE first (id int PRIMARY KEY)")
    shop.tables = ("public.first",)
    shop.catch_up()
    shop.tables = ("public.*",)
    return shop


@pytest.fixture
def read_from(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The port of the server for each chunk that was begun."""
    original, ports = Reader.chunk, list[int]()

    def chunk(self: Reader, connection: Any, *rest: Any) -> Any:
        ports.append(connection.info.port)
        return original(self, connection, *rest)

    monkeypatch.setattr(Reader, "chunk", chunk)
    return ports


@pytest.fixture
def after_chunk(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Pieces], None]], None]:
    """Have something done after each chunk that was read."""

    def install(act: Callable[[Pieces], None]) -> None:
        original = Pieces.keep_chunk

        def keep(self: Pieces, *chunk: Any) -> Any:
            piece = original(self, *chunk)
            act(self)
            return piece

        monkeypatch.setattr(Pieces, "keep_chunk", keep)
        monkeypatch.setattr(copier, "READERS", 1)

    return install


@pytest.fixture
def at_consistency(
    primary: EmbeddedPostgres, standby: EmbeddedPostgres, copied: Captured, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Have something done while the first slot of a copy knows of every transaction that begins, but not yet of all.

    What is done is between the two times at which the slot waits for transactions to end; what begins there may be
    open when the slot is made. ``then`` is done once nothing older is open.
    """

    def install(act: Callable[[], None], then: Callable[[], None] = lambda: None) -> None:
        original, once = slot.temporary, iter([True])

        def steps() -> Iterator[None]:
            said = standby.log_file.stat().st_size

            def begin(connection: Any) -> None:
                connection.execute("SELECT pg_current_xact_id()")

            def says(what: str) -> bool:
                return what in standby.log_file.read_bytes()[said:].decode()

            with ExitStack() as stack:
                first, second, third = (stack.enter_context(psycopg.connect(copied.dsn)) for _ in range(3))
                begin(first)
                end = ask(primary, "SELECT pg_log_standby_snapshot()::text")
                until(lambda: ask(standby, f"SELECT pg_last_wal_replay_lsn() >= '{end}'") is True)
                yield
                until(lambda: ask(standby, BEGUN) is True)  # begins where nothing older than now is open
                begin(second)
                first.commit()
                ask(primary, "SELECT pg_log_standby_snapshot()::text")
                until(lambda: says("found initial starting point"))
                begin(third)
                second.commit()
                ask(primary, "SELECT pg_log_standby_snapshot()::text")
                until(lambda: says("found initial consistent point"))
                act()
                third.commit()
                then()

        def temporary(replication: Any) -> Any:
            if not next(once, False):
                return original(replication)
            director = steps()
            next(director)
            with ThreadPoolExecutor(1) as pool:
                directed = pool.submit(next, director, None)
                found = original(replication)
                directed.result()
            return found

        monkeypatch.setattr(slot, "temporary", temporary)

    return install


def appeared(shop: Captured, *tables: str) -> bool:
    return {f"shop.public.{table}" for table in tables} <= {topic.name for topic in shop.log.topics()}


def test_a_copy_from_a_standby_with_a_transaction_open_on_the_primary(
    copied: Captured, standby: EmbeddedPostgres, at_consistency: Any, after_chunk: Any, before_finish: Any,
    read_from: list[int],
) -> None:  # fmt: skip
    """Two that have written before the snapshot, and go on: one commits once the last chunk is read, one at the end."""
    copied.run(LINES, FULL, FILLED)
    with psycopg.connect(copied.dsn) as writer, psycopg.connect(copied.dsn) as later:

        def write(rest: int) -> None:
            for number, connection in enumerate((writer, later)):
                where = f"ctid IN (SELECT ctid FROM lines WHERE n % 10 = {2 * rest + number} LIMIT 20)"
                connection.execute(f"UPDATE lines SET n = n + 1000 WHERE {where}".encode())
                connection.execute(f"DELETE FROM lines WHERE n = {10 * rest + 4 + number}".encode())
                connection.execute(f"INSERT INTO lines VALUES ({number}, 'new') , ({number}, 'new')".encode())

        during = iter([1])

        def chunk_is_read(_: Pieces) -> None:
            for rest in during:
                write(rest)

        def last_is_read() -> None:
            write(2)
            writer.commit()

        def written_already() -> None:
            write(0)
            copied.run("INSERT INTO first VALUES (1)")  # younger, and over: no bound of a snapshot is below the two

        at_consistency(written_already)
        after_chunk(chunk_is_read)
        before_finish(last_is_read)
        with copied.running():
            until(lambda: appeared(copied, "lines"))
            copied.assert_equal("lines")
            later.commit()
    copied.catch_up()
    copied.assert_equal("lines")
    assert set(read_from) == {standby.port}


def test_a_commit_right_at_the_consistent_point_of_the_slot(
    copied: Captured, standby: EmbeddedPostgres, at_consistency: Any, read_from: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Its record is the next after the one that makes the slot consistent: the snapshot does not see it."""
    copied.run(LINES, FULL, FILLED)
    monkeypatch.setattr(standby_module, "LOG_SECONDS", 30)  # the test says itself what runs
    points: list[int] = []

    def begin() -> None:
        copied.connection.execute("BEGIN")
        copied.connection.execute("INSERT INTO lines VALUES (7000, 'at the point')")

    def commit() -> None:
        copied.connection.execute("SELECT pg_log_standby_snapshot(); COMMIT")

    at_consistency(begin, commit)
    directed = slot.temporary

    def temporary(replication: Any) -> Any:
        found = directed(replication)
        points.append(found[0].lsn)
        return found

    monkeypatch.setattr(slot, "temporary", temporary)
    copied.catch_up()
    copied.assert_equal("lines")
    assert copied.lake(f"SELECT count(*) FROM shop.transactions WHERE commit_lsn = {points[0]}") == [(1,)]
    assert set(read_from) == {standby.port}


def test_commits_that_a_synchronous_standby_is_waited_for(
    copied: Captured, standby: EmbeddedPostgres, at_consistency: Any, after_chunk: Any, read_from: list[int]
) -> None:
    """One is in the slot's snapshot, one comes after it: for the primary both still run when the rows appear."""
    copied.run(LINES, FULL, FILLED)
    copied.run("ALTER SYSTEM SET synchronous_commit = local", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    copied.run("SELECT pg_reload_conf()")
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    writers: list[threading.Thread] = []

    def work(number: int) -> None:
        with psycopg.connect(copied.dsn, autocommit=True) as other:
            other.execute("SET synchronous_commit = on")
            other.execute("UPDATE lines SET n = n + 1000 WHERE n %% 10 = %s", [number])

    def write() -> None:
        writers.append(threading.Thread(target=work, args=(len(writers),)))
        writers[-1].start()
        until(lambda: copied.source_rows(waiting) == [(len(writers),)])

    at_consistency(write)
    after_chunk(lambda _: write() if len(writers) == 1 else None)
    try:
        until(lambda: copied.source_rows("SHOW synchronous_standby_names") == [("nobody",)])
        with copied.running():
            until(lambda: appeared(copied, "lines"), seconds=60)
        assert copied.source_rows(waiting) == [(2,)]
        assert copied.lake("SELECT count(*), count(*) FILTER (WHERE n > 999) FROM lines") == [(400, 80)]
    finally:
        copied.run("ALTER SYSTEM RESET synchronous_standby_names", "ALTER SYSTEM RESET synchronous_commit")
        copied.run("SELECT pg_reload_conf()")
        for writer in writers:
            writer.join()
    copied.assert_equal("lines")
    assert set(read_from) == {standby.port}


def test_a_copy_from_a_standby_under_load(
    copied: Captured, standby: EmbeddedPostgres, after_chunk: Any, read_from: list[int]
) -> None:
    """Every commit since both tables appeared is a state that the source had: what is paid is in the history."""
    fill = "repeat('x', 500)"
    copied.run(
        "CREATE TABLE accounts (id int PRIMARY KEY, cents int, fill text) WITH (fillfactor = 50)",
        f"INSERT INTO accounts SELECT i, 0, {fill} FROM generate_series(1, 400) i",
        "CREATE TABLE paid (cents int, fill text)",
        "ALTER TABLE paid REPLICA IDENTITY FULL",
        f"INSERT INTO paid SELECT 0, {fill} FROM generate_series(1, 200) i",
    )
    stop, chunk, draw = threading.Event(), threading.Condition(), random.Random(3)

    def pay() -> None:
        with psycopg.connect(copied.dsn, autocommit=True) as other:
            while not stop.is_set():
                with other.transaction():
                    cents, account = draw.randint(1, 99), draw.randint(1, 400)
                    other.execute("UPDATE accounts SET cents = cents + %s WHERE id = %s", [cents, account])
                    other.execute(f"INSERT INTO paid VALUES (%s, {fill})".encode(), [cents])
                    other.execute("DELETE FROM paid WHERE ctid = (SELECT ctid FROM paid WHERE cents = 0 LIMIT 1)")
                with chunk:
                    chunk.notify_all()

    def wait(_: Pieces) -> None:
        with chunk:
            assert stop.is_set() or chunk.wait(20)

    after_chunk(wait)
    with ThreadPoolExecutor(1) as pool, copied.running():
        paying = pool.submit(pay)
        try:
            until(lambda: appeared(copied, "accounts", "paid"), seconds=90)
            first = copied.log.newest_commit()
            until(lambda: copied.log.newest_commit() > first + 20)
        finally:
            stop.set()
        paying.result()
    for commit in range(first, copied.log.newest_commit() + 1):
        [(accounts,)] = copied.lake("SELECT sum(cents) FROM accounts", at=commit)
        [(paid,)] = copied.lake("SELECT sum(cents) FROM paid", at=commit)
        assert accounts == paid > 0, commit
    copied.catch_up()
    copied.assert_equal("accounts", "paid")
    before = len(copied.changes("accounts"))
    for where in ("id < 100", ""):
        requests.ask_copy(copied.log, "shop", "public.accounts", where)
        copied.run("UPDATE accounts SET cents = 1 WHERE id = 7")
        copied.catch_up()
        copied.assert_equal("accounts")
    assert len(copied.changes("accounts")) == before + 2
    assert set(read_from) == {standby.port}


@pytest.mark.parametrize("losses", [1, 3])
def test_a_copy_from_a_standby_whose_snapshot_is_lost(
    copied: Captured, primary: EmbeddedPostgres, standby: EmbeddedPostgres, after_chunk: Any, read_from: list[int],
    losses: int,
) -> None:  # fmt: skip
    """It begins again under another one; after the third it is made from the primary."""
    copied.run(LINES, FULL, FILLED)
    left, said = iter(range(losses)), list[str]()
    end = f"SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE {HOLDING}"

    def lose(pieces: Pieces) -> None:
        said.append(str(pieces.progress).partition("from ")[2])
        copied.run("UPDATE lines SET n = n + 1 WHERE n % 7 = 0", "INSERT INTO lines VALUES (1, 'new')")
        if next(left, None) is not None:
            assert ask(standby, end) == 1

    after_chunk(lose)
    copied.catch_up()
    copied.assert_equal("lines")
    if losses == 1:
        assert set(said) == {"the standby"}
        assert set(read_from) == {standby.port}
    else:
        assert said[-1].startswith("the primary, because of the standby: ")
        assert (read_from[0], read_from[-1]) == (standby.port, primary.port)


@pytest.mark.parametrize("place", ["copy.keep:after:3", "copy.finish:before:1"])
def test_kill_9_in_a_copy_from_a_standby(
    copied: Captured, standby: EmbeddedPostgres, read_from: list[int], command: Path, place: str
) -> None:
    """The snapshot is lost with the process; the next one takes another and leaves nothing behind on the servers."""
    copied.run(LINES, FULL, FILLED)
    project = Project(copied.folder.parent, copied.dsn, command)
    with (project.root / "headwater.toml").open("a") as file:
        file.write(f'standby_dsn = "{copied.standby_dsn}"\ncopy_from = "standby"\n')
    words = ("capture", "shop", "--until-caught-up")
    process = project._started([sys.executable, "-c", SMALL_CHUNKS], *words, HEADWATER_FAILPOINTS=f"kill:{place}")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, errors
    copied.run("UPDATE lines SET n = n + 1 WHERE n % 7 = 0", "INSERT INTO lines VALUES (1, 'new')")
    copied.catch_up()
    copied.assert_equal("lines")
    assert set(read_from) == {standby.port}
    assert ask(standby, "SELECT count(*) FROM pg_replication_slots WHERE temporary") == 0


def test_a_standby_whose_rows_may_be_vacuumed_is_not_copied_from(
    copied: Captured, primary: EmbeddedPostgres, standby: EmbeddedPostgres, read_from: list[int]
) -> None:
    copied.run(WIDE, ROWS)
    standby.stop()
    standby._settings["hot_standby_feedback"] = "off"
    standby.start()
    copied.catch_up()
    copied.assert_equal("wide")
    assert set(read_from) == {primary.port}


def test_a_standby_that_is_behind_is_waited_for(
    copied: Captured, primary: EmbeddedPostgres, standby: EmbeddedPostgres, read_from: list[int]
) -> None:
    """A slot could be made at once, from before a transaction that had written when the table was published."""
    copied.run(WIDE, ROWS)
    replayed(primary, standby)
    ask(standby, "SELECT pg_wal_replay_pause()::text")
    until(lambda: ask(standby, "SELECT pg_get_wal_replay_pause_state()") == "paused")
    copied.run("SELECT pg_log_standby_snapshot()")
    with psycopg.connect(copied.dsn) as writer:
        writer.execute("UPDATE wide SET n = -n WHERE id < 100")
        with copied.running():
            until(lambda: "waiting for transactions" in status(copied.log)["sources"][0]["copy"])
            writer.commit()
            until(lambda: ask(standby, MAKING_A_SLOT) is True)
            ask(standby, "SELECT pg_wal_replay_resume()::text")
            until(lambda: appeared(copied, "wide"))
    copied.assert_equal("wide")
    assert set(read_from) == {standby.port}


def test_the_application_waits_for_no_copy_from_a_standby(
    copied: Captured, standby: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch, read_from: list[int]
) -> None:
    """With remote_apply a commit waits for the standby, and that for whoever reads the table there."""
    copied.run(WIDE, ROWS, "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
    until(lambda: copied.source_rows("SELECT sync_state FROM pg_stat_replication") == [("sync",)])
    reading, hold = threading.Event(), threading.Event()
    original = Reader._copy

    def slow(self: Reader, *args: Any) -> Any:
        if not hold.is_set():
            reading.set()
            return SLOW
        return original(self, *args)

    monkeypatch.setattr(Reader, "_copy", slow)
    with copied.running():
        assert reading.wait(30)
        began = copied.source_rows("SELECT clock_timestamp()")[0][0]
        copied.run("SET synchronous_commit = remote_apply", "ALTER TABLE wide ADD COLUMN note text")
        waited = (copied.source_rows("SELECT clock_timestamp()")[0][0] - began).total_seconds()
        hold.set()
        until(lambda: appeared(copied, "wide"))
    assert waited < 0.5
    copied.catch_up()  # the column came after the snapshot
    copied.assert_equal("wide")
    assert set(read_from) == {standby.port}


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
