"""From a database to answers with the commands alone, against a real PostgreSQL."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import psycopg
import pytest

from headwater_connectors.postgres.embedded import EmbeddedPostgres

COMMAND_S = 120
TABLES = """
CREATE TABLE orders (id bigint PRIMARY KEY, country text NOT NULL, amount numeric(12,2) NOT NULL);
CREATE TABLE visits (at timestamptz, path text);
CREATE SCHEMA audit;
CREATE TABLE audit.entries (id int PRIMARY KEY, body text);
"""
VIEW = """CREATE MATERIALIZED VIEW by_country AS
SELECT country, count(*) AS orders, sum(amount) AS amount FROM orders GROUP BY country"""
SAME = "SELECT country, count(*), sum(amount) FROM orders GROUP BY country ORDER BY country"


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(fsync=False) as running:
        yield running


class Runner(Protocol):
    def __call__(self, *args: str, cwd: Path) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def headwater(command: Path) -> Runner:
    def run(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        argv = [str(command), *args]
        return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=COMMAND_S, check=False)

    return run


def answers(headwater: Runner, folder: Path) -> list[tuple[str, int, str]]:
    query = "SELECT * FROM by_country ORDER BY country"
    done = headwater("sql", query, "--format", "json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return [(each["country"], each["orders"], each["amount"]) for each in json.loads(done.stdout)["rows"]]


@pytest.mark.long
def test_from_a_database_to_a_view(headwater: Runner, server: EmbeddedPostgres, tmp_path: Path) -> None:
    dsn = server.create_database("Web-Shop")
    rows = "INSERT INTO orders SELECT i, 'c' || i %% 3, i / 7.0 FROM generate_series(%s::int, %s::int) i"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(TABLES)
        connection.execute(rows, (1, 1000))
        connection.execute("ANALYZE")

        secret = dsn.replace("postgres@", "postgres:hunter2@")
        done = headwater("init", "shop", "--from", secret, "--name", "shop", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        found = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if "." in line.split(" ")[0]}
        assert found["public.orders"][0] == "1,000"
        assert found["public.orders"][2:] == ["id", "primary", "key"]
        assert found["public.visits"][-2:] == ["none", "none"]
        assert "HEADWATER_SOURCE_SHOP_DSN" in done.stdout
        project = tmp_path / "shop"
        written = (project / "headwater.toml").read_text()
        assert "hunter2" not in written
        assert 'tables = ["audit.*", "public.*"]' in written

        (project / "views" / "by_country.sql").write_text(VIEW)
        done = headwater("up", "--until-caught-up", cwd=project)
        assert done.returncode == 0, done.stderr
        assert answers(headwater, project) == [(c, n, str(a)) for c, n, a in connection.execute(SAME)]

        connection.execute(rows, (1001, 1500))
        connection.execute("UPDATE orders SET amount = amount + 1 WHERE id % 2 = 0")
        connection.execute("DELETE FROM orders WHERE country = 'c2'")
        for command in (("capture", "shop"), ("views",)):
            done = headwater(*command, "--until-caught-up", cwd=project)
            assert done.returncode == 0, done.stderr
        assert answers(headwater, project) == [(c, n, str(a)) for c, n, a in connection.execute(SAME)]

    document = json.loads(headwater("status", "--json", cwd=project).stdout)
    (view,) = document["views"]
    assert (view["name"], view["input_commit"]) == ("by_country", document["input_position"])
    assert (view["lag_commits"], view["lag_ms"]) == (0, 0.0)
    assert {each["name"] for each in document["topics"]} >= {"shop.public.orders", "shop.audit.entries"}
    assert headwater("verify", "--deep", cwd=project).returncode == 0

    # a view that cannot be computed is said so, and takes nothing else with it
    broken = "CREATE MATERIALIZED VIEW broken AS SELECT id, CAST(country AS INTEGER) AS n FROM orders"
    (project / "views" / "broken.sql").write_text(broken)
    done = headwater("up", "--until-caught-up", cwd=project)
    assert done.returncode == 1
    assert "view broken stopped: " in done.stderr.splitlines()[-1]
    assert answers(headwater, project)


def test_init_prints_the_sql_for_what_the_server_lacks(headwater: Runner, tmp_path: Path) -> None:
    with EmbeddedPostgres(fsync=False, settings={"wal_level": "replica"}) as server:
        done = headwater("init", "shop", "--from", server.dsn(), "--name", "shop", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "wal_level is replica" in done.stdout
    assert "    ALTER SYSTEM SET wal_level = 'logical';" in done.stdout.splitlines()


def test_init_from_a_server_that_is_not_there(headwater: Runner, tmp_path: Path) -> None:
    done = headwater("init", "shop", "--from", "postgresql://u:hunter2@127.0.0.1:1/shop", cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "127.0.0.1" in done.stderr
    assert "hunter2" not in done.stderr
    assert not (tmp_path / "shop").exists()
