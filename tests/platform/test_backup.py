"""Backups at one position, whole or not there; restored copies and older ones are told from the lake they come from."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import threading
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headwater import failpoint, maintenance
from headwater.catalog import published
from headwater.config import Settings
from headwater.errors import CatalogError, CorruptFile, Fenced, StorageError, UsageError
from headwater.lake import Lake, open_lake
from headwater.log import Log, base, incidents, open_log, recovery, seal, verify, witness
from headwater.log.backup import MANIFEST, backup, read_manifest
from headwater.log.proof import prove
from headwater.log.restore import accept_older, restore
from headwater.schema import Schema
from headwater.testing.changes import KeyedHistory
from headwater.testing.forks import FORKS
from headwater.testing.writer import SOURCE, Writer

TOPIC = "shop.public.t"
NOBODY = 65534


def fill(log: Log, seed: int = 1, commits: int = 4) -> Counter[tuple[Any, ...]]:
    """A keyed table in both tiers with a base; the rows that it has."""
    history, writer = KeyedHistory(seed), Writer(log)
    if not log.topics():
        writer.create(TOPIC, "table", KeyedHistory.schema, partitions=2)
    for number in range(commits):
        writer.write(TOPIC, history.commit(), position=str(number + 1))
        if number == commits // 2:
            seal.seal(log, Settings())
            base.write(log, log.topic(TOPIC), log.newest_commit(), Settings())
    return Counter(history.expected())


def add(log: Log, key: int, writer: Writer | None = None) -> None:
    columns = {field.name: pa.nulls(1, field.type) for field in KeyedHistory.schema.arrow()}
    (writer or Writer(log)).write(TOPIC, pa.table({**columns, "a": [key], "b": ["new"], "_op": ["c"]}))


def rows(folder: Path) -> Counter[tuple[Any, ...]]:
    with open_lake(folder) as lake:
        return Counter(lake.sql("SELECT * FROM t").fetchall())


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_ino, path.stat().st_size)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_restored_backup_answers_as_the_lake_did(log: Log, tmp_path: Path, seed: int) -> None:
    expected = fill(log, seed)
    said: list[tuple[int, int]] = []
    done = backup(log, tmp_path / "backup", on_progress=lambda *progress: said.append(progress))
    assert (done.manifest.position, done.manifest.incarnation) == (log.newest_commit(), log.incarnation)
    assert said[-1][0] == said[-1][1] == sum(file.bytes for file in done.manifest.files)
    add(log, 1000)
    with contextlib.chdir(tmp_path):  # folders as people give them
        assert backup(log, Path("relative")).manifest.position == log.newest_commit()
        restore(Path("backup"), Path("new") / "lake")
    assert rows(tmp_path / "new" / "lake") == expected
    with open_log(tmp_path / "new" / "lake") as restored:
        assert verify.verify(restored, deep=True).findings == ()
        assert prove(restored).findings == []
        assert restored.newest_commit() == done.manifest.position
        assert incidents.newest(restored)[0].kind == "restored"
        fill(restored, seed + 1)
        assert verify.verify(restored, deep=True).findings == ()


def test_the_next_backup_copies_what_is_new_and_drops_what_has_gone(log: Log, tmp_path: Path) -> None:
    fill(log)
    first = backup(log, tmp_path / "backup")
    assert backup(log, tmp_path / "backup").copied == 0
    add(log, 1000)
    before = tree(tmp_path / "backup" / "data")
    second = backup(log, tmp_path / "backup")
    after = tree(tmp_path / "backup" / "data")
    assert 0 < second.copied < first.copied
    assert all(after[name] == place for name, place in before.items()), "files that were there were not written again"
    seal.seal(log, Settings())
    third = backup(log, tmp_path / "backup").manifest
    assert set(tree(tmp_path / "backup")) == {MANIFEST, third.catalog.path, *(file.path for file in third.files)}
    assert not any(path.startswith("data/hot") for path in tree(tmp_path / "backup"))
    restore(tmp_path / "backup", tmp_path / "new")
    assert rows(tmp_path / "new") == rows(log.folder)


def test_a_file_that_rotted_in_the_backup_is_copied_again(log: Log, tmp_path: Path) -> None:
    fill(log)
    manifest = backup(log, tmp_path / "backup").manifest
    for file in manifest.files:
        flip(tmp_path / "backup" / file.path)
    assert backup(log, tmp_path / "backup").copied == sum(file.bytes for file in manifest.files)
    restore(tmp_path / "backup", tmp_path / "new")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(data)


def test_a_damaged_backup_is_never_restored(log: Log, tmp_path: Path) -> None:
    fill(log)
    manifest = backup(log, tmp_path / "backup").manifest
    for file in (manifest.catalog, *manifest.files[:3]):
        path = tmp_path / "backup" / file.path
        whole = path.read_bytes()
        flip(path)
        with pytest.raises(CorruptFile, match="use another one"):
            restore(tmp_path / "backup", tmp_path / "new")
        path.write_bytes(whole)
    assert not (tmp_path / "new").exists()
    assert [path.name for path in tmp_path.iterdir() if "restoring" in path.name] == []


def test_damage_in_the_lake_stops_a_backup_unless_it_is_asked_for(log: Log, tmp_path: Path) -> None:
    fill(log)
    whole = backup(log, tmp_path / "backup").manifest
    add(log, 1000)
    with log.catalog.read() as connection:
        query = "SELECT path FROM file WHERE id = (SELECT max(file) FROM batch)"
        hot = log.storage.path(connection.exec_driver_sql(query).scalar_one())
    flip(hot)
    with pytest.raises(CorruptFile, match="--damaged"):
        backup(log, tmp_path / "backup")
    assert read_manifest(tmp_path / "backup") == whole, "the earlier one is untouched"
    restore(tmp_path / "backup", tmp_path / "earlier")
    manifest = backup(log, tmp_path / "backup", damaged=True).manifest
    assert manifest.damaged == (hot.relative_to(log.folder).as_posix(),)
    restore(tmp_path / "backup", tmp_path / "new")
    with open_log(tmp_path / "new") as restored:
        assert [finding.where for finding in verify.verify(restored, deep=True).findings] == list(manifest.damaged)


def test_files_that_leave_the_lake_during_a_backup_stay_for_it(log: Log, tmp_path: Path) -> None:
    fill(log)
    expected = rows(log.folder)

    def meanwhile(_done: int, _total: int) -> None:
        seal.seal(log, Settings())
        recovery.remove_retired(log, grace_s=-1)

    backup(log, tmp_path / "backup", on_progress=meanwhile)
    assert recovery.remove_retired(log, grace_s=-1) > 0, "the lease has ended with the backup"
    restore(tmp_path / "backup", tmp_path / "new")
    assert rows(tmp_path / "new") == expected


def test_a_backup_beside_writers_is_of_one_position(log: Log, tmp_path: Path) -> None:
    fill(log)
    stop = threading.Event()

    def write() -> None:
        with open_log(log.folder) as mine:
            key = 2000
            while not stop.is_set():
                add(mine, key)
                key += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        while log.newest_commit() < 10:
            log.wait(log.newest_commit(), 1)
        position = backup(log, tmp_path / "backup").manifest.position
    finally:
        stop.set()
        thread.join()
    restore(tmp_path / "backup", tmp_path / "new")
    with open_lake(log.folder) as lake, open_lake(tmp_path / "new") as restored:
        assert restored.position() == position
        assert Counter(restored.sql("SELECT * FROM t").fetchall()) == Counter(
            lake.sql("SELECT * FROM t", at=position).fetchall()
        )


def test_a_backup_goes_to_a_place_of_its_own(log: Log, tmp_path: Path, make_log: Any) -> None:
    fill(log)
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "headwater.toml").touch()
    other = make_log()
    fill(other)
    backup(other, tmp_path / "theirs")
    before = tree(tmp_path / "theirs")
    for place in (log.folder, log.folder / "backup", tmp_path / "project", tmp_path / "theirs"):
        with pytest.raises(UsageError):
            backup(log, place)
    assert tree(tmp_path / "theirs") == before


def test_nothing_is_restored_over_something(log: Log, tmp_path: Path) -> None:
    fill(log)
    backup(log, tmp_path / "backup")
    before = rows(log.folder)
    with pytest.raises(UsageError, match="not empty"):
        restore(tmp_path / "backup", log.folder)
    assert rows(log.folder) == before
    with pytest.raises(StorageError, match="no whole backup"):
        restore(tmp_path, tmp_path / "new")
    (tmp_path / "empty").mkdir()
    restore(tmp_path / "backup", tmp_path / "empty")


# ---- killed on the way


def back_up(lake: Path, target: Path, plan: str) -> None:
    with open_log(lake) as log:
        failpoint.follow(plan)
        backup(log, target)


def bring_back(source: Path, lake: Path, plan: str) -> None:
    failpoint.follow(plan)
    restore(source, lake)


def run(work: Any, *arguments: Any) -> int | None:
    process = FORKS.Process(target=work, args=arguments, daemon=True)
    process.start()
    process.join(60)
    return process.exitcode


@pytest.mark.parametrize(
    "point", [pytest.param("backup.fsync:before:2", marks=pytest.mark.long), "backup.manifest:before:1"]
)
def test_a_killed_backup_leaves_the_one_before_it_whole(log: Log, tmp_path: Path, point: str) -> None:
    first = fill(log)
    backup(log, tmp_path / "backup")
    shutil.copytree(tmp_path / "backup", tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "data" / "segments")
    (tmp_path / "killed" / MANIFEST).unlink()
    assert run(back_up, log.folder, tmp_path / "killed", f"kill:{point}") == -signal.SIGKILL
    with pytest.raises(StorageError, match="no whole backup"):
        restore(tmp_path / "killed", tmp_path / "new")
    for key in range(3):  # a later one that is killed, over one that is whole
        add(log, 1000 + key)
    assert run(back_up, log.folder, tmp_path / "backup", f"kill:{point}") == -signal.SIGKILL
    restore(tmp_path / "backup", tmp_path / "first")
    assert rows(tmp_path / "first") == first
    for folder in ("backup", "killed"):
        backup(log, tmp_path / folder)
        restore(tmp_path / folder, tmp_path / f"{folder}-restored")
        assert rows(tmp_path / f"{folder}-restored") == rows(log.folder)


@pytest.mark.parametrize(
    "point", [pytest.param("backup.fsync:before:2", marks=pytest.mark.long), "restore.rename:before:1"]
)
def test_a_killed_restore_leaves_no_lake(log: Log, tmp_path: Path, point: str) -> None:
    expected = fill(log)
    backup(log, tmp_path / "backup")
    assert run(bring_back, tmp_path / "backup", tmp_path / "new", f"kill:{point}") == -signal.SIGKILL
    assert not (tmp_path / "new").exists()
    restore(tmp_path / "backup", tmp_path / "new")
    assert rows(tmp_path / "new") == expected


# ---- older copies are told


def test_who_owned_the_lake_before_is_fenced_in_the_restored_copy(log: Log, tmp_path: Path) -> None:
    fill(log)
    old = Writer(log)
    backup(log, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "new")
    with open_log(tmp_path / "new") as restored:
        assert restored.incarnation != log.incarnation
        position = restored.producer(SOURCE).position
        with restored.transaction(SOURCE, old.epoch, position) as tx, pytest.raises(Fenced):
            tx.commit()
        assert list((tmp_path / "new" / "state").iterdir()) == []


def catalog_files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("catalog.sqlite*") if path.suffix != ".sqlite-shm"]


def older_over_newer(log: Log, tmp_path: Path) -> int:
    """Copy a catalog away, write on, and copy it back; returns the commit that it ends at."""
    fill(log)
    writer = Writer(log)  # so that no epoch tells the two apart
    with sqlite3.connect(log.folder / "catalog.sqlite") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    shutil.copy(log.folder / "catalog.sqlite", tmp_path / "older.sqlite")
    position = log.newest_commit()
    add(log, 1000, writer)
    log.close()
    for path in log.folder.glob("catalog.sqlite*"):
        path.unlink()
    shutil.copy(tmp_path / "older.sqlite", log.folder / "catalog.sqlite")
    return position


def test_an_older_catalog_copied_over_a_newer_one_is_refused(log: Log, tmp_path: Path) -> None:
    position = older_over_newer(log, tmp_path)
    for create in (False, True):
        with pytest.raises(CatalogError, match="accept-older") as raised:
            open_log(log.folder, create=create)
        assert f"ends at commit {position}, and commit {position + 1} was here" in str(raised.value)
    old = witness.read(log.folder)
    assert old is not None
    assert accept_older(log.folder) == position
    with open_log(log.folder, create=True) as accepted:
        assert accepted.incarnation != old.incarnation
        assert accepted.newest_commit() == position
        add(accepted, 3000)
        recovery.remove_orphans(accepted, grace_s=-1)
        assert verify.verify(accepted, deep=True).findings == ()
    assert not any(row[0] == 1000 for row in rows(log.folder))


def test_maintenance_keeps_the_witness_of_writers_that_are_killed(log: Log) -> None:
    fill(log)
    maintenance.run_once(log, Settings(), force=True)
    assert witness.read(log.folder) == witness.of(log.catalog)


def test_a_broken_witness_is_none(log: Log) -> None:
    fill(log)
    log.close()
    (log.folder / witness.FILE).write_text("{")
    open_log(log.folder).close()


def test_another_copys_catalog_is_refused(log: Log, make_log: Any) -> None:
    fill(log)
    other = make_log()
    fill(other)
    log.close()
    for path in log.folder.glob("catalog.sqlite*"):
        path.unlink()
    published.copy(other.folder, log.folder / "catalog.sqlite")
    with pytest.raises(CatalogError, match="another copy"):
        open_log(log.folder)


# ---- readers that may not write


def as_nobody(work: Any, *arguments: Any) -> Any:
    """What ``work`` returns in a process that has dropped every right of its user."""
    receive, send = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=_drop_rights, args=(send, work, *arguments), daemon=True)
    process.start()
    send.close()
    found = receive.recv()
    process.join(30)
    assert process.exitcode == 0
    return found


def _drop_rights(send: Connection, work: Any, *arguments: Any) -> None:
    work(*arguments, read_only=True)  # whatever is imported late: the other user may not read our packages
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    send.send(work(*arguments))


def read_all(folder: Path, read_only: bool | None = None) -> tuple[bool, int, int, str]:
    with open_log(folder, read_only=read_only) as log, Lake(log) as lake:
        said = ""
        try:
            log.set_setting("a", "b")
        except CatalogError as error:
            said = str(error)
        table = log.read_changes(TOPIC, 0, log.newest_commit())
        assert len(lake.sql("SELECT * FROM t")) == lake.sql("SELECT count(*) FROM t").scalar()
        return log.read_only, log.newest_commit(), table.num_rows, said


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A lake folder that everyone may enter and nobody else may write."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    return tmp_path / "lake"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_user_who_may_not_write_reads_the_published_catalog(shared: Path) -> None:
    with open_log(shared, create=True) as log:
        fill(log)
        position = log.newest_commit()
        published.publish(log.folder, position)
        records = log.read_changes(TOPIC, 0, position).num_rows
        add(log, 1000)
        read_only, newest, found, said = as_nobody(read_all, shared)
    assert (read_only, newest, found) == (True, position, records)
    assert "for reading only" in said


def test_a_read_only_lake_follows_what_is_published(log: Log) -> None:
    expected = fill(log)
    with pytest.raises(CatalogError, match="no published catalog"):
        open_log(log.folder, read_only=True)
    published.publish(log.folder, log.newest_commit())
    with open_log(log.folder, read_only=True) as reader:
        before = reader.newest_commit()
        add(log, 1000)
        seal.seal(log, Settings())
        assert reader.newest_commit() == before, "as of the copy"
        published.publish(log.folder, log.newest_commit())
        assert reader.wait(before, 10) == log.newest_commit()
        assert sum(expected.values()) + 1 == len(rows_of(reader))
        for _ in range(4):
            published.publish(log.folder, log.newest_commit())
        assert len(list((log.folder / published.FOLDER).glob("catalog-*"))) == published.KEPT


def test_the_catalog_is_published_when_it_changed(log: Log) -> None:
    publisher = maintenance.Publisher(log)
    assert publisher.publish()
    assert not publisher.publish(now=True), "nothing has changed"
    fill(log, commits=1)
    assert not publisher.publish(), "not so soon"
    assert publisher.publish(now=True)


def rows_of(log: Log) -> list[Any]:
    return Lake(log).sql("SELECT * FROM t").fetchall()


def test_a_manifest_is_one_documented_object(log: Log, tmp_path: Path) -> None:
    fill(log)
    backup(log, tmp_path / "backup")
    found = json.loads((tmp_path / "backup" / MANIFEST).read_text())
    assert set(found) == {"position", "time", "incarnation", "catalog_version", "catalog", "files", "damaged"}


def test_a_schema_is_restored_with_its_fields(log: Log, tmp_path: Path) -> None:
    writer = Writer(log)
    writer.create("shop.public.e", "event", Schema.of(id="BIGINT", what="VARCHAR"))
    backup(log, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "new")
    with open_log(tmp_path / "new") as restored:
        assert restored.topic("e").schema == log.topic("e").schema
