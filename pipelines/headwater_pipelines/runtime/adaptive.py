"""When a batch touches most keys of a recomputed relation: all of it is computed and compared, and nothing looked up.

Which way is taken never changes the answer: the difference is the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headwater.types import quote
from headwater_pipelines.compiler import render
from headwater_pipelines.compiler.plan import is_linear, leaves

if TYPE_CHECKING:
    from headwater_pipelines.compiler.plan import Input, Recompute
    from headwater_pipelines.runtime.state import State

WHOLE_SHARE = 0.75
"""With more of the keys touched, everything is computed anew: from there on it takes no longer, as measured by
``python -m benchmarks.adaptive``."""

GROUP_ROWS = 1_000
"""With fewer touched keys than one for so many rows nothing is counted: they are most keys of huge groups at best, and
of these both ways read everything."""


@dataclass
class Adaptive:
    """How many keys the inputs of each relation have, as last counted, and what the last step computed as a whole."""

    keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By relation: the rows of its inputs when their keys were counted, and the number of these."""
    whole: set[str] = field(default_factory=set)
    """The relations of the last step that were computed as a whole because most keys were touched."""

    def is_whole(self, state: State, source: Recompute, touched: int) -> bool:
        """Whether so many touched keys are most of those of a relation's inputs."""
        # Of an input that is a join the keys are too dear to count.
        if not all(is_linear(each.node) for each in source.inputs):
            return False
        rows = sum(state.relations[leaf.table].rows for each in source.inputs for leaf in leaves(each.node))
        most = touched * GROUP_ROWS >= rows and touched > WHOLE_SHARE * self._count(state, source, rows)
        if most:
            self.whole.add(source.table)
        return most

    def _count(self, state: State, source: Recompute, rows: int) -> int:
        """About how many keys there are, counted again when the rows have doubled or halved."""
        known, count = self.keys.get(source.table, (0, 0))
        if not known <= 2 * rows or not rows <= 2 * known:
            count = max(self._of(state, each) for each in source.inputs)
            self.keys[source.table] = (rows, count)
        return count

    def _of(self, state: State, each: Input) -> int:
        names = ", ".join(map(quote, each.keys))
        found = state.row(f"SELECT approx_count_distinct(({names})) FROM ({render.state(each.node)})")
        return int((found or (0,))[0])
