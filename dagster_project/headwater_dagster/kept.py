"""Dagster's instance, kept from tick to tick: set up anew it costs a sensor more than the sensor's own work.

Dagster makes an instance for each evaluation of a sensor that asks for one, or for a resource: 25 ms of CPU for the
storages, and as much again for statements that the new engines have not compiled yet.
"""

import threading

import dagster as dg

_lock = threading.Lock()
_last: list[dg.DagsterInstance] = []


def instance_of(context: dg.SensorEvaluationContext) -> dg.DagsterInstance:
    """The instance that the tick belongs to; one per process, as webserver and daemon have it. Safe in threads."""
    ref = context.instance_ref
    if ref is None:  # evaluated by hand, with an instance of one's own
        return context.instance
    with _lock:
        if not _last or _last[0].get_ref() != ref:
            _last[:] = [dg.DagsterInstance.from_ref(ref)]  # the one before: another tick may still be using it
        return _last[0]
