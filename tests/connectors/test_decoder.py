"""The column decoders against the server: random and extreme values, binary == text == what PostgreSQL says."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headwater import record, types
from headwater_connectors.postgres import catalog, chunks, floats, session
from headwater_connectors.postgres.chunks import Chunk as Pages
from headwater_connectors.postgres.chunks import TableMoved
from headwater_connectors.postgres.decoder import Decoder
from headwater_connectors.postgres.known import of_table
from headwater_connectors.postgres.printing import TextNeeded
from headwater_connectors.postgres.shape import target_of
from headwater_connectors.postgres.transactions import HEADER, Chunk

Case = tuple[str, list[str], str]
"""PostgreSQL type, values at its edges as text, a SQL expression for a random value."""


def _random_inet() -> str:
    octets = "(random() * 255)::int || '.' || (random() * 255)::int || '.0.' || (random() * 9)::int"
    six = "to_hex((random() * 65535)::int) || '::' || to_hex((random() * 9)::int) || ':0:0:' || (random() * 2)::int"
    return f"CASE WHEN random() < 0.5 THEN {octets} ELSE {six} || '/' || (random() * 128)::int END::inet"


def _random_float(function: str) -> str:
    value = "random() * 10 ^ (random() * 60 - 30)"
    return f"{function}({value}, -round(({value})::numeric, 2)::float8)"


EVERYTHING = (
    '(t,"\\\\x00ff",1.50,"{1,NULL}","(2,b)",1.5,"{""a b"",c}",2024-01-01,24:00:00,00:00:00-15:59:59,P1Y2DT-0.5S,'
    '6fa459ea-ee8a-3ca4-894e-db77e160355e,"{""a"": 1}",ok,7,"2024-01-01 00:00:00.000001+00","[1,3)",-0.001,p)'
)
RANDOM_EVERYTHING = (
    "row(true, NULL, random()::numeric, array[3], row(1, '()')::pair, random(), array['\"'], 'infinity', '00:00',"
    " NULL, interval '-1 month', NULL, '[]', 'sad', 8, now(), 'empty', random()::float4, 'p ')::everything"
)

CASES: list[Case] = [
    ("boolean", ["t", "f"], "random() < 0.5"),
    ("smallint", ["-32768", "32767", "0"], "(random() * 65535 - 32768)::int"),
    ("integer", ["-2147483648", "2147483647"], "(random() * 4e9 - 2e9)::int"),
    ("bigint", ["-9223372036854775808", "9223372036854775807"], "(random() * 1e18)::int8"),
    ("oid", ["0", "4294967295"], "(random() * 4e9)::int8::oid"),
    ("real", ["NaN", "Infinity", "-Infinity", "-0", "1.1", "3.4e38", "1e-45"], "(random() * 1e6)::float4"),
    ("double precision", ["NaN", "Infinity", "-Infinity", "-0", "0.1", "1e308", "5e-324"], "random() * 1e9"),
    ("numeric(12,2)", ["0", "-1.5", "9999999999.99", "-0.01", "0.99", "10000"], "random() * 1e9 - 5e8"),
    ("numeric(18,18)", ["0.999999999999999999", "-0.000000000000000001"], "random() * 0.9"),
    ("numeric(18,0)", ["999999999999999999", "-100000000", "10000"], "random() * 1e17"),
    ("numeric(5,3)", ["1", "-99.999", "0.001"], "random() * 99"),
    ("numeric(38,10)", ["1234567890123456789012345678.0123456789", "-0.0000000001"], "random() * 1e20"),
    (
        "numeric",
        [
            "0",
            "-0.00",
            "1e100",
            "123456.789000",
            "NaN",
            "Infinity",
            "-Infinity",
            "0.00001",
            "10000",
            "-0.0000000000001",
        ],
        "(random() * 1e8)::numeric * (random() * 1e8)::numeric",
    ),
    ("numeric(5,-2)", ["12345", "-99900"], "random() * 1e6"),
    ("text", ["", "a", "é😀", "tab\tnew\nline\\", "x" * 5000], "repeat(md5(random()::text), (random() * 4)::int)"),
    ("varchar(20)", ["abc", ""], "left(md5(random()::text), 20)"),
    ("char(5)", ["ab", ""], "left(md5(random()::text), 3)"),
    ("name", ["n"], "md5(random()::text)::name"),
    ('"char"', ["a", ""], 'chr(33 + (random() * 90)::int)::"char"'),
    ("uuid", ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"], "gen_random_uuid()"),
    (
        "date",
        [
            "4713-01-01 BC",
            "5874897-12-31",
            "infinity",
            "-infinity",
            "0001-12-31 BC",
            "0001-01-01",
            "1582-10-10",
            "10000-02-29",
        ],
        "date '2000-01-01' + (random() * 20000 - 10000)::int",
    ),
    ("time", ["00:00", "24:00", "23:59:59.999999", "01:02:03.5"], "time '00:00' + random() * interval '1 day'"),
    (
        "timetz",
        ["00:00+15:59:59", "24:00-08", "12:34:56.789+05:30", "00:00:00.000001-15:59"],
        "(time '00:00' + random() * interval '1 day')::timetz",
    ),
    (
        "timestamp",
        [
            "infinity",
            "-infinity",
            "4713-01-01 00:00:00 BC",
            "294246-12-31 23:59:59.999999",
            "0001-01-01",
            "10000-01-01 00:00:01",
        ],
        "timestamp '2000-01-01' + (random() - 0.5) * interval '200 years'",
    ),
    (
        "timestamptz",
        [
            "infinity",
            "-infinity",
            "4713-01-02 00:00:00+00 BC",
            "294246-12-31 23:59:59.999999+00",
            "2024-01-01 01:02:03.004+05:30",
        ],
        "timestamptz '2000-01-01' + (random() - 0.5) * interval '200 years'",
    ),
    (
        "interval",
        [
            "1 year 2 mons 3 days 04:05:06.789",
            "-1 mon +3 days -00:00:00.000001",
            "0",
            "178000000 years",
            "-3 hours 7.5 seconds",
        ],
        "make_interval((random() * 99)::int, (random() * 11)::int, 0, (random() * 40)::int, 0, 0, random() * 1e5)",
    ),
    ("json", ['{"a": 1}', "null", '  [1,  2.50, "é"] '], "json_build_object('k', random())"),
    ("jsonb", ['{"a": [1, 2.50], "b": "x"}', "null"], "jsonb_build_object('k', random())"),
    ("bytea", ["\\x", "\\x00ff10"], "sha256(random()::text::bytea)"),
    ("mood", ["sad", "ok"], "(array['sad', 'ok'])[1 + (random() * 1.9)::int]::mood"),
    ("positive", ["1", "2147483647"], "1 + (random() * 1e9)::int"),
    ("integer[]", ["{}", "{1,NULL,-3}", "{2147483647}"], "array[(random() * 9)::int, NULL, (random() * 1e9)::int]"),
    (
        "text[]",
        ['{"a,b","c\\"d","e\\\\f",NULL,"NULL",""," x ",é,"{","}"}', "{}", '{"\\\\"}'],
        "array[md5(random()::text), ',', '\"']",
    ),
    ("numeric(10,2)[]", ["{1.25,-3}"], "array[random() * 1e6, NULL]::numeric[]"),
    ("uuid[]", ["{}"], "array[gen_random_uuid()]"),
    ("timestamptz[]", ['{"2024-01-01 00:00:00+00",infinity}'], "array[now()]"),
    ("boolean[]", ["{t,f,NULL}"], "array[random() < 0.5]"),
    ("mood[]", ["{sad,NULL}"], "array['ok']::mood[]"),
    ("pair[]", ['{"(1,x)",NULL,"(,\\"a \\"\\"b\\")"}', "{}"], "array[row(1, random()::text)::pair]"),
    ("inet", ["1.2.3.4", "10.0.0.0/8", "::", "::1", "::ffff:1.2.3.4", "::1.2.3.4/96"], _random_inet()),
    ("inet", ["1::", "1:0:0:2::/64", "0:0:1::", "1:2:3:4:5:6:7:8", "1:0:3:0:5:0:7:0", "::2:0:0:0"], _random_inet()),
    ("cidr", ["10.0.0.0/8", "1.2.3.4/32", "::/0", "2001:db8::/32", "0.0.0.0/0", "::1"], "'10.0.0.0/8'::cidr"),
    ("macaddr", ["08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff"], "left(md5(random()::text), 12)::macaddr"),
    ("macaddr8", ["08:00:2b:01:02:03:04:05"], "left(md5(random()::text), 16)::macaddr8"),
    ("bit(4)", ["1010", "0000"], "(random() * 15)::int::bit(4)"),
    ("varbit", ["", "1", "10101010101", "11111111"], "(random() * 1e9)::int::bit(29)::varbit"),
    ("point", ["(1,2)", "(NaN,-Infinity)", "(-0,1e-05)", "(1e14,1e15)", "(1e23,5e-324)"], _random_float("point")),
    ("lseg", ["[(1,2),(3,4)]"], "lseg(point(random(), random()), point(random(), 1e20 * random()))"),
    ("box", ["(3,4),(1,2)"], "box(point(random(), random()), point(-random(), random() * 1e-10))"),
    ("box[]", ["{(3,4),(1,2);NULL;(1,1),(0,0)}", "{}"], "array[box(point(random(), 1), point(2, random()))]"),
    ("path", ["[(1,2),(3,4)]", "((1,2))"], "('((1,' || random() || '),(2,3))')::path"),
    ("polygon", ["((1,2),(3,4),(5,6))"], "polygon(circle(point(random(), 0), random()))"),
    ("line", ["{1,-1,0.1}"], "line(point(random(), 1), point(2, random()))"),
    ("circle", ["<(1,2),0.3>"], "circle(point(random(), random()), random() * 1e17)"),
    ("double precision[]", ["{9007199254740993,NaN}"], "array[random(), random() * 1e300]"),
    ("pg_lsn", ["0/0", "FFFFFFFF/FFFFFFFF", "1/A0"], "'0/0'::pg_lsn + (random() * 1e18)::numeric(30,0)"),
    ("xid", ["0", "4294967295"], "(random() * 1e9)::int8::text::xid"),
    ("xid8", ["0", "18446744073709551615"], "(random() * 1e18)::int8::text::xid8"),
    ("cid", ["7"], "(random() * 1e9)::int8::text::cid"),
    ("tid", ["(0,1)", "(4294967295,65535)"], "('(' || (random() * 1e9)::int || ',7)')::tid"),
    ("oidvector", ["", "1 4294967295"], "'5 6'::oidvector"),
    ("int2vector", ["", "-1 32767"], "'5'::int2vector"),
    ("pg_snapshot", ["10:20:10,14,15", "1:1:"], "pg_current_snapshot()"),
    ("jsonpath", ["$.a", "lax $[*] ? (@ > 1)"], "'$.b'::jsonpath"),
    ("refcursor", ["a b"], "md5(random()::text)::refcursor"),
    ("tsvector", ["'a':1A,2 'it''s':3B 'b\\\\c'", "", "é:9C,10", "x y"], "to_tsvector('simple', md5(random()::text))"),
    ("int4range", ["[1,5)", "empty", "(,)", "[1,)", "(,0)"], "int4range(1, 2 + (random() * 9)::int)"),
    ("numrange", ["(1.50,2.0]", "[NaN,NaN]"], "numrange(random()::numeric, 2 + random()::numeric, '[]')"),
    ("daterange", ["[infinity,)", "[4000-01-01 BC,2024-02-29)"], "daterange(current_date, NULL)"),
    (
        "tsrange",
        ["[2024-01-01,infinity)", "(0044-03-15 12:00:00.5 BC,]", "[294276-12-31 23:59:59.999999,)"],
        "tsrange(localtimestamp - random() * interval '9999 days', localtimestamp)",
    ),
    ("tstzrange", ["[2024-01-01 01:02:03.004+05:30,)"], "tstzrange(now() - random() * interval '9 days', now())"),
    ("int8multirange", ["{}", "{[1,3),[5,)}"], "int8multirange(int8range(1, 3), int8range(5, (9 + random())::int8))"),
    ("nummultirange", ["{[1.5,2)}"], "nummultirange(numrange(0, random()::numeric))"),
    ("texts", ["[a,b)", '["","a b"]', '(,"""\\\\")'], "texts(md5(random()::text), NULL)"),
    ("int4range[]", ['{"[1,5)",NULL,empty}'], "array[int4range(1, 5)]"),
    ("pair", ["(1,x)", "(,)", '(,"")', '(1," ""\\\\")'], "row((random() * 9)::int, 'y z')::pair"),
    ("everything", [EVERYTHING, "(" + "," * 18 + ")"], RANDOM_EVERYTHING),
    ("lists", ["{1,2}", "{}"], "array[(random() * 9)::int]"),
    ("positive[]", ["{1,NULL}"], "array[1]::positive[]"),
]
# No binary decoder: these are always read as text.
TEXT_CASES: list[Case] = [
    ("money", ["12.5", "-3"], "(random() * 1000)::numeric::money"),
    ("money[]", ["{12.5,NULL}"], "array[(random() * 1000)::numeric::money]"),
    ("tsquery", ["'a' & !'b'"], "to_tsquery('simple', md5(random()::text))"),
    ("regclass", ["pg_class", "7"], "'pg_type'::regclass"),
    ("priced", ["(a,12.5)", "(,)"], "row('x', 3::money)::priced"),
    ("priced[]", ['{"(a,12.5)",NULL}'], "array[row('x', 3::money)::priced]"),
    ("aclitem", ["=r/postgres"], "'=w/postgres'::aclitem"),
    ("aclitem[]", ["{=r/postgres}"], "array['=w/postgres'::aclitem]"),
]
ODD = [
    ("numeric(12,2)", "NaN"),
    ("timestamp", "294276-12-31 23:59:59.999999"),
    ("timestamp", "294247-01-01 00:00:00"),
    ("timestamptz", "294276-12-31 20:59:59.5+00"),
    ("interval", "infinity"),
    ("interval", "-infinity"),
    ("integer[]", "{{1,2},{3,4}}"),
    ("integer[]", "[2:3]={7,8}"),
    ("text[]", '{{a},{"}"}}'),
    ("numeric(10,2)[]", "{1.50,NaN}"),
    ("text[]", '[0:1][5:6]={{NULL,"NULL"},{"","a\\\\\\"b"}}'),
    ("double precision[]", "{{{0.1,1e+15}},{{-0,NaN}}}"),
    ("box[]", "{{(1,1),(0,0)};{(2,2),(1,1)}}"),
    ("interval[]", "{P1Y,infinity}"),
    ("timestamptz[]", '{"2024-01-01 00:00:00+00","294276-12-31 23:59:59.999999+00"}'),
]
TYPES_SQL = """
CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN positive AS int CHECK (value > 0);
CREATE TYPE pair AS (a int, b text); CREATE TYPE texts AS RANGE (subtype = text); CREATE DOMAIN lists AS int[];
CREATE TYPE priced AS (what text, price money);
CREATE TYPE everything AS (a bool, b bytea, c numeric, d int[], e pair, f float8, g text[], h date, i time, j timetz,
    k interval, l uuid, m jsonb, n mood, o positive, p timestamptz, q int4range, r float4, s "char");
"""
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


def read(connection: session.Connection, table: catalog.TableInfo) -> list[pa.Table]:
    """The whole table as the copy reads its only chunk, without the operation."""
    reader = chunks.Reader(table, of_table(table, "sample"), catalog.known_types(connection))
    found = list(reader.chunk(connection, Pages(table.oid, 0, None)))
    return [each.drop_columns([record.OP]) for each in found if isinstance(each, pa.Table)]


def comparable(table: pa.Table, name: str) -> list[Any]:
    """A column as values that can be compared bit for bit (some are beyond Python's dates; NaN is not itself)."""
    array = table.sort_by("id").column(name).combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    if pa.types.is_floating(array.type):
        return [array.cast(pa.float64()).to_numpy(zero_copy_only=False).tobytes(), array.is_null().to_pylist()]
    if pa.types.is_temporal(array.type):
        array = array.view(pa.int32() if pa.types.is_date32(array.type) else pa.int64())
    if pa.types.is_list(array.type) and pa.types.is_temporal(array.type.value_type):
        array = array.cast(pa.list_(pa.int64()))
    if pa.types.is_list(array.type) and pa.types.is_floating(array.type.value_type):
        return list(map(repr, array.to_pylist()))
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
        ours = dict(zip(table.column("id").to_pylist(), as_printed(table, f"c{place}", name), strict=True))
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
_PLAIN_TEXT = "CASE num_nonnulls({0}) WHEN 1 THEN format('%s', {0}) END"


def as_text(name: str, place: int) -> str:
    """SQL for the server's own text; for types that print in several ways, one that both sides can make."""
    default = "to_json({0}::text[])::text" if name.endswith("[]") or name == "lists" else _PLAIN_TEXT
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
    fill(server, CASES, seed)
    server.execute("UPDATE sample SET id = id + 5000 WHERE id % 3 = 0; UPDATE sample SET c1 = 7 WHERE id % 2 = 0")
    whole = streamed(server, binary=True)
    torn = streamed(server, binary=True, cuts=random.Random(seed))
    columns = ["id", "c2", "c14", record.OP, record.LSN, record.XID, record.SEQ, record.COMMITTED_AT]
    assert torn.select(columns).to_pylist() == whole.select(columns).to_pylist()
    assert set(whole.column(record.OP).to_pylist()) == {"c", "u", "d"}


@pytest.mark.parametrize(("name", "value"), ODD)
def test_what_no_type_can_hold_keeps_its_exact_text(server: session.Connection, name: str, value: str) -> None:
    if name == "interval" and server.info.server_version < 170_000:
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
    with pytest.raises(TableMoved, match="read as text only"):
        list(chunks.Reader(table, of_table(table, "sample"), types).chunk(server, Pages(table.oid, 0, None)))
    with session.connect(dsn, "test") as fresh:
        assert copied(fresh).column("c0").to_pylist() == ["(1,a,x)"]


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
