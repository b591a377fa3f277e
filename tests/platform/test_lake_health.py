"""``lake.health()``: what the rules make of a lake, as a table with limits and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from headwater.client.letters import DeadLetters
from headwater.config import Slo
from headwater.lake import open_lake
from headwater.lake.health import Finding, Health
from headwater.lake.lake import Lake
from headwater.log import open_log


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    """A project that promises 5 seconds of lag, one topic of a producer, one of its records refused."""
    text = '[project]\nname = "shop"\n[slo]\nlag_warn_s = 5\n[slo."shop.clicks"]\ndead_letters_warn = 2\n'
    (tmp_path / "headwater.toml").write_text(text)
    open_log(tmp_path / "lake", create=True).close()
    made = open_lake(tmp_path)
    made.create_topic("shop.clicks", {"user": "BIGINT"})
    with made.producer(on_error="dead_letter") as producer:
        producer.send("clicks", [{"user": "<b>ann</b>"}])
    yield made
    made.close()


def found(health: Health, name: str, check: str) -> Finding:
    (only,) = (each for each in health if (each.name, each.check) == (name, check))
    return only


def test_limits_are_those_of_the_project(lake: Lake) -> None:
    assert lake.project is not None
    assert lake.project.name == "shop"
    with lake.at(lake.position()) as pinned:
        assert pinned.project is lake.project
    letters = found(lake.health(), "shop.clicks", "dead_letters")
    assert (letters.state, letters.value, letters.limit, letters.todo) == ("ok", "1 open", "2 / 1,000", "")
    lake.log.live.beat("source:shop", state="streaming", lag_ms=6_000.0)
    lag = found(lake.health(), "shop", "lag")
    assert (lag.state, lag.value, lag.limit) == ("warning", "streaming, 6,000 ms behind", "5 s / 60 s")
    assert lag.since is not None
    assert 6 <= (datetime.now(UTC) - lag.since).total_seconds() < 60
    assert lag.todo == "headwater source check shop"


def test_the_project_of_a_lake_folder_is_the_one_above_it(lake: Lake, tmp_path: Path) -> None:
    with open_lake(tmp_path / "lake") as other:
        assert other.project == lake.project
    (tmp_path / "headwater.toml").write_text('[project]\nname = "shop"\nlake = "elsewhere"\n')
    with open_lake(tmp_path / "lake") as other:
        assert other.project is None
        assert found(other.health(), "shop.clicks", "dead_letters").limit == f"1 / {Slo().dead_letters_error:,}"


def test_the_worst_stands_first_with_what_to_do(lake: Lake) -> None:
    lake.log.live.beat("source:shop", state="error", error="the <b>server</b> is gone")
    health = lake.health()
    assert (health[0].kind, health[0].name, health[0].state) == ("source", "shop", "error")
    assert [each.state for each in health.wrong] == ["error"]
    assert not health.ok
    assert "1 error, 0 warnings" in str(health)
    assert "headwater source check shop" in str(health)
    html = health._repr_html_()
    assert "&lt;b&gt;server" in html
    assert "<b>" not in html


def test_letters_that_were_looked_at_are_no_trouble(lake: Lake) -> None:
    with lake.producer(on_error="dead_letter") as producer:
        producer.send("clicks", [{"user": "bob"}])
    assert found(lake.health(), "shop.clicks", "dead_letters").state == "warning"
    DeadLetters(lake.log).discard("clicks", reason="a test")
    assert lake.health().ok
