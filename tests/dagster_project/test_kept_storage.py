"""Dagster's SQLite files with connections that are kept: what is said is there for everybody, few files stay open."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite.sqlite_schedule_storage import SqliteScheduleStorage
from dagster._core.storage.sql import check_alembic_revision

from headwater_dagster import storage
from headwater_dagster.instance import write_instance

SAID = dg.AssetKey("a")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    return write_instance(tmp_path).parent


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(home)) as made:
        yield made


def say(instance: dg.DagsterInstance, number: int) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization(SAID, metadata={"rows": number}))


def said(instance: dg.DagsterInstance) -> list[object]:
    """Newest first."""
    found = instance.fetch_materializations(SAID, limit=10_000).records
    return [each.asset_materialization.metadata["rows"].value for each in found if each.asset_materialization]


def opened(folder: Path) -> list[str]:
    """Names of the database files below ``folder`` that this process has open; once for each time."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            path = each.readlink()
        except FileNotFoundError:  # the folder's own
            continue
        if path.is_relative_to(folder) and path.suffix == ".db":
            found.append(path.name)
    return found


def test_the_instance_that_is_written_keeps_connections(instance: dg.DagsterInstance, home: Path) -> None:
    assert isinstance(instance.event_log_storage, storage.Events)
    assert isinstance(instance.run_storage, storage.Runs)
    assert isinstance(instance.schedule_storage, storage.Schedules)
    for number in range(3):
        say(instance, number)
    kept = sorted(opened(home))
    for number in range(3, 10):
        say(instance, number)
    assert sorted(opened(home)) == kept
    assert said(instance) == [*reversed(range(10))]


def test_what_is_kept_open_stays_small(instance: dg.DagsterInstance, home: Path) -> None:
    for number in range(150):
        say(instance, number)
    sizes = {each.name: each.stat().st_size for each in home.rglob("*.db-wal")}
    assert sizes
    assert max(sizes.values()) < 3 * storage.WAL_PAGES * 4096, sizes


def test_no_commit_waits_for_the_disk(instance: dg.DagsterInstance) -> None:
    assert isinstance(instance.event_log_storage, storage.Events)
    with instance.event_log_storage.index_connection() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal", "without one, it would have to"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1


def test_whether_tables_are_there_is_asked_once(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[str]()

    def look(connection: Any) -> Any:
        asked.append("of events")
        return sqlalchemy.inspect(connection)

    def find(*given: Any) -> bool:
        asked.append("of ticks")
        return has_index(*given)

    has_index = SqliteScheduleStorage.has_built_index
    monkeypatch.setattr(storage, "inspect", look)
    monkeypatch.setattr(SqliteScheduleStorage, "has_built_index", find)
    for _ in range(5):
        evaluation = dg.AssetCheckEvaluation(asset_key=SAID, check_name="small", passed=True)
        instance.report_runless_asset_event(evaluation)
        assert instance.get_instigator_state("none", "none") is None
    assert asked.count("of events") <= 1
    assert asked.count("of ticks") <= 1


def test_dagsters_own_storage_reads_what_was_said(home: Path) -> None:
    with dg.DagsterInstance.get() as kept:
        say(kept, 1)
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        with dg.DagsterInstance.get() as plain:
            assert not isinstance(plain.event_log_storage, storage.Events)
            assert said(plain) == [1]
            say(plain, 2)
        assert said(kept) == [2, 1]


def test_processes_write_beside_each_other(instance: dg.DagsterInstance) -> None:
    code = (
        "import dagster as dg\n"
        "with dg.DagsterInstance.get() as instance:\n"
        "    for number in range(50):\n"
        "        instance.report_runless_asset_event(dg.AssetMaterialization('a', metadata={'rows': number}))\n"
    )
    others = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    own, deadline = 0, time.monotonic() + 60
    while any(other.poll() is None for other in others) and time.monotonic() < deadline:
        say(instance, own := own - 1)
    assert [other.returncode for other in others] == [0, 0]
    assert sorted(map(int, map(str, said(instance)))) == sorted([*range(50)] * 2 + [*range(own, 0)])


def test_few_files_stay_open(instance: dg.DagsterInstance, home: Path) -> None:
    """Each run has a file of its own; whoever looks at many opens many."""
    for number in range(3 * storage.FILES_MAX):
        run_id = instance.create_run_for_job(_job).run_id
        instance.report_engine_event(f"begun {number}", run_id=run_id, job_name="_job")
        assert [each.message for each in instance.all_logs(run_id)] == [f"begun {number}"]
    files = opened(home / "history" / "runs")
    assert 0 < len(files) <= storage.FILES_MAX


def test_migrations_are_looked_at_once_for_each_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Any] = []

    def look(*given: Any) -> Any:
        looked.append(given)
        return check_alembic_revision(*given)

    monkeypatch.setattr(sqlite_run_storage, "check_alembic_revision", look)
    for _ in range(2):
        with dg.DagsterInstance.get() as instance:
            instance.create_run_for_job(_job)
    assert len(looked) == 1
    for file in (home / "history").glob("runs.db*"):
        file.unlink()
    with dg.DagsterInstance.get() as instance:
        assert instance.get_runs() == []
        instance.create_run_for_job(_job)
        assert len(instance.get_runs()) == 1
    assert len(looked) == 2


def test_a_history_that_another_process_wiped_begins_anew(instance: dg.DagsterInstance) -> None:
    run_id = instance.create_run_for_job(_job).run_id
    say(instance, 1)
    instance.report_engine_event("before", run_id=run_id, job_name="_job")
    wipe = "import dagster as dg\nwith dg.DagsterInstance.get() as instance: instance.wipe()"
    subprocess.run([sys.executable, "-c", wipe], check=True, timeout=60)
    assert said(instance) == []
    say(instance, 2)
    instance.report_engine_event("after", run_id=run_id, job_name="_job")
    with dg.DagsterInstance.get() as other:
        assert said(other) == [2]
        assert [each.message for each in other.all_logs(run_id)] == ["after"], "in the file that others find"


@dg.job
def _job() -> None:
    pass
