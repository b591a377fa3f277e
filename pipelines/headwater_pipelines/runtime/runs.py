"""Runs: the frozen part of a stored relation, as immutable files of rows that are found by the hash of a key.

    12.arrow      the rows with their weights, sorted by the hash of the relation's own key; mapped, not read
    12.h          these hashes, 8 bytes each, in the order of the rows
    12-<index>.h  the sorted hashes of other expressions, and  12-<index>.p  the places of their rows

A look-up is a binary search: a thousand keys among 50 million rows take about 10 ms, whatever the memory limit,
where a scan of the keys alone takes 100. Index files hold nothing of their own and are made when they are missing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headwater.failpoint import hit
from headwater_pipelines.compiler.plan import digest

HASH = "_h"
"""The column of hashes in the rows that ``write`` takes."""
BATCH_ROWS = 100_000
"""Rows that are computed at a time while runs are made."""
BATCH_BYTES = 32 << 20
"""A file holds its rows in batches of this size: a look-up pays for every one that it takes rows from."""
SLICES = 16
"""An index is sorted in so many parts, by the first bits of the hashes: bounds what sorting holds in memory."""

GUESSED_ROWS = 500_000
"""Among fewer hashes a binary search is quicker."""
NEAR = 16
"""So many neighbours of a guessed place are looked at."""

Index = tuple[str, ...]
"""Expressions over a relation's columns."""
Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]


def hash_sql(index: Index) -> str:
    """The hash that rows with equal values have in common; DuckDB's own, stable within one of its versions."""
    return f"hash({', '.join(index)})"


@dataclass(frozen=True)
class Spans:
    """Places in an index: each begins at ``low`` and has so many rows."""

    low: Places
    counts: Places

    @property
    def rows(self) -> int:
        return int(self.counts.sum())

    def places(self, rows_max: int) -> Iterator[Places]:
        """All places, at most so many at a time."""
        if self.rows <= rows_max:
            if self.rows:
                yield _spots(self.low, self.counts)
            return
        ends = np.cumsum(self.counts)
        cuts = np.unique(np.searchsorted(ends, np.arange(0, self.rows, rows_max), "left")).tolist()
        for first, end in zip(cuts, [*cuts[1:], len(ends)], strict=True):
            spots = _spots(self.low[first:end], self.counts[first:end])
            for start in range(0, len(spots), rows_max):
                yield spots[start : start + rows_max]


def _spots(low: Places, counts: Places) -> Places:
    """All places of some spans."""
    before = np.cumsum(counts) - counts
    return np.repeat(low - before, counts) + np.arange(int(counts.sum()))


class Stopped(Exception):
    """Work on runs was ended by whoever had begun it."""


class Run:
    """An open run. ``primary``: the expressions by whose hash its rows are sorted."""

    def __init__(self, path: Path, primary: Index) -> None:
        self.path = path
        self.primary = primary
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self.schema = reader.schema
        self.batches = [reader.get_batch(place) for place in range(reader.num_record_batches)]
        self.starts = np.cumsum([0, *(batch.num_rows for batch in self.batches)])
        self.rows = int(self.starts[-1])
        self._open: dict[Index, tuple[Hashes, npt.NDArray[np.uint32] | None]] = {}

    @cached_property
    def table(self) -> pa.Table:
        return pa.Table.from_batches(self.batches, self.schema)

    @property
    def number(self) -> int:
        return int(self.path.stem)

    @property
    def name(self) -> str:
        """Under which statements read all of its rows."""
        return f"run_{self.number}"

    @property
    def indexes(self) -> list[Index]:
        return list(self._open)

    @cached_property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in files_of(self.path))

    def delete(self) -> None:
        delete(self.path)

    def spans(self, index: Index, hashes: Hashes, connection: duckdb.DuckDBPyConnection) -> Spans:
        """Where the rows are whose hash is one of ``hashes`` (ascending, each once); some may not have the key."""
        held, _ = self.prepare(index, connection)
        low = lower(held, hashes)
        there = np.flatnonzero(held[np.minimum(low, self.rows - 1)] == hashes) if self.rows else low[:0]
        low, counts, found = low[there], np.ones(len(there), np.int64), hashes[there]
        more = np.flatnonzero((low + 1 < self.rows) & (held[np.minimum(low + 1, self.rows - 1)] == found))
        counts[more] = np.searchsorted(held, found[more], "right") - low[more]
        return Spans(low, counts)

    def find(
        self, index: Index, spans: Spans, connection: duckdb.DuckDBPyConnection, rows_max: int
    ) -> Iterator[pa.Table]:
        """The rows there, in parts of at most so many."""
        _, places = self.prepare(index, connection)
        for spots in spans.places(rows_max):
            yield self._take(spots if places is None else np.sort(places[spots].astype(np.int64)))

    def part(self, low: int, high: int | None) -> pa.Table:
        """The rows whose primary hash is in [low, high); without ``high``, all from ``low`` on."""
        held = self._hashes(self.path.with_suffix(".h"))
        start = int(np.searchsorted(held, np.uint64(low), "left"))
        end = self.rows if high is None else int(np.searchsorted(held, np.uint64(high), "left"))
        return self.table.slice(start, end - start)

    def prepare(
        self, index: Index, connection: duckdb.DuckDBPyConnection, stop: threading.Event | None = None
    ) -> tuple[Hashes, npt.NDArray[np.uint32] | None]:
        """The index's sorted hashes and their rows' places (None: their own); its files are made when missing.

        Stopped, without a trace, when ``stop`` is set while they are made.
        """
        if index in self._open:
            return self._open[index]
        if index == self.primary:
            self._open[index] = (self._hashes(self.path.with_suffix(".h")), None)
            return self._open[index]
        name = self.path.with_name(f"{self.path.stem}-{digest(index)}.h")
        if not name.exists():
            self._build(index, name, connection, stop or threading.Event())
        self._open[index] = (self._hashes(name), self._mapped(name.with_suffix(".p"), np.dtype(np.uint32)))
        return self._open[index]

    def _hashes(self, path: Path) -> Hashes:
        return self._mapped(path, np.dtype(np.uint64))

    def _mapped(self, path: Path, kind: np.dtype[Any]) -> npt.NDArray[Any]:
        if path.stat().st_size != self.rows * kind.itemsize:
            raise OSError(f"{path} is of another size than its {self.rows} rows have")
        # As a plain array: the other kind costs more with every small operation.
        return np.asarray(np.memmap(path, kind, "r")) if self.rows else np.empty(0, kind)

    def _take(self, rows: Places) -> pa.Table:
        if len(self.batches) == 1:
            return pa.Table.from_batches([self.batches[0].take(pa.array(rows))])
        if not len(rows):
            return self.schema.empty_table()
        # Whole batches at a time: pyarrow's own take over many chunks is 60 times as slow.
        of = np.searchsorted(self.starts, rows, "right") - 1
        cuts = np.flatnonzero(np.diff(of, prepend=-1))
        parts = []
        for start, end in zip(cuts, [*cuts[1:], len(rows)], strict=True):
            batch = int(of[start])
            parts.append(self.batches[batch].take(pa.array(rows[start:end] - self.starts[batch])))
        return pa.Table.from_batches(parts, self.schema).combine_chunks()  # a scan takes its time for every chunk

    def _build(self, index: Index, name: Path, connection: duckdb.DuckDBPyConnection, stop: threading.Event) -> None:
        hashes = np.empty(self.rows, np.uint64)
        for batch, start in zip(self.batches, self.starts, strict=False):
            _go_on(stop)
            # A scan may hand rows on in another order than the file's, so each brings its place.
            numbered = pa.Table.from_batches([batch]).append_column("_i", pa.array(np.arange(batch.num_rows)))
            connection.register("hashed", numbered)
            found = connection.sql(f"SELECT {hash_sql(index)} AS {HASH}, _i FROM hashed").fetchnumpy()
            connection.unregister("hashed")
            hashes[start + found["_i"]] = found[HASH]
        slices = (hashes >> np.uint64(64 - 4)).astype(np.uint8)
        with _Written(name.with_suffix(".p")) as places, _Written(name) as held:
            for part in range(SLICES):
                _go_on(stop)
                rows = np.flatnonzero(slices == part)
                rows = rows[np.argsort(hashes[rows], kind="stable")]
                places.file.write(rows.astype(np.uint32).tobytes())
                held.file.write(hashes[rows].tobytes())


def lower(held: Hashes, wanted: Hashes) -> Places:
    """For each hash the first place of those held, ascending, whose hash is no smaller: as NumPy's ``searchsorted``.

    Hashes are spread evenly, so that a place is guessed, and the guess mended by what is found there: three rows or so
    are touched where a binary search of many millions touches 25, most of which no cache holds.
    """
    rows = len(held)
    if rows < GUESSED_ROWS:
        return np.asarray(np.searchsorted(held, wanted, "left"))
    scale = rows / 2.0**64
    exact = wanted.astype(np.float64) * scale
    at = np.minimum(exact, rows - 1).astype(np.int64)
    for _ in range(2):
        at += (exact - held[at].astype(np.float64) * scale).astype(np.int64)
        np.clip(at, 0, rows - 1, out=at)
    at = np.clip(at - NEAR // 2, 0, rows - NEAR)
    low: Places = at + (held[at[:, None] + np.arange(NEAR)] < wanted[:, None]).sum(axis=1)
    before, after = held[np.maximum(low - 1, 0)] < wanted, held[np.minimum(low, rows - 1)] >= wanted
    missed = np.flatnonzero(~((before | (low == 0)) & (after | (low == rows))))  # where many rows have one hash
    low[missed] = np.searchsorted(held, wanted[missed], "left")
    return low


def files_of(path: Path) -> list[Path]:
    """The files of the run at a path, its indexes included, as far as they are there."""
    found = [*path.parent.glob(f"{path.stem}-*"), path, path.with_suffix(".h")]
    return [file for file in found if file.exists()]


def delete(path: Path) -> None:
    for file in files_of(path):
        file.unlink()


def write(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Make a run's files, durable, out of rows sorted by their last column ``HASH``; returns the number of rows."""
    hit("state.run:before")
    rows = 0
    with (
        _Written(path.with_suffix(".h")) as held,
        _Written(path) as file,
        pa.ipc.new_file(pa.PythonFile(file.file, "w"), schema.remove(len(schema) - 1)) as writer,
    ):
        for batch in _gathered(batches):
            rows += batch.num_rows
            held.file.write(batch.column(HASH).to_numpy(zero_copy_only=False).tobytes())
            writer.write_batch(batch.drop_columns([HASH]))
    hit("state.run:after")
    return rows


def _gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of about ``BATCH_BYTES``."""
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        held.append(batch)
        size += batch.nbytes
        if size >= BATCH_BYTES:
            yield pa.concat_batches(held)
            held, size = [], 0
    if held:
        yield pa.concat_batches(held)


def merged(
    runs: Sequence[Run],
    names: Sequence[str],
    select: str,
    connection: duckdb.DuckDBPyConnection,
    stop: threading.Event | None = None,
) -> Iterator[pa.RecordBatch]:
    """The rows of several runs in the order of their hashes, ``select`` applied to each range of them.

    ``select`` reads ``merging`` and its rows are those of the runs with ``HASH``; a range holds about
    ``BATCH_ROWS`` rows, and all rows of a hash. Stopped between two ranges when ``stop`` is set.
    """
    total = sum(run.rows for run in runs)
    step = (1 << 64) // max(1, total // BATCH_ROWS)
    for low in range(0, 1 << 64, step):
        if stop is not None:
            _go_on(stop)
        high = low + step if low + step < 1 << 64 else None
        part = pa.concat_tables([run.part(low, high) for run in runs]).select(names)
        connection.register("merging", part)
        yield from connection.sql(select).to_arrow_table().combine_chunks().to_batches()
        connection.unregister("merging")
        if high is None:
            return


def until(stop: threading.Event, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same. Stopped between two of them when ``stop`` is set."""
    for batch in batches:
        _go_on(stop)
        yield batch


def _go_on(stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped


class _Written:
    """A file that appears under its name only when it is whole and durable."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = path.with_name(path.name + ".tmp")

    def __enter__(self) -> _Written:
        self.file = self.temporary.open("wb")
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            self.file.flush()
            os.fsync(self.file.fileno())
        self.file.close()
        if error is not None:
            self.temporary.unlink()
            return
        self.temporary.rename(self.path)
        descriptor = os.open(self.path.parent, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
