"""Files of records, read in pieces of a fixed number of rows: CSV, JSON lines, Parquet. Memory holds one piece.

    bytes ──▶ blocks (pyarrow's streaming readers) ──▶ pieces of ``rows`` rows ──▶ frames of text or typed columns

The same file always falls into the same pieces: that is what a load that was killed goes on by. Rows are counted from
1, a CSV's header not being one. CSV: nothing is NULL, ``""`` an empty text. JSON: a number is read digit by digit.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater import default
from headwater.catalog.records import Topic
from headwater.client import door
from headwater.client.columns import Rows
from headwater.client.convert import convert
from headwater.client.frames import Frame, Original, of_table
from headwater.client.text import MARK, Text
from headwater.errors import InvalidRecords, UsageError
from headwater.types import quote

Format = Literal["csv", "jsonl", "parquet"]

BLOCK_BYTES = 4 << 20
"""What a reader takes at a time; a single line must fit into it."""

_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}


def format_of(path: Path | None, given: str | None) -> Format:
    """The format as given, or by the file's name; UsageError when neither says it."""
    for known in get_args(Format):
        if known == given:
            return known  # type: ignore[no-any-return]
    if given is not None:
        raise UsageError(f"{given!r} is no format", todo="Use csv, jsonl or parquet.")
    suffixes = [] if path is None else [each for each in path.suffixes if each != ".gz"]
    if suffixes and suffixes[-1].lower() in _SUFFIXES:
        return _SUFFIXES[suffixes[-1].lower()]
    raise UsageError("what the rows are written in is not known", todo="Say --format csv, jsonl or parquet.")


def pieces(stream: IO[bytes], form: Format, topic: Topic, rows: int) -> Iterator[Frame]:
    """Frames of ``rows`` rows each, the last one shorter. InvalidRecords when the file itself is broken."""
    try:
        match form:
            case "csv":
                yield from _csv(stream, rows)
            case "jsonl":
                yield from _json_lines(stream, topic, rows)
            case "parquet":
                yield from _parquet(stream, rows)
    except (pa.ArrowException, OSError, EOFError) as error:
        raise InvalidRecords(f"the file cannot be read: {error}", where=topic.name) from error


def opened(path: Path) -> IO[bytes]:
    """The file, unpacked when its name ends in ``.gz``."""
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


# ---- CSV


def _csv(stream: IO[bytes], rows: int) -> Iterator[Frame]:
    lines = iter(lambda: stream.readline().decode("utf-8-sig", errors="replace"), "")
    names = next(csv.reader(lines), [])
    if not names or len(set(names)) < len(names):
        raise InvalidRecords("the first line of a CSV names its columns, each once", where=", ".join(names))
    torn: list[Any] = []
    blocks = _blocks(stream, names, delimiter=",", torn=torn)
    for first, piece in _cut(_with_torn(blocks, names, torn), rows):
        yield _texts(piece, names, first)


_TORN = " torn"
"""Name of the column that holds a row which has not the header's number of values; a header cannot be called so."""


def _blocks(stream: IO[bytes], names: list[str], *, delimiter: str, torn: list[Any] | None) -> Iterator[pa.Table]:
    """Blocks of bytes columns. ``torn`` collects rows with another number of values (CSV), None: one value a line."""
    from pyarrow import csv as arrow_csv

    def keep(row: Any) -> str:
        assert torn is not None
        torn.append(row)
        return "skip"

    lined = torn is None
    parse = arrow_csv.ParseOptions(
        delimiter=delimiter,
        quote_char=False if lined else '"',
        newlines_in_values=not lined,
        ignore_empty_lines=not lined,
        invalid_row_handler=None if lined else keep,
    )
    convert = arrow_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.binary()),
        null_values=[""],
        strings_can_be_null=not lined,
        quoted_strings_can_be_null=False,
    )
    read = arrow_csv.ReadOptions(column_names=names, use_threads=False, block_size=BLOCK_BYTES)
    head = stream.read(1)
    if not head:
        return
    source = pa.PythonFile(_Rest(head, stream), mode="r")
    for batch in arrow_csv.open_csv(source, read_options=read, parse_options=parse, convert_options=convert):
        yield pa.Table.from_batches([batch])


class _Rest:
    """A stream of which the first byte was looked at: an empty one is no error here."""

    closed = False

    def __init__(self, head: bytes, stream: IO[bytes]) -> None:
        self._head = head
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        head, self._head = self._head[:size] if size >= 0 else self._head, b""
        return head + self._stream.read(size - len(head) if size >= 0 else -1)

    def close(self) -> None:
        pass


def _with_torn(blocks: Iterator[pa.Table], names: list[str], torn: list[Any]) -> Iterator[pa.Table]:
    """Torn rows back in their places, as rows of NULL with their text beside them."""
    first = 1
    for block in blocks:
        count = 0
        while count < len(torn) and torn[count].number < first + block.num_rows + count:
            count += 1
        yield _placed(block, first, torn[:count])
        first += block.num_rows + count
        del torn[:count]
    if torn:
        nothing = pa.table({name: pa.nulls(0, pa.binary()) for name in names})
        yield _placed(nothing, first, torn)


def _placed(block: pa.Table, first: int, torn: list[Any]) -> pa.Table:
    total = block.num_rows + len(torn)
    places = np.array([row.number - first for row in torn], dtype=np.int64)
    whole = np.ones(total, dtype=bool)
    whole[places] = False
    texts = np.full(total, None, dtype=object)
    texts[places] = [row.text.encode(errors="replace") for row in torn]
    indices = pa.array(np.cumsum(whole) - 1, mask=~whole)
    return block.take(indices).append_column(_TORN, pa.array(texts, pa.binary()))


def _texts(piece: pa.Table, names: list[str], first: int) -> Frame:
    torn = piece.column(_TORN)
    rows = np.flatnonzero(torn.is_valid().to_numpy())
    plain = piece.select(names)

    def originals(chosen: Rows) -> list[Original]:
        texts = torn.take(pa.array(chosen)).to_pylist()
        values = plain.take(pa.array(chosen)).to_pylist()
        return [(text, "csv") if text is not None else _as_object(row) for text, row in zip(texts, values, strict=True)]

    return Frame(
        rows=piece.num_rows,
        columns={name: Text(plain.column(name)) for name in names},
        holding=lambda _: np.arange(piece.num_rows),
        originals=originals,
        broken=[("the row", rows, f"has not the {len(names)} values of the header")],
        first=first,
    )


def _as_object(row: dict[str, bytes | None]) -> Original:
    """The row as an object of texts; as a line of its bytes when they are no text."""
    try:
        texts = {name: None if value is None else value.decode() for name, value in row.items()}
    except UnicodeDecodeError:
        return b",".join(b"" if v is None else b'"' + v.replace(b'"', b'""') + b'"' for v in row.values()), "csv"
    return json.dumps(texts, ensure_ascii=False).encode(), "json"


# ---- JSON lines


def _json_lines(stream: IO[bytes], topic: Topic, rows: int) -> Iterator[Frame]:
    # No JSON line holds the separator, a raw control character: every line is one value of one column.
    for first, piece in _cut(_blocks(stream, ["v"], delimiter="\x01", torn=None), rows):
        yield of_json(pa.concat_arrays(piece.column("v").chunks), topic, first)


def of_json(lines: pa.Array, topic: Topic, first: int = 1) -> Frame:
    """JSON objects, one a line (bytes), as columns of the topic: numbers with all their digits, text as text."""
    kinds = {field.name: field.declared_type for field in topic.schema.fields} | door.METADATA[topic.kind]
    text = convert(pa.chunked_array([lines]), "VARCHAR", "UTC")[0]  # NULL where it is not UTF-8
    connection = default.connection()
    connection.register("lines", pa.table({"v": text, "line": pa.array(np.arange(len(text)))}))
    try:
        connection.execute(f"CREATE OR REPLACE TEMP TABLE marked AS {_MARKED}")
        keys = connection.sql("SELECT line, unnest(json_keys(m)) AS name FROM marked").to_arrow_table()
        given = [str(name) for name in pc.unique(keys.column("name")).to_pylist()]
        known = [name for name in given if name in kinds]
        columns = [
            f"m IS NULL AS {quote(_TORN)}",
            *(f"{_value_sql(name, kinds[name])} AS {quote(name)}" for name in known),
        ]
        found = connection.sql(f"SELECT {', '.join(columns)} FROM marked").to_arrow_table()
    finally:
        connection.unregister("lines")
    blank = pc.equal(pc.binary_length(pc.fill_null(text, "")), 0).to_numpy(zero_copy_only=False)
    blank &= pc.equal(pc.binary_length(lines), 0).to_numpy(zero_copy_only=False)
    torn = np.flatnonzero(found.column(_TORN).to_numpy().astype(bool) & ~blank)
    strange: dict[str, Any] = {name: [None] * len(text) for name in given if name not in kinds}
    frame = Frame(
        rows=len(text),
        columns={name: Text(found.column(name), marked=True) for name in known} | strange,
        holding=lambda name: keys.filter(pc.equal(keys.column("name"), name)).column("line").to_numpy(),
        originals=lambda rows: [(lines[int(row)].as_py(), "json" if row not in torn else "text") for row in rows],
        broken=[("the line", torn, "is not a JSON object")],
        unit="line",
        first=first,
    )
    return replace(frame, skipped=np.flatnonzero(blank))


_TOKENS = r"""("(?:[^"\\]|\\.)*")|(-?[0-9][-+.0-9eE]*|true|false)"""
_MARKED = rf"""SELECT line, CASE WHEN json_valid(v) AND json_type(v) = 'OBJECT' AND NOT contains(v, '\u0002') THEN
    replace(replace(replace(regexp_replace(v, '{_TOKENS}', '\1' || chr(2) || '\2' || chr(3), 'g'),
        chr(2) || chr(3), ''), chr(2), '"\u0002'), chr(3), '"') END AS m FROM lines"""
"""DuckDB reads a JSON number as a double; as a marked text it keeps every digit, and its being a number."""


def _value_sql(name: str, kind: str) -> str:
    path = "'$." + '"' + name.replace('"', '\\"').replace("'", "''") + '"' + "'"
    if kind in ("JSON", "MAP"):
        value = f"json_extract(m, {path})::VARCHAR"
        unmarked = rf"""regexp_replace({value}, '"\\u0002([^"]*)"', '\1', 'g')"""
        return f"CASE WHEN {value} <> 'null' THEN {unmarked} END"
    depth = kind.count("[]")
    if not depth:
        return f"json_extract_string(m, {path})"
    spec = "[" * depth + '"VARCHAR"' + "]" * depth
    # What is no list becomes one of a bare mark, which no type can hold.
    whole = f"json_extract(m, {path})"
    listed = f"json_transform({whole}, '{spec}')"
    strange = "[" * depth + f"'{MARK}'" + "]" * depth
    return f"CASE WHEN json_type({whole}) = 'ARRAY' THEN {listed} WHEN json_type({whole}) <> 'NULL' THEN {strange} END"


# ---- Parquet


def _parquet(stream: IO[bytes], rows: int) -> Iterator[Frame]:
    from pyarrow import parquet

    if not stream.seekable():
        raise UsageError("Parquet is read from its end, so it cannot come through a pipe", todo="Give a file.")
    file = parquet.ParquetFile(stream)
    blocks = (pa.Table.from_batches([batch]) for batch in file.iter_batches(batch_size=min(rows, 65_536)))
    for first, piece in _cut(blocks, rows):
        yield replace(of_table(piece), first=first)


def _cut(blocks: Iterator[pa.Table], rows: int) -> Iterator[tuple[int, pa.Table]]:
    """Pieces of exactly ``rows`` rows, each with the number of its first one, from 1."""
    first, held, waiting = 1, [], 0
    for block in blocks:
        held.append(block)
        waiting += block.num_rows
        while waiting >= rows:
            whole = pa.concat_tables(held)
            yield first, whole.slice(0, rows)
            first, held, waiting = first + rows, [whole.slice(rows)], waiting - rows
    if waiting:
        yield first, pa.concat_tables(held)
