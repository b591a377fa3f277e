"""The code location: what it declares, how fast it loads, and that it needs neither network nor lake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin
from dagster._core.workspace.load_target import WorkspaceFileTarget

from headwater.config import Project
from headwater.errors import ConfigError
from headwater_dagster import build_definitions, lineage, maintenance
from headwater_dagster.instance import environment, home, processes
from headwater_dagster.inventory import JobData, SourceData, TopicData, ViewData
from headwater_dagster.translator import HeadwaterTranslator

from .conftest import Shop

ORDERS = dg.AssetKey(["shop", "public", "orders"])
TOTALS = dg.AssetKey(["views", "totals"])

LOAD = """
import socket, sys, time
def refuse(*arguments, **more): raise AssertionError("a connection was opened")
socket.socket.connect = refuse
import dagster as dg
alone = time.process_time()
import headwater_dagster.definitions
took = time.process_time()
dg.Definitions.validate_loadable(headwater_dagster.definitions.defs)
heavy = {"polars", "pandas", "ipywidgets", "psycopg", "IPython", "headwater_connectors"} & set(sys.modules)
import json
print(json.dumps({"alone": alone, "took": took, "heavy": sorted(heavy)}))
"""


def test_loads_an_existing_lake(shop: Shop) -> None:
    defs = build_definitions(shop.project.root)
    dg.Definitions.validate_loadable(defs)
    graph = defs.resolve_asset_graph()
    assert graph.get(ORDERS).is_external
    assert not graph.get(TOTALS).is_external
    assert graph.get(TOTALS).parent_keys == {ORDERS, dg.AssetKey(["shop", "public", "customers"])}
    assert graph.get(ORDERS).parent_keys == {dg.AssetKey(["shop"])}
    assert graph.get(ORDERS).group_name == "shop"
    columns = graph.get(ORDERS).metadata["dagster/column_schema"].columns
    assert [(each.name, each.type) for each in columns] == [
        ("id", "BIGINT"),
        ("customer", "BIGINT"),
        ("amount", "BIGINT"),
    ]
    assert dg.AssetCheckKey(dg.AssetKey(["shop"]), "lag") in graph.asset_check_keys


def test_loads_without_a_lake(project: Project) -> None:
    defs = build_definitions(project.root)
    dg.Definitions.validate_loadable(defs)
    found = defs.resolve_asset_graph().get_all_asset_keys()
    assert {each for each in found if each.path[0] != maintenance.GROUP} == {dg.AssetKey(["shop"])}
    assert not project.lake_dir.exists(), "loading must not make a lake"


def test_no_project_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"headwater\.toml"):
        build_definitions(tmp_path)


def test_loads_fast_and_offline(shop: Shop) -> None:
    """In a process of its own, sockets shut. The time is printed, not asserted: what makes it long is ``heavy``."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        env={**os.environ, "HEADWATER_PROJECT": str(shop.project.root)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    print(f"loaded in {result['took']:.2f} CPU s, Dagster alone in {result['alone']:.2f}")
    assert result["heavy"] == []


def test_translator_is_the_override_point(shop: Shop) -> None:
    class Owned(HeadwaterTranslator):
        def get_asset_spec(self, data: SourceData | TopicData | ViewData | JobData) -> dg.AssetSpec:
            return super().get_asset_spec(data).replace_attributes(owners=["team:data"])

    graph = build_definitions(shop.project.root, translator=Owned()).resolve_asset_graph()
    assert graph.get(TOTALS).owners == ["team:data"]
    assert graph.get(ORDERS).owners == ["team:data"]


def test_merges_into_a_project_with_its_own_executor(shop: Shop) -> None:
    @dg.asset(deps=[TOTALS])
    def report() -> None: ...

    mine = dg.Definitions(assets=[report], executor=dg.multiprocess_executor)
    merged = dg.Definitions.merge(mine, build_definitions(shop.project.root))
    dg.Definitions.validate_loadable(merged)
    assert merged.resolve_asset_graph().get(dg.AssetKey("report")).parent_keys == {TOTALS}


def test_views_on_views_and_unknown_inputs(shop: Shop) -> None:
    shop.log.create_view("grand", "SELECT SUM(total) AS total FROM totals CROSS JOIN nowhere", {})
    graph = build_definitions(shop.project.root).resolve_asset_graph()
    grand = graph.get(dg.AssetKey(["views", "grand"]))
    assert grand.parent_keys == {TOTALS}
    assert grand.metadata["unresolved_inputs"] == "nowhere"


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT * FROM orders", {"orders"}),
        ('SELECT * FROM shop.public."Order Lines" JOIN x USING (id)', {"shop.public.Order Lines", "x"}),
        ("WITH a AS (SELECT * FROM b) SELECT * FROM a, c", {"b", "c"}),
        ("CREATE MATERIALIZED VIEW v AS SELECT * FROM a UNION ALL SELECT * FROM v2", {"a", "v2"}),
        ("SELECT (SELECT max(x) FROM inner_one) FROM outer_one", {"inner_one", "outer_one"}),
    ],
)
def test_lineage(sql: str, expected: set[str]) -> None:
    assert set(lineage.inputs(sql)) == expected


def test_code_version_is_the_meaning() -> None:
    assert lineage.code_version("select  a -- note\nfrom t") == lineage.code_version("SELECT a FROM t")
    assert lineage.code_version("SELECT a FROM t") != lineage.code_version("SELECT b FROM t")


def test_instance_loads_and_is_not_overwritten(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    argvs = processes(project, port=4321, code_port=4322)
    assert [argv[2] for argv in argvs] == ["headwater_dagster.server", "dagster_webserver", "dagster._daemon"]
    assert argvs[0][-2:] == ["--port", "4322"]
    assert argvs[1][argvs[1].index("--host") + 1] == "127.0.0.1"
    workspaces = {argv[argv.index("--workspace") + 1] for argv in argvs[1:]}
    (origin,) = WorkspaceFileTarget(list(workspaces)).create_origins()
    assert isinstance(origin, GrpcServerCodeLocationOrigin)
    assert (origin.host, origin.port, origin.location_name) == ("127.0.0.1", 4322, "headwater")
    assert environment(project)["DAGSTER_HOME"] == str(home(project))
    monkeypatch.setenv("DAGSTER_HOME", str(home(project)))
    with dg.DagsterInstance.get() as instance:
        assert instance.telemetry_enabled is False
        assert instance.nux_enabled is False
        assert instance.run_monitoring_enabled
        assert instance.get_concurrency_config().run_queue_config is not None
    path = home(project) / "dagster.yaml"
    path.write_text("telemetry: {enabled: false}\n")
    processes(project)
    assert path.read_text() == "telemetry: {enabled: false}\n"
