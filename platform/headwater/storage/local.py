"""Local files as the log needs them: written once under a name never used again, durable before visible.

Invariant: a path that the catalog names was fsynced, and so was its directory entry, before the catalog
transaction that names it began. There is no rename and no listing on the way to data; an interrupted write
leaves an orphan that recovery removes, never a half file under a published name.

After a failed fsync the kernel may drop the dirty pages and report success the next time (Rebello et al.,
"Can applications recover from fsync failures?", ATC 2020), so a file whose fsync failed is abandoned.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol

import xxhash

from headwater.errors import CorruptFile, DiskFull, StorageError
from headwater.failpoint import hit

_CHUNK_BYTES = 8 * 1024 * 1024
_FULL = {errno.ENOSPC, errno.EDQUOT}
_REMOTE = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse", "fuse.sshfs"}


class Bytes(Protocol):
    """Anything with a buffer: bytes, memoryview, pyarrow.Buffer."""

    def __buffer__(self, flags: int, /) -> memoryview: ...


class Storage:
    """Files below ``root``; every path given and returned is relative to it, with forward slashes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        return self.root / name

    def create(self, name: str) -> FileWriter:
        """A new file; StorageError when the name exists (names are never reused)."""
        return FileWriter(self, name)

    def read(self, name: str, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``; CorruptFile when the file is missing or shorter."""
        with named_errors(name, missing=True):
            descriptor = os.open(f"{self.root}/{name}", os.O_RDONLY | os.O_CLOEXEC)  # of a full hot tier: hundreds
            try:
                data = os.pread(descriptor, length, offset)
                while len(data) < length and (more := os.pread(descriptor, length - len(data), offset + len(data))):
                    data += more
            finally:
                os.close(descriptor)
        if len(data) != length:
            raise CorruptFile(
                f"data file is cut short: {offset + length} bytes expected, {offset + len(data)} found",
                where=name,
                todo="Restore the file from a backup, then run `headwater verify`.",
            )
        return data

    def check(self, name: str, size: int, digest: str) -> None:
        """Read the whole file; CorruptFile unless it has this size and this xxh3-128."""
        found = xxhash.xxh3_128()
        for start in range(0, size, _CHUNK_BYTES):
            found.update(self.read(name, start, min(_CHUNK_BYTES, size - start)))
        if found.hexdigest() != digest or self.size(name) != size:
            todo = "Restore the file from a backup, then run `headwater verify`."
            raise CorruptFile("the file has changed since it was committed", where=name, todo=todo)

    def size(self, name: str) -> int:
        with named_errors(name, missing=True):
            return self.path(name).stat().st_size

    def holds(self, name: str, size: int) -> bool:
        """Whether the file is there with exactly this size."""
        with suppress(FileNotFoundError):
            return os.stat(f"{self.root}/{name}").st_size == size  # noqa: PTH116 -- a Path costs more than the call
        return False

    def require(self, name: str, size: int) -> None:
        """StorageError unless the file is there with exactly this size: what is named must exist."""
        if not self.holds(name, size):
            todo = "Nothing was published; do it again. Who removes files of a lake, or set the clock forward?"
            raise StorageError("a file was removed before it was published", where=name, todo=todo)

    def modified_s(self, name: str) -> float:
        """When the file was last written, in seconds since 1970; now for one that is gone."""
        with suppress(FileNotFoundError):
            return self.path(name).stat().st_mtime
        return float("inf")

    def remove(self, name: str) -> None:
        """Unlink; a file that is gone already is fine (the step before a crash did it)."""
        hit("storage.unlink:before")
        with suppress(FileNotFoundError):
            self.path(name).unlink()
        hit("storage.unlink:after")

    def replace(self, name: str, data: bytes) -> None:
        """Put a small file that readers see whole, old or new; for conveniences, never for correctness."""
        target = self.path(name)
        with named_errors(name):
            hit("storage.replace:before")
            temporary = target.with_name(f".{target.name}.{os.getpid()}")
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # else a power cut may leave the new name without the bytes
            temporary.replace(target)
            hit("storage.replace:after")

    def list(self, prefix: str) -> list[str]:
        """Names below a folder; only recovery uses it, to find orphans."""
        folder = self.path(prefix)
        return sorted(str(p.relative_to(self.root)) for p in folder.rglob("*") if p.is_file())

    def sync_folder(self, folder: Path) -> None:
        """Make the folder's entries durable: fsync of a file does not cover its name."""
        with named_errors(str(folder)):
            hit("storage.fsync_folder:before")
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            hit("storage.fsync_folder:after")

    def make_folder(self, *names: str) -> None:
        """Create folders where they are missing, and make their names durable, those above included.

        Also when they are there: who made them may have died before their names were durable.
        """
        above = set()
        for name in names:
            folder = self.path(name)
            missing = [each for each in (folder, *folder.parents) if not each.is_dir()]
            with named_errors(name):
                folder.mkdir(parents=True, exist_ok=True)
            above |= {each.parent for each in (folder, *missing)}
        for each in sorted(above, reverse=True):
            self.sync_folder(each)


class FileWriter:
    """One new file. ``seal`` makes it durable; leaving the block without it removes the file."""

    def __init__(self, storage: Storage, name: str) -> None:
        self.storage = storage
        self.name = name
        self.length = 0
        hit("storage.create:before")
        with named_errors(name):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor = os.open(f"{storage.root}/{name}", flags, 0o644)
        hit("storage.create:after")

    @property
    def open(self) -> bool:
        """Whether the file still takes bytes."""
        return self._descriptor >= 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append; returns the offset at which the data starts."""
        start = self.length
        view = memoryview(data).cast("B")
        hit("storage.write:before")
        with named_errors(self.name):
            while view:
                view = view[os.write(self._descriptor, view) :]
        self.length = start + memoryview(data).nbytes
        hit("storage.write:after")
        return start

    def seal(self) -> None:
        """fsync the file and its folder, then close: from here on the file may be named in the catalog."""
        with named_errors(self.name):
            hit("storage.fsync:before")
            os.fsync(self._descriptor)
            hit("storage.fsync:after")
            self._close()
        self.storage.sync_folder(self.storage.path(self.name).parent)

    def discard(self) -> None:
        """Close and remove; nothing ever named this file."""
        if self._descriptor >= 0:
            with suppress(OSError):  # what could not be written is not wanted any more
                self._close()
        self.storage.remove(self.name)

    def _close(self) -> None:
        """Once, whatever the call says: the descriptor is free after it, and soon another file's."""
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)

    def __enter__(self) -> FileWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor >= 0:
            self.discard()


@contextmanager
def named_errors(name: str, missing: bool = False) -> Iterator[None]:
    """OSError as an error of ours that says which file and what to do."""
    try:
        yield
    except FileNotFoundError as error:
        if missing:
            todo = "Restore the file from a backup, then run `headwater verify`."
            raise CorruptFile("data file is missing", where=name, todo=todo) from error
        raise StorageError("folder is missing", where=name, todo="Run `headwater init` first.") from error
    except FileExistsError as error:
        raise StorageError("file name was used before", where=name) from error
    except OSError as error:
        if error.errno in _FULL:
            todo = "Free space on this file system; headwater goes on from the last commit by itself."
            raise DiskFull("the disk is full", where=name, todo=todo) from error
        todo = "The write was abandoned and nothing was published; check the disk, then start again."
        raise StorageError(f"{error.strerror}", where=name, todo=todo) from error


def put_durably(target: Path, data: bytes) -> None:
    """Put a small file that is old or new after any crash, and new once this returns."""
    draft = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}")
    with named_errors(str(target)):
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable: fsync of a file does not cover its name."""
    with named_errors(str(folder)):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def refuse_remote(folder: Path) -> None:
    """StorageError when ``folder`` is on a file system whose locks and fsync cannot be trusted."""
    kind = _file_system(folder)
    if kind in _REMOTE:
        raise StorageError(
            f"the lake is on a {kind} file system, whose locks do not keep two writers apart",
            where=str(folder),
            todo="Put the project on a local disk.",
        )


def _file_system(folder: Path) -> str:
    """The type of the file system that holds ``folder``, from the longest matching mount point."""
    best, kind = "", ""
    target = str(folder.resolve())
    with suppress(OSError), Path("/proc/self/mounts").open(encoding="utf-8") as mounts:
        for line in mounts:
            _, point, name, *_ = line.split(" ")
            inside = target == point or target.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best, kind = point, name
    return kind
