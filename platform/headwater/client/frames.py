"""What a caller hands to ``send``, as columns by name: dicts, Arrow, Polars, pandas, anything with Arrow's C stream.

Nothing is converted here; ``convert`` does that, when the topic's types are known.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from headwater import default
from headwater.client.columns import NONE, Rows
from headwater.client.convert import Given
from headwater.client.text import Text
from headwater.errors import UsageError
from headwater.schema import Schema

Original = tuple[bytes, str]
"""A row as it came, and how to read it: ``json``, ``arrow`` (an IPC stream of one row), or only a person can."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Rows as they came. ``unit`` and ``first`` say how a caller counts them: row 0, or line 2 of a file."""

    rows: int
    columns: Mapping[str, Given]
    holding: Callable[[str], Rows]
    """Rows that bring this column at all."""
    originals: Callable[[Rows], list[Original]]
    broken: Sequence[tuple[str, Rows, str]] = ()
    """What is wrong with rows as a whole: where, which rows, and why."""
    skipped: Rows = field(default_factory=lambda: NONE)
    """Rows that are none, such as blank lines; they only count."""
    unit: str = "row"
    first: int = 0

    def with_columns(self, more: Mapping[str, Given]) -> Frame:
        """The same rows with these columns too; an original gets them as well, for it may be sent again."""

        def originals(rows: Rows) -> list[Original]:
            taken = [{name: _at(given, int(row)) for name, given in more.items()} for row in rows]
            return [_beside(*pair) for pair in zip(self.originals(rows), taken, strict=True)]

        return replace(self, columns={**self.columns, **more}, originals=originals)


def of(data: Any, schema: Schema) -> Frame:
    """UsageError when ``data`` is no rows: a mapping is one row, a sequence of mappings many."""
    if isinstance(data, Frame):
        return data
    if hasattr(data, "select_dtypes") and hasattr(data, "columns"):
        return _of_pandas(data)
    table = _as_table(data)
    if table is not None:
        return of_table(table)
    if isinstance(data, Iterable) and not isinstance(data, str | bytes):
        rows = [data] if isinstance(data, Mapping) else data if isinstance(data, Sequence) else list(data)
        return _of_mappings(rows, schema)
    raise UsageError(
        f"{type(data).__name__} holds no rows",
        todo="Send a dict, a list of dicts, or an Arrow, Polars or pandas table.",
    )


def _as_table(data: Any) -> pa.Table | None:
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if type(data).__module__.startswith("polars.") and hasattr(data, "select"):
        return polars_table(data)
    return pa.table(data) if hasattr(data, "__arrow_c_stream__") else None


def of_table(table: pa.Table) -> Frame:
    """Arrow columns, in place."""
    if len(set(table.column_names)) < table.num_columns:
        raise UsageError("two columns have the same name", where=", ".join(table.column_names))
    return Frame(
        rows=table.num_rows,
        columns=dict(zip(table.column_names, table.columns, strict=True)),
        holding=lambda _: np.arange(table.num_rows),
        originals=lambda rows: [_one_row(table, int(row)) for row in rows],
    )


def _of_mappings(rows: Sequence[Any], schema: Schema) -> Frame:
    for kind in set(map(type, rows)):
        if not issubclass(kind, Mapping):
            raise UsageError(f"a row is a mapping of column to value, not a {kind.__name__}")
    columns: dict[str, Given] = {}
    for name in dict.fromkeys(chain.from_iterable(rows)):
        left_out = _default(schema, name)
        columns[str(name)] = [row.get(name, left_out) for row in rows]
    return Frame(
        rows=len(rows),
        columns=columns,
        holding=lambda name: np.array([place for place, row in enumerate(rows) if name in row], dtype=np.int64),
        originals=lambda chosen: [_as_json(rows[int(place)]) for place in chosen],
    )


def _default(schema: Schema, name: str) -> Any:
    """What a row is given that leaves the column out, though others of the same batch have it."""
    if name not in schema.names or (text := schema.field(name).write_default) is None:
        return None
    return default.value(text, schema.field(name).declared_type).as_py()


def _of_pandas(data: Any) -> Frame:
    """Typed columns as Arrow sees them, columns of objects as the objects; the index is no column."""
    if any(not isinstance(name, str) for name in data.columns) or not data.columns.is_unique:
        raise UsageError("column names of a pandas table must be texts, each once", where=str(list(data.columns)))
    columns: dict[str, Given] = {}
    for name in data.columns:
        series = data[name]
        if series.dtype == object:
            columns[name] = series.where(series.notna(), None).tolist()
        else:
            found = pa.array(series, from_pandas=True)
            columns[name] = found if isinstance(found, pa.ChunkedArray) else pa.chunked_array([found])
    return Frame(
        rows=len(data),
        columns=columns,
        holding=lambda _: np.arange(len(data)),
        originals=lambda rows: [_as_json(row) for row in _without_nan(data.iloc[rows]).to_dict("records")],
    )


def _at(given: Given, row: int) -> Any:
    """One value of a column; None for headers, which a letter keeps by themselves."""
    if isinstance(given, list):
        return given[row]
    return given.column[row].as_py() if isinstance(given, Text) else None


def _beside(original: Original, more: Mapping[str, Any]) -> Original:
    """A row as it came with values that were given beside it."""
    data, form = original
    given = {name: value for name, value in more.items() if value is not None}
    if form == "arrow" and given:
        table = pa.ipc.open_stream(data).read_all()
        for name, value in given.items():
            table = table.append_column(name, pa.array([value]))
        return _one_row(table, 0)
    if form == "json" and given:
        added = json.dumps(given, ensure_ascii=False, default=str).encode()[1:]
        head = data.rstrip().removesuffix(b"}").rstrip()
        return head + (added if head.endswith(b"{") else b", " + added), form
    return original


def _without_nan(data: Any) -> Any:
    return data.astype(object).where(data.notna(), None)


def polars_table(data: Any) -> pa.Table:
    """A Polars frame as Arrow, with types that files can hold."""
    import polars as pl
    from polars import selectors

    frame = data.collect() if hasattr(data, "collect") else data
    # 128-bit integers have no Arrow type of their own; a HUGEINT is a decimal in files.
    table: pa.Table = frame.with_columns(selectors.by_dtype(pl.Int128, pl.UInt128).cast(pl.Decimal(38, 0))).to_arrow()
    return table


def _one_row(table: pa.Table, row: int) -> Original:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.slice(row, 1))
    return sink.getvalue().to_pybytes(), "arrow"


def _as_json(row: Mapping[str, Any]) -> Original:
    """Exactly the row as JSON, or else what Python prints of it."""
    try:
        return json.dumps(dict(row), ensure_ascii=False, allow_nan=False).encode(), "json"
    except (TypeError, ValueError):
        return repr(dict(row)).encode(errors="backslashreplace"), "python"
