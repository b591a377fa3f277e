"""How many records of some topics come after a commit, without reading them: who follows the log decides by it.

Exact in the hot tier. A segment says only which commits it spans; its records count as spread evenly over them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from sqlalchemy import func, select

from headwater.catalog import tables

if TYPE_CHECKING:
    from headwater.log.log import Log


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """Records of commits in (after, upto]: ``rows`` of them from ``first`` to ``last`` each."""

    after: int
    upto: int
    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]

    def until(self, commit: int) -> int:
        """Records of commits in (after, commit], about; at least 1 when there may be any."""
        span = self.last - self.first + 1
        here = np.clip(commit - self.first + 1, 0, span) - np.clip(self.after - self.first + 1, 0, span)
        return int(np.ceil((self.rows * here / span).sum()))

    @property
    def total(self) -> int:
        """All of them."""
        return self.until(self.upto)

    @property
    def begins(self) -> int:
        """The first commit after ``after`` that may have records; ``upto`` when none has."""
        return int(min((max(int(first), self.after + 1) for first in self.first), default=self.upto))

    def cut(self, rows_target: int) -> int:
        """The last commit up to which there are no more than about ``rows_target``; one with records is always in."""
        low, high = min(self.begins, self.upto), self.upto
        while low < high:
            middle = (low + high + 1) // 2
            if self.until(middle) <= rows_target:
                low = middle
            else:
                high = middle - 1
        return low


def after(log: Log, topics: Collection[int], commit: int, upto: int) -> Backlog:
    """What the topics of these ids have in (commit, upto]; one catalog transaction."""
    batch, segment = tables.batch, tables.segment
    hot = (
        select(batch.c.commit, batch.c.commit, func.sum(batch.c.rows))
        .where(batch.c.topic.in_(topics), batch.c.commit > commit, batch.c.commit <= upto)
        .group_by(batch.c.commit)
    )
    sealed = select(segment.c.first_commit, segment.c.last_commit, segment.c.rows).where(
        segment.c.topic.in_(topics), segment.c.last_commit > commit, segment.c.first_commit <= upto
    )
    with log.catalog.read() as connection:
        found = [tuple(row) for query in (hot, sealed) for row in connection.execute(query)]
    columns = np.array(found, dtype=np.int64).reshape(-1, 3)
    return Backlog(after=commit, upto=upto, first=columns[:, 0], last=columns[:, 1], rows=columns[:, 2])
