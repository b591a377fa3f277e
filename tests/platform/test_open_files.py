"""Sealed segments are plain Parquet: other engines read them through the manifest, and see what the lake says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headwater import record
from headwater.config import Settings
from headwater.lake import open_lake
from headwater.log import Log, manifest, merge, retention, seal
from headwater.schema import Field, Schema
from headwater.testing.writer import Writer

TOPIC = "shop.public.orders"
SCHEMA = Schema.of(
    {"id": "BIGINT", "total": "DECIMAL(12,2)", "note": "VARCHAR", "at": "TIMESTAMP WITH TIME ZONE"}, key=["id"]
)
COLUMNS = ["_partition", "_offset", "_commit", "id", "total", "note"]
QUERY = f'SELECT {", ".join(COLUMNS)} FROM log."{TOPIC}"'


def orders(first: int, count: int = 50) -> pa.Table:
    ids = list(range(first, first + count))
    columns = {
        "id": ids,
        "total": pa.array([Decimal(i) / 4 for i in ids], pa.decimal128(12, 2)),
        "note": [None if i % 7 == 0 else f"ü{i}" for i in ids],
        "at": pa.array([i * 10**6 for i in ids], pa.timestamp("us", "UTC")),
        "_event_id": [str(i) for i in ids],
    }
    return pa.table(columns)


@pytest.fixture
def lake(log: Log, writer: Writer) -> Log:
    """An event topic of two partitions whose segments were merged, and whose oldest went by retention."""
    writer.create(TOPIC, "event", SCHEMA, partitions=2)
    for number in range(merge.FAN_IN + 2):
        writer.write(TOPIC, orders(number * 50))
        seal.seal(log, Settings())
    assert merge.merge(log, Settings()) == 2 * merge.FAN_IN
    retired = [segment for segment in merge.live(log, log.topic(TOPIC).id) if segment.rows < 100]
    assert retired
    writer.write(TOPIC, orders(5000))  # stays hot
    return log


def expected(log: Log) -> Counter[tuple[Any, ...]]:
    """What the lake says of the sealed records."""
    sealed = read_manifest(log)["last_commit"]
    with open_lake(log.folder) as lake:
        return Counter(lake.sql(f"{QUERY} WHERE _commit <= {sealed}").fetchall())


def read_manifest(log: Log) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(manifest.path(log, log.topic(TOPIC)).read_text(encoding="utf-8"))
    return found


def files(log: Log) -> list[str]:
    return [str(log.folder / segment["path"]) for segment in read_manifest(log)["segments"]]


def by_duckdb(paths: list[str]) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        return connection.execute(f"SELECT {', '.join(COLUMNS)} FROM read_parquet({paths})").fetchall()


def by_polars(paths: list[str]) -> list[tuple[Any, ...]]:
    return pl.scan_parquet(paths).select(COLUMNS).collect().rows()


def by_pandas(paths: list[str]) -> list[tuple[Any, ...]]:
    import pandas as pd

    frame = pd.concat([pd.read_parquet(path, columns=COLUMNS) for path in paths])
    return [tuple(row) for row in frame.astype(object).where(frame.notna(), None).itertuples(index=False)]


def by_pyarrow(paths: list[str]) -> list[tuple[Any, ...]]:
    import pyarrow.dataset

    table = pyarrow.dataset.dataset(paths).to_table(columns=COLUMNS)
    return [tuple(row.values()) for row in table.to_pylist()]


@pytest.mark.parametrize("engine", [by_duckdb, by_polars, by_pandas, by_pyarrow])
def test_an_engine_reads_what_the_lake_says(lake: Log, engine: Callable[[list[str]], list[tuple[Any, ...]]]) -> None:
    assert Counter(engine(files(lake))) == expected(lake)
    assert sum(expected(lake).values()) == read_manifest(lake)["rows"]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_spark_reads_what_the_lake_says(lake: Log, tmp_path: Path) -> None:
    """pyspark is not among the project's packages: install it beside them to run this."""
    sql = pytest.importorskip("pyspark.sql")
    builder = sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    local = {
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.session.timeZone": "UTC",
    }
    for name, value in {**local, "spark.sql.warehouse.dir": str(tmp_path)}.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    try:
        found = [tuple(row) for row in spark.read.parquet(*files(lake)).select(COLUMNS).collect()]
    finally:
        spark.stop()
    assert Counter(found) == expected(lake)


def test_the_manifest_follows_merges_and_retention(lake: Log) -> None:
    names = {Path(path).name for path in files(lake)}
    on_disk = {path.name for path in lake.storage.path("data/segments").iterdir()}
    assert names < on_disk, "merged segments are still there for readers that began before"
    oldest = merge.live(lake, lake.topic(TOPIC).id)[:1]
    retention.remove(lake, lake.topic(TOPIC), oldest)
    assert {Path(path).name for path in files(lake)} == names - {Path(oldest[0].path).name}
    assert Counter(by_duckdb(files(lake))) == expected(lake)


def test_files_say_which_column_is_which_by_field_id(lake: Log) -> None:
    found = pq.read_schema(files(lake)[0])
    ids = {field.name: int(field.metadata[b"PARQUET:field_id"]) for field in found}
    assert {name: ids[name] for name in SCHEMA.names} == {field.name: field.id for field in SCHEMA.fields}
    assert {name: ids[name] for name in ids.keys() - set(SCHEMA.names)} == {
        name: record.FIELD_IDS[name] for name in ids.keys() - set(SCHEMA.names)
    }
    schemas = read_manifest(lake)["schemas"]
    assert schemas["1"][1] == {"id": 2, "name": "total", "type": "DECIMAL(12,2)"}


def test_a_renamed_column_is_followed_by_its_field_id(lake: Log) -> None:
    """One DuckDB statement over two schema versions, built from the manifest alone."""
    fields = [Field(id=f.id, name="remark" if f.name == "note" else f.name, type=f.type) for f in SCHEMA.fields]
    writer = Writer(lake)
    with writer.transaction() as tx:
        tx.add_schema(TOPIC, Schema(fields=tuple(fields), key=("id",)))
        tx.append(TOPIC, orders(9000).rename_columns(["id", "total", "remark", "at", "_event_id"]))
        tx.commit()
    seal.seal(lake, Settings())
    newest = list(read_manifest(lake)["schemas"].values())[-1]
    entries = ", ".join(
        f"{each['id']}: {{name: '{each['name']}', type: '{each['type']}', default_value: NULL}}" for each in newest
    )
    sql = f"SELECT id, remark FROM read_parquet({files(lake)}, schema=MAP {{{entries}}})"
    with duckdb.connect() as connection:
        found = connection.execute(sql).fetchall()
    with open_lake(lake.folder) as opened:
        assert Counter(found) == Counter(opened.sql(f'SELECT id, remark FROM log."{TOPIC}"').fetchall())
    assert any(row[1] == "ü9001" for row in found)


def test_reading_by_glob_counts_merged_files_twice(lake: Log) -> None:
    """Why there is a manifest."""
    everything = [str(path) for path in lake.storage.path("data/segments").iterdir()]
    assert len(by_duckdb(everything)) > sum(expected(lake).values())
