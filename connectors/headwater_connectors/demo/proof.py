"""Proofs about a lake, by oracles from outside: PostgreSQL for tables, plain DuckDB for views and files.

Each returns the differences it found; none means proven. Comparisons are by value and both ways (``EXCEPT ALL``),
columnar, of every row. The lake is only read.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
from psycopg import sql

import headwater as hw
from headwater.catalog.records import Step
from headwater.log import manifest
from headwater.types import quote

SHOWN = 3
"""Differing rows shown of one comparison."""

# What PostgreSQL's types are in DuckDB, said here once more so that a wrong type in the lake is a difference too.
# Text otherwise; character(n) keeps its padding, enums are their labels.
_TYPES = {
    "bigint": "BIGINT",
    "integer": "INTEGER",
    "smallint": "SMALLINT",
    "real": "FLOAT",
    "double precision": "DOUBLE",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp without time zone": "TIMESTAMP",
    "timestamp with time zone": "TIMESTAMP WITH TIME ZONE",
    "uuid": "UUID",
    "jsonb": "JSON",
    "json": "JSON",
    "text[]": "VARCHAR[]",
}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What differs, where, in one line."""

    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


def tables_equal_source(
    lake: hw.Lake, dsn: str, source: str, tables: Sequence[str], at: int
) -> tuple[int, list[Difference]]:
    """Compare captured tables at a position with what PostgreSQL holds now, which must be at rest.

    ``tables`` are names in the schema public. Returns the rows compared and the differences.
    """
    rows, found = 0, []
    with psycopg.connect(dsn) as connection, tempfile.TemporaryDirectory(prefix="headwater-proof-") as folder:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET extra_float_digits = 1")
        for table in tables:
            columns = _columns(connection, table)
            path = Path(folder) / f"{table}.csv"
            _dump(connection, table, columns, path)
            with duckdb.connect() as duck:
                duck.execute("SET TimeZone = 'UTC'")
                _load_expected(duck, path, columns)
                rows += _count(duck, "expected")
                found += _actual(duck, lake, f"{source}.public.{table}", columns, at)
    return rows, found


def views_equal_queries(
    lake: hw.Lake, queries: Mapping[str, str], tables: Sequence[str], steps: Sequence[Step]
) -> tuple[int, list[Difference]]:
    """Compare every view at some steps with its query run from scratch over the tables at their input commits.

    ``queries`` maps names to SELECTs, which may name each other. Returns the rows compared and the differences.
    """
    rows, found = 0, []
    for step in steps:
        with duckdb.connect() as duck:
            duck.execute(f"SET TimeZone = '{lake.log.timezone}'")
            for table in tables:
                _copy(duck, table, lake.sql(f"SELECT * FROM {quote(table)}", at=step.input_commit))
            _define(duck, queries)
            for name in queries:
                result = lake.sql(f"SELECT * FROM {quote(name)}", at=step.publish_commit)
                if result.input_position != step.input_commit:
                    found.append(
                        Difference(
                            place=f"view {name}",
                            text=f"read at input commit {result.input_position}, not {step.input_commit}",
                        )
                    )
                    continue
                duck.execute(f"CREATE OR REPLACE TABLE expected AS FROM {quote(name)}")
                _copy(duck, "actual", result)
                rows += _count(duck, "expected")
                found += _compare(duck, f"view {name} at commit {step.publish_commit}")
    return rows, found


def sums_kept(
    lake: hw.Lake, topic: str, key: str, amount: str, expected: Decimal | int | None = None
) -> tuple[int, list[Difference]]:
    """Prove that the sum of ``amount`` over a keyed table is the same at *every* commit that touched it.

    Set-based, over the records: each adds its value less the value that its key had before. Returns the commits
    looked at and the differences. ``expected`` None: the sum at the table's first commit.
    """
    totals = totals_by_commit(lake, topic, key, amount)
    if expected is None and totals:
        expected = totals[0][1]
    wrong = [(commit, total) for commit, total in totals if total != expected]
    text = "the sum of {} is {} instead of {} at commit {}"
    return len(totals), [
        Difference(place=topic, text=text.format(amount, total, expected, commit)) for commit, total in wrong[:SHOWN]
    ]


def totals_by_commit(lake: hw.Lake, topic: str, key: str, amount: str) -> list[tuple[int, Decimal]]:
    """(commit, sum of ``amount`` over the table) for every commit that changed the table, in order."""
    query = f"""
        WITH change AS (
            SELECT _commit, _partition, _offset, {quote(key)} AS key,
                   CASE WHEN _op = 'd' THEN 0 ELSE {quote(amount)} END AS amount
            FROM log.{quote(topic)} WHERE _op <> 't'
        ), delta AS (
            SELECT _commit,
                   amount - coalesce(lag(amount) OVER mine, 0) AS delta
            FROM change WINDOW mine AS (PARTITION BY key ORDER BY _commit, _partition, _offset)
        ), by_commit AS (
            SELECT _commit, sum(delta) AS delta FROM delta GROUP BY _commit
        )
        SELECT _commit, CAST(sum(delta) OVER (ORDER BY _commit) AS DECIMAL(38, 2)) AS total
        FROM by_commit ORDER BY _commit
    """
    return [(int(commit), total) for commit, total in lake.sql(query).fetchall()]


def partitions_used(lake: hw.Lake, topic: str, partitions: int) -> list[Difference]:
    """Prove that a topic has so many partitions and that each of them holds records."""
    used = lake.sql(f"SELECT count(DISTINCT _partition) FROM log.{quote(topic)}").scalar()
    declared = lake.log.topic(topic).partitions
    if used == declared == partitions:
        return []
    return [Difference(place=topic, text=f"{used} of {declared} partitions used, {partitions} expected")]


# The whole of the other engine: it is given files and nothing else of ours.
_COUNT = """
import duckdb, json, sys
for name, files in json.load(sys.stdin).items():
    counted = duckdb.execute("SELECT count(*) FROM read_parquet($1)", [files]).fetchall()[0][0]
    print(json.dumps([name, counted]))
"""


def manifests_count(lake: hw.Lake, topics: Sequence[str]) -> list[Difference]:
    """Count sealed records by a plain DuckDB process that is given only the manifests' files."""
    files: dict[str, list[str]] = {}
    expected: dict[str, int] = {}
    for name in topics:
        path = manifest.path(lake.log, lake.log.topic(name))
        listed: dict[str, Any] = {"segments": [], "last_commit": 0}
        if path.exists():
            listed = json.loads(path.read_text(encoding="utf-8"))
        files[name] = [str(lake.log.folder / each["path"]) for each in listed["segments"]]
        expected[name] = lake.sql(
            f"SELECT count(*) FROM log.{quote(name)} WHERE _commit <= $last", params={"last": listed["last_commit"]}
        ).scalar()
    program = [sys.executable, "-I", "-c", _COUNT]
    done = subprocess.run(program, input=json.dumps(files), capture_output=True, text=True, check=False)
    counted = dict(json.loads(line) for line in done.stdout.splitlines())
    text = "plain DuckDB counts {} of {} records in {} files {}"
    return [
        Difference(place=name, text=text.format(counted.get(name), rows, len(files[name]), done.stderr[-300:]))
        for name, rows in expected.items()
        if counted.get(name) != rows or not rows
    ]


@dataclass(frozen=True, kw_only=True)
class Latency:
    """From the source's commit to the publish commit that holds it in the views; milliseconds."""

    transactions: int
    p50: float
    p95: float
    p99: float


def latency(lake: hw.Lake, source: str, after: int) -> Latency:
    """Of every source transaction in commits after ``after``, by PostgreSQL's and the log's own clocks."""
    steps = lake.log.steps()
    published = {each.number: each.time for each in lake.log.commits()}
    times = [published[each.publish_commit] for each in steps]
    with duckdb.connect() as duck:
        duck.execute("SET TimeZone = 'UTC'")
        inputs = [each.input_commit for each in steps]
        duck.register("step", pa.table({"input": inputs, "time": pa.array(times, pa.timestamp("us", "UTC"))}))
        topic = quote(f"{source}.transactions")
        moments = lake.sql(f"SELECT _commit AS commit, committed_at AS time FROM log.{topic} WHERE _commit > {after:d}")
        duck.register("moment", moments.arrow())
        ((count, quantiles),) = duck.execute(
            "WITH seen AS (SELECT epoch_us(step.time) - epoch_us(moment.time) AS us"
            " FROM moment ASOF JOIN step ON step.input >= moment.commit)"
            " SELECT count(*), quantile_disc(us, [0.5, 0.95, 0.99]) FROM seen"
        ).fetchall()
    p50, p95, p99 = (each / 1000 for each in quantiles) if count else (float("nan"),) * 3
    return Latency(transactions=count, p50=p50, p95=p95, p99=p99)


def _columns(connection: psycopg.Connection[tuple[object, ...]], table: str) -> dict[str, tuple[str, str]]:
    """Name → (DuckDB type, how PostgreSQL writes it) of a table's columns."""
    rows = connection.execute(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        [f'public."{table}"'],
    ).fetchall()
    found = {}
    for name, kind in rows:
        text = str(kind)
        target = text.replace("numeric", "DECIMAL") if text.startswith("numeric(") else _TYPES.get(text, "VARCHAR")
        found[str(name)] = (target, "array_to_json({})" if text.endswith("[]") else "{}")
    return found


def _dump(
    connection: psycopg.Connection[tuple[object, ...]],
    table: str,
    columns: Mapping[str, tuple[str, str]],
    path: Path,
) -> None:
    chosen = [sql.SQL(form).format(sql.Identifier(name)) for name, (_, form) in columns.items()]
    query = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT WITH (FORMAT csv, NULL '\\N')").format(
        sql.SQL(", ").join(chosen), sql.Identifier("public", table)
    )
    with path.open("wb") as file, connection.cursor().copy(query) as copy:
        for block in copy:
            file.write(block)


def _load_expected(duck: duckdb.DuckDBPyConnection, path: Path, columns: Mapping[str, tuple[str, str]]) -> None:
    kinds = ", ".join(f"{quote(name)}: 'VARCHAR'" for name in columns)
    casts = ", ".join(
        f"CAST({f'CAST({quote(name)} AS JSON)' if kind.endswith('[]') else quote(name)} AS {kind}) AS {quote(name)}"
        for name, (kind, _) in columns.items()
    )
    duck.execute(
        f"CREATE TABLE expected AS SELECT {casts} FROM read_csv($path, columns = {{{kinds}}}, header = false,"
        " delim = ',', quote = '\"', escape = '\"', nullstr = '\\N', allow_quoted_nulls = false,"
        " auto_detect = false, parallel = false)",
        {"path": str(path)},
    )


def _actual(
    duck: duckdb.DuckDBPyConnection,
    lake: hw.Lake,
    topic: str,
    columns: Mapping[str, tuple[str, str]],
    at: int,
) -> list[Difference]:
    types = {each.name: each.type for each in lake.at(at).describe(topic).fields}
    expected = {name: kind for name, (kind, _) in columns.items()}
    if types != expected:
        return [Difference(place=topic, text=f"columns {types} instead of {expected}")]
    name = ".".join(quote(part) for part in topic.split("."))
    chosen = ", ".join(quote(column) for column in columns)
    _copy(duck, "actual", lake.sql(f"SELECT {chosen} FROM {name}", at=at))
    return _compare(duck, topic)


def _copy(duck: duckdb.DuckDBPyConnection, name: str, result: hw.Result) -> None:
    """A result as a table of its own types: what Arrow calls otherwise (JSON, UUID, HUGEINT) is cast back."""
    casts = ", ".join(
        f"CAST({quote(column)} AS {kind}) AS {quote(column)}"
        for column, kind in zip(result.columns, result.types, strict=True)
    )
    duck.register("fetched", result.arrow())
    duck.execute(f"CREATE OR REPLACE TABLE {quote(name)} AS SELECT {casts} FROM fetched")
    duck.unregister("fetched")


def _define(duck: duckdb.DuckDBPyConnection, queries: Mapping[str, str]) -> None:
    """Define the views; one that names another is defined after it."""
    left = dict(queries)
    while left:
        before = len(left)
        for name, query in list(left.items()):
            try:
                duck.execute(f"CREATE VIEW {quote(name)} AS {query}")
                del left[name]
            except duckdb.CatalogException:
                if len(left) == 1:
                    raise
        if len(left) == before:
            raise duckdb.CatalogException(f"these views name each other or nothing known: {', '.join(left)}")


def _compare(duck: duckdb.DuckDBPyConnection, place: str) -> list[Difference]:
    """``actual`` against ``expected``. Floating columns, whose last bit depends on the order of addition, to 1e-9."""
    shape = duck.execute("DESCRIBE expected").fetchall()
    names = {row[0] for row in shape}
    if (other := {row[0] for row in duck.execute("DESCRIBE actual").fetchall()}) != names:
        return [Difference(place=place, text=f"columns {sorted(other)} instead of {sorted(names)}")]
    chosen = ", ".join(
        f"printf('%.9e', {quote(row[0])}) AS {quote(row[0])}" if row[1] == "DOUBLE" else quote(row[0]) for row in shape
    )
    found = []
    for left, right, word in (("expected", "actual", "missing"), ("actual", "expected", "should not be there")):
        query = f"(SELECT {chosen} FROM {left}) EXCEPT ALL (SELECT {chosen} FROM {right})"
        ((total,),) = duck.execute(f"SELECT count(*) FROM ({query})").fetchall()
        if total:
            rows = duck.execute(f"SELECT * FROM ({query}) ORDER BY ALL LIMIT {SHOWN}").fetchall()
            found.append(Difference(place=place, text=f"{total} rows {word}, first {rows}"))
    return found


def _count(duck: duckdb.DuckDBPyConnection, table: str) -> int:
    ((rows,),) = duck.execute(f"SELECT count(*) FROM {quote(table)}").fetchall()
    return int(rows)
