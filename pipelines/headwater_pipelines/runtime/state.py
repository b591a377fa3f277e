"""The state seam: the only way to the pipeline's private DuckDB file.

Every call that changes the file passes a named crash point before and after it. Temporary tables are not
state: they are gone with the process and are made without crash points.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headwater import duck
from headwater.errors import HeadwaterError, OwnedElsewhere, StateMismatch
from headwater.failpoint import hit
from headwater.types import quote
from headwater_pipelines.runtime import relation
from headwater_pipelines.runtime import runs as files
from headwater_pipelines.runtime.relation import Found, Relation
from headwater_pipelines.runtime.runs import Index, Run

# What it would not copy is planned twice, and that takes longer than to copy a few rows.
warnings.filterwarnings("ignore", message="Arrow output on a DB-API result makes an extra copy")

FILE = "main.duckdb"
PART_ROWS = 250_000
"""Rows of a result that is read in parts: bounds what one holds in memory."""
WAL_BYTES_MAX = 64 << 20
"""A checkpoint stalls a commit by 0.1 to 0.3 s; below this size it waits for an idle moment."""

STATEMENTS_MAX = 2_000
"""So many statements are kept parsed. Those of a step are the same as the last one's, and parsing takes a quarter of
the time of a small one."""

NOT_TRIED = (
    "common_subplan",
    "compressed_materialization",
    "projection_pullup",
    "projection_placement",
    "column_lifetime",
    "duplicate_groups",
    "join_filter_pushdown",
    "common_subexpressions",
    "aggregate_reuse",
    "redundant_order_keys",
    "partial_aggregate_pushdown",
)
"""Of DuckDB's optimizers those that cost a statement over few rows more than they save it: to plan the statements of a
small step takes longer than to run them. ``statistics_propagation`` saves them as much as it costs."""

ARRIVED = "arrived"
"""The name under which statements read change records."""

T = TypeVar("T")


class State:
    """An open state file. Not thread-safe: one worker, one connection."""

    def __init__(
        self, path: Path, *, timezone: str, memory_limit: str = "", threads: int = 0, open_rows_max: int = 0
    ) -> None:
        self.path = path
        self.open_rows_max = open_rows_max or relation.OPEN_ROWS_MAX
        spill = path.parent / "spill"
        try:
            self.connection = duck.connect(
                path, timezone=timezone, memory_limit=memory_limit, threads=threads, temp_directory=spill
            )
        except duckdb.Error as error:
            raise _cannot_open(path, error) from error
        # The worker chooses when to checkpoint; DuckDB's own trigger would stall a step.
        self.connection.execute("SET wal_autocheckpoint = '1TB'")
        # What is in the file is small, and gone soon: to try how it compresses would take half of a checkpoint's time.
        self.connection.execute("SET force_compression = 'uncompressed'")
        # Runs must give types back unchanged. Results that leave for the log have the types of files, which do anyway.
        self.connection.execute("SET arrow_lossless_conversion = true")
        for statement in relation.TABLES:
            self.connection.execute(statement)
        self._statements: dict[str, duckdb.Statement] = {}
        self._briefly = False
        self._require_version(path)
        self.home = "main"
        self.freezes_beside = False
        """Whether ``Merging`` makes runs of full open parts beside the steps; else these do it themselves."""
        self._setup = (timezone, memory_limit, spill)
        self._runs = path.parent / "runs" if str(path) != ":memory:" else Path(tempfile.mkdtemp())
        self._runs.mkdir(exist_ok=True)
        self.temporary_rows = 0
        """Of the largest temporary table that there may be."""
        self._obsolete: list[Run] = []
        self._fresh: list[Path] = []
        """Runs begun in this transaction: a rollback leaves nothing of them."""
        self._numbers = count(1 + max(map(_number, self._runs.iterdir()), default=0))
        self.relations: dict[str, Relation] = relation.load(self)
        self._remove_orphans()

    def _require_version(self, path: Path) -> None:
        """Runs are searched by DuckDB's own hashes, which another version may compute differently."""
        row = self.row("SELECT version FROM written_by")
        if row is None:
            self.connection.execute("INSERT INTO written_by VALUES (?)", [duckdb.__version__])
        elif row[0] != duckdb.__version__:
            self.connection.close()
            raise StateMismatch(
                f"the pipeline's state was written by DuckDB {row[0]}, this is {duckdb.__version__}",
                where=str(path),
                todo="It is rebuilt from the log.",
            )

    def write(self, sql: str, parameters: list[Any] | None = None, arrived: pa.Table | None = None) -> int:  # noqa: ARG002
        """Run a statement that changes stored tables; returns the number of rows it changed.

        In the statement ``arrived`` is that table: DuckDB finds the argument by its name. To register it and
        take that back costs twice the usual statement.
        """
        hit("state.write:before")
        result = _count(self.connection.execute(self.parsed(sql), parameters))
        hit("state.write:after")
        return result

    def temporary(self, sql: str, arrived: pa.Table | None = None, found: Found | None = None) -> int:  # noqa: ARG002
        """Run a statement over temporary tables, ``arrived`` and ``found.sql``; returns the number of rows.

        DuckDB finds what it reads of these by the names here.
        """
        hashes, taken = (found.hashes, found.taken) if found else (None, None)  # noqa: RUF059
        rows = _count(self.connection.execute(self.parsed(sql)))
        self.temporary_rows = max(self.temporary_rows, rows)
        return rows

    def query(self, sql: str) -> pa.Table:
        """The result of a SELECT."""
        return self.connection.sql(self.parsed(sql)).to_arrow_table()

    def numbers(self, sql: str, arrived: pa.Table | None = None) -> npt.NDArray[Any]:  # noqa: ARG002
        """The first column, of numbers, of a SELECT, which may read ``arrived``."""
        return np.asarray(next(iter(self.connection.execute(self.parsed(sql)).fetchnumpy().values())))

    def export(self, sql: str, rows: int) -> Exported:
        """The result of a SELECT in batches of at most ``rows`` rows. Until its end no other statement can run."""
        return self.exported(self.connection.sql(self.parsed(sql)), rows)

    @staticmethod
    def exported(found: duckdb.DuckDBPyRelation, rows: int) -> Exported:
        """The same, of a SELECT on any connection."""
        return Exported(found.to_arrow_reader(rows))

    def parts(self, sql: str, *, few: bool = False) -> Iterator[pa.Table]:
        """The result of a SELECT in parts of ``PART_ROWS``; as ``export``. ``few``: it is known to fit into one."""
        if few:
            table: pa.Table = self.connection.execute(self.parsed(sql)).to_arrow_table()
            if table.num_rows:
                yield table
            return
        for batch in self.export(sql, PART_ROWS):
            yield pa.Table.from_batches([batch])

    def row(self, sql: str) -> tuple[Any, ...] | None:
        """The first row of a SELECT."""
        rows = self.connection.execute(self.parsed(sql)).fetchall()  # an unfetched rest would block the next statement
        return rows[0] if rows else None

    def parsed(self, sql: str) -> duckdb.Statement:
        """The statement of this text, which was parsed when it was first asked for. Names are looked up as it runs."""
        if sql not in self._statements:
            if len(self._statements) >= STATEMENTS_MAX:
                self._statements.clear()
            (self._statements[sql],) = self.connection.extract_statements(sql)
        return self._statements[sql]

    def plan(self, *, briefly: bool) -> None:
        """Plan the statements from now on for few rows, or (as at first) for many, those of every thread."""
        if briefly != self._briefly:
            self.connection.execute(f"SET disabled_optimizers = '{','.join(NOT_TRIED) if briefly else ''}'")
            self._briefly = briefly

    def begin(self) -> None:
        self._point("begin", lambda: self.connection.execute("BEGIN"))

    def commit(self) -> None:
        self._point("commit", lambda: self.connection.execute("COMMIT"))
        self.release()

    def release(self) -> None:
        """Delete the files of runs that others took the place of, once that is committed."""
        for run in self._obsolete:
            self.connection.unregister(run.name)
            run.delete()
        self._obsolete, self._fresh = [], []

    def rollback(self) -> None:
        """End the transaction without a trace; harmless when there is none."""
        with suppress(duckdb.TransactionException):  # DuckDB had ended it with the error that brought us here
            self._point("rollback", lambda: self.connection.execute("ROLLBACK"))
        self.connection.unregister(ARRIVED)
        for path in self._fresh:
            files.delete(path)
        self._obsolete, self._fresh = [], []
        self.relations = relation.load(self)

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file."""
        self._point("checkpoint", lambda: self.connection.execute("CHECKPOINT"))

    @property
    def wal_bytes(self) -> int:
        wal = self.path.with_name(self.path.name + ".wal")
        return wal.stat().st_size if wal.exists() else 0

    def drop_temporary(self) -> None:
        """Give back the memory of temporary tables, after a step that made large ones."""
        query = "SELECT table_name FROM duckdb_tables() WHERE temporary"
        for (name,) in self.connection.execute(query).fetchall():
            self.connection.execute(f"DROP TABLE temp.{quote(name)}")
        self.temporary_rows = 0

    # ---- relations

    def create(self, table: str, columns: Sequence[tuple[str, str]], primary: Index) -> Relation:
        """A new stored relation; ``primary`` is its own key, or every column."""
        made = Relation(self, table, tuple(columns), primary, self.home)
        made.create()
        self.relations[table] = made
        return made

    def drop(self, table: str) -> None:
        """Remove a stored relation, if there is one."""
        if table in self.relations:
            self.relations.pop(table).drop()

    def take(self, filled: Relation, *, keep: bool) -> None:
        """Make a relation that was filled beside this state's own, or remove it."""
        mine = Relation(self, filled.table, filled.columns, filled.primary, filled.home, [*filled.runs])
        mine.open_rows = filled.open_rows
        if keep:
            self.relations[mine.table] = mine
            mine.adopt()
        else:
            mine.discard()

    def new_run(self) -> Path:
        """The place of a run that does not exist yet."""
        return self.run_path(next(self._numbers))

    def fresh_run(self) -> Path:
        """The same, of a run that this transaction makes live."""
        self._fresh.append(self.new_run())
        return self._fresh[-1]

    def run_path(self, number: int) -> Path:
        return self._runs / f"{number}.arrow"

    def obsolete(self, run: Run) -> None:
        """Delete a run's files once this transaction is committed."""
        self._obsolete.append(run)

    @contextmanager
    def apart(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection of its own for work on runs, which may go on beside steps."""
        timezone, memory_limit, spill = self._setup
        connection = duck.connect(timezone=timezone, memory_limit=memory_limit, threads=1, temp_directory=spill)
        connection.execute("SET arrow_lossless_conversion = true")
        try:
            yield connection
        finally:
            connection.close()

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection to this file that reads what is committed, for a thread beside the steps."""
        with closing(self.connection.cursor()) as connection:
            duck.pin(connection, self._setup[0])
            yield connection

    def columns(self, home: str, table: str) -> list[tuple[str, str]]:
        """Names and types of a stored table's columns."""
        query = "SELECT column_name, data_type FROM duckdb_columns() WHERE NOT internal AND table_name = ?"
        query += " AND schema_name = ? AND database_name <> 'temp' ORDER BY column_index"
        found = self.connection.execute(query, [table, home])
        return [(str(name), str(text)) for name, text in found.fetchall()]

    def _remove_orphans(self) -> None:
        """Delete files of runs that no transaction made live."""
        live = {run.number for each in self.relations.values() for run in each.runs}
        for schema in unfinished(self):
            live |= {number for (number,) in self.connection.execute(f"SELECT number FROM {schema}.runs").fetchall()}
        for file in self._runs.iterdir():
            if _number(file) not in live:
                file.unlink()

    def tables(self) -> set[str]:
        """Names of the stored tables that this connection finds without a schema."""
        found = "(schema_name = current_schema() OR list_contains(current_schemas(false), schema_name))"
        query = f"SELECT table_name FROM duckdb_tables() WHERE NOT temporary AND NOT internal AND {found}"
        return {row[0] for row in self.connection.execute(query).fetchall()}

    def close(self) -> None:
        self.connection.close()

    def _point(self, name: str, call: Callable[[], T]) -> T:
        hit(f"state.{name}:before")
        result = call()
        hit(f"state.{name}:after")
        return result


class Exported:
    """Batches of a result. An error on the way is DuckDB's, as it is with a whole result: Arrow makes it an OSError."""

    def __init__(self, reader: pa.RecordBatchReader) -> None:
        self.schema = reader.schema
        self._reader = reader

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._reader:  # noqa: UP028 -- it would close the reader where only this iteration ends
                yield batch
        except OSError as error:
            kind = next((kind for word, kind in _KINDS.items() if str(error).startswith(word)), duckdb.DatabaseError)
            raise kind(str(error)) from error


_KINDS = {"IO Error": duckdb.IOException, "FATAL Error": duckdb.FatalException}
"""What is told apart from errors of the statement, by the beginning of its text."""


def unfinished(state: State) -> list[str]:
    """Schemas in which views were being filled that did not become the live program's."""
    kept = {"main", *(each.home for each in state.relations.values())}
    schemas = state.connection.execute("SELECT schema_name FROM duckdb_schemas() WHERE NOT internal").fetchall()
    return sorted(name for (name,) in schemas if name not in kept)


def _number(file: Path) -> int:
    """The run that a file belongs to."""
    return int(file.name.split(".")[0].split("-")[0])


def _cannot_open(path: Path, error: duckdb.Error) -> HeadwaterError:
    """Another process has the file open: that one must end. Anything else: the file is not to be trusted."""
    if "lock" in str(error):
        return OwnedElsewhere(f"the pipeline's state is open elsewhere: {error}", todo="Stop that process first.")
    return StateMismatch(
        f"the pipeline's state cannot be read: {error}", where=str(path), todo="It is rebuilt from the log."
    )


def remove(path: Path) -> None:
    """Delete a state file with its write-ahead log."""
    for name in (path.name + ".wal", path.name):
        path.with_name(name).unlink(missing_ok=True)
    shutil.rmtree(path.parent / "runs", ignore_errors=True)


def _count(result: duckdb.DuckDBPyConnection) -> int:
    if not result.description or result.description[0][0] != "Count":
        return 0
    rows = result.fetchall()  # none for a CREATE TABLE without AS
    return int(rows[0][0]) if rows else 0
