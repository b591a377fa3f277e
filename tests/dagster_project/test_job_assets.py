"""Stream jobs in Dagster: assets like views, with lineage through tables, views and jobs, caught up by a run."""

from __future__ import annotations

import threading

import dagster as dg
import pytest

from headwater.log import jobs
from headwater_dagster import build_definitions
from headwater_pipelines.jobs import api, worker
from headwater_pipelines.runtime import worker as pipeline

from .conftest import Shop

FILE = """
import headwater as hw
import polars as pl


@hw.job(inputs="orders", output="large_orders", key="id", columns={"id": "BIGINT", "amount": "BIGINT"})
def picked(orders: pl.DataFrame) -> pl.DataFrame:
    \"\"\"The orders of more than 50.\"\"\"
    return orders.filter(pl.col("amount") > 50).select("id", "amount")


@hw.job(inputs=["large_orders", "totals"], output="seen", columns={"rows": "BIGINT"})
def seen(large: pl.DataFrame, totals: pl.DataFrame) -> pl.DataFrame:
    return pl.DataFrame({"rows": [large.height + totals.height]})
"""
PICKED = dg.AssetKey(["jobs", "picked"])


@pytest.fixture
def with_jobs(shop: Shop) -> Shop:
    """The shop after its jobs have run once."""
    (shop.project.jobs_dir).mkdir()
    (shop.project.jobs_dir / "shop.py").write_text(FILE)
    shop.order()
    pipeline.run(shop.log, shop.project.settings, threading.Event(), until_caught_up=True)
    worker.run(shop.log, shop.project, threading.Event(), until_caught_up=True)
    return shop


def test_jobs_are_assets_with_lineage(with_jobs: Shop) -> None:
    with_jobs.log.create_view("count_large", "SELECT count(*) AS n FROM large_orders", {})
    graph = build_definitions(with_jobs.project.root).resolve_asset_graph()
    picked = graph.get(PICKED)
    assert not picked.is_external
    assert picked.parent_keys == {dg.AssetKey(["shop", "public", "orders"])}
    assert picked.description == "The orders of more than 50."
    assert (picked.group_name, picked.kinds) == ("jobs", {"python", "polars"})
    assert [each.name for each in picked.metadata["dagster/column_schema"].columns] == ["id", "amount"]
    assert graph.get(dg.AssetKey(["jobs", "seen"])).parent_keys == {PICKED, dg.AssetKey(["views", "totals"])}
    assert graph.get(dg.AssetKey(["views", "count_large"])).parent_keys == {PICKED}


def test_materializing_brings_a_job_up_to_now(with_jobs: Shop) -> None:
    defs = build_definitions(with_jobs.project.root)
    with_jobs.order(20)
    target = with_jobs.log.newest_commit()
    with dg.DagsterInstance.ephemeral() as instance:
        job = defs.resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(instance=instance, asset_selection=[PICKED])
        (event,) = result.get_asset_materialization_events()
        metadata = event.step_materialization_data.materialization.metadata
        assert metadata["to_commit"].value == target == jobs.position(with_jobs.log, "picked")
        assert metadata["rows"].value == len([n for n in range(11, 31) if n * 7 % 100 > 50])
        api.pause_job(with_jobs.log, "picked")
        with_jobs.order()
        with pytest.raises(dg.Failure, match="job picked is paused"):
            job.execute_in_process(instance=instance, asset_selection=[PICKED])
