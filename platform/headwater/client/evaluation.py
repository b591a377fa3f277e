"""What a group's last commits say about it: Burrow's rules, which need no threshold of lag.

A lag says how far a consumer is behind; whether it is stuck shows in how its commits move. The window is the
last ``offsets.WINDOW`` commits of a partition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

RECENT_S = 60.0
"""A group whose oldest unread record is younger than this had read everything that recently: it has not stopped."""


class Status(IntEnum):
    """From good to bad; a group has the worst of its partitions'."""

    OK = 0
    WARN = 1
    """It moves, and falls behind: too slow."""
    STALL = 2
    """It commits, and does not move."""
    STOP = 3
    """It commits no more."""
    REWIND = 4
    """It moved backwards and has not caught up with where it was."""


@dataclass(frozen=True, kw_only=True)
class Commit:
    """One commit of a partition. ``time_s`` in seconds, ``lag`` in records behind the end as it was then."""

    time_s: float
    offset: int
    lag: int


def evaluate(
    commits: Sequence[Commit], *, lag: int, unread_s: float | None, now_s: float, lag_allowed: int = 0
) -> Status:
    """The status of one partition.

    Args:
        commits: the window, oldest first. An empty one is OK: nothing is known.
        lag: records behind now.
        unread_s: age of the oldest record that the group has not finished; None when there is none.
        now_s: the time now, in the commits' seconds.
        lag_allowed: records that count as no lag.
    """
    if not commits or lag <= lag_allowed:
        return Status.OK
    caught_up_lately = unread_s is None or unread_s < RECENT_S
    first, last = commits[0], commits[-1]
    if now_s - last.time_s > last.time_s - first.time_s and not caught_up_lately:
        return Status.STOP
    if any(after.offset < before.offset for before, after in pairwise(commits)) and last.offset < max(
        commit.offset for commit in commits
    ):
        return Status.REWIND
    if len(commits) > 1 and all(commit.lag > lag_allowed for commit in commits):
        if all(commit.offset == first.offset for commit in commits):
            return Status.STALL
        if all(after.lag >= before.lag for before, after in pairwise(commits)):
            return Status.WARN
    return Status.OK
