"""The column decoders against the server: random and extreme values, binary == text == what PostgreSQL says."""

from __future__ import annotations

import json
import random
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.connectors.type_cases import CASES, ODD, TEXT_CASES, TYPES_SQL, Case

from headwater import duck, record, types
from headwater.config import SourceConfig
from headwater_connectors.postgres import catalog, chunks, floats, session
from headwater_connectors.postgres.cells import PAD, Cells
from headwater_connectors.postgres.chunks import Chunk as Pages
from headwater_connectors.postgres.chunks import TableMoved
from headwater_connectors.postgres.columns import ColumnType, column_type
from headwater_connectors.postgres.decoder import Decoder
from headwater_connectors.postgres.known import of_table
from headwater_connectors.postgres.literal import text_sql
from headwater_connectors.postgres.printing import TextNeeded, TypeInfo, Types, printer
from headwater_connectors.postgres.shape import target_of
from headwater_connectors.postgres.transactions import HEADER, Chunk

ROWS = 200


@pytest.fixture
def server(dsn: str) -> Iterator[session.Connection]:
    with session.connect(dsn, "test") as connection:
        connection.execute(TYPES_SQL.encode())
        yield connection


def fill(connection: session.Connection, cases: list[Case], seed: int) -> None:
    """Table ``sample``: a column per case; edges, random values and NULLs."""
    columns = ", ".join(f"c{place} {case[0]}" for place, case in enumerate(cases))
    connection.execute(f"CREATE TABLE sample (id int PRIMARY KEY, {columns})".encode())
    connection.execute("CREATE PUBLICATION p FOR TABLE sample")
    connection.execute("SELECT pg_create_logical_replication_slot('s_' || current_database(), 'pgoutput')")
    connection.execute("SELECT setseed(%s)", [(seed % 1000) / 1000])
    drawn = ", ".join(f"CASE WHEN random() < 0.9 THEN {case[2]} END" for case in cases)
    connection.execute(f"INSERT INTO sample SELECT i, {drawn} FROM generate_series(1, {ROWS}) i".encode())
    for number in range(max(len(case[1]) for case in cases)):
        values = [case[1][number] if number < len(case[1]) else None for case in cases]
        marks = ", ".join(f"%s::{case[0]}" for case in cases)
        connection.execute(f"INSERT INTO sample VALUES ({1000 + number}, {marks})".encode(), values)


def streamed(connection: session.Connection, *, binary: bool, cuts: random.Random | None = None) -> pa.Table:
    """The sample as the stream sends it, from the same WAL in either mode; in pieces torn anywhere with ``cuts``."""
    rows = connection.execute(
        "SELECT data FROM pg_logical_slot_peek_binary_changes('s_' || current_database(), NULL, NULL,"
        " 'proto_version', '1', 'publication_names', 'p', 'binary', %s)",
        [str(binary).lower()],
    ).fetchall()
    messages = [bytes(HEADER) + row[0] for row in rows]
    kinds = catalog.known_types(connection)
    (table,) = catalog.tables(connection, ["public.sample"])
    schema = catalog.schema_of(table, kinds)
    known = of_table(table, "sample")
    decoder, pieces, low = Decoder("t", lambda relation: target_of(relation, known, kinds, "sample")), [], 0
    while low < len(messages):
        high = low + cuts.randint(1, 40) if cuts else len(messages)
        part = messages[low:high]
        chunk = Chunk.of(b"".join(part), np.array([len(each) for each in part]))
        pieces += [found for name, found in decoder.decode([chunk]) if name == "sample"]
        low = high
    whole = pa.concat_tables(pieces, promote_options="default")
    for field in schema.fields:
        assert whole.schema.field(field.name).type == types.arrow_type(field.type), field
    return whole


def copied(connection: session.Connection) -> pa.Table:
    """The sample as the initial copy reads it."""
    (table,) = catalog.tables(connection, ["public.sample"])
    return pa.concat_tables(read(connection, table), promote_options="default")


def read(connection: session.Connection, table: catalog.TableInfo, types: Types | None = None) -> list[pa.Table]:
    """The whole table as the copy reads its only chunk, without the operation."""
    reader = chunks.Reader(
        table, of_table(table, "sample"), types or catalog.known_types(connection), SourceConfig(name="shop")
    )
    found = list(reader.chunk(connection, Pages(table.oid, 0, None)))
    return [each.drop_columns([record.OP]) for each in found if isinstance(each, pa.Table)]


def comparable(table: pa.Table, name: str) -> list[Any]:
    """A column as values that can be compared bit for bit (some are beyond Python's dates; NaN is not itself)."""
    array = table.sort_by("id").column(name).combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    return _bits(array)


def _bits(array: pa.Array) -> list[Any]:
    if pa.types.is_floating(array.type):
        return [array.cast(pa.float64()).to_numpy(zero_copy_only=False).tobytes(), array.is_null().to_pylist()]
    if pa.types.is_temporal(array.type):
        array = array.view(pa.int32() if pa.types.is_date32(array.type) else pa.int64())
    if pa.types.is_list(array.type):
        return [array.value_lengths().to_pylist(), _bits(array.flatten())]
    if pa.types.is_struct(array.type):
        return [array.is_null().to_pylist(), *map(_bits, array.flatten())]
    return list(array.to_pylist())


@pytest.mark.parametrize("cases", [CASES, TEXT_CASES], ids=["binary", "text only"])
def test_stream_and_copy_agree_in_every_mode(server: session.Connection, cases: list[Case], seed: int) -> None:
    fill(server, cases, seed)
    text, copy = streamed(server, binary=False), copied(server)
    others = [("copy", copy)] + ([("binary", streamed(server, binary=True))] if cases is CASES else [])
    assert text.num_rows == ROWS + max(len(case[1]) for case in cases)
    for place, case in enumerate(cases):
        expected = comparable(text, f"c{place}")
        for name, other in others:
            assert comparable(other, f"c{place}") == expected, f"{case[0]}: {name} differs from text"


@pytest.mark.parametrize("cases", [CASES, TEXT_CASES], ids=["binary", "text only"])
def test_values_are_what_the_server_prints(server: session.Connection, cases: list[Case], seed: int) -> None:
    fill(server, cases, seed)
    table = streamed(server, binary=cases is CASES)
    for place, (name, _, _) in enumerate(cases):
        server_side: dict[int, str] = dict(
            server.execute(f"SELECT id, {as_text(name, place)} FROM sample".encode()).fetchall()
        )
        printed = as_read(server, table, f"c{place}", name) or as_printed(table, f"c{place}", name)
        ours = dict(zip(table.column("id").to_pylist(), printed, strict=True))
        assert ours == server_side, name


# How a type is written on both sides where its text is not one and the same: by its bits or its numbers.
_EPOCH = "CASE WHEN isfinite({0}) THEN trunc(extract(epoch from {0}) * 1000000)::text ELSE {0}::text END"
_SERVER_TEXT = {
    "real": "CASE WHEN {0} = 'NaN' THEN 'nan' ELSE encode(float4send({0}), 'hex') END",
    "double precision": "CASE WHEN {0} = 'NaN' THEN 'nan' ELSE encode(float8send({0}), 'hex') END",
    "date": _EPOCH,
    "timestamp": _EPOCH,
    "timestamptz": _EPOCH,
    "interval": "(extract(year from {0})::int8 * 12 + extract(month from {0})::int)::text || ' ' ||"
    " extract(day from {0})::int || ' ' || ((extract(hour from {0}) * 3600"
    " + extract(minute from {0}) * 60 + extract(second from {0})) * 1000000)::numeric(40,0)",
    "timetz": "((extract(epoch from {0}) + extract(timezone from {0})::int) * 1000000)::int8"
    " || ' ' || extract(timezone from {0})::int",
    "boolean[]": "to_json({0})::text",
}
COMPOSITES = ("pair", "everything", "deep", "alone", "twins", "priced")
_PLAIN_TEXT = "CASE num_nonnulls({0}) WHEN 1 THEN format('%s', {0}) END"


def as_text(name: str, place: int) -> str:
    """SQL for the server's own text; for types that print in several ways, one that both sides can make."""
    array = (name.endswith("[]") and name[:-2] not in COMPOSITES) or name == "lists"
    default = "to_json({0}::text[])::text" if array else _PLAIN_TEXT
    return _SERVER_TEXT.get(name, default).format(f"c{place}")


def clock(micros: int) -> str:
    seconds, fraction = divmod(micros, 1_000_000)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return text + (f".{fraction:06}".rstrip("0") if fraction else "")


def stamp(micros: int) -> str:
    if micros == 2**63 - 1:
        return "infinity"
    day, of_day = divmod(micros, 86_400_000_000)
    return f"{np.datetime64(day, 'D')} {clock(of_day)}+00"


def compact(values: list[Any]) -> str:
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False)


_OUR_TEXT: dict[str, Callable[[Any], str]] = {
    "real": lambda v: "nan" if v != v else struct.pack(">f", v).hex(),
    "double precision": lambda v: "nan" if v != v else struct.pack(">d", v).hex(),
    "date": lambda v: {2**31 - 1: "infinity", 1 - 2**31: "-infinity"}.get(v, str(v * 86_400_000_000)),
    "timestamp": lambda v: {2**63 - 1: "infinity", 1 - 2**63: "-infinity"}.get(v, str(v)),
    "timestamptz": lambda v: {2**63 - 1: "infinity", 1 - 2**63: "-infinity"}.get(v, str(v)),
    "interval": lambda v: f"{v['months']} {v['days']} {v['micros']}",
    "timetz": lambda v: f"{v['micros']} {v['offset']}",
    "boolean": lambda v: "t" if v else "f",
    "time": clock,
    "bytea": lambda v: "\\x" + v.hex(),
    "timestamptz[]": lambda v: compact([stamp(each) for each in v]),
    "boolean[]": compact,
    "double precision[]": lambda v: compact(floats.texts_of(np.array(v)).to_pylist()),
}


def as_read(server: session.Connection, table: pa.Table, column: str, name: str) -> list[str | None]:
    """Of composites: what the server reads in the text that we write of the decoded column."""
    if name.removesuffix("[]") not in COMPOSITES:
        return []
    kinds = catalog.known_types(server)
    (found,) = catalog.tables(server, ["public.sample"])
    field = catalog.schema_of(found, kinds).field(column)
    assert field.type.startswith('STRUCT("')
    with duck.connect(threads=1) as connection:
        connection.execute("SET preserve_insertion_order = true")
        connection.register("decoded", table.select([column]))
        written = text_sql(types.lift_sql(column, field.type), field.type, field.source_type)
        texts = [row[0] for row in connection.execute(f"SELECT {written} FROM decoded").fetchall()]
    query = f"SELECT {_PLAIN_TEXT.format(f'v::{name}')} FROM unnest(%s::text[]) WITH ORDINALITY AS u(v, n) ORDER BY n"
    return [row[0] for row in server.execute(query.replace("'%s'", "'%%s'").encode(), [texts])]


def as_printed(table: pa.Table, column: str, name: str) -> list[str | None]:
    """The same text from the decoded column."""
    array = table.column(column).combine_chunks()
    if name in ("date", "time", "timestamp", "timestamptz"):
        array = array.view(pa.int32() if name == "date" else pa.int64())
    elif name == "timestamptz[]":
        array = array.cast(pa.list_(pa.int64()))
    write = _OUR_TEXT.get(name, plain)
    return [None if value is None else write(value) for value in array.to_pylist()]


def plain(value: Any) -> str:
    if isinstance(value, list):
        return compact([None if each is None else str(each) for each in value])
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def test_a_stream_torn_anywhere_decodes_to_the_same(server: session.Connection, seed: int) -> None:
    """Transactions larger than a batch are decoded piece by piece: their metadata must carry over."""
    fill(server, CASES[:20], seed)
    server.execute("UPDATE sample SET id = id + 5000 WHERE id % 3 = 0; UPDATE sample SET c1 = 7 WHERE id % 2 = 0")
    whole = streamed(server, binary=True)
    torn = streamed(server, binary=True, cuts=random.Random(seed))
    columns = ["id", "c2", "c14", record.OP, record.LSN, record.XID, record.SEQ, record.COMMITTED_AT]
    assert torn.select(columns).to_pylist() == whole.select(columns).to_pylist()
    assert set(whole.column(record.OP).to_pylist()) == {"c", "u", "d"}


@pytest.mark.parametrize(("name", "value"), ODD)
def test_what_no_type_can_hold_keeps_its_exact_text(server: session.Connection, name: str, value: str) -> None:
    if name.startswith("interval") and server.info.server_version < 170_000:
        pytest.skip("infinite intervals came with PostgreSQL 17")
    server.execute(f"CREATE TABLE sample (id int PRIMARY KEY, c0 {name})".encode())
    server.execute("CREATE PUBLICATION p FOR TABLE sample")
    server.execute("SELECT pg_create_logical_replication_slot('s_' || current_database(), 'pgoutput')")
    server.execute(f"INSERT INTO sample VALUES (1, NULL), (2, %s::{name}), (3, NULL)".encode(), [value])
    printed = server.execute("SELECT format('%s', c0) FROM sample WHERE id = 2").fetchone()
    expected = value if name != "interval" else printed[0] if printed else ""
    tables = [copied(server), streamed(server, binary=False), streamed(server, binary=True)]
    for table in tables:
        assert table.column("c0").to_pylist() == [None, None, None]
        assert [dict(row or []) for row in table.column(record.RAW).to_pylist()] == [{}, {"c0": expected}, {}]


def test_a_composite_of_another_shape_keeps_its_text(server: session.Connection) -> None:
    """WAL from before an ALTER TYPE: nothing announces it, but values say how many fields they have, and of what."""
    server.execute("CREATE TABLE sample (id int PRIMARY KEY, c0 pair, c1 pair[])")
    server.execute("CREATE PUBLICATION p FOR TABLE sample")
    server.execute("SELECT pg_create_logical_replication_slot('s_' || current_database(), 'pgoutput')")
    server.execute("INSERT INTO sample VALUES (1, (1, 'a'), array[row(2, NULL)::pair])")
    server.execute("ALTER TYPE pair ADD ATTRIBUTE c int")
    server.execute("INSERT INTO sample VALUES (2, (1, 'a', 3), '{}')")
    for table in (streamed(server, binary=False), streamed(server, binary=True)):
        assert table.column("c0").to_pylist() == [None, {"a": 1, "b": "a", "c": 3}]
        assert table.column("c1").to_pylist() == [None, []]
        assert [dict(each or []) for each in table.column(record.RAW).to_pylist()] == [
            {"c0": "(1,a)", "c1": '{"(2,)"}'}, {}
        ]  # fmt: skip
    server.execute("ALTER TYPE pair DROP ATTRIBUTE c, ADD ATTRIBUTE d real")
    server.execute("INSERT INTO sample VALUES (3, (1, 'a', 1.5), NULL)")
    table = streamed(server, binary=True)
    assert table.column("c0").to_pylist() == [None, None, {"a": 1, "b": "a", "d": 1.5}]
    server.execute("ALTER TYPE pair DROP ATTRIBUTE d, ADD ATTRIBUTE e int")
    table = streamed(server, binary=False)  # a text says only what it looks like
    assert table.column("c0").to_pylist() == [None, {"a": 1, "b": "a", "e": 3}, None]
    assert dict(table.column(record.RAW).to_pylist()[2]) == {"c0": "(1,a,1.5)"}


@pytest.mark.parametrize("name", [case[0] for case in TEXT_CASES if case[0] != "aclitem[]"])
def test_a_type_without_binary_decoder_asks_for_text(server: session.Connection, name: str) -> None:
    """Except one that has no binary form at all: its text comes in either mode. (An aclitem[] ends a binary stream.)"""
    fill(server, [case for case in TEXT_CASES if case[0] == name], 1)
    if name == "aclitem":
        assert comparable(streamed(server, binary=True), "c0") == comparable(streamed(server, binary=False), "c0")
        return
    with pytest.raises(TextNeeded):
        streamed(server, binary=True)


def test_long_arrays_beside_short_ones(server: session.Connection) -> None:
    """Elements are found in lockstep while many rows still have some, then row by row."""
    server.execute("CREATE TABLE sample (id int PRIMARY KEY, c0 int[], c1 text[])")
    server.execute(
        "INSERT INTO sample SELECT i, a,"
        " array(SELECT CASE WHEN e % 7 > 0 THEN repeat('x', e % 11) END FROM unnest(a) e)"
        " FROM generate_series(1, 300) i,"
        " LATERAL (SELECT array_agg(e) AS a FROM generate_series(1, CASE WHEN i % 70 = 0 THEN 5000 ELSE i % 9 END) e)"
        " AS arrays"
    )
    expected = server.execute("SELECT id, coalesce(c0, '{}'), coalesce(c1, '{}') FROM sample ORDER BY id").fetchall()
    rows = copied(server).sort_by("id").to_pylist()
    assert [(row["id"], row["c0"] or [], row["c1"] or []) for row in rows] == expected


def test_a_field_of_a_type_made_later_has_the_copy_begin_again(server: session.Connection, dsn: str) -> None:
    """A composite says of each value which types its fields have: one that nobody knew when the session began."""
    server.execute("CREATE TABLE sample (id int PRIMARY KEY, c0 pair)")
    (table,) = catalog.tables(server, ["public.sample"])
    types = catalog.known_types(server)
    server.execute("CREATE TYPE later AS ENUM ('x'); ALTER TYPE pair ADD ATTRIBUTE c later")
    server.execute("INSERT INTO sample VALUES (1, row(1, 'a', 'x'))")
    with pytest.raises(TableMoved, match="changed while it was copied"):
        list(read(server, table, types))
    with session.connect(dsn, "test") as fresh:
        assert copied(fresh).column("c0").to_pylist() == [{"a": 1, "b": "a", "c": "x"}]


def test_the_documented_types_are_those_of_the_code(server: session.Connection) -> None:
    """Each row of the guide's table: types, what they are in the lake, whether they are read in binary."""
    guide = Path(__file__).parents[2] / "docs" / "postgres.md"
    rows = re.findall(r"^\| (`.*`) \| (`.*`) \| (yes|no|as text) \|$", guide.read_text(encoding="utf-8"), re.MULTILINE)
    known = catalog.known_types(server)
    documented = 0
    for types_cell, lake_cell, binary in rows:
        names, lake = re.findall("`([^`]*)`", types_cell), re.findall("`([^`]*)`", lake_cell)
        for place, name in enumerate(names):
            found = _type_of(server, known, name)
            expected = lake[place] if len(lake) > 1 else lake[0]
            assert found.duckdb == expected, name
            assert (found.binary is not None, found.sends) == (binary == "yes", binary != "as text"), name
            documented += 1
    assert documented >= 75


def _type_of(server: session.Connection, known: Mapping[int, TypeInfo], name: str) -> ColumnType:
    if "." in name:
        extension, bare = name.split(".")
        return column_type(1, -1, {1: TypeInfo("b", bare, extension=extension)})
    server.execute("DROP TABLE IF EXISTS documented")
    server.execute(f"CREATE TABLE documented (id {name})".encode())
    [(oid, modifier)] = server.execute(
        "SELECT atttypid::int8, atttypmod FROM pg_attribute WHERE attrelid = 'documented'::regclass AND attnum = 1"
    )
    return column_type(oid, modifier, known)


def test_no_values_and_only_nulls_are_decoded_and_printed_by_every_type(server: session.Connection) -> None:
    """What the fields of composites and the elements of arrays come to, where a batch has none."""
    server.execute(f"CREATE TABLE sample ({', '.join(f'c{n} {case[0]}' for n, case in enumerate(CASES))})".encode())
    known = catalog.known_types(server)
    (table,) = catalog.tables(server, ["public.sample"])
    zeros, buffer = np.zeros(3, np.int64), np.frombuffer(PAD, np.uint8)
    for column, kind in zip(table.columns, catalog.column_types(table, known), strict=True):
        print_texts = printer(column.type_oid, known)
        assert kind.binary is not None
        assert print_texts is not None
        for cells in (Cells(buffer, zeros[:0], zeros[:0]), Cells(buffer, zeros, zeros, np.zeros(3, np.bool_))):
            found = [kind.text(cells).values, kind.binary(cells).values, print_texts(cells)]
            assert [len(each) for each in found] == [each.null_count for each in found] == [len(cells)] * 3
            expected = types.arrow_type(kind.duckdb)
            assert [each.type for each in found] == [expected, expected, pa.string()], column.type_name


@pytest.mark.parametrize("size", [99, 2**30])
def test_an_array_whose_lengths_are_wrong_is_refused(size: int) -> None:
    """Never read as whatever lies behind it: the row becomes a letter."""
    sent = struct.pack(">5i", 1, 0, 25, 1, 1) + struct.pack(">i", size) + b"abc"
    kind = column_type(1009, -1, {1009: TypeInfo("b", "_text", element=25)})
    assert kind.binary is not None
    cells = Cells(np.frombuffer(sent, np.uint8), np.array([0]), np.array([len(sent)]))
    with pytest.raises(ValueError, match="length"):
        kind.binary(cells)


def test_wkb_of_postgis() -> None:
    """A point with SRID 4326 as PostGIS sends it, in binary and in text; bytes by its documented format (EWKB)."""
    point = struct.pack("<BIIdd", 1, 0x20000001, 4326, 1.5, -2)
    kind = column_type(1, -1, {1: TypeInfo("b", "geometry", extension="postgis")})
    assert kind.binary is not None
    for decode, sent in ((kind.binary, point), (kind.text, point.hex().upper().encode())):
        cells = Cells(
            np.frombuffer(sent + PAD, np.uint8), np.array([0, 0]), np.array([len(sent), 0]), np.array([True, False])
        )
        assert decode(cells).values.to_pylist() == [point, None]


def test_relation_of_a_weird_table(server: session.Connection) -> None:
    """Quotes, spaces, case collisions and names that metadata columns have."""
    server.execute('CREATE TABLE "we""ird T" ("a""b" int PRIMARY KEY, "A" text, a text, _op text, "日本" int)')
    (table,) = catalog.tables(server, ["public.we*"])
    schema = catalog.schema_of(table, catalog.known_types(server))
    assert schema.names == ('a"b', "A", "a__2", "_op__src", "日本")
    assert schema.key == ('a"b',)
    server.execute("INSERT INTO \"we\"\"ird T\" VALUES (1, 'x', 'y', 'z', 2)")
    rows = pa.concat_tables(read(server, table))
    assert rows.to_pylist() == [{'a"b': 1, "A": "x", "a__2": "y", "_op__src": "z", "日本": 2}]


def test_a_table_that_is_gone_is_said_to_be(server: session.Connection) -> None:
    server.execute("CREATE TABLE sample (id int PRIMARY KEY, c0 int)")
    (table,) = catalog.tables(server, ["public.sample"])
    server.execute("DROP TABLE sample")
    with pytest.raises(TableMoved, match=r"public\.sample is gone"):
        read(server, table)
