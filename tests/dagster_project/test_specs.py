"""What the asset specs tell: columns and where they come from, descriptions, owners, tags, links to the files."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlglot.errors import SqlglotError
from tests.pipelines.test_corpus import FILES, TABLES, statements

from headwater.config import Project, Settings
from headwater.errors import HeadwaterError
from headwater.log import administration, open_log
from headwater.ownership import own
from headwater.schema import Field, Schema
from headwater_dagster import build_definitions, build_headwater_asset_specs, inventory, lineage
from headwater_dagster.columns import LEFT_OUT
from headwater_dagster.translator import HeadwaterTranslator
from headwater_pipelines import api
from headwater_pipelines.compiler import CompiledView, Relations, Table, compile_view, parse
from headwater_pipelines.compiler.plan import Base
from headwater_pipelines.runtime import worker

from .conftest import TOTALS, Shop

ORDERS = ("shop", "public", "orders")
CUSTOMERS = ("shop", "public", "customers")


def spec(shop: Shop, *path: str) -> dg.AssetSpec:
    return next(each for each in build_headwater_asset_specs(shop.project.root) if each.key.path == list(path))


def drawn(found: dg.AssetSpec) -> dict[str, set[tuple[tuple[str, ...], str]]]:
    deps: Mapping[str, list[dg.TableColumnDep]] = found.metadata["dagster/column_lineage"].deps_by_column
    return {name: {(tuple(each.asset_key.path), each.column_name) for each in of} for name, of in deps.items()}


def columns(found: dg.AssetSpec) -> list[tuple[str, str]]:
    return [(each.name, each.type) for each in found.metadata["dagster/column_schema"].columns]


def test_columns_of_a_view_that_was_never_built(shop: Shop) -> None:
    found = spec(shop, "views", "totals")
    assert columns(found) == [("name", "VARCHAR"), ("total", "HUGEINT")]
    assert drawn(found) == {"name": {(CUSTOMERS, "name")}, "total": {(ORDERS, "amount")}}


def test_columns_go_through_ctes_subqueries_windows_and_views(shop: Shop) -> None:
    api.create_view(
        shop.log,
        "WITH orders AS (SELECT id, amount AS cents FROM orders WHERE orders.customer > 1)"
        " SELECT o.id, t.total, o.cents + t.total AS both, count(*) OVER (),"
        " rank() OVER (PARTITION BY t.name ORDER BY o.cents) AS place,"
        " (SELECT max(id) FROM customers) AS newest FROM orders o, views.totals t",
        name="deep",
    )
    found = spec(shop, "views", "deep")
    totals = ("views", "totals")
    assert {each.asset_key for each in found.deps} == {dg.AssetKey(each) for each in (ORDERS, CUSTOMERS, totals)}
    assert drawn(found) == {
        "id": {(ORDERS, "id")},
        "total": {(totals, "total")},
        "both": {(ORDERS, "amount"), (totals, "total")},
        "count() OVER ()": set(),
        "place": {(totals, "name"), (ORDERS, "amount")},
        "newest": {(CUSTOMERS, "id")},
    }


def test_time_windows_and_versions_are_inputs(shop: Shop) -> None:
    with shop.log.transaction("source:shop", shop.epoch, shop.log.producer("source:shop").position) as tx:
        clicks = Schema.of({"id": "BIGINT", "page": "VARCHAR", "seen": "TIMESTAMP"}, key=["id"])
        tx.create_topic("shop.public.clicks", "table", clicks, source="shop")
        tx.position = "0/2"
        tx.commit()
    api.create_view(
        shop.log,
        "CREATE MATERIALIZED VIEW per_minute WITH (watermark = 'seen') AS SELECT page, window_start, count(*) AS n"
        " FROM TUMBLE(clicks, seen, INTERVAL 1 MINUTE) GROUP BY ALL EMIT ON WINDOW CLOSE",
    )
    api.create_view(shop.log, "SELECT name, valid_from FROM history.customers", name="names")
    topic = ("shop", "public", "clicks")
    found = spec(shop, "views", "per_minute")
    assert [each.asset_key.path for each in found.deps] == [list(topic)]
    assert drawn(found) == {"page": {(topic, "page")}, "window_start": {(topic, "seen")}, "n": set()}
    assert drawn(spec(shop, "views", "names")) == {"name": {(CUSTOMERS, "name")}, "valid_from": set()}


@pytest.mark.parametrize(
    ("sql", "reads", "reason"),
    [
        # sqlglot cannot parse this: the compiler, which asks DuckDB, says what it reads.
        ("PIVOT orders ON customer IN (1, 2) USING sum(amount) AS a GROUP BY id ORDER BY id", {ORDERS}, "Invalid expr"),
        # It would match these by their places.
        ("SELECT id, name FROM customers UNION BY NAME SELECT name, id FROM customers", {CUSTOMERS}, "UNION BY NAME"),
        ("SELECT COLUMNS('a.*') FROM orders", {ORDERS}, "COLUMNS"),
        ("SELECT * FROM orders PIVOT (sum(amount) FOR customer IN (1, 2) GROUP BY id)", {ORDERS}, "sqlglot sees"),
        ("SELECT id FROM orders WHERE nowhere.id = 1", {ORDERS}, "its columns are known once"),
        ("SELECT gone.id FROM gone JOIN orders USING (id)", {ORDERS}, "its columns are known once"),
        ("this is no SQL", set(), "its columns are known once"),
    ],
)
def test_what_is_not_drawn_says_why_and_loads(shop: Shop, sql: str, reads: set[tuple[str, ...]], reason: str) -> None:
    """Registered as they are, as a view whose table was dropped would be found."""
    shop.log.create_view("odd", sql, {})
    found = spec(shop, "views", "odd")
    assert str(found.metadata[LEFT_OUT]).startswith(reason)
    assert "dagster/column_lineage" not in found.metadata
    assert {tuple(each.asset_key.path) for each in found.deps} == reads
    assert drawn(spec(shop, "views", "totals")), "the others are drawn"


def test_what_programs_write_is_an_asset_too(shop: Shop) -> None:
    administration.create(shop.log, "web-site.sales", {"region": "VARCHAR", "amount": "BIGINT"}, description="sold")
    administration.create(shop.log, "shop", {"id": "BIGINT"})
    api.create_view(shop.log, 'SELECT region, sum(amount) AS sold FROM "web-site".sales GROUP BY region', name="sold")
    topic = ("web-site", "sales")
    found = spec(shop, *topic)
    assert (found.description, found.group_name, found.kinds, list(found.deps)) == (
        "sold",
        "web_site",
        {"headwater"},
        [],
    )
    assert drawn(spec(shop, "views", "sold")) == {"region": {(topic, "region")}, "sold": {(topic, "amount")}}
    graph = build_definitions(shop.project.root).resolve_asset_graph()
    assert graph.get(dg.AssetKey(["views", "sold"])).parent_keys == {dg.AssetKey(topic)}
    assert dg.AssetCheckKey(dg.AssetKey(topic), "dead_letters") in graph.asset_check_keys
    assert graph.get(dg.AssetKey(["shop"])).kinds == {"postgres"}, "a topic of the source's name is none"


def test_what_only_duckdb_reads_is_known_once_it_is_built_too(shop: Shop) -> None:
    sql = "PIVOT orders ON customer IN (1, 2) USING sum(amount) AS a GROUP BY id ORDER BY id"
    api.create_view(shop.log, sql, name="odd")
    shop.order()
    worker.run(shop.log, Settings(), threading.Event(), until_caught_up=True)
    found = spec(shop, "views", "odd")
    assert [tuple(each.asset_key.path) for each in found.deps] == [ORDERS]
    assert [name for name, _ in columns(found)] == ["id", "1_a", "2_a"]
    assert "unresolved_inputs" not in found.metadata


def test_a_view_s_file_is_the_one_that_holds_its_sql(shop: Shop) -> None:
    shop.project.views_dir.mkdir()
    for name, text in (("all.sql", f"-- all\n{TOTALS};\n"), ("large.sql", "SELECT other"), ("totals.sql", "SELECT 1")):
        (shop.project.views_dir / name).write_text(text)
    (shop.project.views_dir / "broken.sql").write_bytes(b"\xff\xfe")

    def file(view: str) -> str:
        (found,) = spec(shop, "views", view).metadata["dagster/code_references"].code_references
        return Path(found.file_path).name

    assert file("totals") == "all.sql"
    assert file("large") == "large.sql", "it was changed since, and is where to change it"


def test_what_is_said_of_a_view(shop: Shop) -> None:
    shop.log.drop_view("totals")
    header = "CREATE MATERIALIZED VIEW totals WITH (owner = 'team:data') AS"
    text = f"-- What each customer\n-- has bought.\n{header}\n{TOTALS}"
    shop.project.views_dir.mkdir()
    (shop.project.views_dir / "totals.sql").write_text(text)
    api.sync_project_views(shop.project, shop.log)
    found = spec(shop, "views", "totals")
    assert found.description == "What each customer\nhas bought."
    assert found.owners == ["team:data"]
    assert found.kinds == {"sql", "duckdb"}
    (file,) = found.metadata["dagster/code_references"].code_references
    assert (Path(file.file_path), file.line_number) == (shop.project.views_dir / "totals.sql", 1)
    made = api.replace_view(shop.log, text.replace("-- What each", "/* What one").replace("bought.", "paid. */"))
    assert made.replaces is None, "nothing is built anew for what is only said"


def test_a_changed_comment_changes_the_description_and_builds_nothing(shop: Shop) -> None:
    worker.run(shop.log, Settings(), threading.Event(), until_caught_up=True)
    before = shop.log.view("large")
    api.replace_view(shop.log, f"/* Orders of\n * more than 50. */\n{before.sql}", name="large")
    after = shop.log.view("large")
    assert (after.id, shop.log.replacements()) == (before.id, [])
    assert spec(shop, "views", "large").description == "Orders of\nmore than 50."


@pytest.mark.parametrize(("owner", "valid"), [("ada@example.org", True), ("team:web", True), ("the web team", False)])
def test_owners_that_dagster_refuses_are_metadata(shop: Shop, owner: str, valid: bool) -> None:
    administration.alter(shop.log, "orders", owner=owner, criticality="high", classification="in house & secret")
    shop.log.drop_view("large")
    api.create_view(shop.log, f"CREATE MATERIALIZED VIEW large WITH (owner = '{owner}') AS SELECT id FROM orders")
    for found in (spec(shop, *ORDERS), spec(shop, "views", "large")):
        assert (list(found.owners), found.metadata.get("owner")) == (([owner], None) if valid else ([], owner))
    assert spec(shop, *ORDERS).tags["criticality"] == "high"
    assert spec(shop, *ORDERS).metadata["classification"] == "in house & secret"
    dg.Definitions.validate_loadable(dg.Definitions(assets=build_headwater_asset_specs(shop.project.root)))


def test_a_column_that_is_handed_through_keeps_its_description(shop: Shop) -> None:
    found = inventory.take(shop.project)
    said = Schema(
        fields=tuple(
            replace(each, description=f"the {each.name}")
            for each in (Field(id=1, name="id", type="BIGINT"), Field(id=2, name="amount", type="BIGINT"))
        )
    )
    (view,) = (each for each in found.views if each.view.name == "large")
    sql = "WITH o AS (SELECT * FROM orders) SELECT id AS number, amount, amount + 1 AS more, sum(id) AS id FROM o"
    schema = Schema.of({"number": "BIGINT", "amount": "BIGINT", "more": "BIGINT", "id": "BIGINT"})
    asked = replace(
        view,
        view=replace(view.view, sql=sql),
        topics=tuple(replace(each, schema=said) for each in view.topics),
        schemas={"large": schema},
    )
    told = HeadwaterTranslator().get_asset_spec(asked).metadata["dagster/column_schema"].columns
    assert [each.description for each in told] == ["the id", "the amount", None, None]


def test_freshness_is_as_asked_and_otherwise_absent(shop: Shop) -> None:
    view = inventory.take(shop.project).views[0]
    translator = HeadwaterTranslator()
    assert translator.get_asset_spec(view).freshness_policy is None, "a quiet source is no defect"
    for asked, kept in ((900.0, 900.0), (5.0, 60.0)):
        assert fail_s(translator.get_asset_spec(replace(view, fresh_s=asked))) == kept
    promises = '[slo]\nreport_every_s = 120\nmoved_within_s = 900\n[slo."views.totals"]\nmoved_within_s = 60\n'
    shop.project.file.write_text(shop.project.file.read_text() + promises)
    assert fail_s(spec(shop, "views", "large")) == 900
    assert fail_s(spec(shop, "views", "totals")) == 180, "a view that moves all the time is reported every 120 s"


def fail_s(found: dg.AssetSpec) -> float:
    policy: Any = found.freshness_policy
    return float(policy.fail_window.to_timedelta().total_seconds())


RELATIONS = Relations(
    [
        Table(Base(f"shop.public.{name}", place, kind), schema)
        for place, (name, (kind, schema)) in enumerate(TABLES.items())
    ]
)


def compiled(sql: str) -> CompiledView | None:
    try:
        return compile_view(parse(sql, name="view"), RELATIONS)
    except HeadwaterError:
        return None


OVERDRAWN = {"more_dashboard_single_row"}
"""``EXISTS (FROM t)`` is drawn as if it read every column."""


def relation(name: str) -> Mapping[str, str] | None:
    found = TABLES.get(name.rpartition(".")[2].lower())
    return None if found is None else {each.name: each.type for each in found[1].fields}


@pytest.mark.parametrize("every", [20, pytest.param(1, marks=[pytest.mark.long, pytest.mark.timeout(600)])])
def test_the_compiler_agrees_over_the_corpus(every: int) -> None:
    """The inputs are what the compiler reads, and what columns are made of is some of the columns that it reads."""
    drawn, left_out, seconds = 0, 0, 0.0
    for name, sql in list(statements(*FILES).items())[::every]:
        query = parse(sql, name=name).query
        if (view := compiled(query)) is None:
            continue
        began = time.process_time()
        try:
            origins = lineage.columns(query, relation)
        except SqlglotError:
            left_out += 1
            continue
        finally:
            seconds += time.process_time() - began
        drawn += 1
        tables = {each.rpartition(".")[2].lower() for each in lineage.inputs(query)}
        assert tables == {each.rpartition(".")[2] for each in view.reads}, name
        used = {(base.name.rpartition(".")[2], column) for base, names in view.used.items() for column in names}
        pairs = {(of.rpartition(".")[2].lower(), column) for each in origins.values() for of, column in each.columns}
        assert pairs <= used or name in OVERDRAWN, (name, pairs - used)
    print(f"{drawn} drawn, {left_out} left out, {1000 * seconds / drawn:.2f} ms of CPU each")
    assert left_out <= 3 + drawn / 25


LOAD = """
import sys
import headwater_dagster.definitions as loaded
found = [spec for each in loaded.defs.assets or () for spec in getattr(each, "specs", [each])]
drawn = sum("dagster/column_lineage" in spec.metadata for spec in found)
print(drawn, "headwater_pipelines.compiler" in sys.modules)
"""


def test_a_hundred_built_views_load_without_the_compiler(project: Project) -> None:
    """Views of the corpus with changelogs, as they are once they were built. What makes loading long is not there."""
    queries = {name: parse(sql, name=name).query for name, sql in statements(FILES[0]).items()}
    made = list(islice(((name, found) for name in queries if (found := compiled(queries[name]))), 100))
    with open_log(project.lake_dir, create=True) as log, own(log, "source:shop") as owner:
        with log.transaction("source:shop", owner.epoch, None) as tx:
            for table, (kind, schema) in TABLES.items():
                tx.create_topic(f"shop.public.{table}", kind, schema, source="shop")  # type: ignore[arg-type]
            for name, found in made:
                tx.create_topic(f"views.{name}", "changelog", Schema.of(dict(found.columns)))
            tx.position = "0/9"
            tx.commit()
        for name, _ in made:
            log.create_view(name, queries[name], {})
    environment = {**os.environ, inventory.PROJECT_VARIABLE: str(project.root)}
    command = [sys.executable, "-c", LOAD]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    drawn, compiler = done.stdout.split()
    assert int(drawn) >= 95
    assert compiler == "False"
