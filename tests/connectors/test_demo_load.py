"""The demo's shop and its load: repeatable, bounded, and true to its one invariant."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest
import typer

from headwater_connectors.demo import load
from headwater_connectors.demo.command import duration
from headwater_connectors.demo.shop import TABLES, open_shop
from headwater_connectors.postgres.embedded import EmbeddedPostgres


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(fsync=False) as postgres:
        yield postgres


def value(dsn: str, query: str) -> object:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def changes(dsn: str) -> int:
    """Row changes since the database was made, as PostgreSQL counts them."""
    query = "SELECT pg_stat_force_next_flush(), pg_stat_clear_snapshot()"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(query)
        row = connection.execute("SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables").fetchone()
    assert row is not None
    return int(row[0])


def test_the_same_seed_opens_the_same_shop(server: EmbeddedPostgres) -> None:
    one, two, other = (server.create_database(name) for name in ("one", "two", "other"))
    opened = open_shop(one, 7)
    assert opened.new
    assert open_shop(two, 7) == opened
    assert open_shop(other, 8).balance != opened.balance
    assert not open_shop(one, 9).new, "a shop that is there is left as it is"
    for table in TABLES:
        digest = f"SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM {table} AS t"
        assert value(one, digest) == value(two, digest), table


def test_the_load_keeps_the_balances_and_its_rate_and_counts_what_it_did(server: EmbeddedPostgres, seed: int) -> None:
    dsn = server.create_database("loaded")
    opened = open_shop(dsn, seed)
    before = changes(dsn)
    done = load.run(dsn, rate=600, seconds=3, seed=seed, stop=threading.Event())
    # The load's sessions are closed, so PostgreSQL has their counts, after a moment.
    deadline = time.monotonic() + 10
    while (counted := changes(dsn) - before) < done["rows"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert counted == done["rows"]
    assert 0 < done["rows"] <= 600 * 3 + 3 * 2 * 90, "the rate is a ceiling, give or take one batch of page views"
    assert value(dsn, "SELECT count(*) FROM page_views WHERE id > 10000") != 0
    again = load.run(dsn, rate=600, seconds=1, seed=seed, stop=threading.Event())
    assert again["rows"] > 0, "the same seed on a shop that is there goes on, it does not collide"
    assert value(dsn, "SELECT sum(balance) FROM accounts") == opened.balance


def test_the_load_stops_on_sigterm_between_transactions(server: EmbeddedPostgres) -> None:
    dsn = server.create_database("stopped")
    opened = open_shop(dsn, 1)
    argv = [sys.executable, "-m", "headwater_connectors.demo.load", dsn, "--rate", "500"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while value(dsn, "SELECT max(id) FROM page_views") == 10_000 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert json.loads(output)["rows"] > 0
    assert value(dsn, "SELECT sum(balance) FROM accounts") == opened.balance


def test_zipf_prefers_the_first(seed: int) -> None:
    chance, zipf = random.Random(seed), load.Zipf(500)
    drawn = [zipf.draw(chance) for _ in range(5_000)]
    assert min(drawn) == 1
    assert max(drawn) <= 500
    assert drawn.count(1) > drawn.count(2) > drawn.count(50)


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("500ms", 0.5), ("2m", 120), ("1.5h", 5400), ("8", 8)])
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


def test_a_duration_that_is_none_is_refused() -> None:
    with pytest.raises(typer.BadParameter, match="write 30s"):
        duration("half an hour")
