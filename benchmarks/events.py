"""What an event costs Dagster: in its own SQLite storage, and in headwater's, which keeps connections.

materialization of an asset + five evaluations of its checks, twenty times, in either, by turns

python -m benchmarks.events [--quick] [--json]
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import Report, parse

if TYPE_CHECKING:
    from dagster import DagsterInstance

TURNS, QUICK_TURNS = 10, 3
ROUNDS = 20
CHECKS = 5
SHARE = 0.5
"""Of what Dagster's own storage takes."""


def main() -> int:
    options = parse("events", __doc__.splitlines()[0])
    report = Report("events", quick=options.quick)
    measure(report, QUICK_TURNS if options.quick else TURNS)
    return report.finish(as_json=options.json)


def measure(report: Report, turns: int) -> None:
    """Both storages in folders of their own; fills the report."""
    from dagster import DagsterInstance

    from headwater_dagster.instance import write_instance

    cpu: defaultdict[str, float] = defaultdict(float)
    wall: defaultdict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as own, tempfile.TemporaryDirectory() as other:
        os.environ["DAGSTER_HOME"] = own
        write_instance(Path(own))
        with DagsterInstance.get() as kept, DagsterInstance.local_temp(other) as plain:
            instances = {"kept": kept, "dagster": plain}
            for each in instances.values():
                _round(each, 0)
            for _ in range(turns):
                for name, each in instances.items():
                    cpu_began, began = time.process_time(), time.perf_counter()
                    for number in range(ROUNDS):
                        _round(each, number)
                    cpu[name] += time.process_time() - cpu_began
                    wall[name] += time.perf_counter() - began
    events = turns * ROUNDS * (CHECKS + 1)
    report.figure("events", events)
    for name in instances:
        report.figure(f"{name}_cpu_ms_per_event", cpu[name] / events * 1e3)
        report.figure(f"{name}_ms_per_event", wall[name] / events * 1e3)
    report.goal("cpu_share", cpu["kept"] / cpu["dagster"], at_most=SHARE)
    report.goal("time_share", wall["kept"] / wall["dagster"], at_most=SHARE)


def _round(instance: DagsterInstance, number: int) -> None:
    import dagster as dg

    instance.report_runless_asset_event(dg.AssetMaterialization("a", metadata={"rows": number, "state": "live"}))
    for check in range(CHECKS):
        found = dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey("a"), check_name=f"check_{check}", passed=True, metadata={"rows": number}
        )
        instance.report_runless_asset_event(found)


if __name__ == "__main__":
    sys.exit(main())
