"""What is stored for a view has a limit: ``view_state_bytes_max``, or the view's own ``WITH (state_limit = '2 GB')``.

A view counts for all that it reads, shared with others or not. One that outgrows its budget is paused with the reason;
what only it used is removed, and the others go on.
"""

from __future__ import annotations

from dataclasses import dataclass

from headwater_pipelines.compiler import size
from headwater_pipelines.runtime.blame import ViewFailed
from headwater_pipelines.runtime.program import Program
from headwater_pipelines.runtime.state import State


@dataclass(frozen=True)
class Budget:
    """``bytes_max``: of a view that says nothing itself."""

    bytes_max: int

    def check(self, program: Program, state: State) -> None:
        """ViewFailed when what is stored for a view is more than it may be."""
        stored = {table: relation.bytes for table, relation in state.relations.items()}
        for view_id, view in program.views.items():
            used = sum(stored.get(table, 0) for table in program.tables_of(view_id))
            limit = size.of(view.definition.options) or self.bytes_max
            if used > limit:
                raise ViewFailed(
                    f"its state has grown to {size.shown(used)}, its limit is {size.shown(limit)}. Raise it (WITH"
                    " (state_limit = ...) of the view, or view_state_bytes_max in [settings]), then `headwater resume`",
                    frozenset({view_id}),
                )
