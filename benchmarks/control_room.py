"""What an hour of the demo costs in its control room: Dagster's event log, the sensors' ticks, memory, runs.

    `headwater demo` ──▶ web shop, capture, views' worker
                    └──▶ Dagster: webserver, daemon, code servers, one run after the other that holds the lease

The demo runs as a person starts it, all on this machine's cores. Memory is what each of Dagster's processes has of its
own, looked at every five seconds: flat when its median in the last quarter of the time is that of the second quarter.
A tick is what Dagster records of it, from its creation to its end: the sensor's function, whose CPU is also measured
alone at the end, what Dagster puts around it, and what else the machine does. Growth of the event log is that of its
SQLite files. The first seconds, in which everything is reported for the first time, do not count.

    python -m benchmarks.control_room [--quick] [--json] [--seconds S] [--rate ROWS_PER_S]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

import headwater as hw
from benchmarks.harness import Report, parse, percentile, say
from benchmarks.processes import own_mb

if TYPE_CHECKING:
    from dagster import DagsterInstance

SECONDS, QUICK_SECONDS = 3_600.0, 20.0
WARM_UP_S = 15.0
ROWS_PER_S = 500.0
TICK_P95_MS = 200.0
GROWTH_SHARE = 0.05
FLAT_S = 1_500.0
"""A shorter run is still filling caches in its second quarter: of it, growth is told and not judged."""
MATERIALIZATIONS_PER_MIN = 1.0
SAMPLE_S = 5.0
START_S = 240.0
SENSORS = ("observe", "renew_lease")
ALONE = 20
"""So often the sensor's function is timed alone."""
ROLES = (
    ("webserver", "dagster_webserver"),
    ("daemon", "dagster._daemon"),
    ("code_servers", "dagster api grpc"),
    ("code_proxy", "headwater_dagster.server"),
    ("runs", "multiprocessing.spawn"),
)
"""Of the demo's processes, by what is in their command lines."""


@dataclass
class Watch:
    """What was seen of Dagster's processes: by role, its own MB at each look, and CPU seconds by process."""

    memory: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    cpu: dict[str, dict[tuple[int, float], float]] = field(default_factory=lambda: defaultdict(dict))
    load: list[float] = field(default_factory=list)
    """Processes that wanted a core, over a minute: what else the machine did shows in every tick."""

    def look(self, demo: int) -> None:
        held: defaultdict[str, float] = defaultdict(float)
        for process in psutil.Process(demo).children(recursive=True):
            try:
                role = _role(" ".join(process.cmdline()))
                if role is None:
                    continue
                key, times = (process.pid, process.create_time()), process.cpu_times()
                held[role] += own_mb(process.pid)
            except psutil.Error:  # ended meanwhile
                continue
            self.cpu[role][key] = times.user + times.system
        self.load.append(os.getloadavg()[0])
        for role in {role for role, _ in ROLES}:
            self.memory[role].append(held[role])

    def cpu_s(self, role: str) -> float:
        return sum(self.cpu[role].values())


def main() -> int:
    options = parse("control_room", __doc__.splitlines()[0], _more)
    report = Report("control_room", quick=options.quick)
    measure(report, options.seconds or (QUICK_SECONDS if options.quick else SECONDS), options.rate)
    return report.finish(as_json=options.json)


def measure(report: Report, seconds: float, rate: float = ROWS_PER_S) -> None:
    """One run of the demo; fills the report."""
    with tempfile.TemporaryDirectory(prefix="headwater-control-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # the database may run as another user
        root = Path(folder) / "demo"
        with _demo(root, rate) as demo:
            _await_live(root, demo)
            time.sleep(WARM_UP_S)
            say(f"{rate:g} row changes per second for {seconds:g} s")
            before, began, watch = _sizes(root), time.time(), Watch()
            cpu_before = Watch()
            cpu_before.look(demo.pid)
            while (left := began + seconds - time.time()) > 0:
                watch.look(demo.pid)
                time.sleep(min(SAMPLE_S, left))
                if demo.poll() is not None:
                    raise RuntimeError(f"the demo ended: {_output(root).read_text()[-2000:]}")
            after, ended = _sizes(root), time.time()
            alone = _alone(root)
        report.figure("seconds", ended - began)
        report.figure("rows_per_s", rate)
        report.figure("machine_load", statistics.median(watch.load))
        _fill_storage(report, root, before, after, began, ended)
        _fill_ticks(report, root, began, ended, alone)
        _fill_assets(report, root, began, ended)
        _fill_runs(report, root, began, ended)
        _fill_processes(report, watch, cpu_before, ended - began)


def growth_share(samples: Sequence[float]) -> float:
    """By how much the median of the last quarter is above that of the second; NaN for fewer than eight samples."""
    quarter = len(samples) // 4
    if quarter < 2:
        return float("nan")
    second, last = statistics.median(samples[quarter : 2 * quarter]), statistics.median(samples[-quarter:])
    return last / second - 1 if second else float("nan")


def busiest(times: Sequence[float], within_s: float = 60.0) -> int:
    """The most of these times (seconds) that lie within ``within_s`` of each other."""
    ordered, first, most = sorted(times), 0, 0
    for place, moment in enumerate(ordered):
        while ordered[first] <= moment - within_s:
            first += 1
        most = max(most, place - first + 1)
    return most


def _fill_storage(
    report: Report, root: Path, before: dict[str, int], after: dict[str, int], began: float, ended: float
) -> None:
    hours = (ended - began) / 3600
    for name, size in after.items():
        report.figure(f"{name}_mb", size / 1e6)
        report.figure(f"{name}_growth_mb_per_h", (size - before[name]) / 1e6 / hours)
    counts, sizes = _events(root, began, ended)
    report.figure("events_per_h", round(sum(counts.values()) / hours))
    for kind, count in counts.most_common():
        report.figure(f"{kind.lower()}_per_h", round(count / hours))
        report.figure(f"{kind.lower()}_kb_per_h", sizes[kind] / 1e3 / hours)


def _fill_ticks(report: Report, root: Path, began: float, ended: float, alone: dict[str, list[float]]) -> None:
    for sensor, took in _ticks(root, began, ended).items():
        report.figure(f"{sensor}_ticks", len(took))
        report.figure(f"{sensor}_p50_ms", percentile(took, 0.5))
        report.goal(f"{sensor}_p95_ms", percentile(took, 0.95), at_most=TICK_P95_MS)
        report.figure(f"{sensor}_max_ms", max(took, default=float("nan")))
        report.figure(f"{sensor}_function_cpu_ms", statistics.median(alone[sensor]))


def _fill_assets(report: Report, root: Path, began: float, ended: float) -> None:
    minutes = max(1.0, (ended - began) / 60)
    made: defaultdict[str, list[float]] = defaultdict(list)
    with closing(_database(_history(root) / "runs" / "index.db")) as index:
        rows = index.execute(
            "SELECT asset_key, strftime('%s', timestamp) + 0.0 FROM event_logs"
            " WHERE dagster_event_type = 'ASSET_MATERIALIZATION'"
        )
        for key, at in rows:
            if began <= at <= ended:
                made[key].append(at)
    report.figure("materialized_assets", len(made))
    report.goal(
        "materializations_per_asset_per_min",
        max((len(times) for times in made.values()), default=0) / minutes,
        at_most=MATERIALIZATIONS_PER_MIN,
    )
    report.figure("materializations_in_busiest_min", max(map(busiest, made.values()), default=0))


def _fill_runs(report: Report, root: Path, began: float, ended: float) -> None:
    from dagster import RunsFilter

    with _instance(root) as instance:
        since = RunsFilter(created_after=datetime.fromtimestamp(began, UTC))
        counts = Counter(run.job_name for run in instance.get_runs(since))
    for name, count in counts.most_common():
        report.figure(f"runs_{name}_per_h", count / (ended - began) * 3600)


def _fill_processes(report: Report, watch: Watch, before: Watch, seconds: float) -> None:
    for role in dict.fromkeys(role for role, _ in ROLES):
        samples = watch.memory[role]
        report.figure(f"{role}_cores", (watch.cpu_s(role) - before.cpu_s(role)) / seconds)
        report.figure(f"{role}_mb", statistics.median(samples[-max(1, len(samples) // 4) :]))
        report.figure(f"{role}_peak_mb", max(samples))
        if role == "runs":
            continue
        share = growth_share(samples)
        if seconds >= FLAT_S:
            report.goal(f"{role}_growth_share", share, at_most=GROWTH_SHARE)
        else:
            report.figure(f"{role}_growth_share", share)
    if seconds < FLAT_S:
        report.note(f"memory is held to be flat only by runs of {FLAT_S:g} s or more")


def _role(command: str) -> str | None:
    return next((role for role, sign in ROLES if sign in command), None)


def _home(root: Path) -> Path:
    return root / "dagster"


def _history(root: Path) -> Path:
    return _home(root) / "history"


def _sizes(root: Path) -> dict[str, int]:
    """Bytes of Dagster's files: the event log (the index, and a database for each run), ticks, what runs printed."""
    parts = {"event_log": _history(root), "ticks": _home(root) / "schedules", "output": _home(root) / "storage"}
    return {name: sum(_size(path) for path in folder.rglob("*")) for name, folder in parts.items()}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:  # SQLite's own, gone meanwhile
        return 0


def _database(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=30)


def _events(root: Path, began: float, ended: float) -> tuple[Counter[str], Counter[str]]:
    """Events by type, and their bytes; each stands once in the database of its run (of none: ``.db``)."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for path in (_history(root) / "runs").iterdir():
        if not path.name.endswith(".db") or path.name == "index.db":
            continue
        with closing(_database(path)) as shard:
            rows = shard.execute(
                "SELECT coalesce(dagster_event_type, 'LOG_LINE'), count(*), sum(length(event)) FROM event_logs"
                " WHERE timestamp BETWEEN datetime(?, 'unixepoch') AND datetime(?, 'unixepoch') GROUP BY 1",
                [began, ended],
            )
            for kind, count, size in rows:
                counts[kind] += count
                sizes[kind] += size
    return counts, sizes


def _instance(root: Path) -> DagsterInstance:
    from dagster import DagsterInstance

    os.environ["DAGSTER_HOME"] = str(_home(root))
    return DagsterInstance.get()


def _ticks(root: Path, began: float, ended: float) -> dict[str, list[float]]:
    """Milliseconds that each sensor's ticks took. RuntimeError when one failed."""
    found: dict[str, list[float]] = {name: [] for name in SENSORS}
    with _instance(root) as instance:
        for state in instance.all_instigator_state():
            if state.instigator_name not in found:
                continue
            for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id, after=began):
                if tick.error is not None:
                    raise RuntimeError(f"a tick of {state.instigator_name} failed: {tick.error}")
                if tick.end_timestamp is not None and tick.timestamp <= ended:
                    found[state.instigator_name].append((tick.end_timestamp - tick.timestamp) * 1e3)
    return found


def _alone(root: Path) -> dict[str, list[float]]:
    """Milliseconds of CPU that the sensors' functions take here, on the running demo's lake and instance."""
    from dagster import build_sensor_context

    from headwater_dagster import HeadwaterResource, build_definitions

    definitions, resource = build_definitions(root), HeadwaterResource(project_dir=str(root))
    found: dict[str, list[float]] = {name: [] for name in SENSORS}
    with _instance(root) as instance:
        cursors = {
            each.instigator_name: getattr(each.instigator_data, "cursor", None)
            for each in instance.all_instigator_state()
        }
        for name, _ in itertools.product(SENSORS, range(ALONE)):
            with build_sensor_context(
                instance=instance, cursor=cursors.get(name), resources={"headwater": resource}
            ) as context:
                began = time.process_time()
                definitions.resolve_sensor_def(name).evaluate_tick(context)
                found[name].append((time.process_time() - began) * 1e3)
    return found


def _output(root: Path) -> Path:
    return root.with_suffix(".txt")


@contextmanager
def _demo(root: Path, rate: float) -> Iterator[subprocess.Popen[bytes]]:
    """A demo for the block; ended as by Ctrl-C."""
    argv = [
        sys.executable,
        "-m",
        "headwater.cli",
        "demo",
        str(root),
        "--no-browser",
        "--rate",
        str(rate),
        "--seed",
        "1",
    ]
    environment = os.environ | {"NO_COLOR": "1"}
    with _output(root).open("wb") as out:
        demo = subprocess.Popen(argv, stdout=out, stderr=out, env=environment, start_new_session=True)
    try:
        yield demo
    finally:
        demo.send_signal(signal.SIGINT)
        try:
            demo.wait(120)
        except subprocess.TimeoutExpired:
            demo.kill()
            demo.wait()


def _await_live(root: Path, demo: subprocess.Popen[bytes]) -> None:
    """Until Dagster's pages answer and all views are live."""
    say("waiting for the demo")
    deadline = time.monotonic() + START_S
    while demo.poll() is None and time.monotonic() < deadline:
        if _answers(_output(root).read_text()) and (root / "lake" / "live.sqlite").exists():
            with hw.open(root) as lake:
                views = lake.views()
                if views and all(view.state == "live" for view in views):
                    return
        time.sleep(0.5)
    raise RuntimeError(f"no live views: {_output(root).read_text()[-2000:]}")


def _answers(said: str) -> bool:
    found = re.search(r"dagster +(http://\S+)", said)
    if found is None:
        return False
    try:
        with urllib.request.urlopen(f"{found[1]}/server_info", timeout=5) as answer:
            return "dagster_version" in json.load(answer)
    except (urllib.error.URLError, OSError):
        return False


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=0.0, help=f"how long; {SECONDS:g} when left out")
    parser.add_argument("--rate", type=float, default=ROWS_PER_S, help="row changes per second in the shop")


if __name__ == "__main__":
    sys.exit(main())
