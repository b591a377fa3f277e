"""Views refreshed by hand or from time to time: still in between, right at their own steps, beside continuous ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from headwater.config import Settings
from headwater.errors import UnsupportedSql, UsageError
from headwater.lake import Lake
from headwater.log import Log, open_log
from headwater_pipelines import api
from headwater_pipelines.compiler import parse
from headwater_pipelines.compiler.definition import Definition
from headwater_pipelines.runtime.worker import Worker

from .conftest import VIEWS, Shop
from .test_lifecycle import check_as_of_every_step, run


def create(log: Log, name: str, refresh: str, sql: str = "") -> None:
    api.create_view(log, f"CREATE MATERIALIZED VIEW {name} WITH (refresh = {refresh}) AS {sql or VIEWS[name]}")


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("'every 5 minutes'", "every 5 minutes"),
        ("every '5 minutes'", "every 5 minutes"),
        ("EVERY '1 Hours'", "every 1 hour"),
        ("'every minute'", "every 1 minute"),
        ("'every 30s'", "every 30 seconds"),
        ("'Manual'", "manual"),
        ("'continuous'", "continuous"),
    ],
)
def test_forms(text: str, means: str) -> None:
    assert parse(f"CREATE MATERIALIZED VIEW v WITH (refresh = {text}) AS SELECT 1 AS a").options["refresh"] == means


def test_options_without_the_create(shop: Shop) -> None:
    """As a notebook's cell is written, its name beside it; a CTE is no option, and places are those of the text."""
    text = "WITH (refresh = 'manual') AS SELECT 1 AS a"
    assert parse(text, name="v") == Definition("v", text, text.index("SELECT"), {"refresh": "manual"})
    assert parse("WITH t AS (SELECT 1 AS a) SELECT a FROM t", name="v").options == {}
    with pytest.raises(UnsupportedSql, match="there is no option refesh") as error:
        parse("WITH (\n  refesh = 'manual') AS SELECT 1 AS a", name="v")
    assert (error.value.line, error.value.column) == (2, 3)
    with open_log(shop.lake) as log:
        assert api.create_view(log, "WITH (refresh = 'manual') AS FROM orders", name="v").options == {
            "refresh": "manual"
        }


@pytest.mark.parametrize("text", ["'every 0 minutes'", "'hourly'", "every 'fortnight'", "'every -1 minutes'"])
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(UnsupportedSql, match="'manual' or 'every 5 minutes'"):
        parse(f"CREATE MATERIALIZED VIEW v WITH (refresh = {text}) AS SELECT 1 AS a")


def test_by_hand_beside_a_continuous_view_that_reads_it(shop: Shop) -> None:
    with open_log(shop.lake) as log, Lake(log) as lake:
        create(log, "revenue", "'manual'")
        api.create_view(log, VIEWS["countries"], name="countries")  # reads revenue
        run(log)
        api.refresh_view(log, "revenue")  # so that there is a step that has both
        run(log)
        first = lake.sql("FROM revenue").input_position
        for _ in range(3):
            shop.commit(log)
        run(log)
        assert lake.sql("FROM countries").input_position == shop.commits[-1], (
            "a reader of it is as fresh as it is itself"
        )
        still = lake.sql("FROM revenue")
        assert still.input_position == first
        both = lake.sql("SELECT n, count(*) AS countries FROM revenue GROUP BY n EXCEPT ALL FROM countries")
        assert (both.rows, both.input_position) == (0, first), "together they are read where both are defined"
        told = {view["name"]: view for view in lake.status()["views"]}
        assert (told["revenue"]["refresh"], told["revenue"]["input_commit"]) == ("manual", first)
        assert told["revenue"]["lag_commits"] > 0
        api.refresh_view(log, "revenue")
        run(log)
        assert lake.sql("FROM revenue").input_position == shop.commits[-1]
        position = lake.position()
        shop.commit(log)
        run(log)
        assert lake.sql("FROM revenue", at=position).fetchall() == lake.sql("FROM revenue").fetchall()
        with pytest.raises(UsageError, match="every step"):
            api.refresh_view(log, "countries")
        check_as_of_every_step(shop, log)
        refreshed = [step.input_commit for step in log.steps() if log.view("revenue").id in step.views]
        assert refreshed[1:] == [first, shop.commits[-2]]


@pytest.mark.long
def test_a_lake_with_nothing_continuous(shop: Shop) -> None:
    with open_log(shop.lake) as log, Lake(log) as lake:
        create(log, "revenue", "'manual'")
        run(log)
        shop.commit(log)
        run(log)
        assert lake.sql("FROM revenue").input_position == shop.commits[0]
        api.refresh_view(log, "revenue")
        run(log)
        assert lake.sql("FROM revenue").input_position == shop.commits[1]
        assert "refreshed manual" in str(api.explain(log, "revenue"))
        check_as_of_every_step(shop, log)


class Passing:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.us = 1_800_000_000_000_000

    def now_us(self) -> int:
        self.us += 1
        return self.us


@pytest.fixture
def clocked(shop: Shop) -> Iterator[tuple[Log, Passing]]:
    clock = Passing()
    with open_log(shop.lake, clock=clock) as log:
        yield log, clock


def test_every_so_often(shop: Shop, clocked: tuple[Log, Passing]) -> None:
    log, clock = clocked
    create(log, "big_orders", "every '5 minutes'")
    api.create_view(log, VIEWS["totals"], name="totals")
    run(log)
    view = log.view("big_orders").id

    def refreshed() -> list[int]:
        return [step.input_commit for step in log.steps() if view in step.views]

    commits = [shop.commits[0]]
    assert refreshed() == commits
    epoch = log.raise_epoch("pipeline:main")
    worker = Worker(log, epoch, Settings())
    stop = threading.Event()
    for seconds, due in ((200, False), (101, True), (200, False), (3600, True)):
        clock.us += seconds * 1_000_000
        last = shop.commit(log)
        worker.run(stop, log.newest_commit())
        if due:
            commits.append(last)
        assert refreshed() == commits
    worker.close()
    clock.us += 301 * 1_000_000
    run(log)  # another process knows when it was refreshed
    assert refreshed() == [*commits, commits[-1]]
    check_as_of_every_step(shop, log)
