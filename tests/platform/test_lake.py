"""Positions, views read with their tables at one step, pins, parameters, large answers, errors."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psutil
import pyarrow as pa
import pytest

from headwater.catalog.records import Step
from headwater.config import Settings
from headwater.errors import (
    AmbiguousName,
    NameNotFound,
    NoCommonPosition,
    NotYet,
    SqlError,
    SqlSyntax,
    UnknownColumn,
    UsageError,
)
from headwater.lake import Lake, open_lake
from headwater.log import Log, seal
from headwater.position import Position
from headwater.schema import Schema
from headwater.testing.writer import Writer

TOPIC = "shop.public.orders"
SCHEMA = Schema.of({"id": "BIGINT", "amount": "BIGINT"}, key=["id"])
TOTAL = Schema.of({"total": "HUGEINT"})
START = datetime(2026, 1, 1, tzinfo=UTC)


def order(key: int, amount: int) -> pa.Table:
    return pa.table({"id": [key], "amount": [amount], "_op": ["c"]})


@pytest.fixture
def lake(log: Log) -> Iterator[Lake]:
    with open_lake(log.folder) as opened:
        yield opened


class Pipeline:
    """Publishes steps by hand: each view is the sum of all amounts at the input commit."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.writer = Writer(log, "pipeline:main")
        self.totals: dict[str, int] = {}
        self.number = 0

    def step(self, input_commit: int, at: datetime = START, **totals: int) -> int:
        """One step that refreshes the named views to these totals; its publish commit."""
        self.number += 1
        ids = frozenset(self.log.view(name).id for name in totals)
        with self.writer.transaction() as tx:
            for name, total in totals.items():
                if f"views.{name}" not in {topic.name for topic in self.log.topics()}:
                    tx.create_topic(f"views.{name}", "changelog", TOTAL)
                rows = [(-1, self.totals[name])] if name in self.totals else []
                rows.append((1, total))
                values = pa.array([value for _, value in rows], pa.decimal128(38, 0))
                tx.append(f"views.{name}", pa.table({"total": values, "_weight": [weight for weight, _ in rows]}))
                self.totals[name] = total
            tx.record_step(Step(number=self.number, input_commit=input_commit, instant=at, views=ids))
            tx.position = str(input_commit)
            return tx.commit().number


def test_a_position_is_a_commit_a_number_a_time_or_an_lsn(writer: Writer, lake: Lake) -> None:
    writer.create(TOPIC, "table", SCHEMA)
    infos = [writer.write(TOPIC, order(n, n), position=f"0/{n * 16:X}") for n in range(1, 4)]
    for count, info in enumerate(infos, start=1):
        same: list[Position]
        same = [info.number, f"commit:{info.number}", info.time, info.time.isoformat(), f"lsn:0/{count * 16:X}"]
        later = [f"lsn:shop:0/{count * 16 + 1:X}", (info.time + timedelta(microseconds=0)).isoformat(" ")]
        for position in [*same, *later]:
            answer = lake.sql("SELECT count(*) FROM orders", at=position)
            assert (answer.scalar(), answer.position) == (count, info.number), position
    assert lake.sql("SELECT count(*) FROM orders", at="latest").scalar() == 3
    before = infos[1].time - timedelta(microseconds=1)
    assert lake.sql("SELECT count(*) FROM orders", at=before).scalar() == 1


def test_positions_that_are_not_there_say_what_is(log: Log, writer: Writer, lake: Lake) -> None:
    with pytest.raises(UsageError, match="does not say which source"):
        lake.sql("SELECT 1", at="lsn:0/1")
    first = writer.create(TOPIC, "table", SCHEMA)
    writer.write(TOPIC, order(1, 1), position="0/10")
    with pytest.raises(NotYet, match=r"no commit 99 yet.*newest is commit:2"):
        lake.sql("SELECT 1", at=99)
    with pytest.raises(NotYet, match="no commit at or before"):
        lake.sql("SELECT 1", at=first.time - timedelta(seconds=1))
    with pytest.raises(UsageError, match="is not a position"):
        lake.sql("SELECT 1", at="yesterday")
    with pytest.raises(UsageError, match="is not an LSN"):
        lake.sql("SELECT 1", at="lsn:zz")
    assert log.newest_commit() == 2


def test_a_pinned_lake_does_not_move(writer: Writer, lake: Lake) -> None:
    writer.create(TOPIC, "table", SCHEMA)
    writer.write(TOPIC, order(1, 1))
    pinned = lake.at("latest")
    assert lake.sql("SELECT count(*) FROM orders").scalar() == 1
    writer.write(TOPIC, order(2, 1))
    assert lake.sql("SELECT count(*) FROM orders").scalar() == 2
    assert pinned.sql("SELECT count(*) FROM orders").scalar() == 1
    assert pinned.position() == 2
    assert lake.position() == 3


def test_a_view_and_its_tables_are_read_at_one_step(log: Log, writer: Writer, lake: Lake) -> None:
    pipeline = Pipeline(log)
    writer.create(TOPIC, "table", SCHEMA)
    inputs = [writer.write(TOPIC, order(1, 10)).number]
    log.create_view("revenue", "SELECT sum(amount) AS total FROM orders")
    published = [pipeline.step(inputs[0], revenue=10)]
    inputs += [writer.write(TOPIC, order(amount, amount)).number for amount in (5, 7)]
    published.append(pipeline.step(inputs[-1], revenue=22))
    inputs.append(writer.write(TOPIC, order(99, 100)).number)
    agree = "SELECT total - (SELECT sum(amount) FROM orders) FROM revenue"
    for at in [None, *range(published[0], log.newest_commit() + 1)]:
        answer = lake.sql(agree, at=at)
        step = 0 if at is not None and at < published[1] else 1
        assert answer.fetchall() == [(0,)], at
        assert answer.input_position == [inputs[0], inputs[2]][step]
    assert lake.sql("SELECT sum(amount) FROM orders").scalar() == 122
    with pytest.raises(NotYet):
        lake.sql("SELECT * FROM revenue", at=inputs[0])


def test_views_created_later_are_joined_where_all_are_defined(log: Log, writer: Writer, lake: Lake) -> None:
    pipeline = Pipeline(log)
    writer.create(TOPIC, "table", SCHEMA)
    first = writer.write(TOPIC, order(1, 10)).number
    log.create_view("a", "SELECT sum(amount) AS total FROM orders")
    only_a = pipeline.step(first, a=10)
    log.create_view("b", "SELECT sum(amount) AS total FROM orders")
    with pytest.raises(NotYet):
        lake.sql("SELECT * FROM b")
    second = writer.write(TOPIC, order(2, 5)).number
    both = pipeline.step(second, a=15, b=15)
    third = writer.write(TOPIC, order(3, 1)).number
    pipeline.step(third, a=16)
    answer = lake.sql("SELECT a.total, b.total, (SELECT sum(amount) FROM orders) FROM a, b")
    assert (answer.fetchall(), answer.input_position, answer.position) == ([(15, 15, 15)], second, both)
    assert lake.sql("SELECT total FROM a").scalar() == 16
    assert lake.sql("SELECT total FROM a", at=only_a).scalar() == 10


def test_views_that_share_no_step_have_no_common_position(log: Log, writer: Writer, lake: Lake) -> None:
    pipeline = Pipeline(log)
    writer.create(TOPIC, "table", SCHEMA)
    first = writer.write(TOPIC, order(1, 10)).number
    for name in ("a", "b"):
        log.create_view(name, "SELECT sum(amount) AS total FROM orders")
    pipeline.step(first, a=10)
    pipeline.step(first, b=10)
    with pytest.raises(NoCommonPosition, match=r"a at commit \d+, b at commit \d+"):
        lake.sql("SELECT * FROM a, b")


def test_a_paused_view_answers_from_the_past_only_when_asked_to(log: Log, writer: Writer, lake: Lake) -> None:
    pipeline = Pipeline(log)
    writer.create(TOPIC, "table", SCHEMA)
    first = writer.write(TOPIC, order(1, 10)).number
    for name in ("a", "b"):
        log.create_view(name, "SELECT sum(amount) AS total FROM orders")
    both = pipeline.step(first, a=10, b=10)
    log.set_view("b", state="paused", reason="overflow")
    second = writer.write(TOPIC, order(2, 5)).number
    pipeline.step(second, START + timedelta(seconds=30), a=15)
    assert lake.sql("SELECT a.total FROM a, b").scalar() == 10
    pipeline.step(second, START + timedelta(seconds=90), a=15)
    with pytest.raises(NoCommonPosition, match=r"b is paused \(overflow\).*headwater resume b"):
        lake.sql("SELECT a.total FROM a, b")
    assert lake.sql("SELECT a.total FROM a, b", at=both).scalar() == 10
    assert lake.sql("SELECT total FROM a").scalar() == 15


def test_a_dropped_view_stays_readable_where_it_was(log: Log, writer: Writer, lake: Lake) -> None:
    pipeline = Pipeline(log)
    writer.create(TOPIC, "table", SCHEMA)
    first = writer.write(TOPIC, order(1, 10)).number
    log.create_view("a", "SELECT sum(amount) AS total FROM orders")
    published = pipeline.step(first, a=10)
    log.drop_view("a")
    writer.write(TOPIC, order(2, 10))
    with pytest.raises(NameNotFound):
        lake.sql("SELECT * FROM a")
    assert lake.sql("SELECT total FROM a", at=published).scalar() == 10


def test_records_and_versions_are_there_beside_the_rows(writer: Writer, lake: Lake) -> None:
    writer.create(TOPIC, "table", SCHEMA)
    writer.write(TOPIC, order(1, 10))
    changed = pa.table({"id": [1, 1], "amount": pa.array([20, None], pa.int64()), "_op": ["u", "d"]})
    writer.write(TOPIC, changed)
    log_rows = lake.sql(f'SELECT _offset, _op, amount FROM log."{TOPIC}" ORDER BY _offset').fetchall()
    assert log_rows == [(0, "c", 10), (1, "u", 20), (2, "d", None)]
    versions = lake.sql("SELECT amount, valid_to IS NULL FROM history.orders ORDER BY _offset").fetchall()
    assert versions == [(10, False), (20, False)]
    assert lake.sql("SELECT * FROM orders").rows == 0


@pytest.mark.parametrize(
    ("query", "newest_first"),
    [
        ("SELECT * FROM log.orders ORDER BY _offset DESC LIMIT 2", True),
        ("WITH newest AS (SELECT id FROM log.orders l ORDER BY l._commit DESC LIMIT 2) FROM newest", True),
        ("SELECT * FROM log.orders ORDER BY _offset LIMIT 2", False),
        ("SELECT * FROM log.orders ORDER BY id DESC", False),
    ],
)
def test_who_wants_the_newest_records_reads_the_newest_files_first(
    log: Log, writer: Writer, lake: Lake, query: str, newest_first: bool
) -> None:
    writer.create(TOPIC, "table", SCHEMA)
    for number in range(3):
        writer.write(TOPIC, order(number, 10))
        seal.seal(log, Settings())
    with log.catalog.read() as connection:
        stored = connection.exec_driver_sql("SELECT f.path FROM segment s JOIN file f ON f.id = s.file ORDER BY f.id")
        paths = [path for (path,) in stored]
    with lake.reading(query) as (cursor, sql):
        body = "SELECT sql FROM duckdb_views() WHERE view_name = 'log:" + TOPIC + "'"
        ((body,),) = cursor.execute(body).fetchall()
        places = [body.index(path) for path in paths]
        assert cursor.execute(sql).fetchall() == lake.sql(query).fetchall()
    assert len(paths) == 3
    assert places == sorted(places, reverse=newest_first)


def test_parameters_are_bound_and_never_pasted(writer: Writer, lake: Lake) -> None:
    writer.create("shop.public.names", "table", Schema.of({"id": "BIGINT", "name": "VARCHAR"}, key=["id"]))
    evil = "x'; DROP TABLE names; --"
    writer.write("shop.public.names", pa.table({"id": [1], "name": [evil], "_op": ["c"]}))
    assert lake.sql("SELECT id FROM names WHERE name = ?", params=[evil]).scalar() == 1
    assert lake.sql("SELECT id FROM names WHERE name = $n", params={"n": evil}).scalar() == 1
    assert lake.lookup("names", 1) == {"id": 1, "name": evil}
    assert lake.lookup("names", 2) is None


def test_an_answer_beyond_the_memory_limit_is_mapped_and_whole(lake: Lake) -> None:
    query = "SELECT i, repeat('x', 100) AS wide FROM range(1_500_000) r(i)"
    gc.collect()
    answer = lake.sql(query)
    assert answer.rows == 1_500_000
    assert answer.arrow().nbytes > 150_000_000
    mapped = [m.path for m in psutil.Process().memory_maps() if "headwater-result-" in m.path]
    assert mapped
    frame = answer.pl()
    assert (frame["i"].sum(), frame["wide"].n_unique()) == (1_499_999 * 750_000, 1)
    assert sum(batch.num_rows for batch in answer.reader()) == 1_500_000
    del answer, frame


def test_errors_say_what_was_probably_meant(writer: Writer, lake: Lake) -> None:
    for name in (TOPIC, "shop.archive.items", "shop.public.items"):
        writer.create(name, "table", SCHEMA)
    with pytest.raises(UnknownColumn, match='Did you mean "amount"') as unknown:
        lake.sql("SELECT amont FROM orders")
    assert unknown.value.suggestion == "amount"
    assert "rows:" not in str(unknown.value), "the private name shows"
    with pytest.raises(NameNotFound, match=r"Did you mean shop\.public\.orders"):
        lake.sql("SELECT * FROM oders")
    with pytest.raises(AmbiguousName, match=r"shop\.archive\.items, shop\.public\.items"):
        lake.sql("SELECT * FROM items")
    assert lake.sql("SELECT count(*) FROM public.items").scalar() == 0
    with pytest.raises(SqlSyntax):
        lake.sql("SELEC 1")
    with pytest.raises(SqlSyntax, match="not a query"):
        lake.sql("DROP TABLE orders")
    with pytest.raises(SqlError):
        lake.sql("SELECT CAST('x' AS INTEGER)")
    assert lake.sql("SELECT 1").scalar() == 1


def test_names_are_replaced_in_every_place_a_table_can_stand(writer: Writer, lake: Lake) -> None:
    writer.create(TOPIC, "table", SCHEMA)
    writer.write(TOPIC, order(1, 10))
    for query, expected in [
        ("WITH orders AS (SELECT 5 AS amount) SELECT amount FROM orders", 5),
        ("WITH orders AS (SELECT amount + 1 AS amount FROM orders) SELECT amount FROM orders", 11),
        ("SELECT orders.amount FROM orders", 10),
        ("SELECT o.amount FROM shop.public.orders AS o", 10),
        ("SELECT max(amount) FROM (FROM orders UNION ALL FROM orders)", 10),
        ("SELECT (SELECT max(amount) FROM orders o2 WHERE o2.id = o.id) FROM orders o", 10),
        ("FROM orders SELECT amount", 10),
        ('SELECT "amount" FROM "orders" -- orders', 10),
        ("SELECT 'orders' || count(*) FROM orders", "orders1"),
    ]:
        assert lake.sql(query).scalar() == expected, query


def test_a_connection_of_ones_own_is_a_copy_of_one_position(log: Log, writer: Writer, lake: Lake) -> None:
    pipeline = Pipeline(log)
    writer.create(TOPIC, "table", SCHEMA)
    first = writer.write(TOPIC, order(1, 10)).number
    log.create_view("a", "SELECT sum(amount) AS total FROM orders")
    pipeline.step(first, a=10)
    writer.write(TOPIC, order(2, 10))
    with lake.connect() as own:
        assert own.execute("SELECT (SELECT sum(amount) FROM orders) - total FROM a").fetchall() == [(0,)]
        assert own.execute("SELECT count(*) FROM shop.public.orders").fetchall() == [(1,)]


def test_every_thread_can_read_times_with_zones_of_events(lake: Lake) -> None:
    """What builds such a value in DuckDB belongs to the lake's memory, not to the connection that made it."""
    kind = pa.struct([("micros", pa.int64()), ("offset", pa.int32())])
    rows = pa.table({"t": pa.array([{"micros": 36_000_000_000, "offset": 7200}], kind)})
    lake.create_topic("shop.events.t", {"t": "TIMETZ"})
    with lake.producer() as producer:
        producer.send("shop.events.t", rows)
    with ThreadPoolExecutor(1) as another:
        found = another.submit(lambda: lake.sql("SELECT t::VARCHAR FROM t").scalar())
        assert found.result() == lake.sql("SELECT t::VARCHAR FROM t").scalar() == "10:00:00+02"


def test_a_closed_lake_says_so_in_every_thread(writer: Writer, lake: Lake) -> None:
    writer.create(TOPIC, "table", SCHEMA)
    writer.write(TOPIC, order(1, 1))
    assert lake.sql("SELECT count(*) FROM orders").scalar() == 1
    lake.close()
    with pytest.raises(UsageError, match="the lake is closed"):
        lake.sql("SELECT 1")
    with ThreadPoolExecutor(1) as pool, pytest.raises(UsageError, match="the lake is closed"):
        pool.submit(lake.sql, "SELECT 1").result()
