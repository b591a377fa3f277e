"""How many records of some topics come after a commit, without reading them: who follows the log decides by it.

Exact in the hot tier. A segment says only which commits it spans; its records count as spread evenly over them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from sqlalchemy import bindparam, func, select

from headwater.catalog import tables
from headwater.catalog.prepared import Prepared

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


_batch, _segment = tables.batch, tables.segment
_HOT = (
    select(_batch.c.topic, _batch.c.commit, _batch.c.commit.label("last"), func.sum(_batch.c.rows).label("rows"))
    .where(_batch.c.commit > bindparam("after"), _batch.c.commit <= bindparam("upto"))
    .group_by(_batch.c.topic, _batch.c.commit)
)
_SEALED = select(_segment.c.topic, _segment.c.first_commit, _segment.c.last_commit, _segment.c.rows).where(
    _segment.c.last_commit > bindparam("after"), _segment.c.first_commit <= bindparam("upto")
)
_EVERY = (Prepared(_HOT), Prepared(_SEALED))


def after(log: Log, topics: Collection[int], commit: int, upto: int) -> Backlog:
    """What the topics of these ids have in (commit, upto]; one catalog transaction."""
    place = {"after": commit, "upto": upto}
    with log.catalog.read() as connection:
        queries = (_HOT.where(_batch.c.topic.in_(topics)), _SEALED.where(_segment.c.topic.in_(topics)))
        found = [tuple(row) for query in queries for row in connection.execute(query, place)]
    return _backlog(found, commit, upto)


def of_each(log: Log, readers: Mapping[str, Collection[int]], commit: int, upto: int) -> dict[str, Backlog]:
    """By reader of some topics, what these have in (commit, upto]; read once for all of them."""
    place = {"after": commit, "upto": upto}
    with log.catalog.read() as connection:
        found = [tuple(row) for query in _EVERY for row in query.all(connection, place)]
    return {
        name: _backlog([row for row in found if row[0] in topics], commit, upto) for name, topics in readers.items()
    }


def _backlog(found: Sequence[tuple[int, ...]], commit: int, upto: int) -> Backlog:
    columns = np.array(found, dtype=np.int64).reshape(-1, 4)
    return Backlog(after=commit, upto=upto, first=columns[:, 1], last=columns[:, 2], rows=columns[:, 3])
