"""When maintenance is due: a job and a schedule for each of its assets.

All schedules run unless somebody stops them, because a project that only Dagster looks after has nobody else: log and
run list would grow for ever, and damage be found by whoever needs the record. Beside a maintenance process (that of
`headwater up`, or the demo's) those that it does as well skip, so nothing is done twice and no process is started.

    seal         every 10 minutes   a reader folds what is hot; nobody waits for sealing itself
    compact      hourly             its limits are shares of a topic, which move slowly
    retain       hourly             its limits are hours and days
    compare      every 10 minutes   parts of about a second, so that all rows are compared within a day
    verify       daily              reads the catalog and file sizes, which takes seconds
    verify_deep  weekly             reads every byte: as often as the patrol, which compares check sums alone
    dead_letters daily              somebody looks in the morning
    runs         daily              a day of leases is 20 MB of event logs

What reads much comes at night, in the lake's time zone.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from headwater_dagster import maintenance
from headwater_dagster.inventory import lake_exists
from headwater_dagster.resource import HeadwaterResource
from headwater_dagster.stream import MAX_RUNTIME_TAG

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

UNFINISHED = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


@dataclass(frozen=True, kw_only=True)
class Due:
    """``owned``: the maintenance process does it, where there is one. ``needs_lake``: there is nothing to do without.

    ``max_runtime_s``: after so long Dagster ends the run, which loses nothing; a run whose process is gone ends so,
    too, and the schedule goes on.
    """

    name: str
    cron: str
    max_runtime_s: int = 3_600
    owned: bool = False
    needs_lake: bool = True

    @property
    def job(self) -> str:
        return f"{maintenance.GROUP}_{self.name}"


TIMETABLE = (
    Due(name="seal", cron="*/10 * * * *", owned=True),
    Due(name="compact", cron="20 * * * *", owned=True),
    Due(name="retain", cron="40 * * * *", owned=True),
    Due(name="compare", cron="5-59/10 * * * *", owned=True),
    Due(name="verify", cron="10 3 * * *"),
    Due(name="runs", cron="30 3 * * *", needs_lake=False),
    Due(name="verify_deep", cron="0 4 * * 0", max_runtime_s=6 * 3_600),
    Due(name="dead_letters", cron="0 6 * * *"),
)


def build_maintenance_jobs() -> "list[UnresolvedAssetJobDefinition]":
    return [_job(due) for due in TIMETABLE]


def build_maintenance_schedules(timezone: str) -> list[dg.ScheduleDefinition]:
    """The schedules, in the lake's time zone."""
    return [_schedule(due, timezone) for due in TIMETABLE]


def _job(due: Due) -> "UnresolvedAssetJobDefinition":
    return dg.define_asset_job(
        due.job,
        selection=dg.AssetSelection.assets(maintenance.key(due.name)),
        executor_def=dg.in_process_executor,
        tags={MAX_RUNTIME_TAG: str(due.max_runtime_s)},
    )


def _schedule(due: Due, timezone: str) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"{due.job}_schedule",
        job_name=due.job,
        cron_schedule=due.cron,
        execution_timezone=timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Skips while it is at it already" + (", and beside a maintenance process." if due.owned else "."),
    )
    def schedule(context: dg.ScheduleEvaluationContext, headwater: HeadwaterResource) -> dg.RunRequest | dg.SkipReason:
        reason = _nothing_to_do(due, headwater) or _at_it(due, context.instance)
        return dg.RunRequest() if reason is None else dg.SkipReason(reason)

    return schedule


def _nothing_to_do(due: Due, headwater: HeadwaterResource) -> str | None:
    if due.needs_lake and not lake_exists(headwater.project.lake_dir):
        return "the project has no lake yet"
    if not due.owned:
        return None
    from headwater.maintenance import OWNER
    from headwater.service.status import fresh

    with headwater.log() as log:
        process = log.live.read().get(OWNER)
    return f"the maintenance process {process.pid} does it" if process is not None and fresh(process) else None


def _at_it(due: Due, instance: dg.DagsterInstance) -> str | None:
    """A run that takes longer than the time between two must not have others queue behind it."""
    unfinished = dg.RunsFilter(job_name=due.job, statuses=list(UNFINISHED))
    for record in instance.get_run_records(unfinished, limit=1):
        return f"run {record.dagster_run.run_id} is at it: {record.dagster_run.status.value}"
    return None
