"""Which views a statement of a step is for: where DuckDB refuses it, they are named."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from headwater.errors import PipelineError
from headwater_pipelines.compiler.syntax import message


class ViewFailed(PipelineError):
    """A statement of some views failed; ``views`` are their ids. The step did not happen."""

    def __init__(self, what: str, views: frozenset[int]) -> None:
        super().__init__(what, views=views)
        self.views = views


@dataclass
class Blame:
    """Turns a DuckDB error in its block into ViewFailed; other errors pass."""

    users: frozenset[int]

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # A full disk or a broken file concerns the worker, not one view's SQL.
        if isinstance(error, duckdb.Error) and not isinstance(error, duckdb.IOException | duckdb.FatalException):
            raise ViewFailed(_reason(error), self.users) from error


def _reason(error: duckdb.Error) -> str:
    if not str(error).startswith("Out of Memory"):
        return message(error)
    return f"it needs more memory than pipeline_memory_bytes_max, or more disk to spill to: {message(error)}"
