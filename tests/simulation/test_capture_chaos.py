"""Chaos: a bank under load and DDL, while the capture, its server session, the server and the network fail by turns.

The sum over two tables is the same in every state the source ever had, so in every commit of the lake; afterwards
``verify --source`` finds no difference. HEADWATER_CHAOS_SECONDS sets how long; the seed is printed.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from tests.waiting import until

import headwater
from headwater.config import SourceConfig
from headwater_connectors.postgres.embedded import EmbeddedPostgres
from headwater_connectors.postgres.faulty_proxy import FaultyProxy
from headwater_connectors.postgres.source import PostgresSource

SECONDS = float(os.environ.get("HEADWATER_CHAOS_SECONDS", "60"))
ACCOUNTS = 40
TABLES = (
    "CREATE TABLE giro (id int PRIMARY KEY, balance bigint NOT NULL)",
    "CREATE TABLE savings (id int PRIMARY KEY, balance bigint NOT NULL)",
    f"INSERT INTO giro SELECT i, 1000 FROM generate_series(1, {ACCOUNTS}) i",
    f"INSERT INTO savings SELECT i, 1000 FROM generate_series(1, {ACCOUNTS}) i",
    "CREATE TABLE shape (id serial PRIMARY KEY, v text, n int DEFAULT 0)",
    "CREATE TABLE large (id bigint PRIMARY KEY, v text)",
)
DDL = (
    "ALTER TABLE shape ADD c{n} int",
    "ALTER TABLE shape ADD d{n} int DEFAULT {n}",
    "ALTER TABLE shape RENAME v TO v{n}; ALTER TABLE shape RENAME v{n} TO v",
    "ALTER TABLE shape ALTER n TYPE bigint USING n + 1",
    "ALTER TABLE shape ALTER n TYPE int USING n - 1",
    "TRUNCATE shape",
    "CREATE TABLE extra{n} (id int PRIMARY KEY, v text); INSERT INTO extra{n} VALUES (1, 'a')",
    "VACUUM FULL shape",
)


class Load:
    """Writers that go on whatever the server does; ``stop`` ends them."""

    def __init__(self, dsn: str, seed: int) -> None:
        self.dsn = dsn
        self.stop = threading.Event()
        self.done: dict[str, int] = {}
        draw = random.Random(seed)
        self._threads = [
            threading.Thread(target=self._run, args=(name, act, random.Random(draw.random())))
            for name, act in (("transfer", self._transfer), ("shape", self._shape), ("large", self._large))
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, name: str, act: object, draw: random.Random) -> None:
        self.done[name] = 0
        while not self.stop.is_set():
            with suppress(psycopg.Error), psycopg.connect(self.dsn, autocommit=True, connect_timeout=2) as connection:
                while not self.stop.is_set():
                    act(connection, draw)  # type: ignore[operator]
                    self.done[name] += 1
            self.stop.wait(0.1)

    def _transfer(self, connection: psycopg.Connection[object], draw: random.Random) -> None:
        amount, one, other = draw.randint(1, 90), draw.randint(1, ACCOUNTS), draw.randint(1, ACCOUNTS)
        with connection.transaction():
            connection.execute("UPDATE giro SET balance = balance - %s WHERE id = %s", [amount, one])
            connection.execute("UPDATE savings SET balance = balance + %s WHERE id = %s", [amount, other])
        self.stop.wait(0.002)

    def _shape(self, connection: psycopg.Connection[object], draw: random.Random) -> None:
        for _ in range(10):
            connection.execute("INSERT INTO shape (v) VALUES (%s)", [str(draw.random())])
            connection.execute("UPDATE shape SET v = v || 'x' WHERE id = %s", [draw.randint(1, 50)])
            self.stop.wait(0.05)
        connection.execute(draw.choice(DDL).format(n=draw.randint(1, 10**6)).encode())

    def _large(self, connection: psycopg.Connection[object], draw: random.Random) -> None:
        first = draw.randint(0, 10**12)
        with connection.transaction():
            connection.execute(
                "INSERT INTO large SELECT %s::bigint + i, repeat('y', 100) FROM generate_series(1, 8000) i"
                " ON CONFLICT DO NOTHING", [first],
            )  # fmt: skip
            connection.execute("SAVEPOINT a")
            connection.execute("DELETE FROM large")
            connection.execute("ROLLBACK TO a")
            connection.execute("UPDATE large SET v = 'z' WHERE id %% 3 = 0 AND id > %s", [first])
        connection.execute("DELETE FROM large WHERE id <> ALL (SELECT id FROM large ORDER BY random() LIMIT 5000)")
        self.stop.wait(0.5)


class Site:
    """A project whose capture goes through the proxy and is started again whenever it ends."""

    def __init__(self, root: Path, dsn: str) -> None:
        self.root = root
        text = f'[project]\nname = "chaos"\n[source.shop]\ndsn = "{dsn}"\ntables = ["public.*"]\nsilence_s = 4\n'
        (root / "headwater.toml").write_text(text)
        self.process: subprocess.Popen[bytes] | None = None
        self.log = (root / "capture.log").open("ab")
        self.starts = 0

    def run(self) -> None:
        """Have a capture, if there is none."""
        if self.process is None or self.process.poll() is not None:
            command = [sys.executable, "-m", "headwater.cli", "capture", "shop", "--project", str(self.root)]
            self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, start_new_session=True)
            self.starts += 1

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def close(self) -> None:
        self.kill()
        self.log.close()


@pytest.fixture
def server() -> Iterator[EmbeddedPostgres]:
    settings = {"logical_decoding_work_mem": "256kB", "wal_sender_timeout": "20s", "max_connections": "60"}
    with EmbeddedPostgres(fsync=False, settings=settings) as embedded:
        yield embedded


def _disturb(draw: random.Random, site: Site, server: EmbeddedPostgres, proxy: FaultyProxy, dsn: str) -> str:
    """One failure; what it was."""
    kind = draw.choice(["kill", "walsender", "server", "stall", "delay", "drop", "half_close", "kill"])
    if kind == "kill":
        site.kill()
    elif kind == "walsender":
        with suppress(psycopg.Error), psycopg.connect(dsn, autocommit=True, connect_timeout=2) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'walsender'"
            )
    elif kind == "server":
        server.crash()
    else:
        proxy.fault = kind  # type: ignore[assignment]
        time.sleep(draw.uniform(0.2, 7.0) if kind == "stall" else draw.uniform(0.1, 1.0))
        proxy.fault = "none"
    return kind


def _chaos(seconds: float, seed: int, server: EmbeddedPostgres, root: Path, *, from_the_first_copy: bool) -> None:
    draw = random.Random(seed)
    dsn = server.create_database("bank")
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in TABLES:
            connection.execute(statement.encode())
    happened: dict[str, int] = {}
    with FaultyProxy(("127.0.0.1", server.port)) as proxy:
        site = Site(root, psycopg.conninfo.make_conninfo(dsn, host="127.0.0.1", port=str(proxy.port)))
        site.run()
        if not from_the_first_copy:
            _await_tables(root)
        end = time.monotonic() + seconds
        with Load(dsn, seed) as load:
            while time.monotonic() < end:
                until = time.monotonic() + draw.uniform(2.0, 5.0)
                while time.monotonic() < until:
                    site.run()
                    time.sleep(0.05)
                site.log.write(b"---- %.1f\n" % (end - time.monotonic()))
                site.log.flush()
                kind = _disturb(draw, site, server, proxy, dsn)
                happened[kind] = happened.get(kind, 0) + 1
        print(f"seed {seed}: {happened}, {load.done}, {site.starts} captures")
        site.kill()
        done = subprocess.run(
            [sys.executable, "-m", "headwater.cli", "capture", "shop", "--until-caught-up", "--project", str(root)],
            stdout=site.log, stderr=site.log, check=False, timeout=120,
        )  # fmt: skip
        site.close()
        text = (root / "capture.log").read_text()
        assert done.returncode == 0, text[-3000:]
        assert "Traceback" not in text, text[text.index("Traceback") - 500 :][:3000]
        with headwater.open(root) as lake:
            source = SourceConfig(name="shop", dsn=dsn)
            found = PostgresSource().verify(source, lake.log, lambda _: None)
            assert {each.table: (each.differences, each.skipped, each.examples[:3]) for each in found} == {
                each.table: (0, "", []) for each in found
            }
            assert {"public.giro", "public.savings", "public.shape", "public.large"} <= {each.table for each in found}
            assert min(load.done.values()) > 0
            _every_commit_was_a_state(lake)


def _await_tables(root: Path) -> None:
    def copied() -> bool:
        if not (root / "lake" / "live.sqlite").exists():
            return False
        with headwater.open(root) as lake:
            return len(lake.tables()) > 4

    until(copied, "the tables are copied")


def _every_commit_was_a_state(lake: headwater.Lake) -> None:
    """The bank's sum at every commit in which both tables are there, from the log alone."""
    names = ("shop.public.giro", "shop.public.savings")
    first = max(lake.log.topic(name).created for name in names)
    query = " UNION ALL ".join(
        f"SELECT _commit, id, balance, _offset, '{name}' AS t FROM log.\"{name}\" WHERE _op <> 'd'" for name in names
    )
    moves = lake.sql(
        f"WITH rows AS ({query}), steps AS (SELECT _commit, balance - coalesce(lag(balance) OVER"
        " (PARTITION BY t, id ORDER BY _offset), 0) AS change FROM rows)"
        " SELECT _commit, sum(sum(change)) OVER (ORDER BY _commit) FROM steps GROUP BY _commit ORDER BY _commit"
    ).fetchall()
    wrong = [(commit, total) for commit, total in moves if commit >= first and int(total) != 2 * 1000 * ACCOUNTS]
    assert wrong == []
    assert len(moves) > 10


@pytest.mark.long
def test_nothing_is_lost_doubled_or_torn(server: EmbeddedPostgres, tmp_path: Path, seed: int) -> None:
    _chaos(12, seed, server, tmp_path, from_the_first_copy=False)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_nothing_is_lost_doubled_or_torn_for_longer(server: EmbeddedPostgres, tmp_path: Path, seed: int) -> None:
    _chaos(SECONDS, seed, server, tmp_path, from_the_first_copy=True)
