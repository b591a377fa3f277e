"""Every value comes back: source → log → INSERT into another database → equal there, whichever way it came.

Rows are captured three times: by the initial copy, by the stream in binary, by the stream in text mode. The three
must be equal in the log, ``_raw`` included; what the log holds, written as ``literal`` writes it, must print in
the other database as it does in the source, and be equal by the type's own ``=`` where it has one.
"""

from __future__ import annotations

import ipaddress
import json
import random
from collections.abc import Sequence
from typing import Any

import hypothesis
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from psycopg import sql
from tests.connectors.conftest import Captured
from tests.connectors.type_cases import CASES, ODD, TEXT_CASES, TYPES_SQL

from headwater.types import quote
from headwater_connectors.postgres import testing
from headwater_connectors.postgres.literal import text_sql

Texts = Sequence[str | None]
"""Values of one type as input texts."""

STREAMED, IN_TEXT = 1_000_000, 2_000_000
"""What is added to the id of a copied row for the same row streamed."""
EXTENSIONS = {
    "hstore": ("hstore", ["", '"a"=>"1", "b"=>NULL', '"q\\"\\\\"=>"é\t\x01"', '""=>"NULL", "$.a[0]"=>"=>"']),
    "citext": ("citext", ["Ab", ""]),
    "ltree": ("ltree", ["a.b_1"]),
    "vector": ("vector(3)", ["[1,2.5,-0.1]", "[1e-10,1e20,0]"]),
}
VECTORS = {"halfvec(2)": ["[1,65504]", "[6e-08,0]"], "sparsevec(9)": ["{1:1.5,9:-2}/9"], "vector[]": ['{"[1,2]",NULL}']}


# ---- random values, as texts

_TEXT = st.text(
    st.one_of(st.sampled_from(" \"'\\{}(),;:[]%$\t\n\r\v\fNUL\x01\x7f"), st.characters(exclude_categories=["Cs"])),
    max_size=12,
).map(lambda text: text.replace("\0", ""))
_DIGITS = st.text("0123456789", min_size=1, max_size=60)
_CLOCK = st.builds(
    "{:02}:{:02}:{:02}.{:06}".format,
    st.integers(0, 23),
    st.integers(0, 59),
    st.integers(0, 59),
    st.integers(0, 999_999) | st.just(0),
)
_ENDLESS = st.sampled_from(["infinity", "-infinity"])
_STAMP = st.one_of(
    _ENDLESS,
    st.builds("J{} {}".format, st.integers(1, 109_203_527), _CLOCK),
    st.builds("J{} {}".format, st.integers(2_440_000, 2_470_000), _CLOCK),
)
_DATE = st.one_of(
    _ENDLESS, st.integers(0, 2_147_483_493).map("J{}".format), st.integers(2_440_000, 2_470_000).map("J{}".format)
)
_NUMBER = st.one_of(
    st.sampled_from(["NaN", "Infinity", "-Infinity"]),
    st.builds("{}{}.{}".format, st.sampled_from(["", "-"]), _DIGITS, _DIGITS),
    st.builds("{}e{}".format, st.integers(-(10**6), 10**6), st.integers(-300, 300)),
)
_DOUBLE = st.floats().map(repr)
_SINGLE = st.floats(width=32).map(repr)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
).map(json.dumps)
_ADDRESS = st.ip_addresses(v=4) | st.ip_addresses(v=6)
_INTERVAL = st.one_of(
    st.builds("{} mons {} days {} microseconds".format, *(st.integers(-(2**b), 2**b - 1) for b in (30, 30, 62))),
    st.builds("{} mons {} days {} microseconds".format, *(st.integers(-99, 99) for _ in range(3))),
)


_INT = st.integers(-(2**31), 2**31 - 2)
RANDOM: dict[str, st.SearchStrategy[str]] = {
    "boolean": st.sampled_from(["t", "f"]),
    "smallint": st.integers(-(2**15), 2**15 - 1).map(str),
    "integer": _INT.map(str),
    "bigint": st.integers(-(2**63), 2**63 - 1).map(str),
    "real": _SINGLE,
    "double precision": _DOUBLE,
    "numeric": _NUMBER,
    "numeric(12,2)": st.decimals(-(10**9), 10**9, places=2).map(str) | st.just("NaN"),
    "numeric(38,10)": st.decimals(-(10**27), 10**27, places=10).map(str),
    "numeric(60,20)": st.decimals(-(10**30), 10**30, places=20).map(str),
    "numeric(6,-3)": st.integers(-(10**8), 10**8).map(str),
    "numeric(5,8)": st.integers(-99_999, 99_999).map(lambda n: f"{n}e-8"),
    "text": _TEXT,
    "char(14)": _TEXT,
    "name": _TEXT.map(lambda text: text[:12]),
    "bytea": st.binary(max_size=20).map(lambda data: "\\x" + data.hex()),
    "uuid": st.uuids().map(str),
    "date": _DATE,
    "time": _CLOCK | st.just("24:00"),
    "timetz": st.builds("{}{}{:02}:{:02}:{:02}".format, _CLOCK | st.just("24:00"), st.sampled_from("+-"),
                        st.integers(0, 15), st.integers(0, 59), st.integers(0, 59) | st.just(0)),
    "timestamp": _STAMP,
    "timestamptz": _STAMP,
    "interval": _INTERVAL,
    "json": _JSON,
    "jsonb": _JSON.filter(lambda text: "\\u0000" not in text),
    "inet": st.builds(lambda a, bits: f"{a}/{bits % (a.max_prefixlen + 1)}", _ADDRESS, st.integers(0, 999)),
    "cidr": st.builds(
        lambda a, bits: str(ipaddress.ip_network(f"{a}/{bits % (a.max_prefixlen + 1)}", strict=False)),
        _ADDRESS, st.integers(0, 999)),
    "macaddr": st.integers(0, 2**48 - 1).map("{:012x}".format),
    "varbit": st.text("01", max_size=40),
    "point": st.builds("({},{})".format, _DOUBLE, _DOUBLE),
    "box": st.builds("({},{}),({},{})".format, *(st.floats(-1e30, 1e30).map(repr) for _ in range(4))),
    "polygon": st.lists(st.builds("({},{})".format, _DOUBLE, _SINGLE), min_size=1, max_size=4).map(
        lambda points: "(" + ",".join(points) + ")"),
    "pg_lsn": st.builds("{:X}/{:X}".format, *(st.integers(0, 2**32 - 1) for _ in range(2))),
    "xid8": st.integers(0, 2**64 - 1).map(str),
    "tsvector": st.lists(st.builds(
        lambda word, at: "'" + word.replace("\\", "\\\\").replace("'", "''") + "'" + at,
        _TEXT.filter(bool), st.sampled_from(["", ":1", ":3A,7", ":16383"])), max_size=4).map(" ".join),
    "mood": st.sampled_from(["sad", "ok"]),
}  # fmt: skip
"""Types of single values."""


ARRAYS = (
    "integer", "text", "numeric(12,2)", "double precision", "date", "timestamptz", "timestamp", "interval", "bytea",
    "boolean", "uuid", "jsonb", "timetz", "time", "inet", "mood", "box", "pair", "lists", "int4range",
    "cents",
)  # fmt: skip
"""Types whose arrays are made of what was drawn for them."""


def drawn(count: int, seed: int) -> dict[str, Texts]:
    """So many random values of every type: single ones by hypothesis, and what is made of them."""

    def of(strategy: st.SearchStrategy[str]) -> list[str]:
        found: list[str] = []

        @hypothesis.seed(seed)
        @settings(max_examples=count, database=None, deadline=None, phases=[Phase.generate],
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @hypothesis.given(strategy)
        def collect(value: str) -> None:
            found.append(value)

        collect()
        return found

    values: dict[str, list[str]] = {name: of(strategy) for name, strategy in RANDOM.items()}
    made = _Made(random.Random(seed))
    values["int4range"] = [made.span(values["integer"]) for _ in range(count)]
    values["int8multirange"] = [
        "{" + ",".join(made.span(values["bigint"]) for _ in range(place % 4)) + "}" for place in range(count)
    ]
    values["pair"] = [made.row(values["integer"], values["text"]) for _ in range(count)]
    values["cents"] = [made.row(["1.50", "NaN", "-0.01"], values["timestamp"]) for _ in range(count)]
    values["lists"] = [made.line(values["integer"]) for _ in range(count)]
    for name in ARRAYS:
        values[f"{name}[]"] = [made.array(values[name], ";" if name == "box" else ",") for _ in range(count)]
    deep = ("cents[]", "pair", "integer", "text", "timetz[]", "box[]", "lists")
    values["deep"] = [made.row(*(values[name] for name in deep)) for _ in range(count)]
    return dict(values)


class _Made:
    """Literals of values in values."""

    def __init__(self, source: random.Random) -> None:
        self.source = source

    def array(self, values: Sequence[str], mark: str) -> str:
        """Of one or two dimensions, and with other lower bounds."""
        shape = self.source.random()
        if shape < 0.6:
            return self.line(values, mark)
        if shape < 0.8:
            wide = self.source.randint(1, 3)
            return "{" + mark.join(self.line(values, mark, wide) for _ in range(self.source.randint(1, 3))) + "}"
        low = self.source.randint(-3, 3)
        return f"[{low}:{low}]={self.line(values, mark, 1)}"

    def line(self, values: Sequence[str], mark: str = ",", count: int | None = None) -> str:
        """Of one dimension; everything is in quotes."""
        chosen = [self._some(values) for _ in range(self.source.randint(0, 4) if count is None else count)]
        quoted = ["NULL" if each is None else '"' + _escaped(each, "\\") + '"' for each in chosen]
        return "{" + mark.join(quoted) + "}"

    def row(self, *fields: Sequence[str]) -> str:
        chosen = [self._some(values) for values in fields]
        return "(" + ",".join("" if each is None else '"' + _escaped(each, '"') + '"' for each in chosen) + ")"

    def span(self, values: Sequence[str]) -> str:
        """A range of numbers, with and without bounds."""
        ends = [str(end) for end in sorted(int(self.source.choice(values)) for _ in range(2))]
        low, high = (end if self.source.random() < 0.8 else "" for end in ends)
        return f"{self.source.choice('[(')}{low},{high}{self.source.choice('])')}"

    def _some(self, values: Sequence[str]) -> str | None:
        return self.source.choice(values) if self.source.random() < 0.85 else None


def _escaped(text: str, quote_mark: str) -> str:
    return text.replace("\\", "\\\\").replace('"', quote_mark + '"')


# ---- the trip


class Trip:
    """A table with a column for each (type, values), in the source ``shop`` and in a second database."""

    def __init__(self, shop: Captured, columns: list[tuple[str, Texts]], extensions: Sequence[str] = ()) -> None:
        self.shop = shop
        self.columns = columns
        listed = ", ".join(f"c{place} {name}" for place, (name, _) in enumerate(columns))
        self.statements = [
            *(f"CREATE EXTENSION {name}" for name in extensions),
            *filter(None, TYPES_SQL.replace("\n", " ").split(";")),
            f"CREATE TABLE t (id int PRIMARY KEY, {listed})",
        ]

    def there_and_back(self, second: str) -> None:
        self._capture()
        ways = [self._logged(first) for first in (0, STREAMED, IN_TEXT)]
        for name, way in (("stream", ways[1]), ("text mode", ways[2])):
            for place, (kind, _) in enumerate(self.columns):
                assert [row[place] for row in way] == [row[place] for row in ways[0]], f"{kind}: {name} is not the copy"
        with psycopg.connect(second, autocommit=True) as other:
            self._write(other, ways[0])
            self._compare(other)

    def _capture(self) -> None:
        shop = self.shop
        shop.run(*self.statements)
        self._insert()
        shop.catch_up()
        shop.run(f"INSERT INTO t SELECT id + {STREAMED}, {self._names()} FROM t")
        shop.catch_up()
        shop.mode = "text"
        shop.run(f"INSERT INTO t SELECT id + {IN_TEXT}, {self._names()} FROM t WHERE id < {STREAMED}")
        shop.catch_up()

    def _insert(self) -> None:
        """A row per value; values that the server refuses are left out, and few."""
        accepted = [(name, self._accepted(name, list(values))) for name, values in self.columns]
        refused = sum(len(values) for _, values in self.columns) - sum(len(values) for _, values in accepted)
        assert refused <= sum(len(values) for _, values in self.columns) / 20
        texts = ", ".join("%s::text[]" for _ in accepted)
        named = ", ".join(f"a{place}" for place in range(len(accepted)))
        values = ", ".join(f"a{place}::{name}" for place, (name, _) in enumerate(accepted))
        self.shop.connection.execute(
            f"INSERT INTO t SELECT i - 1, {values} FROM unnest({texts}) WITH ORDINALITY AS u({named}, i)".encode(),
            [values for _, values in accepted],
        )

    def _accepted(self, name: str, values: list[str | None]) -> list[str | None]:
        """Those of the values that are some of the type; found by halving."""
        try:
            self.shop.connection.execute(f"SELECT count(a::{name}) FROM unnest(%s::text[]) a".encode(), [values])
        except psycopg.errors.DataError:
            middle = len(values) // 2
            return self._accepted(name, values[:middle]) + self._accepted(name, values[middle:]) if middle else []
        return values

    def _names(self) -> str:
        return ", ".join(f"c{place}" for place in range(len(self.columns)))

    def _logged(self, first: int) -> list[tuple[str | None, ...]]:
        """The rows as texts that PostgreSQL reads, by id: from the columns, and from ``_raw`` where those hold none."""
        schema = self.shop.log.topic("shop.public.t").schema
        fields = [schema.field(f"c{place}") for place in range(len(self.columns))]
        texts = ", ".join(text_sql(quote(field.name), field.type, field.source_type) for field in fields)
        inside = f"id >= {first} AND id < {first + STREAMED}"
        rows = self.shop.lake(f"SELECT id, {texts} FROM t WHERE {inside} ORDER BY id")
        changes = self.shop.log.read_changes("shop.public.t", 0, self.shop.log.newest_commit())
        raw = {row["id"]: dict(row["_raw"] or ()) for row in changes.select(["id", "_raw"]).to_pylist()}
        names = [field.name for field in fields]
        return [
            tuple(raw.get(row[0], {}).get(name, text) for name, text in zip(names, row[1:], strict=True))
            for row in rows
        ]

    def _write(self, other: psycopg.Connection[Any], rows: list[tuple[str | None, ...]]) -> None:
        for statement in self.statements:
            other.execute(statement.encode())
        marks = ", ".join(f"%s::{name}" for name, _ in self.columns)
        with other.transaction():
            other.cursor().executemany(
                f"INSERT INTO t VALUES (%s, {marks})".encode(), [(at, *row) for at, row in enumerate(rows)]
            )
        other.execute("CREATE TABLE expected (LIKE t)")
        command = f"COPY (SELECT * FROM t WHERE id < {STREAMED} ORDER BY id) TO STDOUT"
        with (
            self.shop.connection.cursor().copy(command.encode()) as source,
            other.cursor().copy("COPY expected FROM STDIN") as target,
        ):
            for piece in source:
                target.write(piece)

    def _compare(self, other: psycopg.Connection[Any]) -> None:
        for place, (kind, _) in enumerate(self.columns):
            column = sql.Identifier(f"c{place}")
            other_text = "format('%s', t.{0}) <> format('%s', e.{0}) OR (t.{0} IS NULL AND e.{0} IS NOT NULL)"
            pair = "SELECT t.id, format('%s', t.{0}), format('%s', e.{0}) FROM t JOIN expected e USING (id) WHERE "
            found = other.execute(sql.SQL(pair + other_text).format(column)).fetchall()
            assert found == [], f"{kind}: {found[:3]}"
            try:
                found = other.execute(sql.SQL(pair + "t.{0} IS DISTINCT FROM e.{0}").format(column)).fetchall()
            except (psycopg.errors.UndefinedFunction, psycopg.errors.NumericValueOutOfRange):
                continue  # a type without =, or one whose = compares areas
            assert found == [], f"{kind}: {found[:3]}"


@pytest.fixture
def second(admin: str) -> Any:
    with testing.database(admin) as fresh:
        yield fresh


def _available(shop: Captured) -> list[str]:
    names = {row[0] for row in shop.source_rows("SELECT name FROM pg_available_extensions")}
    return [name for name in EXTENSIONS if name in names]


def test_values_at_the_edges_come_back(shop: Captured, second: str, seed: int) -> None:
    """Every type with a binary decoder, what no column can hold, and the extensions that the server has."""
    endless = shop.connection.info.server_version >= 170_000
    columns: list[tuple[str, Texts]] = [(name, edges) for name, edges, _ in CASES]
    columns += [(name, [value, None]) for name, value in ODD if endless or not name.startswith("interval")]
    columns += list(drawn(5, seed).items())
    available = _available(shop)
    columns += [EXTENSIONS[name] for name in available]
    columns += list(VECTORS.items()) if "vector" in available else []
    shop.mode = "binary"
    Trip(shop, columns, available).there_and_back(second)


@pytest.mark.long
def test_values_of_types_without_binary_decoder_come_back(shop: Captured, second: str) -> None:
    Trip(shop, [(name, edges) for name, edges, _ in TEXT_CASES]).there_and_back(second)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_random_values_come_back(shop: Captured, second: str, seed: int) -> None:
    shop.mode = "binary"
    Trip(shop, list(drawn(2_000, seed).items())).there_and_back(second)


# ---- every type of the server

GIVEN = {
    **{name.partition("(")[0].strip('"'): edges[0] for name, edges, _ in [*TEXT_CASES, *CASES] if name[-1] != "]"},
    "bit": "1", "cardinal_number": "5", "character": "x", "character varying": "x y",
    "datemultirange": "{[2024-01-01,)}",
    "int4multirange": "{[1,2)}", "int8range": "[1,2)", "lquery": "a.*", "regcollation": '"C"', "regconfig": "simple",
    "regdictionary": "simple", "regnamespace": "public", "regoper": "||/", "regoperator": "+(integer,integer)",
    "regproc": "now", "regprocedure": "lower(text)", "regrole": "postgres", "regtype": "int[]", "bit varying": "101",
    "sql_identifier": "s", "character_data": "c", "yes_or_no": "YES", "time_stamp": "2024-01-01 00:00:00+00",
    "time without time zone": "01:02:03", "time with time zone": "24:00-08", "txid_snapshot": "10:20:10,14",
    "timestamp without time zone": "2024-01-01", "timestamp with time zone": "infinity", "tsmultirange": "{}",
    "tstzmultirange": "{[2024-01-01 00:00:00+00,)}", "xml": "<a>b</a>",
}  # fmt: skip
UNWRITABLE = {
    "gtsvector", "pg_brin_bloom_summary", "pg_brin_minmax_multi_summary", "pg_dependencies", "pg_mcv_list",
    "pg_ndistinct", "pg_node_tree",
}  # fmt: skip
"""Types that have columns but no input."""
_EVERY_TYPE = """
SELECT format_type(oid, NULL), typarray <> 0 FROM pg_type
WHERE typtype IN ('b', 'r', 'm', 'd', 'e') AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = pg_type.oid)
    AND typnamespace IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
ORDER BY oid
"""


@pytest.mark.long
def test_every_type_of_the_server_is_captured(shop: Captured) -> None:
    """A table for each, with arrays of it; a type of a newer server that has no value here fails the test."""
    tables: dict[str, tuple[str, str, str | None]] = {}
    for place, (name, has_array) in enumerate(shop.source_rows(_EVERY_TYPE)):
        bare = name.removeprefix("information_schema.").strip('"')
        table = f"t{place}"
        listed = f", vs {name}[]" if has_array else ""
        value = GIVEN[bare] if bare not in UNWRITABLE else None
        shop.run(f"CREATE TABLE {table} (id int PRIMARY KEY, v {name}{listed})")
        array = f", ARRAY[%(v)s, NULL]::{name}[]" if has_array else ""
        insert = (
            f"INSERT INTO {table} SELECT i, CASE WHEN i %% 2 = 1 THEN %(v)s::{name} END{array} FROM generate_series"
        )
        try:
            shop.connection.execute(f"{insert}(1, 2) i".encode(), {"v": value})
        except psycopg.errors.FeatureNotSupported:
            assert bare == "xml"  # the embedded server has none
            continue
        tables[table] = (name, insert, value)
    shop.run("CREATE TABLE rows (id int PRIMARY KEY, v pg_namespace, vs pg_class[])")
    classes = "(SELECT array_agg(c) FROM pg_class c WHERE relname < 'pg_b')"
    rows = f"INSERT INTO rows SELECT {{}}, n, {classes} FROM pg_namespace n"
    tables["rows"] = ("rows of catalogs", "", None)
    shop.run(f"{rows.format(1)} LIMIT 1")
    shop.catch_up()
    for insert, value in ((insert, value) for _, insert, value in tables.values() if insert):
        shop.connection.execute(f"{insert}(3, 4) i".encode(), {"v": value})
    shop.run(f"{rows.format(3)} LIMIT 1")
    shop.catch_up()
    for table, (name, _, _) in tables.items():
        topic = shop.log.topic(f"shop.public.{table}")
        assert (topic.state, topic.reason) == ("live", ""), name
        _assert_texts(shop, table, name)


def _assert_texts(shop: Captured, table: str, name: str) -> None:
    """What was copied is what was streamed, and a type that is text is what the server prints."""
    schema = shop.log.topic(f"shop.public.{table}").schema
    texts = [f"CAST({quote(column)} AS VARCHAR)" for column in schema.names[1:]]
    copied, _, streamed, *_ = [*shop.lake(f"SELECT {', '.join(texts)} FROM {table} ORDER BY id"), None, None]
    if len(shop.lake(f"SELECT id FROM {table}")) == 4:
        assert copied == streamed, name
    if schema.field("v").type == "VARCHAR":
        printed = shop.source_rows(f"SELECT id, CASE num_nonnulls(v) WHEN 1 THEN format('%s', v) END FROM {table}")
        assert sorted(shop.lake(f"SELECT id, v FROM {table}"), key=str) == sorted(printed, key=str), name
