"""The leak test: no feature of a label holds a row that was committed after the label's time.

The oracle is DuckDB over the raw log, label by label: of a view, the rows that its newest step by then had taken in;
of a topic, the records that were there. Rows come late all the time, some by more than the labels are old.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from headwater import Lake, duck
from headwater.config import Settings
from headwater.log import Log, open_log, seal
from headwater.ownership import own
from headwater_pipelines import api
from headwater_pipelines.runtime.publish import PRODUCER
from headwater_pipelines.runtime.worker import Worker

START = datetime(2026, 5, 1, 12, tzinfo=UTC)
USERS = 6
SPENT = "SELECT buyer, count(*) AS orders, sum(amount) AS spent, max(happened) AS newest FROM sales GROUP BY buyer"


class Hand:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.us = int(START.timestamp() * 1e6)

    def now_us(self) -> int:
        return self.us


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def lake(tmp_path: Path, clock: Hand) -> Iterator[Lake]:
    with Lake(open_log(tmp_path / "lake", create=True, clock=clock)) as opened:
        yield opened


def live(lake: Lake, clock: Hand, drawn: random.Random) -> None:
    """Half an hour of sales in random commits; the view is brought up to date now and then, so it lags as it does."""
    columns = {"buyer": "BIGINT", "amount": "BIGINT", "happened": "TIMESTAMP WITH TIME ZONE"}
    lake.create_topic("web.sales", columns, partitions=2)
    api.create_view(lake, SPENT, name="spent")
    with own(lake.log, PRODUCER) as owner:
        worker = Worker(lake.log, owner.epoch, Settings())
        try:
            while clock.us < (START + timedelta(minutes=30)).timestamp() * 1e6:
                clock.us += drawn.randrange(5, 40) * 1_000_000
                now = datetime.fromtimestamp(clock.us / 1e6, UTC)
                late = [drawn.choice([0, 0, 1, 60, 600, 1500]) for _ in range(drawn.randrange(1, 6))]
                rows = [
                    {
                        "buyer": drawn.randrange(USERS),
                        "amount": drawn.randrange(100),
                        "happened": now - timedelta(seconds=s),
                    }
                    for s in late
                ]
                with lake.producer() as producer:
                    producer.send("sales", rows)
                if drawn.random() < 0.5:
                    clock.us += drawn.randrange(1, 3) * 1_000_000
                    worker.run(threading.Event(), lake.position())
                if drawn.random() < 0.1:
                    seal.seal(lake.log, Settings())
        finally:
            worker.close()


def draw_labels(drawn: random.Random, oldest: datetime) -> pl.DataFrame:
    """Labels of any moment, some of them of buyers that there are not."""
    moments = [oldest + timedelta(seconds=drawn.randrange(1800)) for _ in range(200)]
    return pl.DataFrame({"label": range(200), "buyer": [drawn.randrange(USERS + 1) for _ in moments], "at": moments})


def brute_force(lake: Lake, labels: pl.DataFrame) -> pl.DataFrame:
    """For each label by itself, from the raw records: the sums as the view had them, the newest sale that was known."""
    log: Log = lake.log
    raw = log.read_changes("web.sales", 0, log.newest_commit())
    steps = [(step.publish_commit, step.input_commit) for step in log.steps()]
    commits = [(info.number, info.time) for info in log.commits()]
    with duck.connect() as oracle:
        oracle.register("raw", raw)
        oracle.register("labels", labels)
        oracle.register("steps", pa.table(dict(zip(("published", "taken"), zip(*steps, strict=True), strict=True))))
        oracle.register("commits", pa.table(dict(zip(("number", "time"), zip(*commits, strict=True), strict=True))))
        found: pl.DataFrame = oracle.sql("""
            WITH placed AS (SELECT *, (SELECT max(number) FROM commits WHERE time <= l.at) AS c FROM labels l),
            taken AS (SELECT *, (SELECT max(taken) FROM steps WHERE published <= c) AS upto FROM placed)
            SELECT label,
              (SELECT nullif(count(*), 0) FROM raw r WHERE r.buyer = t.buyer AND _commit <= upto) AS orders,
              (SELECT sum(amount)::BIGINT FROM raw r WHERE r.buyer = t.buyer AND _commit <= upto) AS spent,
              (SELECT max(happened) FROM raw r WHERE r.buyer = t.buyer AND _commit <= c AND happened <= t.at) AS latest,
              (SELECT sum(amount)::BIGINT FROM raw r WHERE r.buyer = t.buyer AND happened <= t.at) AS leaky
            FROM taken t ORDER BY label""").pl()
    return found


def test_no_feature_holds_a_row_that_was_committed_after_its_label(lake: Lake, clock: Hand, seed: int) -> None:
    print(f"seed {seed}")
    drawn = random.Random(seed)
    live(lake, clock, drawn)
    oldest = lake.time_of(drawn.choice([4, 20])) + timedelta(seconds=1)
    labels = draw_labels(drawn, oldest)
    found = lake.as_of(labels, {"spent": ["orders", "spent"]}, on="buyer", time="at").pl()
    expected = brute_force(lake, labels)
    assert found.select("label", "orders", pl.col("spent").cast(pl.Int64)).equals(
        expected.select("label", "orders", "spent")
    )
    assert not found["spent"].cast(pl.Int64).equals(expected["leaky"]), "what is joined by its own time leaks"
    newest = lake.as_of(labels, {"sales": ["happened"]}, on="buyer", time="at", event_time={"sales": "happened"}).pl()
    assert newest["happened"].to_list() == expected["latest"].to_list()


def test_what_comes_later_changes_no_feature(lake: Lake, clock: Hand, seed: int) -> None:
    """Rows that are injected late, of a time before every label, are in none of the labels made before they came."""
    print(f"seed {seed}")
    drawn = random.Random(seed)
    live(lake, clock, drawn)
    labels = draw_labels(drawn, lake.time_of(4) + timedelta(seconds=1)).filter(
        pl.col("at") <= datetime.fromtimestamp(clock.us / 1e6, UTC)
    )
    features = {"spent": ["orders", "spent", "newest"], "sales": ["amount"]}
    before = lake.as_of(labels, features, on="buyer", time="at", event_time={"sales": "happened"}).pl()
    clock.us += 1_000_000
    with lake.producer() as producer:
        producer.send("sales", [{"buyer": user, "amount": 10**6, "happened": START} for user in range(USERS)])
        producer.send(
            "sales", [{"buyer": user, "amount": 10**6, "happened": labels["at"].max()} for user in range(USERS)]
        )
    with own(lake.log, PRODUCER) as owner:
        worker = Worker(lake.log, owner.epoch, Settings())
        worker.run(threading.Event(), lake.position())
        worker.close()
    assert lake.sql("SELECT min(spent) FROM spent").scalar() > 10**6, "the view has them"
    after = lake.as_of(labels, features, on="buyer", time="at", event_time={"sales": "happened"}).pl()
    assert after.equals(before)
