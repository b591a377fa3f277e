"""When somebody who follows asks for the next commit: so that it is there when he looks, and not much earlier."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from headwater.log.demand import EARLY_S, FILE, Demand, Follower


class Clock:
    """Monotonic seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def monotonic_ns(self) -> int:
        return round(self.now * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "monotonic", made.monotonic)
    monkeypatch.setattr(time, "monotonic_ns", made.monotonic_ns)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / FILE).parent.mkdir()
    return tmp_path


@pytest.fixture
def follower(folder: Path) -> Iterator[Follower]:
    with closing(Follower(folder)) as made:
        yield made


def asked_after(follower: Follower, clock: Clock, seconds: float) -> float | None:
    """Work of so many seconds, of which every millisecond says that it ends; after how many seconds it asked."""
    began, before, asked = clock.now, follower.asked, None
    for _ in range(round(seconds * 1000)):
        follower.ends()
        if asked is None and follower.asked != before:
            asked = round(clock.now - began, 3)
        clock.now += 0.001
    follower.looks()
    clock.now += 1
    return asked


def test_it_asks_so_early_as_a_commit_takes(folder: Path, follower: Follower, clock: Clock) -> None:
    with closing(Demand(folder)) as capture:
        assert asked_after(follower, clock, 0.050) == 0.0, "how long the work takes is not known"
        capture.answered(0.010)
        assert follower.took_s == pytest.approx(0.010)
        assert asked_after(follower, clock, 0.050) == pytest.approx(0.050 - 0.010 - EARLY_S, abs=0.001)
        capture.answered(0.030)
        assert asked_after(follower, clock, 0.020) == pytest.approx(0.050 - 0.030 - EARLY_S, abs=0.001)
        assert asked_after(follower, clock, 0.020) == 0.0, "a commit takes longer than the end of the work"


def test_it_asks_once_and_what_it_asked_is_seen_by_others(folder: Path, follower: Follower, clock: Clock) -> None:
    with closing(Demand(folder)) as capture:
        assert capture.asked == 0
        follower.ends()
        asked = capture.asked
        assert asked == clock.monotonic_ns()
        clock.now += 0.001
        follower.ends()
        assert capture.asked == asked
        follower.looks()
        clock.now += 1
        follower.ends()
        assert capture.asked > asked


def test_a_look_without_work_before_it_is_no_measure(follower: Follower, clock: Clock) -> None:
    follower.answered(0.005)
    asked_after(follower, clock, 0.020)
    follower.looks()
    clock.now += 5
    follower.looks()
    assert asked_after(follower, clock, 0.020) == pytest.approx(0.020 - 0.005 - EARLY_S, abs=0.001)


def test_who_finds_nothing_asks_unless_the_answer_is_on_its_way(follower: Follower, clock: Clock) -> None:
    asked_after(follower, clock, 0.020)
    asked = follower.asked
    follower.waits()
    assert follower.asked == asked
    for _ in range(2):
        clock.now += 0.1
        follower.waits()
        assert follower.asked == clock.monotonic_ns()
