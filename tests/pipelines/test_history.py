"""``history.<table>`` in views: at every step what the lake says of the versions at that step's input commit."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from headwater import types
from headwater.config import Settings
from headwater.errors import NameNotFound
from headwater.lake import Lake
from headwater.log import Log, open_log
from headwater_pipelines import api
from headwater_pipelines.runtime import worker

from .conftest import TABLES, Shop

VIEWS = {
    "versions": "SELECT id, total, note, valid_from, valid_to FROM history.orders",
    "current": "SELECT id, total FROM history.orders WHERE valid_to IS NULL",
    "changes": "SELECT id, count(*) AS n, min(valid_from) AS first FROM history.shop.public.orders GROUP BY id",
    "at_the_time": "SELECT o.id, o.valid_from, c.country FROM history.orders o"
    " ASOF LEFT JOIN history.customers c ON o.customer_id = c.id AND o.valid_from >= c.valid_from",
    "both": "SELECT o.id, h.total FROM orders o JOIN history.orders h ON o.id = h.id AND o.total < h.total",
}
START = datetime(2026, 4, 1, 9, tzinfo=UTC)


def run(log: Log, rows: int = 500_000) -> None:
    worker.run(log, Settings(step_rows_target=rows), threading.Event(), until_caught_up=True)


def check(log: Log) -> None:
    lake, views = Lake(log), log.views()
    assert {view.state for view in views} == {"live"}
    for step in log.steps():
        for view in views:
            if view.id not in step.views:
                continue
            columns = ", ".join(types.quote(field.name) for field in log.topic(f"views.{view.name}").schema.fields)
            want = lake.sql(f"SELECT {columns} FROM ({view.sql})", at=f"commit:{step.input_commit}").fetchall()
            found = lake.sql(f"SELECT {columns} FROM {view.name}", at=f"commit:{step.publish_commit}").fetchall()
            assert sorted(map(repr, found)) == sorted(map(repr, want)), (view.name, step)


def create_all(log: Log) -> None:
    for name, sql in VIEWS.items():
        api.create_view(log, sql, name=name)


def write(log: Log, shop: Shop, number: int, rows: list[dict[str, Any]]) -> None:
    """A commit of records of orders as a source sends them; what a record lacks in ``_unchanged`` it did not send."""
    fields = TABLES["orders"].fields
    columns = {f.name: pa.array([row.get(f.name) for row in rows], types.arrow_type(f.type)) for f in fields}
    columns |= {
        "_op": pa.array([row["_op"] for row in rows]),
        "_unchanged": pa.array([row.get("_unchanged") for row in rows], pa.list_(pa.string())),
        "_committed_at": pa.array([START + timedelta(minutes=number)] * len(rows), pa.timestamp("us", "UTC")),
        "_lsn": pa.array([number] * len(rows), pa.int64()),
        "_seq": pa.array([row.get("_seq", place) for place, row in enumerate(rows)], pa.int64()),
    }
    with log.transaction("source:shop", shop.epoch, str(shop.position)) as tx:
        tx.append("shop.public.orders", pa.table(columns))
        shop.position += 1
        tx.position = str(shop.position)
        tx.commit()


RECORDS: list[list[dict[str, Any]]] = [
    [{"_op": "c", "id": 100, "total": 5, "note": "a"}, {"_op": "c", "id": 101, "total": 6}],
    [{"_op": "u", "id": 100, "total": 7, "_unchanged": ["note"]}, {"_op": "u", "id": 100, "total": 8, "note": "b"}],
    [{"_op": "u", "id": 100, "total": 8, "note": "b"}] * 3,
    [{"_op": "d", "id": 101}, {"_op": "c", "id": 101, "total": 1}, {"_op": "d", "id": 101}],
    [{"_op": "d", "id": 100, "_seq": 7}, {"_op": "c", "id": 200, "total": 9, "_unchanged": ["note"], "_seq": 7}],
    [{"_op": "c", "id": 300, "total": 2}, {"_op": "t"}, {"_op": "c", "id": 100, "total": 3}],
    [{"_op": "u", "id": 100, "total": 3}, {"_op": "t"}],
    [{"_op": "c", "id": 101, "total": 4}],
]
"""By commit: parts of rows, the same again, gone and back, another key, truncates."""


@pytest.mark.parametrize("rows", [pytest.param(1, marks=pytest.mark.long), 500_000])
def test_versions_begin_and_end_as_the_lake_says(shop: Shop, rows: int) -> None:
    with open_log(shop.lake) as log:
        create_all(log)
        run(log)
        for number, records in enumerate(RECORDS):
            write(log, shop, number, records)
        run(log, rows)
        check(log)


@pytest.mark.long
def test_versions_over_random_changes_and_a_fill_over_all_of_them(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        create_all(log)
        for _ in range(6):
            shop.commit(log)
            run(log)
        write(log, shop, 1, RECORDS[0])
        write(log, shop, 2, RECORDS[4])
        for path in (shop.lake / "state").glob("main.duckdb*"):
            path.unlink()
        run(log)
        api.create_view(log, "SELECT note, count(*) AS n FROM history.orders GROUP BY note", name="later")
        run(log)
        shop.commit(log)
        run(log)
        check(log)


def test_what_has_no_history_is_refused(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        api.create_view(log, "SELECT id FROM orders", name="ids")
        with pytest.raises(NameNotFound, match="history"):
            api.create_view(log, "SELECT * FROM history.ids", name="v")
        with pytest.raises(NameNotFound, match="payments"):
            api.create_view(log, "SELECT * FROM history.payments", name="v")
        assert "history.shop.public.orders" in str(api.explain(log, VIEWS["versions"], name="v"))
        assert api.lineage(log)["ids"] == ["shop.public.orders"]
