"""The benchmarks' arithmetic: percentiles, goals, costs of processes, latencies."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from benchmarks.harness import Report, markdown, percentile, require_block, run, write_block
from benchmarks.latency import Answer, Transaction, check, latencies
from benchmarks.latency_load import MARKED
from benchmarks.processes import Costs, own_mb, slope
from tests.waiting import until


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
    transactions = [Transaction(10.0 + n, commit=3 + 2 * n, newest=10 * (n + 1)) for n in range(4)]
    at = [(10.5, 2, 5), (11.25, 6, 20), (11.5, 6, 20), (12.5, 7, 30)]
    answers = [Answer(came, commit, MARKED, value) for came, commit, value in at]
    assert latencies(transactions, answers) == [1250.0, 250.0, 500.0, math.inf]
    check(transactions, answers[1:])
    with pytest.raises(RuntimeError, match="other orders"):
        check(transactions, answers)
    with pytest.raises(RuntimeError, match="older than the one before"):
        check(transactions, answers[::-1])


def test_mapped_files_are_no_memory_of_a_process(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 40_000_000)
    before = own_mb(os.getpid())
    mapped = np.memmap(file)
    assert int(mapped.sum()) == 40_000_000 * ord("x")  # every page was read
    assert own_mb(os.getpid()) < before + 20
    held = np.ones(40_000_000, np.uint8)
    assert own_mb(os.getpid()) > before + 30
    assert held.all()


def test_the_slope_is_that_of_the_line() -> None:
    assert slope([(t, 7 + 3 * t) for t in (0.0, 1.0, 5.0)]) == pytest.approx(3)
    assert slope([(t, 7.0) for t in (0.0, 1.0)]) == slope([]) == 0


def test_costs_are_told_apart_by_role() -> None:
    child = (
        "import sys; print('x' * 10, flush=True); x = bytearray(50_000_000); sum(range(20_000_000)); sys.stdin.read()"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        with Costs({"all": process.pid, "parent": process.pid}, whole=frozenset({"all"})) as costs:
            assert process.stdout is not None
            process.stdout.readline()
            until(lambda: sum(each.memory_info().rss for each in psutil.Process(process.pid).children()) > 50e6)
            until(lambda: sum(sum(each.cpu_times()[:2]) for each in psutil.Process(process.pid).children()) > 0.1)
        process.kill()
    assert costs.cpu_s("all") > costs.cpu_s("parent") + 0.05
    assert costs.memory["all"][-1][1] > costs.memory["parent"][-1][1] + 50


def test_a_block_of_a_page_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- some -->\nold\n<!-- end of some -->\nafter\n")
    for _ in range(2):
        write_block(page, "some", markdown(("a", "b"), [["1", "2"]]))
    table = "| a | b |\n| --- | --- |\n| 1 | 2 |"
    assert page.read_text() == f"before\n<!-- some -->\n\n{table}\n\n<!-- end of some -->\nafter\n"
    with pytest.raises(ValueError, match="end of other"):
        require_block(page, "other")
