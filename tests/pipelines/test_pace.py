"""Steps take about a second while more waits, unless shorter ones would be much less work done."""

from __future__ import annotations

import pytest

from headwater_pipelines.runtime.pace import Pace


@pytest.mark.parametrize(
    ("fixed_s", "row_s", "settled"),
    [
        (0.005, 6e-6, {125_000}),  # a step of 125,000 rows takes 0.75 s
        (0.005, 1e-6, {500_000}),
        (0.005, 40e-6, {15_625}),  # 0.6 s
        (0.1, 1e-3, {7_812}),  # no fewer, however long that takes
        (5.0, 1e-6, {250_000, 500_000}),  # a full recompute: half the rows would take as long, and are only tried
    ],
)
def test_where_it_settles(fixed_s: float, row_s: float, settled: set[int]) -> None:
    pace = Pace(500_000)
    seen, steps = [], 60
    for _ in range(steps):
        seen.append(pace.rows)
        pace.measured(pace.rows, fixed_s + row_s * pace.rows)
    assert set(seen[-20:]) <= settled, seen
    assert seen.count(max(settled)) > steps // 2


def test_small_steps_and_large_commits_say_nothing() -> None:
    pace = Pace(500_000)
    for rows, seconds in ((10, 0.01), (10, 30.0), (5_000_000, 60.0)):
        pace.measured(rows, seconds)
    assert pace.rows == 125_000


def test_what_has_become_cheaper_is_noticed() -> None:
    pace = Pace(500_000)
    for _ in range(20):
        pace.measured(pace.rows, pace.rows * 40e-6)
    assert pace.rows == 15_625
    for _ in range(20):
        pace.measured(pace.rows, pace.rows * 1e-6)
    assert pace.rows == 500_000
