"""Named and held positions as a reader uses them, and writing that stops before the disk is full."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from headwater.catalog.records import to_micros
from headwater.config import Settings
from headwater.errors import DiskLow, DuplicateName, NameNotFound, NotYet, UsageError
from headwater.lake import Lake, open_lake
from headwater.log import Log, incidents, leases, open_log, recovery, seal, tags
from headwater.maintenance import OWNER, housekeep
from headwater.ownership import own
from headwater.schema import Schema
from headwater.testing.writer import Writer


def printed(command: Path, *arguments: str, cwd: Path) -> str:
    """The command as a person runs it; what it printed."""
    argv = [str(command), *arguments]
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=60, check=True).stdout


EVENTS = Schema.of({"id": "BIGINT"}, key=["id"])


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Lake]:
    with open_log(tmp_path / "lake", create=True) as log:
        writer = Writer(log)
        writer.create("shop.public.t", "table", EVENTS)
        for number in range(3):
            writer.write("shop.public.t", pa.table({"id": [number], "_op": ["c"]}))
    with open_lake(tmp_path / "lake") as lake:
        yield lake


def test_a_tag_is_a_position(filled: Lake) -> None:
    made = filled.tag("before.cleanup", at=2, description="two rows too few")
    assert (made.commit, filled.tags()) == (2, [made])
    assert filled.sql("SELECT count(*) FROM t", at="tag:before.cleanup").scalar() == 1
    assert filled.sql("SELECT count(*) FROM t").scalar() == 3
    with pytest.raises(DuplicateName):
        filled.tag("before.cleanup")
    filled.drop_tag("before.cleanup")
    with pytest.raises(NameNotFound):
        filled.sql("SELECT 1 FROM t", at="tag:before.cleanup")


def test_a_tag_ends_when_it_expires(filled: Lake) -> None:
    soon = datetime.now(UTC) + timedelta(days=1)
    filled.tag("shorter", expires=soon)
    with pytest.raises(NameNotFound, match="shorter"):
        filled.sql("SELECT 1 FROM t", at="tag:short")
    with filled.log.catalog.read() as connection:
        assert tags.held(connection, to_micros(soon) - 1)
        assert tags.held(connection, to_micros(soon)) == []
    with pytest.raises(UsageError, match="past"):
        filled.tag("late", expires=datetime.now(UTC) - timedelta(seconds=1))


@pytest.mark.parametrize(("name", "at", "error"), [("a b", 1, UsageError), ("x", 99, NotYet), ("", 1, UsageError)])
def test_what_cannot_be_a_tag(filled: Lake, name: str, at: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        filled.tag(name, at=at)


def test_a_pinned_lake_holds_its_position_until_it_is_closed(filled: Lake) -> None:
    log = filled.log
    pinned = filled.at(2)
    assert leases.oldest_commit(log) == 2
    pinned.close()
    assert leases.oldest_commit(log) is None
    assert filled.sql("SELECT count(*) FROM t").scalar() == 3
    forgotten = filled.at(3)
    assert leases.oldest_commit(log) == 3
    del forgotten
    assert leases.oldest_commit(log) is None


def test_a_file_that_left_the_catalog_waits_for_whoever_came_before(filled: Lake) -> None:
    log = filled.log
    with leases.Lease(log, expires_s=60):
        seal.seal(log, Settings())
        assert recovery.remove_retired(log, grace_s=0) == 0
    assert recovery.remove_retired(log, grace_s=0) == 3


def test_the_tag_command(filled: Lake, command: Path, tmp_path: Path) -> None:
    (tmp_path / "headwater.toml").write_text('[project]\nname = "shop"\nlake = "lake"\n')
    made = json.loads(
        printed(command, "tag", "create", "q3", "--at", "commit:2", "--days", "7", "--json", cwd=tmp_path)
    )
    assert (made["name"], made["commit"]) == ("q3", 2)
    listed = json.loads(printed(command, "tag", "list", "--json", cwd=tmp_path))
    assert listed == {"tags": [made]}
    assert "q3" in printed(command, "tag", "list", cwd=tmp_path)
    printed(command, "tag", "drop", "q3", cwd=tmp_path)
    assert filled.tags() == []


# ---- room on the disk


def test_writes_are_refused_above_the_budget_and_reading_goes_on(filled: Lake) -> None:
    log = filled.log
    filled.tag("old", at=2)
    tight = replace(Settings(), disk_bytes_max=1, file_grace_s=0)
    assert housekeep(log, tight)["bytes"] > 1
    writer = Writer(log)
    with pytest.raises(DiskLow, match="tag old"):
        writer.write("shop.public.t", pa.table({"id": [9], "_op": ["c"]}))
    assert filled.sql("SELECT count(*) FROM t").scalar() == 3
    assert seal.seal(log, Settings()) == 3  # what makes room goes on
    assert log.newest_commit() == 4
    assert housekeep(log, replace(tight, disk_bytes_max=10**9))["bytes"] > 0
    writer.write("shop.public.t", pa.table({"id": [9], "_op": ["c"]}))
    assert filled.sql("SELECT count(*) FROM t").scalar() == 4
    assert [each.kind for each in incidents.newest(log)] == ["writes_accepted", "writes_refused"]


def test_writes_are_refused_below_the_low_water(filled: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    found = os.statvfs(filled.log.folder)
    full = os.statvfs_result([*found[:4], 10, *found[5:]])
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    with pytest.raises(DiskLow, match="are free"):
        Writer(filled.log).write("shop.public.t", pa.table({"id": [9], "_op": ["c"]}))
    assert filled.sql("SELECT count(*) FROM t").scalar() == 3


def test_one_process_keeps_house(log: Log) -> None:
    with own(log, OWNER):
        assert set(housekeep(log, Settings()).values()) == {0}
