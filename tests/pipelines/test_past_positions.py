"""Views at every past position and as topics to consume, through their whole life, as a program sees them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import headwater as hw
from headwater import maintenance
from headwater.config import Settings
from headwater.errors import NameNotFound, NotYet
from headwater.log import Log, open_log
from headwater_pipelines import api

from .conftest import VIEWS, Shop
from .test_lifecycle import OTHER_REVENUE, run

Act = Callable[[Log], Any]
LIFE: list[Act] = [
    lambda log: [api.create_view(log, VIEWS[name], name=name) for name in ("revenue", "totals", "countries")],
    lambda log: api.pause_view(log, "revenue"),
    lambda log: api.create_view(log, VIEWS["big_orders"], name="big_orders"),
    lambda log: maintenance.run_once(log, Settings(base_rows_min=0), force=True),
    lambda log: api.resume_view(log, "revenue"),
    lambda log: api.replace_view(log, OTHER_REVENUE, name="revenue"),
    lambda log: api.rename_view(log, "totals", "sums"),
    lambda log: maintenance.run_once(log, Settings(base_rows_min=0), force=True),
    lambda log: api.drop_view(log, "countries"),
    lambda log: api.create_view(log, "SELECT customer_id, count(*) AS n FROM orders GROUP BY 1", name="countries"),
]


Fold = Counter[tuple[Any, ...]]


@dataclass(frozen=True)
class Life:
    """What is left of it. ``followed``: of a view, what a group had added up after an act, and its answer then."""

    folder: Path
    followed: list[tuple[str, Fold, Fold]]


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    """Every act, a commit before each; two groups follow the changelogs of a view and of a name it is given later."""
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    shop = Shop(tmp_path_factory.mktemp("life"), seed)
    found = Life(shop.folder, [])
    folds: dict[str, Fold] = {"revenue": Counter(), "sums": Counter()}
    with open_log(shop.lake) as log, hw.open(shop.folder) as lake:
        for act in LIFE:
            shop.commit(log)
            run(log)
            act(log)
            run(log)
            for view in folds.keys() & {topic.name.removeprefix("views.") for topic in lake.topics()}:
                follow(lake, view, folds[view])
                found.followed.append((view, folds[view].copy(), Counter(lake.sql(f"FROM {view}").fetchall())))
    shop.oracle.close()
    return found


def follow(lake: hw.Lake, view: str, fold: Fold) -> None:
    """Take in what is new of a changelog."""
    names = lake.describe(f"views.{view}").names
    with lake.consumer(f"views.{view}", "downstream", stop="latest") as consumer:
        for row in (row for batch in consumer for row in batch.rows()):
            fold[tuple(row[name] for name in names)] += row["_weight"]


def test_at_every_position_a_view_is_its_query_over_the_tables_there(life: Life) -> None:
    with hw.open(life.folder) as lake:
        forwards = range(1, lake.position() + 1)
        checked, answers = Counter[str](), dict[tuple[str, int], list[str]]()
        published = {view: step.publish_commit for step in reversed(lake.log.steps()) for view in step.views}
        for position in (*forwards, *reversed(forwards[::3])):
            then = lake.at(position)
            for view in lake.log.views(position):
                if published[view.id] > position:
                    with pytest.raises(NotYet, match=view.name):
                        then.sql(f"FROM {view.name}")
                    continue
                found = sorted(map(repr, then.sql(f"FROM {view.name}").fetchall()))
                assert answers.setdefault((view.name, position), found) == found, "an answer never changes"
                for one, other in ((view.name, f"({view.sql})"), (f"({view.sql})", view.name)):
                    differing = then.sql(f"SELECT * FROM {one} EXCEPT ALL SELECT * FROM {other}")
                    assert differing.rows == 0, (view.name, position)
                checked[view.name] += 1
        assert set(checked) == {"revenue", "totals", "sums", "countries", "big_orders"}
        assert min(checked.values()) > 3


def test_times_and_tags_are_positions_of_views_too(life: Life) -> None:
    with hw.open(life.folder) as lake:
        for step in lake.log.steps()[3::5]:
            at = lake.log.commit_info(step.publish_commit).time
            lake.tag(f"step{step.number}", step.publish_commit)
            view = next(each.name for each in lake.log.views(step.publish_commit) if each.id in step.views)
            found = lake.sql(f"FROM {view}", at=step.publish_commit)
            for position in (at, at.isoformat(), f"commit:{step.publish_commit}", f"tag:step{step.number}"):
                again = lake.sql(f"FROM {view}", at=position)
                assert (again.position, again.input_position) == (found.position, found.input_position)
                assert again.arrow() == found.arrow()


def test_a_changelog_adds_up_to_its_view_after_every_act(life: Life) -> None:
    for view, fold, answer in life.followed:
        assert +fold == answer, view
        assert min(fold.values(), default=0) >= 0
    assert {view for view, _, answer in life.followed if answer} == {"revenue", "sums"}
    with hw.open(life.folder) as lake, pytest.raises(NameNotFound, match="totals"):
        lake.consumer("views.totals", "downstream", stop="latest")
