"""A lake in a Dagster project of somebody else's: as a component in a defs.yaml, and as assets of his own.

Dagster reads annotations: no ``from __future__ import annotations`` here.
"""

from collections.abc import Iterator

import dagster as dg
import pytest
from dagster.components.testing.utils import create_defs_folder_sandbox

from headwater.config import Project
from headwater.errors import UsageError
from headwater_dagster import (
    HeadwaterComponent,
    HeadwaterResource,
    HeadwaterTranslator,
    build_headwater_asset_specs,
    headwater_assets,
)
from headwater_dagster.inventory import JobData, SourceData, TopicData, ViewData

from .conftest import Shop

VIEWS = {dg.AssetKey(["views", "large"]), dg.AssetKey(["views", "totals"])}


class Ours(HeadwaterTranslator):
    def get_asset_spec(self, data: SourceData | TopicData | ViewData | JobData) -> dg.AssetSpec:
        return super().get_asset_spec(data).replace_attributes(owners=["team:data"])


@pytest.mark.filterwarnings(
    "ignore"
)  # Dagster's own: it makes use of what it calls beta, and of what pydantic gives up
def test_five_lines_of_a_blank_project(shop: Shop) -> None:
    wanted = {"type": "headwater_dagster.HeadwaterComponent", "attributes": {"project_dir": str(shop.project.root)}}
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(component_cls=HeadwaterComponent, defs_yaml_contents=wanted)
        with sandbox.load_component_and_build_defs(defs_path=path) as (component, defs):
            assert isinstance(component, HeadwaterComponent)
            dg.Definitions.validate_loadable(defs)
            graph = defs.resolve_asset_graph()
            assert graph.get_all_asset_keys() >= VIEWS | {dg.AssetKey(["shop", "public", "orders"])}
            assert {sensor.name for sensor in defs.sensors or ()} == {"observe", "renew_lease"}


def test_views_as_assets_of_ones_own(shop: Shop) -> None:
    @headwater_assets(project_dir=shop.project.root, name="mine", dagster_headwater_translator=Ours())
    def mine(context: dg.AssetExecutionContext, headwater: HeadwaterResource) -> Iterator[dg.MaterializeResult[None]]:
        yield from headwater.run(context)

    assert mine.keys == VIEWS
    assert {owner for spec in mine.specs for owner in spec.owners} == {"team:data"}
    target = shop.order()
    with dg.DagsterInstance.ephemeral() as instance:
        resources = {"headwater": HeadwaterResource(project_dir=str(shop.project.root))}
        done = dg.materialize([mine], instance=instance, resources=resources)
        found = {each.asset_key: each for each in done.asset_materializations_for_node("mine")}
        assert found.keys() == VIEWS
        assert {each.metadata["to_commit"].value for each in found.values()} == {target}


def test_specs_alone(shop: Shop) -> None:
    specs = {spec.key: spec for spec in build_headwater_asset_specs(shop.project.root)}
    assert specs.keys() >= VIEWS | {dg.AssetKey(["shop"]), dg.AssetKey(["shop", "public", "customers"])}
    totals = specs[dg.AssetKey(["views", "totals"])]
    assert {each.asset_key for each in totals.deps} == {
        dg.AssetKey(["shop", "public", each]) for each in ("orders", "customers")
    }


def test_a_project_without_views_is_told_so(project: Project) -> None:
    with pytest.raises(UsageError, match="no view yet"):
        headwater_assets(project_dir=project.root)
