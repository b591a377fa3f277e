"""A shop that writes to a real log as a source would, and keeps what every commit's tables held.

``Shop`` is the oracle's memory: after each commit it has a DuckDB schema ``c<commit>`` with the tables as of
that commit, so that any view can be run from scratch over any input commit.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from headwater import types
from headwater.log import Log, open_log
from headwater.ownership import own
from headwater.schema import Schema
from headwater_pipelines.compiler import top
from headwater_pipelines.runtime import arrived, relation, runs

TABLES = {
    "customers": Schema.of(id="BIGINT", name="VARCHAR", country="VARCHAR", key=["id"]),
    "orders": Schema.of(id="BIGINT", customer_id="BIGINT", total="DECIMAL(12,2)", note="VARCHAR", key=["id"]),
}
VIEWS = {
    "big_orders": "SELECT id, total * 2 AS twice FROM orders WHERE total > 50",
    "revenue": "SELECT c.country, count(*) AS n, sum(o.total) AS revenue, avg(o.total) AS mean"
    " FROM orders o JOIN customers c ON c.id = o.customer_id GROUP BY c.country",
    "totals": "SELECT count(*) AS n, sum(total) AS total FROM orders",
    "countries": "SELECT n, count(*) AS countries FROM revenue GROUP BY n",
}


class Shop:
    """Writes random commits of whole transactions; every commit changes both tables or one."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.lake = folder / "lake"
        self.rng = random.Random(seed)
        self.rows: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in TABLES}
        self.oracle = duckdb.connect()
        self.position = 0
        self.commits: list[int] = []
        (folder / "headwater.toml").write_text('[project]\nname = "shop"\n')
        with open_log(self.lake, create=True) as log, own(log, "source:shop") as owner:
            self.epoch = owner.epoch
            with log.transaction("source:shop", self.epoch, None) as tx:
                for name, schema in TABLES.items():
                    tx.create_topic(f"shop.public.{name}", "table", schema, source="shop")
                for name in TABLES:
                    tx.append(f"shop.public.{name}", self.initial(name))
                self.finish(tx)

    def initial(self, name: str) -> pa.Table:
        for number in range(30):
            self.rows[name][number] = self.row(name, number)
        return self.table(name, [{**row, "_op": "r"} for row in self.rows[name].values()])

    def commit(self, log: Log) -> int:
        """One source commit of a few random changes."""
        with log.transaction("source:shop", self.epoch, str(self.position)) as tx:
            for name in self.rng.choice([("orders",), ("orders", "customers"), ("customers",)]):
                tx.append(f"shop.public.{name}", self.changes(name))
            return self.finish(tx)

    def update(self, log: Log, name: str, numbers: range) -> int:
        """One source commit that inserts or updates the rows of these numbers."""
        for number in numbers:
            self.rows[name][number] = self.row(name, number)
        with log.transaction("source:shop", self.epoch, str(self.position)) as tx:
            tx.append(f"shop.public.{name}", self.table(name, [{**self.rows[name][n], "_op": "u"} for n in numbers]))
            return self.finish(tx)

    def finish(self, tx: Any) -> int:
        self.position += 1
        tx.position = str(self.position)
        number: int = tx.commit().number
        self.oracle.execute(f"CREATE SCHEMA c{number}")
        for name, schema in TABLES.items():
            body = ", ".join(f"{field.name} {field.type}" for field in schema.fields)
            self.oracle.execute(f"CREATE TABLE c{number}.{name} ({body})")
            if self.rows[name]:
                marks = ", ".join("?" * len(schema.names))
                values = [tuple(row.values()) for row in self.rows[name].values()]
                self.oracle.executemany(f"INSERT INTO c{number}.{name} VALUES ({marks})", values)
        self.oracle.execute(f"SET search_path = 'c{number}'")
        for name, sql in VIEWS.items():
            self.oracle.execute(f"CREATE VIEW c{number}.{name} AS {sql}")
        self.commits.append(number)
        return number

    def changes(self, name: str) -> pa.Table:
        found = []
        for _ in range(self.rng.randrange(1, 8)):
            number = self.rng.randrange(60)
            if number not in self.rows[name]:
                self.rows[name][number] = self.row(name, number)
                found.append({**self.rows[name][number], "_op": "c"})
            elif self.rng.random() < 0.4:
                self.rows[name].pop(number)
                found.append({"id": number, "_op": "d"})
            else:
                self.rows[name][number] = self.row(name, number)
                found.append({**self.rows[name][number], "_op": "u"})
        return self.table(name, found)

    def row(self, name: str, number: int) -> dict[str, Any]:
        pick = self.rng
        if name == "customers":
            return {"id": number, "name": f"n{number}", "country": pick.choice(["de", "fr", "pl", None])}
        total = Decimal(pick.randrange(0, 10_000)).scaleb(-2)
        return {"id": number, "customer_id": pick.randrange(40), "total": total, "note": pick.choice(["a", None])}

    def table(self, name: str, rows: list[dict[str, Any]]) -> pa.Table:
        columns: dict[str, Any] = {
            field.name: pa.array([row.get(field.name) for row in rows], types.arrow_type(field.type))
            for field in TABLES[name].fields
        }
        columns["_op"] = pa.array([row["_op"] for row in rows])
        columns["_seq"] = pa.array(range(len(rows)), pa.int64())
        return pa.table(columns)

    # ---- comparison

    def check_every_step(self, log: Log, names: list[str]) -> int:
        """Every published step's views equal their SQL over the tables at its input commit; returns the steps."""
        steps = log.steps()
        for step in steps:
            inputs = max(number for number in self.commits if number <= step.input_commit)
            for view in log.views():
                if view.name in names and view.id in step.views:
                    self.check(log, view.name, step.publish_commit, inputs)
        return len(steps)

    def check(self, log: Log, name: str, publish_commit: int, input_commit: int) -> None:
        topic = log.topic(f"views.{name}")
        out = log.read_changes(topic.name, 0, publish_commit, [*topic.schema.names, "_weight"])
        self.oracle.register("changes_out", out)
        lifted = ", ".join(f"{types.lift_sql(f.name, f.type)} AS {types.quote(f.name)}" for f in topic.schema.fields)
        columns = ", ".join(types.quote(column) for column in topic.schema.names)
        folded = (
            f"SELECT {columns}, sum(_weight) AS copies FROM (SELECT {lifted}, _weight FROM changes_out) GROUP BY ALL"
        )
        kept = f"SELECT {columns} FROM (SELECT *, unnest(range(copies::BIGINT)) FROM ({folded}))"
        self.oracle.execute(f"SET search_path = 'c{input_commit}'")
        want = f"SELECT {columns} FROM c{input_commit}.{name}"
        missing = self.oracle.execute(f"({want}) EXCEPT ALL ({kept})").fetchall()
        extra = self.oracle.execute(f"({kept}) EXCEPT ALL ({want})").fetchall()
        negative = self.oracle.execute(f"SELECT count(*) FROM ({folded}) WHERE copies < 0").fetchall()
        self.oracle.unregister("changes_out")
        assert (missing, extra, negative) == ([], [], [(0,)]), f"{name} at commit {publish_commit}"


@pytest.fixture
def shop(tmp_path: Path, seed: int) -> Iterator[Shop]:
    print("seed", seed)
    made = Shop(tmp_path, seed)
    yield made
    made.oracle.close()


@pytest.fixture
def few_spare_rows(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """So few rows are kept behind the first ones that these are often taken from all rows again."""
    monkeypatch.setattr(top, "SPARE_ROWS", seed % 5)


@pytest.fixture
def sometimes_in_runs(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every second seed few rows are stored as many are: in runs, and found by look-ups."""
    if seed % 2:
        print("in runs")
        monkeypatch.setattr(relation, "OPEN_ROWS_MAX", 8)
        monkeypatch.setattr(relation, "LOOKUP_SHARE", 0)
        monkeypatch.setattr(relation, "FOUND_SHARE", 1)
        monkeypatch.setattr(relation, "FOUND_ROWS", 7)
        monkeypatch.setattr("headwater_pipelines.runtime.step.SELECTIVE_KEYS", 0)
        monkeypatch.setattr(runs, "BATCH_ROWS", 16)
        monkeypatch.setattr(arrived, "SLICE_ROWS", 4)
