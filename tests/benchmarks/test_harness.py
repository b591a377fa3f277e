"""The benchmarks' arithmetic: percentiles, goals, costs of processes, latencies."""

from __future__ import annotations

import json
import math
import random
import sys

import pytest
from benchmarks.harness import Report, percentile, run
from benchmarks.latency import latencies


def test_percentile_is_the_smallest_value_that_covers_its_share(seed: int) -> None:
    values = [random.Random(seed).random() for _ in range(997)]
    for share in (0.5, 0.95, 0.99, 1.0):
        found = percentile(values, share)
        assert sum(value <= found for value in values) >= share * len(values)
        assert sum(value < found for value in values) < share * len(values)
    assert math.isnan(percentile([], 0.5))


def test_a_missed_goal_is_exit_code_one_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("example", quick=True)
    report.goal("p95_ms", 401.0, at_most=400)
    report.goal("rows_per_s", 5.0, at_least=5)
    assert report.finish(as_json=True) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["figures"] == {"p95_ms": 401.0, "rows_per_s": 5.0}
    assert [goal["holds"] for goal in document["goals"]] == [False, True]


def test_what_could_not_be_measured_holds_no_goal(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("example")
    report.goal("p95_ms", float("nan"), at_most=400)
    assert report.finish(as_json=True) == 1
    assert json.loads(capsys.readouterr().out)["figures"] == {"p95_ms": None}


def test_the_cost_of_a_command_is_its_own() -> None:
    ballast = bytearray(300_000_000)  # a child inherits its parent's ru_maxrss; ours must not count
    hungry = run([sys.executable, "-c", "x = bytearray(100_000_000); sum(range(5_000_000))"], timeout=60)
    assert hungry.exit_code == 0
    assert 100 < hungry.peak_mb < 200
    assert 0.02 < hungry.cpu_s < 30
    assert len(ballast) == 300_000_000


def test_latency_is_to_the_first_answer_that_holds_the_transaction() -> None:
    commits = [10.0, 11.0, 12.0, 13.0]
    answers = [(10.5, 0), (11.25, 2), (11.5, 2), (12.5, 3)]
    assert latencies(commits, answers) == [1250.0, 250.0, 500.0, math.inf]
