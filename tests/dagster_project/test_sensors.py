"""The renewing sensor, evaluated without a daemon: what it requests, whom it believes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import dagster as dg
import pytest

from headwater.config import Project
from headwater_dagster import build_definitions, lease, sensors, worker
from headwater_dagster.stream import JOB
from headwater_pipelines.api import pause_pipeline, resume_pipeline
from headwater_pipelines.runtime import worker as views

from .conftest import Shop


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def evaluate(project: Project, instance: dg.DagsterInstance, name: str, cursor: str | None = None) -> dg.SensorResult:
    defs = build_definitions(project.root, lease_s=5)
    with dg.build_sensor_context(
        instance=instance, cursor=cursor, definitions=defs, resources=defs.resources
    ) as context:
        data = defs.resolve_sensor_def(name).evaluate_tick(context)
    return dg.SensorResult(
        run_requests=data.run_requests,
        cursor=data.cursor,
        skip_reason=None if data.run_requests else (data.skip_message or None),
    )


def text_of(result: dg.SensorResult) -> str:
    return result.skip_reason.skip_message or "" if result.skip_reason else ""


def test_renewing_requests_one_lease(shop: Shop, instance: dg.DagsterInstance) -> None:
    result = evaluate(shop.project, instance, sensors.RENEW)
    (request,) = result.run_requests or []
    assert request.run_key is None
    assert request.tags[lease.TAG] == "main"
    assert request.tags["dagster/max_runtime"] == "605"


def test_renewing_skips(shop: Shop, instance: dg.DagsterInstance) -> None:
    pause_pipeline(shop.log, by="someone")
    assert "paused by someone" in text_of(evaluate(shop.project, instance, sensors.RENEW))
    resume_pipeline(shop.log)
    shop.log.set_setting(worker.STOPPING, "demo")
    assert "stopping" in text_of(evaluate(shop.project, instance, sensors.RENEW))
    shop.log.set_setting(worker.STOPPING, None)
    for view in shop.log.views():
        shop.log.drop_view(view.name)
    assert "no view" in text_of(evaluate(shop.project, instance, sensors.RENEW))


def test_renewing_without_a_lake(project: Project, instance: dg.DagsterInstance) -> None:
    assert "no lake" in text_of(evaluate(project, instance, sensors.RENEW))


def started_run(project: Project, instance: dg.DagsterInstance) -> dg.DagsterRun:
    """A run that Dagster calls STARTED, of which no process is left."""
    job = build_definitions(project.root, lease_s=5).resolve_job_def(JOB)
    run = instance.create_run_for_job(job, tags={lease.TAG: lease.NAME})
    for event in (dg.DagsterEventType.PIPELINE_STARTING, dg.DagsterEventType.PIPELINE_START):
        instance.report_dagster_event(dg.DagsterEvent(event_type_value=event.value, job_name=JOB), run_id=run.run_id)
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status == dg.DagsterRunStatus.STARTED
    return found


def test_a_beating_run_is_believed(shop: Shop, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensors, "BEGIN_S", 0.0)
    run = started_run(shop.project, instance)
    shop.log.live.beat(lease.LEASE, run_id=run.run_id, deadline=0.0, state="held")
    assert run.run_id in text_of(evaluate(shop.project, instance, sensors.RENEW))


def test_a_dead_run_is_failed_and_followed(
    shop: Shop, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease was last beaten by another run: this one's process is gone, whatever its status says."""
    run = started_run(shop.project, instance)
    assert run.run_id in text_of(evaluate(shop.project, instance, sensors.RENEW)), "it may still be starting"
    monkeypatch.setattr(sensors, "BEGIN_S", 0.0)
    shop.log.live.beat(lease.LEASE, run_id="another", deadline=0.0, state="held")
    result = evaluate(shop.project, instance, sensors.RENEW)
    assert len(result.run_requests or []) == 1
    failed = instance.get_run_by_id(run.run_id)
    assert failed is not None
    assert failed.status == dg.DagsterRunStatus.FAILURE
    assert "the next try is in" in text_of(evaluate(shop.project, instance, sensors.RENEW))


def test_a_process_that_has_stopped_working_is_no_worker(shop: Shop) -> None:
    """This one ran the pipeline until it had caught up: it lives on, and must be neither adopted nor killed."""
    views.run(shop.log, shop.project.settings, threading.Event(), until_caught_up=True)
    assert shop.log.live.read()[worker.PIPELINE].pid == os.getpid()
    assert worker.find(shop.log) is None
    assert not worker.stop(shop.log)


def test_a_reused_pid_is_no_worker(shop: Shop) -> None:
    """The pipeline's last beat is of a process that is gone; another one has its number now."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with shop.log.live._connection() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO live VALUES (?, ?, 0, 1000.0, '{}')", (worker.PIPELINE, child.pid)
            )
        assert worker.find(shop.log) is None
        assert child.poll() is None, "a process that is not the worker must never be killed"
    finally:
        child.communicate(b"\n")
