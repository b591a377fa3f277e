"""Query answers as text that loses nothing: CSV, JSON, Parquet, a table.

Exact means: integers with all digits (in JSON as text beyond 2^53, which many readers round), decimals never
as a float (in JSON as text), bytes as hexadecimal, times and every other type in DuckDB's own text, NULL told
from an empty text (CSV: nothing against ""; JSON: null).
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import duckdb

from headwater import duck
from headwater.errors import StorageError, UsageError
from headwater.types import lift_sql, lower_sql, over_leaves, quote

if TYPE_CHECKING:
    import pyarrow as pa

    from headwater.lake import Result
    from headwater.schema import Schema

Format = Literal["table", "csv", "json", "parquet"]
_NUMBERS = frozenset({"tinyint", "smallint", "integer", "bigint", "hugeint", "utinyint", "usmallint", "uinteger"})
_JSON_LEAVES = _NUMBERS | {"ubigint", "uhugeint", "boolean", "float", "double"}
_FETCH_ROWS = 10_000
_SAFE_INTEGER = 1 << 53


def write(result: Result, form: Format, target: Path | None, timezone: str) -> None:
    """Write an answer to ``target``, or to stdout. A file appears whole or not at all."""
    if target is None:
        if form == "parquet" and sys.stdout.isatty():
            raise UsageError("Parquet is no text for a terminal", todo="Give a file with -o FILE, or redirect.")
        if form in ("table", "json"):
            _write_text(result, form, sys.stdout, timezone)
            return
        with tempfile.TemporaryDirectory(prefix="headwater-") as folder:
            draft = Path(folder) / "answer"
            _write_file(result, form, draft, timezone)
            with draft.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
        return
    if not target.parent.is_dir():
        raise UsageError(f"there is no folder {target.parent}", todo="Make it first, or give another -o.")
    draft = target.with_name(target.name + ".part")
    try:
        _write_file(result, form, draft, timezone)
        draft.replace(target)
    except (OSError, duckdb.IOException) as error:
        raise StorageError(
            f"the answer cannot be written: {error}", where=str(target), todo="Nothing was left behind; try again."
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def json_lines(records: pa.Table, schema: Schema, timezone: str) -> None:
    """Each record of a topic as one JSON object on a line of its own, on stdout."""
    types = {each.name: each.type for each in schema.fields}
    with _scratch(timezone) as connection:
        connection.register("records", records)
        lifted = (
            f"{lift_sql(name, types[name])} AS {quote(name)}" if name in types else quote(name)
            for name in records.column_names
        )
        connection.execute(f"CREATE TEMP VIEW answer AS SELECT {', '.join(lifted)} FROM records")
        for row in _json_rows(connection, _columns(connection)):
            sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def _write_file(result: Result, form: Format, path: Path, timezone: str) -> None:
    if form in ("csv", "parquet"):
        options = "FORMAT csv, HEADER" if form == "csv" else "FORMAT parquet, COMPRESSION zstd"
        with _scratch(timezone) as connection:
            columns = _columns(connection, result.arrow(), result.types)
            express = _csv_sql if form == "csv" else _file_sql
            values = ", ".join(f"{express(name, kind)} AS {quote(name)}" for name, kind in columns)
            connection.execute(f"COPY (SELECT {values} FROM answer) TO $path ({options})", {"path": str(path)})
    else:
        with path.open("w", encoding="utf-8") as file:
            _write_text(result, form, file, timezone)


def _write_text(result: Result, form: Format, stream: IO[str], timezone: str) -> None:
    if form == "table":
        stream.write(f"{result}\n")
        return
    with _scratch(timezone) as connection:
        columns = _columns(connection, result.arrow(), result.types)
        rows = _json_rows(connection, columns)
        head = {
            "position": result.position,
            "input_position": result.input_position,
            "columns": [{"name": name, "type": kind} for name, kind in columns],
        }
        stream.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "rows": [')
        separator = "\n"
        for row in rows:
            stream.write(separator + json.dumps(row, ensure_ascii=False))
            separator = ",\n"
        stream.write("\n]}\n")


def _json_rows(connection: duckdb.DuckDBPyConnection, columns: Sequence[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """Rows as values that ``json`` writes exactly."""
    names = [name for name, _ in columns]
    values = ", ".join(f"{_json_sql(name, kind)} AS {quote(name)}" for name, kind in columns)
    cursor = connection.execute(f"SELECT {values} FROM answer")
    while fetched := cursor.fetchmany(_FETCH_ROWS):
        for row in fetched:
            yield {name: _plain(value) for name, value in zip(names, row, strict=True)}


def _columns(
    connection: duckdb.DuckDBPyConnection, rows: pa.Table | None = None, types: Sequence[str] | None = None
) -> list[tuple[str, str]]:
    """Names and types of the relation ``answer``, which ``rows`` become; a name that came twice is told apart.

    ``types`` are the query's own: Arrow does not know a HUGEINT, for example.
    """
    if rows is not None:
        connection.register("answer", rows)
    relation = connection.sql("FROM answer")
    return list(zip(relation.columns, types or [str(kind) for kind in relation.types], strict=True))


def _value(name: str, kind: str) -> str:
    """A column of the Arrow table as its DuckDB type: a HUGEINT travels as DECIMAL(38,0), a UUID as text."""
    return f"CAST({quote(name)} AS {kind})" if kind in ("HUGEINT", "UUID") else quote(name)


def _csv_sql(name: str, kind: str) -> str:
    value = _value(name, kind)
    return f"lower(hex({value}))" if kind == "BLOB" else f"CAST({value} AS VARCHAR)"


def _json_sql(name: str, kind: str) -> str:
    value = _value(name, kind)
    if "BLOB" in kind:
        with suppress(ValueError):  # a type that files cannot hold, such as a MAP
            value = over_leaves(value, kind, lambda leaf, text: f"lower(hex({leaf}))" if text == "BLOB" else leaf)
    return f"CAST({value} AS {_json_type(duckdb.sqltype(kind))})"


def _file_sql(name: str, kind: str) -> str:
    """As the lake's own files have it, where they can hold it: Parquet loses an interval's microseconds."""
    if kind == "UUID":
        return _value(name, kind)
    try:
        return lower_sql(name, kind)
    except ValueError:
        return quote(name)


def _json_type(kind: Any) -> str:
    """The type to fetch as: numbers JSON can hold exactly stay, containers keep their shape, the rest is text."""
    if kind.id in _JSON_LEAVES:
        return str(kind)
    if kind.id in ("list", "array"):
        return f"{_json_type(kind.children[0][1])}[]"
    if kind.id == "struct":
        fields = ", ".join(f"{quote(name)} {_json_type(child)}" for name, child in kind.children)
        return f"STRUCT({fields})"
    return "VARCHAR"


def _plain(value: Any) -> Any:
    """What no JSON reader is sure to hold becomes text: NaN, infinities, integers beyond a double's 2^53."""
    if type(value) is int and abs(value) > _SAFE_INTEGER:
        return str(value)
    if isinstance(value, float) and value - value != 0.0:
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return value


def _scratch(timezone: str) -> duckdb.DuckDBPyConnection:
    connection = duck.connect(timezone=timezone)
    connection.execute("SET preserve_insertion_order = true")  # the answer's ORDER BY was its last step
    return connection
