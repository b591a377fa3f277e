"""Removing runs that ended long ago: Dagster keeps every run and its event log for ever.

Dagster's own ``delete_run`` forgets the run and its events, which leaves two things on the disk: under SQLite the
run's event log, a file of 130 kB, and what the run wrote to its output. Both go here as well.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
RUNS_MAX = 2_000
"""Removed at one time at most: several times what a day brings."""
SECONDS_MAX = 120.0
"""... and for so long at most; the next time goes on."""
SUFFIXES = ("", "-wal", "-shm")
"""Of an SQLite database's files."""


@dataclass(frozen=True, kw_only=True)
class Removal:
    """``bytes``: of files. ``beyond``: runs older than they may be that are still there, needed or left for later."""

    removed: int
    bytes: int
    beyond: int


def remove(
    instance: dg.DagsterInstance, older_than_s: float, *, runs_max: int = RUNS_MAX, seconds_max: float = SECONDS_MAX
) -> Removal:
    """Remove runs that ended more than ``older_than_s`` seconds ago, oldest first; one that has not ended never goes.

    The run of an asset's newest materialization stays: the asset's page shows it. Interrupted at any moment, the
    next call does the rest.
    """
    began = time.monotonic()
    cut = datetime.now(UTC) - timedelta(seconds=older_than_s)
    ended = dg.RunsFilter(statuses=list(ENDED), updated_before=cut)
    needed = _needed(instance)
    removed = size = 0
    for record in instance.get_run_records(ended, limit=runs_max + len(needed), ascending=True):
        run_id = record.dagster_run.run_id
        if removed == runs_max or time.monotonic() - began > seconds_max:
            break
        if run_id not in needed:
            size += _remove(instance, run_id)
            removed += 1
    return Removal(removed=removed, bytes=size, beyond=instance.get_runs_count(ended))


def _needed(instance: dg.DagsterInstance) -> set[str]:
    """Runs with the newest materialization of an asset."""
    newest = instance.get_latest_materialization_events(instance.all_asset_keys())
    return {event.run_id for event in newest.values() if event is not None}


def _remove(instance: dg.DagsterInstance, run_id: str) -> int:
    """Remove one run; the size of its event log's files. Its output goes first: without the run nobody finds it."""
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    instance.delete_run(run_id)
    size = 0
    for path in _files(instance, run_id):
        if path.exists():
            size += path.stat().st_size
            path.unlink()
    return size


def _files(instance: dg.DagsterInstance, run_id: str) -> list[Path]:
    """The files of the run's event log where it has some of its own: a shard of SQLite's."""
    from dagster._core.storage.event_log import SqliteEventLogStorage  # no public name, and no public way to it

    storage = instance.event_log_storage
    if not isinstance(storage, SqliteEventLogStorage):
        return []
    return [Path(storage.path_for_shard(run_id) + suffix) for suffix in SUFFIXES]
