"""Law 9, with an application that never pauses: none of its statements fails, none waits 500 ms for a lock of ours.

Writers, DDL on every table and a SELECT that stays open go on while the source is prepared, copied, followed, copied
again, compared and dropped. Another connection looks every few milliseconds who waits for whom: a statement counts as
waiting for us while one of our sessions is among those that it waits for, also behind others of the application.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest
from tests.waiting import until

from headwater.lake.status import status
from headwater_connectors.postgres import requests, session, source
from headwater_connectors.postgres.verification import verify

if TYPE_CHECKING:
    from tests.connectors.conftest import Captured

WAIT_MS_MAX = 500.0
OURS = "headwater:"
MADE = (
    "CREATE TABLE orders (id int PRIMARY KEY, n int, v text)",
    "CREATE TABLE lines (id int, n int, v text)",
    "CREATE TABLE bag (id int, n int, v text)",
    "ALTER TABLE bag REPLICA IDENTITY FULL",
    "CREATE TABLE late_key (id int PRIMARY KEY DEFERRABLE, n int, v text)",
    "CREATE TABLE nothing (id int PRIMARY KEY, n int, v text)",
    "ALTER TABLE nothing REPLICA IDENTITY NOTHING",
    "CREATE TABLE made (id int, n int, v text, twice int GENERATED ALWAYS AS (n * 2) STORED)",
    "ALTER TABLE made REPLICA IDENTITY FULL",
    "CREATE TABLE made_key (id int, n int, v text, k int GENERATED ALWAYS AS (id) STORED PRIMARY KEY)",
    "CREATE TABLE parted (id int PRIMARY KEY, n int, v text) PARTITION BY RANGE (id)",
    "CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (500)",
    "CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (500) TO (1000000)",
    "CREATE TABLE parted_bare (id int, n int, v text) PARTITION BY RANGE (id)",
    "CREATE TABLE parted_bare_1 PARTITION OF parted_bare FOR VALUES FROM (0) TO (1000000)",
    "ALTER TABLE parted_bare REPLICA IDENTITY FULL",  # which its partition does not take over
    "CREATE TABLE heir () INHERITS (orders)",  # of everything but the key
    "CREATE TABLE large (id int PRIMARY KEY, n int, v text) WITH (fillfactor = 60)",
)
TABLES = ("orders", "lines", "bag", "late_key", "nothing", "made", "made_key", "parted", "parted_bare", "heir", "large")
DDL = (
    "ALTER TABLE {t} ADD COLUMN c{n} int DEFAULT {n}",
    "ALTER TABLE {t} DROP COLUMN c{n}",
    "CREATE INDEX i{n} ON {t} (n)",
    "DROP INDEX i{n}",
    "VACUUM {t}",
)
MORE = (
    "TRUNCATE bag, orders",
    "CREATE TABLE scratch (id int PRIMARY KEY, v text); INSERT INTO scratch VALUES (1, 'a')",
    "UPDATE scratch SET v = 'b'",
    "ALTER TABLE scratch ALTER v TYPE varchar(50)",
    "DROP TABLE scratch",
    "CREATE TABLE bare (id int, v text); INSERT INTO bare VALUES (1, 'a')",
    "UPDATE bare SET v = 'b'",
    "ALTER TABLE bare ADD PRIMARY KEY (id)",
    "UPDATE bare SET v = 'c'",
    "DELETE FROM bare",
    "DROP TABLE bare",
    "CREATE INDEX CONCURRENTLY beside ON lines (n)",
    "DROP INDEX CONCURRENTLY beside",
    "ALTER TABLE parted DETACH PARTITION parted_1",
    "ALTER TABLE parted ATTACH PARTITION parted_1 FOR VALUES FROM (0) TO (500)",
)


class Application:
    """Statements without a pause until the block ends; ``failed`` holds what did not work, ``done`` counts."""

    def __init__(self, dsn: str) -> None:
        self.dsn = psycopg.conninfo.make_conninfo(dsn, application_name="application")
        self.failed: list[str] = []
        self.done: Counter[str] = Counter()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(act,)) for act in (self._dml, self._ddl, self._read)]

    def __enter__(self) -> Application:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, act: Callable[[psycopg.Connection[object]], Iterator[str]]) -> None:
        with psycopg.connect(self.dsn, autocommit=True, prepare_threshold=None) as connection:
            for statement in act(connection):
                if self._stop.is_set():
                    return
                try:
                    connection.execute(statement.encode())
                    self.done[act.__name__] += 1
                except psycopg.Error as error:
                    self.failed.append(f"{statement}: {error}")

    def _dml(self, _: psycopg.Connection[object]) -> Iterator[str]:
        number = 0
        while True:
            number += 1
            for table in TABLES:
                yield f"INSERT INTO {table} (id, n, v) VALUES ({400_000 + number}, {number}, 'new')"
                yield f"UPDATE {table} SET n = n + 1 WHERE id = {400_000 + number}"
                yield f"DELETE FROM {table} WHERE id = {400_000 + number - 5}"

    def _ddl(self, _: psycopg.Connection[object]) -> Iterator[str]:
        """Columns of the large table come and go in every sixth round only: its copy has to begin anew each time."""
        number = 0
        while True:
            for table in TABLES:
                number += 1
                often = table != "large" or number % (6 * len(TABLES)) == 0
                yield from (s.format(t=table, n=number) for s in DDL if often or "COLUMN" not in s)
            yield from MORE

    def _read(self, connection: psycopg.Connection[object]) -> Iterator[str]:
        """A transaction that has read a table stays open for a while, again and again."""
        while True:
            for table in ("large", "orders", "parted"):
                with connection.transaction():
                    yield f"SELECT count(*) FROM {table} WHERE id < 100"
                    self._stop.wait(0.8)


class Waits:
    """The longest time, by phase, that a statement of the application waited for a session of ours."""

    QUERY = """
    SELECT w.pid, extract(epoch FROM clock_timestamp())::float8 * 1000, pg_blocking_pids(w.pid), w.mode, w.locktype,
        left(a.query, 60), a.application_name LIKE 'headwater:%',
        ARRAY(SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'headwater:%'),
        extract(epoch FROM w.waitstart)::float8,
        ARRAY(SELECT left(b.query, 80) FROM pg_stat_activity b WHERE b.application_name LIKE 'headwater:%'
            AND b.pid = ANY (pg_blocking_pids(w.pid)))
    FROM pg_locks w JOIN pg_stat_activity a USING (pid) WHERE NOT w.granted
    """

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.phase = "before"
        self.longest: dict[str, tuple[float, str]] = {}
        self.samples: Counter[str] = Counter()
        self._began: dict[tuple[int, float], float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Waits:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            while not self._stop.wait(0.003):
                rows = connection.execute(self.QUERY).fetchall()
                self.samples[self.phase] += 1
                self._take(rows)

    def _take(self, rows: list[tuple[object, ...]]) -> None:
        """Who waits for us, directly or behind somebody who does; times are the server's."""
        edges: dict[int, set[int]] = defaultdict(set)
        ours: set[int] = set()
        for pid, _, blockers, *_rest in rows:
            edges[pid] |= set(blockers)  # type: ignore[index,call-overload]
            ours |= set(_rest[4])  # type: ignore[call-overload]
        behind = set(ours)
        while more := {pid for pid, blockers in edges.items() if blockers & behind} - behind:
            behind |= more
        seen = set()
        for pid, now, _, mode, kind, query, is_ours, _all, since, by in rows:
            if is_ours or pid not in behind or not isinstance(pid, int) or not isinstance(now, float):
                continue
            key = (pid, float(str(since or 0)))
            seen.add(key)
            waited = now - self._began.setdefault(key, now)
            if waited >= self.longest.get(self.phase, (-1.0, ""))[0]:
                self.longest[self.phase] = (waited, f"{query} ({kind} {mode}), for: {by}")
        self._began = {key: began for key, began in self._began.items() if key in seen}

    def report(self) -> str:
        return "\n".join(
            f"{phase}: {count} samples, longest {self.longest.get(phase, (0.0, 'nobody waited'))}"
            for phase, count in self.samples.items()
        )


@contextmanager
def phase(waits: Waits, name: str, application: Application, rounds: int = 60) -> Iterator[None]:
    """Ends when the block has, and the application has run so many more statements of DDL."""
    waits.phase = name
    goal = application.done["_ddl"] + rounds
    yield
    end = time.monotonic() + 60
    while application.done["_ddl"] < goal:
        assert application.failed == [], f"{name}, {waits.report()}"
        assert time.monotonic() < end, f"{name}: the application did not get on"
        time.sleep(0.01)


def appeared(shop: Captured) -> set[str]:
    """A table that appeared may be reshaping by now: the application alters each of them all the time."""
    return {topic.name.rpartition(".")[2] for topic in shop.log.topics()}


def said(shop: Captured) -> str:
    """What is copied, and how every table is."""
    states = {topic.name: f"{topic.state} {topic.reason}" for topic in shop.log.topics()}
    return f"{status(shop.log)['sources'][0]['copy']}; {states}"


def beside(application: Application, condition: Callable[[], bool], what: Callable[[], str] = str) -> None:
    """Wait for the condition as long as no statement failed."""

    def holds() -> bool:
        assert application.failed == []
        return condition()

    until(holds, what, 90)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_no_statement_of_the_application_fails_or_waits_for_us(shop: Captured) -> None:
    shop.run(*MADE)
    for table in TABLES[:-1]:
        shop.run(f"INSERT INTO {table} (id, n, v) SELECT i, i, 'v' FROM generate_series(1, 900) i")
    shop.run("INSERT INTO large SELECT i, i, repeat(md5(i::text), 15) FROM generate_series(1, 350000) i")
    with Waits(shop.dsn) as waits, Application(shop.dsn) as application:
        with phase(waits, "before", application):
            pass
        with session.connect(shop.dsn, "shop") as connection, phase(waits, "prepare", application):
            source.prepare(shop.source, connection)
        with shop.running():
            with phase(waits, "copy", application):
                beside(application, lambda: set(TABLES) - {"bag", "orders"} <= appeared(shop), lambda: said(shop))
            with phase(waits, "stream", application):
                pass
            with phase(waits, "copy again", application):
                for table in ("large", "lines"):
                    requests.ask_copy(shop.log, "shop", f"public.{table}")
                beside(application, lambda: shop.log.topic("large").state != "live")
                beside(application, lambda: shop.log.topic("large").state == "live")
            with phase(waits, "verify", application):
                for _ in range(2):
                    found = verify(shop.source, shop.log)
        with session.connect(shop.dsn, "shop") as connection, phase(waits, "drop", application):
            source.drop(shop.source, shop.log, shop.log.raise_epoch("source:shop"), connection)
    print(waits.report())
    print(dict(application.done))
    assert application.failed == []
    assert max(waited for waited, _ in waits.longest.values()) <= WAIT_MS_MAX, waits.report()
    assert sum(each.differences for each in found) == 0


@pytest.mark.long
def test_nothing_waits_behind_us_for_what_somebody_else_holds(shop: Captured) -> None:
    """A lock that we cannot have is let go of at once: whoever could share it with its holder comes before us."""
    shop.run("CREATE TABLE early (id int PRIMARY KEY)")
    shop.catch_up()
    shop.run("CREATE TABLE late (id int PRIMARY KEY)")
    waiting = """SELECT count(*) > 0 FROM pg_locks JOIN pg_stat_activity USING (pid)
        WHERE relation = 'late'::regclass AND NOT granted AND application_name LIKE 'headwater:%'"""
    share = "LOCK TABLE late IN SHARE MODE"  # as CREATE INDEX takes it; a publication asks for more
    with psycopg.connect(shop.dsn) as holder, psycopg.connect(shop.dsn) as other, shop.running():
        holder.execute(share)
        until(lambda: shop.source_rows(waiting) == [(True,)], "we wait for the table")
        other.execute(f"SET lock_timeout = {WAIT_MS_MAX:.0f}")
        try:
            other.execute(share)
        finally:
            for each in (other, holder):
                each.rollback()
        until(lambda: "late" in appeared(shop), "it is captured")
