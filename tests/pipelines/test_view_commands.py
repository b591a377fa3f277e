"""``headwater view ...`` as a person types it, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

import pytest

from headwater_pipelines.component import ALLOCATOR, environment

from .conftest import Shop


class Runner(Protocol):
    def __call__(self, shop: Shop, *words: str, text: str = "") -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def headwater(command: Path) -> Runner:
    def run(shop: Shop, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [command, *words, "--project", str(shop.folder)],
            input=text,
            env={k: v for k, v in os.environ.items() if k != "HEADWATER_FAILPOINTS"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def shop_nodes(headwater: Runner, shop: Shop, view: str) -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = json.loads(headwater(shop, "view", "explain", view, "--json").stdout)["nodes"]
    return nodes


def test_create_list_explain_run_drop(headwater: Runner, shop: Shop) -> None:
    made = headwater(shop, "view", "create", "-", text="CREATE MATERIALIZED VIEW t AS SELECT count(*) AS n FROM orders")
    assert made.returncode == 0, made.stderr
    assert headwater(shop, "views", "--until-caught-up").returncode == 0
    listed = json.loads(headwater(shop, "view", "list", "--json").stdout)
    assert [(view["name"], view["state"], view["reads"]) for view in listed["views"]] == [
        ("t", "live", ["shop.public.orders"])
    ]
    explained = headwater(shop, "view", "explain", "t")
    assert "aggregate of all rows  [additive · ADDITIVE_STATE · 1 rows, last step" in explained.stdout
    [table] = [node for node in shop_nodes(headwater, shop, "t") if node["operator"] == "table"]
    stored = json.loads(headwater(shop, "status", "--json").stdout)["stored"][table["stored"]]
    assert (stored["rows"], stored["views"]) == (table["rows"], ["t"])
    assert stored["rows"] >= len(shop.rows["orders"])
    assert headwater(shop, "view", "drop", "t").returncode == 0
    assert json.loads(headwater(shop, "view", "list", "--json").stdout) == {"views": []}


def test_a_refusal_points_at_its_place_in_few_lines(headwater: Runner, shop: Shop) -> None:
    select = "SELECT customer_id,\n       random() * total AS m\nFROM orders\n"
    sql = f"CREATE MATERIALIZED VIEW m AS\n{select}"
    refused = headwater(shop, "view", "create", "-", text=sql)
    assert refused.returncode == 1
    lines = refused.stderr.rstrip().splitlines()
    assert len(lines) <= 8
    assert lines[2] == "   3 |        random() * total AS m"
    assert lines[3].index("^") == lines[2].index("random")
    assert "[VOLATILE_FUNCTION]" in lines[-1]
    assert "Traceback" not in refused.stderr
    assert json.loads(headwater(shop, "view", "list", "--json").stdout) == {"views": []}


def test_a_file_gives_its_name_to_a_bare_select(headwater: Runner, shop: Shop) -> None:
    file = shop.folder / "order_count.sql"
    file.write_text("SELECT count(*) AS n FROM orders\n")
    assert headwater(shop, "view", "create", str(file)).returncode == 0
    assert "order_count" in headwater(shop, "view", "list").stdout
    missing = headwater(shop, "view", "create", str(shop.folder / "no.sql"))
    assert missing.returncode == 2
    assert "no.sql" in missing.stderr


def test_the_worker_s_allocator_is_tuned_unless_a_person_has_chosen() -> None:
    assert environment({ALLOCATOR: "glibc.malloc.arena_max=2"}) == {}
    tuned = {**os.environ, **environment({})}
    assert "tcache" in tuned[ALLOCATOR]
    done = subprocess.run([sys.executable, "-c", "pass"], env=tuned, capture_output=True, text=True, check=True)
    assert done.stderr == "", "the allocator understands it"
