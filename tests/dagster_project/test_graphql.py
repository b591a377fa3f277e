"""What the pages ask: GraphQL of Dagster's own web application over a lake's definitions, in this process."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import InProcessCodeLocationOrigin  # no public names: what tests of Dagster use
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget

from headwater.log.jobs import JobRecord, register
from headwater_dagster.instance import write_instance
from headwater_dagster.timetable import TIMETABLE
from headwater_pipelines import api

from .conftest import Shop

LOADED = """
from headwater_dagster import build_definitions
defs = build_definitions({folder!r})
"""
ASSETS = """{ assetNodes {
  assetKey { path } dependencyKeys { path } kinds groupName description
  isMaterializable isVirtual isPartitioned opVersion
  owners { ... on UserAssetOwner { email } ... on TeamAssetOwner { team } }
  internalFreshnessPolicy { ... on TimeWindowFreshnessPolicy { failWindowSeconds } }
  freshnessStatusInfo { freshnessStatus }
  assetChecksOrError { ... on AssetChecks { checks { name description } } }
  metadataEntries { label
    ... on TextMetadataEntry { text } ... on MarkdownMetadataEntry { mdStr }
    ... on TableSchemaMetadataEntry { schema { columns { name type description constraints { nullable other } } } }
    ... on TableColumnLineageMetadataEntry { lineage { columnName columnDeps { assetKey { path } columnName } } }
    ... on CodeReferencesMetadataEntry {
      codeReferences { ... on LocalFileCodeReference { filePath lineNumber } } } } } }"""
HOURS = """query($path: [String!]!) { assetNodeOrError(assetKey: {path: $path}) { ... on AssetNode {
  partitionDefinition { type } partitionKeys backfillPolicy { policyType } pools } } }"""
WORKSPACE = """{ repositoriesOrError { ... on RepositoryConnection { nodes {
  jobs { name description } sensors { name sensorState { status } targets { pipelineName } }
  schedules { name } allTopLevelResourceDetails { name configuredValues { key value } } } } } }"""
TABLES: set[tuple[str, ...]] = {("shop", "public", "orders"), ("shop", "public", "customers")}
VIEWS: set[tuple[str, ...]] = {("views", "totals"), ("views", "large"), ("views", "named")}


@dataclass(frozen=True)
class Asked:
    """Dagster's application, asked as its pages ask it."""

    client: Any

    def ask(self, query: str, **variables: Any) -> Any:
        answer = self.client.post("/graphql", json={"query": query, "variables": variables})
        assert answer.status_code == 200, answer.text
        got = answer.json()
        assert "errors" not in got, got
        (value,) = got["data"].values()
        return value

    def assets(self) -> dict[tuple[str, ...], dict[str, Any]]:
        return {tuple(node["assetKey"]["path"]): node for node in self.ask(ASSETS)}


@pytest.fixture
def asked(shop: Shop) -> Iterator[Asked]:
    """Over the small lake, with a view that says much of itself, a job, and a promise."""
    project = shop.project
    project.views_dir.mkdir()
    text = "-- Orders with names.\nCREATE MATERIALIZED VIEW named WITH (owner = 'team:web') AS\nSELECT o.id, name"
    (project.views_dir / "named.sql").write_text(f"{text} FROM orders o JOIN customers c ON c.id = customer")
    api.sync_project_views(project, shop.log)
    project.jobs_dir.mkdir()
    (project.jobs_dir / "shop.py").write_text("# a job\n")
    inputs = ("shop.public.orders", "views.totals")
    register(shop.log, JobRecord(name="scored", inputs=inputs, output="jobs.scored", file="jobs/shop.py:1"))
    project.file.write_text(project.file.read_text() + '[slo."views.named"]\nmoved_within_s = 900\n')
    home = write_instance(project.root / "dagster").parent
    file = project.root / "loaded.py"
    file.write_text(LOADED.format(folder=str(project.root)))
    origin = LoadableTargetOrigin(executable_path=sys.executable, python_file=str(file), attribute="defs")
    target = InProcessWorkspaceLoadTarget(InProcessCodeLocationOrigin(origin, location_name="headwater"))
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home))
        warnings.simplefilter("ignore")  # of Dagster's own: it is not loaded in the process of user code elsewhere
        from dagster_webserver.app import create_app_from_workspace_process_context
        from starlette.testclient import TestClient

        with (
            dg.DagsterInstance.get() as instance,
            WorkspaceProcessContext(instance, target) as context,
            TestClient(create_app_from_workspace_process_context(context)) as client,
        ):
            yield Asked(client)


def test_the_graph(asked: Asked) -> None:
    found = asked.assets()
    replays = {("replay", name) for _, name in VIEWS}
    upkeep = {("maintenance", due.name) for due in TIMETABLE}
    assert set(found) == {("shop",), *TABLES, *VIEWS, *replays, ("jobs", "scored"), *upkeep}
    reads = {key: {tuple(each["path"]) for each in node["dependencyKeys"]} for key, node in found.items()}
    expected: dict[tuple[str, ...], set[tuple[str, ...]]] = {
        ("shop",): set(),
        **{key: {("shop",)} for key in TABLES},
        ("views", "totals"): TABLES,
        ("views", "named"): TABLES,
        ("views", "large"): {("shop", "public", "orders")},
        ("jobs", "scored"): {("shop", "public", "orders"), ("views", "totals")},
        **{("replay", name): {("views", name)} for _, name in VIEWS},
        **{key: set() for key in upkeep},
    }
    assert reads == expected
    assert {key for key, node in found.items() if not node["isMaterializable"]} == {("shop",), *TABLES}
    assert {key for key, node in found.items() if node["isPartitioned"]} == replays
    assert not any(node["isVirtual"] for node in found.values()), "headwater has no view that is not kept"
    groups = {key: node["groupName"] for key, node in found.items()}
    assert groups == {key: key[0] for key in found}
    kinds = {key[0]: set(node["kinds"]) for key, node in found.items()}
    assert kinds == {
        "shop": {"postgres"},
        "views": {"sql", "duckdb"},
        "replay": {"duckdb"},
        "jobs": {"python", "polars"},
        "maintenance": set(),
    }


def test_a_view_s_page(asked: Asked, shop: Shop) -> None:
    node = asked.assets()["views", "named"]
    assert node["description"] == "Orders with names."
    assert node["owners"] == [{"team": "web"}]
    assert node["opVersion"]
    entries = {each["label"]: each for each in node["metadataEntries"]}
    columns = entries["dagster/column_schema"]["schema"]["columns"]
    assert [(each["name"], each["type"]) for each in columns] == [("id", "BIGINT"), ("name", "VARCHAR")]
    lineage = {each["columnName"]: each["columnDeps"] for each in entries["dagster/column_lineage"]["lineage"]}
    orders, customers = (["shop", "public", each] for each in ("orders", "customers"))
    assert lineage == {
        "id": [{"assetKey": {"path": orders}, "columnName": "id"}],
        "name": [{"assetKey": {"path": customers}, "columnName": "name"}],
    }
    (code,) = entries["dagster/code_references"]["codeReferences"]
    assert code == {"filePath": str(shop.project.views_dir / "named.sql"), "lineNumber": 1}
    assert "FROM orders o JOIN customers" in entries["sql"]["mdStr"]
    assert entries["dagster/table_name"]["text"] == "named"


def test_a_topic_s_and_a_job_s_page(asked: Asked, shop: Shop) -> None:
    found = asked.assets()
    topic = {each["label"]: each for each in found["shop", "public", "orders"]["metadataEntries"]}
    assert found["shop", "public", "orders"]["description"] == "what was bought"
    key, *others = topic["dagster/column_schema"]["schema"]["columns"]
    assert (key["name"], key["constraints"]["other"]) == ("id", ["key"])
    assert [each["constraints"]["other"] for each in others] == [[], []]
    assert topic["dagster/table_name"]["text"] == "shop.public.orders"
    job = {each["label"]: each for each in found["jobs", "scored"]["metadataEntries"]}
    (code,) = job["dagster/code_references"]["codeReferences"]
    assert code == {"filePath": str(shop.project.jobs_dir / "shop.py"), "lineNumber": 1}


def test_checks_and_freshness(asked: Asked) -> None:
    found = asked.assets()
    checks = {key: {each["name"] for each in node["assetChecksOrError"]["checks"]} for key, node in found.items()}
    assert checks["shop",] >= {"lag", "slot"}
    assert all(checks[key] >= {"schema", "whole", "dead_letters"} for key in TABLES)
    assert all(checks[key] >= {"lag", "fresh", "equals_query"} for key in VIEWS)
    assert checks["jobs", "scored"] >= {"lag", "dead_letters"}
    assert all(each["description"] for node in found.values() for each in node["assetChecksOrError"]["checks"])
    windows = {key: node["internalFreshnessPolicy"] for key, node in found.items() if node["internalFreshnessPolicy"]}
    assert windows == {("views", "named"): {"failWindowSeconds": 900}}
    # No daemon has looked yet; those without a policy are never judged.
    said = {key: (node["freshnessStatusInfo"] or {}).get("freshnessStatus") for key, node in found.items()}
    assert said == {key: "UNKNOWN" if key == ("views", "named") else None for key in found}


def test_hours_jobs_sensors_and_the_project(asked: Asked, shop: Shop) -> None:
    hours = asked.ask(HOURS, path=["replay", "totals"])
    first = shop.log.commits(limit=1)[0].time
    assert hours["partitionDefinition"]["type"] == "TIME_WINDOW"
    assert hours["partitionKeys"][0] == f"{first:%Y-%m-%d-%H:00}"
    assert hours["backfillPolicy"]["policyType"] == "SINGLE_RUN"
    assert hours["pools"] == ["replay"]
    (repository,) = asked.ask(WORKSPACE)["nodes"]
    assert {each["name"] for each in repository["jobs"]} >= {"stream", "replay"}
    sensors = {each["name"]: each for each in repository["sensors"]}
    assert sensors.keys() >= {"observe", "renew_lease"}
    assert {sensors[each]["sensorState"]["status"] for each in ("observe", "renew_lease")} == {"RUNNING"}
    assert [each["pipelineName"] for each in sensors["renew_lease"]["targets"]] == ["stream"]
    (resource,) = (each for each in repository["allTopLevelResourceDetails"] if each["name"] == "headwater")
    values = {each["key"]: each["value"] for each in resource["configuredValues"]}
    assert str(shop.project.root) in values["project_dir"]
