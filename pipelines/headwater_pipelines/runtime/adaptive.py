"""When a batch touches most keys of a recomputed relation: all of it is computed and compared, and nothing looked up.

Which way is taken never changes the answer: the difference is the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headwater.types import quote

if TYPE_CHECKING:
    from headwater_pipelines.compiler.plan import Recompute
    from headwater_pipelines.runtime.state import State

WHOLE_SHARE = 0.75
"""With more of the keys touched, everything is computed anew: from there on it takes no longer, as measured by
``python -m benchmarks.adaptive``."""


@dataclass
class Adaptive:
    """How many keys each relation has, as last counted, and what was computed as a whole in the last step."""

    keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By relation: its rows when its keys were counted, and their number."""
    whole: set[str] = field(default_factory=set)
    """The relations of the last step that were computed as a whole because most keys were touched."""

    def is_whole(self, state: State, source: Recompute, touched: int) -> bool:
        """Whether so many touched keys are most of a relation's."""
        most = touched > WHOLE_SHARE * self._count(state, source)
        if most:
            self.whole.add(source.table)
        return most

    def _count(self, state: State, source: Recompute) -> int:
        """About how many keys there are, counted again when the rows have doubled or halved."""
        rows = state.relations[source.table].rows
        known, count = self.keys.get(source.table, (0, 0))
        if not known <= 2 * rows or not rows <= 2 * known:
            names = ", ".join(map(quote, source.keys))
            query = f"SELECT approx_count_distinct(({names})) FROM {quote(source.table)}"
            count = int((state.row(query) or (0,))[0])
            self.keys[source.table] = (rows, count)
        return count
