"""How many rows a step takes while more of them wait.

More rows cost less each, up to a point. *Measured*, updates through a filter, an aggregate and a join: one core does
58,000 rows a second in steps of 5,000, 98,000 in steps of 20,000, 155,000 in steps of 100,000 or of 500,000. What came
first among them is seen when all are done. So a step is to take about ``STEP_S``, unless shorter ones are much less
work done: a view that is recomputed whole costs the same for one row as for a million.
"""

from __future__ import annotations

STEP_S = 1.0
"""What a step should take at most, while more waits."""
HALVINGS = 6
"""A step takes at least the largest number of rows, halved so often."""
START_HALVINGS = 2
WORTH = 0.7
"""A shorter step is worth it as long as it does this share of the rows in a second."""
REMEMBERED = 64
"""After so many steps what was measured is forgotten: the views and what they hold have changed."""


class Pace:
    """``rows``: of the next step, at most, unless one commit has more."""

    def __init__(self, rows_max: int) -> None:
        self.rows_max = rows_max
        self._halvings = START_HALVINGS
        self._rates: dict[int, float] = {}
        self._steps = 0

    @property
    def rows(self) -> int:
        return max(1, self.rows_max >> self._halvings)

    def measured(self, rows: int, seconds: float) -> None:
        """A step of so many rows took so long. Only one that took about all it could tells anything."""
        if not self.rows // 2 <= rows <= self.rows or seconds <= 0:
            return
        self._steps = (self._steps + 1) % REMEMBERED
        if not self._steps:
            self._rates.clear()
        rate = self._rates[self._halvings] = rows / seconds
        larger, smaller = self._halvings - 1, self._halvings + 1
        smaller_is_worth_it = self._rates.get(smaller, rate) >= WORTH * rate
        larger_is_worth_it = self._rates.get(larger, 0.0) * WORTH > rate
        is_tried = smaller_is_worth_it or larger in self._rates
        if larger >= 0 and (seconds < STEP_S / 2 or larger_is_worth_it or not is_tried):
            self._halvings = larger
        elif seconds > STEP_S and smaller <= HALVINGS and smaller_is_worth_it:
            self._halvings = smaller
