"""Ways to break headwater, one at a time, so that a test can show that the tests see it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection, event, select

from headwater.catalog import catalog, tables
from headwater.log import read, recovery, seal, transaction
from headwater.log.transaction import Transaction
from headwater.storage import hot, local
from headwater.testing.breaking import Mutations, wrap

MUTATIONS = _mutation = Mutations("HEADWATER_MUTATION")


# ---- durability


def _no_fsync(skips: Callable[[int], bool]) -> None:
    wrap(os, "fsync", lambda real: lambda descriptor: None if skips(os.fstat(descriptor).st_mode) else real(descriptor))


@_mutation
def no_fsync_of_files() -> None:
    _no_fsync(stat.S_ISREG)


@_mutation
def no_fsync_of_folders() -> None:
    _no_fsync(stat.S_ISDIR)


@_mutation
def catalog_before_files() -> None:
    """Files are made durable after the catalog's COMMIT that names them."""
    late: list[tuple[int, local.Storage, Path]] = []

    def seal_later(writer: local.FileWriter) -> None:
        late.append((writer._descriptor, writer.storage, writer.storage.path(writer.name).parent))
        writer._descriptor = -1

    def after(real: Any) -> Any:
        @contextmanager
        def write(self: catalog.Catalog) -> Iterator[Connection]:
            with real(self) as connection:
                yield connection
            while late:
                descriptor, storage, folder = late.pop()
                os.fsync(descriptor)
                os.close(descriptor)
                storage.sync_folder(folder)

        return write

    wrap(local.FileWriter, "seal", lambda _real: seal_later)
    wrap(catalog.Catalog, "write", after)


def _pragma(text: str) -> None:
    def engine(real: Any) -> Any:
        def make(path: Path) -> Any:
            made = real(path)
            event.listen(made, "connect", lambda connection, _record: connection.execute(text))
            return made

        return make

    wrap(catalog, "_engine", engine)


@_mutation
def synchronous_normal() -> None:
    _pragma("PRAGMA synchronous=NORMAL")


@_mutation
def synchronous_off() -> None:
    _pragma("PRAGMA synchronous=OFF")


@_mutation
def fsync_tried_again() -> None:
    """An fsync that failed is called once more, and believed."""

    def patient(real: Any) -> Any:
        def fsync(descriptor: int) -> None:
            try:
                real(descriptor)
            except OSError:
                real(descriptor)

        return fsync

    wrap(os, "fsync", patient)


@_mutation
def folder_that_exists_is_not_synced() -> None:
    def make(self: local.Storage, *names: str) -> None:
        for name in names:
            if not self.path(name).is_dir():
                self.path(name).mkdir(parents=True)
                self.sync_folder(self.path(name).parent)

    wrap(local.Storage, "make_folder", lambda _real: make)


@_mutation
def manifest_not_synced() -> None:
    def replace(self: local.Storage, name: str, data: bytes) -> None:
        temporary = self.path(name).with_suffix(".new")
        temporary.write_bytes(data)
        temporary.replace(self.path(name))

    wrap(local.Storage, "replace", lambda _real: replace)


@_mutation
def unlink_before_the_catalog() -> None:
    """A seal unlinks the hot files before its transaction has named what replaces them."""

    def eager(real: Any) -> Any:
        def swap(connection: Connection, *arguments: Any) -> Any:
            paths = connection.execute(select(tables.file.c.path).where(tables.file.c.kind == "hot")).scalars().all()
            url = connection.engine.url.database
            for path in paths:
                (Path(str(url)).parent / path).unlink(missing_ok=True)
            return real(connection, *arguments)

        return swap

    wrap(seal, "_swap", eager)


# ---- reads and writes


@_mutation
def batches_not_checked() -> None:
    """A hot batch is decoded whatever its bytes are."""

    def decode(data: bytes, _expected: str, _where: str) -> pa.Table:
        return pa.ipc.open_stream(pa.py_buffer(data)).read_all()

    wrap(hot, "decode", lambda _real: decode)


@_mutation
def segments_not_checked() -> None:
    """Nobody compares a Parquet file with its committed digest."""
    wrap(local.Storage, "check", lambda _real: lambda _self, _name, _size, _digest: None)


@_mutation
def damage_not_named() -> None:
    """A reader's error about a file is passed on as it came: nobody looks whether the file is the committed one."""
    wrap(read, "check_files", lambda _real: lambda *_arguments: None)


@_mutation
def short_write_believed() -> None:
    def write(self: local.FileWriter, data: bytes | bytearray | memoryview) -> int:
        start = self.length
        os.write(self._descriptor, data)
        self.length += memoryview(data).nbytes
        return start

    wrap(local.FileWriter, "write", lambda _real: write)


@_mutation
def short_read_believed() -> None:
    def once(self: local.Storage, name: str, offset: int, length: int) -> bytes:
        with self.path(name).open("rb", buffering=0) as file:
            file.seek(offset)
            return file.read(length) or b""

    wrap(local.Storage, "read", lambda _real: once)


@_mutation
def file_reused() -> None:
    """A file name that was used before is opened and overwritten."""

    def opener(real: Any) -> Any:
        return lambda path, flags, *rest, **more: real(path, flags & ~os.O_EXCL, *rest, **more)

    wrap(os, "open", opener)


# ---- writers


@_mutation
def epoch_not_checked() -> None:
    _blind("epoch", "epoch")


@_mutation
def position_not_checked() -> None:
    _blind("expected_position", "position")


def _blind(attribute: str, column: str) -> None:
    """What the transaction compares is taken from the catalog itself."""

    def trusting(real: Any) -> Any:
        def check(self: Transaction, connection: Connection) -> None:
            mine = select(tables.producer).where(tables.producer.c.name == self.producer)
            row = connection.execute(mine).one_or_none()
            kept = getattr(self, attribute)
            setattr(self, attribute, getattr(row, column) if row else kept)
            try:
                real(self, connection)
            finally:
                setattr(self, attribute, kept)

        return check

    wrap(Transaction, "_check_producer", trusting)


@_mutation
def offsets_outside_the_transaction() -> None:
    """Offsets are counted from what the partition held when this process first wrote to it."""
    known: dict[tuple[str, int, int], int] = {}

    def stale(real: Any) -> Any:
        def take(connection: Connection, topic: int, partition: int, count: int, *rest: Any) -> int:
            found: int = real(connection, topic, partition, count, *rest)
            place = (str(connection.engine.url), topic, partition)
            first = known.get(place, found)
            known[place] = first + count
            return first

        return take

    wrap(transaction, "_take_offsets", stale)


@_mutation
def no_writers_queue() -> None:
    """Writers neither queue nor begin as writers: they meet in the midst of their transactions."""

    @contextmanager
    def free(_path: Path) -> Iterator[None]:
        yield

    wrap(catalog, "queued", lambda _real: free)
    begin_deferred()


@_mutation
def begin_deferred() -> None:
    wrap(catalog, "BEGIN_WRITE", lambda _real: "BEGIN")


@_mutation
def left_log_trusted() -> None:
    """Who opens the catalog after all had gone takes what stands in SQLite's log for durable."""
    wrap(catalog.Catalog, "_settle", lambda _real: lambda _self: None)


@_mutation
def clock_believed() -> None:
    """A commit's time is the clock's, whatever the one before says."""

    def naive(real: Any) -> Any:
        return lambda connection, now_us: (real(connection, now_us)[0], now_us)

    wrap(transaction, "_next_commit", naive)


@_mutation
def unknown_outcome_taken_as_failure() -> None:
    """When COMMIT itself fails the files are removed, though it may have gone through."""
    wrap(Transaction, "_is_certain", lambda _real: lambda _self, _error: True)


@_mutation
def orphans_without_grace() -> None:
    wrap(recovery, "remove_orphans", lambda real: lambda log, grace_s=0.0: real(log, min(grace_s, 0.0)))


@_mutation
def files_of_a_commit_not_looked_for() -> None:
    wrap(local.Storage, "require", lambda _real: lambda _self, _name, _size: None)
