"""The renewing sensor, evaluated without a daemon: what it requests, whom it believes."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from headwater.config import Project
from headwater.errors import CatalogError
from headwater.log import open_log
from headwater_dagster import HeadwaterResource, beats, build_definitions, kept, lease, sensors, worker
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


def started_run(project: Project, instance: dg.DagsterInstance, tags: dict[str, str] | None = None) -> dg.DagsterRun:
    """A run that Dagster calls STARTED, of which no process is left."""
    job = build_definitions(project.root, lease_s=5).resolve_job_def(JOB)
    run = instance.create_run_for_job(job, tags=tags or {lease.TAG: lease.NAME})
    for event in (dg.DagsterEventType.PIPELINE_STARTING, dg.DagsterEventType.PIPELINE_START):
        instance.report_dagster_event(dg.DagsterEvent(event_type_value=event.value, job_name=JOB), run_id=run.run_id)
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status == dg.DagsterRunStatus.STARTED
    return found


def status_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def test_a_run_is_believed_as_long_as_it_beats(
    shop: Shop, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beats, "BEGIN_S", 0.0)
    run = started_run(shop.project, instance)
    with open_log(shop.project.lake_dir) as log, beats.beating(log, instance, run.run_id):
        assert run.run_id in text_of(evaluate(shop.project, instance, sensors.RENEW))
    assert run.run_id in text_of(evaluate(shop.project, instance, sensors.RENEW)), "its last words may still come"
    monkeypatch.setattr(beats, "DEAD_S", 0.0)
    assert evaluate(shop.project, instance, sensors.RENEW).run_requests
    assert status_of(instance, run) == dg.DagsterRunStatus.FAILURE
    assert [name for name in shop.log.live.read() if name.startswith(beats.PREFIX)] == []


def test_a_dead_lease_is_failed_and_followed(
    shop: Shop, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run beats, this one does not: its process is gone, whatever its status says."""
    run = started_run(shop.project, instance)
    shop.log.live.beat(beats.PREFIX + "another")
    assert run.run_id in text_of(evaluate(shop.project, instance, sensors.RENEW)), "it may still be starting"
    monkeypatch.setattr(beats, "BEGIN_S", 0.0)
    result = evaluate(shop.project, instance, sensors.RENEW)
    assert len(result.run_requests or []) == 1
    assert status_of(instance, run) == dg.DagsterRunStatus.FAILURE
    assert "the next try is in" in text_of(evaluate(shop.project, instance, sensors.RENEW))


def test_a_process_that_has_stopped_working_is_no_worker(shop: Shop) -> None:
    """This one ran the pipeline until it had caught up: it lives on, and must be neither adopted nor killed."""
    views.run(shop.log, shop.project.settings, threading.Event(), until_caught_up=True)
    assert shop.log.live.read()[worker.PIPELINE].pid == os.getpid()
    assert worker.find(shop.log) is None
    assert not worker.stop(shop.log)


def test_any_dead_run_of_this_lake_is_failed_whatever_else_holds(shop: Shop, instance: dg.DagsterInstance) -> None:
    mine = started_run(shop.project, instance, {beats.TAG: shop.log.incarnation})
    other = started_run(shop.project, instance, {beats.TAG: "another lake"})
    pause_pipeline(shop.log, by="someone")
    assert "paused by someone" in text_of(evaluate(shop.project, instance, sensors.RENEW))
    assert status_of(instance, mine) == dg.DagsterRunStatus.FAILURE
    assert status_of(instance, other) == dg.DagsterRunStatus.STARTED


def test_a_run_beats_while_it_works(shop: Shop, instance: dg.DagsterInstance) -> None:
    """Whatever it does with the resource: an op of somebody's own, here."""
    seen = list[str]()

    @dg.op(required_resource_keys={"headwater"})
    def look(context: dg.OpExecutionContext) -> None:
        seen.extend(name for name in shop.log.live.read() if name == beats.PREFIX + context.run_id)

    @dg.job(resource_defs={"headwater": HeadwaterResource(project_dir=str(shop.project.root))})
    def own() -> None:
        look()

    done = own.execute_in_process(instance=instance)
    assert seen == [beats.PREFIX + done.run_id]
    run = instance.get_run_by_id(done.run_id)
    assert run is not None
    assert run.tags[beats.TAG] == shop.log.incarnation


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


def test_one_instance_serves_all_ticks(tmp_path: Path) -> None:
    """Dagster would set up a new one for each of them."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as made:
        ticks = [dg.build_sensor_context(instance_ref=made.get_ref()) for _ in range(2)]
        first, second = [kept.instance_of(each) for each in ticks]
        assert first is second
        by_hand = dg.build_sensor_context(instance=made)
        assert kept.instance_of(by_hand) is made
    (tmp_path / "other").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "other")) as other:
        another = kept.instance_of(dg.build_sensor_context(instance_ref=other.get_ref()))
        assert another.root_directory == other.root_directory != first.root_directory


def test_one_open_lake_serves_all_ticks(tmp_path: Path) -> None:
    """Until another lake is in its place."""
    with open_log(tmp_path / "lake", create=True):
        first = kept.log_of(tmp_path / "lake")
        assert kept.log_of(tmp_path / "lake") is first
    with open_log(tmp_path / "other", create=True) as other:
        (tmp_path / "lake").rename(tmp_path / "before")
        with pytest.raises(CatalogError, match="no lake here"):
            kept.log_of(tmp_path / "lake")
        (tmp_path / "other").rename(tmp_path / "lake")
        assert kept.log_of(tmp_path / "lake").incarnation == other.incarnation != first.incarnation
