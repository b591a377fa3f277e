"""Changes of a query, resumed from any token and after a kill, add up to its answer; so do a changelog's records."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import until

from headwater.config import Settings
from headwater.errors import UsageError
from headwater.lake import Lake
from headwater.lake.watch import Changes, Watch
from headwater.log import Log, open_log
from headwater_pipelines import api
from headwater_pipelines.runtime import worker

from .conftest import VIEWS, Shop
from .test_lifecycle import run

JOINED = "SELECT r.country, r.n, o.note, o.total FROM revenue r JOIN orders o ON o.id = r.n"
"""Over a view and a table; the answer has equal rows."""

Fold = Counter[tuple[Any, ...]]


def add(fold: Fold, changes: Changes) -> None:
    if changes.snapshot:
        fold.clear()
    for *row, weight in zip(*(column.to_pylist() for column in changes.rows.columns), strict=True):
        assert weight != 0
        fold[tuple(row)] += weight
        assert fold[tuple(row)] >= 0
        if not fold[tuple(row)]:
            del fold[tuple(row)]


def answer(lake: Lake, query: str, at: int | None = None) -> Fold:
    return Counter(lake.sql(query, at=at).fetchall())


@pytest.fixture
def views(shop: Shop) -> Iterator[Log]:
    with open_log(shop.lake) as log:
        for name in ("revenue", "totals"):
            api.create_view(log, VIEWS[name], name=name)
        run(log)
        yield log


def test_changes_add_up_from_the_beginning_and_from_any_token(shop: Shop, views: Log) -> None:
    folds: dict[str, Fold] = {}
    with Lake(views) as lake:
        watch = lake.watch(JOINED, interval=0)
        fold: Fold = Counter()
        for changes in watch.changes():
            add(fold, changes)
            assert changes.snapshot == (not folds)
            assert fold == answer(lake, JOINED, changes.position)
            folds[changes.token] = fold.copy()
            if len(folds) == 4:
                watch.close()
            else:
                while answer(lake, JOINED) == fold:
                    shop.commit(views)
                    run(views)
        final = fold
        for token, held in folds.items():
            resumed: Fold = held.copy()
            if resumed != final:
                again = lake.watch(JOINED, interval=0, resume=token)
                first = next(again.changes())
                assert not first.snapshot
                add(resumed, first)
            assert resumed == final


def test_a_token_of_something_else_is_refused(views: Log) -> None:
    with Lake(views) as lake:
        assert lake.watch("FROM totals").token is None
        watch = lake.watch("FROM totals", interval=0)
        token = next(watch.changes()).token
        assert watch.token == token
        for query, wrong in (("FROM revenue", token), ("FROM totals", "7"), ("FROM totals", f"0{token[1:]}x")):
            with pytest.raises(UsageError):
                lake.watch(query, resume=wrong)
        views.set_setting("incarnation", "another1")
    with open_log(views.folder) as log, Lake(log) as lake, pytest.raises(UsageError, match="another lake"):
        lake.watch("FROM totals", resume=token)


@pytest.mark.long
def test_the_token_grows_while_nothing_changes(shop: Shop, views: Log) -> None:
    with Lake(views) as lake:
        watch = lake.watch("SELECT count(*) > 0 AS some FROM orders", interval=0)
        told: list[Changes] = []
        thread = threading.Thread(target=lambda: told.extend(watch.changes()))
        thread.start()
        last = shop.commit(views)
        until(lambda: watch.token is not None and watch.token.endswith(f"-{last}"))
        watch.close()
        thread.join()
        assert len(told) == 1


@pytest.mark.parametrize("query", ["SELECT note FROM orders", "FROM totals", JOINED])
def test_an_answer_is_asked_for_only_where_its_rows_may_be_others(shop: Shop, views: Log, query: str) -> None:
    with Lake(views) as lake:
        lake.create_topic("web.clicks", {"page": "VARCHAR"})
        answers = lake.watch(query, interval=0)._answers(-1)
        last, first = next(answers)
        assert first is not None
        with lake.producer() as producer:
            producer.send("clicks", [{"page": "/"}])
        run(views)
        position, again = next(answers)
        assert (again, position > last) == (None, True)
        assert answer(lake, query, position) == Counter(first.fetchall())
        while answer(lake, query) == Counter(first.fetchall()):
            shop.commit(views)
            run(views)
        found = next(each for _, each in answers if each is not None)
        assert Counter(found.fetchall()) == answer(lake, query)


def test_an_answer_that_follows_the_clock_is_asked_for_at_every_commit(views: Log) -> None:
    with Lake(views) as lake:
        lake.create_topic("web.clicks", {"page": "VARCHAR"})
        answers = lake.watch("SELECT now() AS now, n FROM totals", interval=0)._answers(-1)
        _, first = next(answers)
        with lake.producer() as producer:
            producer.send("clicks", [{"page": "/"}])
        run(views)
        _, again = next(answers)
        assert first is not None
        assert again is not None
        assert again.fetchall() != first.fetchall()


@pytest.mark.long
def test_other_columns_are_a_snapshot(shop: Shop, views: Log) -> None:  # noqa: ARG001
    with Lake(views) as lake:
        changes = lake.watch("SELECT * FROM totals", interval=0).changes()
        assert next(changes).snapshot
        api.drop_view(views, "totals")
        api.create_view(views, "SELECT count(*) AS n FROM orders", name="totals")
        run(views)
        found = next(changes)
        assert (found.snapshot, found.rows.column_names) == (True, ["n", "_weight"])


SUBSCRIBER = """
import json, sys
import headwater as hw
lake, out, query = hw.open(sys.argv[1]), sys.argv[2], sys.argv[3]
token = None
for line in open(out):
    if line.endswith("\\n"):
        token = json.loads(line)["token"]
with open(out, "r+") as file:  # a line that a kill has cut short goes
    text = file.read()
    file.seek(text.rfind("\\n") + 1)
    file.truncate()
    for changes in lake.watch(query, interval=0, resume=token).changes():
        rows = [[str(value) for value in row.values()] for row in changes.rows.to_pylist()]
        print(json.dumps({"token": changes.token, "snapshot": changes.snapshot, "rows": rows}), file=file, flush=True)
"""


@pytest.mark.long
def test_a_subscriber_that_is_killed_misses_and_repeats_nothing(shop: Shop, views: Log, tmp_path: Path) -> None:
    out, stop = tmp_path / "changes", threading.Event()
    out.touch()
    pipeline = threading.Thread(target=worker.run, args=(views, Settings(), stop))
    pipeline.start()
    try:
        for _ in range(4):
            argv = [sys.executable, "-c", SUBSCRIBER, str(shop.folder), str(out), JOINED]
            size = out.stat().st_size
            with subprocess.Popen(argv) as process:
                until(lambda: out.stat().st_size > size or shop.commit(views) < 0)  # noqa: B023
                for _ in range(shop.rng.randrange(4)):
                    shop.commit(views)
                process.send_signal(signal.SIGKILL)
        last = shop.commit(views)
        until(lambda: (views.last_step() or 0) and views.last_step().input_commit >= last)  # type: ignore[union-attr]
        with Lake(views) as lake:
            lines = [json.loads(line) for line in out.read_text().splitlines(keepends=True) if line.endswith("\n")]
            assert [line["snapshot"] for line in lines] == [True] + [False] * (len(lines) - 1)
            fold: Fold = Counter()
            for line in lines:
                for *row, weight in line["rows"]:
                    fold[tuple(row)] += int(weight)
                    assert fold[tuple(row)] >= 0
            rest = Watch(lake, JOINED, 0, lines[-1]["token"])
            held = Counter({tuple(map(str, row)): n for row, n in answer(lake, JOINED).items()})
            if +fold != held:
                for *row, weight in zip(*(c.to_pylist() for c in next(rest.changes()).rows.columns), strict=True):
                    fold[tuple(map(str, row))] += weight
            assert +fold == held
    finally:
        stop.set()
        pipeline.join()


def test_a_changelog_is_a_topic_to_consume(shop: Shop, views: Log) -> None:
    """A group that goes on in another process has every record once; replacements included."""
    fold: Fold = Counter()
    offsets: list[int] = []
    with Lake(views) as lake:
        names = lake.describe("revenue").names
        for number in range(4):
            shop.commit(views)
            if number == 2:
                api.replace_view(views, VIEWS["revenue"].replace("GROUP", "AND o.total > 20 GROUP"), name="revenue")
            run(views)
            with lake.consumer("revenue", "downstream", stop="latest", batch_rows=3) as consumer:
                for batch in consumer:
                    offsets += batch.arrow().column("_offset").to_pylist()
                    for row in batch.rows():
                        fold[tuple(row[name] for name in names)] += row["_weight"]
            assert +fold == answer(lake, "FROM revenue")
            assert min(fold.values()) >= 0
    assert offsets == list(range(len(offsets)))
