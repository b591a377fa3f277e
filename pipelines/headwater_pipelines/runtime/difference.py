"""What a view's changelog has to receive when the view is built: its rows, or how they differ from those before.

Rows are in the types of files, with the log's weight column, so that what is computed and what is stored compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from headwater.catalog.records import Topic
from headwater.log import Log, base, read
from headwater.record import WEIGHT as LOG_WEIGHT
from headwater.types import quote
from headwater_pipelines.compiler import CompiledView, maintain
from headwater_pipelines.runtime.blame import ViewFailed
from headwater_pipelines.runtime.program import Program
from headwater_pipelines.runtime.state import State

READ_ROWS_TARGET = 1_000_000
"""Of a changelog so many sealed records are read at a time."""


def parts(state: State, program: Program, view: int, before: str | None) -> Iterator[pa.Table]:
    """The view's rows minus those of the SELECT ``before``, in parts for the outbox."""
    columns = program.views[view].columns
    names = ", ".join(quote(name) for name, _ in columns)
    with program.blame(frozenset({view})):
        if before is None and program.is_large(state, [program.views[view].root]):
            yield from combined(state.parts(program.scattered(state, view)), [name for name, _ in columns])
            return
        contents = program.contents(view)
        if before is not None:
            both = f"SELECT {names}, {LOG_WEIGHT} FROM ({contents})"
            both += f" UNION ALL SELECT {names}, -{LOG_WEIGHT} FROM ({before})"
            weight = f"CAST(sum({LOG_WEIGHT}) AS BIGINT) AS {LOG_WEIGHT}"
            contents = f"SELECT {names}, {weight} FROM ({both}) GROUP BY ALL HAVING sum({LOG_WEIGHT}) <> 0"
        yield from state.parts(contents)


def combined(parts: Iterable[pa.Table], names: Sequence[str]) -> Iterator[pa.Table]:
    """The same rows; where many are equal in the first part, those equal within a part are one."""
    is_worth_it: bool | None = None
    for part in parts:
        if is_worth_it is not False:
            try:
                fewer = part.group_by(list(names), use_threads=False).aggregate([(LOG_WEIGHT, "sum")])
            except pa.ArrowNotImplementedError:  # lists and structs are no keys
                fewer = part
            is_worth_it = fewer.num_rows < part.num_rows // 2
            if is_worth_it:
                yield pa.table([fewer.column(name) for name in [*names, f"{LOG_WEIGHT}_sum"]], schema=part.schema)
                continue
        yield part


def published(log: Log, state: State, topic: Topic, commit: int) -> str:
    """A SELECT of what a changelog holds at ``commit``, read into a temporary table in bounded parts."""
    table = quote(f"published_{topic.id}")
    columns = ", ".join(f"{maintain.stored_sql(f.name, f.type)} AS {quote(f.name)}" for f in topic.schema.fields)
    found = base.newest(log, topic, commit)
    into = f"CREATE OR REPLACE TEMP TABLE {table} AS SELECT {columns}, {base.COUNT} AS {LOG_WEIGHT}"
    with read.blaming(log, [found] if found else []):
        state.temporary(f"{into} FROM ({base.relation_sql(log, topic, found)})")
    changes = read.plan(log, topic, found.commit if found else 0, commit, whole=True)
    for part in read.parts(changes, READ_ROWS_TARGET):
        source = read.relation_sql(log, state.connection, part)
        with read.blaming(log, part.segments):
            state.temporary(f"INSERT INTO {table} SELECT {columns}, {LOG_WEIGHT} FROM ({source})")
        state.connection.unregister("hot_rows")
    return f"SELECT * FROM {table}"


def require_shape(topic: Topic, compiled: CompiledView, view: int) -> None:
    """ViewFailed when a changelog cannot take the view's rows."""
    if [(field.name, field.type) for field in topic.schema.fields] != list(compiled.columns):
        raise ViewFailed("its columns are not those it was created with. Drop it and create it anew", frozenset({view}))
