"""Restoring a backup, or going on from an older catalog: from then on it is another copy of the lake.

A restored copy has a new incarnation and raised epochs, so that whoever still holds something of the old one (an
owner, a pipeline's state, a producer's position) is refused and cannot write into the past unnoticed.
"""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from sqlalchemy import Connection, func, select, update

from headwater.catalog import tables
from headwater.catalog.catalog import FILE, Catalog, new_incarnation, put_setting
from headwater.clock import SystemClock
from headwater.errors import CorruptFile, UsageError
from headwater.failpoint import hit
from headwater.log import chain, incidents, witness
from headwater.log.backup import File, Manifest, Progress, copy_checked, read_manifest
from headwater.log.log import FOLDERS, open_log
from headwater.storage.local import named_errors, refuse_remote, sync_folder


def restore(source: Path, lake: Path, *, on_progress: Progress | None = None) -> Manifest:
    """Make the lake folder ``lake`` from the backup in ``source``, every byte checked.

    It appears whole or not at all. UsageError when something is there already; CorruptFile when the backup's
    bytes are not the ones that its manifest names (files that were damaged when they were backed up are not
    meant: they are restored as they are, in quarantine).
    """
    manifest, lake = read_manifest(source), lake.resolve()
    if lake.exists() and (not lake.is_dir() or any(lake.iterdir())):
        raise UsageError(f"{lake} is not empty", todo="Restore into a new project, or move that folder away first.")
    draft = lake.with_name(f".{lake.name}.restoring-{uuid.uuid4().hex[:8]}")
    with named_errors(str(lake)):
        draft.mkdir(parents=True)
    refuse_remote(draft)
    try:
        _copy(source, draft, manifest, on_progress)
        with open_log(draft, create=True) as log:  # brings an older catalog forward
            _renew(log.catalog, f"restored from a backup at commit {manifest.position}, made {manifest.time}")
        hit("restore.rename:before")
        with named_errors(str(lake)):
            if lake.exists():
                lake.rmdir()
            draft.rename(lake)
        sync_folder(lake.parent)
        hit("restore.rename:after")
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return manifest


def accept_older(lake: Path) -> int:
    """Go on from a catalog that is behind its witness; returns the commit it ends at.

    What came after it is lost, and the files of it will be removed as orphans.
    """
    catalog = Catalog(lake)
    try:
        stored = witness.read(lake)
        beyond = f" instead of {stored.commit}" if stored else ""
        _renew(catalog, f"went on from an older catalog{beyond}, as was asked for")
        return witness.of(catalog).commit
    finally:
        catalog.close()


def _renew(catalog: Catalog, what: str) -> None:
    """Another incarnation: fence everyone, forget private state, and say so in chain and incidents."""
    now = SystemClock().now_us()
    with catalog.write() as connection:
        newest = connection.execute(select(func.max(tables.commit.c.number))).scalar_one_or_none() or 0
        incarnation = new_incarnation()
        chain.append(connection, "restore", number=newest, time=now, producer="headwater", position=incarnation)
        put_setting(connection, "incarnation", incarnation)
        _raise_epochs(connection)
        incidents.append(connection, "restored", f"commit {newest}", what, now)
    shutil.rmtree(catalog.folder / "state", ignore_errors=True)
    (catalog.folder / "state").mkdir()
    witness.write(catalog)


def _raise_epochs(connection: Connection) -> None:
    connection.execute(update(tables.producer).values(epoch=tables.producer.c.epoch + 1))


def _copy(source: Path, draft: Path, manifest: Manifest, on_progress: Progress | None) -> None:
    done = 0
    for file in (manifest.catalog, *manifest.files):
        name = FILE if file is manifest.catalog else file.path
        _copy_one(source, draft / name, file)
        done += file.bytes
        if on_progress is not None:
            on_progress(done, manifest.bytes)
    for name in FOLDERS:
        (draft / name).mkdir(parents=True, exist_ok=True)
    for folder in {path.parent for path in draft.rglob("*")}:
        sync_folder(folder)


def _copy_one(source: Path, target: Path, file: File) -> None:
    if copy_checked(source / file.path, target, file) != file.digest:
        todo = "This backup is damaged; use another one."
        raise CorruptFile("a file of the backup has changed since it was written", where=file.path, todo=todo)
