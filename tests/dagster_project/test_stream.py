"""The lease, on the real worker and a real lake: started, adopted, succeeded, ended."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import dagster as dg
import psutil
import pytest
from tests.waiting import until

from headwater.log import open_log
from headwater.ownership import own
from headwater_dagster import build_definitions, worker
from headwater_dagster.lease import Account, Ending, Lease, caught_up
from headwater_dagster.stream import JOB
from headwater_pipelines.api import pause_pipeline, paused_by

from .conftest import Shop, worker_processes

VIEWS = {"large", "totals"}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def run_stream(
    shop: Shop, instance: dg.DagsterInstance, seconds: float, tags: dict[str, str] | None = None
) -> dg.ExecuteInProcessResult:
    defs = build_definitions(shop.project.root, lease_s=seconds)
    return defs.resolve_job_def(JOB).execute_in_process(instance=instance, tags=tags)


def materialized(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    """Metadata of each view's materialization; fails when a view has two."""
    found: dict[str, dict[str, Any]] = {}
    for event in result.get_asset_materialization_events():
        key = event.asset_key
        assert key is not None
        assert key.path[0] == "views"
        assert key.path[1] not in found
        metadata = event.step_materialization_data.materialization.metadata
        found[key.path[1]] = {name: value.value for name, value in metadata.items()}
    return found


def test_lease_starts_then_adopts(shop: Shop, instance: dg.DagsterInstance) -> None:
    first_order = shop.order()
    first = run_stream(shop, instance, 0)
    assert first.success
    accounts = materialized(first)
    assert set(accounts) == VIEWS
    for account in accounts.values():
        assert account["from_commit"] == 0
        assert account["to_commit"] >= first_order
        assert account["rows"] > 0

    (started,) = worker_processes(shop.project)
    recorded = worker.record(shop.log)
    assert recorded is not None
    assert (recorded.pid, recorded.starter) == (started.pid, f"dagster run {first.run_id}")
    assert recorded.epoch == shop.log.producer(worker.PIPELINE).epoch
    assert os.getsid(started.pid) == started.pid, "a session of its own"

    second_order = shop.order()
    second = materialized(run_stream(shop, instance, 3))
    (adopted,) = worker_processes(shop.project)
    assert adopted.pid == started.pid
    assert second["totals"]["step_ms_p95"] > 0
    assert second["totals"]["to_commit"] >= second_order
    assert second["totals"]["from_commit"] >= accounts["totals"]["to_commit"]
    assert shop.log.producer(worker.PIPELINE).epoch == recorded.epoch, "adopting takes nothing over"


def first_worker(shop: Shop, ended: Future[tuple[Ending, list[Account]]]) -> worker.Worker:
    """The worker the lease started; a lease that ended instead says why."""
    found: list[worker.Worker] = []

    def look() -> bool:
        if ended.done():
            pytest.fail(f"the lease ended: {ended.exception() or ended.result()}")
        found.extend(filter(None, [worker.find(shop.log)]))
        return bool(found)

    until(look, "the first worker")
    return found[0]


@pytest.mark.long
def test_killed_worker_has_one_successor(shop: Shop) -> None:
    said: list[str] = []
    with open_log(shop.project.lake_dir) as log, ThreadPoolExecutor(1) as pool:
        lease = Lease(project=shop.project, log=log, run_id="r1", seconds=600, say=said.append)
        ended = pool.submit(lease.hold)
        first = first_worker(shop, ended)
        psutil.Process(first.pid).kill()
        order = shop.order()
        until(
            lambda: ended.done() or any("started worker" in line and str(first.pid) not in line for line in said),
            "a successor",
        )
        until(lambda: ended.done() or caught_up(shop.log, order), "its steps")
        second = worker.find(shop.log)
        assert second is not None
        assert second.epoch > first.epoch
        shop.log.set_setting(worker.STOPPING, "test")
        ending, accounts = ended.result(60)
        assert [each.pid for each in worker_processes(shop.project)] == [second.pid]
    assert ending == "stopping"
    assert {each.name: each.to_commit >= order for each in accounts} == dict.fromkeys(VIEWS, True)
    assert f"started worker {second.pid}, epoch {second.epoch}" in said


@pytest.mark.long
def test_a_hanging_worker_is_replaced(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "HUNG_S", 2.0)
    said: list[str] = []
    with open_log(shop.project.lake_dir) as log, ThreadPoolExecutor(1) as pool:
        lease = Lease(project=shop.project, log=log, run_id="r1", seconds=600, say=said.append)
        ended = pool.submit(lease.hold)
        first = first_worker(shop, ended)
        psutil.Process(first.pid).suspend()
        order = shop.order()
        until(lambda: ended.done() or caught_up(shop.log, order), "the successor's steps")
        shop.log.set_setting(worker.STOPPING, "test")
        assert ended.result(60)[0] == "stopping"
    assert f"worker {first.pid} hangs: killed" in said
    (second,) = worker_processes(shop.project)
    assert second.pid != first.pid
    assert shop.log.producer(worker.PIPELINE).epoch > first.epoch


@pytest.mark.long
def test_two_leases_start_one_worker(shop: Shop) -> None:
    """Both find none and start one each; ownership lets one live, and both leases adopt it."""
    shop.order()
    gate = threading.Barrier(2)

    def hold(name: str) -> str:
        with open_log(shop.project.lake_dir) as log:
            gate.wait(10)
            return Lease(project=shop.project, log=log, run_id=name, seconds=8, say=lambda _: None).hold()[0]

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(hold, ["a", "b"])) == ["deadline", "deadline"]
    until(lambda: len(worker_processes(shop.project)) == 1, "exactly one worker")


def test_materialize_by_hand_ends_when_caught_up(shop: Shop, instance: dg.DagsterInstance) -> None:
    order = shop.order()
    defs = build_definitions(shop.project.root)
    job = defs.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey(["views", "totals"])])
    accounts = materialized(result)
    assert set(accounts) == {"totals"}
    assert accounts["totals"]["to_commit"] >= order


def test_a_pause_ends_a_renewed_lease_and_yields_to_a_manual_launch(shop: Shop, instance: dg.DagsterInstance) -> None:
    pause_pipeline(shop.log, by="someone")
    renewed = run_stream(shop, instance, 600, {"dagster/sensor_name": "renew_lease"})
    assert renewed.success
    assert materialized(renewed) == {}
    assert worker_processes(shop.project) == []
    assert paused_by(shop.log) == "someone"

    shop.order()
    assert set(materialized(run_stream(shop, instance, 0))) == VIEWS
    assert paused_by(shop.log) is None


def test_stopping_ends_the_lease_and_leaves_the_worker(shop: Shop) -> None:
    with open_log(shop.project.lake_dir) as log, ThreadPoolExecutor(1) as pool:
        lease = Lease(project=shop.project, log=log, run_id="r1", seconds=600, say=lambda _: None)
        ended = pool.submit(lease.hold)
        until(lambda: worker.find(shop.log) is not None or ended.done(), "the worker")
        assert lease.cancelled()
        shop.log.set_setting(worker.STOPPING, "demo")
        assert not lease.cancelled(), "a cancellation while everything stops is no wish to pause"
        assert ended.result(30)[0] == "stopping"
    assert len(worker_processes(shop.project)) == 1


def test_a_worker_that_cannot_run_is_said(shop: Shop, instance: dg.DagsterInstance) -> None:
    """This process owns the pipeline and never beats: the run fails with the worker's own words."""
    with (shop.project.root / "headwater.toml").open("a") as file:
        file.write("[settings]\nrestart_limit = 1\n")
    with own(shop.log, worker.PIPELINE):
        result = (
            build_definitions(shop.project.root, lease_s=5)
            .resolve_job_def(JOB)
            .execute_in_process(instance=instance, raise_on_error=False)
        )
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    data = failure.step_failure_data.user_failure_data
    assert data is not None
    assert "already running" in str(data.description)


def test_stop_ends_the_worker(shop: Shop) -> None:
    worker.ensure(shop.project, shop.log, starter="test")
    assert worker.stop(shop.log)
    assert worker_processes(shop.project) == []
    assert not worker.stop(shop.log)
