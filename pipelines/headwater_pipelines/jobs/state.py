"""A job's keyed state while it runs: the rows of its hidden topic in a DuckDB of its own, which spills.

The topic is the truth: every put and delete is a record in the commit that publishes the step. What DuckDB holds is
read from it when the job starts, and again whenever it is not certain that both say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import duckdb
import polars as pl
import pyarrow as pa

from headwater import record, types
from headwater.catalog.records import Topic
from headwater.errors import PipelineError
from headwater.log import Log
from headwater.log.rows import CurrentRows
from headwater.schema import Schema
from headwater_pipelines.jobs.records import as_frame, to_keys, to_rows
from headwater_pipelines.jobs.room import Room

Sink = Callable[[pa.Table], None]
"""Takes the records of a change of the state."""


class KeyedState:
    """See ``headwater.JobState``."""

    def __init__(self, schema: Schema, where: str, timezone: str, room: Room) -> None:
        self.schema = schema
        self._where = where
        self._zone = timezone
        self._sink: Sink | None = None
        self._undo: list[tuple[pa.Table, pa.Table]] | None = None
        """What brings back the rows that a call has changed: their keys, and what was there."""
        self.is_broken = False
        """Whether a statement has failed: what the step has changed cannot be kept any more."""
        self._own = room.connect("state", timezone)
        columns = ", ".join(f"{types.quote(field.name)} {types.file_sql(field.type)}" for field in schema.fields)
        self._own.execute(f"CREATE TABLE kept ({columns})")

    def load(self, log: Log, topic: Topic, commit: int) -> None:
        """Take the rows that the state has at a commit."""
        current = CurrentRows(log, self._own, topic)
        lowered = ", ".join(types.lower_sql(field.name, field.type) for field in self.schema.fields)
        self._own.execute(f"INSERT INTO kept SELECT {lowered} FROM ({current.at(topic, commit)})")
        for (table,) in self._own.execute("SELECT name FROM (SHOW TABLES) WHERE name <> 'kept'").fetchall():
            self._own.execute(f"DROP TABLE {types.quote(table)}")

    # ---- one step

    def begin(self, sink: Sink) -> None:
        """What is put and deleted from now on goes to ``sink`` as well, until ``commit`` or ``rollback``."""
        self._own.execute("BEGIN")
        self._sink = sink
        self.is_broken = False

    def commit(self) -> None:
        """The step is published."""
        self._sink = None
        self._own.execute("COMMIT")

    def rollback(self) -> None:
        """The step came to nothing."""
        if self._sink is not None:
            self._sink = None
            self._own.execute("ROLLBACK")

    @contextmanager
    def whole(self) -> Iterator[None]:
        """What the block puts and deletes goes to the step as a whole, or, when it raises, not at all."""
        sink, records = self._sink, list[pa.Table]()
        assert sink is not None, "a step has begun"
        self._sink, self._undo = records.append, []
        try:
            yield
        except BaseException:
            for keys, before in reversed([] if self.is_broken else self._undo):
                self._replace(keys, before)
            raise
        finally:
            self._sink, self._undo = sink, None
        for each in records:
            sink(each)

    # ---- what a job sees

    def get(self, keys: pl.DataFrame | pl.Series) -> pl.DataFrame:
        wanted = to_keys(keys, self.schema, self._zone, self._where)
        same = " AND ".join(f"s.{each} = k.{each}" for each in map(types.quote, self.schema.key))
        return as_frame(self._ask(f"SELECT s.* FROM kept s SEMI JOIN given k ON {same}", wanted))

    def put(self, rows: pl.DataFrame) -> None:
        newest = rows.unique(subset=list(self.schema.key), keep="last", maintain_order=True)
        given = to_rows(newest, self.schema, self._zone, self._where)
        self._change(given, given, "u")

    def delete(self, keys: pl.DataFrame | pl.Series) -> None:
        there = self._there(to_keys(keys, self.schema, self._zone, self._where))
        self._change(there, there.slice(0, 0), "d")

    def __len__(self) -> int:
        ((rows,),) = self._own.execute("SELECT count(*) FROM kept").fetchall()
        return int(rows)

    def close(self) -> None:
        self._own.close()

    def _there(self, keys: pa.Table) -> pa.Table:
        """Those keys that have a row, with the whole of it: a record for any other would be in vain."""
        same = " AND ".join(f"s.{each} = k.{each}" for each in map(types.quote, self.schema.key))
        return self._ask(f"SELECT s.* FROM kept s SEMI JOIN given k ON {same}", keys)

    def _change(self, keys: pa.Table, rows: pa.Table, op: str) -> None:
        """Put ``rows`` in the place of what the keys have, and tell of it; ``keys`` are whole rows, too."""
        if self._sink is None:
            raise PipelineError("a job's state changes only while the job is called", where=self._where)
        if not keys.num_rows:
            return
        if self._undo is not None:
            self._undo.append((keys, self._there(keys)))
        self._replace(keys, rows)
        self._sink(keys.append_column(record.OP, pa.repeat(pa.scalar(op), keys.num_rows)))

    def _replace(self, keys: pa.Table, rows: pa.Table) -> None:
        same = " AND ".join(f"s.{each} = k.{each}" for each in map(types.quote, self.schema.key))
        with self._given(keys):
            self._own.execute(f"DELETE FROM kept s USING given k WHERE {same}")
        if rows.num_rows:
            columns = ", ".join(types.quote(name) for name in self.schema.names)
            with self._given(rows):
                self._own.execute(f"INSERT INTO kept SELECT {columns} FROM given")

    def _ask(self, sql: str, given: pa.Table) -> pa.Table:
        with self._given(given):
            found = self._own.sql(sql).to_arrow_table()
        return found.cast(self.schema.arrow())

    @contextmanager
    def _given(self, table: pa.Table) -> Iterator[None]:
        """The table as ``given`` in SQL."""
        self._own.register("given", table)
        try:
            yield
        except duckdb.Error:  # it ends the transaction, and a job may catch it
            self.is_broken = True
            raise
        finally:  # after an error there may be nothing to take it back from, and that error is the one to be told
            with suppress(duckdb.FatalException, duckdb.TransactionException):
                self._own.unregister("given")


class NoState:
    """The state of a job that declares none: whoever asks is told."""

    def __init__(self, job: str) -> None:
        self._job = job

    def get(self, keys: pl.DataFrame | pl.Series) -> pl.DataFrame:  # noqa: ARG002
        raise self._refusal()

    def put(self, rows: pl.DataFrame) -> None:  # noqa: ARG002
        raise self._refusal()

    def delete(self, keys: pl.DataFrame | pl.Series) -> None:  # noqa: ARG002
        raise self._refusal()

    def __len__(self) -> int:
        return 0

    def _refusal(self) -> PipelineError:
        return PipelineError(
            f"job {self._job} declares no state", todo='Add state={"id": "BIGINT", "n": "BIGINT"}, state_key="id".'
        )
