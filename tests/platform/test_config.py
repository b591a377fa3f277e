"""headwater.toml and the environment: what is read, what is refused, and that no secret shows."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from headwater.config import REFUSED_SOURCE_NAMES, OutboxConfig, Settings, TableConfig, find, load, mask
from headwater.errors import ConfigError

PROJECT = """
[project]
name = "shop"

[source.shop]
kind = "postgres"
dsn = "postgresql://reader:hunter2@db.example/shop"
tables = ["public.*", "audit.entries"]
mode = "text"

[source.shop.table."public.orders"]
partitions = 4
columns = ["id", "cents"]
where = "id > 5"

[source.shop.messages]
"order" = "shop.events.placed"

[source.shop.outbox."public.outbox"]
by = "kind"

[settings]
linger_ms = 5
seal_age_s = 30
timezone = "Europe/Zurich"
"""


def project(folder: Path, text: str = PROJECT) -> Path:
    (folder / "headwater.toml").write_text(text)
    return folder


def test_a_project_as_written(tmp_path: Path) -> None:
    found = load(project(tmp_path), environ={})
    shop = found.source("shop")
    assert (found.name, found.root, found.lake_dir) == ("shop", tmp_path, tmp_path / "lake")
    assert (shop.kind, shop.tables, shop.mode) == ("postgres", ("public.*", "audit.entries"), "text")
    assert shop.dsn == "postgresql://reader:hunter2@db.example/shop"
    assert shop.table_config("public.orders") == TableConfig(partitions=4, columns=("id", "cents"), where="id > 5")
    assert shop.table_config("public.customers").partitions == 1
    assert shop.messages == {"order": "shop.events.placed"}
    assert shop.outbox == {"public.outbox": OutboxConfig(by="kind")}
    assert shop.wanted == ("public.*", "audit.entries", "public.outbox")
    assert (found.settings.linger_ms, found.settings.seal_age_s) == (5, 30.0)
    assert found.settings.timezone == "Europe/Zurich"
    assert found.settings.seal_commits == Settings().seal_commits


def test_the_environment_wins(tmp_path: Path) -> None:
    environ = {
        "HEADWATER_SOURCE_SHOP_DSN": "host=other password=x",
        "HEADWATER_LINGER_MS": "7",
        "HEADWATER_SEAL_AGE_S": "1.5",
        "HEADWATER_UNRELATED": "ignored",
    }
    found = load(project(tmp_path), environ=environ)
    assert found.source("shop").dsn == "host=other password=x"
    assert (found.settings.linger_ms, found.settings.seal_age_s) == (7, 1.5)


def test_the_nearest_file_upwards_is_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project(tmp_path)
    deep = tmp_path / "notebooks" / "drafts"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    assert find() == tmp_path
    assert load(environ={}).root == tmp_path


def test_no_project_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="headwater init"):
        load(tmp_path, environ={})


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[projcet]\n", "'projcet'.*Did you mean 'project'"),
        ("[project]\nnaem = 'x'\n", "'naem' in .project..*Did you mean 'name'"),
        ("[source.shop]\ntabels = []\n", "'tabels' in .source.shop..*Did you mean 'tables'"),
        ("[settings]\nlinger = 5\n", "'linger' in .settings..*Did you mean 'linger_ms'"),
        ("[source.shop.table.'a.b']\npartition = 2\n", "'partition'.*Did you mean 'partitions'"),
        ("[settings]\nlinger_ms = 'soon'\n", "linger_ms = 'soon' is not a whole number"),
        ("[settings]\nlinger_ms = true\n", "linger_ms = True is not a whole number"),
        ("[settings]\nlinger_ms = 2.5\n", "linger_ms = 2.5 is not a whole number"),
        ("[settings]\nseal_commits = 0\n", "seal_commits = 0 is out of range"),
        ("[settings]\nhttp_port = 70000\n", "70000 is no port"),
        ("[settings]\ntimezone = 'Mars/Olympus'\n", "'Mars/Olympus' is not known"),
        ("[source.shop]\nmode = 'fast'\n", "Use auto, binary or text"),
        ("[source.shop]\ntables = 'public.*'\n", "not a list of texts"),
        ("[source.shop.table.'a.b']\npartitions = 0\n", "Use 1 to 256"),
        ("[source.shop.table.'a.b']\ncolumns = 'id'\n", "not a list of texts"),
        ("[source.shop]\norigin = 'some'\n", "Use any or none"),
        ("[source.shop]\ncopy_from = 'standby'\n", "without a standby_dsn"),
        ("[source.shop.messages]\n'headwater.context' = 'a'\n", "cannot have a topic"),
        ("[source.shop.outbox.'a.b']\nbye = 'x'\n", "'bye'.*Did you mean 'by'"),
        ("[source.shop.outbox.'a.b']\ntopic = '{}.{}'\n", "Write {} once"),
        ("[source]\nshop = 1\n", "shop must be a table"),
        ("[source.Shop]\n", "'Shop' is no source name"),
        ("[project\n", "not valid TOML"),
    ],
)
def test_a_mistake_is_refused_with_its_place(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        load(project(tmp_path, text), environ={})
    assert "headwater.toml" in str(caught.value) or "[settings]" in str(caught.value)
    assert "\n" not in str(caught.value).strip()


@pytest.mark.parametrize("name", sorted(REFUSED_SOURCE_NAMES))
def test_names_that_queries_use_are_no_source_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be called"):
        load(project(tmp_path, f"[source.{name}]\n"), environ={})


def test_an_unknown_source_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'shop'"):
        load(project(tmp_path), environ={}).source("shpo")


def test_no_repr_shows_a_secret(tmp_path: Path) -> None:
    found = load(project(tmp_path), environ={})
    assert "hunter2" not in repr(found)
    assert "reader:***@db.example" in repr(found.source("shop"))


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://u:pw@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u@h/d?password=pw&sslmode=require", "postgresql://u@h/d?password=***&sslmode=require"),
        ("host=h password='p w\\'x' user=u", "host=h password=*** user=u"),
        ("PASSWORD = pw host=h", "PASSWORD = *** host=h"),
        ("sslpassword=pw", "sslpassword=***"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
    ],
)
def test_mask(text: str, masked: str) -> None:
    assert mask(text) == masked


def test_every_number_has_its_unit_in_its_name() -> None:
    units = ("_ms", "_s", "_bytes", "_rows", "_max", "_min", "_commits", "_fraction", "_limit", "_port", "_target")
    numbers = [each.name for each in fields(Settings) if each.type in ("int", "float")]
    assert numbers
    assert [name for name in numbers if not name.endswith(units)] == []


def test_every_setting_is_used_and_documented() -> None:
    root = Path(__file__).parents[2]
    folders = ("platform", "connectors", "pipelines", "notebooks", "dagster_project")
    modules = [path for folder in folders for path in (root / folder).rglob("*.py") if path.parent.name != "config"]
    code = "\n".join(path.read_text() for path in modules)
    page = (root / "docs" / "project_file.md").read_text()
    names = [each.name for each in fields(Settings)]
    assert [name for name in names if f".{name}" not in code] == []
    assert [name for name in names if f"`{name}`" not in page] == []
