"""A lake of the previous release is brought forward and answers as before, also after a kill on the way."""

from __future__ import annotations

import json
import random
import shutil
import signal
import sqlite3
import tarfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headwater import failpoint
from headwater.catalog import migrations
from headwater.config import Settings
from headwater.errors import CatalogError
from headwater.lake import open_lake
from headwater.log import Log, base, open_log, seal
from headwater.log.verify import verify
from headwater.testing.forks import FORKS
from headwater.testing.writer import Writer
from headwater_pipelines.runtime import worker

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    with tarfile.open(FIXTURES / "lake_catalog_1.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "lake"


@pytest.fixture
def old(unpacked: Path, tmp_path: Path) -> Path:
    """A lake of catalog version 1, to be changed by one test."""
    return Path(shutil.copytree(unpacked, tmp_path / "lake"))


def answers() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((FIXTURES / "lake_catalog_1.json").read_text(encoding="utf-8"))["answers"]
    return found


def in_order(rows: list[list[str | None]]) -> list[list[str | None]]:
    return sorted(rows, key=lambda row: [(value is None, value or "") for value in row])


def check_answers(folder: Path) -> None:
    """Rows as the fixture holds them: every value as text, in the order of the rows' own text."""
    with open_lake(folder) as lake:
        for stored in answers():
            now = lake.sql(stored["sql"], at=stored["at"])
            assert in_order([list(row) for row in now.texts(len(now))]) == in_order(stored["rows"]), stored["sql"]


def whole(log: Log) -> None:
    assert verify(log, deep=True).findings == ()


def test_an_old_lake_is_refused_by_those_who_may_not_change_it(old: Path) -> None:
    with pytest.raises(CatalogError, match=r"version 1, this program \d.*headwater up") as raised:
        open_lake(old)
    assert str(old) in str(raised.value)


def test_a_lake_of_a_later_release_is_refused(old: Path) -> None:
    with sqlite3.connect(old / "catalog.sqlite") as connection:
        connection.execute(f"PRAGMA user_version={migrations.VERSION + 1}")
    connection.close()
    for create in (False, True):
        with pytest.raises(CatalogError, match="Install the newer headwater"):
            open_log(old, create=create)


def test_every_answer_is_the_same_and_the_lake_goes_on(old: Path) -> None:
    assert len(answers()) > 20
    with open_log(old, create=True) as log:
        whole(log)
    check_answers(old)
    with open_log(old) as log:
        assert seal.seal(log, Settings()) > 0
        whole(log)
        go_on(log)
        whole(log)
    check_answers(old)


def rows(log: Log, name: str, **values: object) -> pa.Table:
    """One record; columns that are not given are NULL."""
    columns = {field.name: pa.nulls(1, field.type) for field in log.topic(name).schema.arrow()}
    return pa.table({**columns, **{name: [value] for name, value in values.items()}})


def go_on(log: Log) -> None:
    """Commits from the stored position, sealed, with a base."""
    stored = log.producer("source:shop")
    assert (stored.position, stored.confirmed) == ("0/1E", "0/FF")
    writer = Writer(log)
    writer.write("shop.public.t", rows(log, "t", a=77, b="new", _op="c"), position="0/1F")
    writer.write("shop.public.e", rows(log, "e", id=5000))
    seal.seal(log, Settings())
    base.write(log, log.topic("t"), log.newest_commit(), Settings())
    with open_lake(log.folder) as lake:
        assert lake.lookup("t", (77, "new")) is not None
        assert lake.sql("SELECT count(*) FROM e WHERE id = 5000").scalar() == 1


def test_views_of_an_old_lake_are_maintained(old: Path) -> None:
    with open_log(old, create=True) as log:
        Writer(log).write("shop.public.t", rows(log, "t", a=1000, b="new", _op="c"))
        worker.run(log, Settings(), threading.Event(), until_caught_up=True)
    with open_lake(old) as lake:
        assert [view.state for view in lake.views()] == ["live"]
        assert lake.sql("SELECT count(*) FROM doubled WHERE a2 = 2000").scalar() == 1
        assert not lake.sql("FROM doubled EXCEPT ALL SELECT a * 2 FROM t").fetchall()
        assert not lake.sql("SELECT a * 2 FROM t EXCEPT ALL SELECT a2 FROM doubled").fetchall()
    check_answers(old)


def shape(folder: Path) -> dict[str, Any]:
    """Columns and indexes of every table: what statements may rely on. An added column stands last."""
    connection = sqlite3.connect(folder / "catalog.sqlite")
    try:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            name: (
                {row[1:] for row in connection.execute(f'PRAGMA table_info("{name}")')},
                {
                    (row[1], row[2], tuple(part[2] for part in connection.execute(f'PRAGMA index_info("{row[1]}")')))
                    for row in connection.execute(f'PRAGMA index_list("{name}")')
                },
            )
            for name in names
        }
    finally:
        connection.close()


def test_a_catalog_brought_forward_has_the_shape_of_a_new_one(old: Path, log: Log) -> None:
    open_log(old, create=True).close()
    assert shape(old) == shape(log.folder)


def test_what_new_columns_say_of_old_rows_is_true(old: Path) -> None:
    open_log(old, create=True).close()
    connection = sqlite3.connect(old / "catalog.sqlite")
    try:
        assert connection.execute(
            'SELECT count(*), sum(s.last_time = c.time) FROM segment s JOIN "commit" c ON c.number = s.last_commit'
        ).fetchone() == (19, 19)
        assert not connection.execute(
            "SELECT * FROM partition p JOIN topic t ON t.id = p.topic WHERE p.created <> t.created"
        ).fetchall()
    finally:
        connection.close()


def bring_forward(folder: Path, plan: str) -> None:
    failpoint.follow(plan)
    open_log(folder, create=True).close()


def run(folder: Path, plan: str = "") -> int | None:
    process = FORKS.Process(target=bring_forward, args=(folder, plan), daemon=True)
    process.start()
    process.join(60)
    return process.exitcode


def killed_at(old: Path, unpacked: Path, points: Sequence[int]) -> None:
    """At each point the lake is what it was, or is forward already; the next start makes it whole."""
    expected = shape(old)
    for number in points:
        for name in ("catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"):
            (old / name).unlink(missing_ok=True)
        shutil.copy(unpacked / "catalog.sqlite", old)
        shutil.rmtree(old / "logs")  # a start makes it
        assert run(old, f"kill:{number}") == -signal.SIGKILL
        open_log(old, create=True).close()
        assert shape(old) == expected, number
    with open_log(old) as log:
        whole(log)


def recorded(old: Path, tmp_path: Path) -> int:
    """How many points bringing forward passes; ``old`` is forward then."""
    assert run(old, f"record:{tmp_path / 'points'}") == 0
    return len((tmp_path / "points").read_text().split())


def test_killed_at_some_statements_the_next_start_brings_it_forward(
    old: Path, tmp_path: Path, unpacked: Path, seed: int
) -> None:
    count = recorded(old, tmp_path)
    some = random.Random(seed).sample(range(1, count - 1), 2)
    killed_at(old, unpacked, [*some, count - 1, count])


@pytest.mark.long
def test_killed_at_every_statement_the_next_start_brings_it_forward(old: Path, tmp_path: Path, unpacked: Path) -> None:
    count = recorded(old, tmp_path)
    assert count > 20
    killed_at(old, unpacked, range(1, count + 1))
    check_answers(old)
