"""Dagster's instance and the lake, kept from tick to tick: opened anew they cost a sensor more than its own work.

Dagster makes an instance for each evaluation of a sensor that asks for one, or for a resource: 25 ms of CPU for the
storages, and as much again for statements that the new engines have not compiled yet. So does a lake: its catalog.
"""

import threading
from pathlib import Path

import dagster as dg

from headwater.catalog.catalog import FILE
from headwater.log import Log, open_log

_lock = threading.Lock()
_last: list[dg.DagsterInstance] = []
_logs: dict[Path, tuple[int, Log]] = {}


def instance_of(context: dg.SensorEvaluationContext) -> dg.DagsterInstance:
    """The instance that the tick belongs to; one per process, as webserver and daemon have it. Safe in threads."""
    ref = context.instance_ref
    if ref is None:  # evaluated by hand, with an instance of one's own
        return context.instance
    with _lock:
        if not _last or _last[0].get_ref() != ref:
            _last[:] = [dg.DagsterInstance.from_ref(ref)]  # the one before: another tick may still be using it
        return _last[0]


def log_of(lake_dir: Path) -> Log:
    """The open log of a lake: not to be closed; another one once another lake is there. CatalogError when none is.

    One per process and lake. Safe in threads.
    """
    with _lock:
        try:
            number = (lake_dir / FILE).stat().st_ino
        except FileNotFoundError:
            number = 0  # opening it says so
        kept = _logs.get(lake_dir)
        if kept is None or kept[0] != number:
            kept = _logs[lake_dir] = (number, open_log(lake_dir))  # the one before: another tick may still be using it
        return kept[1]
