"""A call of every function of DuckDB, with arguments that its parameters take and that no row of ``POOL`` makes fail.

``functions.tsv`` holds one call per function (kind, name, reason code if headwater refuses it, call), for the version
of DuckDB that it names. After an upgrade of DuckDB: ``python -m tests.pipelines.functions`` writes it anew, to be read.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from headwater import duck, types
from headwater.errors import UnsupportedSql
from headwater.schema import Schema
from headwater_pipelines.compiler import Relations, Table, compile_view, parse
from headwater_pipelines.compiler.plan import Base, Clock, sources
from headwater_pipelines.compiler.syntax import Duck

FILE = Path(__file__).with_name("functions.tsv")
KINDS = ("scalar", "macro", "aggregate", "window")
SCHEMA = Schema.of(
    key=["id"], id="BIGINT", g="INTEGER", ok="BOOLEAN", i="BIGINT", f="DOUBLE", n="DECIMAL(9,2)", s="VARCHAR",
    d="DATE", ts="TIMESTAMP", tz="TIMESTAMP WITH TIME ZONE", j="JSON", l="BIGINT[]", ls="VARCHAR[]",
    st="STRUCT(a BIGINT, b VARCHAR)",
)  # fmt: skip
BASE = Base("shop.public.samples", 1, "table")
RELATIONS = [Table(BASE, SCHEMA)]


def pool() -> list[dict[str, Any]]:
    """Rows for small calls: values, their ends, and nothing but NULLs."""
    found = []
    for place in range(7):
        at = datetime(2024, 2, 26 + place % 3, 5 * place % 24, 30, tzinfo=UTC)
        found.append({
            "g": place % 3, "ok": place % 2 == 0, "i": [0, 1, 2, 5, 7, 3, 4][place], "f": place / 8,
            "n": Decimal(place * 25).scaleb(-2), "s": ["", "a", "Äb c", "x,y", "1", "2024-02-26", "abc"][place],
            "d": date(2024, 2, 26 + place % 3), "ts": at.replace(tzinfo=None), "tz": at,
            "j": json.dumps({"a": place, "b": ["x", None]}),
            "l": [[], [1], [3, None, 2], [2, 2], [5], [0, 1], [4]][place],
            "ls": [["a", "b"], [], ["x", None], ["b"], ["c", "a"], ["z"], ["y", "y"]][place],
            "st": {"a": place, "b": "pq"[place % 2]},
        })  # fmt: skip
    return [*found, dict.fromkeys(found[0], None) | {"g": 1}]


POOL = pool()
INTEGERS = ("i", "1", "2", "0")
TEXTS = ("s", "'a'", "'day'", "'%Y-%m-%d'", "'$.a'", "'abc'", "'UTC'", "'1'", "'nfc'", "'{\"a\": 1}'")
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "VARCHAR": TEXTS, "BOOLEAN": ("ok", "true"), "DOUBLE": ("f", "0.5", "1.5"), "FLOAT": ("f::FLOAT", "2::FLOAT"),
    "BIGINT": INTEGERS, "INTEGER": ("i::INTEGER", "1", "2"),
    "DATE": ("d",), "TIMESTAMP": ("ts",), "TIMESTAMP WITH TIME ZONE": ("tz",), "TIME": ("ts::TIME",),
    "TIME WITH TIME ZONE": ("'10:00:00+01'::TIMETZ",), "INTERVAL": ("to_days(i::INTEGER)", "INTERVAL 1 HOUR"),
    "BLOB": ("encode(s)", "'ab'::BLOB"), "BIT": ("'0101'::BIT",), "UUID": ("md5(s)::UUID",), "JSON": ("j",),
    "ANY": ("i", "s", "l", "st", "j", "d", "ok", "f"), "T": ("i", "s", "l"), "T[]": ("l", "ls"), "ANY[]": ("l", "ls"),
    "VARCHAR[]": ("ls", "['$.a', '$.b']", "['a']"),
    "DOUBLE[]": ("[f, 0.5]", "[0.25, 0.5]"), "BIGINT[]": ("l", "[1, 2]"),
    "MAP": ("MAP {'k': i}",), "LAMBDA": ("lambda e: e IS NOT NULL", "lambda e: e", "lambda x, y: x"), "STRUCT": ("st",),
    "UNION": ("union_value(a := i)",), "ENUM": ("'u'::ENUM('u', 'v')",), "DECIMAL": ("n", "1.25"),
    "BIGNUM": ("i::BIGNUM",),
    "TIMESTAMP_NS": ("ts::TIMESTAMP_NS",), "TIMESTAMP_S": ("ts::TIMESTAMP_S",), "TIMESTAMP_MS": ("ts::TIMESTAMP_MS",),
    "VARIANT": ("i::VARIANT",), '"NULL"': ("NULL",), "TYPE": ("'INTEGER'",),
}  # fmt: skip
"""By the type of a parameter; other types are cast from BIGINT."""
CALLS = {
    # Macros that take no order: the same value for all rows of a group.
    "json_group_array": "json_group_array(g)",
    "variant_group_array": "variant_group_array(g)",
    "!__postfix": "(i::INTEGER !)",
    "aggregate": "aggregate(l, 'sum')",
    "ago": "ago(INTERVAL 1 DAY)",
    "approx_quantile": "approx_quantile(i, 0.5)",
    # Without its range it is refused.
    "bitstring_agg": "CAST(bitstring_agg(i, 0, 9) AS VARCHAR)",
    "array_aggr": "array_aggr(l, 'max')",
    "array_aggregate": "array_aggregate(l, 'min')",
    "array_cross_product": "array_cross_product([id, 1, 2]::DOUBLE[3], [0, 1, id]::DOUBLE[3])",
    # Of these the order of what they give, or of what is equal, is not defined.
    "array_grade_up": "array_grade_up(list_sort(list_distinct(l)))",
    "list_grade_up": "list_grade_up(list_sort(list_distinct(l)))",
    "grade_up": "grade_up(list_sort(list_distinct(l)))",
    "array_distinct": "list_sort(array_distinct(l))",
    "array_intersect": "list_sort(array_intersect(l, l))",
    "list_distinct": "list_sort(list_distinct(l))",
    "list_intersect": "list_sort(list_intersect(l, l))",
    "array_reduce": "array_reduce(l, lambda x, y: x + y, 0)",
    "array_to_string": "array_to_string(ls, ',')",
    "array_to_string_comma_default": "array_to_string_comma_default(ls, ',')",
    "assert_true": "assert_true(id >= 0)",
    "cardinality": "cardinality(MAP {'k': i})",
    "constant_or_null": "constant_or_null(1, i)",
    "create_sort_key": "create_sort_key(i, 'ASC NULLS LAST')",
    "current_schemas": "current_schemas(true)",
    "current_setting": "current_setting('TimeZone')",
    "currval": "currval('s')",
    "element_at": "element_at(MAP {'k': i}, 'k')",
    "enum_code": "enum_code('u'::ENUM('u', 'v'))",
    "enum_first": "enum_first('u'::ENUM('u', 'v'))",
    "enum_last": "enum_last('u'::ENUM('u', 'v'))",
    "enum_range": "enum_range('u'::ENUM('u', 'v'))",
    "enum_range_boundary": "enum_range_boundary('u'::ENUM('u', 'v'), 'v'::ENUM('u', 'v'))",
    "error": "CASE WHEN i < 0 THEN error('x') END",
    "finalize": "finalize(to_aggregate_state({'count': 2::UBIGINT, 'value': i::HUGEINT}, 'avg', ['BIGINT']))",
    "from_base64": "from_base64(to_base64(encode(s)))",
    "from_json": 'from_json(j, \'{"a": "BIGINT"}\')',
    "from_json_strict": 'from_json_strict(j, \'{"a": "BIGINT", "b": ["VARCHAR"]}\')',
    "generate_subscripts": "generate_subscripts([1, 2], 1)",
    "geometric_mean": "geometric_mean(f + 1)",
    "getvariable": "getvariable('none')",
    "histogram_exact": "histogram_exact(i, [0, 1, 2])",
    "if": "if(ok, i, 1)",
    "json_deserialize_sql": "json_deserialize_sql(json_serialize_sql('SELECT 1'))",
    "json_group_object": "json_group_object('k', g)",
    "json_group_structure": "json_group_structure(j)",
    "json_object": "json_object('a', i, 'b', s)",
    "json_serialize_plan": "json_serialize_plan('SELECT 1')",
    "json_serialize_sql": "json_serialize_sql('SELECT 1')",
    "json_transform": 'json_transform(j, \'{"a": "BIGINT"}\')',
    "json_transform_strict": 'json_transform_strict(j, \'{"a": "BIGINT", "b": ["VARCHAR"]}\')',
    "list_aggr": "list_aggr(l, 'sum')",
    "list_aggregate": "list_aggregate(l, 'avg')",
    "list_bool_and": "list_bool_and([ok, true])",
    "list_bool_or": "list_bool_or([ok, false])",
    "list_reduce": "list_reduce(l, lambda x, y: x + y, 0)",
    "map_concat": "map_concat(MAP {'k': i}, MAP {'l': i})",
    "map_contains": "map_contains(MAP {'k': i}, 'k')",
    "map_contains_entry": "map_contains_entry(MAP {'k': i}, 'k', 1)",
    "map_contains_value": "map_contains_value(MAP {'k': i}, 1)",
    "map_extract": "map_extract(MAP {'k': i}, 'k')",
    "map_extract_value": "map_extract_value(MAP {'k': i}, 'k')",
    "map_from_entries": "map_from_entries([('k', i)])",
    "nextval": "nextval('s')",
    "parse_formatted_bytes": "parse_formatted_bytes('1KB')",
    "reduce": "reduce(l, lambda x, y: x + y, 0)",
    "remap_struct": "remap_struct(st, NULL::STRUCT(a BIGINT), {'a': 'a'}, NULL)",
    "row": "row(i, s)",
    "setval": "setval('s', 1)",
    "st_asbinary": "st_asbinary('POINT(1 2)'::GEOMETRY)",
    "st_asgeojson": "st_asgeojson('POINT(1 2)'::GEOMETRY)",
    "st_astext": "st_astext('POINT(1 2)'::GEOMETRY)",
    "st_aswkb": "st_aswkb('POINT(1 2)'::GEOMETRY)",
    "st_aswkt": "st_aswkt('POINT(1 2)'::GEOMETRY)",
    "st_geomfromgeojson": 'st_geomfromgeojson(\'{"type":"Point","coordinates":[1,2]}\')',
    "st_geomfromwkb": "st_geomfromwkb(st_aswkb('POINT(1 2)'::GEOMETRY))",
    "st_intersects_extent": "st_intersects_extent('POINT(1 2)'::GEOMETRY, 'POINT(1 2)'::GEOMETRY)",
    "st_setcrs": "st_setcrs('POINT(1 2)'::GEOMETRY, 'EPSG:4326')",
    "struct_contains": "struct_contains(row(i, 2), 2)",
    "struct_has": "struct_has(row(i, 2), 2)",
    "struct_indexof": "struct_indexof(row(i, 2), 2)",
    "struct_insert": "struct_insert(st, c := i)",
    "struct_pack": "struct_pack(a := i, b := s)",
    "struct_position": "struct_position(row(i, 2), 2)",
    "struct_update": "struct_update(st, a := 1)",
    "to_aggregate_state": "finalize(to_aggregate_state({'count': 2::UBIGINT, 'value': i::HUGEINT}, 'avg', ['BIGINT']))",
    "union_value": "union_value(a := i)",
    "uuid_extract_timestamp": "uuid_extract_timestamp('0190163d-8694-739b-aea5-966c26f8ad91'::UUID)",
    "wavg": "wavg(i, f + 1)",
    "write_log": "write_log(s)",
}
"""What no rule finds."""
INTERNAL = "INTERNAL"
"""Instead of a code: no SQL calls the function, DuckDB itself does."""
CLOCK = "CLOCK"
"""Instead of a code: a view has the call, over the step's instant. ``test_clock.py`` compares it."""
COMBINATIONS_MAX = 400


@dataclass(frozen=True)
class Function:
    kind: str
    name: str
    parameters: tuple[str, ...]
    varargs: str | None


@dataclass(frozen=True)
class Call:
    """``code``: of the refusal; empty where a view has the call. ``sql`` is empty for what is internal."""

    kind: str
    name: str
    code: str
    sql: str


def oracle() -> duckdb.DuckDBPyConnection:
    """DuckDB with the rows of ``POOL`` as ``samples``."""
    connection = duck.connect()
    rows = [{"id": place, **row} for place, row in enumerate(POOL)]
    columns = {f.name: pa.array([row[f.name] for row in rows], types.arrow_type(f.type)) for f in SCHEMA.fields}
    connection.register("arrived", pa.table(columns))
    lifted = ", ".join(f"{types.lift_sql(f.name, f.type)}::{f.type} AS {f.name}" for f in SCHEMA.fields)
    connection.execute(f"CREATE TABLE samples AS SELECT {lifted} FROM arrived")
    return connection


def functions(connection: duckdb.DuckDBPyConnection) -> list[Function]:
    """Every overload of every function that an expression can call; not the macros that headwater makes itself."""
    rows = connection.execute(
        "SELECT function_type, function_name, parameter_types, parameters, varargs FROM duckdb_functions()"
        " WHERE function_type IN $kinds AND database_name IN ('system', 'temp') AND (internal OR internal IS NULL)"
        " ORDER BY ALL",
        {"kinds": list(KINDS)},
    ).fetchall()
    return [
        Function(kind, name, tuple(text or "ANY" for text in (parameters or names)), varargs)
        for kind, name, parameters, names, varargs in rows
    ]


def arguments(text: str) -> tuple[str, ...]:
    """Expressions of a parameter's type."""
    if text in ARGUMENTS:
        return ARGUMENTS[text]
    if array := re.fullmatch(r"(\w+)\[(\d+|ANY)\]", text):
        return (f"[0.5, {arguments(array[1])[0]}]::{array[1]}[2]", f"[1, 2]::{array[1]}[2]")
    if text.endswith("[]"):
        inner = arguments(text[:-2])
        return tuple(f"[{each}]" for each in inner)
    return ARGUMENTS.get(text.partition("(")[0], (f"i::{text}", f"1::{text}"))


def calls(function: Function) -> Iterator[str]:
    """Ways to call an overload, the plainest first."""
    if function.name in CALLS:
        yield CALLS[function.name]
    choices = [arguments(text) for text in function.parameters]
    if function.varargs:
        choices.append(arguments(function.varargs))
    found = sorted(itertools.islice(itertools.product(*map(enumerate, choices)), 5_000), key=_plainness)
    for chosen in found[:COMBINATIONS_MAX]:
        yield called(function, [sql for _, sql in chosen])


def _plainness(chosen: tuple[tuple[int, str], ...]) -> int:
    return sum(place for place, _ in chosen)


def called(function: Function, values: list[str]) -> str:
    name = function.name
    if not name.replace("_", "a").isalnum():
        if len(values) == 2:
            return f"({values[0]} {name} {values[1]})"
        return f"({name} {values[0]})" if len(values) == 1 else f'"{name}"({", ".join(values)})'
    order = " ORDER BY id" if function.kind == "aggregate" else ""
    over = " OVER (PARTITION BY g ORDER BY id)" if function.kind == "window" else ""
    return f'"{name}"({", ".join(values)}{order if values else ""}){over}'


def working(connection: duckdb.DuckDBPyConnection, function: Function, typing: Duck) -> str:
    """A call that gives a value for every row of the pool; empty if there is none."""
    grouped = is_grouped(function.kind, function.name, typing)
    for sql in calls(function):
        try:
            text = connection.execute(f"DESCRIBE {statement([sql], grouped=grouped)}").fetchall()[1][1]
            kept = sql if is_storable(text) else f"CAST({sql} AS VARCHAR)"
            connection.execute(statement([kept], grouped=grouped)).fetchall()
        except (duckdb.Error, ValueError, OverflowError):
            continue
        return kept
    return ""


def is_grouped(kind: str, name: str, typing: Duck) -> bool:
    """Whether a call is one value of many rows; a macro may be, too."""
    return name in typing.aggregates and kind != "window"


def is_storable(text: str) -> bool:
    """Whether a changelog has columns of the type."""
    try:
        types.canonical(text)
    except ValueError:
        return False
    return True


def statement(calls_: list[str], *, grouped: bool) -> str:
    """One view of many calls."""
    listed = ", ".join(f"{sql} AS c{place}" for place, sql in enumerate(calls_))
    return f"SELECT g, {listed} FROM samples GROUP BY g" if grouped else f"SELECT id, {listed} FROM samples"


def code_of(sql: str, typing: Duck, *, grouped: bool) -> str:
    """The reason code with which a view of the call is refused; empty if it is not."""
    try:
        view = compile_view(parse(statement([sql], grouped=grouped), name="v"), Relations(RELATIONS), typing)
    except UnsupportedSql as error:
        return error.code
    return CLOCK if any(isinstance(source, Clock) for source in sources(view.root)) else ""


def known() -> tuple[str, list[Call]]:
    """DuckDB's version and the calls in the file."""
    version, *lines = FILE.read_text().splitlines()
    return version.rpartition(" ")[2], [Call(*line.split("\t")) for line in lines]


def derived(connection: duckdb.DuckDBPyConnection, typing: Duck) -> list[Call]:
    """A call of each function, found anew."""
    found: dict[tuple[str, str], Call] = {}
    for function in functions(connection):
        place = (function.kind, function.name)
        if place in found and found[place].code != INTERNAL:
            continue
        # What is refused by its name need not bind: a sequence is not there.
        sql = working(connection, function, typing) or CALLS.get(function.name, "")
        code = code_of(sql, typing, grouped=is_grouped(function.kind, function.name, typing)) if sql else INTERNAL
        found[place] = Call(*place, code, sql)
    return list(found.values())


def write() -> None:
    lines = [f"# the functions of DuckDB {duckdb.__version__}"]
    lines += [f"{call.kind}\t{call.name}\t{call.code}\t{call.sql}" for call in derived(oracle(), Duck())]
    FILE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    write()
