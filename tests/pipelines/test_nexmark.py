"""The queries of Nexmark as views: against DuckDB at every step, and against figures counted in another way."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import polars.selectors as cs
import pyarrow as pa
import pytest
from benchmarks.nexmark_data import SIDE_INPUT, TABLES, Generator, side_input
from benchmarks.nexmark_queries import QUERIES
from polars.testing import assert_frame_equal
from tests.pipelines.world import Topic, World

from headwater import types
from headwater_pipelines.runtime.arrived import Arrived

EVENTS, BATCHES = 4_000, 5


class House(World):
    """The auction house of Nexmark: topics that only grow, and the side input as a table."""

    DIGITS = 12
    """DuckDB divides a sum by a count, or finishes an average."""

    def tables(self) -> list[Topic]:
        events = [
            self.topic(name, number, "event", [], **{f.name: f.type for f in schema.fields})
            for number, (name, schema) in enumerate(TABLES.items(), start=1)
        ]
        return [*events, self.topic("side_input", 4, "table", ["key"], **{f.name: f.type for f in SIDE_INPUT.fields})]

    def arrive(self, rows: dict[str, pa.Table]) -> None:
        """The rows of one batch, into the oracle's tables and through the views; all of them are compared."""
        self.number += 1
        arrived = {}
        for topic in self.topics:
            added = rows.get(topic.name)
            if added is None or not added.num_rows:
                continue
            self.oracle.register("added", added)
            self.oracle.execute(f"INSERT INTO {topic.base.name} FROM added")
            self.oracle.unregister("added")
            store = self.stores[topic.base]
            changes = added.select(store.schema.names)
            for name in store.reads[len(store.schema.names) :]:
                values = ["c"] * len(added) if name == "_op" else [None] * len(added)
                changes = changes.append_column(name, pa.array(values, pa.string()))
            arrived[topic.base] = Arrived.of(changes)
        self.state.begin()
        for view_id, output in self.program.step(self.state, arrived, self.now):
            self.publish(view_id, output)
        self.state.commit()
        self.compare_all()

    def answer(self, query: str) -> pl.DataFrame:
        """What a view's changelog adds up to."""
        view_id = list(QUERIES).index(query) + 1
        self.compare_contents(view_id)
        contents = self.state.query(self.program.contents(view_id))
        self.oracle.register("contents", contents)
        names = ", ".join(types.lift_sql(name, text) + f" AS {name}" for name, text in self.views[view_id].columns)
        found: pl.DataFrame = self.oracle.sql(f"SELECT {names} FROM contents, range(_weight)").pl()
        self.oracle.unregister("contents")
        return found


@pytest.fixture
def house(seed: int, tmp_path: Path) -> Iterator[House]:
    made = House(random.Random(seed), tmp_path, QUERIES)
    made.arrive({"side_input": side_input()})
    yield made
    made.state.close()


def batches(rng: random.Random, generator: Generator, count: int, parts: int) -> Iterator[dict[str, pa.Table]]:
    cuts = sorted(rng.randrange(count) for _ in range(parts - 1))
    for first, last in zip([0, *cuts], [*cuts, count], strict=True):
        yield generator.events(first, last - first)


@pytest.mark.long
def test_all_queries_equal_duckdb_at_every_step(house: House, seed: int) -> None:
    """At a rate at which windows end and sessions part."""
    print("seed", seed)
    for part in batches(house.rng, Generator(seed, rate=100, disorder=60), EVENTS, BATCHES):
        house.arrive(part)
    empty = [name for name in QUERIES if house.answer(name).is_empty()]
    assert not empty, "every query has rows to compare"


# ---- counted in another way

FIXED = Generator(seed=7, rate=100)
FIXED_EVENTS = 3_000
SIZE, SLIDE = "10s", "2s"
EXPECTED = {
    "q2": (6, 125_918_625),
    "q4": (5, 144_803_390),
    "q5": (19, 26_184),
    "q7": (3, 298_102_414),
    "q8": (23, 23_533),
    "q11": (67, 71_863),
    "q12": (137, 143_224),
    "q15": (1, 6_380),
    "q18": (566, 3_499_442_494),
    "q19": (1156, 11_318_732_542),
}
"""Rows, and the sum of their numbers, for the fixed events: where these change, the generator has."""


def in_polars(person: pl.LazyFrame, auction: pl.LazyFrame, bid: pl.LazyFrame) -> dict[str, pl.LazyFrame]:
    """Columns of the queries under their names, computed without their SQL."""
    time, price = pl.col("date_time"), pl.col("price")
    window = time.dt.truncate(SIZE)
    sold = auction.join(bid, left_on="id", right_on="auction").filter(
        pl.col("date_time_right").is_between(pl.col("date_time"), pl.col("expires"))
    )
    hops = pl.concat(bid.with_columns(w=time.dt.truncate(SLIDE).dt.offset_by(f"-{2 * k}s")) for k in range(5))
    counts = hops.group_by("auction", "w").agg(num=pl.len().cast(pl.Int64))
    highest = bid.filter(price == price.max().over(window))
    # The next window's first instant belongs to this one, too.
    ends = highest.select("price", end=window.dt.offset_by(SIZE)).unique()
    on_end = bid.join(ends, on="price").filter(pl.col("date_time") == pl.col("end")).select("auction", "price")
    sellers = auction.select(id="seller", w=window).unique()
    apart = (time.diff().over("bidder") >= pl.duration(seconds=10)).fill_null(value=True).cast(pl.Int64)
    sessions = bid.sort("date_time").with_columns(session=apart.cum_sum().over("bidder"))
    ranks = {"total": pl.lit(value=True), "rank1": price < 10_000, "rank2": price.is_between(10_000, 999_999),
             "rank3": price >= 1_000_000}  # fmt: skip
    ranked = {f"{name}_bids": price.filter(rank).len() for name, rank in ranks.items()}
    for column in ("bidder", "auction"):
        ranked |= {f"{name}_{column}s": pl.col(column).filter(rank).n_unique() for name, rank in ranks.items()}
    newest = bid.sort("date_time", "price", "url", "extra", descending=[True, False, False, False])
    dearest = bid.sort("price", descending=True, maintain_order=True)
    return {
        "q2": bid.filter(pl.col("auction").mod(123) == 0).select("auction", "price"),
        "q4": sold.group_by("id", "category").agg(price.max()).group_by("category").agg(final=price.mean()),
        "q5": counts.filter(pl.col("num") == pl.col("num").max().over("w")).select("auction", "num"),
        "q7": pl.concat([highest.select("auction", "price"), on_end]),
        "q8": person.with_columns(w=window).join(sellers, on=["id", "w"]).select("id", "name"),
        "q11": sessions.group_by("bidder", "session").agg(bid_count=pl.len()).select("bidder", "bid_count"),
        "q12": bid.group_by("bidder", window).agg(bid_count=pl.len()).select("bidder", "bid_count"),
        "q15": bid.group_by(day=time.dt.strftime("%Y-%m-%d")).agg(**ranked),
        "q18": newest.unique(["bidder", "auction"], keep="first", maintain_order=True).drop("channel", "url"),
        "q19": dearest.group_by("auction", maintain_order=True).head(10).select("auction", "price"),
    }


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(random.Random(1), tmp_path_factory.mktemp("nexmark"), QUERIES)
    made.arrive({"side_input": side_input()})
    made.arrive(FIXED.events(0, FIXED_EVENTS))
    yield made
    made.state.close()


@pytest.mark.parametrize("query", EXPECTED)
def test_answers_are_those_counted_in_another_way(fixed: House, query: str) -> None:
    tables = {name: pl.DataFrame(table).lazy() for name, table in FIXED.events(0, FIXED_EVENTS).items()}
    wanted = in_polars(**tables)[query].collect()
    found = fixed.answer(query)
    names = [name for name in wanted.columns if name in found.columns]
    assert len(names) > 1
    assert_frame_equal(found.select(names), wanted.select(names), check_row_order=False, check_dtypes=False)
    total = sum(found.select(cs.by_name(names) & cs.numeric()).sum().row(0))
    assert (found.height, round(total)) == EXPECTED[query]
