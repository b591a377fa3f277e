"""The arithmetic of benchmarks.control_room: what is flat, and how many reports fall into one minute."""

from __future__ import annotations

import math

from benchmarks.control_room import busiest, growth_share


def test_growth_is_that_from_the_second_quarter_to_the_last() -> None:
    samples = [1.0] * 4 + [10.0] * 4 + [99.0] * 4 + [11.0] * 4
    assert math.isclose(growth_share(samples), 0.1)
    assert growth_share([10.0] * 16) == 0.0
    assert math.isnan(growth_share([1.0] * 7))


def test_busiest_minute_moves_with_the_times() -> None:
    assert busiest([]) == 0
    assert busiest([0.0, 60.0, 120.0]) == 1
    assert busiest([120.0, 0.0, 59.0, 61.0, 100.0]) == 3
