"""Replace, rename, drop: every published step equals the SQL that held then, for the views that read them, too."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from headwater.config import Settings
from headwater.errors import DuplicateName, NameNotFound, SchemaError, UnsupportedSql, UsageError
from headwater.lake import Lake
from headwater.log import Log, open_log
from headwater_pipelines import api
from headwater_pipelines.runtime import worker
from headwater_pipelines.runtime.budget import Budget

from .conftest import VIEWS, Shop

OTHER_REVENUE = (
    "SELECT c.country, count(*) AS n, sum(o.total) AS revenue, avg(o.total) AS mean"
    " FROM orders o JOIN customers c ON c.id = o.customer_id WHERE o.total > 20 GROUP BY c.country"
)
BAD_NOTES = "SELECT id, CAST('x' || id AS DECIMAL(18,2)) AS twice FROM orders"


def run(log: Log) -> None:
    worker.run(log, Settings(), threading.Event(), until_caught_up=True)


def begin(log: Log) -> None:
    for name, sql in VIEWS.items():
        api.create_view(log, sql, name=name)
    run(log)


def check_as_of_every_step(shop: Shop, log: Log) -> None:
    """Every step's views, by the definitions and names of its position, over the tables at its input commit."""
    for step in log.steps():
        inputs = max(number for number in shop.commits if number <= step.input_commit)
        shop.oracle.execute(f"SET search_path = 'c{inputs}'")
        views = log.views(step.publish_commit)
        for view in views:
            shop.oracle.execute(f"CREATE OR REPLACE VIEW c{inputs}.{view.name} AS {view.sql}")
        for view in views:
            if view.id in step.views and log.topic(f"views.{view.name}", step.publish_commit) in log.topics():
                shop.check(log, view.name, step.publish_commit, inputs)


def test_a_replacement_and_what_reads_it_switch_in_one_step(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        begin(log)
        old, reader = log.view("revenue"), log.view("countries")
        api.replace_view(log, OTHER_REVENUE, name="revenue")
        assert log.view("revenue") == old, "the old one is there until the new one is built"
        before = log.newest_commit()
        shop.commit(log)
        run(log)
        new = log.view("revenue")
        assert (new.sql, new.state, new.created > before) == (OTHER_REVENUE, "live", True)
        assert log.replacements() == []
        switch = next(step for step in log.steps() if step.publish_commit == new.created)
        assert {new.id, reader.id} <= switch.views
        assert old.id not in switch.views
        assert {old.id, reader.id} <= log.last_step(new.created - 1).views  # type: ignore[union-attr]
        shop.commit(log)
        run(log)
        check_as_of_every_step(shop, log)
        with Lake(log) as lake:
            assert lake.sql("SELECT sum(n) FROM revenue", at=before).scalar() == shop_orders(shop, before, "true")
            now = shop_orders(shop, shop.commits[-1], "total > 20")
            assert lake.sql("SELECT sum(n) FROM revenue").scalar() == now
        assert log.topic("views.revenue").id == log.topic("views.revenue", before).id, "consumers go on"


def shop_orders(shop: Shop, commit: int, condition: str) -> int:
    inputs = max(number for number in shop.commits if number <= commit)
    joined = f"c{inputs}.orders o JOIN c{inputs}.customers c ON c.id = o.customer_id"
    rows = shop.oracle.execute(f"SELECT count(*) FROM {joined} WHERE {condition}").fetchall()
    return int(rows[0][0])


@pytest.mark.long
def test_only_the_difference_is_published(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        api.create_view(log, "SELECT id, total FROM orders WHERE total >= 0", name="v")
        run(log)
        held = len(log.read_changes("views.v", 0, log.newest_commit()))
        smallest = shop.oracle.execute(f"SELECT min(total) FROM c{shop.commits[-1]}.orders").fetchall()[0][0]
        api.replace_view(log, f"SELECT id, total FROM orders WHERE total > {smallest}", name="v")
        run(log)
        changes = log.read_changes("views.v", 0, log.newest_commit(), ["_weight"]).to_pylist()[held:]
        assert 0 < len(changes) < held
        assert {row["_weight"] for row in changes} == {-1}
        check_as_of_every_step(shop, log)


@pytest.mark.long
def test_a_replacement_that_fails_leaves_the_view_as_it_is(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        begin(log)
        api.replace_view(log, BAD_NOTES, name="big_orders")
        shop.commit(log)
        run(log)
        (waiting,) = log.replacements()
        assert (waiting.state, "x" in waiting.reason) == ("paused", True)
        assert log.view("big_orders").state == "live"
        assert log.last_step().input_commit == shop.commits[-1]  # type: ignore[union-attr]
        with Lake(log) as lake:
            told = {view["name"]: view["replacement"] for view in lake.status()["views"]}
        assert told["big_orders"]["state"] == "paused"
        assert told["revenue"] is None
        api.replace_view(log, "SELECT id, total * 2 AS twice FROM orders WHERE total > 60", name="big_orders")
        run(log)
        assert log.replacements() == []
        shop.commit(log)
        run(log)
        check_as_of_every_step(shop, log)


@pytest.mark.long
def test_a_paused_view_is_mended_by_its_replacement(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        begin(log)
        api.pause_view(log, "revenue")
        run(log)
        shop.commit(log)
        api.replace_view(log, OTHER_REVENUE, name="revenue")
        run(log)
        assert log.view("revenue").state == "live"
        shop.commit(log)
        run(log)
        check_as_of_every_step(shop, log)


def test_other_columns_and_circles_are_refused(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        begin(log)
        with pytest.raises(SchemaError) as refused:
            api.replace_view(log, "SELECT country, 1::INTEGER AS n, 2 AS extra FROM customers", name="revenue")
        text = str(refused.value)
        for part in ("revenue is missing", "mean is missing", "extra is new", "n is BIGINT and would be INTEGER"):
            assert part in text
        assert "headwater view drop revenue --cascade` (which drops countries, too)" in text
        with pytest.raises(SchemaError, match="the order total, n instead of n, total"):
            api.replace_view(log, "SELECT sum(total) AS total, count(*) AS n FROM orders", name="totals")
        with pytest.raises(NameNotFound, match="totals"):
            api.replace_view(log, VIEWS["totals"], name="total")
        circle = "SELECT 'x' AS country, n, 1::DECIMAL(38,2) AS revenue, 1::DOUBLE AS mean FROM {}"
        with pytest.raises(UsageError, match="would read countries, which reads revenue"):
            api.replace_view(log, circle.format("countries"), name="revenue")
        with pytest.raises(UsageError, match="would read itself"):
            api.replace_view(log, circle.format("revenue"), name="revenue")
        assert log.replacements() == []
        assert api.replace_view(log, VIEWS["totals"], name="totals") == log.view("totals")
        assert log.replacements() == []


@pytest.mark.long
def test_a_replacement_counts_for_the_mode_of_what_reads_it(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        api.create_view(log, "SELECT id, total FROM orders", name="v")
        strict = "CREATE MATERIALIZED VIEW s WITH (refresh_mode = 'incremental strict') AS SELECT id FROM v"
        api.create_view(log, strict)
        with pytest.raises(UnsupportedSql, match="recomputed in full"):
            api.replace_view(log, "SELECT id, total FROM orders QUALIFY rank() OVER (ORDER BY total) < 3", name="v")


def test_rename_holds_from_its_position_on(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        begin(log)
        before = log.newest_commit()
        with pytest.raises(UsageError, match="read by countries"):
            api.rename_view(log, "revenue", "income")
        with pytest.raises(DuplicateName):
            api.rename_view(log, "totals", "revenue")
        api.rename_view(log, "totals", "sums")
        assert log.view("totals").state == "live"
        run(log)
        shop.commit(log)
        run(log)
        with pytest.raises(NameNotFound, match="totals"):
            log.view("totals")
        check_as_of_every_step(shop, log)
        with Lake(log) as lake:
            assert lake.sql("SELECT n FROM totals", at=before).rows == 1
            assert lake.sql("SELECT n FROM sums").rows == 1
            with pytest.raises(NameNotFound):
                lake.sql("SELECT n FROM sums", at=before)
            with pytest.raises(NameNotFound):
                lake.sql("SELECT n FROM totals")


def test_drop_names_the_readers_or_takes_them_along(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        begin(log)
        api.create_view(log, "SELECT max(countries) AS most FROM countries", name="most")
        with pytest.raises(UsageError, match="read by most, countries"):
            api.drop_view(log, "revenue")
        api.replace_view(log, OTHER_REVENUE, name="revenue")
        assert api.drop_view(log, "revenue", cascade=True) == ["most", "countries", "revenue"]
        run(log)
        assert sorted(view.name for view in log.views()) == ["big_orders", "totals"]
        assert log.replacements() == []


def test_a_replacement_that_is_taken_back_while_it_is_built(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_log(shop.lake) as log:
        begin(log)
        old, steps = log.view("revenue"), len(log.steps())
        new = api.replace_view(log, OTHER_REVENUE, name="revenue")
        monkeypatch.setattr(Budget, "check", lambda *_: log.withdraw_replacement(new))
        run(log)
        assert (log.view("revenue"), log.replacements(), len(log.steps())) == (old, [], steps)
        monkeypatch.undo()
        shop.commit(log)
        run(log)
        assert len(log.steps()) == steps + 1, "the state went on as it was"
        check_as_of_every_step(shop, log)


def run_worker(command: Path, shop: Shop, failpoints: str = "") -> int:
    argv = [str(command), "views", "--until-caught-up", "--project", str(shop.folder)]
    environment = {**os.environ, "HEADWATER_FAILPOINTS": failpoints}
    done = subprocess.run(argv, check=False, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.mark.parametrize(
    ("point", "again"),
    [
        ("state.commit:after:1", False),
        ("state.commit:after:1", True),
        ("state.commit:before:1", False),
        ("catalog.commit:after:2", False),
    ],
)
@pytest.mark.long
def test_killed_at_the_switch(shop: Shop, command: Path, point: str, again: bool) -> None:
    """Published with the outbox that the state holds; taken back meanwhile, nothing of it is published."""
    with open_log(shop.lake) as log:
        begin(log)
        api.replace_view(log, OTHER_REVENUE, name="revenue")
    assert run_worker(command, shop, f"kill:{point}") == -signal.SIGKILL
    with open_log(shop.lake) as log:
        if again:
            assert len(log.replacements()) == 1
            api.replace_view(log, OTHER_REVENUE.replace("20", "30"), name="revenue")
        shop.commit(log)
    assert run_worker(command, shop) == 0
    with open_log(shop.lake) as log:
        assert log.view("revenue").sql.count("30" if again else "20") == 1
        assert log.replacements() == []
        check_as_of_every_step(shop, log)
        numbers = [step.number for step in log.steps()]
        assert numbers == list(range(1, len(numbers) + 1))
