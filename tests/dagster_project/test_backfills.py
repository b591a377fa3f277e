"""Backfills in Dagster: hours of a view, or a range of positions, replayed in one run, compared, promoted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import dagster as dg
import duckdb
import pytest

from headwater.lake import Lake
from headwater_dagster import build_definitions
from headwater_dagster.health import EQUAL
from headwater_dagster.replay import JOB, OP, ReplayConfig
from headwater_pipelines.runtime import worker
from headwater_pipelines.runtime.state import FILE

from .conftest import Shop

TOTALS = dg.AssetKey(["replay", "totals"])


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def run_views(shop: Shop) -> None:
    worker.run(shop.log, shop.project.settings, threading.Event(), until_caught_up=True)


def exact(shop: Shop, instance: dg.DagsterInstance, **config: Any) -> dict[str, Any]:
    job = build_definitions(shop.project.root).resolve_job_def(JOB)
    done = job.execute_in_process(
        instance=instance, run_config=dg.RunConfig(ops={OP: ReplayConfig(view="totals", **config)})
    )
    (event,) = done.get_asset_materialization_events()
    return {name: each.value for name, each in event.step_materialization_data.materialization.metadata.items()}


def corrupt(shop: Shop) -> None:
    """The sums that are stored are wrong from now on, and so is what is published of every customer with orders."""
    with duckdb.connect(str(shop.project.lake_dir / "state" / FILE)) as state:
        names = [name for (name,) in state.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        (table,) = [name for name in names if name.startswith("a_")]
        state.execute(f'UPDATE "{table}" SET s_x0 = s_x0 + 1000')
    shop.order()
    run_views(shop)


def test_a_range_of_positions_is_replayed_and_promoted(shop: Shop, instance: dg.DagsterInstance) -> None:
    first = shop.order()
    run_views(shop)
    shop.order()
    run_views(shop)
    found = exact(shop, instance, start=f"commit:{first}")
    assert (found["from_commit"], found["missing"], found["extra"], found["promoted_commit"]) == (first, 0, 0, 0)
    assert found["checksum"] == found["live_checksum"]
    corrupt(shop)
    found = exact(shop, instance, start=f"commit:{first}", keep=True)
    assert found["missing"] > 0
    kept = duckdb.execute(f"SELECT name, total, _weight FROM '{shop.project.root}/replays/totals.parquet' ORDER BY ALL")
    sql = "SELECT c.name, sum(o.amount), 1 FROM orders o JOIN customers c ON c.id = o.customer GROUP BY 1 ORDER BY ALL"
    assert kept.fetchall() == Lake(shop.log).sql(sql).fetchall()
    found = exact(shop, instance, start=f"commit:{first}", promote=True)
    assert found["promoted_commit"] == shop.log.newest_commit()
    lake = Lake(shop.log)
    live = lake.sql("SELECT * FROM totals ORDER BY ALL").fetchall()
    sql = "SELECT c.name, sum(o.amount) FROM orders o JOIN customers c ON c.id = o.customer GROUP BY 1 ORDER BY ALL"
    assert live == lake.sql(sql).fetchall()


def test_hours_of_a_view_are_one_run(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.order()
    run_views(shop)
    defs = build_definitions(shop.project.root)
    asset = defs.resolve_assets_def(TOTALS)
    hour = shop.log.commits(limit=1)[0].time.replace(minute=0, second=0, microsecond=0)
    key = hour.strftime("%Y-%m-%d-%H:%M")
    assert asset.backfill_policy == dg.BackfillPolicy.single_run()
    done = dg.materialize([asset], instance=instance, partition_key=key, raise_on_error=False)
    assert done.success
    (check,) = done.get_asset_check_evaluations()
    assert (check.check_name, check.passed) == (EQUAL, True)
    (event,) = done.get_asset_materialization_events()
    assert event.partition == key
    assert event.step_materialization_data.materialization.metadata["records"].value
    corrupt(shop)
    done = dg.materialize([asset], instance=instance, partition_key=key, raise_on_error=False)
    (check,) = done.get_asset_check_evaluations()
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)


def test_what_cannot_be_replayed_fails_with_the_reason(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.order()
    with pytest.raises(dg.Failure, match="totals has published nothing"):
        exact(shop, instance)
