"""Every type of the table in ``headwater.types``, and lists of it, through hot tier, sealed tier and base."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pyarrow as pa
import pytest

from headwater import duck, types
from headwater.config import Settings
from headwater.lake import Lake, open_lake
from headwater.log import Log, base, seal
from headwater.schema import Schema
from headwater.testing.writer import Writer
from headwater.types import quote

TOPIC = "shop.public.t"

VALUES: Final[dict[str, list[str]]] = {
    "BOOLEAN": ["true", "false"],
    "TINYINT": ["-128", "127"],
    "SMALLINT": ["-32768", "32767"],
    "INTEGER": ["-2147483648", "2147483647"],
    "BIGINT": ["-9223372036854775808", "9223372036854775807", "0"],
    "UTINYINT": ["0", "255"],
    "USMALLINT": ["0", "65535"],
    "UINTEGER": ["0", "4294967295"],
    "UBIGINT": ["0", "18446744073709551615"],
    "HUGEINT": ["-" + "9" * 38, "9" * 38, "0", "-1"],
    "FLOAT": ["'nan'", "'-inf'", "'inf'", "3.4028235e38", "1e-45", "-0.0", "0.1"],
    "DOUBLE": ["'nan'", "'-inf'", "'inf'", "1.7976931348623157e308", "5e-324", "-0.0", "0.1"],
    "DECIMAL(12,2)": ["-9999999999.99", "9999999999.99", "0.01"],
    "DECIMAL(4,4)": ["-0.9999", "0.0001"],
    "DECIMAL(38,0)": ["-" + "9" * 38, "9" * 38, "1"],
    "DECIMAL(38,38)": [f"'-0.{'9' * 38}'", f"'0.{'0' * 37}1'"],
    "VARCHAR": ["''", "'it''s'", "'ß 😀 \u200b'", "'NULL'", "repeat('x', 100000)", "'a\nb\t\"'", "chr(1)"],
    "JSON": ['\'{"a": [1, null, "ß"]}\'', "'null'", "'  1 '", "'12345678901234567890.123'"],
    "BLOB": ["''::BLOB", r"'\x00\xFF'::BLOB", "'a'::BLOB"],
    "UUID": [
        "'00000000-0000-0000-0000-000000000000'",
        "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
        "'80000000-0000-4000-8000-000000000001'",
    ],
    "DATE": ["'infinity'", "'-infinity'", "'0044-03-15 (BC)'", "'5877-01-01'", "'1970-01-01'"],
    "TIME": ["'00:00:00'", "'24:00:00'", "'23:59:59.999999'"],
    "TIMETZ": [
        "'00:00:00+00'",
        "'24:00:00+00'",
        "'12:34:56.789012+05:45'",
        "'23:59:59.999999-15:59:59'",
        "'00:00:00+15:59:59'",
        "'01:02:03-00:00:01'",
    ],
    "TIMESTAMP": [
        "'infinity'",
        "'-infinity'",
        "'0044-03-15 (BC) 12:00:00'",
        "'290309-12-22 (BC) 00:00:00'",
        "'294246-12-31 23:59:59.999999'",
        "'1969-12-31 23:59:59.999999'",
    ],
    "TIMESTAMP WITH TIME ZONE": [
        "'infinity'",
        "'-infinity'",
        "'0044-03-15 (BC) 12:00:00+00'",
        "'2026-03-29 01:30:00+01'",
        "'294246-12-31 23:59:59.999999+00'",
    ],
    "INTERVAL": [
        "'0 days'",
        "(to_months(14) + to_days(-3) + to_microseconds(1))",
        "(to_months(-14) + to_days(40) + to_microseconds(-86400000001))",
        "(to_months(1) + to_days(-30))",
        "to_days(30)",
        "to_months(2147483647)",
        "to_days(-2147483648)",
        "to_microseconds(9223372036854775807)",
        "(to_months(-1) + to_microseconds(59999999))",
    ],
}


def literals(kind: str) -> list[str]:
    """SQL of the values of a type, NULL last; lists hold them all, NULL inside, nothing, and nothing at all.

    Structs hold one value of each field's type, its n-th in the n-th struct, or all of them NULL.
    """
    if types.is_struct(kind):
        inner_kinds = types.fields_of(kind)
        every = [
            ", ".join(
                f"{quote(name)} := {literals(inner)[place % len(literals(inner))]}" for name, inner in inner_kinds
            )
            for place in range(max(len(literals(inner)) for _, inner in inner_kinds))
        ]
        empty = ", ".join(f"{quote(name)} := CAST(NULL AS {inner})" for name, inner in inner_kinds)
        return [*(f"CAST(struct_pack({each}) AS {kind})" for each in [*every, empty]), f"CAST(NULL AS {kind})"]
    if not kind.endswith("[]"):
        return [*(f"CAST({text} AS {kind})" for text in VALUES[kind]), f"CAST(NULL AS {kind})"]
    inner = ", ".join(literals(kind[:-2]))
    return [f"[{inner}]", f"CAST([] AS {kind})", f"[CAST(NULL AS {kind[:-2]})]", f"CAST(NULL AS {kind})"]


ALL = types.struct((f"f{place} {kind}"[:9], kind) for place, kind in enumerate(VALUES))
"""A field of every type, and names that have to be quoted."""
_INNER = types.struct([("t", "TIMETZ"), ("T2", "JSON[]"), ("u", "UUID")])
NESTED = types.struct([("a.b", "INTERVAL[]"), ('say "x"', _INNER), ("c0", f"{_INNER}[]"), ("v", "UUID[]")])
KINDS = [*VALUES, *(f"{kind}[]" for kind in VALUES), ALL, NESTED]
COLUMNS = {f"c{place}": kind for place, kind in enumerate(KINDS)}
ROWS = max(len(literals(kind)) for kind in KINDS)


def truth_sql() -> str:
    """All values, one row per place; shorter types begin again."""
    rows = []
    for row in range(ROWS):
        cells = [f"{literals(kind)[row % len(literals(kind))]} AS {name}" for name, kind in COLUMNS.items()]
        rows.append(f"SELECT {row}::BIGINT AS id, {', '.join(cells)}")
    return " UNION ALL ".join(rows)


def lowered() -> pa.Table:
    with duck.connect(for_files=True) as connection:
        cells = ", ".join(f"{types.lower_sql(name, kind)} AS {name}" for name, kind in COLUMNS.items())
        return connection.sql(f"SELECT id, {cells} FROM ({truth_sql()})").to_arrow_table()


def differences(lake: Lake) -> dict[str, str]:
    """Types whose values came back otherwise: as value, as text, or as another type."""
    wrong = {}
    for name, kind in COLUMNS.items():
        expected = " UNION ALL ".join(
            f"SELECT {row}::BIGINT AS id, {literals(kind)[row % len(literals(kind))]} AS v" for row in range(ROWS)
        )
        found = lake.sql(
            f"SELECT any_value(typeof(t.{name})), count(*) FILTER (t.{name} IS DISTINCT FROM e.v),"
            f" list((t.{name}::VARCHAR, e.v::VARCHAR)) FILTER (t.{name}::VARCHAR IS DISTINCT FROM e.v::VARCHAR),"
            f" count(*) FROM t JOIN ({expected}) e USING (id)"
        ).fetchall()[0]
        if (types.canonical(found[0]), *found[1:]) != (kind, 0, None, ROWS):
            wrong[kind] = str(found)[:300]
    return wrong


def to_hot(_log: Log) -> None:
    """Where every record is first."""


def to_sealed(log: Log) -> None:
    assert seal.seal(log, Settings()) == ROWS


def to_base(log: Log) -> None:
    assert base.write(log, log.topic(TOPIC), log.newest_commit(), Settings()) == ROWS


@pytest.mark.parametrize("move", [to_hot, to_sealed, to_base])
def test_every_value_comes_back_from_every_tier(log: Log, writer: Writer, move: Callable[[Log], None]) -> None:
    writer.create(TOPIC, "table", Schema.of({"id": "BIGINT", **COLUMNS}, key=["id"]))
    rows = lowered()
    writer.write(TOPIC, rows.append_column("_op", pa.array(["c"] * ROWS)))
    move(log)
    with open_lake(log.folder) as lake:
        assert differences(lake) == {}
    with open_lake(log.folder) as lake:
        records = lake.log.read_changes(TOPIC, 0, log.newest_commit()).sort_by("id")
        assert records.select(rows.column_names).cast(rows.schema) == rows or _same(records, rows) == []


def _same(found: pa.Table, expected: pa.Table) -> list[str]:
    """Columns that differ (Arrow says NaN differs from itself, DuckDB does not)."""
    with duck.connect() as connection:
        connection.register("found", found.select(expected.column_names))
        connection.register("expected", expected)
        return [
            name
            for name in expected.column_names
            if connection.sql(f"SELECT id, {name} FROM found EXCEPT ALL SELECT id, {name} FROM expected").fetchall()
        ]


@pytest.mark.parametrize("kind", ["multiset", "changelog"])
def test_bags_keep_every_value_in_their_bases(log: Log, writer: Writer, kind: str) -> None:
    from headwater.log.rows import CurrentRows

    schema = Schema.of({"id": "BIGINT", **COLUMNS})
    writer.create(TOPIC, "multiset" if kind == "multiset" else "changelog", schema)
    weights = pa.array([2] * ROWS, pa.int64())
    writer.write(TOPIC, lowered().append_column("_weight", weights))
    to_sealed(log)
    to_base(log)
    with duck.connect() as connection:
        topic = log.topic(TOPIC)
        rows = CurrentRows(log, connection, topic).at(topic, log.newest_commit())
        twice = f"({truth_sql()}) UNION ALL ({truth_sql()})"
        assert connection.sql(f"SELECT count(*) FROM (({rows}) EXCEPT ALL ({twice}))").fetchall() == [(0,)]
        assert connection.sql(f"SELECT count(*) FROM ({rows})").fetchall() == [(2 * ROWS,)]


def test_lists_of_lists_and_unknown_types_are_refused() -> None:
    for kind in (
        "BIT",
        "STRUCT(a BIT)",
        "STRUCT(INTEGER, VARCHAR)",
        "STRUCT(a INTEGER, A INTEGER)",
        "MAP(VARCHAR, INT)",
    ):
        with pytest.raises(ValueError, match="no representation in files"):
            types.canonical(kind)


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("text", "VARCHAR"),
        ("int8[]", "BIGINT[]"),
        ("timestamptz", "TIMESTAMP WITH TIME ZONE"),
        ("decimal(10, 3)", "DECIMAL(10,3)"),
        ("ENUM('a', 'b')", "VARCHAR"),
        (
            "struct(a int, \"b \"\"(,\" ENUM('x,)', 'y')[], C STRUCT(d DECIMAL(3, 1)))",
            'STRUCT("a" INTEGER, "b ""(," VARCHAR[], "C" STRUCT("d" DECIMAL(3,1)))',
        ),
    ],
)
def test_type_texts_have_one_spelling(given: str, canonical: str) -> None:
    assert types.canonical(given) == canonical


def test_quoting_doubles_quotes() -> None:
    assert types.quote('a"b') == '"a""b"'
