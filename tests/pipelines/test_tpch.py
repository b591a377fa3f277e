"""All of TPC-H's queries as views, over random changes of small tables in which their conditions are often met."""

from __future__ import annotations

import random
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.pipelines.tpch import QUERIES, TABLES
from tests.pipelines.world import Topic, World

from headwater_pipelines.compiler.explain import explain

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
    """Limits over what is sorted as a whole, and the maximum of a whole relation (q15)."""
    full = {
        view.name.removeprefix("view_"): {node.reason for node in explain(view).nodes if node.maintenance == "full"}
        for view in trade.views.values()
    }
    assert {name: reasons for name, reasons in full.items() if reasons} == {
        **{name: {"TOP_N"} for name in ("q02", "q03", "q10", "q18", "q21")},
        "q15": {"GROUP_WHOLE"},
    }
