"""kill -9 at every crash point of the running commands; after a restart nothing is lost and nothing is twice.

The list of crash points is read off a recorded run of the same command: every call of the storage, catalog, state
and acknowledge seams. One lake goes through all of it, as a real one would. `make test` takes a sample chosen by
the seed and always the worst one (the catalog committed, the reply was lost, and the next batch is larger);
`make test-long` takes every point, its first and its second hit.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.end_to_end.site import HEADWATER

import headwater as hw
from headwater.errors import CatalogError
from headwater.log import open_log
from headwater.log.verify import verify
from headwater_connectors.demo import proof
from headwater_connectors.postgres.embedded import EmbeddedPostgres

TABLES = ("account", "entry", "note")
VIEWS = {
    "balance_by_branch": "SELECT branch, count(*) AS accounts, sum(balance) AS total FROM account GROUP BY branch",
    "entries": "SELECT e.id, a.branch, e.amount FROM entry e JOIN account a ON a.id = e.account",
    "notes": "SELECT word, count(*) AS n FROM note GROUP BY word",
}
DEADLINE_S = 60.0


class Lab:
    """A database, a project over it, and work to do while commands are killed."""

    def __init__(self, dsn: str, folder: Path, seed: int, command: Path) -> None:
        self.dsn = dsn
        self.command = command
        self.folder = folder
        self.random = random.Random(seed)
        self.database = psycopg.connect(dsn, autocommit=True)
        self.entries = 0
        self._write_project()

    def _write_project(self) -> None:
        (self.folder / "views").mkdir(parents=True)
        for name, query in VIEWS.items():
            text = f"CREATE MATERIALIZED VIEW {name} AS {query};\n"
            (self.folder / "views" / f"{name}.sql").write_text(text)
        (self.folder / "headwater.toml").write_text(
            f'[project]\nname = "crash"\n[source.bank]\nkind = "postgres"\ndsn = "{self.dsn}"\n'
            'tables = ["public.*"]\n[settings]\nhttp_port = 0\n'
        )
        self.database.execute("CREATE TABLE account (id bigint PRIMARY KEY, branch int, balance numeric(12,2))")
        self.database.execute("CREATE TABLE entry (id bigint PRIMARY KEY, account bigint, amount numeric(12,2))")
        self.database.execute("CREATE TABLE note (word text, at int)")
        self.database.execute("ALTER TABLE note REPLICA IDENTITY FULL")
        self.database.execute("INSERT INTO account SELECT i, i % 5, 100 FROM generate_series(1, 200) i")

    def work(self, transactions: int) -> None:
        """Transfers with their entries, notes that come and go, an account that changes its key."""
        for _ in range(transactions):
            giver, taker = self.random.sample(range(1, 150), 2)
            with self.database.transaction():
                for account, amount in ((giver, -1), (taker, 1)):
                    self.entries += 1
                    self.database.execute("UPDATE account SET balance = balance + %s WHERE id = %s", (amount, account))
                    self.database.execute("INSERT INTO entry VALUES (%s, %s, %s)", (self.entries, account, amount))
                self.database.execute("INSERT INTO note VALUES (%s, %s)", ("abc"[giver % 3], taker % 4))
                self.database.execute("DELETE FROM note WHERE at = %s", (giver % 4,))
        self.database.execute(
            "UPDATE account SET id = id + 1000 WHERE id = (SELECT min(id) FROM account WHERE id >= 150)"
        )

    def start(self, *argv: str, failpoints: str = "") -> subprocess.Popen[bytes]:
        environment = {**os.environ, "HEADWATER_FAILPOINTS": failpoints} if failpoints else dict(os.environ)
        with (self.folder / "commands.log").open("ab") as output:
            return subprocess.Popen(
                [*argv, "--project", str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )

    def run(self, *command: str, failpoints: str = "") -> int:
        return self.start(str(self.command), *command, failpoints=failpoints).wait(DEADLINE_S)

    def capture_until_killed(self, failpoints: str) -> int:
        """Capture under work until it dies; the exit code, or 0 when it lived through the work."""
        process = self.start(*HEADWATER, "capture", "bank", failpoints=failpoints)
        deadline = time.monotonic() + DEADLINE_S
        while process.poll() is None and not self._streams(process.pid) and time.monotonic() < deadline:
            self.work(1)
        for size in (1, 2, 20, 1, 5, 60, 1, 1, 1, 1):  # after a lost reply the next batch is larger
            self.work(size)
            try:
                return process.wait(min(0.4, max(0.0, deadline - time.monotonic())))
            except subprocess.TimeoutExpired:
                continue
        process.terminate()
        return process.wait(DEADLINE_S)

    def _streams(self, pid: int) -> bool:
        if not (self.folder / "lake" / "catalog.sqlite").exists():
            return False
        try:
            with open_log(self.folder / "lake") as log:
                row = log.live.read().get("source:bank")
        except CatalogError:  # the catalog is being made
            return False
        return row is not None and row.pid == pid and row.stats.get("state") == "streaming"

    def recover_and_prove(self) -> None:
        """Run to the source's end, then: tables equal PostgreSQL, views their SQL, the log is whole."""
        assert self.run("up", "--until-caught-up") == 0, self.log_tail()
        with hw.open(self.folder) as lake:
            at = lake.position()
            steps = lake.log.steps()[-1:]
            differences = proof.tables_equal_source(lake, self.dsn, "bank", TABLES, at)[1]
            differences += proof.views_equal_queries(lake, VIEWS, TABLES, steps)[1]
            assert [str(each) for each in differences] == []
            assert verify(lake.log, deep=True).findings == ()
            twice = "SELECT count(*) - count(DISTINCT commit_lsn) FROM bank.transactions"
            assert lake.sql(twice).scalar() == 0

    def log_tail(self) -> str:
        return (self.folder / "commands.log").read_text()[-3000:]

    def fresh(self) -> None:
        """Forget the lake and the slot: the next start copies from the beginning."""
        self.run("source", "drop", "bank")
        shutil.rmtree(self.folder / "lake", ignore_errors=True)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, command: Path) -> Iterator[Lab]:
    seed = int(os.environ.get("HEADWATER_TEST_SEED") or secrets.randbits(32))
    print(f"seed of the work: {seed} (HEADWATER_TEST_SEED)")
    with EmbeddedPostgres(fsync=False) as server:
        found = Lab(server.dsn(), tmp_path_factory.mktemp("crash") / "project", seed, command)
        yield found
        found.database.close()


def recorded(path: Path) -> list[str]:
    """``NAME:K`` for the first and the second hit of every crash point in a recording."""
    counts = Counter(path.read_text().split())
    return [f"{name}:{k}" for name, count in sorted(counts.items()) for k in (1, 2) if k <= count]


def points(lab: Lab, tmp_path: Path) -> dict[str, list[str]]:
    """The crash points of each command, from one recorded run of each."""
    files = {command: tmp_path / command for command in ("copy", "capture", "views", "seal")}
    lab.fresh()
    assert lab.capture_until_killed(f"record:{files['copy']}") == 0, lab.log_tail()
    assert lab.capture_until_killed(f"record:{files['capture']}") == 0, lab.log_tail()
    lab.recover_and_prove()
    lab.work(10)
    assert lab.capture_until_killed("") == 0
    assert lab.run("views", "--until-caught-up", failpoints=f"record:{files['views']}") == 0, lab.log_tail()
    assert lab.run("seal", failpoints=f"record:{files['seal']}") == 0, lab.log_tail()
    found = {command: recorded(path) for command, path in files.items()}
    found["copy"] = [point for point in found["copy"] if point not in found["capture"]]
    return found


def crash(lab: Lab, command: str, point: str) -> None:
    """Kill the command at the point, restart, prove."""
    if command == "copy":
        lab.fresh()
    if command in ("copy", "capture"):
        code = lab.capture_until_killed(f"kill:{point}")
    else:
        lab.work(3)
        if command == "views":
            assert lab.capture_until_killed("") == 0, lab.log_tail()
        arguments = ("views", "--until-caught-up") if command == "views" else ("seal",)
        code = lab.run(*arguments, failpoints=f"kill:{point}")
    assert code == -signal.SIGKILL, f"{command} was not killed at {point}: {lab.log_tail()}"
    lab.recover_and_prove()


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_every_crash_point(lab: Lab, tmp_path: Path) -> None:
    found = points(lab, tmp_path)
    for command, listed in found.items():
        seams = {point.partition(".")[0] for point in listed}
        print(f"{command}: {len(listed)} points of {sorted(seams)}")
        for point in listed:
            crash(lab, command, point)
    assert {"storage", "catalog", "source"} <= {p.partition(".")[0] for p in found["capture"]}
    assert {"state", "catalog"} <= {p.partition(".")[0] for p in found["views"]}
