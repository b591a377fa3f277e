"""The dead letters of a view with ``on_error = 'dead_letter'``: rows of its tables for which something fails.

They are letters of the view's changelog, in ``views.<name>.dlq`` like those of any topic, written in the commit that
publishes the step in which the row came. A row that is mended is in the view from then on; its letter stays until
somebody discards it. A view that is built anew writes letters of the rows that fail then and have none that is open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from headwater.client.letters import DeadLetters
from headwater.log import Log
from headwater_pipelines.compiler import CompiledView
from headwater_pipelines.compiler.plan import WEIGHT, Select
from headwater_pipelines.runtime.state import State

LETTERS_MAX = 10_000
"""Rows that may fail at once, of one table: with more something else is wrong, and the view pauses with the reason."""
MARK = "dead letters"
"""What ``Built.late`` says of a view that has letters instead of late rows."""


class TooManyLetters(Exception):
    """More rows fail than anybody would look at."""


def letters(view: CompiledView, state: State, rows: Callable[[Select], str | None]) -> Iterator[pa.Table]:
    """The letters of rows that have come, as the log takes them; ``rows``: a SELECT of those of a tree, if any."""
    for topic, tree in view.letters:
        source = rows(tree)
        found = state.query(_sql(topic, source)) if source is not None else None
        if found is not None and found.num_rows > LETTERS_MAX:
            what = f"more than {LETTERS_MAX:,} rows of {topic} fail at once, the first at {found['error_field'][0]}"
            raise TooManyLetters(what)
        if found is not None and found.num_rows:
            yield found


def fresh(log: Log, changelog: str, found: pa.Table) -> pa.Table:
    """Letters without those that are open already."""
    if changelog not in {topic.name for topic in log.topics()}:
        return found
    there = DeadLetters(log).letters(changelog, limit=LETTERS_MAX)
    known = pc.is_in(found["original"].cast(pa.binary()), value_set=there["original"].cast(pa.binary()))
    return found.filter(pc.invert(known))


def _sql(topic: str, rows: str) -> str:
    name = topic.replace("'", "''")
    return (
        f"SELECT encode(row) AS original, 'json' AS format, '{name}' AS topic, 'RowFails' AS error_class,"
        f" field || ' fails for this row' AS error_message, field AS error_field"
        f" FROM ({rows}) GROUP BY row, field HAVING sum({WEIGHT}) > 0 LIMIT {LETTERS_MAX + 1}"
    )
