"""Features at a point in time: equal to asking the lake at each label's time, one label after the other."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from headwater import Lake
from headwater.config import Settings
from headwater.errors import Expired, NotYet, SqlError, UnknownColumn, UsageError
from headwater.log import Log, open_log, retention, seal
from headwater.schema import Schema
from headwater.testing.changes import KeyedHistory
from headwater.testing.clock import START, Hand
from headwater.testing.writer import Writer

PRICES = Schema.of(
    {"product": "BIGINT", "since": "TIMESTAMP WITH TIME ZONE", "price": "BIGINT"}, key=["product", "since"]
)
SPENT = Schema.of({"customer": "BIGINT", "spent": "BIGINT"}, key=["customer"])


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def log(tmp_path: Path, clock: Hand) -> Iterator[Log]:
    with open_log(tmp_path / "lake", create=True, clock=clock) as opened:
        yield opened


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("sealed", [False, True])
def test_each_label_sees_what_the_lake_says_at_its_time(
    log: Log, clock: Hand, seed: int, partitions: int, sealed: bool
) -> None:
    """Updates that leave values unsent, moves of keys, deletes, truncates; labels between, at and after commits."""
    history, writer, drawn = KeyedHistory(seed, keys=6), Writer(log), random.Random(seed)
    writer.create("shop.public.t", "table", history.schema, partitions=partitions)
    states: list[tuple[datetime, dict[Any, list[Any]]]] = []
    for _ in range(30):
        clock.pass_(1)
        writer.write("shop.public.t", history.commit())
        states.append(
            (after((clock.us - START.timestamp() * 1e6) / 1e6), {k: list(v) for k, v in history.rows.items()})
        )
        if sealed and drawn.random() < 0.3:
            seal.seal(log, Settings())
    begin = drawn.choice([0, 15])  # the oldest label decides which rows are taken from the table, which from records
    moments = [after(drawn.choice([0, 0.5]) + drawn.randrange(begin + 1, 32)) for _ in range(150)]
    keys = [(number, "it's" if number % 2 else "") for number in [drawn.randrange(7) for _ in moments]]
    labels = pl.DataFrame({"b": [key[1] for key in keys], "at": moments, "a": [key[0] for key in keys]})
    found = Lake(log).as_of(labels, ["t"], on=["a", "b"], time="at")
    assert found.columns == ["b", "at", "a", "x", "y", "z"]
    expected = []
    for key, moment in zip(keys, moments, strict=True):
        then: dict[Any, Any] = next((rows for time, rows in reversed(states) if time <= moment), {})
        expected.append((key[1], moment, key[0], *then.get(key, [None, None, None])))
    assert found.fetchall() == expected


def test_a_view_is_seen_as_it_was_published(log: Log, clock: Hand) -> None:
    writer = Writer(log)
    writer.create("views.spent", "changelog", SPENT)
    for rows in ([(1, 10, 1), (2, 5, 1)], [(1, 10, -1), (1, 30, 1)], [(2, 5, -1)], [(2, 7, 1)]):
        clock.pass_(10)
        columns = dict(zip(("customer", "spent", "_weight"), zip(*rows, strict=True), strict=True))
        writer.write("views.spent", pa.table({name: pa.array(list(values)) for name, values in columns.items()}))
    moments = [after(second) for second in (9, 10, 19, 20, 25, 30, 39, 40, 99)]
    labels = pa.table({"customer": [1, 2] * 9, "t": [moment for moment in moments for _ in (1, 2)]})
    found = Lake(log).as_of(labels, {"spent": ["spent"]}, on="customer", time="t").fetchall()
    assert [row[2] for row in found[::2]] == [None, 10, 10, 30, 30, 30, 30, 30, 30]
    assert [row[2] for row in found[1::2]] == [None, 5, 5, 5, 5, None, None, 7, 7]


def test_a_late_row_is_not_seen_before_it_came(log: Log, clock: Hand) -> None:
    """A price that is entered late holds from an earlier time on; nobody knew it then."""
    writer = Writer(log)
    writer.create("shop.public.prices", "table", PRICES)
    for since, price in ((0, 100), (20, 120), (10, 110)):  # the last one comes late
        clock.pass_(20)
        row = {"product": [7], "since": pa.array([after(since)], pa.timestamp("us", tz="UTC")), "price": [price]}
        writer.write("shop.public.prices", pa.table({**row, "_op": ["c"]}))
    moments = [after(45), after(65), after(25), after(65)]
    labels = pl.DataFrame({"product": [7, 7, 7, 8], "price": ["mine"] * 4, "at": moments})
    found = Lake(log).as_of(labels, ["prices"], on="product", time="at", event_time={"prices": "since"})
    assert found.columns == ["product", "price", "at", "since", "prices_price"]
    assert found.pl()["prices_price"].to_list() == [120, 120, 100, None]
    ancient = labels.with_columns(at=pl.lit(after(-1)))
    with pytest.raises(NotYet, match="before the lake's first commit"):
        Lake(log).as_of(ancient, ["prices"], on="product", time="at", event_time={"prices": "since"})


def test_of_an_event_topic_the_newest_record_counts(log: Log, clock: Hand) -> None:
    lake = Lake(log)
    lake.create_topic("web.clicks", {"user": "BIGINT", "page": "VARCHAR", "at_time": "TIMESTAMP"}, partitions=2)
    for page, happened in (("/", 5), ("/shoes", 25), ("/late", 7)):
        clock.pass_(10)
        with lake.producer() as producer:
            producer.send("clicks", {"user": 1, "page": page, "at_time": after(happened).replace(tzinfo=None)})
    labels = pl.DataFrame({"user": [1] * 4, "t": [after(second) for second in (10, 20, 26, 31)]})
    newest = lake.as_of(labels, {"clicks": ["page"]}, on="user", time="t").pl()
    assert newest["page"].to_list() == ["/", "/shoes", "/shoes", "/late"]
    latest = lake.as_of(labels, {"clicks": ["page"]}, on="user", time="t", event_time={"clicks": "at_time"}).pl()
    assert latest["page"].to_list() == ["/", "/", "/shoes", "/shoes"]


def test_what_retention_has_removed_is_refused(log: Log, clock: Hand, seed: int) -> None:
    history, writer = KeyedHistory(seed), Writer(log)
    writer.create("shop.public.t", "table", history.schema)
    limits = replace(Settings(), time_travel_s=86_400, history_s=86_400, base_rows_min=10**9)
    for _ in range(20):
        clock.pass_(43_200)
        writer.write("shop.public.t", history.commit())
        seal.seal(log, limits)
        retention.retain(log, limits)
    lake = Lake(log)
    old = pa.table({"a": [1], "b": ["it's"], "at": [after(2 * 86_400)]})
    with pytest.raises(Expired, match="beyond what is kept"):
        lake.as_of(old, ["t"], on=["a", "b"], time="at")
    young = pa.table({"a": [1], "b": ["it's"], "at": [after(10 * 86_400)]})
    assert lake.as_of(young, ["t"], on=["a", "b"], time="at").fetchall()[0][3:] == next(
        ((row[2:]) for row in history.expected() if row[:2] == (1, "it's")), (None, None, None)
    )


def test_what_does_not_fit_is_told(log: Log) -> None:
    writer = Writer(log)
    writer.create("shop.public.prices", "table", PRICES)
    writer.create("shop.public.bag", "multiset", Schema.of(x="BIGINT"))
    lake = Lake(log)
    labels = pl.DataFrame({"product": [1], "at": [after(1)]})

    def ask(given: Any = labels, on: Any = "product", time: str = "at", **features: Any) -> Any:
        return lake.as_of(given, features or {"prices": None}, on=on, time=time, event_time={"prices": "since"})

    with pytest.raises(UsageError, match="many rows for one product"):
        lake.as_of(labels, ["prices"], on="product", time="at")
    with pytest.raises(UsageError, match="bag has no key"):
        lake.as_of(labels, ["bag"], on="product", time="at")
    with pytest.raises(UsageError, match="no columns at, and its key is product, since"):
        ask(on="at")
    with pytest.raises(UnknownColumn, match='no column "prise"') as unknown:
        ask(prices=["prise"])
    assert unknown.value.suggestion == "price"
    with pytest.raises(UnknownColumn, match='no column "tim"'):
        ask(time="tim")
    with pytest.raises(UsageError, match="not a time"):
        ask(time="product")
    with pytest.raises(UsageError, match="1 labels have no at"):
        ask(labels.with_columns(at=pl.lit(None, pl.Datetime)))
    with pytest.raises(UsageError, match="labels are a list"):
        ask([1])
    with pytest.raises(UsageError, match="which is no feature"):
        lake.as_of(labels, ["bag"], on="product", time="at", event_time={"costs": "since"})
    since = pa.array([after(0)], pa.timestamp("us", tz="UTC"))
    writer.write("shop.public.prices", pa.table({"product": [1], "since": since, "price": [1], "_op": ["c"]}))
    with pytest.raises(SqlError, match="Could not convert"):
        ask(labels.with_columns(product=pl.lit("one")))
    none = lake.as_of(labels.clear(), {"prices": ["price"]}, on="product", time="at", event_time={"prices": "since"})
    assert (none.columns, none.rows) == (["product", "at", "price"], 0)


def test_a_time_without_a_zone_is_in_the_lakes(log: Log, clock: Hand) -> None:
    writer = Writer(log)
    writer.create("views.spent", "changelog", SPENT)
    clock.pass_(10)
    writer.write("views.spent", pa.table({"customer": [1], "spent": [10], "_weight": [1]}))
    assert log.timezone == "UTC"
    labels = pl.DataFrame({"customer": [1, 1], "t": [after(second).replace(tzinfo=None) for second in (9, 10)]})
    assert Lake(log).as_of(labels, ["spent"], on="customer", time="t").pl()["spent"].to_list() == [None, 10]


def test_a_lake_that_stands_still_shows_no_more(log: Log, clock: Hand) -> None:
    writer = Writer(log)
    writer.create("views.spent", "changelog", SPENT)
    for spent, before in ((10, None), (20, 10)):
        clock.pass_(10)
        rows = [(spent, 1), *([(before, -1)] if before else [])]
        columns = {"customer": [1] * len(rows), "spent": [row[0] for row in rows], "_weight": [row[1] for row in rows]}
        newest = writer.write("views.spent", pa.table(columns)).number
    labels = pl.DataFrame({"customer": [1], "t": [after(99)]})
    lake = Lake(log)
    assert lake.as_of(labels, ["spent"], on="customer", time="t").pl()["spent"].to_list() == [20]
    with lake.at(newest - 1) as then:
        assert then.as_of(labels, ["spent"], on="customer", time="t").pl()["spent"].to_list() == [10]
