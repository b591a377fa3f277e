"""No view is called unsynced while it follows its tables; one whose SQL is another is, until the next report."""

from __future__ import annotations

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest

from headwater_dagster import HeadwaterTranslator, build_definitions
from headwater_dagster.inventory import JobData, SourceData, TopicData, ViewData
from headwater_dagster.observation import OBSERVE

from .conftest import Shop, headwater

SHARES = "SELECT name, total * 100 AS cents FROM totals"
VIEWS = {"views/totals", "views/large", "views/shares"}
Causes = dict[str, list[str]]


class Changed(HeadwaterTranslator):
    """As if the views' SQL had been changed since the last report."""

    def get_asset_spec(self, data: SourceData | TopicData | ViewData | JobData) -> dg.AssetSpec:
        spec = super().get_asset_spec(data)
        return spec.replace_attributes(code_version="another") if isinstance(data, ViewData) else spec


@pytest.fixture
def defs(shop: Shop) -> dg.Definitions:
    """With a view on a view: ``shares`` is reported before ``totals``, which it reads."""
    shop.log.create_view("shares", SHARES, {})
    shop.order()
    headwater(shop.project, "views", "--until-caught-up")
    return build_definitions(shop.project.root)


def causes(instance: dg.DagsterInstance, defs: dg.Definitions) -> Causes:
    """Of each materialized asset, why Dagster's pages call it unsynced."""
    graph = defs.resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    keys = [key for key in graph.get_all_asset_keys() if instance.get_latest_materialization_event(key)]
    return {key.to_user_string(): [each.reason for each in resolver.get_stale_causes(key)] for key in keys}


def report(instance: dg.DagsterInstance, defs: dg.Definitions) -> None:
    """One tick of the sensor, as if it were the first."""
    with dg.build_sensor_context(instance=instance, definitions=defs, resources=defs.resources) as context:
        for event in defs.resolve_sensor_def(OBSERVE).evaluate_tick(context).asset_events:
            instance.report_runless_asset_event(event)


def test_views_that_follow_are_synced_whoever_reports_them(shop: Shop, defs: dg.Definitions) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        report(instance, defs)
        assert causes(instance, defs) == {key: [] for key in VIEWS}
        shop.order()
        done = defs.resolve_job_def("stream").execute_in_process(
            run_config={"ops": {"hold_lease": {"config": {"seconds": 0}}}}, instance=instance
        )
        assert done.success
        assert causes(instance, defs) == {key: [] for key in VIEWS}
        chosen = defs.resolve_implicit_global_asset_job_def().get_subset(
            asset_selection={dg.AssetKey(["views", "totals"])}
        )
        assert chosen.execute_in_process(instance=instance).success
        assert causes(instance, defs) == {key: [] for key in VIEWS}, (
            "one that was materialized by hand is no news to others"
        )


def test_a_changed_view_is_called_so_until_it_is_reported(shop: Shop, defs: dg.Definitions) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        report(instance, defs)
        after = build_definitions(shop.project.root, translator=Changed())
        assert causes(instance, after) == {key: ["has a new code version"] for key in VIEWS}
