"""Jobs for programs and notebooks: what there is, pause, resume, reset, drop, replay, where they come from.

Heavy imports are inside the functions: command line and notebook load this module at start.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from headwater.catalog.records import CommitInfo, Topic
    from headwater.config import Project
    from headwater.log import Log, Transaction
    from headwater.log.jobs import JobRecord
    from headwater.ownership import Owner
    from headwater.position import Position
    from headwater_pipelines.jobs.replay import Replayed


LAST_STEP_S = 30.0
"""How long a reset waits for the step that a job was in when it was paused."""


def list_jobs(lake_or_log: Any) -> list[JobRecord]:
    """Every job that was ever run and not dropped, by name."""
    from headwater.log import jobs

    return jobs.read(_log(lake_or_log))


def pause_job(lake_or_log: Any, name: str, reason: str = "paused by hand") -> None:
    """Stop a job after the step it is in; its output stays readable. NameNotFound."""
    from headwater.log import jobs

    jobs.set_state(_log(lake_or_log), name, "paused", reason)


def resume_job(lake_or_log: Any, name: str) -> None:
    """Let a paused job go on from where it stands. NameNotFound."""
    from headwater.log import jobs

    jobs.set_state(_log(lake_or_log), name, "live", "")


def reset_job(lake_or_log: Any, name: str) -> None:
    """Have a job begin anew: its output and state are emptied and its position forgotten, in one commit.

    OwnedElsewhere while it runs: pause it first. A paused job stays paused. Older positions still read what it wrote.
    """
    from headwater.log import jobs

    _clear(_log(lake_or_log), jobs.find(_log(lake_or_log), name), keep_output=False)


def drop_job(lake_or_log: Any, name: str) -> None:
    """Forget a job and its state; its output stays as a topic of its own.

    OwnedElsewhere while it runs. A job that jobs/ still declares is registered again when it is run.
    """
    from headwater.log import jobs

    log = _log(lake_or_log)
    _clear(log, jobs.find(log, name), keep_output=True)
    jobs.forget(log, name)
    log.live.forget(jobs.PREFIX + name)


def replay_job(lake_or_log: Any, project: Project, name: str, start: Position = 0, stop: Position = None) -> Replayed:
    """Run a job's function again over its steps after ``start`` up to ``stop`` (positions), and compare.

    With the state that it had at ``start``; nothing is published. NameNotFound, UsageError when there is no step,
    JobFailed when the function raises, Expired when retention has removed what it needs.
    """
    from headwater import position
    from headwater_pipelines.jobs import project as declared_in
    from headwater_pipelines.jobs import replay

    log = _log(lake_or_log)
    (declared,) = declared_in.choose(declared_in.load(project)[0], [name])
    after, upto = (position.resolve(log, each) for each in (start, stop))
    return replay.replay(log, declared.job, project.settings, after, upto)


def job_lineage(lake_or_log: Any) -> dict[str, tuple[list[str], str]]:
    """Job name → full names of the topics and views that it reads, and of the topic that it writes."""
    return {record.name: (list(record.inputs), record.output) for record in list_jobs(lake_or_log)}


def _clear(log: Log, record: JobRecord, *, keep_output: bool) -> None:
    """Empty what a job fills and forget where it stands, as its owner, in one commit."""
    from headwater.log import jobs

    with _owning(log, record) as owner:
        stored = log.producer(record.producer).position
        with log.transaction(record.producer, owner.epoch, stored) as tx:
            if tx.topic(record.state_topic) is not None:
                tx.drop_topic(record.state_topic)
            output = tx.topic(record.output)
            if output is not None and not keep_output:
                _empty(tx, output)
                tx.inside(partial(_give_up_letters, record.name, output.id))
            tx.position = None
            tx.inside(partial(jobs.forget_confirmed, record.producer))
            tx.commit()


@contextmanager
def _owning(log: Log, record: JobRecord) -> Iterator[Owner]:
    """Own a job; one that was just paused may be in its last step, which is waited for."""
    import time

    from headwater.errors import OwnedElsewhere
    from headwater.ownership import own

    deadline = time.monotonic() + (LAST_STEP_S if record.state == "paused" else 0)
    with ExitStack() as stack:
        while True:
            try:
                owner = stack.enter_context(own(log, record.producer))
                break
            except OwnedElsewhere as error:
                if record.state != "paused":
                    error.todo = f"Pause it first: `headwater job pause {record.name}`."
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield owner


def _give_up_letters(job: str, output: int, connection: Connection, _: CommitInfo) -> None:
    """Rows that still fail when the job begins anew are letters again."""
    from headwater.log import dead_letters

    dead_letters.give_up(connection, output, f"job {job} was reset")


def _empty(tx: Transaction, topic: Topic) -> None:
    """A table is truncated, so that what reads it follows; events cannot be taken back: their topic begins anew."""
    import pyarrow as pa

    from headwater import record

    if topic.kind != "table":
        tx.drop_topic(topic.name)
        return
    columns = topic.schema.arrow()
    tx.append(
        topic.name,
        pa.table([*(pa.nulls(1, field.type) for field in columns), ["t"]], names=[*columns.names, record.OP]),
    )


def _log(lake_or_log: Any) -> Log:
    log: Log = getattr(lake_or_log, "log", lake_or_log)
    return log
