"""Stream jobs as a project declares them: ``@hw.job`` on a function in ``jobs/*.py``.

    import headwater as hw
    import polars as pl

    @hw.job(inputs=["orders"], output="large_orders", key="id", columns={"id": "BIGINT", "total": "DECIMAL(12,2)"})
    def large_orders(orders: pl.DataFrame) -> pl.DataFrame:
        return orders.filter(pl.col("total") > 100).select("id", "total")

Only the declaration is here; ``headwater job run``, of the pipelines package, runs it. Output, state and input
position of a step are one commit: whatever happens, every change has been taken in exactly once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, get_args

from headwater.config import REFUSED_SOURCE_NAMES
from headwater.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

Start = Literal["rows", "beginning", "latest"]
OnError = Literal["fail", "dead_letter"]
BATCH_ROWS = 100_000
"""Rows of a call by default: Polars is at full speed, and a frame of a wide table is some ten megabytes."""
PARTS_MAX = 3
"""Parts of a topic's name."""
NAMESPACE = "jobs"
"""First part of the names of outputs that say none, and of every job's state."""

JobFunction: TypeAlias = Callable[..., "pl.DataFrame | None"]


class JobState(Protocol):
    """A job's keyed rows, durable and exactly as of the changes it has taken in; in columns, never row by row.

    What a call puts and deletes is seen by its own later reads and published with its output, or not at all.
    """

    def get(self, keys: pl.DataFrame | pl.Series) -> pl.DataFrame:
        """The rows of these keys, one a key that there is, in no order; other columns and repetitions do no harm."""

    def put(self, rows: pl.DataFrame) -> None:
        """Store whole rows; a key that is there has its row replaced. Of several rows of a key the last stays."""

    def delete(self, keys: pl.DataFrame | pl.Series) -> None:
        """Forget the rows of these keys; one that is not there is fine."""

    def __len__(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class JobContext:
    """What a call knows beside its frames. All of it is the same when the step is run again.

    ``after`` and ``commit``: the frames hold the changes of commits in (after, commit]. ``instant``: when ``commit``
    was made; take it for the clock's time, which differs in a replay. ``part``: 0, and counting where a step of more
    than ``batch_rows`` is handed over in parts; the parts of a step are published together.
    """

    job: str
    after: int
    commit: int
    instant: datetime
    state: JobState
    part: int = 0


@dataclass(frozen=True, kw_only=True)
class Job:
    """A declared job; calling it calls its function. Made by ``job``, whose arguments say what the fields mean."""

    name: str
    function: JobFunction
    inputs: tuple[str, ...]
    output: str
    columns: Mapping[str, str] | None = None
    key: tuple[str, ...] = ()
    state: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    state_key: tuple[str, ...] = ()
    start: Start = "rows"
    batch_rows: int = BATCH_ROWS
    on_error: OnError = "fail"

    @property
    def description(self) -> str:
        """The first paragraph of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n\n")[0].replace("\n", " ")

    @property
    def file(self) -> Path:
        """Where the function is written."""
        return Path(inspect.getfile(self.function))

    @property
    def line(self) -> int:
        return int(inspect.unwrap(self.function).__code__.co_firstlineno)

    @property
    def topic(self) -> str:
        """The full name of the output's topic."""
        return self.output if "." in self.output else f"{NAMESPACE}.{self.output}"

    @property
    def state_topic(self) -> str:
        """The full name of the hidden topic that holds the state; no short name means it."""
        return f"{NAMESPACE}.{self.name}~state"

    @property
    def takes_context(self) -> bool:
        """Whether the function has a parameter more than there are inputs."""
        return len(inspect.signature(self.function).parameters) > len(self.inputs)

    def __call__(self, *args: Any, **kwargs: Any) -> pl.DataFrame | None:
        return self.function(*args, **kwargs)


def job(
    *,
    inputs: str | Sequence[str],
    output: str,
    key: str | Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    state: Mapping[str, str] | None = None,
    state_key: str | Sequence[str] = (),
    start: Start = "rows",
    batch_rows: int = BATCH_ROWS,
    on_error: OnError = "fail",
    name: str = "",
) -> Callable[[JobFunction], Job]:
    """Declare a stream job: a function from frames of changes to a frame of output.

    The function gets one Polars frame for every input, in this order, and, if it has one more parameter, a
    ``JobContext``. A frame has the input's columns, then its metadata: ``_op`` or ``_weight``, ``_commit``, ... It
    returns the rows to write, or None. Steps hold whole commits, so what it sees is never half of a transaction.

    Args:
        inputs: tables, views, topics or outputs of other jobs, by name.
        output: where the rows go; a name without a dot means ``jobs.<name>``.
        key: makes the output a table: each row replaces the one of its key, and with ``_op`` = 'd' removes it.
            Without a key the rows are appended as events.
        columns: the output's columns, name to DuckDB type. Left out: those of the first rows returned.
        state: columns of the job's keyed state, name to DuckDB type; with ``state_key``, the names of its key.
        state_key: see ``state``.
        start: where a new job begins. rows: with the rows that its tables and views have (``_op`` = 'r'), then their
            changes; beginning: with the oldest records kept; latest: with the next change.
        batch_rows: about how many rows a call gets. Fewer when there are not more; a larger commit comes in parts.
        on_error: what becomes of a call that raises, or returns what cannot be stored. fail: it changes nothing and
            the job is paused; dead_letter: the function is called with each half of the rows, and so on, and a row
            for which it fails alone is left out and kept with the reason in ``<output>.dlq``.
        name: the job's name; the function's when left out.

    Raises UsageError for what makes no sense.
    """

    def declare(function: JobFunction) -> Job:
        made = Job(
            name=name or function.__name__,
            function=function,
            inputs=_names(inputs),
            output=output,
            columns=None if columns is None else MappingProxyType(dict(columns)),
            key=_names(key),
            state=MappingProxyType(dict(state or {})),
            state_key=_names(state_key),
            start=start,
            batch_rows=batch_rows,
            on_error=on_error,
        )
        _check(made)
        return made

    return declare


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _check(made: Job) -> None:
    """UsageError that says which argument makes no sense."""
    wrong = _wrong(made) or _wrong_letters(made)
    if wrong:
        what, todo = wrong
        raise UsageError(f"job {made.name}: {what}", where=f"{made.file.name}, line {made.line}", todo=todo)


def _wrong(made: Job) -> tuple[str, str] | None:  # noqa: PLR0911 -- a list
    if not made.name.isidentifier():
        return "its name is no identifier", "Use letters, digits and _, beginning with a letter."
    if not made.inputs or len(set(made.inputs)) < len(made.inputs):
        return "inputs must be one or more different names", 'Write inputs=["orders"].'
    parts = made.output.split(".")
    if not all(part.isidentifier() for part in parts) or len(parts) > PARTS_MAX:
        return f"output {made.output!r} is no topic's name", f"Use up to {PARTS_MAX} identifiers with dots between."
    if len(parts) > 1 and parts[0] in REFUSED_SOURCE_NAMES - {NAMESPACE}:
        return f"output {made.output!r} begins with {parts[0]}, which means something else", "Choose another name."
    lacking = [each for each in made.key if made.columns is not None and each not in made.columns]
    if lacking:
        return f"key column {lacking[0]} is not in columns", "Name it in columns as well."
    lacking = [each for each in made.state_key if each not in made.state]
    if lacking or bool(made.state) != bool(made.state_key):
        return "state and state_key belong together", 'Write state={"id": "BIGINT", "n": "BIGINT"}, state_key="id".'
    if len(made.state) == len(made.state_key) and made.state:
        return "state has no columns beside its key", "Name what is to be kept for each key."
    if made.batch_rows < 1:
        return f"batch_rows = {made.batch_rows}", "Use 1 or more."
    if made.start not in get_args(Start):
        return f"start = {made.start!r}", f"Use {', '.join(get_args(Start)[:-1])} or {get_args(Start)[-1]}."
    parameters = inspect.signature(made.function).parameters.values()
    takes = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    if len(takes) != len(parameters) or len(takes) not in (len(made.inputs), len(made.inputs) + 1):
        frames = "one frame" if len(made.inputs) == 1 else f"{len(made.inputs)} frames"
        return f"its function must take {frames} and, if it wants one, a context", "Change its parameters or inputs."
    return None


def _wrong_letters(made: Job) -> tuple[str, str] | None:
    if made.on_error not in get_args(OnError):
        return f"on_error = {made.on_error!r}", f"Use {' or '.join(get_args(OnError))}."
    if made.on_error == "dead_letter" and made.columns is None:
        return "its dead letters belong to an output that is there from the start", "Declare the output's columns."
    return None
