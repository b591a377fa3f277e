"""What pauses the pipeline when a run is interrupted, and what does not."""

from __future__ import annotations

import time
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError

from headwater_dagster import build_definitions, worker
from headwater_dagster.lease import Lease
from headwater_dagster.stream import JOB, MAX_RUNTIME_TAG, on_cancel
from headwater_pipelines.api import paused_by

from .conftest import Shop


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def interrupted(
    shop: Shop, instance: dg.DagsterInstance, *, canceling: bool = True, most_s: float = 600, left_s: float = 300
) -> str | None:
    """Interrupt a run that has begun and holds a lease with ``left_s`` seconds left; who has paused the pipeline."""
    job = build_definitions(shop.project.root, lease_s=5).resolve_job_def(JOB)
    run = instance.create_run_for_job(job, tags={MAX_RUNTIME_TAG: str(most_s)})
    for event in (dg.DagsterEventType.PIPELINE_STARTING, dg.DagsterEventType.PIPELINE_START):
        instance.report_dagster_event(dg.DagsterEvent(event_type_value=event.value, job_name=JOB), run_id=run.run_id)
    if canceling:
        instance.report_run_canceling(run)
    lease = Lease(project=shop.project, log=shop.log, run_id=run.run_id, seconds=5, say=lambda _: None)
    lease.deadline = time.time() + left_s
    with pytest.raises(DagsterExecutionInterruptedError), on_cancel(instance, run.run_id, lease):
        raise DagsterExecutionInterruptedError
    return paused_by(shop.log)


def test_a_person_who_cancels_pauses(shop: Shop, instance: dg.DagsterInstance) -> None:
    assert str(interrupted(shop, instance)).startswith("dagster run ")


def test_a_code_server_that_is_shut_down_pauses_nothing(shop: Shop, instance: dg.DagsterInstance) -> None:
    assert interrupted(shop, instance, canceling=False) is None


def test_a_run_that_takes_too_long_pauses_nothing(shop: Shop, instance: dg.DagsterInstance) -> None:
    """By Dagster's guard, which says CANCELING, too: after the deadline, or before where somebody set it shorter."""
    assert interrupted(shop, instance, left_s=-1) is None
    assert interrupted(shop, instance, most_s=0.001) is None


def test_a_cancellation_while_everything_stops_pauses_nothing(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.log.set_setting(worker.STOPPING, "demo")
    assert interrupted(shop, instance) is None
