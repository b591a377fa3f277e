"""`headwater topic create|alter|drop|repartition|show` and `headwater dlq`, as people and scripts use them."""

from __future__ import annotations

import io
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headwater.cli.main import main
from headwater.config import Settings
from headwater.lake import Lake, open_lake
from headwater.log import open_log, profile, seal

Run = Callable[..., tuple[int, str, str]]
PROJECT = '[project]\nname = "t"\n'


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in this process, in a project with an empty lake: exit code, stdout, stderr."""
    (tmp_path / "headwater.toml").write_text(PROJECT)
    open_log(tmp_path / "lake", create=True).close()

    def command(*args: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        monkeypatch.setenv("COLUMNS", "150")
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(args))
        printed = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, printed.out, printed.err

    return command


def clicks(run: Run, *more: str) -> dict[str, Any]:
    columns = ("user:BIGINT", "page:VARCHAR")
    code, out, err = run("topic", "create", "shop.clicks", *columns, "--key", "user", *more, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def produce(lake: Lake, *rows: dict[str, Any]) -> None:
    with lake.producer(on_error="dead_letter") as producer:
        producer.send("shop.clicks", list(rows)).result(timeout=20)


def test_a_topic_from_its_creation_to_its_end(run: Run) -> None:
    made = clicks(run, "--set", "retention=7d", "--set", "cleanup=both", "--set", "owner=web", "--partitions", "2")
    assert made["settings"] == {"cleanup": "both", "retention": "7d"}
    assert (made["owner"], made["partitions"], made["key"]) == ("web", 2, ["user"])
    assert run("topic", "alter", "clicks", "--set", "retention=none", "--set", "seal_bytes=1MB")[0] == 0
    assert run("topic", "repartition", "clicks", "3")[0] == 0
    (listed,) = json.loads(run("topic", "list", "--json")[1])["topics"]
    assert (listed["settings"], listed["partitions"]) == ({"cleanup": "both", "seal_bytes": 1 << 20}, 3)
    assert "cleanup=both" in run("topic", "list")[1]
    code, _, err = run("topic", "drop", "clicks", stdin="n\n")
    assert (code, "Drop topic shop.clicks?" in err) == (130, True)
    assert run("topic", "drop", "clicks", stdin="y\n")[0] == 0
    assert json.loads(run("topic", "list", "--json")[1])["topics"] == []


@pytest.mark.parametrize(
    ("args", "code", "parts"),
    [
        (("create", "t", "user"), 2, ("'user' is not COLUMN:TYPE", "user:BIGINT")),
        (("create", "t", "user:BIGNT"), 2, ("'BIGNT'", "cannot hold")),
        (("create", "t", "a:BIGINT", "--set", "retention"), 2, ("NAME=VALUE", "retention=7d")),
        (("create", "t", "a:BIGINT", "--set", "retenton=7d"), 2, ("Did you mean retention?",)),
        (("alter", "nothing", "--set", "owner=x"), 1, ("nothing",)),
        (("alter", "nothing"), 2, ("nothing to alter",)),
        (("repartition", "nothing", "4"), 1, ("nothing",)),
        (("drop", "nothing", "--yes"), 1, ("nothing",)),
    ],
)
def test_what_cannot_be_is_one_paragraph(run: Run, args: tuple[str, ...], code: int, parts: tuple[str, ...]) -> None:
    ended, _, err = run("topic", *args)
    assert ended == code, err
    assert all(part in err for part in parts), err


def test_show_tells_the_load_and_names_the_hot_key(run: Run, tmp_path: Path, seed: int) -> None:
    clicks(run, "--partitions", "4")
    chance = random.Random(seed)
    users = [7 if chance.random() < 0.6 else chance.randrange(1000, 2**60) for _ in range(4000)]
    with open_lake(tmp_path) as lake:
        for start in range(0, 4000, 1000):
            produce(lake, *({"user": user, "page": "p"} for user in users[start : start + 1000]))
            if start == 1000:
                seal.seal(lake.log, Settings())
        topic = lake.log.topic("clicks")
        loads, rate = profile.partitions(lake.log, topic), profile.rows_per_s(lake.log, topic)
    shown = json.loads(run("topic", "show", "clicks", "--json", "--hot-keys", "3")[1])
    hot = users.count(7)
    assert shown["hot_keys"][0] == {"key": [7], "records": hot, "share": hot / 4000}
    assert [len(shown["hot_keys"]), shown["hot_keys_of"], shown["records"]] == [3, 4000, 4000]
    assert sum(load.records for load in loads) == 4000
    assert rate == pytest.approx(4000 / profile.RATE_S)
    most = max(load.records for load in loads)
    assert hot <= most
    assert shown["skew"] == pytest.approx(most * 4 / 4000)
    assert shown["bytes"] == sum(load.bytes for load in loads) > 0
    text = run("topic", "show", "clicks")[1]
    assert "most frequent keys of the newest 4,000 records" in text
    assert f"{hot / 4000:.1%}" in text


def test_skew_is_that_of_the_open_partitions(run: Run, tmp_path: Path) -> None:
    clicks(run, "--partitions", "2")
    with open_lake(tmp_path) as lake:
        produce(lake, *({"user": 7, "page": "p"} for _ in range(10)))
        assert profile.skew(profile.partitions(lake.log, lake.log.topic("clicks"))) == 2.0
        lake.repartition("clicks", 3)
        loads = profile.partitions(lake.log, lake.log.topic("clicks"))
        assert [(load.partition, load.is_open) for load in loads if load.is_open] == [(2, True), (3, True), (4, True)]
        assert profile.skew(loads) == 1.0
        assert sum(load.records for load in loads) == 10


def test_dead_letters_are_seen_mended_and_given_up(run: Run, tmp_path: Path) -> None:
    clicks(run)
    assert "no dead letters" in run("dlq", "list")[1]
    with open_lake(tmp_path) as lake:
        produce(lake, {"user": "x", "page": "a"}, {"user": "y", "page": "b"}, {"user": 1, "page": "c"})
    (cause,) = json.loads(run("dlq", "list", "--json")[1])["causes"]
    assert (cause["topic"], cause["cause"], cause["open"]) == ("shop.clicks", "InvalidRecords at user", 2)
    assert "InvalidRecords at user" in run("dlq", "list", "clicks")[1]
    letters = [json.loads(line) for line in run("dlq", "show", "clicks")[1].splitlines()]
    assert [letter["row"] for letter in letters] == [{"user": "x", "page": "a"}, {"user": "y", "page": "b"}]
    assert letters[0]["headers"]["__dlq.errors.field"] == "user"
    (one,) = run("dlq", "show", str(letters[0]["id"]))[1].splitlines()
    assert json.loads(one) == letters[0]
    code, out, _ = run("dlq", "redrive", "clicks", "--json")
    assert (code, json.loads(out)) == (1, {"redriven": 0, "failed": 2})
    assert run("dlq", "discard", "clicks")[0] == 2, "a reason is needed"
    code, out, _ = run("dlq", "discard", "clicks", "--reason", "test users", "--id", str(letters[0]["id"]), "--json")
    assert (code, json.loads(out)) == (0, {"discarded": 1})
    assert run("dlq", "show", "clicks", "--state", "discarded")[1].count("test users") == 1
    (topic, _) = json.loads(run("status", "--json")[1])["topics"]
    assert topic["dead_letters"] == {"open": 1, "total": 2}
    assert run("dlq", "show", "99")[0] == 1
    assert run("dlq", "redrive", "nothing")[0] == 1
