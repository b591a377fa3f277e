"""The demo's project folder: headwater.toml, the views, the guides, and where its database keeps its data."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from headwater import config
from headwater.errors import UsageError
from headwater_connectors.demo.shop import PARTITIONED, PARTITIONS, Opened, open_shop
from headwater_connectors.postgres.embedded import EmbeddedPostgres

SOURCE = "shop"
DATABASE = "shop"
_MARK = "# The demo's project"
_VIEW = re.compile(r"CREATE\s+MATERIALIZED\s+VIEW\s+(?P<name>\w+)\s+AS\s+(?P<query>.*?);?\s*\Z", re.S | re.I)


@dataclass(frozen=True, kw_only=True)
class Demo:
    """A demo that may run: its project and its live database."""

    project: config.Project
    postgres: EmbeddedPostgres
    shop: Opened

    @property
    def dsn(self) -> str:
        return self.project.source(SOURCE).dsn


@contextmanager
def opened(folder: Path, seed: int) -> Iterator[Demo]:
    """Start the database of the demo in ``folder``, seed it when it is new, and write the project around it.

    A folder that holds a demo already goes on where it stopped, its edited files included. UsageError when the
    folder holds anything else.
    """
    folder = folder.expanduser().resolve()
    port = _port(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with EmbeddedPostgres(folder / "postgres", port=port) as postgres:
        dsn = postgres.dsn(DATABASE) if port else postgres.create_database(DATABASE)
        shop = open_shop(dsn, seed)
        if port is None:
            _write(folder, dsn)
        yield Demo(project=config.load(folder), postgres=postgres, shop=shop)


def view_queries(project: config.Project) -> dict[str, str]:
    """The SELECT of every view of the project, by name, as its file has it."""
    found = {}
    for path in sorted(project.views_dir.glob("*.sql")):
        text = re.sub(r"^\s*--.*$", "", path.read_text(encoding="utf-8"), flags=re.M)
        match = _VIEW.search(text)
        if match is None:
            raise UsageError(f"{path} is not CREATE MATERIALIZED VIEW name AS SELECT ...", todo="Mend the file.")
        found[match["name"]] = match["query"]
    return found


def _port(folder: Path) -> int | None:
    """The port in the dsn of the demo that lives here; None for a new one."""
    path = folder / config.FILE
    if not path.exists():
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(f"{folder} is not empty", todo="Give a new folder, or one that a demo has made.")
        return None
    if not path.read_text(encoding="utf-8").startswith(_MARK):
        raise UsageError(f"{folder} holds a project that is not a demo", todo="Give another folder.")
    found = re.search(r":(\d+)/", config.load(folder, environ={}).source(SOURCE).dsn)
    assert found is not None
    return int(found[1])


def _write(folder: Path, dsn: str) -> None:
    package = files("headwater_connectors.demo")
    views = folder / "views"
    views.mkdir(exist_ok=True)
    with as_file(package.joinpath("views")) as source:
        for path in sorted(source.glob("*.sql")):
            shutil.copyfile(path, views / path.name)
    (folder / "notebooks").mkdir(exist_ok=True)
    # Written last: a folder with this file is a whole demo.
    (folder / config.FILE).write_text(_toml(dsn), encoding="utf-8")


def _toml(dsn: str) -> str:
    lines = [f"{_MARK}: change it, add views to views/, and start it again.", "[project]", 'name = "web shop"', ""]
    lines += [f"[source.{SOURCE}]", 'kind = "postgres"', f'dsn = "{dsn}"', 'tables = ["public.*"]', ""]
    for table in PARTITIONED:
        lines += [f'[source.{SOURCE}.table."public.{table}"]', f"partitions = {PARTITIONS}", ""]
    return "\n".join(lines)
