"""Maintenance in Dagster: each job run in this process on a real lake, each schedule evaluated without a daemon."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

import headwater as hw
from headwater.client.letters import DeadLetters
from headwater.config import Project
from headwater.lake import Lake
from headwater.log import dead_letters, seal
from headwater.ownership import own
from headwater_dagster import build_definitions, integrity, old_runs
from headwater_dagster.maintenance import key
from headwater_dagster.timetable import TIMETABLE
from headwater_pipelines.runtime import worker as views

from .conftest import Shop

DAY = 86_400.0
NAMES = [due.name for due in TIMETABLE]
OWNED = ["seal", "compact", "retain"]
AT_ONCE = "[settings]\ntime_travel_s = 0.001\nhistory_s = 0.001\nseal_commits = 1\n"
"""What is older than a millisecond is beyond its time."""
FINISHED, RUNNING = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.STARTED
NICE = """
import multiprocessing, os
from headwater_dagster.run_process import give_way

def run(found):
    give_way()
    found.put(os.nice(0))

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")  # as Dagster's code server starts its runs
    found = context.Queue()
    process = context.Process(target=run, args=[found])
    process.start()
    started = found.get()
    process.join()
    give_way()
    print(started, os.nice(0))
"""


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """What schedules ask for unfinished runs: it has none, unless a test makes one and ends it."""
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as made:
        yield made


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """On disk, as in a project: SQLite, with a file of its own for each run."""
    home = tmp_path / "dagster"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home)) as made:
        yield made


@cache
def definitions(root: Path) -> dg.Definitions:
    """Of a test's project; its settings are read anew by every run."""
    return build_definitions(root)


def run(project: Project, instance: dg.DagsterInstance, name: str, **config: Any) -> dg.ExecuteInProcessResult:
    job = definitions(project.root).resolve_job_def(f"maintenance_{name}")
    ops = {f"maintenance__{name}": {"config": config}} if config else {}
    done = job.execute_in_process(instance=instance, run_config={"ops": ops})
    assert done.success
    return done


def figures(done: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """The metadata of the one materialization."""
    (event,) = done.get_asset_materialization_events()
    return {name: value.value for name, value in event.step_materialization_data.materialization.metadata.items()}


def verdict(done: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (found,) = done.get_asset_check_evaluations()
    assert found.check_name == integrity.CHECK
    return found


def tick(project: Project, instance: dg.DagsterInstance, name: str) -> str:
    """Why the schedule skips; empty when it requests its run."""
    defs = definitions(project.root)
    schedule = defs.resolve_schedule_def(f"maintenance_{name}_schedule")
    with dg.build_schedule_context(instance=instance, resources=defs.resources) as context:
        data = schedule.evaluate_tick(context)
    assert len(data.run_requests or ()) + bool(data.skip_message) == 1
    return data.skip_message or ""


def at_once(shop: Shop) -> None:
    """Everything that can ever be due is due now, and no view waits for the log's beginning."""
    for name in ("large", "totals"):
        shop.log.drop_view(name)
    shop.project.file.write_text(shop.project.file.read_text() + AT_ONCE)


# ---- the jobs


def test_every_job_can_be_repeated_and_gives_figures(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.order()
    for name in NAMES * 2:
        found = figures(run(shop.project, instance, name))
        numbers = [value for value in found.values() if isinstance(value, int | float)]
        assert len(numbers) == len(found) > 1, f"{name}: nothing was wrong, so numbers alone"


def test_without_a_lake_every_job_passes_and_every_schedule_skips(
    project: Project, instance: dg.DagsterInstance, daemons: dg.DagsterInstance
) -> None:
    for due in TIMETABLE:
        done = run(project, instance, due.name)
        assert done.get_asset_check_evaluations() == []
        if due.needs_lake:
            assert done.get_asset_materialization_events() == []
            assert tick(project, daemons, due.name) == "the project has no lake yet"
    assert not project.lake_dir.exists()


def test_seal_writes_what_is_hot_once(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.order(30)
    assert figures(run(shop.project, instance, "seal"))["sealed"] == 0, "so few rows, so young, are not due"
    first = figures(run(shop.project, instance, "seal", force=True))
    assert (first["sealed"], first["busy"]) == (33, 0)
    assert seal.hot(shop.log).commits == 0
    assert (shop.project.lake_dir / "published" / "current.json").exists(), "readers without rights would not see it"
    assert figures(run(shop.project, instance, "seal", force=True))["sealed"] == 0


def test_compact_keeps_the_newest_of_each_key_once(shop: Shop, instance: dg.DagsterInstance) -> None:
    at_once(shop)
    with hw.open(shop.project.root) as lake:
        lake.create_topic("shop.events.stock", {"item": "BIGINT", "n": "BIGINT"}, key=["item"], cleanup="compact")
        with lake.producer() as producer:
            for number in range(20):
                producer.send("shop.events.stock", [{"item": number % 4, "n": number}])
                producer.flush()
    run(shop.project, instance, "seal", force=True)
    shop.order()  # the newest commit is never compacted
    run(shop.project, instance, "seal", force=True)
    assert figures(run(shop.project, instance, "compact"))["compacted"] == 16
    assert figures(run(shop.project, instance, "compact", force=True))["compacted"] == 0


def test_retain_removes_history_and_no_row_once(shop: Shop, instance: dg.DagsterInstance) -> None:
    at_once(shop)
    shop.order()
    run(shop.project, instance, "seal", force=True)
    stray = shop.project.lake_dir / "data" / "segments" / "1-0-0-abandoned.parquet"
    stray.write_bytes(b"of a writer that died")
    os.utime(stray, (1, 1))  # long ago
    first = figures(run(shop.project, instance, "retain"))
    assert first["retained"] > 0
    assert first["bytes"] > 0
    assert (first["orphans"], stray.exists()) == (1, False)
    assert figures(run(shop.project, instance, "retain"))["retained"] == 0
    with hw.open(shop.project.root) as lake:
        assert lake.sql("SELECT count(*) FROM orders").scalar() == 10
    assert verdict(run(shop.project, instance, "verify_deep")).passed


@pytest.mark.parametrize("name", OWNED)
def test_beside_another_process_nothing_is_done_and_said(shop: Shop, instance: dg.DagsterInstance, name: str) -> None:
    at_once(shop)
    shop.order()
    before = shop.log.newest_commit(), seal.hot(shop.log)
    with own(shop.log, "maintenance"):
        found = figures(run(shop.project, instance, name))
    assert found["busy"] == 1
    assert "maintenance is already running as process" in found["busy_with"]
    assert (shop.log.newest_commit(), seal.hot(shop.log).commits) == (before[0], before[1].commits)
    assert figures(run(shop.project, instance, name))["busy"] == 0


def test_compare_compares_every_view_once(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.order()
    views.run(shop.log, shop.project.settings, threading.Event(), until_caught_up=True)
    assert figures(run(shop.project, instance, "compare"))["compared"] == 2
    assert all(view["compared"]["whole_since"] for view in Lake(shop.log).status()["views"])
    assert figures(run(shop.project, instance, "compare"))["compared"] == 0, "none is due yet"


def test_a_run_gives_way_and_the_process_of_a_test_does_not(tmp_path: Path) -> None:
    script = tmp_path / "nice.py"
    script.write_text(NICE)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    own_run, mine = (int(each) for each in done.stdout.split())
    assert own_run == min(19, mine + 10), "there is no more than 19"


# ---- verify


@pytest.mark.parametrize("name", ["verify", "verify_deep"])
def test_a_damaged_file_fails_the_check_and_not_the_run(shop: Shop, instance: dg.DagsterInstance, name: str) -> None:
    shop.order()
    run(shop.project, instance, "seal", force=True)
    assert verdict(run(shop.project, instance, name)).passed
    (path, *_) = sorted((shop.project.lake_dir / "data" / "segments").glob("*.parquet"))
    right = path.read_bytes()
    path.write_bytes(right[:-1] if name == "verify" else right[:200] + bytes([right[200] ^ 1]) + right[201:])
    done = run(shop.project, instance, name)
    found = verdict(done)
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.ERROR
    assert path.name in (found.description or "")
    assert figures(done)["findings"] >= 1
    table = found.metadata["what_is_wrong"].value
    assert any(path.name in record.data["where"] for record in table.records)  # type: ignore[union-attr]
    path.write_bytes(right)
    assert verdict(run(shop.project, instance, name)).passed, "it is right again"


def test_the_check_can_be_executed_alone(shop: Shop, instance: dg.DagsterInstance) -> None:
    job = dg.define_asset_job("checks", selection=dg.AssetSelection.checks_for_assets(key("verify")))
    defs = dg.Definitions.merge(build_definitions(shop.project.root), dg.Definitions(jobs=[job]))
    done = defs.resolve_job_def("checks").execute_in_process(instance=instance)
    assert verdict(done).passed
    assert done.get_asset_materialization_events() == []


def test_verify_deep_ends_in_time_and_says_how_far_it_got(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.order()
    done = run(shop.project, instance, "verify_deep", max_seconds=0.0)
    found = verdict(done)
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "not through after 0 s" in (found.description or "")
    assert figures(done)["complete"] == 0


# ---- dead letters


def test_dead_letters_are_counted_by_topic_and_cause(shop: Shop, instance: dg.DagsterInstance) -> None:
    assert figures(run(shop.project, instance, "dead_letters"))["open"] == 0
    letters = {"original": [b"{}", b"[]", b"?"], "format": ["json"] * 3, "error_class": ["Bad", "Bad", "Worse"]}
    columns = pa.table({**letters, "original": pa.array(letters["original"], pa.binary())})
    with shop.log.transaction("source:shop", shop.epoch, shop.log.producer("source:shop").position) as tx:
        dead_letters.append(tx, "shop.public.orders", columns)
        tx.position = "0/FFFF"
        tx.commit()
    found = figures(run(shop.project, instance, "dead_letters"))
    assert (found["open"], found["redriven"], found["discarded"]) == (3, 0, 0)
    assert (found["topics_with_open"], found["causes"]) == (1, 2)
    assert [(row.data["topic"], row.data["cause"], row.data["open"]) for row in found["by_cause"].records] == [
        ("shop.public.orders", "Bad", 2),
        ("shop.public.orders", "Worse", 1),
    ]
    DeadLetters(shop.log).discard("shop.public.orders", reason="a test")
    found = figures(run(shop.project, instance, "dead_letters"))
    assert (found["open"], found["discarded"], found["topics_with_open"]) == (0, 3, 0)


# ---- old runs


def past(instance: dg.DagsterInstance, name: str, status: dg.DagsterRunStatus, days: float) -> str:
    """A run that last said something so long ago."""
    run_id = instance.add_run(dg.DagsterRun(job_name=name, run_id=str(uuid.uuid4()), status=status)).run_id
    age(instance, run_id, days)
    return run_id


def age(instance: dg.DagsterInstance, run_id: str, days: float) -> None:
    with sqlite3.connect(Path(instance.root_directory) / "history" / "runs.db") as connection:
        then = time.strftime("%Y-%m-%d %H:%M:%S.000000", time.gmtime(time.time() - days * DAY))
        connection.execute(
            "UPDATE runs SET create_timestamp = ?, update_timestamp = ? WHERE run_id = ?", (then, then, run_id)
        )
    connection.close()


def test_old_runs_go_with_their_files_and_what_is_needed_stays(shop: Shop, stored: dg.DagsterInstance) -> None:
    first = run(shop.project, stored, "verify").run_id
    second = run(shop.project, stored, "verify").run_id
    for each in (first, second):
        age(stored, each, 30)
    old = [past(stored, "stream", status, 30) for status in (FINISHED, dg.DagsterRunStatus.FAILURE)]
    young, unfinished = past(stored, "stream", FINISHED, 6.9), past(stored, "stream", RUNNING, 30)
    events = Path(stored.root_directory) / "history" / "runs" / f"{first}.db"
    output = Path(stored.root_directory) / "storage" / first
    assert events.exists()
    assert output.exists()
    mine = run(shop.project, stored, "runs")
    found = figures(mine)
    assert (found["removed"], found["beyond"]) == (3, 1)
    assert found["bytes"] > 100_000
    kept = {each.run_id for each in stored.get_runs()}
    assert kept == {second, young, unfinished, mine.run_id}, "of verify the newest materialization is shown"
    assert not kept & {first, *old}
    assert not events.exists()
    assert not output.exists()
    assert [e.run_id for e in [stored.get_latest_materialization_event(key("verify"))] if e] == [second]
    assert figures(run(shop.project, stored, "runs"))["removed"] == 0


def test_old_runs_are_removed_so_many_at_a_time_the_oldest_first(stored: dg.DagsterInstance) -> None:
    made = [past(stored, "stream", FINISHED, 40 - number) for number in range(5)]
    first = old_runs.remove(stored, 7 * DAY, runs_max=2)
    assert (first.removed, first.beyond) == (2, 3)
    assert {each.run_id for each in stored.get_runs()} == set(made[2:])
    assert old_runs.remove(stored, 7 * DAY, seconds_max=0.0).removed == 0, "its time is over before it begins"


# ---- schedules


def test_every_schedule_runs_by_itself_in_the_lakes_zone(shop: Shop, daemons: dg.DagsterInstance) -> None:
    shop.project.file.write_text(shop.project.file.read_text() + '[settings]\ntimezone = "Europe/Zurich"\n')
    defs = build_definitions(shop.project.root)
    for due in TIMETABLE:
        schedule = defs.resolve_schedule_def(f"maintenance_{due.name}_schedule")
        assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
        assert schedule.execution_timezone == "Europe/Zurich"
        assert float(defs.resolve_job_def(due.job).tags["dagster/max_runtime"]) > 0
        assert tick(shop.project, daemons, due.name) == ""


def test_beside_a_maintenance_process_schedules_leave_files_to_it(shop: Shop, daemons: dg.DagsterInstance) -> None:
    shop.log.live.beat("maintenance", state="running", error=None)
    skipped = {name for name in NAMES if "the maintenance process" in tick(shop.project, daemons, name)}
    assert skipped == {*OWNED, "compare"}


def test_no_second_run_queues_behind_one_that_takes_long(shop: Shop, daemons: dg.DagsterInstance) -> None:
    running = dg.DagsterRun(job_name="maintenance_verify_deep", run_id=str(uuid.uuid4()), status=RUNNING)
    daemons.add_run(running)
    assert tick(shop.project, daemons, "verify_deep") == f"run {running.run_id} is at it: STARTED"
    assert tick(shop.project, daemons, "verify") == ""
    daemons.report_run_canceled(running)
    assert tick(shop.project, daemons, "verify_deep") == ""
