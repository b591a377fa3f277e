"""pgbench, the oldest bank there is: its four sums are equal in every state its database ever had.

So they must be equal at every step of the views, and at every commit number from the tables alone. A writer that
tears one transaction in two is found by the same proof.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
from tests.end_to_end.site import Site
from tests.waiting import until

import headwater as hw
from headwater.types import quote
from headwater_connectors.demo import proof
from headwater_connectors.postgres.embedded import EmbeddedPostgres

VIEWS = {
    "accounts_total": "SELECT sum(abalance) AS total FROM pgbench_accounts",
    "tellers_total": "SELECT sum(tbalance) AS total FROM pgbench_tellers",
    "branches_total": "SELECT sum(bbalance) AS total FROM pgbench_branches",
    "history_total": "SELECT coalesce(sum(delta), 0) AS total FROM pgbench_history",
}
KEYED = (("accounts", "aid", "abalance"), ("tellers", "tid", "tbalance"), ("branches", "bid", "bbalance"))

# A writer with a defect: once, it commits all but the last two messages of a transaction.
TORN = """
import sys
from headwater.cli.main import main
from headwater_connectors.postgres.transactions import Chunk, Pending

whole, calls = Pending.take_whole, iter(range(1_000_000))

def torn(self):
    taken = whole(self)
    if next(calls) == 5:
        taken[-1], tail = taken[-1].split(len(taken[-1].lengths) - 2)
        self._reset([Chunk(tail.data, tail.lengths, len(tail.lengths)), *self._chunks])
        self._whole = 1
        print("torn", flush=True)
    return taken

Pending.take_whole = torn
main(sys.argv[1:])
"""


def initialise(dsn: str, programs: Path) -> None:
    subprocess.run([programs / "pgbench", "-i", "-s", "1", "-q", dsn], check=True, capture_output=True)


def bench(site: Site, seconds: int) -> None:
    command = [str(site.bin / "pgbench"), "-c", "4", "-T", str(seconds), "--random-seed=7", site.dsn]
    subprocess.run(command, check=True, capture_output=True)


def totals(lake: hw.Lake, site: Site) -> list[tuple[int, ...]]:
    """(commit, accounts, tellers, branches, history) at every commit that changed any of them, from the log alone.

    From the commit on at which the last of them appeared: each does when it is copied.
    """
    seen: dict[int, dict[str, int]] = {}
    for table, key, amount in KEYED:
        for commit, total in proof.totals_by_commit(lake, site.topic(f"pgbench_{table}"), key, amount):
            seen.setdefault(commit, {})[table] = int(total)
    history = f"""
        SELECT _commit, CAST(sum(sum(delta)) OVER (ORDER BY _commit) AS BIGINT)
        FROM log.{quote(site.topic("pgbench_history"))} WHERE _op IN ('c', 'r') GROUP BY _commit ORDER BY _commit
    """
    for commit, total in lake.sql(history).fetchall():
        seen.setdefault(commit, {})["history"] = total
    names = [table for table, _, _ in KEYED] + ["history"]
    appeared = max(lake.log.topic(site.topic(f"pgbench_{name}")).created for name in names)
    return [row for row in _forward(seen, names) if row[0] >= appeared]


def view_totals(lake: hw.Lake) -> list[tuple[int, ...]]:
    """(publish commit, the four views' totals) after every commit that changed any view."""
    seen: dict[int, dict[str, int]] = {}
    for view in VIEWS:
        query = f"""
            SELECT _commit, CAST(sum(sum(total * _weight)) OVER (ORDER BY _commit) AS BIGINT)
            FROM log."views.{view}" GROUP BY _commit ORDER BY _commit
        """
        for commit, total in lake.sql(query).fetchall():
            seen.setdefault(commit, {})[view] = total
    return _forward(seen, list(VIEWS))


def _forward(seen: dict[int, dict[str, int]], names: list[str]) -> list[tuple[int, ...]]:
    """What every name stands at after each commit."""
    found, now = [], dict.fromkeys(names, 0)
    for commit, changed in sorted(seen.items()):
        now |= changed
        found.append((commit, *now.values()))
    return found


def unequal(rows: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """States that the bank never had."""
    return [row for row in rows if len(set(row[1:])) > 1]


def all_live(lake: hw.Lake) -> bool:
    views = lake.log.views()
    step = lake.log.last_step()
    return len(views) == len(VIEWS) and step is not None and {view.id for view in views} <= step.views


def source_total(dsn: str) -> Decimal:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT sum(abalance) FROM pgbench_accounts").fetchone()
    assert row is not None
    total: Decimal = row[0]
    return total


def run_bank(site: Site, seconds: int) -> None:
    """Prove the four sums under load."""
    with site.running(*site.up):
        until((site.project.lake_dir / "live.sqlite").exists, "a lake")
        with hw.open(site.root) as lake:
            until(lambda: all_live(lake), "four live views")
            first = lake.position()
            bench(site, seconds)
            captured = sum(each.producer == f"source:{site.source}" for each in lake.log.commits(after=first))
    for command in (("capture", site.source), ("views",)):
        site.headwater(*command, "--until-caught-up")
    with hw.open(site.root) as lake:
        rows, steps = totals(lake, site), view_totals(lake)
        assert unequal(rows) == []
        assert unequal(steps) == []
        last = rows[-1][1]
        assert last != 0, "nothing was moved, so nothing was proved"
        assert steps[-1][1] == source_total(site.dsn) == last
        for commit, *expected in rows[:: max(1, len(rows) // 10)]:
            assert [lake.sql(query, at=commit).scalar() for query in VIEWS.values()] == expected, f"at {commit}"
        together = "SELECT " + ", ".join(f"(SELECT total FROM {view})" for view in VIEWS)
        shared = [row for row in steps if row[0] > first]  # before, the views were being filled one by one
        for commit, *expected in shared[:: max(1, len(shared) // 10)]:
            assert list(lake.sql(together, at=commit).fetchall()[0]) == expected, f"at {commit}"
    assert captured > seconds, "few commits prove little about the states between them"
    print(f"{captured} commits captured, {len(rows)} commits and {len(steps)} steps compared")


def test_four_sums_are_equal_at_every_step_and_every_commit(
    site: Callable[..., Site], server: EmbeddedPostgres
) -> None:
    run_bank(site(lambda dsn: initialise(dsn, server.bin), VIEWS), seconds=4)


@pytest.mark.long
def test_four_sums_are_equal_for_longer(site: Callable[..., Site], server: EmbeddedPostgres) -> None:
    run_bank(site(lambda dsn: initialise(dsn, server.bin), VIEWS), seconds=20)


@pytest.mark.long
def test_a_torn_transaction_is_found(site: Callable[..., Site], server: EmbeddedPostgres, tmp_path: Path) -> None:
    bank = site(lambda dsn: initialise(dsn, server.bin))
    script = tmp_path / "torn.py"
    script.write_text(TORN)
    project = ("--project", str(bank.root))
    with bank.running(sys.executable, str(script), "capture", bank.source, *project):
        until((bank.project.lake_dir / "live.sqlite").exists, "a lake")
        with hw.open(bank.root) as lake:
            until(lambda: len(lake.tables()) > len(VIEWS), "the initial copy")  # the tables, and the transactions
        bench(bank, 4)
    bank.headwater("capture", bank.source, "--until-caught-up")
    with hw.open(bank.root) as lake:
        rows = totals(lake, bank)
        assert rows[-1][1] == source_total(bank.dsn), "the tear must lose nothing, only show too much"
        assert len(unequal(rows)) == 1, "exactly one transaction was torn"
