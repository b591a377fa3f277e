"""The tables of TPC-H as ``tpchgen-cli`` makes them, and their changes, as a source would send both to the log.

``Trade`` keeps the tables as they stand after each change, in DuckDB: the oracle asks them what a view has to hold.
Changes are the refresh functions of the specification (2.5 to 2.7) and updates:

    RF1      new orders with their line items; keys lie in the gaps that the generator leaves, which uses 8 of every 32
    RF2      orders that are deleted with their line items
    update   rows that take one another's values, so that no column's distribution drifts away

RF1's rows are those of other orders under new keys: what the generator makes of an order does not depend on its key or
on other orders, so these are as it would make them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import duckdb
import pyarrow as pa

from benchmarks.tpch_queries import TABLES

ORDERS = 1_500_000
"""At scale factor 1."""
COPY_ROWS = 1_000_000
"""Rows of one commit of the initial copy."""
LINES = {"orders": "o_orderkey", "lineitem": "l_orderkey"}

Changes = Mapping[str, pa.Table]
"""Change records by table."""


def generate(folder: Path, scale: float) -> None:
    """Write the eight tables as Parquet files."""
    command = shutil.which("tpchgen-cli", path=str(Path(sys.executable).parent)) or shutil.which("tpchgen-cli")
    if command is None:
        raise FileNotFoundError("tpchgen-cli is not installed: it is one of the development packages")
    options = ["parquet", "--scale-factor", str(scale), "--output-dir", str(folder), "--quiet"]
    subprocess.run([command, *options], check=True)


def together(*changes: Changes) -> Changes:
    """Changes one after the other as those of one commit."""
    names = {name for each in changes for name in each}
    return {name: pa.concat_tables([each[name] for each in changes if name in each]) for name in names}


class Trade:
    """The tables as they stand; every change is done to them and given back as records."""

    def __init__(self, folder: Path, *, seed: int = 1, database: Path | None = None) -> None:
        """``folder`` has the generator's files; the tables are kept in ``database`` or in memory."""
        self.connection = duckdb.connect(str(database or ":memory:"))
        self.seed = seed
        self.added = 0
        """Orders that RF1 has added so far."""
        for name, schema in TABLES.items():
            columns = ", ".join(f"CAST({field.name} AS {field.type}) AS {field.name}" for field in schema.fields)
            self.connection.execute(f"CREATE TABLE {name} AS SELECT {columns} FROM '{folder / name}.parquet'")
        self.orders = self.count("orders")

    def count(self, table: str) -> int:
        [(rows,)] = self.connection.execute(f"SELECT count(*) FROM {table}").fetchall()
        return int(rows)

    def copy(self) -> Iterator[Changes]:
        """All rows as an initial copy sends them, in parts for one commit each."""
        for name in TABLES:
            rows = self._records(f"SELECT *, 'r' AS _op FROM {name}")
            for first in range(0, len(rows), COPY_ROWS):
                yield {name: rows.slice(first, COPY_ROWS)}

    # ---- changes

    def change(self, share: float) -> Changes:
        """That share of the orders and of their lines, a third each new, deleted and updated, and of ``partsupp``."""
        third = max(2, round(self.orders * share / 3))
        lines = max(2, round(self.count("lineitem") * share / 3))
        updates = [self.update("orders", third), self.update("lineitem", lines)]
        updates.append(self.update("partsupp", max(2, round(self.count("partsupp") * share))))
        return together(*updates, self.insert_orders(third), self.delete_orders(third))

    def insert_orders(self, orders: int) -> Changes:
        """RF1."""
        self._pick("orders", "o_orderkey", orders)
        self.connection.execute(f"""
            CREATE OR REPLACE TEMP TABLE renamed AS
            SELECT o_orderkey AS old, ((i >> 3) << 5) | (8 * (1 + i // {self.orders})) | (i & 7) AS new
            FROM (SELECT o_orderkey, (i + {self.added}) % {3 * self.orders} AS i FROM picked)""")
        self.added += orders
        found = {}
        for name, key in LINES.items():
            rows = f"SELECT t.* REPLACE (new AS {key}) FROM {name} AS t JOIN renamed ON old = {key}"
            found[name] = self._records(f"SELECT *, 'c' AS _op FROM ({rows})")
            self._insert(name, found[name])
        return found

    def delete_orders(self, orders: int) -> Changes:
        """RF2."""
        self._pick("orders", "o_orderkey", orders)
        found = {}
        for name, key in LINES.items():
            gone = f"{name} WHERE {key} IN (SELECT o_orderkey FROM picked)"
            found[name] = self._deleted(name, gone)
            self.connection.execute(f"DELETE FROM {gone}")
        return found

    def update(self, table: str, rows: int) -> Changes:
        """So many rows, each of which takes the values of another."""
        keys = ", ".join(TABLES[table].key)
        self._pick(table, keys, rows)
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE old AS FROM {table} JOIN picked USING ({keys})")
        found = self._records(f"""
            SELECT {self._columns(table, "one.{0}", "other.{0}")}, 'u' AS _op
            FROM old AS one JOIN old AS other ON other.i = (one.i + 1) % {self.count("old")}""")
        self.connection.execute(f"DELETE FROM {table} WHERE ({keys}) IN (SELECT ({keys}) FROM picked)")
        self._insert(table, found)
        return {table: found}

    def _pick(self, table: str, keys: str, rows: int) -> None:
        """Keys of random rows, numbered from 0."""
        self.seed += 1
        chosen = f"SELECT {keys} FROM {table} ORDER BY hash({keys}, {self.seed}) LIMIT {rows}"
        self.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE picked AS SELECT *, row_number() OVER () - 1 AS i FROM ({chosen})"
        )

    def _deleted(self, table: str, gone: str) -> pa.Table:
        return self._records(f"SELECT {self._columns(table, '{0}', 'NULL')}, 'd' AS _op FROM {gone}")

    def _columns(self, table: str, key: str, other: str) -> str:
        schema = TABLES[table]
        shown = ((field, (key if field.name in schema.key else other).format(field.name)) for field in schema.fields)
        return ", ".join(f"CAST({sql} AS {field.type}) AS {field.name}" for field, sql in shown)

    def _records(self, select: str) -> pa.Table:
        return self.connection.sql(select).to_arrow_table()

    def _insert(self, table: str, records: pa.Table) -> None:
        self.connection.register("records", records)
        self.connection.execute(f"INSERT INTO {table} SELECT * EXCLUDE (_op) FROM records")
        self.connection.unregister("records")

    # ---- the oracle

    def differences(self, query: str, rows: pa.Table) -> int:
        """How many rows the query's answer has that ``rows`` lack, and back; of floats ten digits count."""
        shown = ", ".join(
            f"printf('%.9e', {name} + 0.0::DOUBLE)" if pa.types.is_floating(kind) else name
            for name, kind in zip(rows.schema.names, rows.schema.types, strict=True)
        )
        self.connection.register("found", rows)
        one, other = f"SELECT {shown} FROM ({query})", f"SELECT {shown} FROM found"
        sides = (f"(({one}) EXCEPT ALL ({other}))", f"(({other}) EXCEPT ALL ({one}))")
        counts = [self.connection.execute(f"SELECT count(*) FROM {side}").fetchall()[0][0] for side in sides]
        self.connection.unregister("found")
        return sum(counts)
