"""All versions of one row of a table or a view, read by its key."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from headwater.catalog.records import Step
from headwater.errors import NameNotFound, SqlError, UsageError
from headwater.lake import Lake, open_lake
from headwater.log import Log
from headwater.schema import Schema
from headwater.testing.writer import Writer

TOPIC = "shop.public.orders"
SCHEMA = Schema.of({"id": "BIGINT", "amount": "BIGINT"}, key=["id"])


@pytest.fixture
def lake(log: Log) -> Iterator[Lake]:
    with open_lake(log.folder) as opened:
        yield opened


def orders(*rows: tuple[int, int | None, str]) -> pa.Table:
    ids, amounts, ops = zip(*rows, strict=True)
    return pa.table({"id": ids, "amount": pa.array(amounts, pa.int64()), "_op": ops})


def spans(lake: Lake, name: str, key: Any, value: str, **at: Any) -> list[tuple[Any, bool, bool]]:
    """Of each version a value, whether it ended, and whether it ended where the next begins."""
    found = lake.history(name, key, **at).arrow().to_pylist()
    starts = [row["valid_from"] for row in found[1:]] + [None]
    return [
        (row[value], row["valid_to"] is not None, row["valid_to"] == start)
        for row, start in zip(found, starts, strict=True)
    ]


def test_versions_of_a_tables_row_follow_one_another(writer: Writer, lake: Lake) -> None:
    writer.create(TOPIC, "table", SCHEMA)
    first = writer.write(TOPIC, orders((1, 10, "c"), (2, 99, "c"))).number
    writer.write(TOPIC, orders((1, 20, "u")))
    writer.write(TOPIC, orders((1, None, "d")))
    assert spans(lake, "orders", 1, "amount") == [(10, True, True), (20, True, False)], "it is gone"
    writer.write(TOPIC, orders((1, 30, "c")))
    assert [row[0] for row in spans(lake, "orders", 1, "amount")] == [10, 20, 30]
    assert lake.history("orders", {"id": 2, "amount": 99}).columns[:4] == ["id", "amount", "valid_from", "valid_to"]
    assert spans(lake, "orders", (1,), "amount", at=first) == [(10, False, True)]
    assert spans(lake.at(first), "orders", "1", "amount") == [(10, False, True)], "a text is cast to the key's type"
    assert lake.history("orders", 7).rows == 0


def test_versions_of_a_views_row_end_where_the_next_begins(log: Log, lake: Lake) -> None:
    log.create_view("sums", "SELECT city, area, sum(n) AS n FROM t GROUP BY ALL")
    made = Schema.of({"city": "VARCHAR", "area": "INTEGER", "n": "BIGINT"}, key=["city", "area"])
    writer = Writer(log, "pipeline:main")
    steps: list[list[tuple[str | None, int, int, int]]] = [
        [("a", 1, 10, 1), ("b", 1, 5, 1), (None, 1, 3, 1)],
        [("b", 1, 5, -1), ("b", 1, 6, 1)],
        [("a", 1, 10, -1), ("a", 1, 11, 1), ("a", 1, 11, -1), ("a", 1, 12, 1)],
        [("a", 1, 12, -1)],
        [("a", 1, 10, 1)],
    ]
    for number, rows in enumerate(steps, start=1):
        with writer.transaction() as tx:
            if number == 1:
                tx.create_topic("views.sums", "changelog", made)
            city, area, n, weight = zip(*rows, strict=True)
            columns = {"city": pa.array(city, pa.string()), "area": pa.array(area, pa.int32()), "n": n}
            tx.append("views.sums", pa.table({**columns, "_weight": weight}))
            view = frozenset({log.view("sums").id})
            instant = datetime(2026, 1, 1, tzinfo=UTC)
            tx.record_step(Step(number=number, input_commit=number, instant=instant, views=view))
            tx.position = str(number)
            tx.commit()
    assert spans(lake, "sums", ("a", 1), "n") == [(10, True, True), (12, True, False), (10, False, True)]
    assert spans(lake, "views.sums", {"area": 1, "city": "b"}, "n") == [(5, True, True), (6, False, True)]
    assert spans(lake, "sums", (None, 1), "n") == [(3, False, True)]


def test_what_is_no_key_is_refused(writer: Writer, lake: Lake) -> None:
    writer.create(TOPIC, "table", SCHEMA)
    writer.create("shop.public.notes", "multiset", Schema.of({"text": "VARCHAR"}))
    writer.write(TOPIC, orders((1, 10, "c")))
    with pytest.raises(NameNotFound, match="orders"):
        lake.history("ordrs", 1)
    with pytest.raises(NameNotFound, match="has no key"):
        lake.history("notes", 1)
    with pytest.raises(UsageError, match=r"\(id\)"):
        lake.history("orders", (1, 2))
    with pytest.raises(UsageError, match=r"\(id\)"):
        lake.history("orders", {"amount": 10})
    with pytest.raises(SqlError, match="abc"):
        lake.history("orders", "abc")
