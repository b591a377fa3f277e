"""The sensor that keeps a lease running, and tells Dagster of runs whose process is gone."""

import time

import dagster as dg

from headwater.log import Log
from headwater_dagster import beats, lease, worker
from headwater_dagster.inventory import lake_exists
from headwater_dagster.kept import instance_of, log_of
from headwater_dagster.resource import HeadwaterResource
from headwater_dagster.stream import JOB, OP, LeaseConfig, lease_tags
from headwater_pipelines.api import paused_by

RENEW = "renew_lease"
INTERVAL_S = 5
"""Dagster's own floor; a tick costs a few milliseconds."""
RETRY_S = 60.0
"""After a failed lease; the worker itself was restarted with backoff before that."""


def build_renewing_sensor(headwater: HeadwaterResource, seconds: float) -> dg.SensorDefinition:
    """Requests the next lease whenever none is held; leaves a paused pipeline alone."""

    @dg.sensor(
        name=RENEW,
        job_name=JOB,  # by name: given the object, Dagster copies the sensor and warns of a beta parameter
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Keeps one lease on the pipeline running, unless it is paused; fails runs whose process is gone.",
    )
    def renew_lease(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        lake_dir = headwater.project.lake_dir
        if not lake_exists(lake_dir):
            return dg.SkipReason("the project has no lake yet")
        instance, log = instance_of(context), log_of(lake_dir)
        failed = _failed_lately(instance)  # before: a run that was killed is followed at once
        beats.fail_dead(instance, log)
        reason = _hold_off(log) or failed or _held(instance)
        if reason is not None:
            return dg.SkipReason(reason)
        return dg.RunRequest(
            run_key=None,  # a run key is used once for ever, and leases follow each other
            tags=lease_tags(seconds),
            run_config=dg.RunConfig(ops={OP: LeaseConfig(seconds=seconds)}),
        )

    return renew_lease


def _hold_off(log: Log) -> str | None:
    """Why no lease is wanted now."""
    paused = paused_by(log)
    if paused is not None:
        return f"paused by {paused}: `headwater resume`, or launch {JOB} by hand"
    if log.setting(worker.STOPPING) is not None:
        return "headwater is stopping"
    return None if log.views() else "there is no view yet"


def _failed_lately(instance: dg.DagsterInstance) -> str | None:
    """A worker that cannot run must not fill the run list: after a failed lease, wait."""
    mine = dg.RunsFilter(tags={lease.TAG: lease.NAME})
    for record in instance.get_run_records(mine, limit=1):
        age = time.time() - (record.end_time or 0)
        if record.dagster_run.status == dg.DagsterRunStatus.FAILURE and age < RETRY_S:
            return f"run {record.dagster_run.run_id} failed; the next try is in {RETRY_S - age:.0f} s"
    return None


def _held(instance: dg.DagsterInstance) -> str | None:
    """Who holds the lease, or is about to; runs whose process is gone have been reported as failed before."""
    unfinished = dg.RunsFilter(
        tags={lease.TAG: lease.NAME},
        statuses=[
            dg.DagsterRunStatus.QUEUED,
            dg.DagsterRunStatus.NOT_STARTED,
            dg.DagsterRunStatus.STARTING,
            dg.DagsterRunStatus.STARTED,
            dg.DagsterRunStatus.CANCELING,
        ],
    )
    for record in instance.get_run_records(unfinished, limit=1):
        return f"run {record.dagster_run.run_id} is {record.dagster_run.status.value}"
    return None
