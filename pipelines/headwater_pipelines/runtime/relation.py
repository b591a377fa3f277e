"""Stored relations: bags of rows with weights, in a small open part and in runs.

    open part   a table of the state file: a step appends to it, in the step's transaction
    set aside   an open part that was full, under another name: nothing is added to it while it becomes a run
    runs        immutable files (see ``runs``), each once an open part; those of like size become one

Nothing is ever updated: what is taken back stands there a second time with a negative weight, and the two meet when
parts are consolidated. A relation's name is a view of all its parts. Which runs are live is written in the state file,
in the transaction that makes them so.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from headwater.types import quote
from headwater_pipelines.compiler.plan import WEIGHT, digest
from headwater_pipelines.runtime import runs as files
from headwater_pipelines.runtime.runs import BATCH_ROWS, HASH, Hashes, Index, Run, hash_sql

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb

    from headwater_pipelines.runtime.state import State

OPEN_ROWS_MAX = 200_000
"""Rows of an open part, unless set otherwise, before it becomes a run: a look-up scans so many in 1 to 2 ms."""
OPEN_ROW_BYTES = 64
"""What an open row is counted for, where sizes are shown or limited; those in runs are measured."""
SPARSE_ROWS = 5_000
"""An open part of fewer rows is left alone, whatever cancels out in it."""
SETTLED_SHARE = 0.75
"""Where consolidating leaves more than this share of an open part it is not tried again before that is full."""
LIKE_SIZED = 4
"""So many runs, none more than so many times as large as the next, are merged."""
SEARCHED_SHARE = 10
"""An open part of more than this share of its greatest size is searched once for what a step needs of it. Statements
read a smaller one whole, each for itself, which takes less than the search."""
LOOKUP_SHARE = 16
"""With more than one key for so many rows a scan is cheaper than looking each up."""
FOUND_SHARE = 8
"""With more than one found row for so many rows, too."""
FOUND_ROWS = 250_000
"""So many found rows are held in memory at once; as few are always looked up."""

_COMPARED_BY_TEXT = ("FLOAT", "DOUBLE", "INTERVAL", "TIMETZ", "TIME WITH TIME ZONE")
"""Types of which different values compare as equal (0.0 and -0.0, a month and 30 days)."""


@dataclass(frozen=True)
class Found:
    """Rows that were looked up: ``sql``, which reads what the two tables are called here, for ``State.temporary``."""

    sql: str
    hashes: pa.Table | None = None
    taken: pa.Table | None = None


@dataclass
class Relation:
    """``columns`` are names and types without the weight; ``primary``: its own key, by whose hash runs are sorted."""

    state: State
    table: str
    columns: Sequence[tuple[str, str]]
    primary: Index
    home: str
    """The schema that its open part is in."""
    runs: list[Run] = field(default_factory=list)
    open_rows: int = 0
    settled_rows: int = 0
    """Open rows after they were last consolidated. When there are twice as many they are so again."""
    cancels_little: bool = False
    """Whether that took out few: then it waits until they are as many as there may be."""
    aside_rows: int = 0
    """Rows of the part that is set aside; without any there is none."""
    error: duckdb.Error | None = None
    """What ended its freezing, once it was set aside."""
    dead: str = "false"
    """What holds of rows that nobody looks at any more: they are left out when parts are consolidated."""

    # ---- change

    def create(self) -> None:
        self._create_open()
        self.adopt()

    def _create_open(self) -> None:
        body = [f"{quote(name)} {text}" for name, text in self.columns]
        self.state.write(f"CREATE TABLE {self._open} ({', '.join([*body, f'{WEIGHT} BIGINT'])})")

    def adopt(self) -> None:
        """Note it as one of the state's own, with its runs."""
        row = [self.table, json.dumps(self.primary), self.home]
        self.state.write("INSERT INTO relations VALUES (?, ?, ?)", row)
        for run in self.runs:
            self.state.write("INSERT INTO runs VALUES (?, ?)", [self.table, run.number])
        self.show()

    def append(self, select: str, arrived: pa.Table | None = None) -> int:
        """Add the rows of a SELECT (columns and weight, in order); returns their number."""
        rows = self.state.write(f"INSERT INTO {self._open} {select}", None, arrived)
        self.open_rows += rows
        return rows

    def add(self, select: str, rows: int) -> None:
        """Add the rows of a SELECT, of which there are so many."""
        if rows > self.state.open_rows_max:
            self.fill(select)
        elif rows:
            self.append(select)

    def fill(self, select: str) -> None:
        """Add the rows of a SELECT of any size: a large one goes into a run at once."""
        names = [*(quote(name) for name, _ in self.columns), WEIGHT]
        reader = self.state.export(self._hashed(f"SELECT {', '.join(names)} FROM ({select})"), BATCH_ROWS)
        first: list[pa.RecordBatch] = []
        for batch in reader:
            first.append(batch)
            if sum(each.num_rows for each in first) > self.state.open_rows_max:
                self._publish(self._write_run(reader.schema, _chained(first, reader)))
                return
        if first:
            self.append(f"SELECT {', '.join(names)} FROM arrived", pa.Table.from_batches(first))

    def settle(self) -> None:
        """Consolidate an open part that has doubled: what cancels out is not read for ever. Freeze a full one.

        Where freezing goes on beside the steps it is only set aside here, unless the one before it still is.
        duckdb.Error is also what ended that.
        """
        if self.error is not None:
            raise self.error
        most = max(2 * self.settled_rows, SPARSE_ROWS)
        if self.cancels_little and self.dead == "false":  # of one that forgets, more is dead the next time
            most = self.state.open_rows_max
        if self.open_rows <= min(most, self.state.open_rows_max):
            return
        if self.state.freezes_beside and not self.aside_rows and self.open_rows > self.state.open_rows_max:
            self._set_aside()
            return
        rows = self._living(self._open)
        count = self.state.temporary(f"CREATE OR REPLACE TEMP TABLE settled AS {rows}")
        self.state.write(f"DELETE FROM {self._open}")
        self.cancels_little = count >= self.open_rows * SETTLED_SHARE
        self.open_rows = 0
        if count > self.state.open_rows_max // 2:
            reader = self.state.export(self._hashed("FROM settled"), BATCH_ROWS)
            self._publish(self._write_run(reader.schema, reader))
        else:
            self.append("SELECT * FROM settled")
        self.settled_rows = self.open_rows
        self.state.temporary("DROP TABLE settled")

    def _set_aside(self) -> None:
        """Begin another open part; the rows of this one become a run. Nothing is copied."""
        self.state.write(f"ALTER TABLE {self._open} RENAME TO {quote(aside_table(self.table))}")
        self._create_open()
        self.aside_rows, self.open_rows, self.settled_rows = self.open_rows, 0, 0
        self.show()

    def drop(self) -> None:
        self.state.temporary(f"DROP VIEW temp.{quote(self.table)}")
        self.state.write("DELETE FROM relations WHERE name = ?", [self.table])
        self.discard()

    def discard(self) -> None:
        """Remove its parts, of which the state knows nothing else."""
        for part in self._tables():
            self.state.write(f"DROP TABLE {part}")
        self._withdraw(self.runs)

    # ---- runs

    def freeze(self, stop: threading.Event | None = None) -> Run:
        """Write what is set aside as a run, not live yet. A thread of its own can do it: nobody else changes that part.

        Stopped when ``stop`` is set meanwhile; then nothing of it is left.
        """
        path, stop = self.state.new_run(), stop or threading.Event()
        indexes = {index for run in self.runs for index in run.indexes}
        with self.state.reading() as connection:
            reader = self.state.exported(connection.sql(self._hashed(self._living(self._aside))), BATCH_ROWS)
            files.write(path, reader.schema, files.until(stop, reader))
            return self._prepared(path, indexes, connection, stop)

    def frozen(self, made: Run) -> None:
        """Make the run live in the place of what was set aside; inside a transaction."""
        self.state.write(f"DROP TABLE {self._aside}")
        self.cancels_little = made.rows >= self.aside_rows * SETTLED_SHARE
        self.aside_rows = 0
        self._publish(made)

    def due(self) -> list[Run]:
        """Runs that are worth merging now: neighbours of like size, the newest first to grow too many."""
        found: list[Run] = []
        for run in sorted(self.runs, key=lambda each: each.rows):
            if found and run.rows > LIKE_SIZED * max(found[-1].rows, self.state.open_rows_max):
                if len(found) >= LIKE_SIZED:
                    return found
                found = []
            found.append(run)
        return found if len(found) >= LIKE_SIZED else []

    def merge(self, parts: Sequence[Run], stop: threading.Event | None = None) -> Run:
        """Write these runs as one, not live yet. Reads only runs, so that a thread of its own can do it.

        Stopped when ``stop`` is set meanwhile; then nothing of it is left.
        """
        path = self.state.new_run()
        with self.state.apart() as connection:
            names = [name for name, _ in self.columns]
            select = self._hashed(self._living("merging"))
            batches = files.merged(parts, [*names, WEIGHT], select, connection, stop)
            schema = parts[0].schema.append(pa.field(HASH, pa.uint64()))
            files.write(path, schema, (pa.RecordBatch.from_arrays(b.columns, schema=schema) for b in batches))
            indexes = {index for part in parts for index in part.indexes}
            return self._prepared(path, indexes, connection, stop)

    def _prepared(
        self, path: Path, indexes: set[Index], connection: duckdb.DuckDBPyConnection, stop: threading.Event | None
    ) -> Run:
        """The run whose rows are written, with these indexes, so that no step has to make them."""
        made = Run(path, self.primary)
        try:
            for index in indexes:
                made.prepare(index, connection, stop)
        except files.Stopped:
            made.delete()
            raise
        return made

    def compact(self) -> None:
        """Make one run of many, after a load in parts; inside a transaction."""
        if len(self.runs) >= LIKE_SIZED:
            self.replace(list(self.runs), self.merge(self.runs))

    def replace(self, old: Sequence[Run], new: Run) -> None:
        """Make a merged run live in the place of its parts; inside a transaction."""
        self._withdraw(old)
        self.runs = [run for run in self.runs if run not in old]
        self._publish(new)

    def _withdraw(self, runs: Sequence[Run]) -> None:
        for run in runs:
            self.state.write("DELETE FROM runs WHERE number = ?", [run.number])
            self.state.obsolete(run)

    def _write_run(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Run:
        path = self.state.fresh_run()
        files.write(path, schema, batches)
        return Run(path, self.primary)

    def _publish(self, run: Run) -> None:
        self.state.write("INSERT INTO runs VALUES (?, ?)", [self.table, run.number])
        self.runs.append(run)
        self.show()

    def show(self) -> None:
        """Make the relation's name a view of its parts."""
        for run in self.runs:
            self.state.connection.register(run.name, run.table)
        parts = " UNION ALL ".join(self._parts())
        self.state.temporary(f"CREATE OR REPLACE TEMP VIEW {quote(self.table)} AS {parts}")

    def _parts(self, without: Run | None = None) -> list[str]:
        """A SELECT of the rows of each part."""
        names = ", ".join([*(quote(name) for name, _ in self.columns), WEIGHT])
        runs = [f"SELECT {self._typed()} FROM {run.name}" for run in self.runs if run is not without]
        return [*(f"SELECT {names} FROM {part}" for part in self._tables()), *runs]

    def _tables(self) -> list[str]:
        """What holds the rows that are in no run yet."""
        return [self._open, self._aside] if self.aside_rows else [self._open]

    def _hashed(self, rows: str) -> str:
        """A SELECT of rows as a run takes them: with their hashes, by which they are sorted."""
        return f"SELECT *, {hash_sql(self.primary)} AS {HASH} FROM ({rows}) ORDER BY {HASH}"

    # ---- reading

    def find(self, index: Index, keys: str, name: str) -> bool:
        """Make a temporary table of the rows that ``seek`` finds; False: too many, read the whole."""
        found = self.seek(index, keys)
        if found is not None:
            self.state.temporary(f"CREATE OR REPLACE TEMP TABLE {quote(name)} AS {found.sql}", None, found)
        return found is not None

    def seek(self, index: Index, keys: str, arrived: pa.Table | None = None) -> Found | None:
        """All rows, weights included, of some keys, for one statement to read; None: too many, read the whole.

        ``keys``: a SELECT of the index's values, of the same types, which may read ``arrived``. Rows of other keys may
        be among those found.
        """
        if not self.runs:
            return Found(self._opened(index, f"SELECT hash(*COLUMNS(*)) FROM ({keys})"))
        hashes = self.hashes(keys, arrived)
        if len(hashes) * LOOKUP_SHARE > self.rows:
            return None
        spans = [(run, run.spans(index, hashes, self.state.connection)) for run in self.runs]
        rows = sum(each.rows for _, each in spans)
        if rows > max(FOUND_ROWS, self.rows // FOUND_SHARE):
            return None
        parts = (part for run, each in spans for part in run.find(index, each, self.state.connection, FOUND_ROWS))
        sql = self._opened(index, "SELECT h FROM hashes")
        known = pa.table({"h": pa.array(hashes)})
        if not rows:
            return Found(sql, known)
        if rows <= FOUND_ROWS:
            return Found(f"{sql} UNION ALL SELECT {self._typed()} FROM taken", known, pa.concat_tables(parts))
        table = quote(f"l_{digest((self.table, index, keys))}")
        self.state.temporary(f"CREATE OR REPLACE TEMP TABLE {table} AS {sql}", None, Found(sql, known))
        for part in parts:  # in a table that can be moved to disk, unlike these
            insert = f"INSERT INTO {table} SELECT {self._typed()} FROM taken"
            self.state.temporary(insert, None, Found(insert, known, part))
        return Found(f"SELECT * FROM {table}")

    def _opened(self, index: Index, hashes: str) -> str:
        """A SELECT of the rows outside of runs whose hash is among those of another."""
        names = ", ".join([*(quote(column) for column, _ in self.columns), WEIGHT])
        parts = (f"SELECT {names} FROM {part} WHERE {hash_sql(index)} IN ({hashes})" for part in self._tables())
        return " UNION ALL ".join(parts)

    def hashes(self, keys: str, arrived: pa.Table | None = None) -> Hashes:
        """Sorted hashes of the rows of a SELECT of keys."""
        return np.unique(self.state.numbers(f"SELECT hash(*COLUMNS(*)) AS h FROM ({keys})", arrived))

    def prepare(self, index: Index) -> None:
        """Make an index of every run, so that no step has to."""
        for run in self.runs:
            run.prepare(index, self.state.connection)

    def current_sql(self, source: str = "") -> str:
        """A SELECT of the rows as they stand, each once with its weight; of all parts, or of ``source``."""
        names = [quote(name) for name, _ in self.columns]
        exact = [f"CAST({quote(name)} AS VARCHAR)" for name, text in self.columns if is_ambiguous(text)]
        groups = f" GROUP BY {', '.join([*names, *exact])}" if names else ""
        weight = f"CAST(sum({WEIGHT}) AS BIGINT) AS {WEIGHT}"
        source = source or quote(self.table)
        return f"SELECT {', '.join([*names, weight])} FROM {source}{groups} HAVING sum({WEIGHT}) <> 0"

    def net(self) -> str:
        """The name of a temporary view of ``net_sql``, as of now."""
        name = f"n_{self.table}"
        self.state.temporary(f"CREATE OR REPLACE TEMP VIEW {quote(name)} AS {self.net_sql()}")
        return name

    def net_sql(self) -> str:
        """A SELECT of the rows as they stand, each with a positive weight; equal ones may come apart.

        Most rows of the largest run stand for themselves: only those that may meet others are brought together.
        """
        if not self.runs:
            return self.current_sql()
        largest = max(self.runs, key=lambda run: run.rows)
        own = f"SELECT {self._typed()} FROM {largest.name}"
        rest = " UNION ALL ".join([f"SELECT * FROM ({own}) WHERE {WEIGHT} <= 0", *self._parts(without=largest)])
        key = hash_sql(self.primary)
        met = f"SELECT * FROM {quote(self.table)} WHERE {key} IN (SELECT h FROM meeting)"
        return (
            f"WITH meeting AS MATERIALIZED (SELECT DISTINCT {key} AS h FROM ({rest}))"
            f" SELECT * FROM ({own}) WHERE {key} NOT IN (SELECT h FROM meeting)"
            f" UNION ALL SELECT * FROM ({self.current_sql(f'({met})')})"
        )

    def _living(self, source: str) -> str:
        return f"SELECT * FROM ({self.current_sql(source)}) WHERE ({self.dead}) IS NOT TRUE"

    @property
    def is_searched(self) -> bool:
        """Whether a step looks its rows up."""
        return bool(self.runs) or self.aside_rows > 0 or self.open_rows > self.state.open_rows_max // SEARCHED_SHARE

    @property
    def rows(self) -> int:
        """Stored rows, those included that cancel out."""
        return self.open_rows + self.aside_rows + sum(run.rows for run in self.runs)

    @property
    def bytes(self) -> int:
        """What it takes on disk; of open rows, about."""
        return (self.open_rows + self.aside_rows) * OPEN_ROW_BYTES + sum(run.bytes for run in self.runs)

    def count(self) -> None:
        """Find out how many rows are open, and set aside."""
        self.open_rows = self._count(self._open)
        if self.state.columns(self.home, aside_table(self.table)):
            self.aside_rows = self._count(self._aside)

    def _count(self, part: str) -> int:
        return int((self.state.row(f"SELECT count(*) FROM {part}") or (0,))[0])

    @property
    def _open(self) -> str:
        return f"{quote(self.home)}.{quote(open_table(self.table))}"

    @property
    def _aside(self) -> str:
        return f"{quote(self.home)}.{quote(aside_table(self.table))}"

    def _typed(self) -> str:
        """A run's columns in their own types: Arrow has no name for some of them."""
        cast = (f"CAST({quote(name)} AS {text}) AS {quote(name)}" for name, text in self.columns)
        return ", ".join([*cast, WEIGHT])


TABLES = (
    "CREATE TABLE IF NOT EXISTS relations (name VARCHAR, key VARCHAR, home VARCHAR)",
    "CREATE TABLE IF NOT EXISTS runs (relation VARCHAR, number BIGINT)",
    "CREATE TABLE IF NOT EXISTS written_by (version VARCHAR)",
)
"""Which relations a state file has, which of their runs are live, and the DuckDB whose hashes they have."""


def open_table(table: str) -> str:
    return f"{table}_open"


def aside_table(table: str) -> str:
    return f"{table}_aside"


def is_ambiguous(text: str) -> bool:
    """Whether different values of a type may compare as equal."""
    return any(name in text for name in _COMPARED_BY_TEXT)


def load(state: State) -> dict[str, Relation]:
    """The relations of a state file with their live runs."""
    live: dict[str, list[int]] = {}
    for name, number in state.connection.execute("SELECT relation, number FROM runs ORDER BY number").fetchall():
        live.setdefault(name, []).append(number)
    found: dict[str, Relation] = {}
    for name, primary, home in state.connection.execute("SELECT name, key, home FROM relations").fetchall():
        index = tuple(json.loads(primary))
        columns = state.columns(home, open_table(name))[:-1]
        runs = [Run(state.run_path(number), index) for number in live.get(name, [])]
        found[name] = Relation(state, name, columns, index, home, runs)
        found[name].count()
        found[name].show()
    return found


def _chained(first: list[pa.RecordBatch], rest: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield from first
    yield from rest
