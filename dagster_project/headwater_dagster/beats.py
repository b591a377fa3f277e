"""Signs of life of runs: Dagster calls a run started for ever when its process and its code server are gone.

Every run that uses the resource beats once a second as ``run:ID`` in the lake, and bears the lake's name as a tag. A
run with this tag that beats no more has no process: ``fail_dead`` tells Dagster so, and what the run held (a lease, a
place in a pool or among the runs) is free again. Dagster's status alone never decides.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from headwater import logs
from headwater.errors import HeadwaterError
from headwater.log import Log
from headwater_dagster import lease

TAG = "headwater.lake"
"""Of a run that beats; its value is the lake's incarnation, for an instance may have runs of several projects."""
PREFIX = "run:"
BEAT_S = 1.0
DEAD_S = 20.0
"""A started run that has not beaten for so long is gone, or its process hangs."""
BEGIN_S = 60.0
"""From STARTED to the first beat: the code server's imports, on a busy machine."""


@contextmanager
def beating(log: Log, instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Beat for this run, in a thread, as long as the block runs.

    The last beat stays: the run ends a moment later, and until then it must not look dead.
    """
    component, done = PREFIX + run_id, threading.Event()

    def beat() -> None:
        while not done.wait(BEAT_S):
            try:
                log.live.beat(component, state="works")
            except HeadwaterError as error:  # the next one may succeed; without any the run is taken for dead
                logs.logger("dagster").warning(f"run {run_id} could not beat: {error}")

    _forget_old(log)
    log.live.beat(component, state="works")  # before the tag: who bears it and does not beat is dead
    instance.add_run_tags(run_id, {TAG: log.incarnation})
    thread = threading.Thread(target=beat, name="beats", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        log.live.beat(component, state="ended")


def fail_dead(instance: dg.DagsterInstance, log: Log) -> list[str]:
    """Report the started runs that have no process as failed; their ids."""
    living = _forget_old(log)
    dead = [each.dagster_run for each in _started(instance, log) if PREFIX + each.dagster_run.run_id not in living]
    for run in dead:
        instance.report_run_failed(run, f"no sign of life from this run for {DEAD_S:.0f} s")
    return [run.run_id for run in dead]


def _forget_old(log: Log) -> set[str]:
    """Remove the beats of runs that beat no more, which bounds them; the names of those that do."""
    now = time.time()
    beats = {name: row.beat_at for name, row in log.live.read().items() if name.startswith(PREFIX)}
    living = {name for name, beat_at in beats.items() if now - beat_at <= DEAD_S}
    for name in beats.keys() - living:
        log.live.forget(name)
    return living


def _started(instance: dg.DagsterInstance, log: Log) -> list[dg.RunRecord]:
    """Runs that ought to beat: those that have begun to, and leases that have had the time to."""
    now, started = time.time(), [dg.DagsterRunStatus.STARTED]
    begun = instance.get_run_records(dg.RunsFilter(tags={TAG: log.incarnation}, statuses=started))
    known = {record.dagster_run.run_id for record in begun}
    leases = instance.get_run_records(dg.RunsFilter(tags={lease.TAG: lease.NAME}, statuses=started))
    late = [each for each in leases if each.start_time is not None and now - each.start_time > BEGIN_S]
    return [*begun, *(each for each in late if each.dagster_run.run_id not in known)]
