"""The log's benchmark: its command line end to end on the cheapest part, and the data that it writes."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from benchmarks.log_data import EVENT_COLUMNS, TABLE_COLUMNS, accounts, cents, events, ratio

from headwater.schema import Schema

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_one_part_runs_from_the_command_line_and_prints_one_object(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.log", "--quick", "--json", "--only", "hot", "--folder", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    document = json.loads(done.stdout)
    assert document["figures"]["hot_commits"] == 256
    assert 25 < document["figures"]["hot_mb"] < 34
    assert [goal["name"] for goal in document["goals"]] == ["hot_read_ms"]
    assert done.returncode == (0 if document["goals"][0]["holds"] else 1)
    assert list(tmp_path.iterdir()) == [], "the lake it wrote is gone"


def test_its_rows_have_the_types_and_values_they_are_said_to() -> None:
    assert events(0, 10).schema == Schema.of(EVENT_COLUMNS).arrow()
    assert accounts(np.arange(10), "c").drop_columns(["_op"]).schema == Schema.of(TABLE_COLUMNS).arrow()
    assert cents(np.array([-5, 0, 123_456])).to_pylist() == [Decimal("-0.05"), Decimal("0.00"), Decimal("1234.56")]


def test_a_ratio_is_of_neighbouring_runs() -> None:
    assert ratio([1.0, 10.0, 1.0], [2.0, 20.0, 1.0]) == 0.5
