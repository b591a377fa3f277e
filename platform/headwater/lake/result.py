"""A query's answer: its rows, the position they are true at, and every form a person wants them in.

Up to 16 MB, rows are fetched at once. Of a larger answer the first rows and the number of all of them are known; the
rest is asked for when somebody wants it, at the same position, which is kept readable until then. Beyond 64 MB it goes
to a temporary file that lives as long as the Result and is mapped, so memory stays bounded.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from headwater.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from headwater.lake.lake import Lake
    from headwater.lake.lineage import Lineage
    from headwater.lake.plan import Plan
    from headwater.lake.plot.encoding import Kind
    from headwater.lake.resolve import Reference
    from headwater.lake.watch import Watch
    from headwater.log.quarantine import Damage

MEMORY_BYTES_MAX = 64 * 1024 * 1024
FETCHED_BYTES_MAX = 16 * 1024 * 1024
"""A larger answer is fetched when it is asked for: showing it costs reading so much, and counting."""
HEAD_ROWS = 10_000
"""Rows that are kept of an answer which is not fetched yet: as many as a person may have shown."""
SHOWN_ROWS = 20
_BATCH_ROWS = 122_880

Params = Sequence[Any] | Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What was asked, and of what: enough to ask again. Without a text the answer is of several queries."""

    text: str = ""
    params: Params = None
    references: tuple[Reference, ...] = ()


@dataclass(frozen=True)
class Rows:
    """Fetched rows, and how many the answer has: more than those when it is not whole."""

    table: pa.Table
    total: int

    @property
    def whole(self) -> bool:
        return bool(self.table.num_rows == self.total)


class Result:
    """The rows of one query at one position.

    ``position`` is the commit whose published state was read; ``input_position`` the commit at which tables
    were read, and of which every view in the query is a true picture (equal to ``position`` without views).
    ``missing``: damaged records that the caller asked to leave out; empty otherwise.
    ``notices``: tables in the query whose newest rows are not all of the source's, and why: one is being copied again,
    or has rows that could not be read, or is not captured any more; and views that are not kept up to date now.
    ``shown_rows`` is how many rows the forms for people show.

    Rows of a large answer come when they are asked for (``arrow``, ``pl``, ``df``, ``reader``, ``fetchall``): those of
    ``position``, or Expired when it was held for longer than ``reader_expiry_s``. Thread-safe.
    """

    shown_rows = SHOWN_ROWS

    def __init__(
        self,
        lake: Lake,
        question: Asked,
        rows: Rows,
        types: list[str],
        position: int,
        input_position: int,
        *,
        missing: Sequence[Damage] = (),
        notices: Sequence[str] = (),
    ) -> None:
        self.lake = lake
        self.question = question
        self.types = types
        self.position = position
        self.input_position = input_position
        self.missing = tuple(missing)
        self.notices = tuple(notices)
        self._rows = rows
        self._held: Lake | None = None if rows.whole else lake.at(position)
        self._lock = threading.Lock()

    @property
    def text(self) -> str:
        """The query."""
        return self.question.text

    @property
    def _table(self) -> pa.Table:
        """All rows."""
        with self._lock:
            if self._held is not None:
                answer = self._held.sql(self.text, params=self.question.params, whole=True)
                self._rows = answer._rows
                self._held.close()
                self._held = None
            return self._rows.table

    @property
    def columns(self) -> list[str]:
        return list(self._rows.table.column_names)

    @property
    def rows(self) -> int:
        """How many rows the answer has."""
        return self._rows.total

    @property
    def fetched(self) -> bool:
        """Whether all rows are here already."""
        return self._rows.whole

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
        end = min(offset + limit, self.rows)
        table = self._rows.table if end <= self._rows.table.num_rows else self._table
        part = table.take(pa.array(range(offset, end), pa.int64()))
        with duckdb.connect() as connection:  # not `duck.connect`, which keeps no order
            connection.execute("SET TimeZone = 'UTC'")
            connection.register("part", part)
            return connection.execute("SELECT CAST(COLUMNS(*) AS VARCHAR) FROM part").fetchall() if self.columns else []

    # ---- what else may be asked of the same query

    def live(self, *, interval: float = 0.5) -> Watch:
        """The same query with the same parameters, followed from now on: in a notebook, a live table."""
        return self.lake.watch(self._query, params=self._named_params, interval=interval)

    def chart(
        self,
        *,
        kind: Kind | None = None,
        x: str | None = None,
        y: str | Sequence[str] | None = None,
        color: str | None = None,
        **more: Any,
    ) -> Any:
        """These rows as a chart, at their position (``lake.chart`` follows); arguments as ``Lake.chart`` has them.

        Of an answer that is not fetched the engine draws it where the rows are.
        """
        from headwater.lake.chart import chart_of

        options: dict[str, Any] = {"kind": kind, "x": x, "y": y, "color": color, **more}
        if self.fetched:
            return chart_of(self._table, timezone=self.lake.log.timezone, position=self.position, **options)
        return self.lake.at(self.position).chart(self._query, params=self._named_params, **options)

    def history(self, key: Any) -> Result:
        """All versions of one row of the table or view that the query reads, by its key (see ``Lake.history``).

        UsageError when it reads several.
        """
        names = sorted({reference.topic.name for reference in self.question.references})
        if len(names) != 1:
            raise UsageError(
                f"the query reads {len(names)} tables: {', '.join(names) or 'none'}",
                todo="Write lake.history(NAME, key).",
            )
        return self.lake.history(names[0], key)

    def explain(self) -> Plan:
        """How the query would be maintained as a view, and how the engine ran it just now. Creates nothing."""
        from headwater.lake.plan import explain

        return explain(self)

    def lineage(self) -> Lineage:
        """Which topics, views and columns the answer was made of, and at which position."""
        from headwater.lake.lineage import of_result

        return of_result(self)

    @property
    def _query(self) -> str:
        """The text, for what asks anew. UsageError when there is none."""
        if not self.text:
            raise UsageError("these rows are not of one query", todo="Ask for what they were made of.")
        return self.text

    @property
    def _named_params(self) -> Mapping[str, Any] | None:
        """The parameters by name. UsageError where they were given as a list."""
        params = self.question.params
        if not params:
            return None
        if not isinstance(params, Mapping):
            raise UsageError("the query's parameters have no names", todo="Write $name, and give params={'name': ...}.")
        return params

    # ---- for people

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


def fetch(relation: duckdb.DuckDBPyRelation, *, whole: bool, ordered: bool = False) -> Rows:
    """All rows of a query; without ``whole``, of a large answer the first ones and the number of all.

    ``ordered``: it sorts its rows last. The first of so many cost far less to find than all of them to sort.
    """
    if ordered and not whole:
        first = relation.limit(HEAD_ROWS + 1).to_arrow_table()
        if first.num_rows <= HEAD_ROWS:
            return Rows(first, first.num_rows)
        total = _count(relation)
        if first.nbytes / first.num_rows * total > FETCHED_BYTES_MAX:
            return Rows(_head(first), total)
    reader = relation.to_arrow_reader(_BATCH_ROWS)
    batches: list[pa.RecordBatch] = []
    size = 0
    rest = _batches(reader)
    for batch in rest:
        batches.append(batch)
        size += batch.nbytes
        if size > (MEMORY_BYTES_MAX if whole else FETCHED_BYTES_MAX):
            break
    else:
        table = pa.Table.from_batches(batches, schema=reader.schema)
        return Rows(table, table.num_rows)
    if whole:
        table = _spill(reader.schema, batches, rest)
        return Rows(table, table.num_rows)
    reader.close()
    return Rows(_head(pa.Table.from_batches(batches, schema=reader.schema)), _count(relation))


def _head(table: pa.Table) -> pa.Table:
    """A copy: a slice would keep all rows in memory."""
    return table.take(pa.array(range(min(HEAD_ROWS, table.num_rows)), pa.int64()))


def _count(relation: duckdb.DuckDBPyRelation) -> int:
    return int(relation.aggregate("count(*)").fetchall()[0][0])


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
