"""A query's answer: its rows, the position they are true at, and every form a person wants them in.

Rows are fetched once. Up to 64 MB they stay in memory; beyond, they go to a temporary file that lives as long
as the Result and is mapped, so memory stays bounded and every form shows the same rows.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from headwater.log.quarantine import Damage

MEMORY_BYTES_MAX = 64 * 1024 * 1024
SHOWN_ROWS = 20
_BATCH_ROWS = 122_880


class Result:
    """The rows of one query at one position.

    ``position`` is the commit whose published state was read; ``input_position`` the commit at which tables
    were read, and of which every view in the query is a true picture (equal to ``position`` without views).
    ``missing``: damaged records that the caller asked to leave out; empty otherwise.
    ``notices``: tables in the query whose newest rows are not all of the source's, and why: one is being copied again,
    or has rows that could not be read, or is not captured any more.
    ``shown_rows`` is how many rows the forms for people show.
    """

    shown_rows = SHOWN_ROWS

    def __init__(
        self,
        text: str,
        table: pa.Table,
        types: list[str],
        position: int,
        input_position: int,
        *,
        missing: Sequence[Damage] = (),
        notices: Sequence[str] = (),
    ) -> None:
        self.text = text
        self.types = types
        self.position = position
        self.input_position = input_position
        self.missing = tuple(missing)
        self.notices = tuple(notices)
        self._table = table

    @property
    def columns(self) -> list[str]:
        return list(self._table.column_names)

    @property
    def rows(self) -> int:
        """How many rows the answer has."""
        return int(self._table.num_rows)

    def __len__(self) -> int:
        return self.rows

    def arrow(self) -> pa.Table:
        """The rows as a pyarrow Table."""
        return self._table

    def reader(self) -> pa.RecordBatchReader:
        """The rows as a stream of record batches."""
        return self._table.to_reader()

    def pl(self) -> pl.DataFrame:
        """The rows as a Polars DataFrame."""
        import polars as pl

        frame = pl.from_arrow(self._table)
        assert isinstance(frame, pl.DataFrame)
        return frame

    def df(self) -> pd.DataFrame:
        """The rows as a pandas DataFrame; integers with NULL stay integers (nullable types)."""
        frame: pd.DataFrame = self._table.to_pandas(integer_object_nulls=True)
        return frame

    def fetchall(self) -> list[tuple[Any, ...]]:
        """The rows as Python tuples; for small answers."""
        columns = [column.to_pylist() for column in self._table.columns]
        return list(zip(*columns, strict=True)) if columns else []

    def scalar(self) -> Any:
        """The one value of a one-row, one-column answer."""
        if self.rows != 1 or len(self.columns) != 1:
            raise ValueError(f"the answer has {self.rows} rows and {len(self.columns)} columns, not one value")
        return self._table.column(0)[0].as_py()

    def texts(self, limit: int = SHOWN_ROWS, offset: int = 0) -> list[tuple[str | None, ...]]:
        """Rows as exact text (NULL is None): no float in place of a decimal, infinities by name."""
        # A copy: DuckDB 2.0 refuses a struct column that is a slice of a larger one.
        part = self._table.take(pa.array(range(offset, min(offset + limit, self.rows)), pa.int64()))
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.register("part", part)
            return connection.execute("SELECT CAST(COLUMNS(*) AS VARCHAR) FROM part").fetchall() if self.columns else []

    @cached_property
    def _shown(self) -> list[tuple[str | None, ...]]:
        return self.texts(self.shown_rows)

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        from headwater.lake.plain import plain_table

        return plain_table(self.columns, self.types, self._shown, self.rows, self.position, self.notices)

    def _repr_html_(self) -> str:
        from headwater.lake.html import render

        return render(
            columns=self.columns,
            types=self.types,
            rows=self._shown,
            total=self.rows,
            shown=len(self._shown),
            position=self.position,
            notices=self.notices,
        )


def fetch(relation: duckdb.DuckDBPyRelation) -> pa.Table:
    """All rows of a query: in memory up to the limit, beyond it in a mapped temporary file."""
    reader = relation.to_arrow_reader(_BATCH_ROWS)
    batches: list[pa.RecordBatch] = []
    size = 0
    rest = _batches(reader)
    for batch in rest:
        batches.append(batch)
        size += batch.nbytes
        if size > MEMORY_BYTES_MAX:
            return _spill(reader.schema, batches, rest)
    return pa.Table.from_batches(batches, schema=reader.schema)


def _batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """The reader's batches. What DuckDB meets after the first of them comes as an error of Arrow's: here as its own."""
    try:
        yield from reader
    except (OSError, pa.ArrowException) as error:
        raise duckdb.Error(str(error)) from error


def _spill(schema: pa.Schema, batches: list[pa.RecordBatch], rest: Iterator[pa.RecordBatch]) -> pa.Table:
    descriptor, name = tempfile.mkstemp(prefix="headwater-result-", suffix=".arrow")
    os.close(descriptor)
    path = Path(name)
    try:
        with pa.OSFile(name, "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            while batches:
                writer.write_batch(batches.pop(0))
            for batch in rest:
                writer.write_batch(batch)
        mapped = pa.memory_map(name)
        return pa.ipc.open_file(mapped).read_all()
    finally:
        path.unlink()  # the mapping keeps the bytes; nothing is left behind when the process dies
