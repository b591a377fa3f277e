"""What the benchmarks of the log write: an event topic of orders, a keyed table of products, as real commits."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headwater.catalog.records import CommitInfo, Kind
from headwater.config import Settings
from headwater.log import Log, recovery, seal
from headwater.schema import Schema

EVENTS = "shop.sales.orders"
TABLE = "shop.public.accounts"
SEED = 20_260_101
BLOCK_ROWS = 1_000_000
"""Rows of one large commit."""

EVENT_COLUMNS = {
    "id": "BIGINT",
    "customer": "INTEGER",
    "product": "INTEGER",
    "quantity": "INTEGER",
    "amount": "DECIMAL(12,2)",
    "discount": "DOUBLE",
    "status": "VARCHAR",
    "placed_at": "TIMESTAMP WITH TIME ZONE",
}
TABLE_COLUMNS = {
    "id": "BIGINT",
    "name": "VARCHAR",
    "city": "VARCHAR",
    "balance": "DECIMAL(12,2)",
    "score": "DOUBLE",
    "visits": "INTEGER",
    "active": "BOOLEAN",
    "updated_at": "TIMESTAMP WITH TIME ZONE",
}
_DAY_US = 86_400_000_000
_START_US = 1_767_225_600_000_000


class Producer:
    """One producer of the log; commits have the position of nobody."""

    def __init__(self, log: Log, name: str = "bench") -> None:
        self.log = log
        self.name = name
        self.epoch = log.raise_epoch(name)

    def create(self, name: str, kind: Kind, schema: Schema, partitions: int = 1) -> CommitInfo:
        with self.log.transaction(self.name, self.epoch) as tx:
            tx.create_topic(name, kind, schema, partitions=partitions)
            return tx.commit()

    def write(self, rows: dict[str, pa.Table], partition: int | None = None) -> CommitInfo:
        """One commit of the rows of each topic."""
        with self.log.transaction(self.name, self.epoch) as tx:
            for name, table in rows.items():
                tx.append(name, table, partition)
            return tx.commit()


def events(first: int, rows: int, schema: Schema | None = None) -> pa.Table:
    """Orders ``first`` and following: skewed customers and products, one order a second."""
    chance = np.random.default_rng(SEED + first)
    ids = np.arange(first, first + rows)
    statuses = pa.array(["new", "paid", "packed", "shipped", "returned"])
    columns: dict[str, pa.Array] = {
        "id": pa.array(ids),
        "customer": pa.array((chance.pareto(1.2, rows) * 1000 % 5_000_000).astype(np.int32)),
        "product": pa.array(chance.integers(0, 50_000, rows, dtype=np.int32)),
        "quantity": pa.array(chance.integers(1, 10, rows, dtype=np.int32)),
        "amount": cents(chance.integers(100, 1_000_000, rows)),
        "discount": pa.array(np.round(chance.random(rows), 3)),
        "status": statuses.take(pa.array(chance.integers(0, 5, rows))),
        "placed_at": pa.array(_START_US + ids * 1_000_000, pa.timestamp("us", tz="UTC")),
    }
    if schema is not None and "channel" in schema.names:
        columns["channel"] = pa.array(["web", "shop"]).take(pa.array(chance.integers(0, 2, rows)))
    return pa.table(columns)


def accounts(ids: npt.NDArray[Any], op: str, version: int = 0) -> pa.Table:
    """Records of the table for these keys; ``version`` changes what is in the row."""
    chance = np.random.default_rng(SEED + version)
    rows = len(ids)
    texts = pc.binary_join_element_wise("account ", pc.cast(pa.array(ids), pa.string()), "")
    cities = pa.array([f"city {number}" for number in range(2_000)])
    return pa.table(
        {
            "id": pa.array(ids),
            "name": texts,
            "city": cities.take(pa.array(chance.integers(0, 2_000, rows))),
            "balance": cents(chance.integers(0, 100_000_000, rows)),
            "score": pa.array(chance.random(rows)),
            "visits": pa.array(chance.integers(0, 1_000, rows, dtype=np.int32)),
            "active": pa.array(chance.random(rows) < 0.9),
            "updated_at": pa.array(_START_US + chance.integers(0, 365 * _DAY_US, rows), pa.timestamp("us", tz="UTC")),
            "_op": pa.repeat(pa.scalar(op), rows),
        }
    )


def cents(values: npt.NDArray[Any]) -> pa.Array:
    """Whole cents as DECIMAL(12,2), without a Python value per row."""
    halves = np.empty((len(values), 2), np.int64)
    halves[:, 0], halves[:, 1] = values, values >> 63
    return pa.Array.from_buffers(pa.decimal128(12, 2), len(values), [None, pa.py_buffer(halves)])


def limits() -> Settings:
    """The defaults, without the grace period: replaced files would fill the disk meanwhile."""
    return replace(Settings(), file_grace_s=0.0)


def seal_all(log: Log) -> None:
    """Everything hot into segments; the hot files go at once."""
    seal.seal(log, limits())
    recovery.remove_retired(log, 0.0)


def alternate(repeat: int, **work: Callable[[], object]) -> dict[str, list[float]]:
    """Seconds that each takes, run in turn ``repeat`` times."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeat):
        for name, run in work.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """The median of the ratios of neighbouring runs."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))
