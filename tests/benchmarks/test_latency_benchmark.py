"""The benchmark of latency under load, end to end, on a small load: it measures, and compares every view at the end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_a_small_load_is_measured_whole() -> None:
    command = [sys.executable, "-m", "benchmarks.latency", "--json", "--seconds", "4", "--rate", "500"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, 1), done.stderr
    document = json.loads(done.stdout)
    figures = document["figures"]
    assert {goal["name"] for goal in document["goals"]} == {"row_changes_per_s", "p95_ms", "p99_ms"}
    assert 0 < figures["p50_ms"] <= figures["p95_ms"] <= figures["p99_ms"] <= figures["max_ms"]
    assert figures["to_log_p50_ms"] + figures["to_publish_p50_ms"] < 2 * figures["p50_ms"]
    assert all(figures[f"{role}_cores"] > 0 for role in ("postgres", "capture", "views", "reader", "writer"))
