"""The real command as a process: killed and stopped under load, and what it says when it cannot work."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from tests.waiting import until

from headwater.errors import PublicationMissing, SlotInUse, SourceGap
from headwater_connectors.postgres import capture, chunks, session, slot
from headwater_connectors.postgres.embedded import EmbeddedPostgres

if TYPE_CHECKING:
    from tests.connectors.conftest import Captured

ORDERS = "CREATE TABLE orders (id int PRIMARY KEY, who text, amount numeric(12,2), at timestamptz DEFAULT now())"
HISTORY = "CREATE TABLE history (id int, delta int, PRIMARY KEY (id))"


class Project:
    """A project folder whose lake is the one of ``shop``, and the command line run in it."""

    def __init__(self, root: Path, dsn: str, command: Path, tables: str = "public.*") -> None:
        self.root = root
        self.command = command
        root.mkdir(parents=True, exist_ok=True)
        text = f'[project]\nname = "test"\n[source.shop]\ndsn = "{dsn}"\ntables = ["{tables}"]\n'
        (root / "headwater.toml").write_text(text)

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        return self._started([str(self.command)], *words, **environment)

    def start_script(self, *words: str) -> subprocess.Popen[str]:
        """The command as the very process that is returned, which SIGKILL ends."""
        return self._started([sys.executable, "-m", "headwater.cli"], *words)

    def _started(self, command: list[str], *words: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command, *words, "--project", str(self.root)],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        argv = [str(self.command), *words, "--project", str(self.root)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def project(shop: Captured, command: Path) -> Project:
    return Project(shop.folder.parent, shop.dsn, command)


@contextmanager
def load(shop: Captured, seed: int) -> Iterator[None]:
    """Transactions on two tables from another thread until the block ends."""
    stop, draw = threading.Event(), random.Random(seed)

    def work() -> None:
        with psycopg.connect(shop.dsn, autocommit=True) as connection:
            for number in range(10**9):
                if stop.is_set():
                    return
                with connection.transaction():
                    connection.execute("INSERT INTO orders VALUES (%s, 'w', %s)", [number, draw.randint(0, 99)])
                    connection.execute("UPDATE orders SET amount = amount + 1 WHERE id = %s", [draw.randint(0, number)])
                    connection.execute("DELETE FROM orders WHERE id = %s", [draw.randint(0, 3 * number)])
                    connection.execute("INSERT INTO history VALUES (%s, %s)", [number, draw.randint(-9, 9)])

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        stop.set()
        worker.join()


def assert_nothing_lost_or_doubled(shop: Captured, project: Project) -> None:
    code, _, errors = project.run("capture", "shop", "--until-caught-up")
    assert code == 0, errors
    shop.assert_equal("orders", "history")
    ids = [row["id"] for row in shop.changes("history")]
    assert len(ids) == len(set(ids))
    for topic in shop.log.topics():
        changes = shop.log.read_changes(topic.name, 0, shop.log.newest_commit())
        assert changes.column("_offset").to_pylist() == list(range(changes.num_rows)), topic.name
    xids = [xid for (xid,) in shop.lake("SELECT xid FROM shop.transactions")]
    assert len(xids) == len(set(xids))


@pytest.mark.long
def test_kill_9_under_load_loses_and_doubles_nothing(shop: Captured, project: Project, seed: int) -> None:
    shop.run(ORDERS, HISTORY)
    draw = random.Random(seed)
    with load(shop, seed):
        for _ in range(2):
            process = project.start_script("capture", "shop")
            goal = shop.log.newest_commit() + draw.randint(2, 5)
            until(lambda goal=goal: shop.log.newest_commit() >= goal)  # type: ignore[misc]
            process.kill()
            process.communicate()
    assert_nothing_lost_or_doubled(shop, project)


@pytest.mark.parametrize(
    "where",
    [
        pytest.param("source.acknowledge:before", marks=pytest.mark.long),
        pytest.param("source.acknowledge:after", marks=pytest.mark.long),
    ],
)
def test_kill_9_around_the_acknowledgement(shop: Captured, project: Project, seed: int, where: str) -> None:
    shop.run(ORDERS, HISTORY)
    with load(shop, seed):
        for hit in (1, 2):
            process = project.start("capture", "shop", HEADWATER_FAILPOINTS=f"kill:{where}:{hit}")
            process.communicate(timeout=60)
            assert process.returncode == -signal.SIGKILL
    assert_nothing_lost_or_doubled(shop, project)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_stopping_in_mid_batch_is_clean(shop: Captured, project: Project, seed: int, number: signal.Signals) -> None:
    shop.run(ORDERS, HISTORY)
    with load(shop, seed):
        process = project.start("capture", "shop")
        until(lambda: shop.log.newest_commit() >= 4)
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors
    assert_nothing_lost_or_doubled(shop, project)


def test_a_broken_session_is_opened_again(shop: Captured, project: Project, seed: int) -> None:
    shop.run(ORDERS, HISTORY)
    with load(shop, seed):
        process = project.start("capture", "shop")
        for _ in range(2):
            goal = shop.log.newest_commit() + 3
            until(lambda goal=goal: shop.log.newest_commit() >= goal)  # type: ignore[misc]
            shop.run(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
                " WHERE active AND database = current_database()"
            )
        goal = shop.log.newest_commit() + 3
        until(lambda: shop.log.newest_commit() >= goal)
        process.terminate()
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0, errors
        assert errors.count("reconnecting") >= 2
    assert_nothing_lost_or_doubled(shop, project)


# ---- gaps


def test_a_slot_past_the_stored_position_is_a_gap(shop: Captured) -> None:
    shop.run(ORDERS, "INSERT INTO orders VALUES (1, 'a', 1)")
    shop.catch_up()
    shop.run(
        "INSERT INTO orders VALUES (2, 'b', 1)",
        "SELECT pg_replication_slot_advance('headwater_shop', pg_current_wal_insert_lsn())",
    )
    with pytest.raises(SourceGap, match="past the stored"):
        shop.catch_up()
    assert shop.lake("SELECT count(*) FROM orders") == [(1,)]


def test_a_lost_slot_another_server_and_a_missing_publication(shop: Captured, project: Project) -> None:
    shop.run(ORDERS, "INSERT INTO orders VALUES (1, 'a', 1)")
    shop.catch_up()
    known = shop.log.setting("source:shop:system")
    for other, says in [("1/1", "another server"), (f"{(known or '').split('/')[0]}/9", "timeline")]:
        shop.log.set_setting("source:shop:system", other)
        with pytest.raises(SourceGap, match=says):
            shop.catch_up()
    shop.log.set_setting("source:shop:system", known)
    shop.run("DROP PUBLICATION headwater_shop_inserts")
    with pytest.raises(PublicationMissing, match="headwater_shop_inserts"):
        shop.catch_up()
    shop.run("SELECT pg_drop_replication_slot('headwater_shop')")
    with pytest.raises(SourceGap, match="is gone"):
        shop.catch_up()
    # What every one of them advises.
    assert project.run("source", "drop", "shop")[0] == 0
    shop.run("INSERT INTO orders VALUES (2, 'b', 1)")
    assert project.run("capture", "shop", "--until-caught-up")[0] == 0
    shop.assert_equal("orders")


@pytest.mark.parametrize(
    "place", ["source.begin:before:1", "copy.keep:before:1", "copy.keep:after:1", "copy.finish:before:1"]
)
def test_a_copy_that_did_not_end_goes_on(shop: Captured, project: Project, place: str) -> None:
    shop.run(ORDERS, "INSERT INTO orders SELECT i, 'a', 1 FROM generate_series(1, 1000) i")
    process = project.start("capture", "shop", HEADWATER_FAILPOINTS=f"kill:{place}")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert shop.log.newest_commit() == (0 if place.startswith("source") else 1)
    assert shop.source_rows("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()") == [(1,)]
    shop.run("INSERT INTO orders VALUES (2000, 'b', 1)")
    shop.catch_up()
    shop.assert_equal("orders")


SMALL_CHUNKS = f"""
import runpy, sys
sys.path.append({str(Path(__file__).parents[2])!r})
from tests.connectors.capture_mutations import MUTATIONS
MUTATIONS.apply_from_environment()
from headwater_connectors.postgres import chunks
chunks.CHUNK_PAGES, chunks.PAGES_MIN = 8, 2
runpy.run_module("headwater.cli", run_name="__main__", alter_sys=True)
"""


@contextmanager
def churn(shop: Captured, seed: int) -> Iterator[None]:
    """Rows of ``wide`` change, move, come and go from another thread until the block ends."""
    stop, draw = threading.Event(), random.Random(seed)

    def work() -> None:
        with psycopg.connect(shop.dsn, autocommit=True) as connection:
            for number in range(10**9):
                if stop.wait(0.005):
                    return
                ids = draw.sample(range(1, 900), 5)
                fill = "y" * draw.randint(1, 600)
                connection.execute("UPDATE wide SET n = n + 1, fill = %s WHERE id = ANY (%s)", [fill, ids])
                connection.execute("UPDATE wide SET id = id + 10000 WHERE id = %s", [draw.randint(1, 900)])
                connection.execute("DELETE FROM wide WHERE id = %s", [draw.randint(1, 900)])
                connection.execute("INSERT INTO wide VALUES (%s, 0, 'new')", [100_000 + seed % 1000 * 1000 + number])

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        stop.set()
        worker.join()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_kill_9_at_every_step_of_a_copy_with_changes_pending(
    shop: Captured, project: Project, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every crash point that a copy passes, as a recorded run names them, and some of those of storage and catalog."""
    monkeypatch.setattr(chunks, "CHUNK_PAGES", 8)  # who goes on does so with the chunks that are kept
    monkeypatch.setattr(chunks, "PAGES_MIN", 2)
    shop.connection.prepare_threshold = None  # a plan would not outlive the table
    made = (
        "CREATE TABLE wide (id int PRIMARY KEY, n int, fill text)",
        "INSERT INTO wide SELECT i, i, repeat('x', 500) FROM generate_series(1, 900) i",
    )
    shop.run("CREATE TABLE other (id int PRIMARY KEY)", *made)
    words = ["capture", "shop", "--until-caught-up"]
    record, draw, killed = project.root / "hits", random.Random(seed), 0

    def capture(plan: str) -> int:
        with churn(shop, draw.getrandbits(30)):
            process = project._started([sys.executable, "-c", SMALL_CHUNKS], *words, HEADWATER_FAILPOINTS=plan)
            _, errors = process.communicate(timeout=60)
        assert process.returncode in (0, -signal.SIGKILL), errors
        return process.returncode

    assert capture(f"record:{record}") == 0
    hits = record.read_text().split()
    first = hits.index("copy.keep:before")
    copying = [(name, hits.count(name)) for name in dict.fromkeys(hits) if name.startswith("copy.")]
    assert {name for name, _ in copying} == {"copy.keep:before", "copy.keep:after", "copy.finish:before"}
    plans = [f"kill:{name}:{number}" for name, count in copying for number in {1, count // 2 + 1}]
    plans += [f"kill:{draw.randint(first, len(hits))}" for _ in range(5)]
    for number, plan in enumerate(plans):  # a new table, or one that readers see
        shop.run(*(("DROP TABLE wide", *made) if number % 2 else ("ALTER TABLE wide ALTER n TYPE bigint USING n + 1",)))
        killed += capture(plan) == -signal.SIGKILL
        shop.catch_up()
        shop.assert_equal("wide")
    print(f"{killed} of {len(plans)} were killed: {plans}")
    assert killed > len(plans) // 2


# ---- one paragraph that says what to do


def explained(result: tuple[int, str, str], *words: str) -> None:
    code, _, errors = result
    assert code == 1, errors
    (line,) = [each for each in errors.splitlines() if each.startswith("error:")]
    for word in words:
        assert word in line, line
    assert "Traceback" not in errors


def test_errors_of_reaching_the_server(shop: Captured, command: Path, tmp_path: Path) -> None:
    nowhere = Project(tmp_path / "a", "postgresql://postgres@127.0.0.1:1/postgres", command)
    for words in (("capture", "shop"), ("source", "check", "shop")):
        explained(nowhere.run(*words), "cannot be reached", "127.0.0.1:1", "Check host, port")
    shop.run("DROP ROLE IF EXISTS poor", "CREATE ROLE poor LOGIN", "GRANT ALL ON DATABASE postgres TO poor", ORDERS)
    poor = Project(tmp_path / "b", psycopg.conninfo.make_conninfo(shop.dsn, user="poor"), command)
    explained(poor.run("capture", "shop"), "no replication privilege", 'ALTER ROLE "poor" REPLICATION')
    code, out, _ = poor.run("source", "check", "shop", "--json")
    assert code == 1
    findings = json.loads(out)
    assert not findings["ready"]
    assert any('ALTER ROLE "poor" REPLICATION;' in each["sql"] for each in findings["findings"])
    assert any("CREATE PUBLICATION" in each["sql"] for each in findings["findings"])
    lost = Project(tmp_path / "c", psycopg.conninfo.make_conninfo(shop.dsn, dbname="nonesuch"), command)
    explained(lost.run("capture", "shop"), "does not exist", "Check the dsn")


def test_wal_level_replica(command: Path, tmp_path: Path) -> None:
    with EmbeddedPostgres(fsync=False, settings={"wal_level": "replica"}) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute(ORDERS)
        project = Project(tmp_path, server.dsn(), command)
        explained(project.run("capture", "shop"), "wal_level is replica", "ALTER SYSTEM SET wal_level = 'logical'")
        assert project.run("source", "check", "shop")[0] == 1


def test_slot_in_use(shop: Captured, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copied lake beside the original: the second reader of the slot is told who has it."""
    shop.run(ORDERS)
    shop.catch_up()
    # The server lets go of it a moment after its reader has gone.
    until(
        lambda: (
            shop.source_rows("SELECT active FROM pg_replication_slots WHERE slot_name = 'headwater_shop'") == [(False,)]
        )
    )
    holder = session.connect_replication(shop.dsn, "other")
    position = shop.log.producer("source:shop").position or ""
    command = slot.start_command(
        "shop", ("headwater_shop", "headwater_shop_inserts"), position, version=150_000, binary=True
    )
    session.run_replication(holder, command, "shop")
    monkeypatch.setattr(capture, "SLOT_WAIT_SECONDS", 0.5)
    with pytest.raises(SlotInUse, match=rf"process {holder.backend_pid} \(headwater:other\)"):
        shop.catch_up()
    assert project.run("source", "drop", "shop")[0] == 1
    holder.finish()
    shop.catch_up()


def test_check_lists_what_capture_cannot_see(shop: Captured, project: Project) -> None:
    shop.run(ORDERS, "CREATE TABLE lines (a int, _op text)")
    code, out, _ = project.run("source", "check", "shop")
    assert code == 0
    assert "public.lines has no key" in out
    assert "REPLICA IDENTITY FULL;" in out
    assert "_op of public.lines is called _op__src" in out
    code, out, _ = project.run("source", "prepare", "shop")
    assert "public.lines: inserts only" in out
    assert "public.orders: by key" in out
    shop.run("CREATE TABLE later (a int PRIMARY KEY)")
    assert "public.later is newer" in project.run("source", "check", "shop")[1]


def test_no_table_matches(shop: Captured, tmp_path: Path, command: Path) -> None:
    shop.run(ORDERS)
    project = Project(tmp_path / "p", shop.dsn, command, tables="nowhere.*")
    explained(project.run("capture", "shop"), "no table matches nowhere.*", "headwater.toml")
