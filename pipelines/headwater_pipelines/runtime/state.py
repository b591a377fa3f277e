"""The state seam: the only way to the pipeline's private DuckDB file.

Every call that changes the file passes a named crash point before and after it. Temporary tables are not
state: they are gone with the process and are made without crash points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from headwater import duck
from headwater.errors import HeadwaterError, OwnedElsewhere, StateMismatch
from headwater.failpoint import hit
from headwater.types import quote

FILE = "main.duckdb"
PART_ROWS = 250_000
"""Rows of a result that is read in parts: bounds what one holds in memory."""
WAL_BYTES_MAX = 64 << 20
"""A checkpoint stalls a commit by 0.1 to 0.3 s; below this size it waits for an idle moment."""

T = TypeVar("T")


class State:
    """An open state file. Not thread-safe: one worker, one connection."""

    def __init__(self, path: Path, *, timezone: str, memory_limit: str = "", threads: int = 0) -> None:
        self.path = path
        spill = path.parent / "spill"
        try:
            self.connection = duck.connect(
                path, timezone=timezone, memory_limit=memory_limit, threads=threads, temp_directory=spill
            )
        except duckdb.Error as error:
            raise _cannot_open(path, error) from error
        # The worker chooses when to checkpoint; DuckDB's own trigger would stall a step.
        self.connection.execute("SET wal_autocheckpoint = '1TB'")

    def write(self, sql: str, parameters: list[Any] | None = None) -> int:
        """Run a statement that changes stored tables; returns the number of rows it changed."""
        return self._point("write", lambda: _count(self.connection.execute(sql, parameters)))

    def temporary(self, sql: str, arrived: pa.Table | None = None) -> int:  # noqa: ARG002
        """Run a statement over temporary tables; returns the number of rows.

        In the statement ``arrived`` is that table: DuckDB finds the argument by its name. To register it and
        take that back costs twice the usual statement.
        """
        return _count(self.connection.execute(sql))

    def query(self, sql: str) -> pa.Table:
        """The result of a SELECT."""
        return self.connection.sql(sql).to_arrow_table()

    def parts(self, sql: str) -> Iterator[pa.Table]:
        """The result of a SELECT in parts of ``PART_ROWS``; between two of them other statements may run."""
        # Row ids of uncommitted rows are not dense, so parts are numbered here.
        numbered = f"SELECT *, (row_number() OVER () - 1) // {PART_ROWS} AS _part FROM ({sql})"
        rows = self.temporary(f"CREATE OR REPLACE TEMP TABLE in_parts AS {numbered}")
        for part in range(-(-rows // PART_ROWS)):
            yield self.query(f"SELECT * EXCLUDE (_part) FROM in_parts WHERE _part = {part}")
        self.temporary("DROP TABLE in_parts")

    def row(self, sql: str) -> tuple[Any, ...] | None:
        """The first row of a SELECT."""
        rows = self.connection.execute(sql).fetchall()  # an unfetched rest would block the next statement
        return rows[0] if rows else None

    def begin(self) -> None:
        self._point("begin", lambda: self.connection.execute("BEGIN"))

    def commit(self) -> None:
        self._point("commit", lambda: self.connection.execute("COMMIT"))

    def rollback(self) -> None:
        """End the transaction without a trace; harmless when there is none."""
        try:
            self._point("rollback", lambda: self.connection.execute("ROLLBACK"))
        except duckdb.TransactionException:
            return  # DuckDB had ended it with the error that brought us here

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


def _count(result: duckdb.DuckDBPyConnection) -> int:
    if not result.description or result.description[0][0] != "Count":
        return 0
    rows = result.fetchall()  # none for a CREATE TABLE without AS
    return int(rows[0][0]) if rows else 0
