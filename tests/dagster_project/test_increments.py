"""Views that are refreshed by hand or from time to time: a run is one increment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from tests.waiting import until

from headwater.lake import Lake
from headwater.log import open_log
from headwater_dagster import build_definitions, worker
from headwater_dagster.increments import Increments, reaches
from headwater_pipelines.api import pause_view

from .conftest import Shop

COUNT = "SELECT count(*) AS orders FROM orders"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def still(shop: Shop) -> Shop:
    """A shop with a view that is refreshed by hand and one that is refreshed once a day."""
    shop.log.create_view("by_hand", COUNT, {"refresh": "manual"})
    shop.log.create_view("daily", COUNT, {"refresh": "every 1 day"})
    return shop


def materialize(shop: Shop, instance: dg.DagsterInstance, *names: str) -> dg.ExecuteInProcessResult:
    job = build_definitions(shop.project.root).resolve_implicit_global_asset_job_def()
    keys = [dg.AssetKey(["views", name]) for name in names]
    return job.execute_in_process(instance=instance, asset_selection=keys, raise_on_error=False)


def figures(result: dg.ExecuteInProcessResult) -> dict[str, tuple[Any, ...]]:
    """From, to and rows of what was materialized, by view."""
    assert result.success, [event.message for event in result.all_events if event.is_step_failure]
    found = {}
    for event in result.get_asset_materialization_events():
        assert event.asset_key is not None
        told = event.step_materialization_data.materialization.metadata
        found[event.asset_key.path[1]] = tuple(told[each].value for each in ("from_commit", "to_commit", "rows"))
    return found


def failure(result: dg.ExecuteInProcessResult) -> str:
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    data = failed.step_failure_data.user_failure_data
    assert data is not None
    return str(data.description)


def orders(shop: Shop, name: str) -> list[tuple[Any, ...]]:
    return Lake(shop.log).sql(f"SELECT orders FROM {name}").fetchall()


def test_a_run_is_one_increment_of_what_was_asked_for(still: Shop, instance: dg.DagsterInstance) -> None:
    first = still.order()
    assert figures(materialize(still, instance, "by_hand", "daily", "totals"))["by_hand"][::2] == (0, 1)
    second = still.order()
    told = figures(materialize(still, instance, "by_hand"))
    assert set(told) == {"by_hand"}
    since, upto, rows = told["by_hand"]
    assert first <= since < second <= upto
    assert rows == 2, "the count that was, and the count that is"
    assert (orders(still, "by_hand"), orders(still, "daily")) == ([(20,)], [(10,)])

    told = figures(materialize(still, instance, "by_hand", "daily"))
    assert told["by_hand"] == (upto, upto, 0), "nothing new: it is refreshed all the same, to no effect"
    assert told["daily"][2] == 2
    assert orders(still, "daily") == [(20,)]


def test_a_view_that_is_not_maintained_fails_the_run_with_the_reason(still: Shop, instance: dg.DagsterInstance) -> None:
    still.order()
    figures(materialize(still, instance, "by_hand", "daily", "totals"))
    for name in ("by_hand", "totals"):
        pause_view(still.log, name, f"{name} is being looked at")
        assert f"{name} is paused: {name} is being looked at" in failure(materialize(still, instance, name))
    figures(materialize(still, instance, "daily"))
    still.log.create_view("wrong", "SELECT CAST(name AS BIGINT) AS number FROM customers", {"refresh": "manual"})
    assert "Could not convert string" in failure(materialize(still, instance, "wrong"))


def test_a_refresh_that_was_begun_before_is_not_what_was_asked_for(still: Shop) -> None:
    """It ends at an older commit and the view is live: the run asks again, and gets what it asked for."""
    before = still.order()
    with open_log(still.project.lake_dir) as log:
        worker.ensure(still.project, still.log, starter="test")
        until(lambda: still.log.view("by_hand").state == "live", "the first fill")
        after = still.order()
        asked = Increments(log, ["by_hand"], after)
        assert not asked.are_there(), "it is live, and stands where it stood"
        until(asked.are_there, "the refresh that was asked for again")
        step = log.newest_common_step(frozenset({log.view("by_hand").id}), log.newest_commit())
        assert step is not None
        assert step.input_commit > before
        assert reaches(log, step.input_commit, after)
