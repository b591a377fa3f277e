"""Backups: the catalog at one position and every file it names, each compared with its check sum on the way.

    DIR/data/...               the lake's files under their own names; names are never reused, so one that is
                               there with the right bytes is taken as it is
    DIR/catalog-N-….sqlite     SQLite's own copy of the catalog
    DIR/backup.json            what makes it a backup: written last, naming all of the above with size and digest

A backup that was killed leaves the one before it whole, and can be run again.
"""

from __future__ import annotations

import json
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

from headwater.catalog import migrations, published
from headwater.errors import CorruptFile, StorageError, UsageError
from headwater.failpoint import hit
from headwater.log import leases
from headwater.storage import hot
from headwater.storage.local import named_errors, put_durably, sync_folder

if TYPE_CHECKING:
    from headwater.log.log import Log

MANIFEST = "backup.json"
LEASE_S = 7 * 86_400.0
"""A backup may take so long: files that leave the lake meanwhile stay on disk for it."""
_CHUNK_BYTES = 8 * 1024 * 1024
Progress = Callable[[int, int], None]
"""Called with the bytes that are done and the bytes in all."""


@dataclass(frozen=True, kw_only=True)
class File:
    """``path`` is relative to the lake and to the backup alike; ``digest``: xxh3-128 of the whole file."""

    path: str
    bytes: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a backup holds. ``damaged``: files whose bytes were not the committed ones when they were copied."""

    position: int
    time: str
    incarnation: str
    catalog_version: int
    catalog: File
    files: tuple[File, ...]
    damaged: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        return self.catalog.bytes + sum(file.bytes for file in self.files)


@dataclass(frozen=True, kw_only=True)
class Copied:
    """What ``backup`` did: ``copied`` bytes were new, the rest was there."""

    manifest: Manifest
    copied: int


def backup(log: Log, target: Path, *, damaged: bool = False, on_progress: Progress | None = None) -> Copied:
    """Bring ``target`` to the lake's present position; it may hold an earlier backup of it.

    Writers and readers go on. CorruptFile when a file's bytes are not the committed ones, unless ``damaged``:
    then it is copied as it is and listed. DiskFull, StorageError: the earlier backup is still whole.
    """
    target = target.resolve()
    _require_place(log, target)
    with named_errors(str(target)):
        target.mkdir(parents=True, exist_ok=True)
    with leases.Lease(log, expires_s=LEASE_S):  # before the position: nothing it names is unlinked until the end
        name = f"catalog-{log.newest_commit()}-{uuid.uuid4().hex[:8]}.sqlite"
        with named_errors(name):
            published.copy(log.folder, target / name)
        with closing(sqlite3.connect(f"{(target / name).as_uri()}?mode=ro&immutable=1", uri=True)) as catalog:
            catalog.row_factory = sqlite3.Row
            done = _Copying(log.folder, target, damaged, on_progress)
            manifest = done.run(catalog, name)
    hit("backup.manifest:before")
    put_durably(target / MANIFEST, json.dumps(asdict(manifest), indent=1).encode())
    hit("backup.manifest:after")
    _prune(target, manifest)
    return Copied(manifest=manifest, copied=done.copied)


def read_manifest(source: Path) -> Manifest:
    """What the backup in this folder holds; StorageError when there is no whole one."""
    try:
        found = json.loads((source / MANIFEST).read_text(encoding="utf-8"))
        files = tuple(File(**each) for each in found.pop("files"))
        return Manifest(
            **{**found, "catalog": File(**found["catalog"]), "files": files, "damaged": tuple(found["damaged"])}
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        todo = f"A backup is whole once its {MANIFEST} is there; run `headwater backup` again."
        raise StorageError("there is no whole backup here", where=str(source), todo=todo) from error


def copy_checked(source: Path, target: Path, file: File) -> str:
    """Copy one file durably under its final name, but for its folder's entry; returns the digest of what was read."""
    draft = target.with_name(f".{target.name}.part")
    found = xxhash.xxh3_128()
    with named_errors(file.path, missing=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as reading, draft.open("wb") as writing:
            while chunk := reading.read(_CHUNK_BYTES):
                found.update(chunk)
                writing.write(chunk)
            writing.flush()
            hit("backup.fsync:before")
            os.fsync(writing.fileno())
        draft.replace(target)
    return found.hexdigest()


def digest_of(path: Path) -> str | None:
    """xxh3-128 of a file; None when it is not there."""
    found = xxhash.xxh3_128()
    try:
        with path.open("rb") as reading:
            while chunk := reading.read(_CHUNK_BYTES):
                found.update(chunk)
    except FileNotFoundError:
        return None
    return found.hexdigest()


class _Copying:
    """One pass over the files that a copied catalog names."""

    def __init__(self, lake: Path, target: Path, damaged: bool, on_progress: Progress | None) -> None:
        self.lake = lake
        self.target = target
        self.copied = 0
        self._takes_damaged = damaged
        self._on_progress = on_progress

    def run(self, catalog: sqlite3.Connection, name: str) -> Manifest:
        rows = catalog.execute("SELECT * FROM file WHERE removed IS NULL ORDER BY id").fetchall()
        files: list[File] = []
        damaged: list[str] = []
        done = 0
        total = sum(row["bytes"] for row in rows)
        known = _known(self.target)
        for row in rows:
            files.append(self._copy(catalog, row, known.get(row["path"]), damaged))
            done += row["bytes"]
            if self._on_progress is not None:
                self._on_progress(done, total)
        for folder in {(self.target / file.path).parent for file in files}:
            for each in (folder, *folder.relative_to(self.target).parents):
                sync_folder(self.target / each)
        settings = dict(catalog.execute("SELECT name, value FROM setting").fetchall())
        newest = catalog.execute('SELECT number, time FROM "commit" ORDER BY number DESC LIMIT 1').fetchone()
        size = (self.target / name).stat().st_size
        return Manifest(
            position=newest["number"] if newest else 0,
            time=_iso(newest["time"]) if newest else "",
            incarnation=settings.get("incarnation", ""),
            catalog_version=migrations.VERSION,
            catalog=File(path=name, bytes=size, digest=digest_of(self.target / name) or ""),
            files=tuple(files),
            damaged=tuple(damaged),
        )

    def _copy(self, catalog: sqlite3.Connection, row: sqlite3.Row, known: File | None, damaged: list[str]) -> File:
        path, size, committed = row["path"], row["bytes"], row["digest"]
        expected = committed or (known.digest if known else None)
        file = File(path=path, bytes=size, digest=expected or "")
        if expected is not None and digest_of(self.target / path) == expected:
            return file
        found = copy_checked(self.lake / path, self.target / path, file)
        self.copied += size
        wrong = (committed is not None and found != committed) or (self.target / path).stat().st_size < size
        if wrong or (committed is None and not _batches_are_right(catalog, row["id"], self.target / path)):
            if not self._takes_damaged:
                (self.target / path).unlink()
                todo = "Mend it first (`headwater verify`), or take it along as it is with --damaged."
                raise CorruptFile("a file of the lake is damaged and cannot be backed up", where=path, todo=todo)
            damaged.append(path)
        return File(path=path, bytes=(self.target / path).stat().st_size, digest=found)


def _batches_are_right(catalog: sqlite3.Connection, file_id: int, path: Path) -> bool:
    """A hot file has no digest of its own: each of its batches has one."""
    with path.open("rb") as reading:
        for row in catalog.execute("SELECT byte_offset, byte_length, digest FROM batch WHERE file = ?", (file_id,)):
            reading.seek(row["byte_offset"])
            if hot.digest(reading.read(row["byte_length"])) != row["digest"]:
                return False
    return True


def _known(target: Path) -> dict[str, File]:
    """Files of the backup that is there; a hot file's digest is in no catalog."""
    try:
        manifest = read_manifest(target)
    except StorageError:
        return {}
    return {file.path: file for file in manifest.files if file.path not in manifest.damaged}


def _require_place(log: Log, target: Path) -> None:
    """UsageError for a folder inside the lake, or one that holds something else."""
    inside = target.resolve() == log.folder.resolve() or log.folder.resolve() in target.resolve().parents
    if inside or (target / "catalog.sqlite").exists():
        raise UsageError(f"{target} belongs to a lake", todo="Give a folder elsewhere, on another disk at best.")
    if target.is_dir() and any(target.iterdir()):
        ours = (target / MANIFEST).exists() or any(target.glob("catalog-*.sqlite"))
        if not ours:
            raise UsageError(f"{target} holds something else", todo="Give an empty folder, or one with a backup.")
    if (target / MANIFEST).exists():
        theirs = read_manifest(target).incarnation
        if theirs != log.incarnation:
            todo = "Give another folder: files of two lakes must not mix."
            raise UsageError(f"{target} holds a backup of another lake, or of one before it was restored", todo=todo)


def _prune(target: Path, manifest: Manifest) -> None:
    """What the new manifest does not name goes: it is whole without it."""
    named = {file.path for file in manifest.files} | {manifest.catalog.path, MANIFEST}
    for path in _all_files(target):
        if path not in named:
            (target / path).unlink(missing_ok=True)


def _all_files(target: Path) -> Iterator[str]:
    for path in [*(target / "data").rglob("*"), *target.glob("catalog-*.sqlite*"), *target.glob(".*.part")]:
        if path.is_file():
            yield path.relative_to(target).as_posix()


def _iso(micros: int) -> str:
    from headwater.catalog.records import to_datetime

    return to_datetime(micros).isoformat()
