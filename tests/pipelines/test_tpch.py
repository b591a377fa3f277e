"""All of TPC-H's queries as views, over the generator's tables in a log and over small ones that meet their conditions.

The first are loaded and changed as a source would do it, and the worker maintains the views. In the second every random
change is likely to matter to a query.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from benchmarks.log_data import Producer
from benchmarks.tpch_data import Changes, Trade, generate, together
from benchmarks.tpch_queries import QUERIES, TABLES
from tests.pipelines.world import Topic, World

from headwater.config import Settings
from headwater.lake import Lake
from headwater.log import Log, open_log
from headwater.ownership import own
from headwater_pipelines.compiler.explain import explain
from headwater_pipelines.compiler.plan import Recompute
from headwater_pipelines.runtime.publish import PRODUCER
from headwater_pipelines.runtime.worker import Worker

SCALE = 0.1
UPDATED = [name for name in TABLES if name not in ("region", "nation")]

CHOICES: dict[str, list[Any]] = {
    "r_name": ["AMERICA", "ASIA", "EUROPE"],
    "n_name": ["FRANCE", "GERMANY", "BRAZIL", "CANADA", "SAUDI ARABIA"],
    "s_comment": ["quick", "Customer is full of Complaints"],
    "p_name": ["forest green", "green metal", "forest pink", "blue"],
    "p_brand": ["Brand#12", "Brand#23", "Brand#34", "Brand#45"],
    "p_type": ["ECONOMY ANODIZED STEEL", "PROMO BRASS", "MEDIUM POLISHED TIN", "LARGE BRASS"],
    "p_size": [1, 3, 5, 9, 15, 23],
    "p_container": ["SM CASE", "MED BOX", "LG PKG"],
    "c_mktsegment": ["BUILDING", "MACHINERY"],
    "c_phone": ["13-555", "31-555", "23-555", "44-555"],
    "o_orderstatus": ["F", "O"],
    "o_orderpriority": ["1-URGENT", "2-HIGH", "5-LOW"],
    "o_comment": ["none", "special packing requests"],
    "l_returnflag": ["R", "A", "N"],
    "l_linestatus": ["O", "F"],
    "l_shipmode": ["MAIL", "SHIP", "AIR", "AIR REG"],
    "l_shipinstruct": ["DELIVER IN PERSON", "NONE"],
    "l_discount": [Decimal("0.04"), Decimal("0.05"), Decimal("0.07")],
    "l_quantity": [Decimal(quantity) for quantity in (1, 5, 11, 15, 20, 50, 200, 200)],
}
KEYS = {"regionkey": 5, "nationkey": 5, "suppkey": 5, "partkey": 6, "custkey": 8, "orderkey": 20, "linenumber": 4}
MONTHS = ((1993, 7), (1993, 10), (1993, 11), (1994, 2), (1994, 8), (1995, 3), (1995, 9), (1996, 1), (1996, 3))
"""In which the queries' periods lie."""


class TradeWorld(World):
    """The tables of TPC-H with keys and dates from small ranges."""

    FILL = 150
    NULLS = 0.03
    DIGITS = 12
    """DuckDB divides a sum by a count, or finishes an average, as it finds NULLs or none."""

    def tables(self) -> list[Topic]:
        return [
            self.topic(name, number, "table", list(schema.key), **{f.name: f.type for f in schema.fields})
            for number, (name, schema) in enumerate(TABLES.items(), start=1)
        ]

    def value(self, topic: Topic, name: str, text: str) -> Any:  # noqa: ARG002
        rng = self.rng
        own = name.partition("_")[2]
        if own in KEYS:
            return rng.randrange(KEYS[own])
        if name in CHOICES:
            return None if rng.random() < self.NULLS else rng.choice(CHOICES[name])
        if text == "DATE":
            return date(*rng.choice(MONTHS), rng.randrange(1, 29))
        if text.startswith("DECIMAL"):
            return Decimal(rng.randrange(100, 90_000)).scaleb(-2)
        return rng.randrange(1, 90) if text == "INTEGER" else f"{own} {rng.randrange(3)}"


@pytest.fixture
def trade(seed: int, tmp_path: Path) -> Any:
    print("seed", seed)
    made = TradeWorld(random.Random(seed), tmp_path, QUERIES)
    yield made
    made.state.close()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_all_queries_equal_duckdb_at_every_step(trade: TradeWorld) -> None:
    seen = set[str]()
    for _ in range(20):
        trade.step()
        for view_id, view in trade.views.items():
            seen |= {view.name} if trade.folds[view_id].total() else set()
    print(f"{len(seen)} of {len(trade.views)} queries had rows: {sorted(seen)}")
    for view in trade.views.values():
        print(view.name, sorted({f"{n.operator}: {n.reason}" for n in explain(view).nodes if n.maintenance == "full"}))
    assert len(seen) > 11


@pytest.mark.long
def test_what_is_recomputed_in_full(trade: TradeWorld) -> None:
    """Nothing."""
    full = {
        view.name.removeprefix("view_"): {node.reason for node in explain(view).nodes if node.maintenance == "full"}
        for view in trade.views.values()
    }
    assert {name: reasons for name, reasons in full.items() if reasons} == {}


def test_no_more_is_stored_than_is_read() -> None:
    """Of q21's SELECT * what its conditions compare; of q13's join no comment, which chooses rows before it."""
    trade = TradeWorld(random.Random(1), None, {"q13": QUERIES["q13"]})
    [joined] = [source for source in trade.program.derived if isinstance(source, Recompute)]
    assert {text for _, text in joined.outputs} == {"BIGINT"}
    trade = TradeWorld(random.Random(1), None, {name: QUERIES[name] for name in ("q04", "q21", "q22")})
    found = {base.name.rpartition(".")[2]: set(store.schema.names) for base, store in trade.stores.items()}
    keys = {"l_orderkey", "l_linenumber"}
    assert found["lineitem"] == keys | {"l_suppkey", "l_commitdate", "l_receiptdate"}
    assert found["orders"] == {"o_orderkey", "o_custkey", "o_orderdate", "o_orderstatus", "o_orderpriority"}


# ---- the generator's tables, through a log


class Shop:
    """The tables in a log, and a worker that maintains all queries over them."""

    worker: Worker

    def __init__(self, log: Log, trade: Trade, seed: int) -> None:
        self.log, self.trade, self.rng = log, trade, random.Random(seed)
        self.producer = Producer(log, "tpch")
        for name, schema in TABLES.items():
            self.producer.create(f"tpch.{name}", "table", schema)
        for rows in trade.copy():
            self.commit(rows)
        for name, query in QUERIES.items():
            log.create_view(name, query, {})

    def commit(self, changes: Changes) -> int:
        return self.producer.write({f"tpch.{name}": rows for name, rows in changes.items()}).number

    def check(self, commit: int) -> None:
        """Once the worker has taken the commit in, what is published of each view is DuckDB's answer there."""
        self.worker.run(threading.Event(), commit)
        with Lake(self.log) as lake:
            for name, query in QUERIES.items():
                found = lake.sql(f"FROM {name}")
                assert found.input_position == commit, name
                assert self.trade.differences(query, found.arrow()) == 0, name

    def updates(self) -> Changes:
        """Of a few of the tables, rows here and there."""
        tables = self.rng.sample(UPDATED, 3)
        return together(*(self.trade.update(name, self.rng.randrange(2, 100)) for name in tables))

    def any_change(self) -> Changes:
        orders = self.rng.choice([1, 15, 150, 1_500])
        kinds: list[Callable[[], Changes]] = [self.updates]
        kinds += [lambda: self.trade.insert_orders(orders), lambda: self.trade.delete_orders(orders)]
        return together(*(kind() for kind in self.rng.sample(kinds, self.rng.randrange(1, 4))))


@pytest.fixture
def shop(seed: int, tmp_path: Path) -> Iterator[Shop]:
    print("seed", seed)
    generate(tmp_path, SCALE)
    trade = Trade(tmp_path, seed=seed % 1_000_000)
    with open_log(tmp_path / "lake", create=True) as log, own(log, PRODUCER) as owner:
        made = Shop(log, trade, seed)
        made.worker = Worker(log, owner.epoch, Settings())
        yield made
        made.worker.close()
    trade.connection.close()


@pytest.mark.timeout(300)
def test_refresh_functions_and_updates_over_generated_tables(shop: Shop) -> None:
    """RF1 and RF2 of the specification: 0.1 % of the orders each, with their line items."""
    orders = shop.trade.orders // 1_000
    for change in (partial(shop.trade.insert_orders, orders), partial(shop.trade.delete_orders, orders), shop.updates):
        shop.check(shop.commit(change()))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_random_commits_over_generated_tables(shop: Shop) -> None:
    """Some in a step of their own, some together."""
    for _ in range(12):
        for _ in range(shop.rng.choice([1, 1, 3])):
            commit = shop.commit(shop.any_change())
        shop.check(commit)
