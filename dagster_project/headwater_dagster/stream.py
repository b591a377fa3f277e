"""The stream job: a run that holds a lease on the pipeline and ends with one materialization per view.

Held by the op's own timer; ``dagster/max_runtime`` is only a guard. A run that ends in any way leaves the
worker running, except that a person cancels it before its deadline: that pauses the pipeline.

Dagster reads the annotations of ops when it decorates them: no ``from __future__ import annotations`` here.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError  # no public name; see on_cancel

from headwater.errors import HeadwaterError
from headwater.log import Log
from headwater_dagster.increments import require_maintained
from headwater_dagster.lease import GUARD_S, NAME, SECONDS, TAG, Account, Lease
from headwater_dagster.provenance import Provenance
from headwater_dagster.resource import HeadwaterResource
from headwater_pipelines.api import pause_pipeline, paused_by, resume_pipeline

JOB = "stream"
OP = "hold_lease"
SENSOR_TAG = "dagster/sensor_name"
MAX_RUNTIME_TAG = "dagster/max_runtime"


class LeaseConfig(dg.Config):
    """``seconds``: how long the run keeps the worker; 0 ends it as soon as the views have caught up."""

    seconds: float = SECONDS


def build_stream_job(seconds: float, made_of: Provenance) -> dg.JobDefinition:
    """The job, with a lease of ``seconds`` unless its launcher says otherwise."""

    @dg.op(name=OP, description="Keeps the views' worker running for the lease, then reports each view.")
    def hold_lease(context: dg.OpExecutionContext, config: LeaseConfig, headwater: HeadwaterResource) -> None:
        with headwater.log() as log:
            for account in held(context, log, headwater, config.seconds):
                key = dg.AssetKey([account.namespace, account.name])
                metadata = account_metadata(account)
                context.log_event(dg.AssetMaterialization(key, metadata=metadata, tags=made_of.get(key)))

    @dg.job(
        name=JOB,
        executor_def=dg.in_process_executor,
        tags=lease_tags(seconds),
        config=dg.RunConfig(ops={OP: LeaseConfig(seconds=seconds)}),
        description="Holds a lease on the pipeline. Launching it by hand also ends a pause.",
    )
    def stream() -> None:
        hold_lease()

    return stream


def lease_tags(seconds: float) -> dict[str, str]:
    return {TAG: NAME, MAX_RUNTIME_TAG: str(int(seconds) + GUARD_S)}


def held(
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
    log: Log,
    headwater: HeadwaterResource,
    seconds: float,
    views: Sequence[str] = (),
) -> list[Account]:
    """Hold the lease for this run; the accounts of its end. Raises Failure with headwater's own paragraph.

    ``views``: those that the run is for. It ends when they are refreshed, and fails when one is not maintained.
    """
    run = context.run
    if SENSOR_TAG not in run.tags and paused_by(log) is not None:
        context.log.info("launched by hand: ends the pause by %s", paused_by(log))
        resume_pipeline(log)
    say: Callable[[str], None] = context.log.info
    try:
        refreshed = [name for name in views if log.view(name).refresh != "continuous"]
        lease = Lease(
            project=headwater.project, log=log, run_id=run.run_id, seconds=seconds, say=say, refreshed=refreshed
        )
        with on_cancel(context.instance, run.run_id, lease):
            ending, accounts = lease.hold()
        for name in views:
            require_maintained(log.view(name))
    except HeadwaterError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error
    context.log.info("the lease ended: %s", ending)
    return accounts


@contextmanager
def on_cancel(instance: dg.DagsterInstance, run_id: str, lease: Lease) -> Iterator[None]:
    """Pause the pipeline when the run is being cancelled by a person; the interruption itself goes on.

    An interruption alone says nothing: a code server that is shut down interrupts its runs as well. Only a
    cancellation sets the run's status to CANCELING first, and so does Dagster's own guard once the run takes too long.
    """
    try:
        yield
    except DagsterExecutionInterruptedError:
        record = instance.get_run_record_by_id(run_id)
        if record is not None and _is_cancelled(instance, record) and lease.cancelled():
            pause_pipeline(lease.log, by=f"dagster run {run_id}")
            lease.say("cancelled: the pipeline is paused until `headwater resume` or a launch by hand")
        raise


def _is_cancelled(instance: dg.DagsterInstance, record: dg.RunRecord) -> bool:
    run = record.dagster_run
    most = float(run.tags.get(MAX_RUNTIME_TAG) or instance.run_monitoring_max_runtime_seconds) or math.inf
    took = time.time() - (record.start_time or math.inf)
    return run.status == dg.DagsterRunStatus.CANCELING and took <= most


def account_metadata(account: Account) -> dict[str, Any]:
    """from, to (input commits), rows, p95 and lag; numbers become time series in the UI."""
    values: dict[str, Any] = {
        "from_commit": account.from_commit,
        "to_commit": account.to_commit,
        "rows": account.rows,
        "step_ms_p95": account.step_ms_p95,
        "lag_ms": account.lag_ms,
    }
    return {name: value for name, value in values.items() if value is not None}
